"""What the Redis store promises besides the contract; `test_cluster.py` puts it into an app."""

import asyncio
import errno
import logging
import os
import signal
import time
from contextlib import suppress
from urllib.parse import urlsplit

import pytest
import uvloop
from redis import Redis as Node
from redis import exceptions
from redis.asyncio import Connection, Redis

from app.context import RequestContext
from app.store import SCHEMA, SHARDS, StoreError, new_id
from app.store import ChatStore as Store

from . import reading
from .cluster import SLOTS, url_of, valkey_nodes, wait
from .engine import PrivateEngine
from .values import ALICE, file, message, thread

pytestmark = pytest.mark.anyio


async def entries(store: Store) -> list[bytes]:
    """Return the list of owners as it is stored."""
    keys = [f"{store._prefix}:owners:{shard}" for shard in range(SHARDS)]
    return [entry for key in keys for entry in await store._client.smembers(key)]


async def keys(store: Store) -> set[str]:
    """Return the names of all keys but the schema's, without the prefix."""
    found = [key.decode() async for key in store._client.scan_iter(f"{store._prefix}:*")]
    return {key.partition(":")[2] for key in found} - {"schema"}


async def test_a_newer_schema_is_refused_and_left_alone(store_url: str) -> None:
    async with Store.open(store_url) as store:
        await store.save_thread(thread(), ALICE)
        await store._client.set(f"{store._prefix}:schema", 99)
        before = await keys(store)
        with pytest.raises(StoreError, match="is at 99, newer than the app: update the app"):
            async with Store.open(store_url):
                pass
        assert await keys(store) == before
        assert await store._client.get(f"{store._prefix}:schema") == b"99"


