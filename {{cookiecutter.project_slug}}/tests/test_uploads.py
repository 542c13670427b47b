"""Uploads over real HTTP: what is taken, what is refused, what a refusal leaves."""

import asyncio
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from chatkit.types import Attachment

from app.blobs import owner_in
from app.context import RequestContext
from app.filetypes import NAME_CHARS, display_name

from .sending import (
    address,
    announced,
    archive,
    chunk,
    on_disk,
    path_of,
    picture,
    send,
    sent,
    tried,
)
from .serving import Served, until
from .talking import talking

pytestmark = pytest.mark.anyio


def bomb(width: int, height: int) -> bytes:
    """Return the beginning of a PNG that claims to be huge."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + b"\0\0\0\x0aIDAT" + bytes(10)


async def raw(served: Served, headers: str, body: bytes) -> bytes:
    """Send a request by hand, never end it, and read the beginning of the answer."""
    host, port = urlsplit(served.url).hostname, urlsplit(served.url).port
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(f"POST /files HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n".encode() + body)
    try:
        return await reader.readline()
    finally:
        writer.close()


async def test_two_phase_upload_takes_the_bytes_once(store_url: str, tmp_path: Path) -> None:
    """`attachments.create` says where; no message can have the file before its bytes."""
    data = picture("JPEG")
    async with talking(store_url, tmp_path) as caller:
        file, url = await announced(caller, "a.jpg", len(data), "image/jpeg")
        assert await tried(caller, file) == (409, "file_pending")
        async with caller.served.caller() as stranger:
            assert (await stranger.put(url, content=data + b"more")).status_code == 413
            first = await stranger.put(url, content=data)
            assert first.status_code == 200, first.text
            assert "upload_descriptor" not in first.json()
            assert (await stranger.put(url, content=data)).status_code == 409
            assert (await stranger.get(path_of(first.json()["preview_url"]))).status_code == 200
        assert await caller.say("look", attachments=[file])


async def test_a_try_that_ends_late_does_not_harm_the_one_that_succeeded(
    store_url: str, tmp_path: Path
) -> None:
    """A client tries again, and sends the file in a message before its first try has ended."""
    begun, second = asyncio.Event(), asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield b"hel"
        begun.set()
        await second.wait()
        yield b"xx"

    async with talking(store_url, tmp_path) as caller:
        file, url = await announced(caller, "a.txt", 5)
        async with caller.served.caller() as other:
            first = asyncio.create_task(other.put(url, content=slowly()))
            await begun.wait()
            assert (await caller.put(url, content=b"hello")).status_code == 200
            await caller.say("read", attachments=[file])
            second.set()
            assert (await first).status_code in (409, 413)
        assert (await caller.get(await address(caller, file))).content == b"hello"


@pytest.mark.parametrize(
    "case",
    [
        (b"", "empty.txt", "text/plain", 400),
        (b"x" * 3001, "long.txt", "text/plain", 413),
        (b"x" * 30_000_000, "a connection closed on the rest loses the reason.txt", "", 413),
        (archive(), "zip.png", "image/png", 415),
        (archive(), "zip.docx", "", 415),
        (archive(), "a.zip", "application/zip", 415),
        (bytes(range(32)), "binary.txt", "text/plain", 415),
        ("café".encode("latin-1"), "no UTF-8.txt", "text/plain", 415),
        (picture()[:60], "half.png", "image/png", 415),
        (bomb(30_000, 30_000), "bomb.png", "image/png", 413),
        (bomb(6_000, 6_000), "bomb.png", "image/png", 413),
    ],
)
async def test_what_is_refused_leaves_nothing(
    store_url: str, tmp_path: Path, case: tuple[bytes, str, str, int]
) -> None:
    """The answer has a reason, the disk has no file, the store no record."""
    data, name, kind, status = case
    async with talking(store_url, tmp_path, max_file_bytes=3000) as caller:
        answer = await send(caller, data, name, kind)
        assert answer.status_code == status, answer.text
        assert answer.json()["error"]["message"]
        assert on_disk(tmp_path) == []
        assert [owner async for owner in caller.served.store.owners()] == []


async def test_tries_at_an_upload_address_are_limited(store_url: str, tmp_path: Path) -> None:
    """Each try may make the app open a picture."""
    async with talking(store_url, tmp_path, requests_per_minute=5) as caller:
        _, put = await announced(caller, "a.txt", 4)
        statuses = [(await caller.put(put, content=b"\0\1\2\3")).status_code for _ in range(6)]
    assert (statuses[0], statuses[-1]) == (415, 429)


async def test_an_announced_file_is_checked_as_well(store_url: str, tmp_path: Path) -> None:
    """An announced type is trusted no more than a name."""
    async with talking(store_url, tmp_path) as caller:
        _, url = await announced(caller, "a.png", len(archive()), "image/png")
        for data, status in ((archive(), 415), (archive()[1:], 400), (b"", 400)):
            assert (await caller.put(url, content=data)).status_code == status
        assert on_disk(tmp_path) == []
        svg = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
        _, url = await announced(caller, "a.svg", len(svg), "image/svg+xml")
        taken = (await caller.put(url, content=svg)).json()
        assert (taken["type"], taken["mime_type"]) == ("file", "text/plain")


async def test_a_file_whose_record_cannot_be_stored_leaves_nothing(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its bytes are stored before the record is."""
    async with talking(store_url, tmp_path) as caller:
        save = caller.served.store.save_attachment

        async def away(attachment: Attachment, context: RequestContext) -> None:
            if attachment.upload_descriptor is None:
                raise ConnectionError
            await save(attachment, context)

        monkeypatch.setattr(caller.served.store, "save_attachment", away)
        assert (await send(caller, picture(), "a.png")).status_code == 503
        assert on_disk(tmp_path) == []
        assert [owner async for owner in caller.served.store.owners()] == []


