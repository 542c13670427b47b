"""Files, and ways to send them."""

import io
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
from PIL import Image

from .serving import Caller

PDF = b"%PDF-1.4\n1 0 obj<<>>endobj\ntrailer<<>>\n%%EOF\n"


def picture(kind: str = "PNG", size: tuple[int, int] = (40, 20), **options: Any) -> bytes:
    """Return a small image."""
    out = io.BytesIO()
    Image.new("RGB", size, "red").save(out, kind, **options)
    return out.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    """Return a chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


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
    """Return a URL without its origin: each test listens on a port of its own."""
    parts = urlsplit(url)
    return f"{parts.path}?{parts.query}"


async def address(caller: Caller, attachment_id: str) -> str:
    """Ask for the address of a download."""
    return path_of((await caller.get(f"/files/{attachment_id}/url")).json()["url"])


async def announced(
    caller: Caller, name: str, size: int, kind: str = "text/plain"
) -> tuple[str, str]:
    """Announce a file; return its id and the address to PUT its bytes to."""
    answer = await caller.op("attachments.create", name=name, size=size, mime_type=kind)
    where = answer.json()["upload_descriptor"]
    assert where["method"] == "PUT"
    return answer.json()["id"], path_of(where["url"])


async def tried(caller: Caller, attachment_id: str) -> tuple[int, str]:
    """Begin a thread with a file; return the refusal."""
    answer = await caller.ask("look", attachments=[attachment_id])
    return answer.status_code, answer.json()["error"]["code"]


def on_disk(folder: Path) -> list[Path]:
    """Return every file that the app keeps for its users."""
    return [path for path in (folder / "files").rglob("*") if path.is_file()]
