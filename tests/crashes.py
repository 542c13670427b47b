"""Crashes of a process and of an engine; `test_crashes.py` puts this file among an app's tests.

A kill proves nothing about a power cut, so the settings for that are asserted as well.
"""

import asyncio
import multiprocessing
import os
import random
import sqlite3
import time
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection

import pytest

from app.store import ChatStore as Store

from . import engine, reading
from .engine import ENGINE
from .values import ALICE, file, message, thread

ROUNDS = int(os.environ["ROUNDS"])
WRITERS = 4
ITEMS = [f"i{n:02}" for n in range(50)]
Act = Callable[[Store, str, Callable[[str], object]], Awaitable[None]]
FORK = multiprocessing.get_context("fork")


async def write(store: Store, name: str, told: Callable[[str], object]) -> None:
    """Add items without end, and report each id as soon as the store has acknowledged it."""
    n = 0
    while True:
        item_id = f"{name}-{n}"
        await store.add_thread_item("t", message(item_id), ALICE)
        told(item_id)
        n += 1


async def make_and_delete(store: Store, name: str, told: Callable[[str], object]) -> None:
    """Make threads of many items and a file, delete each, and report both, without end."""
    n = 0
    while True:
        thread_id = f"{name}-{n}"
        await store.save_thread(thread(thread_id), ALICE)
        adds = (store.add_thread_item(thread_id, message(i), ALICE) for i in ITEMS)
        await asyncio.gather(*adds, store.save_attachment(file(thread_id, thread_id), ALICE))
        told(f"made {thread_id}")
        await store.delete_thread(thread_id, ALICE)
        told(f"gone {thread_id}")
        n += 1


def work(url: str, name: str, pipe: Connection, act: Act) -> None:
    """Write with several tasks at once, in a process that is going to be killed."""

    async def main() -> None:
        async with Store.open(url) as store:
            names = [f"{name}-{writer}" for writer in range(WRITERS)]
            await asyncio.gather(*(act(store, each, pipe.send) for each in names))

    asyncio.run(main())


def told_until_killed(url: str, name: str, act: Act) -> list[str]:
    """Return what a process had reported when SIGKILL ended it."""
    ours, theirs = FORK.Pipe(duplex=False)
    process = FORK.Process(target=work, args=(url, name, theirs, act))
    process.start()
    theirs.close()
    told: list[str] = []
    end = 0.0
    try:
        while not end or time.monotonic() < end:
            if ours.poll(0.01):
                told.append(ours.recv())
                end = end or time.monotonic() + random.uniform(0.01, 0.1)
        process.kill()
        while ours.poll(1):
            told.append(ours.recv())
    except EOFError:
        pass
    process.join()
    return told


async def told_until_engine_killed(
    store: Store, private_engine: "engine.PrivateEngine", name: str, act: Act
) -> list[str]:
    """Return what this process had reported when SIGKILL ended the engine; start that again."""
    told: list[str] = []
    tasks = [asyncio.create_task(act(store, f"{name}-{n}", told.append)) for n in range(WRITERS)]
    async with asyncio.timeout(20):
        while not told:  # noqa: ASYNC110 - an event would only take more lines
            await asyncio.sleep(0.001)
    await asyncio.sleep(random.uniform(0, 0.1))
    await asyncio.to_thread(private_engine.kill)
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert [end for end in ends if not isinstance(end, away())] == []
    private_engine.start()
    return told


def assert_kept(told: list[str], stored: list[str]) -> None:
    """Each reported item is there once, and each writer's items are in the order of writing."""
    assert len(stored) == len(set(stored))
    assert set(told) <= set(stored)
    by_writer: dict[str, list[int]] = {}
    for item_id in stored:
        writer, _, n = item_id.rpartition("-")
        by_writer.setdefault(writer, []).append(int(n))
    assert all(numbers == list(range(len(numbers))) for numbers in by_writer.values())


async def assert_whole(store: Store, told: list[str]) -> None:
    """Each thread that was made is there with all that it had, or not at all."""
    made, gone = ({t for word, t in map(str.split, told) if word == w} for w in ("made", "gone"))
    there = set(await reading.threads(store, ALICE, limit=100))
    files = {each.id: each.thread_id for each in await store.load_attachments(None, ALICE)}
    assert len(made) >= ROUNDS
    assert not gone & there
    assert set(files.values()) <= there
    for thread_id in made - gone:
        if thread_id in there:
            assert thread_id in files
        else:  # an item that outlived its thread would show
            await store.undelete_thread(thread_id, ALICE)
            await store.save_thread(thread(thread_id), ALICE)
        left = ITEMS if thread_id in there else []
        assert sorted(await reading.items(store, ALICE, thread_id=thread_id)) == left


def away() -> tuple[type[Exception], ...]:
    """Return what the driver raises while its engine is away."""
    if ENGINE == "redis":
        from redis import exceptions  # noqa: PLC0415 - only where it is installed

        return exceptions.ConnectionError, exceptions.TimeoutError
    import asyncpg  # noqa: PLC0415 - the same

    from app.store import LOST  # noqa: PLC0415 - the same

    return OSError, asyncpg.OperatorInterventionError, *LOST


