"""Files to send, and an app to send them to."""

import io
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
from PIL import Image

from .serving import Caller, Served, Words, message, serving, settings_for

PDF = b"%PDF-1.4\n1 0 obj<<>>endobj\ntrailer<<>>\n%%EOF\n"


def picture(kind: str = "PNG", size: tuple[int, int] = (40, 20), **options: Any) -> bytes:
    """Return a small image."""
    out = io.BytesIO()
    Image.new("RGB", size, "red").save(out, kind, **options)
    return out.getvalue()


def archive() -> bytes:
    """Return a zip with one file."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as written:
        written.writestr("a.txt", "hello")
    return out.getvalue()


async def send(caller: Caller, data: bytes, name: str, kind: str = "") -> httpx2.Response:
    """Upload directly, as ChatKit does."""
    return await caller.post("/files", files={"file": (name, data, kind or None)})


async def sent(caller: Caller, data: bytes, name: str, kind: str = "") -> dict[str, Any]:
    """Upload and return the attachment."""
    answer = await send(caller, data, name, kind)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def path_of(url: str) -> str:
    """Return an address without its origin: tests listen on a port of their own."""
    parts = urlsplit(url)
    return f"{parts.path}?{parts.query}"


async def address(caller: Caller, attachment_id: str) -> str:
    """Ask for a download's address."""
    return path_of((await caller.get(f"/files/{attachment_id}/url")).json()["url"])


async def tried(caller: Caller, attachment_id: str) -> tuple[int, str]:
    """Begin a thread with a file; return the refusal."""
    kind, params = message("look", attachments=[attachment_id])
    answer = await caller.op(kind, **params)
    return answer.status_code, answer.json()["error"]["code"]


def on_disk(folder: Path) -> list[Path]:
    """Return every file that the app keeps for its users."""
    return [path for path in (folder / "files").rglob("*") if path.is_file()]


@asynccontextmanager
async def app_for(
    store_url: str, folder: Path, **changes: Any
) -> AsyncIterator[tuple[Served, Caller, Words]]:
    """Serve an app; yield it, a browser and the model."""
    model = Words(3, 0)
    async with serving(settings_for(store_url, folder, **changes), model) as served:
        async with served.caller() as caller:
            yield served, caller, model
