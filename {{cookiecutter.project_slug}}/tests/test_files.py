"""Files over real HTTP: what is taken, what is refused, who gets them, what the model is given."""

import asyncio
import base64
import io
import json
import struct
import sys
import time
import zipfile
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import obstore.store
import pytest
from chatkit.store import NotFoundError
from PIL import Image

from app.attachments import Files
from app.blobs import (
    PROVIDERS,
    Blobs,
    Cloud,
    FilesError,
    Folder,
    Memory,
    key_of,
    open_blobs,
    owner_in,
)
from app.context import context_for
from app.filetypes import NAME_CHARS, PREVIEW_SIDE, display_name

from .serving import Caller, Served, Words, message, serving, settings_for, thread_of

pytestmark = pytest.mark.anyio

PDF = b"%PDF-1.4\n1 0 obj<<>>endobj\ntrailer<<>>\n%%EOF\n"
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'


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


def bomb(width: int, height: int) -> bytes:
    """Return the beginning of a PNG that says it is huge."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + head + struct.pack(">I", zlib.crc32(b"IHDR" + head))
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + b"\0\0\0\x0aIDAT" + bytes(10)


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


async def test_an_image_is_shown_and_reaches_the_model(store_url: str, tmp_path: Path) -> None:
    """Uploaded, previewed at a fresh address in every answer, given to the model as a picture."""
    async with app_for(store_url, tmp_path) as (_, caller, model):
        attachment = await sent(caller, picture(), "red.png", "image/png")
        assert (attachment["type"], attachment["mime_type"]) == ("image", "image/png")
        assert "metadata" not in attachment
        events = await caller.say("look", attachments=[attachment["id"]])
        shown = next(e["item"]["attachments"] for e in events if e["type"] == "thread.item.done")
        listed = (await caller.items(thread_of(events)))[0]["attachments"]
        async with httpx2.AsyncClient(base_url=caller.base_url, verify=False) as image_tag:
            for each in (attachment, *shown, *listed):
                preview = await image_tag.get(path_of(each["preview_url"]))
                assert preview.status_code == 200
                assert preview.headers["content-type"] == "image/jpeg"
                assert preview.headers["content-disposition"].startswith("inline")
        parts = json.dumps(model.given)
        assert '"input_image"' in parts
        assert "data:image/jpeg;base64," in parts


async def test_two_phase_upload_takes_the_bytes_once(store_url: str, tmp_path: Path) -> None:
    """`attachments.create` says where; before the bytes a message cannot have the file."""
    data = picture("JPEG")
    async with app_for(store_url, tmp_path) as (_, caller, _):
        params = {"name": "a.jpg", "size": len(data), "mime_type": "image/jpeg"}
        announced = (await caller.op("attachments.create", **params)).json()
        assert await tried(caller, announced["id"]) == (409, "file_pending")
        where = announced["upload_descriptor"]
        assert where["method"] == "PUT"
        async with httpx2.AsyncClient(base_url=caller.base_url, verify=False) as stranger:
            url = path_of(where["url"])
            assert (await stranger.put(url, content=data + b"more")).status_code == 413
            first = await stranger.put(url, content=data)
            assert first.status_code == 200, first.text
            assert "upload_descriptor" not in first.json()
            assert (await stranger.put(url, content=data)).status_code == 409
            assert (await stranger.get(path_of(first.json()["preview_url"]))).status_code == 200
        assert await caller.say("look", attachments=[announced["id"]])


@pytest.mark.parametrize(
    "case",
    [
        (b"", "empty.txt", "text/plain", 400),
        (b"x" * 3001, "long.txt", "text/plain", 413),
        (archive(), "zip.png", "image/png", 415),
        (archive(), "zip.docx", "", 415),
        (archive(), "a.zip", "application/zip", 415),
        (SVG, "svg.png", "image/svg+xml", 415),
        (b"text", "a.pdf", "application/pdf", 415),
        (b"text", "text.txt", "image/png", 415),
        (bytes(range(32)), "binary.txt", "text/plain", 415),
        (picture()[:60], "half.png", "image/png", 415),
        (bomb(30_000, 30_000), "bomb.png", "image/png", 413),
        (bomb(8_000, 8_000), "bomb.png", "image/png", 413),
    ],
)
async def test_what_is_refused_leaves_nothing(
    store_url: str, tmp_path: Path, case: tuple[bytes, str, str, int]
) -> None:
    """The answer has a reason, the disk has no file, the store no record."""
    data, name, kind, status = case
    async with app_for(store_url, tmp_path, max_file_bytes=3000) as (served, caller, _):
        answer = await send(caller, data, name, kind)
        assert answer.status_code == status, answer.text
        assert answer.json()["error"]["message"]
        assert on_disk(tmp_path) == []
        assert [owner async for owner in served.app.state.store.owners()] == []


async def test_a_form_without_a_file_is_refused(store_url: str, tmp_path: Path) -> None:
    """A wrong field, a text for a file, no form at all."""
    async with app_for(store_url, tmp_path) as (_, caller, _):
        assert (await caller.post("/files", files={"other": b"x"})).status_code == 400
        assert (await caller.post("/files", data={"file": "x"})).status_code == 415
        assert (await caller.post("/files", content=b"x")).status_code == 415
        headers = {"content-type": "multipart/form-data"}
        assert (await caller.post("/files", content=b"x", headers=headers)).status_code == 400
    async with app_for(store_url, tmp_path, max_attachments=0) as (_, caller, _):
        assert (await send(caller, b"x", "a.txt")).status_code == 501


async def test_a_header_of_5_gb_is_refused_at_once(store_url: str, tmp_path: Path) -> None:
    """Before any byte of it is sent."""
    async with app_for(store_url, tmp_path) as (served, _, _):
        head = f"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: {5 << 30}\r\n"
        assert b" 413 " in await asyncio.wait_for(raw(served, head, b""), 5)


async def test_a_body_without_a_length_is_cut_at_the_limit(store_url: str, tmp_path: Path) -> None:
    """The sender never ends; the answer comes anyway."""
    async with app_for(store_url, tmp_path, max_file_bytes=1000) as (served, _, _):
        head = "Content-Type: multipart/form-data; boundary=b\r\nTransfer-Encoding: chunked\r\n"
        part = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(c), c) for c in (part, *[b"x" * 60_000] * 2))
        assert b" 413 " in await asyncio.wait_for(raw(served, head, chunks), 5)
        assert on_disk(tmp_path) == []


async def test_half_an_upload_leaves_nothing(store_url: str, tmp_path: Path) -> None:
    """The connection ends in the middle of a file."""
    async with app_for(store_url, tmp_path) as (served, caller, _):
        host, port = urlsplit(served.url).hostname, urlsplit(served.url).port
        _, writer = await asyncio.open_connection(host, port)
        head = "POST /files HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000\r\n"
        form = "Content-Type: multipart/form-data; boundary=b\r\n\r\n--b\r\n"
        part = 'Content-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\nabc'
        writer.write((head + form + part).encode())
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        await sent(caller, b"another", "b.txt")
        assert len(on_disk(tmp_path)) == 1


async def raw(served: Served, headers: str, body: bytes) -> bytes:
    """Send a request by hand and read the beginning of the answer; never end it ourselves."""
    host, port = urlsplit(served.url).hostname, urlsplit(served.url).port
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(f"POST /files HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n".encode() + body)
    try:
        return await reader.readline()
    finally:
        writer.close()


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\temp\\a.txt", "a.txt"),
        ("a\x00\n\u202etxt.exe", "atxt.exe"),
        ("", "file"),
        ("..", ".."),
        ("\ud800.txt", ".txt"),
        ("é" * 500 + ".markdown", "é" * (NAME_CHARS - 9) + ".markdown"),
    ],
)
def test_a_name_is_only_shown(name: str, shown: str) -> None:
    """One line, no path, not long."""
    assert display_name(name) == shown


async def test_a_hostile_name_is_data(store_url: str, tmp_path: Path) -> None:
    """It names no path on the disk and breaks out of no header."""
    async with app_for(store_url, tmp_path) as (_, caller, _):
        attachment = await sent(caller, b"hello", "../../../o;n zwö.txt")
        answer = await caller.get(await address(caller, attachment["id"]))
        ascii_name, real_name = 'filename="o;n zw_.txt"', "filename*=UTF-8''o%3Bn%20zw%C3%B6.txt"
        assert answer.headers["content-disposition"] == f"attachment; {ascii_name}; {real_name}"
        keys = [path.relative_to(tmp_path / "files").as_posix() for path in on_disk(tmp_path)]
        assert len(keys) == 1
        assert owner_in(keys[0])


async def test_a_download_is_no_page(store_url: str, tmp_path: Path) -> None:
    """HTML comes back as text, to be saved, with nothing allowed."""
    async with app_for(store_url, tmp_path) as (_, caller, _):
        page = b"<html><script>alert(1)</script></html>"
        attachment = await sent(caller, page, "page.html", "text/html")
        answer = await caller.get(await address(caller, attachment["id"]))
        assert answer.content == page
        assert answer.headers["content-type"].startswith("text/plain")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-disposition"].startswith("attachment;")
        assert "sandbox" in answer.headers["content-security-policy"]
        assert answer.headers["cache-control"].startswith("private")


async def test_only_addresses_are_signed(store_url: str, tmp_path: Path) -> None:
    """Where an image stands, in a widget too; what somebody wrote stays as it is."""
    async with app_for(store_url, tmp_path) as (served, _, _):
        links, context = served.app.state.files.links, context_for("a")
        signed = json.loads(links.sign(b'{"src":"preview:atc_1"}', context))["src"]
        assert links.opened(signed.partition("token=")[2], "preview", "atc_1") == context
        for text in (b'{"text":"preview:atc_1"}', json.dumps({"t": '"src":"preview:a"'}).encode()):
            assert links.sign(text, context) == text


async def test_an_address_is_for_one_file_one_purpose_and_a_while(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Changed in any part, or too old: 404."""
    async with app_for(store_url, tmp_path) as (_, caller, _):
        one = await sent(caller, picture(), "a.png")
        two = await sent(caller, picture(), "b.png")
        url = await address(caller, one["id"])
        token = url.partition("token=")[2]
        for wrong in (
            url.replace(one["id"], two["id"]),
            url.replace("?", "/preview?"),
            url[:-1],
            f"/files/{one['id']}?token=",
            f"/files/{one['id']}?token=%ff{token}",
        ):
            assert (await caller.get(wrong)).status_code == 404, wrong
        assert (await caller.put(url, content=b"x")).status_code == 404
        assert (await caller.get(url)).status_code == 200
        later = time.time() + 2 * 1800
        monkeypatch.setattr("app.links.time.time", lambda: later)
        assert (await caller.get(url)).status_code == 404