def in_store(url: str, act: Callable[[Store], Awaitable[list[str] | None]]) -> list[str]:
    """Open the store for one action: no event loop may run while a process is forked."""

    async def main() -> list[str]:
        async with Store.open(url) as store:
            return await act(store) or []

    return asyncio.run(main())


def test_what_was_acknowledged_to_a_killed_process_is_stored(store_url: str) -> None:
    told: list[str] = []
    in_store(store_url, lambda store: store.save_thread(thread(), ALICE))
    for n in range(ROUNDS):
        told += told_until_killed(store_url, f"p{n}", write)
    stored = in_store(store_url, lambda store: reading.items(store, ALICE, limit=100))
    assert len(told) > ROUNDS
    assert_kept(told, stored)


def test_a_killed_process_leaves_no_thread_half_deleted(store_url: str) -> None:
    told: list[str] = []
    for n in range(ROUNDS):
        told += told_until_killed(store_url, f"p{n}", make_and_delete)
    in_store(store_url, lambda store: assert_whole(store, told))


@pytest.mark.anyio
async def test_what_was_acknowledged_before_the_engine_was_killed_is_stored(
    private_engine: "engine.PrivateEngine",
) -> None:
    told: list[str] = []
    async with Store.open(private_engine.url) as store:
        await store.save_thread(thread(), ALICE)
        for n in range(ROUNDS):
            told += await told_until_engine_killed(store, private_engine, f"e{n}", write)
        stored = await reading.items(store, ALICE, limit=100)
    assert len(told) > ROUNDS
    assert_kept(told, stored)


@pytest.mark.anyio
async def test_a_killed_engine_leaves_no_thread_half_deleted(
    private_engine: "engine.PrivateEngine",
) -> None:
    told: list[str] = []
    async with Store.open(private_engine.url) as store:
        for n in range(ROUNDS):
            told += await told_until_engine_killed(store, private_engine, f"e{n}", make_and_delete)
        await assert_whole(store, told)


@pytest.mark.anyio
async def test_an_engine_away_for_ten_seconds_costs_errors_and_no_restart(
    private_engine: "engine.PrivateEngine",
) -> None:
    """Under load: calls fail in time, and succeed again when the engine is back."""
    told: list[str] = []
    slowest = 0.0

    async def stubborn(store: Store, name: str) -> None:
        nonlocal slowest
        for n in range(1_000_000):
            begun = time.monotonic()
            try:
                await store.add_thread_item("t", message(f"{name}-{n}"), ALICE)
                told.append(f"{name}-{n}")
            except away():
                await asyncio.sleep(0.1)
            slowest = max(slowest, time.monotonic() - begun)

    async with Store.open(private_engine.url) as store:
        await store.save_thread(thread(), ALICE)
        load = [asyncio.create_task(stubborn(store, f"w{n}")) for n in range(8)]
        await asyncio.sleep(0.5)
        await asyncio.to_thread(private_engine.stop)
        before = len(told)
        await asyncio.sleep(10)
        assert len(told) == before
        private_engine.start()
        await asyncio.sleep(2)
        assert [task for task in load if task.done()] == []  # no other kind of error
        for task in load:
            task.cancel()
        await asyncio.gather(*load, return_exceptions=True)
        stored = set(await reading.items(store, ALICE, limit=100))
    assert len(told) > before
    assert set(told) <= stored
    assert slowest < 6


@pytest.mark.anyio
async def test_settings_of_a_development_engine_are_durable(
    private_engine: "engine.PrivateEngine",
) -> None:
    """What a power cut requires, as the engine itself reports it."""
    if ENGINE == "redis":
        async with Store.open(private_engine.url) as store:
            found = await store._ask("CONFIG GET", "append*")
        assert found.items() >= {"appendonly": "yes", "appendfsync": "always"}.items()
    else:
        names = ("fsync", "synchronous_commit", "full_page_writes")
        async with Store.open(private_engine.url) as store:
            found = [(await store._pool.run(f"SHOW {name}"))[0][0] for name in names]
        assert found == ["on"] * 3


@pytest.mark.anyio
async def test_settings_of_the_file_are_durable(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store's own connections are asked."""
    made: list[sqlite3.Connection] = []
    connect = sqlite3.connect

    def remember(*args: object, **options: object) -> sqlite3.Connection:
        made.append(connect(*args, **{**options, "check_same_thread": False}))
        return made[-1]

    monkeypatch.setattr(sqlite3, "connect", remember)
    async with Store.open(store_url) as store:
        await store.save_thread(thread(), ALICE)
        modes = {made[-1].execute("PRAGMA journal_mode").fetchone()[0]}
        levels = {c.execute("PRAGMA synchronous").fetchone()[0] for c in made}
    assert modes == {"wal"}
    assert levels == {2}  # FULL
