"""Writes many files at once and ends: `python end.py FILES_URL`, in a baked app's folder."""

import asyncio
import io
import sys
from pathlib import Path

sys.path.insert(0, ".")
from app.blobs import open_blobs


async def main(url: str) -> None:
    """Write, and wait for nothing more."""
    blobs = open_blobs(url, Path("never"))
    await asyncio.gather(*[blobs.put(f"ends/{n}", io.BytesIO(b"x")) for n in range(100)])


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