async def test_a_foreign_file_is_an_unknown_file(store_url: str, tmp_path: Path) -> None:
    """Its address, its use and its deletion answer alike, byte for byte, and change nothing."""
    same = {"x-request-id": "same"}
    async with app_for(store_url, tmp_path) as (served, alice, _):
        theirs = (await sent(alice, picture(), "a.png"))["id"]
        async with served.caller(**same) as bob:
            answers = []
            for each in (theirs, "atc_none"):
                kind, params = message("look", attachments=[each])
                answers.append(
                    [
                        (answer.status_code, answer.content)
                        for answer in (
                            await bob.get(f"/files/{each}/url"),
                            await bob.op("attachments.delete", attachment_id=each),
                            await bob.op(kind, **params),
                        )
                    ]
                )
            assert answers[0] == answers[1]
            assert [status for status, _ in answers[0]] == [404, 200, 404]
            assert (await bob.op("threads.list")).json()["data"] == []
        assert (await alice.get(await address(alice, theirs))).status_code == 200


async def test_a_file_of_one_thread_is_refused_in_another(store_url: str, tmp_path: Path) -> None:
    """In its own thread it may be sent again; a refusal leaves no empty thread behind."""
    async with app_for(store_url, tmp_path) as (_, caller, _):
        attachment = (await sent(caller, b"hello", "a.txt"))["id"]
        thread = thread_of(await caller.say("read", attachments=[attachment]))
        assert await tried(caller, attachment) == (409, "file_used")
        assert len((await caller.op("threads.list")).json()["data"]) == 1
        await caller.say("again", thread, attachments=[attachment])