async def test_data_of_an_older_app_are_brought_up_to_date_and_then_are_not_for_it(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Store.open(store_url) as store:
        await store.save_thread(thread(), ALICE)
        before = await reading.export(store, ALICE)
    monkeypatch.setattr("app.store.SCHEMA", SCHEMA + 1)
    for _ in range(2):
        async with Store.open(store_url) as store:
            assert await reading.export(store, ALICE) == before
    monkeypatch.undo()
    with pytest.raises(StoreError, match=f"is at {SCHEMA + 1}, newer than the app"):
        async with Store.open(store_url):
            pass


async def test_an_owner_who_comes_and_goes_on_two_stores_is_listed_when_he_has_something(
    store: Store, neighbour: Store
) -> None:
    async def visit(where: Store, name: str) -> None:
        await where.save_thread(thread(name), ALICE)
        await where.delete_thread(name, ALICE)

    for n in range(20):
        visits = [visit((store, neighbour)[i % 2], f"v{n}-{i}") for i in range(6)]
        await asyncio.gather(store.save_thread(thread(f"stays{n}"), ALICE), *visits)
        assert [owner async for owner in neighbour.owners()] == ["alice"]
        await asyncio.gather(
            store.delete_thread(f"stays{n}", ALICE),
            visit(neighbour, f"w{n}"),
            visit(store, f"x{n}"),
        )
        assert [owner async for owner in neighbour.owners()] == []
    assert await entries(store) == []


async def test_an_owner_who_cannot_be_listed_gets_nothing_stored(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Listed first: whatever fails in between, nobody who has something is missing."""
    ask = store._ask

    async def list_nobody(*command: str | int) -> object:
        if command[0] == "SADD":
            raise exceptions.ConnectionError
        return await ask(*command)

    monkeypatch.setattr(store, "_ask", list_nobody)
    for save in (store.save_thread(thread(), ALICE), store.save_attachment(file("f"), ALICE)):
        with pytest.raises(exceptions.ConnectionError):
            await save
    assert await keys(store) == set()


async def test_an_owner_who_comes_back_during_the_listing_is_listed(
    store: Store, neighbour: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.save_thread(thread("old"), ALICE)
    ask = store._ask

    async def asked(*command: str | int) -> object:
        answer = await ask(*command)
        if command[0] == "SSCAN" and answer[1]:
            await neighbour.delete_thread("old", ALICE)
            await neighbour.save_thread(thread("new"), ALICE)
        return answer

    monkeypatch.setattr(store, "_ask", asked)
    assert [owner async for owner in store.owners()] == ["alice"]


async def test_an_entry_that_a_crash_left_names_nobody_and_ends_after_a_day(store: Store) -> None:
    await store._client.sadd(*store._entry(ALICE, new_id("thread")))
    assert [owner async for owner in store.owners()] == []
    assert len(await entries(store)) == 1  # its thread may be on the way
    await store._client.sadd(*store._entry(ALICE, f"thr_{0:032x}"))
    assert [owner async for owner in store.owners()] == []
    assert len(await entries(store)) == 1


async def test_of_a_forgotten_owner_only_the_tombstones_stay_and_they_end(store: Store) -> None:
    await store.save_thread(thread(), ALICE)
    await store.add_thread_item("t", message("a"), ALICE)
    await store.save_feedback("t", ["a"], "positive", ALICE)
    await store.claim_turn("t", "turn", ALICE)
    for n, home in enumerate(("t", None)):
        await store.save_attachment(file(f"f{n}").model_copy(update={"thread_id": home}), ALICE)
    await store.delete_thread("t", ALICE)
    await store.delete_attachment("f1", ALICE)
    assert await keys(store) == {"{@alice}:gone:t"}
    assert 0 < await store._client.ttl(f"{store._prefix}:{{@alice}}:gone:t") <= 86_400


async def test_names_cannot_break_out_of_the_hash_tag(store: Store) -> None:
    for name in ("}{", "a}:items:t", "{@bob", "", "\0", "\ud800"):
        owner = RequestContext(user_id=name)
        await store.save_thread(thread(), owner)
        await store.add_thread_item("t", message("a"), owner)
    tags = {key[: key.index("}") + 1] for key in await keys(store) if key.startswith("{")}
    quoted = ("%7D%7B", "a%7D%3Aitems%3At", "%7B%40bob", "", "%00", "%ED%A0%80")
    assert tags == {f"{{@{name}}}" for name in quoted}


def test_a_connection_that_was_cut_is_replaced(store_url: str) -> None:
    """On uvloop, too, which serves the app and has an error of its own for it."""

    async def cut() -> None:
        async with Store.open(store_url) as opened:
            await opened.save_thread(thread(), ALICE)
            for client in opened._idle:
                client.connection._writer.transport.abort()
            await asyncio.sleep(0.01)
            assert await opened.load_thread("t", ALICE) == thread()

    for loop in (asyncio.new_event_loop, uvloop.new_event_loop):
        with asyncio.Runner(loop_factory=loop) as runner:
            runner.run(cut())


async def test_a_connection_that_the_kernel_gave_up_is_replaced(store: Store) -> None:
    await store.ping()
    gave_up = TimeoutError(errno.ETIMEDOUT, "Connection timed out")
    store._idle[-1].connection._writer.transport._fatal_error(gave_up)
    await asyncio.sleep(0.01)
    await store.ping()


async def test_a_url_may_say_how_many_connections_there_are(private_engine: PrivateEngine) -> None:
    """Where the server takes no more, callers wait."""
    async with Redis.from_url(private_engine.url) as client:
        await client.config_set("maxclients", 5)
        async with Store.open(f"{private_engine.url}?max_connections=4") as store:
            await store.save_thread(thread(), ALICE)
            await asyncio.gather(*(store.load_thread("t", ALICE) for _ in range(60)))
            assert len(await client.client_list()) == 5


async def test_a_client_without_a_connection_is_the_last_to_be_tried(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the server's `maxclients` those that are connected go on."""
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


async def test_a_primary_that_became_a_replica_is_looked_for_again(
    private_engine: PrivateEngine,
) -> None:
    """After a failover its name may lead to the new primary: a new connection finds it."""
    async with Store.open(private_engine.url) as store:

        async def connections() -> list[int]:
            return await asyncio.gather(*(store._ask("CLIENT", "ID") for _ in range(5)))

        before = await connections()
        await store._client.execute_command("REPLICAOF", "127.0.0.1", "1")
        with pytest.raises(exceptions.ReadOnlyError):
            await store.save_thread(thread(), ALICE)
        assert min(await connections()) > max(before)  # no other reads what is old
        await store._client.execute_command("REPLICAOF", "NO", "ONE")
        await store.save_thread(thread(), ALICE)


async def test_scripts_are_sent_again_after_a_flush(store: Store) -> None:
    await store.save_thread(thread(), ALICE)
    await store._client.script_flush()
    await store.add_thread_item("t", message("a"), ALICE)
    assert await reading.items(store, ALICE) == ["a"]


async def test_thousands_of_documents_fit_an_answer(store: Store) -> None:
    """More than Lua's stack holds, in one page and in one list of attachments."""
    await store.save_thread(thread(), ALICE)
    ids = [f"i{n:04}" for n in range(9001)]
    for n in range(0, len(ids), 1000):
        adds = (store.add_thread_item("t", message(i), ALICE) for i in ids[n : n + 1000])
        await asyncio.gather(*adds)
    page = await store.load_thread_items("t", None, 10**6, "desc", ALICE)
    assert sorted(reading.ids(page)) == ids


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
        assert len(await client.client_list()) == 1  # who asks


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
        assert len(await client.client_list()) == 1  # who asks


async def test_a_hanging_server_costs_five_seconds_and_no_restart(
    private_engine: PrivateEngine,
) -> None:
    async with Store.open(private_engine.url) as store:
        await store.save_thread(thread(), ALICE)
        os.kill(private_engine._processes[0].pid, signal.SIGSTOP)
        begun = time.monotonic()
        waiting = [store.load_thread("t", ALICE) for _ in range(80)]  # more than connections
        answers = await asyncio.gather(*waiting, return_exceptions=True)
        assert {type(answer) for answer in answers} == {exceptions.TimeoutError}
        assert time.monotonic() - begun < 6.5
        os.kill(private_engine._processes[0].pid, signal.SIGCONT)
        assert (await store.load_thread("t", ALICE)).id == "t"


async def test_where_one_connection_is_silent_all_are_made_anew(
    private_engine: PrivateEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lies between has forgotten them: one caller waits, not one for each connection."""
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


@pytest.mark.parametrize(
    ("setting", "value", "named"),
    [
        ("appendonly", "no", "appendonly yes"),
        ("maxmemory-policy", "allkeys-lru", "maxmemory-policy noeviction"),
        ("maxmemory-policy", "volatile-lru", "maxmemory-policy noeviction"),
    ],
)
async def test_a_server_that_may_lose_data_is_warned_of(
    private_engine: PrivateEngine,
    caplog: pytest.LogCaptureFixture,
    setting: str,
    value: str,
    named: str,
) -> None:
    async with Store.open(private_engine.url) as store:
        assert caplog.messages == []
        await store._client.config_set(setting, value)
    with caplog.at_level(logging.WARNING):
        async with Store.open(private_engine.url):
            pass
    assert [named in text for text in caplog.messages] == [True]
    assert private_engine.password not in caplog.text


async def test_an_old_server_a_replica_and_something_else_are_refused_by_name() -> None:
    async def answer(info: str) -> str:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while line := await reader.readline():
                if line.strip() == b"INFO":
                    writer.write(f"${len(info)}\r\n{info}\r\n".encode())
                elif line.strip() in {b"AUTH", b"SETINFO"}:
                    writer.write(b"+OK\r\n")
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            with pytest.raises(StoreError, match="STORE_URL") as refusal:
                async with Store.open(f"redis://u:hunter2@127.0.0.1:{port}/0"):
                    pass
        assert "hunter2" not in str(refusal.value)
        return str(refusal.value)

    assert "6.2" in await answer("redis_version:6.0.16\r\nrole:master\r\n")
    assert "replica" in await answer("redis_version:7.2.4\r\nrole:slave\r\n")
    assert "6.2" in await answer("something:else\r\n")


@pytest.mark.parametrize("wrong", ["/99", "/name", "/0?prefix=a{b", "/0?nonsense=1", "rediss://"])
async def test_a_wrong_address_ends_the_start_in_one_line(
    private_engine: PrivateEngine, wrong: str
) -> None:
    old, begun = "redis://" if wrong == "rediss://" else "/0", time.monotonic()
    with pytest.raises(StoreError, match="STORE_URL") as refusal:
        async with Store.open(private_engine.url.replace(old, wrong)):
            pass
    assert time.monotonic() - begun < 5
    assert "\n" not in str(refusal.value)
    assert private_engine.password not in str(refusal.value)


# --- a cluster that changes ---


def owned_by(node: Node, store: Store) -> tuple[RequestContext, int]:
    """Return an owner whose data are on the first of three nodes, and their slot."""
    for name in map(str, range(1000)):
        slot = node.execute_command("CLUSTER KEYSLOT", store._base(name))
        if slot < SLOTS // 3:
            return RequestContext(user_id=name), slot
    raise AssertionError


async def test_a_primary_that_goes_silent_is_looked_for_again() -> None:
    """Its replica takes over: no answer ever comes from the old one, nor an error."""
    with valkey_nodes(3, 1) as nodes:
        first, replica = nodes[0], nodes[3]
        replica.execute_command("CLUSTER REPLICATE", first.execute_command("CLUSTER MYID"))
        wait(lambda: replica.info().get("master_link_status") == "up")
        async with Store.open(url_of(nodes[1])) as store:
            owner, _ = owned_by(first, store)
            await store.save_thread(thread(), owner)
            wait(lambda: replica.info()["slave_repl_offset"] == first.info()["master_repl_offset"])
            os.kill(first.info()["process_id"], signal.SIGSTOP)
            for _ in range(5):  # within a call or two the replica is asked
                with suppress(exceptions.TimeoutError):
                    assert await store.load_thread("t", owner) == thread()
                    break
            else:
                pytest.fail("the replica is never asked")


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
                while names := source.execute_command("CLUSTER GETKEYSINSLOT", slot, 10):
                    source.execute_command(
                        "MIGRATE", "127.0.0.1", port, "", 0, 5000, "KEYS", *names
                    )
                    await asyncio.sleep(0.05)
                for node in (target, source):
                    node.execute_command("CLUSTER SETSLOT", slot, "NODE", new)
                await asyncio.sleep(0.2)
                moved.set()
            assert min(each.result() for each in calling) > 5