async def test_a_quota_also_limits_the_number_of_files(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each upload reads the records of all files."""
    async with talking(store_url, tmp_path) as caller:
        await sent(caller, b"x", "a.txt")
        context = await caller.served.first_user()
        (found,) = await caller.served.store.load_attachments(None, context)

        async def many(*_: object) -> list[Attachment]:
            return [found.model_copy(update={"thread_id": "t"})] * 5001

        monkeypatch.setattr(caller.served.store, "load_attachments", many)
        answer = await send(caller, b"x", "b.txt")
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "quota")
    assert "files of 500 MB in all" in answer.json()["error"]["message"]


async def test_uploads_of_one_user_arrive_four_at_a_time(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each fills a temporary file before it can be checked."""
    async with talking(store_url, tmp_path) as caller:
        await caller.op("threads.list")  # get the cookie before the parallel uploads
        files, under_way, most = caller.served.app.state.files, 0, 0
        receive = files.receive

        async def slowly(*arguments: Any) -> Any:
            nonlocal under_way, most
            under_way += 1
            most = max(most, under_way)
            await until(lambda: most >= 4)  # however slow the machine is
            await asyncio.sleep(0.05)
            under_way -= 1
            return await receive(*arguments)

        monkeypatch.setattr(files, "receive", slowly)
        answers = await asyncio.gather(*(send(caller, b"x", "a.txt") for _ in range(9)))
    assert {answer.status_code for answer in answers} == {200}
    assert most == 4


async def test_a_form_without_a_file_is_refused(store_url: str, tmp_path: Path) -> None:
    """A wrong field, text in place of a file, no form at all."""
    async with talking(store_url, tmp_path) as caller:
        assert (await caller.post("/files", files={"other": b"x"})).status_code == 400
        text = await caller.post("/files", data={"file": "x"})  # 20 MB of `&` would take seconds
        assert (text.status_code, text.json()["error"]["code"]) == (400, "form")
        assert (await caller.post("/files", content=b"x")).status_code == 400
        long = {"text": "x" * 2000}  # decoding it might take minutes
        answer = await caller.post("/files", data=long, files={"file": b"x"})
        assert answer.status_code == 400
        headers = {"content-type": "multipart/form-data"}
        assert (await caller.post("/files", content=b"x", headers=headers)).status_code == 400
    async with talking(store_url, tmp_path, max_attachments=0) as caller:
        assert (await send(caller, b"x", "a.txt")).status_code == 501
        params = {"name": "a.txt", "size": 1, "mime_type": "text/plain"}
        assert (await caller.op("attachments.create", **params)).status_code == 501


async def test_a_header_of_5_gb_is_refused_at_once(store_url: str, tmp_path: Path) -> None:
    """Before any byte of the body is sent."""
    async with talking(store_url, tmp_path) as caller:
        head = f"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: {5 << 30}\r\n"
        assert b" 413 " in await asyncio.wait_for(raw(caller.served, head, b""), 5)


async def test_an_upload_that_stops_arriving_is_given_up(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise four of them would keep their user from sending a fifth."""
    monkeypatch.setattr("app.uploads.SILENT_SECONDS", 0.1)
    async with talking(store_url, tmp_path) as caller:
        head = "Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 100\r\n"
        assert b" 408 " in await asyncio.wait_for(raw(caller.served, head, b"--b"), 5)


async def test_a_body_without_a_length_is_cut_at_the_limit(store_url: str, tmp_path: Path) -> None:
    """The sender never stops; the answer comes anyway."""
    async with talking(store_url, tmp_path, max_file_bytes=1000) as caller:
        head = "Content-Type: multipart/form-data; boundary=b\r\nTransfer-Encoding: chunked\r\n"
        part = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(c), c) for c in (part, *[b"x" * 60_000] * 2))
        assert b" 413 " in await asyncio.wait_for(raw(caller.served, head, chunks), 5)
        assert on_disk(tmp_path) == []


@pytest.mark.parametrize("way", ["direct", "two_phase"])
async def test_half_an_upload_leaves_nothing(store_url: str, tmp_path: Path, way: str) -> None:
    """The connection ends in the middle of a file."""
    async with talking(store_url, tmp_path) as caller:
        host, port = urlsplit(caller.served.url).hostname, urlsplit(caller.served.url).port
        _, writer = await asyncio.open_connection(host, port)
        common = "HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000\r\n"
        form = "Content-Type: multipart/form-data; boundary=b\r\n\r\n--b\r\n"
        part = 'Content-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\nabc'
        if way == "direct":
            writer.write(f"POST /files {common}{form}{part}".encode())
        else:
            _, url = await announced(caller, "a.txt", 5000)
            writer.write(f"PUT {url} {common}\r\nabc".encode())
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        await sent(caller, b"another", "b.txt")
        assert len(on_disk(tmp_path)) == 1


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
        ("\u200b" * 150 + "invoice of 2026.txt", "invoice of 2026.txt"),
    ],
)
def test_a_file_name_is_cleaned_for_display(name: str, shown: str) -> None:
    """One line, no path, not too long."""
    assert display_name(name) == shown


async def test_a_hostile_name_is_data(store_url: str, tmp_path: Path) -> None:
    """It becomes no path on the disk and cannot break out of a header."""
    async with talking(store_url, tmp_path) as caller:
        attachment = await sent(caller, b"hello", "../../../o;n zwö.txt")
        answer = await caller.get(await address(caller, attachment["id"]))
        name = "filename*=UTF-8''o%3Bn%20zw%C3%B6.txt"
        assert answer.headers["content-disposition"] == f"attachment; {name}"
        keys = [path.relative_to(tmp_path / "files").as_posix() for path in on_disk(tmp_path)]
        assert len(keys) == 1
        assert owner_in(keys[0])
