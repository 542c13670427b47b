"""A Redis store whose connections, primaries and slots disappear: for `test_cluster.py`."""

import asyncio
import errno
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, suppress
from urllib.parse import urlsplit

import pytest
import uvloop
from chatkit.store import NotFoundError
from redis import Redis as Node
from redis import exceptions
from redis.asyncio import Connection, Redis

from app.context import RequestContext
from app.store import ChatStore as Store
from app.store import StoreError

from .cluster import SLOTS, url_of, valkey_nodes, wait
from .engine import PrivateEngine
from .values import ALICE, message, thread

pytestmark = pytest.mark.anyio


def test_a_connection_that_was_cut_is_replaced(store_url: str) -> None:
    """Also on uvloop, which serves the app and raises an error of its own."""

    async def cut() -> None:
        async with Store.open(store_url) as opened:
            await opened.save_thread(thread(), ALICE)
            for client in opened._idle:
                client.connection._writer.transport.abort()
            await asyncio.sleep(0.01)
            assert await opened.load_feedback("t", ALICE) == {}  # as read from its raw answer

    for loop in (asyncio.new_event_loop, uvloop.new_event_loop):
        with asyncio.Runner(loop_factory=loop) as runner:
            runner.run(cut())


async def test_a_connection_that_the_kernel_gave_up_is_replaced(store: Store) -> None:
    await store.ping()
    gave_up = TimeoutError(errno.ETIMEDOUT, "Connection timed out")
    store._idle[-1].connection._writer.transport._fatal_error(gave_up)
    await asyncio.sleep(0.01)
    await store.ping()


async def test_scripts_are_sent_again_after_a_flush(store: Store) -> None:
    await store.save_thread(thread(), ALICE)
    await store._client.script_flush()
    await store.add_thread_item("t", message("a"), ALICE)
    assert await store.load_item("t", "a", ALICE) == message("a")


