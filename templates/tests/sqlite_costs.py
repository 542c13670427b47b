"""What a call costs in SQLite, counted in steps of its machine."""

import asyncio
from functools import partial

import pytest

from app.store import ChatStore as Store

from .test_store_isolation import READS, WRITES, answer, fill
from .values import ALICE, at, file, message, thread

pytestmark = pytest.mark.anyio


async def costs(url: str, others: int) -> dict[str, int]:
    """Return how many steps of SQLite's machine each call takes beside so many other records."""
    calls = READS | WRITES | {"delete_thread": lambda s, c: s.delete_thread("t1", c)}
    calls.pop("load_attachments of all")
    taken = {}
    async with Store.open(url) as store:
        await store.save_thread(thread(), ALICE)
        for prefix in ("t", "gone"):
            ids = [f"{prefix}{n}" for n in range(others)]
            await asyncio.gather(*(store.save_thread(thread(i, at(-1)), ALICE) for i in ids))
            await asyncio.gather(*(store.add_thread_item("t", message(i), ALICE) for i in ids))
            await asyncio.gather(*(store.save_attachment(file(i, i), ALICE) for i in ids))
            await asyncio.gather(*(store.claim_turn(i, "turn", ALICE) for i in ids))
        await asyncio.gather(*(store.delete_thread(i, ALICE) for i in ids))
        await fill(store, ALICE, "text")  # behind them all
        for name, call in calls.items():
            steps = list[int]()
            for worker in (store._reader, store._writer):
                worker._db.set_progress_handler(partial(steps.append, 1), 1)
            await answer(call, store, ALICE)
            taken[name] = len(steps)
    return taken


async def test_a_call_costs_the_same_among_few_and_among_many(store_url: str) -> None:
    """Each goes by an index; but all of a user's files are all of them."""
    assert await costs(store_url, 12) == await costs(f"{store_url}-more", 60)
