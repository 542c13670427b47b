"""What a file is: large pictures, and pictures made to cost much work."""

import io
import re
import struct
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from app.errors import ApiError
from app.filetypes import IMAGES, look

from .sending import address, chunk, picture, sent
from .talking import talking

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("kind", IMAGES)
def test_each_kind_of_image_is_recognised_by_its_bytes(kind: str) -> None:
    """And each has a preview."""
    found, preview = look(io.BytesIO(picture(kind)))
    assert (found, look(io.BytesIO(preview))[0]) == (IMAGES[kind], "image/jpeg")


async def test_a_photo_of_50_million_pixels_is_taken(store_url: str, tmp_path: Path) -> None:
    """Only a fraction of a JPEG is decoded."""
    async with talking(store_url, tmp_path) as caller:
        await sent(caller, picture("JPEG", (8000, 6000)), "photo.jpg")


def with_scans(count: int, side: int) -> io.BytesIO:
    """Return a progressive JPEG that repeats its last scan; each is another pass over it all."""
    data = picture("JPEG", (side, side), progressive=True)
    last = data[[found.start() for found in re.finditer(b"\xff\xda", data)][-1] : -2]
    return io.BytesIO(data[:-2] + last * count + data[-2:])


def test_a_jpeg_of_two_hundred_scans_is_refused_at_once() -> None:
    """A few bytes would keep everybody's uploads waiting for seconds."""
    with pytest.raises(ApiError) as refused:
        look(with_scans(200, 4000))
    assert refused.value.status == 413


def test_a_small_jpeg_may_have_many_scans() -> None:
    """They cost little there; a large one may have as many as a camera writes, twice over."""
    assert look(with_scans(1000, 40))[0] == "image/jpeg"
    assert look(with_scans(20, 4000))[0] == "image/jpeg"


@pytest.mark.parametrize(
    ("kind", "begin", "note", "end"),
    [
        ("JPEG", b"", b"\xff\xfe\0\2", b""),  # comments
        ("JPEG", b"", b"\xff", b""),  # padding
        ("GIF", b"", b"!\xfe\1x\0", b""),
        ("GIF", b"!\xfe", b"\1x", b"\0"),  # one comment of many parts
        ("PNG", b"", chunk(b"aaAa", b""), b""),
    ],
)
def test_an_image_with_endless_comments_is_refused(
    kind: str, begin: bytes, note: bytes, end: bytes
) -> None:
    """Pillow reads them one by one: 20 MB of them take 10 s or 900 MB. A few are normal."""
    data = picture(kind, (8, 8))
    behind_colours = 13 + 3 * (2 << (data[10] & 7))
    place = {"JPEG": 2, "PNG": 33, "GIF": behind_colours}[kind]
    head, rest = data[:place] + begin, end + data[place:]
    assert look(io.BytesIO(head + note * 1000 + rest))[1]
    with pytest.raises(ApiError) as refused:
        look(io.BytesIO(head + note * 100_000 + rest))
    assert refused.value.status == 413


def test_a_large_image_may_be_in_small_pieces() -> None:
    """Some programs write a PNG's pixels in chunks of 256 bytes: 15 MB are 60,000 of them."""
    side = 3900
    pixels = zlib.compress((b"\0" + bytes(side)) * side, 0)
    pieces = [chunk(b"IDAT", pixels[at : at + 256]) for at in range(0, len(pixels), 256)]
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    data = b"".join([b"\x89PNG\r\n\x1a\n", head, *pieces, chunk(b"IEND", b"")])
    assert look(io.BytesIO(data))[0] == "image/png"


async def test_a_download_that_breaks_off_is_logged_with_its_request(
    store_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its status has been sent by then, but the log must not call it a success."""
    caplog.set_level("INFO", "app.request")

    async def broken(_: str) -> AsyncIterator[bytes]:
        yield b"hel"
        raise OSError("the disk is gone")

    async with talking(store_url, tmp_path) as caller:
        url = await address(caller, (await sent(caller, b"hello", "a.txt"))["id"])
        monkeypatch.setattr(caller.served.app.state.files.blobs, "read", broken)
        with pytest.raises(httpx2.RemoteProtocolError):
            await caller.get(url, headers={"X-Request-ID": "req-1"})
    noted = [vars(record) for record in caplog.records if "request_id" in vars(record)]
    fault, line = [each for each in noted if each["request_id"] == "req-1"]
    assert (fault["cause"], line["status"]) == ("OSError", 503)