async def test_all_files_of_a_user_have_a_quota(store_url: str, tmp_path: Path) -> None:
    """Also for uploads side by side and announced ones; what is deleted counts no more."""
    async with app_for(store_url, tmp_path, max_user_file_bytes=1000) as (_, caller, _):
        await caller.op("threads.list")  # the cookie, before uploads run side by side
        answers = await asyncio.gather(*(send(caller, b"x" * 300, "a.txt") for _ in range(5)))
        assert sorted(a.status_code for a in answers) == [200, 200, 200, 413, 413]
        params = {"name": "b.txt", "size": 300, "mime_type": "text/plain"}
        assert (await caller.op("attachments.create", **params)).status_code == 413
        kept = next(a for a in answers if a.status_code == 200).json()["id"]
        await caller.op("attachments.delete", attachment_id=kept)
        assert (await caller.op("attachments.create", **params)).status_code == 200
        assert (await send(caller, b"x" * 300, "c.txt")).status_code == 413


async def test_a_deleted_thread_takes_its_files_along(store_url: str, tmp_path: Path) -> None:
    """Bytes and previews; other files stay."""
    async with app_for(store_url, tmp_path) as (_, caller, _):
        attachment = await sent(caller, picture(), "a.png")
        thread = thread_of(await caller.say("look", attachments=[attachment["id"]]))
        assert len(on_disk(tmp_path)) == 2
        other = await sent(caller, b"stay", "b.txt")
        assert (await caller.op("threads.delete", thread_id=thread)).status_code == 200
        assert (await caller.get(f"/files/{attachment['id']}/url")).status_code == 404
        assert len(on_disk(tmp_path)) == 1
        assert (await caller.get(await address(caller, other["id"]))).content == b"stay"