async def test_a_client_without_a_connection_is_tried_last(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the server's `maxclients` the connected ones go on."""
    await asyncio.gather(*(store.ping() for _ in range(3)))
    connected = set(store._idle)

    async def refuse(_: object) -> None:
        await asyncio.sleep(0.05)
        raise exceptions.MaxConnectionsError("max number of clients reached")

    monkeypatch.setattr(Connection, "connect", refuse)
    answers = await asyncio.gather(*(store.ping() for _ in range(6)), return_exceptions=True)
    assert sum(isinstance(each, Exception) for each in answers) == 3
    for _ in range(3):
        await store.ping()
        assert store._idle[-1] in connected


@pytest.mark.parametrize(
    "notice", [lambda store: store.save_thread(thread(), ALICE), Store.ping], ids=["save", "ping"]
)
async def test_a_primary_that_became_a_replica_is_looked_for_again(
    private_engine: PrivateEngine, notice: Callable[[Store], Awaitable[None]]
) -> None:
    """After a failover its name may point to the new primary: a new connection finds it.

    A process that only reads notices at its next /readyz.
    """
    async with Store.open(private_engine.url) as store:

        async def connections() -> list[int]:
            return await asyncio.gather(*(store._ask("CLIENT", "ID") for _ in range(5)))

        before = await connections()
        await store._client.execute_command("REPLICAOF", "127.0.0.1", "1")
        with pytest.raises(exceptions.ReadOnlyError):
            await notice(store)
        assert min(await connections()) > max(before)  # none is left to read stale data
        await store._client.execute_command("REPLICAOF", "NO", "ONE")
        await store.save_thread(thread(), ALICE)


async def test_a_failover_that_is_over_fails_no_call(
    private_engine: PrivateEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ex-primary refuses; a second try, on a new connection, finds the new primary."""
    connect = Connection._connect

    async def find(connection: Connection) -> None:
        with Node.from_url(private_engine.url) as primary:
            primary.execute_command("REPLICAOF", "NO", "ONE")
        await connect(connection)

    async with Store.open(private_engine.url) as store:
        await store.save_thread(thread(), ALICE)
        await store._client.execute_command("REPLICAOF", "127.0.0.1", "1")
        monkeypatch.setattr(Connection, "_connect", find)
        await store.save_thread(thread(title="New"), ALICE)
        assert await store.load_thread("t", ALICE) == thread(title="New")


async def test_a_closed_store_has_answered_all_and_takes_no_more(
    private_engine: PrivateEngine,
) -> None:
    async with Store.open(private_engine.url) as store:
        await store.save_thread(thread(), ALICE)
        calls = [asyncio.create_task(store.load_thread("t", ALICE)) for _ in range(80)]
        await asyncio.sleep(0)  # now some are under way and the others wait
    assert [await call for call in calls] == [thread()] * 80
    with pytest.raises(exceptions.ConnectionError, match="closed"):
        await store.ping()
    async with Redis.from_url(private_engine.url) as client:
        assert len(await client.client_list()) == 1  # the one that asks


async def test_a_close_that_is_cancelled_leaves_no_connection(
    private_engine: PrivateEngine,
) -> None:
    async def use() -> None:
        async with Store.open(private_engine.url) as store:
            await asyncio.gather(*(store.ping() for _ in range(5)))
            await store._free.acquire()  # a call that never ends

    using = asyncio.create_task(use())
    await asyncio.sleep(0.2)
    using.cancel()
    await asyncio.wait([using])
    async with Redis.from_url(private_engine.url) as client:
        assert len(await client.client_list()) == 1  # the one that asks


async def test_a_hanging_server_costs_five_seconds_and_no_restart(
    private_engine: PrivateEngine,
) -> None:
    async with Store.open(private_engine.url) as store:
        await store.save_thread(thread(), ALICE)
        os.kill(private_engine._processes[0].pid, signal.SIGSTOP)
        begun = time.monotonic()
        page = (None, 9, "asc", ALICE)
        waiting = [store.load_thread_items("t", *page) for _ in range(80)]  # more than connections
        answers = await asyncio.gather(*waiting, return_exceptions=True)
        assert {type(answer) for answer in answers} == {exceptions.TimeoutError}
        assert time.monotonic() - begun < 8
        os.kill(private_engine._processes[0].pid, signal.SIGCONT)
        assert (await store.load_thread("t", ALICE)).id == "t"


async def test_a_server_that_is_silent_from_the_start_ends_the_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Something else may be listening there."""
    monkeypatch.setattr("app.store.WAIT_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://u:hunter2@127.0.0.1:{silent.getsockname()[1]}"
        async with asyncio.timeout(3):
            with pytest.raises(StoreError, match=r"no answer within 0.5 s. Check STORE_URL$"):
                async with Store.open(url):
                    pass


async def test_when_one_connection_is_silent_all_are_replaced(
    private_engine: PrivateEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy in between has forgotten them: one caller waits, not one per connection."""
    monkeypatch.setattr("app.store.WAIT_SECONDS", 0.5)
    async with Store.open(private_engine.url) as store:
        await asyncio.gather(*(store.ping() for _ in range(3)))
        idle = [each.connection for each in store._idle]
        assert [each.is_connected and not each.should_reconnect() for each in idle] == [True] * 3
        os.kill(private_engine._processes[0].pid, signal.SIGSTOP)
        with pytest.raises(exceptions.TimeoutError):
            await store.ping()
        os.kill(private_engine._processes[0].pid, signal.SIGCONT)
        assert all(each.should_reconnect() or not each.is_connected for each in idle)
        await store.ping()


def owned_by(node: Node, store: Store) -> tuple[RequestContext, int]:
    """Return an owner whose data are on the first of three nodes, and the slot."""
    for name in map(str, range(1000)):
        slot = node.execute_command("CLUSTER KEYSLOT", store._base(name))
        if slot < SLOTS // 3:
            return RequestContext(user_id=name), slot
    raise AssertionError


@pytest.mark.parametrize("reached", [True, False], ids=["accepts", "gone"])
async def test_a_primary_that_goes_silent_is_looked_for_again(
    monkeypatch: pytest.MonkeyPatch, *, reached: bool
) -> None:
    """Its replica takes over; the old one never answers, perhaps takes no connection either."""
    with valkey_nodes(3, 1) as nodes, ExitStack() as held:
        first, replica = nodes[0], nodes[3]
        replica.execute_command("CLUSTER REPLICATE", first.execute_command("CLUSTER MYID"))
        wait(lambda: replica.info().get("master_link_status") == "up")
        async with Store.open(url_of(replica)) as store:
            owner, _ = owned_by(first, store)
            await store.save_thread(thread(), owner)
            wait(lambda: replica.info()["slave_repl_offset"] == first.info()["master_repl_offset"])
            os.kill(first.info()["process_id"], signal.SIGSTOP)
            with monkeypatch.context() as patch:
                patch.setattr("app.store.WAIT_SECONDS", 0.3)
                with pytest.raises(exceptions.TimeoutError):
                    await store.load_thread("t", owner)
            address = ("127.0.0.1", urlsplit(url_of(first)).port)
            with suppress(TimeoutError):  # the system itself takes some hundreds
                while not reached:
                    held.enter_context(socket.create_connection(address, timeout=0.1))
            for _ in range(5):  # the replica is asked after a call or two
                with suppress(exceptions.TimeoutError):
                    assert await store.load_thread("t", owner) == thread()
                    break
            else:
                pytest.fail("the replica is never asked")


async def test_a_slot_without_a_node_for_a_moment_fails_no_call() -> None:
    """As while a replica is elected, or when the nodes forget a slot: down, and then back."""
    with valkey_nodes(3, 0) as nodes:
        async with Store.open(url_of(nodes[1])) as store:
            owner, slot = owned_by(nodes[0], store)
            await store.save_thread(thread(), owner)
            of_ping = nodes[2].execute_command("CLUSTER KEYSLOT", "chatkit:")
            nodes[2].execute_command("CLUSTER DELSLOTS", of_ping)
            for down in (nodes[:1], nodes):
                for node in down:
                    node.execute_command("CLUSTER DELSLOTS", slot)
                asked = asyncio.create_task(store.load_thread("t", owner))
                await asyncio.sleep(0.1)
                await store.ping()  # an app is ready while any node answers
                await asyncio.sleep(0.2)
                assert not asked.done()
                nodes[0].execute_command("CLUSTER ADDSLOTS", slot)
                assert await asked == thread()


async def test_a_slot_that_moves_to_a_node_that_joined_fails_no_call() -> None:
    with valkey_nodes(3, 1) as nodes:
        source, target = nodes[0], nodes[3]
        async with Store.open(url_of(nodes[1])) as store:
            owner, slot = owned_by(source, store)
            for n in range(20):
                await store.save_thread(thread(f"t{n}"), owner)
            old, new = (node.execute_command("CLUSTER MYID") for node in (source, target))
            moved = asyncio.Event()

            async def call(thread_id: str) -> int:
                calls = 0
                while not moved.is_set():
                    await store.add_thread_item(thread_id, message(f"i{calls}"), owner)
                    await store.load_thread_items(thread_id, None, 3, "desc", owner)
                    calls += 1
                return calls

            async with asyncio.TaskGroup() as callers:
                calling = [callers.create_task(call(f"t{n}")) for n in range(8)]
                await asyncio.sleep(0.1)
                target.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", old)
                source.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", new)
                port = urlsplit(url_of(target)).port
                while names := source.execute_command("CLUSTER GETKEYSINSLOT", slot, 1):
                    source.execute_command(
                        "MIGRATE", "127.0.0.1", port, "", 0, 5000, "KEYS", *names
                    )
                    await asyncio.sleep(0.05)
                for node in (target, source):
                    node.execute_command("CLUSTER SETSLOT", slot, "NODE", new)
                await asyncio.sleep(0.2)
                moved.set()
            assert min(each.result() for each in calling) > 5
            with pytest.raises(NotFoundError):
                await store.load_thread("a\ud83d", owner)  # asked for on the new node
