"""Where the bytes of files are kept: a local folder, or S3, GCS, Azure or memory by obstore.

A key is a path of plain names, so no name that a user chose ever reaches a file system. Each place
has the same four methods: `put` stores an open file from its current position, all of it or
nothing; `read` yields chunks, or raises FileNotFoundError before the first; `delete` ignores a key
that does not exist; `keys` lists the keys below a folder that were written before a time, given in
seconds since 1970.
"""

import atexit
import os
import secrets
import shutil
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path, PurePath
from typing import IO

import anyio

from .store import StoreError

CHUNK = 256 * 1024
FOLDER = "attachments"
PARTS = ("", ".preview")  # the objects of a file: its own bytes and, for an image, a preview
PROVIDERS = {"s3": "AWS", "gs": "GOOGLE", "az": "AZURE", "memory": "MEMORY"}  # by scheme
PATIENCE = {"CONNECT_TIMEOUT": "3s", "READ_TIMEOUT": "10s", "TIMEOUT": "1h"}
"""obstore's timeouts: to connect, between bytes, for a whole transfer (as slow as the user's)."""


def key_of(owner: str, attachment_id: str = "", part: str = "") -> str:
    """Return the key of an object: in hex, so that any owner and id make a plain path."""
    name = owner.encode("utf-8", "surrogatepass").hex()
    folders = [name[at : at + 200] for at in range(0, len(name), 200)]
    return "/".join(filter(None, [FOLDER, *folders, attachment_id.encode().hex() + part]))


def owner_in(key: str) -> str:
    """Return the owner of the bytes under a key; an empty string when the object is not ours."""
    with suppress(ValueError):
        *folders, name = key.partition(".")[0].split("/")[1:]
        owner = bytes.fromhex("".join(folders)).decode("utf-8", "surrogatepass")
        if key.startswith(key_of(owner, bytes.fromhex(name).decode())):  # not 2024/01/report.pdf
            return owner
    return ""


class Folder:
    """Plain files below a folder; the disk is touched only in worker threads."""

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()

    async def put(self, key: str, file: IO[bytes]) -> None:
        """Write under another name, then rename."""
        await anyio.to_thread.run_sync(self._put, self._root / key, file)

    def _put(self, path: Path, file: IO[bytes]) -> None:
        draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            with draft.open("xb") as out:
                shutil.copyfileobj(file, out, CHUNK)
                out.flush()
                os.fsync(out.fileno())
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)

    async def read(self, key: str) -> AsyncGenerator[bytes, None]:
        """Yield the file's bytes."""
        async with await anyio.open_file(self._root / key, "rb") as file:
            while chunk := await file.read(CHUNK):
                yield chunk

    async def delete(self, key: str) -> None:
        """Remove the file, and with the last one its folders, which are named after the owner."""
        path = anyio.Path(self._root, key)
        await path.unlink(missing_ok=True)
        with suppress(OSError):  # one is not empty
            for folder in PurePath(key).parents[:-2]:
                await anyio.Path(self._root, folder).rmdir()

    async def keys(self, prefix: str, before: float) -> AsyncIterator[str]:
        """Yield paths below the folder, one after the other."""
        folders = os.walk(self._root / prefix)
        while found := await anyio.to_thread.run_sync(next, folders, None):
            for name in found[2]:
                path = anyio.Path(found[0], name)
                with suppress(FileNotFoundError):  # deleted meanwhile
                    if (await path.stat()).st_mtime < before:
                        yield path.relative_to(self._root).as_posix()


class Cloud:
    """A bucket, with the credentials that its provider's environment variables name.

    One that does not answer is an error after 10 seconds; obstore alone would try for 3 minutes.
    """

    def __init__(self, url: str) -> None:
        provider = PROVIDERS[url.partition("://")[0]]
        for name, value in PATIENCE.items():  # as arguments, they would hide AWS_ALLOW_HTTP etc.
            os.environ.setdefault(f"{provider}_{name}", value)
        try:
            from obstore import store  # noqa: PLC0415 - an optional extra

            self._bucket = store.from_url(url, retry_config={"retry_timeout": timedelta(seconds=6)})
        except ImportError:
            raise StoreError(f"FILES_URL={url} needs obstore: install the extra `cloud`") from None
        except Exception as error:  # obstore has an exception of its own for each provider
            raise StoreError(f"FILES_URL={url}: {str(error).splitlines()[0]}") from error
        atexit.register(time.sleep, 0.1)  # obstore 0.12 aborts if its last thread outlives Python

    async def put(self, key: str, file: IO[bytes]) -> None:
        """Upload, in parts if the file is large."""
        await self._bucket.put_async(key, file)

    async def read(self, key: str) -> AsyncGenerator[bytes, None]:
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
    """Return the place that FILES_URL names, the folder when it names none, or raise StoreError."""
    scheme, _, path = (url or f"file://{folder}").partition("://")
    return Folder(Path(path)) if scheme == "file" else Cloud(url)
