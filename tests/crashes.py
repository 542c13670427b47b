"""Crashes of a process and of an engine; `test_crashes.py` puts this file among an app's tests.

A kill proves nothing about a power cut, so the settings that do are asserted beside it.
"""

import asyncio
import multiprocessing
import random
import sqlite3
import time
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection

import pytest
from chatkit.store import NotFoundError

from app.store import ChatStore as Store

from . import engine, reading
from .engine import ENGINE
from .values import ALICE, message, thread

ROUNDS = 20
WRITERS = 4
FORK = multiprocessing.get_context("fork")


async def write(store: Store, name: str, told: Callable[[str], object]) -> None:
    """Add items until the end, and tell each id as soon as the store has answered."""
    n = 0
    while True:
        item_id = f"{name}-{n}"
        await store.add_thread_item("t", message(item_id), ALICE)
        told(item_id)
        n += 1


def work(url: str, name: str, pipe: Connection) -> None:
    """Write with several tasks at once in a process that is going to be killed."""

    async def main() -> None:
        async with Store.open(url) as store:
            names = [f"{name}-{writer}" for writer in range(WRITERS)]
            await asyncio.gather(*(write(store, each, pipe.send) for each in names))

    asyncio.run(main())


def told_until_killed(url: str, name: str) -> list[str]:
    """Return the ids that a process had told when SIGKILL ended it."""
    ours, theirs = FORK.Pipe(duplex=False)
    process = FORK.Process(target=work, args=(url, name, theirs))
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


def assert_kept(told: list[str], stored: list[str]) -> None:
    """Each told item is there once, and each writer's items in the order of writing."""
    assert len(stored) == len(set(stored))
    assert set(told) <= set(stored)
    by_writer: dict[str, list[int]] = {}
    for item_id in stored:
        writer, _, n = item_id.rpartition("-")
        by_writer.setdefault(writer, []).append(int(n))
    assert all(numbers == list(range(len(numbers))) for numbers in by_writer.values())


def in_store(url: str, act: Callable[[Store], Awaitable[list[str] | None]]) -> list[str]:
    """Open the store for one action; no loop may run while a process is forked."""

    async def main() -> list[str]:
        async with Store.open(url) as store:
            return await act(store) or []

    return asyncio.run(main())


def test_what_a_killed_process_was_told_is_stored(store_url: str) -> None:
    told: list[str] = []
    in_store(store_url, lambda store: store.save_thread(thread(), ALICE))
    for n in range(ROUNDS):
        told += told_until_killed(store_url, f"p{n}")
    stored = in_store(store_url, lambda store: reading.items(store, ALICE, limit=100))
    assert len(told) > ROUNDS
    assert_kept(told, stored)


@pytest.mark.anyio
async def test_what_was_told_before_the_engine_was_killed_is_stored(
    private_engine: "engine.PrivateEngine",
) -> None:
    told: list[str] = []
    async with Store.open(private_engine.url) as store:
        await store.save_thread(thread(), ALICE)
        for n in range(ROUNDS):
            writers = [
                asyncio.create_task(write(store, f"e{n}-{writer}", told.append))
                for writer in range(WRITERS)
            ]
            await asyncio.sleep(random.uniform(0.02, 0.1))
            await asyncio.to_thread(private_engine.kill)
            ends = await asyncio.gather(*writers, return_exceptions=True)
            assert not any(isinstance(end, NotFoundError | ValueError) for end in ends)
            private_engine.start()
        stored = await reading.items(store, ALICE, limit=100)
    assert len(told) > ROUNDS
    assert_kept(told, stored)


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
            except Exception:  # noqa: BLE001 - whatever the driver calls it
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
    """What a power cut would ask for, as the engine itself says it."""
    if ENGINE == "redis":
        async with Store.open(private_engine.url) as store:
            found = await store.durability()
        assert found == {"appendonly": "yes", "appendfsync": "always"}
    else:
        import asyncpg  # noqa: PLC0415 - only where it is installed

        connection = await asyncpg.connect(private_engine.url)
        names = ("fsync", "synchronous_commit", "full_page_writes")
        assert [await connection.fetchval(f"SHOW {name}") for name in names] == ["on"] * 3
        await connection.close()


@pytest.mark.anyio
async def test_settings_of_the_file_are_durable(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connections of the store itself are asked."""
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
    assert 2 in levels
