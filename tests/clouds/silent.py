"""Providers that accept connections and never answer: `python silent.py FILES_URL…`."""

import asyncio
import io
import sys
import time
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

sys.path.insert(0, ".")
from app.blobs import Blobs, open_blobs


async def first(found: AsyncIterator[object]) -> None:
    """Wait for the first result."""
    await anext(found)


def operations(blobs: Blobs) -> list[Coroutine[Any, Any, None]]:
    """Return every operation on a provider."""
    return [
        blobs.put("a", io.BytesIO(b"small")),
        blobs.put("a", io.BytesIO(bytes(12_000_000))),
        first(blobs.read("a")),
        first(blobs.keys("", time.time())),
        blobs.delete("a"),
    ]


async def main(urls: list[str]) -> None:
    """Ask everything of all of them at once; print how long it took until all had failed."""
    start = time.monotonic()
    asked = [each for url in urls for each in operations(open_blobs(url, Path("never")))]
    for ended in await asyncio.gather(*asked, return_exceptions=True):
        assert type(ended).__module__ == "obstore.exceptions", repr(ended)
    print(time.monotonic() - start)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