async def test_sweep_removes_what_no_message_has(store_url: str, tmp_path: Path) -> None:
    """Uploads never sent and bytes without a record go after a day; what is used stays."""
    async with app_for(store_url, tmp_path) as (served, caller, _):
        files: Files = served.app.state.files
        used = await sent(caller, picture(), "used.png")
        await caller.say("look", attachments=[used["id"]])
        await sent(caller, b"never sent", "a.txt")
        await files.blobs.put(key_of("nobody", "atc_lost"), io.BytesIO(b"lost"))
        foreign = tmp_path / "files" / "attachments" / "README"
        foreign.write_text("not ours")
        assert await files.sweep() == (0, 0)
        assert await files.sweep(age=-2) == (1, 1)  # as if it were two seconds later
        assert foreign.exists()
        assert len(on_disk(tmp_path)) == 3
        assert (await caller.get(await address(caller, used["id"]))).status_code == 200


async def test_the_model_is_given_what_it_can_read(store_url: str, tmp_path: Path) -> None:
    """A PDF whole, a text up to the limit, anything else by its description."""
    kinds = ["application/pdf", "text/plain", "application/zip"]
    async with app_for(store_url, tmp_path, file_types=kinds, max_text_chars=5) as (_, caller, m):
        ids = [
            (await sent(caller, PDF, "a.pdf"))["id"],
            (await sent(caller, "\ufeffgrüße, alle".encode(), "b.txt"))["id"],
            (await sent(caller, archive(), "c.zip"))["id"],
        ]
        await caller.say("read", attachments=ids)
        pdf, text, other = m.given[0][-1]["content"][-3:]
        assert pdf["type"] == "input_file"
        assert pdf["file_data"] == f"data:application/pdf;base64,{base64.b64encode(PDF).decode()}"
        assert text["text"] == 'The file "b.txt":\ngrüße\n(cut after 5 characters)'
        assert "application/zip" in other["text"]


