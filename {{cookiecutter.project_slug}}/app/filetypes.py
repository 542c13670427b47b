"""What a file is, judged by its bytes: what a browser or a name claims is not trusted."""

import codecs
import io
import re
import unicodedata
import warnings
from contextlib import suppress
from typing import IO

from PIL import Image, ImageOps, UnidentifiedImageError

from .errors import ApiError

IMAGES = {"PNG": "image/png", "JPEG": "image/jpeg", "GIF": "image/gif", "WEBP": "image/webp"}
PDF, TEXT, UNKNOWN = "application/pdf", "text/plain", "application/octet-stream"
EXTENSIONS = {
    "image/png": [".png"],
    "image/jpeg": [".jpg", ".jpeg"],
    "image/gif": [".gif"],
    "image/webp": [".webp"],
    PDF: [".pdf"],
    TEXT: [".txt", ".md", ".csv", ".tsv", ".json", ".xml", ".yaml", ".toml", ".html", ".log"],
}
"""The types that `look` recognizes, and their file name extensions."""

MAX_PIXELS = 25_000_000
"""Checked before decoding: a WEBP with this many takes 430 MB; a JPEG may have twice as many."""
MAX_SCANS = 40
"""Scans in the largest JPEG: a camera writes 10, and as many for a second picture."""
PIECE_BYTES, FREE_PIECES = 64, 10_000
"""Pillow reads a picture in pieces, on average at least this long; millions take 10 s or 900 MB."""
PREVIEW_SIDE = 1536
NAME_CHARS = 120
JPEG, SCAN = b"\xff\xd8\xff", b"\xff\xda\0"
UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
warnings.filterwarnings("ignore", module=r"PIL\.")  # one file can cause 40,000 of them
Image.MAX_IMAGE_PIXELS = None  # for the whole process: `_preview` has a lower limit
CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")


def look(file: IO[bytes]) -> tuple[str, bytes]:
    """Return a file's type and, for an image, its preview; call it in a worker thread.

    ApiError 415 for an image that cannot be decoded, 413 for one with too many pixels.
    """
    file.seek(0)
    head = file.read(64 * 1024)
    if head.startswith(b"%PDF-"):
        return PDF, b""
    if head.startswith((JPEG, b"\x89PNG", b"GIF8", b"RIFF")):
        with suppress(UnidentifiedImageError):
            return _image(file, head)
    with suppress(UnicodeDecodeError):  # SVG and HTML are text, too
        codecs.getincrementaldecoder("utf-8")().decode(head, final=not file.read(1))
        if not CONTROL.search(head):
            return TEXT, b""
    return UNKNOWN, b""


def _image(file: IO[bytes], head: bytes) -> tuple[str, bytes]:
    """Return an image's type and its preview; UnidentifiedImageError if it is not one."""
    data, most = head + file.read(), float(MAX_PIXELS)
    if head.startswith(JPEG):  # 31 bytes can ask for another pass over its pixels
        most *= 2 / max(1, data.count(SCAN) / MAX_SCANS)
    try:
        with Image.open(_Pieces(data), formats=[*IMAGES]) as image:
            # phones append a second picture to a JPEG, which Pillow then calls MPO
            return IMAGES.get(image.format or "", "image/jpeg"), _preview(image, most)
    except (UnidentifiedImageError, ApiError):
        raise
    except Exception as error:  # a decoder may raise anything at all on a broken file
        raise ApiError(415, "file_type", "This image cannot be read: it is damaged.") from error


class _Pieces(io.BytesIO):
    """A picture that refuses to be read in endless pieces: comments, fill bytes and the like."""

    pieces = 0

    def read(self, size: int | None = -1, /) -> bytes:
        """Return the next bytes; ApiError 413 when there are too many pieces."""
        self.pieces += 1
        if (self.pieces - FREE_PIECES) * PIECE_BYTES > self.getbuffer().nbytes:
            text = "This image contains too much besides the picture."
            raise ApiError(413, "image_too_large", text)
        return super().read(size)


def _preview(image: Image.Image, most: float) -> bytes:
    """Return a JPEG that the page and the model see: bounded, upright, without its metadata.

    ApiError 413 for an image of more than `most` pixels, before it is decoded.
    """
    if image.width * image.height > most:
        text = f"Images may have up to {MAX_PIXELS // 10**6} million pixels, JPEGs twice as many."
        raise ApiError(413, "image_too_large", text)
    image.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE))  # a JPEG is decoded at a fraction of its size
    upright = ImageOps.exif_transpose(image).convert("RGBA")
    white = Image.new("RGBA", upright.size, "white")
    out = io.BytesIO()
    Image.alpha_composite(white, upright).convert("RGB").save(out, "JPEG", quality=85)
    return out.getvalue()


def display_name(name: str) -> str:
    """Return a name to show: one short line without path, control characters or direction marks."""
    last = re.split(r"[/\\]", name.rstrip("/\\ "))[-1]
    clean = "".join(c for c in last if unicodedata.category(c) not in UNSEEN).strip() or "file"
    return clean[: NAME_CHARS - 12] + clean[NAME_CHARS - 12 :][-12:]  # keeps the extension
