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
PDF, TEXT, ZIP = "application/pdf", "text/plain", "application/zip"
UNKNOWN = "application/octet-stream"
OFFICE = "application/vnd.openxmlformats-officedocument."
DOCX = f"{OFFICE}wordprocessingml.document"
XLSX = f"{OFFICE}spreadsheetml.sheet"
PPTX = f"{OFFICE}presentationml.presentation"
FOLDERS = {b"word/": DOCX, b"xl/": XLSX, b"ppt/": PPTX}
EXTENSIONS = {
    "image/png": [".png"],
    "image/jpeg": [".jpg", ".jpeg"],
    "image/gif": [".gif"],
    "image/webp": [".webp"],
    PDF: [".pdf"],
    DOCX: [".docx"],
    XLSX: [".xlsx"],
    PPTX: [".pptx"],
    ZIP: [".zip"],
    TEXT: [".txt", ".md", ".csv", ".tsv", ".json", ".xml", ".yaml", ".toml", ".html", ".log"],
}
"""The types that `look` recognizes, and their file name extensions."""
CLAIMS = {ending: kind for kind, endings in EXTENSIONS.items() for ending in endings}

MAX_PIXELS = 25_000_000
"""Checked before decoding: a WEBP with this many takes 430 MB; a JPEG may have twice as many."""
MAX_SCANS = 40
"""Scans of the largest JPEG: a camera writes 10, and as many for a second picture."""
MAX_READS = 100_000
"""Pieces in which Pillow reads a picture: the millions of a crafted one take 10 s or 900 MB."""
PREVIEW_SIDE = 1536
HEAD = 64 * 1024
NAME_CHARS = 120
JPEG, SCAN = b"\xff\xd8\xff", b"\xff\xda\0"
SIGNATURES = (JPEG, b"\x89PNG", b"GIF8", b"RIFF")
UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
warnings.filterwarnings("ignore", module=r"PIL\.")  # one file can cause 40,000
CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")


def is_image(file: IO[bytes]) -> bool:
    """Say whether a file begins as an image, which alone takes long to look at."""
    file.seek(0)
    return file.read(4).startswith(SIGNATURES)


def look(file: IO[bytes]) -> tuple[str, bytes]:
    """Return a file's type and, for an image, its preview; call it in a worker thread.

    ApiError 415 for an image that cannot be decoded, 413 for one with too many pixels.
    """
    file.seek(0)
    head = file.read(HEAD)
    if head.startswith(b"%PDF-"):
        return PDF, b""
    if head.startswith(b"PK\x03\x04"):
        # an Office document is told by the names at an archive's ends, without unpacking
        file.seek(-min(HEAD, file.seek(0, io.SEEK_END)), io.SEEK_END)
        ends = head + file.read()
        office = FOLDERS if b"[Content_Types].xml" in ends else {}
        return next((kind for folder, kind in office.items() if folder in ends), ZIP), b""
    if head.startswith(SIGNATURES):
        with suppress(UnidentifiedImageError):
            return _image(file, head)
    return (TEXT if _is_text(head) else UNKNOWN), b""


def _image(file: IO[bytes], head: bytes) -> tuple[str, bytes]:
    """Return an image's type and its preview; UnidentifiedImageError when it is none."""
    data, most, scans = head + file.read(), MAX_PIXELS, 0
    if head.startswith(JPEG):  # 31 bytes can ask for one more pass over its pixels
        most, scans = 2 * MAX_PIXELS, data.count(SCAN)
    try:
        with Image.open(_Pieces(data), formats=[*IMAGES]) as image:
            if image.width * image.height * max(1, scans / MAX_SCANS) <= most:
                # phones append a second picture to a JPEG, which Pillow then calls MPO
                return IMAGES.get(image.format or "", "image/jpeg"), _preview(image)
    except (UnidentifiedImageError, ApiError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        pass  # Pillow's own limit
    except Exception as error:  # a decoder raises anything at all on a broken file
        raise ApiError(415, "file_type", "This image cannot be read: it is damaged.") from error
    text = f"An image has {MAX_PIXELS // 1_000_000} million pixels at most, a JPEG twice as many."
    raise ApiError(413, "image_too_large", text)


class _Pieces(io.BytesIO):
    """A picture that is read in MAX_READS pieces at most: comments, fill bytes and the like."""

    reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        """Return the next bytes; ApiError 413 when there are too many pieces."""
        self.reads += 1
        if self.reads > MAX_READS:
            text = "This image carries too much besides its picture."
            raise ApiError(413, "image_too_large", text)
        return super().read(size)


def _preview(image: Image.Image) -> bytes:
    """Return a JPEG that the page and the model see: bounded, upright, without its metadata."""
    image.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE))  # a JPEG is decoded at a fraction of its size
    opaque = ImageOps.exif_transpose(image).convert("RGBA")
    canvas = Image.new("RGB", opaque.size, "white")
    canvas.paste(opaque, mask=opaque.getchannel("A"))
    out = io.BytesIO()
    canvas.save(out, "JPEG", quality=85)
    return out.getvalue()


def _is_text(head: bytes) -> bool:
    """Say whether this is the beginning of a UTF-8 text; SVG and HTML are texts, too."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return not CONTROL.search(head)


def contradicts(found: str, claimed: str, name: str) -> bool:
    """Say whether a claimed type or a file name promises something else: a zip called .png.

    Images may claim to be one another, and anything may claim to be a text.
    """
    promised = {claimed, CLAIMS.get(f".{name.rpartition('.')[2].lower()}", "")}
    same = {*IMAGES.values()} if found in IMAGES.values() else {found}
    return not (promised & {*EXTENSIONS}) <= (same | {TEXT})


def display_name(name: str) -> str:
    """Return a name to show: one short line without path, control characters or direction marks."""
    last = re.split(r"[/\\]", name.rstrip("/\\ "))[-1]
    # cut first: to normalize takes the square of its length, and may make it shorter or longer
    text = unicodedata.normalize("NFC", last[:480] + last[480:][-20:])
    clean = "".join(c for c in text if unicodedata.category(c) not in UNSEEN).strip() or "file"
    return clean[: NAME_CHARS - 12] + clean[NAME_CHARS - 12 :][-12:]  # keeps what tells the type
