"""What goes on inside the store in a file: its worker threads, and SQLite's virtual machine."""

import asyncio
import sqlite3
import time
from functools import partial
from threading import Event, Thread
from typing import Any

import pytest

from app.store import ChatStore as Store
from app.store import StoreError

from . import reading
from .test_store_isolation import READS, WRITES, answer, fill
from .values import ALICE, file, message, thread

pytestmark = pytest.mark.anyio


async def test_a_transaction_that_sqlite_itself_ends_fails_every_call_in_it(store: Store) -> None:
    """As it may when the disk is full: nothing is stored, and the next call starts a new one."""

    def fail(db: sqlite3.Connection) -> None:
        db.execute("ROLLBACK")
        raise sqlite3.OperationalError("disk I/O error")

    asleep = asyncio.create_task(store._writer.ask(lambda _: time.sleep(0.02)))
    await asyncio.sleep(0.01)  # the others wait for it, and share a commit
    saves = [store.save_thread(thread(i), ALICE) for i in "ab"]
    answers = await asyncio.gather(
        saves[0], store._writer.ask(fail), saves[1], return_exceptions=True
    )
    assert [str(answer) for answer in answers] == ["disk I/O error"] * 3
    await asleep
    await store.save_thread(thread(), ALICE)
    assert await reading.threads(store, ALICE) == ["t"]


async def test_each_call_is_answered_on_its_own_loop(store: Store) -> None:
    """Also when calls from two loops share a commit."""
    begun, go_on = Event(), Event()

    def wait(_: sqlite3.Connection) -> None:
        begun.set()
        go_on.wait(5)

    asleep = asyncio.create_task(store._writer.ask(wait))
    assert await asyncio.to_thread(begun.wait, 5)
    here = asyncio.create_task(store.save_thread(thread("a"), ALICE))
    await asyncio.sleep(0)
    save = store.save_thread(thread("b"), ALICE)
    # in debug mode a loop refuses to be called from another thread
    there = Thread(target=partial(asyncio.run, save, debug=True), daemon=True)
    there.start()
    async with asyncio.timeout(5):
        while store._writer._asked.qsize() < 2:  # noqa: ASYNC110 - another thread's call
            await asyncio.sleep(0.001)
        go_on.set()
        await asyncio.gather(asleep, here, asyncio.to_thread(there.join, 2))
    assert not there.is_alive()
    assert await reading.threads(store, ALICE) == ["a", "b"]


def test_a_call_whose_loop_is_closed_ends_quietly(store_url: str) -> None:
    """Nobody waits for its answer any more; the worker threads still close the file."""
    loop, opening, go_on = asyncio.new_event_loop(), Store.open(store_url), Event()
    store = loop.run_until_complete(opening.__aenter__())
    call = loop.create_task(store._writer.ask(lambda _: go_on.wait()))
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    go_on.set()
    for worker in (store._reader, store._writer):
        assert worker.daemon, "a process that never closes the store could not end"
        asyncio.run(asyncio.wait_for(worker.close(), 5))
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            worker._db.execute("SELECT 1")
    assert not call.done()


async def test_a_start_that_fails_closes_the_file(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once, not whenever the error is forgotten."""
    connect, made = sqlite3.connect, list[sqlite3.Connection]()

    def remember(path: str, **how: Any) -> sqlite3.Connection:
        made.append(connect(path, **how))
        return made[-1]

    monkeypatch.setattr(sqlite3, "connect", remember)
    monkeypatch.setattr("app.store.SCHEMA", ["nonsense"])
    with pytest.raises(StoreError, match="syntax error"):
        async with Store.open(store_url):
            pass
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        made[0].execute("SELECT 1")


async def test_what_reads_cannot_write(store: Store) -> None:
    """It would not wait for its turn, nor share a commit."""
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        await store._reader.ask(lambda db: db.execute("DELETE FROM threads"))


async def test_expired_tombstones_are_removed(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.store.TOMBSTONE_SECONDS", 0)
    for n in range(3):
        await store.save_thread(thread(f"t{n}"), ALICE)
        await store.delete_thread(f"t{n}", ALICE)
    rows = store._writer._db.execute("SELECT id FROM tombstones").fetchall()
    assert rows == [("t2",)]


async def costs(url: str, others: int) -> dict[str, int]:
    """Return how many virtual machine steps each call takes among so many other records."""
    calls = READS | WRITES | {"delete_thread": lambda s, c: s.delete_thread("t1", c)}
    calls.pop("load_attachments of all")
    taken = {}
    async with Store.open(url) as store:
        for prefix in ("t", "gone"):
            ids = [f"{prefix}{n}" for n in range(others)]
            await asyncio.gather(*(store.save_thread(thread(i), ALICE) for i in ids))
            await asyncio.gather(*(store.save_attachment(file(i, i), ALICE) for i in ids))
            await asyncio.gather(*(store.claim_turn(i, "turn", ALICE) for i in ids))
        await asyncio.gather(*(store.delete_thread(i, ALICE) for i in ids))
        await store.save_thread(thread(), ALICE)
        await asyncio.gather(*(store.add_thread_item("t", message(i), ALICE) for i in ids))
        await fill(store, ALICE, "text")  # after them all
        for name, call in calls.items():
            steps = list[int]()
            for worker in (store._reader, store._writer):
                worker._db.set_progress_handler(partial(steps.append, 1), 1)
            await answer(call, store, ALICE)
            taken[name] = len(steps)
    return taken


async def test_a_call_costs_the_same_among_few_records_and_among_many(store_url: str) -> None:
    """Each uses an index; listing all of a user's files, which reads them all, is left out."""
    assert await costs(store_url, 12) == await costs(f"{store_url}-more", 60)