async def test_a_file_that_is_gone_does_not_break_the_thread(
    store_url: str, tmp_path: Path
) -> None:
    """The model is told; the conversation goes on."""
    async with app_for(store_url, tmp_path) as (_, caller, model):
        attachment = (await sent(caller, picture(), "a.png"))["id"]
        thread = thread_of(await caller.say("look", attachments=[attachment]))
        await caller.op("attachments.delete", attachment_id=attachment)
        await caller.say("and now", thread)
        assert "no longer there" in json.dumps(model.given[-1])


async def test_a_preview_is_upright_bounded_and_says_no_place(
    store_url: str, tmp_path: Path
) -> None:
    """Turned as its EXIF says, then without EXIF; transparent becomes white."""
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    exif.get_ifd(0x8825)[1] = "N"  # GPS
    async with app_for(store_url, tmp_path) as (_, caller, _):
        data = picture("JPEG", (4000, 2000), exif=exif.tobytes())
        attachment = await sent(caller, data, "photo.jpg")
        preview = await caller.get(path_of(attachment["preview_url"]))
        with Image.open(io.BytesIO(preview.content)) as shown:
            assert shown.size == (PREVIEW_SIDE // 2, PREVIEW_SIDE)
            assert not shown.getexif()
        clear = io.BytesIO()
        Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(clear, "PNG")
        attachment = await sent(caller, clear.getvalue(), "clear.png")
        preview = await caller.get(path_of(attachment["preview_url"]))
        with Image.open(io.BytesIO(preview.content)) as shown:
            assert shown.getpixel((4, 4)) == (255, 255, 255)


@pytest.fixture(params=["folder", "memory", "cloud"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Blobs:
    """Each place for bytes; the cloud's is obstore's own memory."""
    if request.param == "folder":
        return Folder(tmp_path)
    if request.param == "memory":
        return Memory()
    monkeypatch.setitem(PROVIDERS, "memory", "MEMORY")
    cloud = Cloud("memory://")
    assert isinstance(cloud._bucket, obstore.store.MemoryStore)
    return cloud


async def test_bytes_come_back_from_every_place(blobs: Blobs) -> None:
    """Written, replaced, listed, deleted; twice deleted is no error."""
    key, long = key_of("a/b\0c", "atc_1"), key_of("o" * 300, "../x", ".preview")
    for name, data in ((key, b"old"), (key, b"new"), (long, b"x" * 6_000_000)):
        await blobs.put(name, io.BytesIO(data))
    assert [chunk async for chunk in blobs.read(key)] == [b"new"]
    assert sum([len(chunk) async for chunk in blobs.read(long)]) == 6_000_000
    assert {k async for k in blobs.keys("attachments", time.time() + 60)} == {key, long}
    assert [k async for k in blobs.keys(key_of("a/b\0c"), time.time() + 60)] == [key]
    assert [k async for k in blobs.keys("attachments", time.time() - 60)] == []
    for _ in range(2):
        await blobs.delete(key)
    with pytest.raises(NotFoundError):
        await anext(blobs.read(key))


def test_a_key_names_its_owner_and_stays_a_plain_path() -> None:
    """Whatever the owner and the id hold."""
    for owner in ("alice", "a/../b", "\0", "ü|sub", "\ud800", "o" * 300):
        key = key_of(owner, "../atc\n", ".preview")
        assert owner_in(key) == owner
        assert set(key) <= set("attachments/0123456789abcdef.preview")
        assert all(len(name) < 250 for name in key.split("/"))
    assert owner_in("attachments/README") is None


async def test_a_write_that_fails_leaves_no_file(tmp_path: Path) -> None:
    """A reader that breaks in the middle."""

    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise OSError("the disk is gone")

    with pytest.raises(OSError, match="gone"):
        await Folder(tmp_path / "files").put(key_of("a", "b"), Broken())
    assert on_disk(tmp_path) == []


def test_a_wrong_files_url_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says which setting to change."""
    for wrong in ("ftp://host/a", "memory", "file", "s3"):
        with pytest.raises(FilesError, match=rf"^FILES_URL begins with '{wrong[:2]}.*$"):
            open_blobs(wrong, tmp_path)
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(FilesError, match=r"^FILES_URL=s3://bucket needs obstore.*$"):
        open_blobs("s3://bucket", tmp_path)
