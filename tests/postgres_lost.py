"""A PostgreSQL store whose server or connections hang or disappear: for `test_pgbouncer.py`."""

import asyncio
import os
import signal
import socket
import time
from urllib.parse import urlsplit

import asyncpg
import pytest
from chatkit.store import NotFoundError
from chatkit.types import ThreadMetadata

import dev
from app import store as module
from app.store import ChatStore as Store
from app.store import StoreError

from .engine import PrivateEngine
from .values import ALICE, thread

pytestmark = pytest.mark.anyio


async def test_a_closed_store_has_answered_all_and_takes_no_more(
    private_engine: PrivateEngine,
) -> None:
    async with Store.open(private_engine.url) as store:
        await store.save_thread(thread(), ALICE)
        slow = asyncio.create_task(store._pool.run("SELECT pg_sleep(0.3)"))
        calls = [asyncio.create_task(store.load_thread("t", ALICE)) for _ in range(80)]
        await asyncio.sleep(0)  # now some are under way and the others wait
    assert all(call.done() for call in [slow, *calls])
    assert [await call for call in calls] == [thread()] * 80
    with pytest.raises(asyncpg.InterfaceError, match="closed"):
        await store.ping()


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
        assert len(await store._pool.run(clients)) == 1  # the one that asks


async def test_a_host_that_is_silent_leaves_time_for_the_next(
    private_engine: PrivateEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the start, and if it falls silent later; then the one that answers is asked first."""
    monkeypatch.setattr(module, "ANSWER_SECONDS", 2)
    address = urlsplit(private_engine.url)
    user, _, host = address.netloc.rpartition("@")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        gone = f"127.0.0.1:{silent.getsockname()[1]}"
        for hosts in (f"{gone},{host}", f"{host},{gone}"):
            url = address._replace(netloc=f"{user}@{hosts}").geturl()
            async with Store.open(url) as store:
                begun = time.monotonic()
                await asyncio.gather(*(store.ping() for _ in range(5)))
                assert time.monotonic() - begun < 0.9
                store._pool._urls.reverse()
                store._pool._disconnect()
                await store.ping()


async def test_a_replica_among_several_hosts_is_passed_over(private_engine: PrivateEngine) -> None:
    """Otherwise a short stop of the primary would leave us there: stale reads, no writes."""
    address = urlsplit(private_engine.url)
    read_only = "default_transaction_read_only=on"
    with dev.throwaway() as data, PrivateEngine(data, read_only) as replica:
        another = urlsplit(replica.url).netloc.rpartition("@")[2]
        own = address.netloc.rpartition("@")
        refused = f"{own[0]}@{another},{own[2]}"  # the replica has another password
        async with Store.open(address._replace(netloc=refused).geturl()) as store:
            await store.ping()
        connection = await asyncpg.connect(replica.url)
        await connection.execute("SET default_transaction_read_only = off")
        await connection.execute(f"ALTER USER postgres PASSWORD '{address.password}'")
        await connection.close()
        hosts = f"{address.netloc},{another}"
        async with Store.open(address._replace(netloc=hosts).geturl()) as store:
            store._pool._urls.reverse()
            await store.save_thread(thread(), ALICE)


async def test_after_a_pause_and_a_burst_the_same_connection_goes_on(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one would have to prepare each statement again."""
    async with Store.open(store_url) as store:

        async def asked() -> object:
            return (await store._pool.run("SELECT pg_backend_pid() AS pid"))[0]["pid"]

        with monkeypatch.context() as patch:
            patch.setattr(module, "ANSWER_SECONDS", 0.3)
            first = await asked()
        await asyncio.sleep(0.6)  # it has answered, so its time is not up
        for _ in range(5):
            await asyncio.gather(*(store._pool.run("SELECT pg_sleep(0.01)") for _ in range(32)))
            assert await asked() == first


@pytest.mark.parametrize(("seconds", "connections"), [(60, 5), (0, 0)])
async def test_connections_that_were_idle_too_long_are_closed(
    store_url: str, monkeypatch: pytest.MonkeyPatch, seconds: int, connections: int
) -> None:
    """A proxy may have forgotten them; another process may need those that a burst took."""
    monkeypatch.setattr(module, "IDLE_SECONDS", seconds)
    async with Store.open(store_url) as store:
        await asyncio.gather(*(store._pool.run("SELECT pg_sleep(0.1)") for _ in range(5)))
        used = [*store._pool._ends]
        await asyncio.sleep(0.5)
        assert sum(not connection.is_closed() for connection in used) == connections
        assert len(store._pool._ends) == connections
        await store.ping()


async def test_a_statement_that_loses_its_connections_is_tried_twice(store_url: str) -> None:
    """On a new connection the second time; a third try would be of no more use."""
    tried = set[object]()

    async def cut() -> None:
        while True:
            await asyncio.sleep(0.01)
            tried.update(store._pool._busy)
            for connection in store._pool._busy:
                connection.terminate()

    async with Store.open(store_url) as store:
        await store.ping()
        cutting = asyncio.create_task(cut())
        with pytest.raises(module.LOST):
            await store._pool.run("SELECT pg_sleep(0.5)")
        cutting.cancel()
    assert len(tried) == 2


async def test_when_one_connection_is_silent_all_are_replaced(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy in between has forgotten them: one caller waits, not one per connection."""
    async with Store.open(store_url) as store:
        await asyncio.gather(*(store._pool.run("SELECT pg_sleep(0.1)") for _ in range(3)))
        idle = [*store._pool._ends]
        pids = [connection.get_server_pid() for connection in idle]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        with monkeypatch.context() as patch:
            patch.setattr(module, "ANSWER_SECONDS", 0.3)
            with pytest.raises(module.LOST):
                await store.ping()
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        assert [connection.is_closed() for connection in idle] == [True] * 3
        await store.ping()


async def test_open_connections_are_used_first(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the server's `max_connections` they go on; a new one would be refused."""

    async def refuse(**_: object) -> None:
        raise asyncpg.TooManyConnectionsError

    async with Store.open(store_url) as store:
        calls = (store._pool.run("SELECT pg_sleep(0.2)") for _ in range(3))
        first, *others = [asyncio.create_task(call) for call in calls]
        await asyncio.sleep(0.1)
        first.cancel()
        await asyncio.gather(*others)
        monkeypatch.setattr(store._pool, "_connect", refuse)
        await asyncio.gather(store.ping(), store.ping())


async def test_a_statement_that_is_cut_off_ends_in_the_server(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise it would keep its locks, and each new try would add one."""
    monkeypatch.setattr(module, "ANSWER_SECONDS", 1)
    async with Store.open(store_url) as store:
        with pytest.raises(asyncpg.PostgresError):
            await store._pool.run("SELECT pg_sleep(60)")
        await asyncio.sleep(0.3)
        running = "SELECT FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(60)%'"
        assert await store._pool.run(f"{running} AND state = 'active'") == []


async def test_a_cancelled_call_ends_in_the_server(store_url: str) -> None:
    """It may wait for a lock: otherwise callers who give up would add connection to connection."""
    async with Store.open(store_url, pool_size=1) as store:
        for _ in range(9):
            call = asyncio.create_task(store._pool.run("SELECT pg_sleep(60)"))
            await asyncio.sleep(0.05)
            call.cancel()
            await asyncio.wait([call])
            assert call.cancelled()
        running = "SELECT FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(60)%'"
        assert await store._pool.run(running) == []
        pid = (await store._pool.run("SELECT pg_backend_pid() AS pid"))[0]["pid"]
        call = asyncio.create_task(store._pool.run("SELECT pg_sleep(60)"))
        await asyncio.sleep(0.1)
        os.kill(pid, signal.SIGSTOP)
        call.cancel()
        assert await asyncio.wait([call], timeout=2) == ({call}, set()), "it does not hear of it"
        os.kill(pid, signal.SIGCONT)


async def test_waiting_for_a_connection_takes_no_longer_than_an_answer(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many wait for a silent server, all get the error within the same few seconds."""
    monkeypatch.setattr(module, "ANSWER_SECONDS", 1)
    async with Store.open(store_url, pool_size=2) as store:
        begun = time.monotonic()
        calls = [store._pool.run("SELECT pg_sleep(60)") for _ in range(9)]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(each, Exception) for each in answers)
        assert time.monotonic() - begun < 3  # one after another they would take 4.5 s
        await store.ping()


async def test_a_hanging_server_costs_the_seconds_of_an_answer_and_no_restart(
    private_engine: PrivateEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call that waited for a connection gets no second wait to connect."""
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
    """Within the seconds of an answer; the minute is for the lock and the migrations."""
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
