"""What the PostgreSQL store promises besides the contract: for `test_pgbouncer.py`."""

import asyncio
import os
import random
import signal
import time
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest
from chatkit.store import NotFoundError
from chatkit.types import ThreadMetadata

from app import store as module
from app.store import ChatStore as Store
from app.store import StoreError

from . import reading
from .engine import PrivateEngine
from .serving import settings_for
from .values import ALICE, file, message, thread

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("default_transaction_read_only = on", "read-only on"),
        ("default_transaction_isolation = 'repeatable read'", "repeatable read"),
    ],
)
async def test_an_unfit_server_is_refused_by_name(
    private_engine: PrivateEngine, setting: str, named: str
) -> None:
    connection = await asyncpg.connect(private_engine.url)
    await connection.execute(f"ALTER DATABASE postgres SET {setting}")
    await connection.close()
    with pytest.raises(StoreError, match=named):
        async with Store.open(private_engine.url):
            pass


async def test_another_encoding_is_refused_by_name(private_engine: PrivateEngine) -> None:
    """Of the database, or asked for in the address: not every text would fit."""
    connection = await asyncpg.connect(private_engine.url)
    await connection.execute(
        "CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0"
    )
    await connection.close()
    url = private_engine.url
    for wrong in (urlsplit(url)._replace(path="/latin").geturl(), f"{url}&client_encoding=latin1"):
        with pytest.raises(StoreError, match=r"LATIN1.* needs a database in UTF8"):
            async with Store.open(wrong):
                pass


