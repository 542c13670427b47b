"""Where the bytes of files lie: a local folder, or S3, GCS, Azure and memory through obstore.

A key is a path of plain names, so no name that a user chose ever reaches a file system. Each place
has the same four methods: `put` stores an open file from its current position, all of it or
nothing; `read` yields chunks, or raises FileNotFoundError before the first; `delete` ignores a key
that does not exist; `keys` lists the keys below a folder that were written before a time, given in
seconds since 1970.
"""

import atexit
import os
import re
import secrets
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path, PurePath
from typing import IO

import anyio
from anyio import to_thread

CHUNK = 256 * 1024
FOLDER = "attachments"
KEY = re.compile(FOLDER + r"/((?:(?:[0-9a-f]{2})+/)+)[0-9a-f]+(?:\.\w+)*")
PARTS = ("", ".preview")  # the objects of a file: its own bytes and, for an image, a preview
PROVIDERS = {"s3": "AWS", "gs": "GOOGLE", "az": "AZURE", "memory": "MEMORY"}  # by scheme
PATIENCE = {"CONNECT_TIMEOUT": "3s", "READ_TIMEOUT": "10s", "TIMEOUT": "1h"}
"""obstore's timeouts: to connect, between bytes, for a whole transfer (slow as a user's)."""


class FilesError(RuntimeError):
    """Files cannot be kept: one line that says which setting to change."""


def key_of(owner: str, attachment_id: str = "", part: str = "") -> str:
    """Return the key of an object: in hex, so that any owner and any id is a plain path."""
    name = owner.encode("utf-8", "surrogatepass").hex()
    folders = [name[at : at + 200] for at in range(0, len(name), 200)]
    return "/".join(filter(None, [FOLDER, *folders, attachment_id.encode().hex() + part]))


def owner_in(key: str) -> str | None:
    """Return the owner whose bytes lie under a key; None when the object is not ours."""
    found = KEY.fullmatch(key)
    owner = found[1].replace("/", "") if found else ""
    return bytes.fromhex(owner).decode("utf-8", "surrogatepass") if owner else None


class Folder:
    """Plain files below a folder; the disk is only touched in worker threads."""

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()

    async def put(self, key: str, file: IO[bytes]) -> None:
        """Write under another name, then rename."""
        await to_thread.run_sync(self._put, self._root / key, file)

    def _put(self, path: Path, file: IO[bytes]) -> None:
        draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
        try:
            with _create(draft) as out:
                shutil.copyfileobj(file, out, CHUNK)
                out.flush()
                os.fsync(out.fileno())
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)

    async def read(self, key: str) -> AsyncIterator[bytes]:
        """Yield the file's bytes."""
        async with await anyio.open_file(self._root / key, "rb") as file:
            while chunk := await file.read(CHUNK):
                yield chunk

    async def delete(self, key: str) -> None:
        """Remove the file, and its folders with the last one: their names are the owner's."""
        path = anyio.Path(self._root, key)
        await path.unlink(missing_ok=True)
        with suppress(OSError):  # one is not empty
            for folder in PurePath(key).parents[:-2]:
                await anyio.Path(self._root, folder).rmdir()

    async def keys(self, prefix: str, before: float) -> AsyncIterator[str]:
        """Yield paths below the folder, one after the other."""
        folders = os.walk(self._root / prefix)
        while found := await to_thread.run_sync(next, folders, None):
            folder, _, names = found
            for name in names:
                path = anyio.Path(folder, name)
                with suppress(FileNotFoundError):  # deleted meanwhile
                    if (await path.stat()).st_mtime < before:
                        yield path.relative_to(self._root).as_posix()


def _create(path: Path) -> IO[bytes]:
    """Open a new file, again if a delete took its empty folder away in between."""
    for _ in range(9):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with suppress(FileNotFoundError):
            return path.open("xb")
    return path.open("xb")


class Cloud:
    """A bucket, with the credentials that its provider's environment variables name.

    One that does not answer is an error after 10 seconds; obstore alone would try for 3 minutes.
    """

    def __init__(self, url: str) -> None:
        provider = PROVIDERS[url.partition("://")[0]]
        for name, value in PATIENCE.items():  # as arguments they would hide AWS_ALLOW_HTTP and such
            os.environ.setdefault(f"{provider}_{name}", value)
        try:
            from obstore import store  # noqa: PLC0415 - an optional extra

            self._bucket = store.from_url(url, retry_config={"retry_timeout": timedelta(seconds=6)})
        except ImportError:
            raise FilesError(f"FILES_URL={url} needs obstore: install the extra `cloud`") from None
        except Exception as error:  # obstore has an exception of its own for each provider
            raise FilesError(f"FILES_URL={url}: {str(error).splitlines()[0]}") from error
        atexit.register(time.sleep, 0.1)  # obstore 0.12 aborts if its last thread outlives Python

    async def put(self, key: str, file: IO[bytes]) -> None:
        """Upload, in parts when the file is long."""
        await self._bucket.put_async(key, file)

    async def read(self, key: str) -> AsyncIterator[bytes]:
        """Yield the object's bytes as they arrive."""
        found = await self._bucket.get_async(key)
        async for chunk in found.stream(CHUNK):
            yield bytes(chunk)

    async def delete(self, key: str) -> None:
        """Remove the object if it is there."""
        with suppress(FileNotFoundError):
            await self._bucket.delete_async(key)

    async def keys(self, prefix: str, before: float) -> AsyncIterator[str]:
        """Yield the objects' keys, page by page."""
        async for page in self._bucket.list(prefix):
            for found in page:
                if found["last_modified"].timestamp() < before:
                    yield found["path"]


Blobs = Folder | Cloud


def open_blobs(url: str, folder: Path) -> Blobs:
    """Return the place that FILES_URL names, the folder when it names none, or raise FilesError."""
    if not url:
        return Folder(folder)
    scheme, separator, path = url.partition("://")
    if separator and scheme == "file":
        return Folder(Path(path))
    if separator and scheme in PROVIDERS:
        return Cloud(url)
    known = "write file:///folder, s3://…, gs://…, az://… or memory://"
    raise FilesError(f"FILES_URL begins with {scheme!a}: {known}")
