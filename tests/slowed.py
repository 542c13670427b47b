"""Runs a baked app whose store takes 50 ms longer for each operation: `python slowed.py`."""

import asyncio
import functools
import sys
from collections.abc import Awaitable, Callable
from typing import Any

sys.path.insert(0, ".")
DELAY = 0.05
READS = ("load_thread", "load_threads", "load_thread_items", "load_item", "load_attachment")
WRITES = ("save_thread", "add_thread_item", "save_item", "claim_turn", "renew_turn", "release_turn")


def slowed(operation: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """Return the operation with half of its delay before and half after it."""

    @functools.wraps(operation)
    async def late(*args: Any, **kwargs: Any) -> Any:
        await asyncio.sleep(DELAY / 2)
        result = await operation(*args, **kwargs)
        await asyncio.sleep(DELAY / 2)
        return result

    return late


if __name__ == "__main__":
    from app import store
    from app.__main__ import main

    for name in (*READS, *WRITES):
        setattr(store.ChatStore, name, slowed(getattr(store.ChatStore, name)))
    sys.exit(main([]))
