"""The whole life of files in a bucket: `python life.py FILES_URL`, in a baked app's folder."""

import asyncio
import io
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, ".")
from app.blobs import CHUNK, FOLDER, Blobs, key_of, open_blobs

PARTS = 12_000_000
"""More than obstore sends in one request."""


async def keys(blobs: Blobs, prefix: str, seconds: float) -> set[str]:
    """Return the keys that were written before this many seconds from now."""
    return {key async for key in blobs.keys(prefix, time.time() + seconds)}


async def live(blobs: Blobs) -> None:
    """Write, replace, read in chunks, list, delete, miss."""
    small, large, other = key_of("a/b", "1"), key_of("a/b", "2", ".preview"), key_of("c", "1")
    data = os.urandom(PARTS)
    for key, given in ((small, b"old"), (small, b"new"), (large, data), (other, b"")):
        await blobs.put(key, io.BytesIO(given))
    assert b"".join([chunk async for chunk in blobs.read(small)]) == b"new"
    chunks = [chunk async for chunk in blobs.read(large)]
    assert b"".join(chunks) == data
    assert max(map(len, chunks)) < 8 * CHUNK, "it is handed on as it comes"
    assert await keys(blobs, FOLDER, 60) == {small, large, other}
    assert await keys(blobs, key_of("a/b"), 60) == {small, large}
    assert await keys(blobs, key_of("a"), 60) == set(), "a prefix is a folder"
    assert await keys(blobs, FOLDER, -60) == set()
    for key in (small, small, other):
        await blobs.delete(key)
    for key in (small, other):
        try:
            await anext(blobs.read(key))
        except FileNotFoundError:
            continue
        raise AssertionError("read after its deletion")
    assert await keys(blobs, FOLDER, 60) == {large}
    await blobs.delete(large)


if __name__ == "__main__":
    asyncio.run(live(open_blobs(sys.argv[1], Path("never"))))