async def test_an_old_server_is_refused_by_name(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = asyncpg.types.ServerVersion(12, 9, 0, "final", 0)
    monkeypatch.setattr(asyncpg.Connection, "get_server_version", lambda _: old)
    with pytest.raises(StoreError, match="this is PostgreSQL 12, the app needs 13"):
        async with Store.open(store_url):
            pass


async def test_a_failover_address_without_a_primary_ends_the_start_in_one_line(
    store_url: str,
) -> None:
    only_standby = f"{store_url}&target_session_attrs=standby"
    with pytest.raises(StoreError, match=r"^STORE_URL=[^\n]*$"):
        async with Store.open(only_standby):
            pass


async def test_a_closed_store_has_answered_all_and_takes_no_more(
    private_engine: PrivateEngine,
) -> None:
    async with Store.open(private_engine.url) as store:
        await store.save_thread(thread(), ALICE)
        calls = [asyncio.create_task(store.load_thread("t", ALICE)) for _ in range(80)]
        await asyncio.sleep(0)  # now some are under way and the others wait
    assert all(call.done() for call in calls)
    assert [await call for call in calls] == [thread()] * 80
    with pytest.raises(asyncpg.InterfaceError, match="closed"):
        await store.ping()


async def test_a_newer_schema_is_refused_and_left_alone(store_url: str) -> None:
    async def tables() -> list[list[asyncpg.Record]]:
        names = ("migration", "thread", "item", "attachment", "lease")
        return [await store._pool.run(f"TABLE chatkit.{name}") for name in names]

    async with Store.open(store_url) as store:
        await store.save_thread(thread(), ALICE)
        await store.add_thread_item("t", message("a"), ALICE)
        await store.save_attachment(file("f", "t"), ALICE)
        await store.claim_turn("t", "turn", ALICE)
        await store._pool.run("INSERT INTO chatkit.migration VALUES (99)")
        before = await tables()
        assert all(before)
        with pytest.raises(StoreError, match="is at 99, newer than the app: update the app"):
            async with Store.open(store_url):
                pass
        assert await tables() == before


async def test_a_step_may_take_longer_than_others_wait_and_keeps_the_data(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Store.open(store_url) as store:
        await store.save_thread(thread(), ALICE)
        before = await reading.export(store, ALICE)
    monkeypatch.setattr(module, "ANSWER_SECONDS", 1)
    monkeypatch.setattr(module, "MIGRATION_SECONDS", 1)
    step = "CREATE TABLE chatkit.more (a text); SELECT pg_sleep(1.5)"
    monkeypatch.setattr(module, "MIGRATIONS", (*module.MIGRATIONS, step))
    for _ in range(2):  # the second time there is nothing to do
        async with Store.open(store_url) as store:
            assert await reading.export(store, ALICE) == before
            assert await store._pool.run("TABLE chatkit.more") == []
    monkeypatch.undo()
    with pytest.raises(StoreError, match="is at 2, newer than the app"):
        async with Store.open(store_url):
            pass


async def test_a_wrong_database_ends_the_start_in_one_line(private_engine: PrivateEngine) -> None:
    wrong = urlsplit(private_engine.url)._replace(path="/none").geturl()
    with pytest.raises(StoreError, match=r'^STORE_URL=[^\n]*: database "none" does not exist$'):
        async with Store.open(wrong):
            pass


async def test_a_close_that_is_cancelled_leaves_no_connection(
    private_engine: PrivateEngine,
) -> None:
    async def use() -> None:
        async with Store.open(private_engine.url) as store:
            await asyncio.gather(*(store._pool.run("SELECT pg_sleep(0.1)") for _ in range(5)))
            await store._pool._free.acquire()  # a call that never ends

    tasks = asyncio.all_tasks()
    using = asyncio.create_task(use())
    await asyncio.sleep(0.5)
    using.cancel()
    await asyncio.wait([using])
    await asyncio.sleep(0.2)
    assert asyncio.all_tasks() == tasks
    async with Store.open(private_engine.url) as store:
        clients = "SELECT FROM pg_stat_activity WHERE backend_type = 'client backend'"
        assert len(await store._pool.run(clients)) == 1  # who asks


@pytest.mark.parametrize(("seconds", "connections"), [(60, 1), (0, 3)])
async def test_a_connection_that_has_rested_too_long_is_made_anew(
    store_url: str, monkeypatch: pytest.MonkeyPatch, seconds: int, connections: int
) -> None:
    """What lies between may have forgotten it."""
    monkeypatch.setattr(module, "IDLE_SECONDS", seconds)
    async with Store.open(store_url) as store:
        asked = [await store._pool.run("SELECT pg_backend_pid() AS pid") for _ in range(3)]
    assert len({rows[0]["pid"] for rows in asked}) == connections


async def test_a_statement_that_is_cut_off_ends_in_the_server(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would keep its locks, and be one more for each try."""
    monkeypatch.setattr(module, "ANSWER_SECONDS", 1)
    async with Store.open(store_url) as store:
        with pytest.raises(asyncpg.PostgresError):
            await store._pool.run("SELECT pg_sleep(60)")
        await asyncio.sleep(0.3)
        running = "SELECT FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(60)%'"
        assert await store._pool.run(f"{running} AND state = 'active'") == []


async def test_who_waits_for_a_connection_waits_no_longer_than_for_an_answer(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many wait for a server that is silent, all hear of it within the same seconds."""
    monkeypatch.setattr(module, "ANSWER_SECONDS", 1)
    async with Store.open(store_url, pool_size=2) as store:
        begun = time.monotonic()
        calls = [store._pool.run("SELECT pg_sleep(60)") for _ in range(9)]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(each, Exception) for each in answers)
        assert time.monotonic() - begun < 2
        await store.ping()


async def test_a_hanging_server_costs_the_seconds_of_an_answer_and_no_restart(
    private_engine: PrivateEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who waited for a place has no second such time to connect."""
    monkeypatch.setattr(module, "ANSWER_SECONDS", 2)
    async with Store.open(private_engine.url) as store:
        await store.save_thread(thread(), ALICE)
        backends = await store._pool.run("SELECT pid FROM pg_stat_activity")
        pids = [private_engine._processes[0].pid, *(pid for (pid,) in backends)]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        begun = time.monotonic()
        calls = [store.load_thread("t", ALICE) for _ in range(60)]  # more than connections
        answers = await asyncio.gather(*calls, return_exceptions=True)
        seconds = time.monotonic() - begun
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        assert not any(isinstance(each, NotFoundError | ThreadMetadata) for each in answers)
        assert seconds < 3
        assert await store.load_thread("t", ALICE) == thread()


@pytest.mark.parametrize(("asked", "seconds"), [(b"current_setting", 1), (b"advisory", 3)])
async def test_a_server_that_goes_silent_ends_the_start(
    store_url: str, monkeypatch: pytest.MonkeyPatch, asked: bytes, seconds: int
) -> None:
    """In the seconds of an answer; the minute is for the lock and the steps."""
    monkeypatch.setattr(module, "ANSWER_SECONDS", 1)
    monkeypatch.setattr(module, "MIGRATION_SECONDS", 3)
    address = urlsplit(store_url)

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, engine = await asyncio.open_connection(address.hostname, address.port)

        async def answer() -> None:
            while text := await answers.read(65_536):
                writer.write(text)

        answering = asyncio.create_task(answer())
        while text := await reader.read(65_536):
            if asked in text:
                answering.cancel()
            engine.write(text)
        for each in (engine, writer):
            each.close()
            await each.wait_closed()

    def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        relays.append(asyncio.create_task(relay(reader, writer)))

    begun = time.monotonic()
    relays: list[asyncio.Task[None]] = []
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(StoreError, match="no answer in time"):
            async with Store.open(store_url.replace(f":{address.port}/", f":{port}/")):
                pass
        await asyncio.gather(*relays)
    assert seconds - 0.1 < time.monotonic() - begun < seconds + 1


async def test_claims_that_race_a_delete_are_granted_or_find_no_thread(store_url: str) -> None:
    """Without the lock on the thread's row, the foreign key is who refuses."""
    async with Store.open(store_url) as store:
        for n in range(100):
            await store.save_thread(thread(f"t{n}"), ALICE)
            claims = [store.claim_turn(f"t{n}", f"turn{k}", ALICE) for k in range(9)]
            calls = (*claims[:3], store.delete_thread(f"t{n}", ALICE), *claims[3:])
            answers = await asyncio.gather(*calls, return_exceptions=True)
            failed = {type(each) for each in answers if isinstance(each, Exception)}
            assert failed <= {NotFoundError}


async def test_feedback_on_many_items_at_once_never_deadlocks(store_url: str) -> None:
    """By a plan, rows are found in the order of their ids, by another in that of their places."""
    ids, dice = [f"i{n:02}" for n in range(60)], random.Random(7)
    async with Store.open(store_url) as store:
        for n in range(6):
            await store.save_thread(thread(f"t{n}"), ALICE)
            for item_id in dice.sample(ids, 60):
                await store.add_thread_item(f"t{n}", message(item_id), ALICE)
        await store._pool.run("ANALYZE")
        for n in range(20):
            some = [dice.sample(ids, 40) for _ in range(8)]
            thumbs = (store.save_feedback(f"t{n % 6}", each, "positive", ALICE) for each in some)
            await asyncio.gather(*thumbs)


async def test_an_upgrade_elsewhere_is_waited_for_but_not_for_good(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MIGRATION_SECONDS", 1)
    async with Store.open(store_url) as store:
        connection = await store._pool._connect()
        async with connection.transaction():
            lock = "SELECT pg_advisory_xact_lock(hashtext($1))"
            await connection.execute(lock, store._pool._schema)
            with pytest.raises(StoreError, match="no answer in time"):
                async with Store.open(store_url):
                    pass
        await connection.close()


async def test_tombstones_of_all_end_after_a_day(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of somebody who never comes back."""
    async with Store.open(store_url) as store:
        await store.save_thread(thread(), ALICE)
        await store.delete_thread("t", ALICE)
        for seconds, left in ((3600, 1), (0, 0)):
            monkeypatch.setattr(module, "TOMBSTONE_SECONDS", seconds)
            assert [owner async for owner in store.owners()] == []
            assert len(await store._pool.run("SELECT FROM chatkit.thread")) == left


@pytest.mark.parametrize(("size", "cached"), [(2, 0), (3, 5)])
async def test_the_settings_reach_the_connections(
    store_url: str, tmp_path: Path, size: int, cached: int
) -> None:
    """The server is asked how many there are, and how many statements one of them keeps."""
    changes = {"store_pool_size": size, "store_statement_cache_size": cached}
    async with module.open_store(settings_for(store_url, tmp_path, **changes)) as store:
        sleep = "SELECT pg_backend_pid() AS pid FROM pg_sleep(0.2)"
        answers = await asyncio.gather(*(store._pool.run(sleep) for _ in range(9)))
        assert len({rows[0]["pid"] for rows in answers}) == size
        for n in range(9 * size):
            await store._pool.run(f"SELECT {n}")
        kept = await store._pool.run("SELECT FROM pg_prepared_statements")
        assert len(kept) == cached
