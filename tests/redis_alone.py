"""What the Redis store promises besides the contract: for `test_cluster.py`."""

import asyncio
import logging
import time

import pytest
from chatkit.store import NotFoundError
from redis import exceptions

from app.context import RequestContext
from app.store import SCHEMA, SHARDS, StoreError, new_id
from app.store import ChatStore as Store

from . import reading
from .engine import PrivateEngine
from .test_store_isolation import fill
from .values import ALICE, file, message, thread

pytestmark = pytest.mark.anyio


async def entries(store: Store) -> list[bytes]:
    """Return the list of owners as it is stored."""
    keys = [f"{store._prefix}:owners:{shard}" for shard in range(SHARDS)]
    return [entry for key in keys for entry in await store._client.smembers(key)]


async def keys(store: Store) -> set[str]:
    """Return the names of all keys except the schema's, without the prefix."""
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


async def test_an_upgrade_keeps_the_data_and_then_refuses_the_older_app(
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


async def test_an_owner_who_comes_and_goes_on_two_stores_is_listed_while_there_is_data(
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
    """Owners are listed first: whatever fails after that, nobody with data is missing."""
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


async def test_an_owner_whose_entry_a_failover_lost_is_listed_again(store: Store) -> None:
    """Once, by a save an hour later: the list is on another node and may have lost its newest."""
    await store.save_thread(thread(), ALICE)
    token = f"{store._base('alice')}token"
    await store._client.srem(*store._entry(ALICE, (await store._client.get(token)).decode()))
    assert [owner async for owner in store.owners()] == []
    for age, listed in ((3500, []), (3700, ["alice"])):
        await store._client.set(token, f"thr_{int(time.time() - age) * 1000:012x}{'0' * 20}")
        for _ in range(2):
            await store.save_thread(thread(), ALICE)
        assert [owner async for owner in store.owners()] == listed
    assert len(await entries(store)) == 1


async def test_a_clock_behind_the_servers_lists_an_owner_once(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not at each save: each time an entry would stay for a day."""
    behind = time.time() - 7200
    monkeypatch.setattr("time.time", lambda: behind)
    monkeypatch.setattr("time.time_ns", lambda: int(behind * 10**9))
    for number in range(3):
        await store.save_thread(thread(f"t{number}"), ALICE)
    assert len(await entries(store)) == 1


async def test_an_entry_that_a_crash_left_names_nobody_and_ends_after_a_day(store: Store) -> None:
    await store._client.sadd(*store._entry(ALICE, new_id("thread")))
    assert [owner async for owner in store.owners()] == []
    assert len(await entries(store)) == 1  # its thread may be about to be stored
    await store._client.sadd(*store._entry(ALICE, f"thr_{0:032x}"))
    assert [owner async for owner in store.owners()] == []
    assert len(await entries(store)) == 1


async def test_an_owner_who_comes_back_after_a_day_keeps_the_old_entry_for_half_an_hour(
    store: Store,
) -> None:
    """Another listing may look there alone, if it has passed the new entry's place."""
    await store._client.sadd(*store._entry(ALICE, f"thr_{0:032x}"))
    await store.save_thread(thread(), ALICE)
    for age, left in ((0, 2), (1700, 2), (1900, 1)):
        token = f"thr_{int(time.time() - age) * 1000:012x}{'0' * 20}"
        await store._client.set(f"{store._base('alice')}token", token)
        assert [owner async for owner in store.owners()] == ["alice"]
        assert len(await entries(store)) == left


async def test_only_the_tombstones_of_a_forgotten_owner_stay_and_they_end(store: Store) -> None:
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


async def test_data_stays_where_the_first_release_put_it(store: Store) -> None:
    """Otherwise an updated app finds nothing: a new place needs a new SCHEMA and a migration."""
    owner = RequestContext(user_id="a/b c")
    await fill(store, owner, "said")
    await store.save_attachment(file("g"), owner)
    client, base = store._client, f"{store._prefix}:{{@a%2Fb%20c}}:"
    token, place = await client.get(f"{base}token"), b"063902952000123456000000000001t"
    assert await client.smembers(f"{store._prefix}:owners:15") == {token + b" a%2Fb%20c"}
    assert await client.get(f"{base}count") == b"3"
    assert await client.zrange(f"{base}order", 0, -1, withscores=True) == [(place, 0)]
    assert await client.hgetall(f"{base}places") == {b"t": place}
    assert await client.hgetall(f"{base}homes") == {b"f": b"000000000002=t", b"g": b"000000000003"}
    items = await client.zrange(f"{base}sequence:t", 0, -1, withscores=True)
    assert items == [(b"a", 1), (b"b", 2)]
    counts = {"threads": 1, "items:t": 2, "files": 2, "feedback:t": 1}
    assert {key: await client.hlen(base + key) for key in counts} == counts


async def test_names_cannot_break_out_of_the_hash_tag(store: Store) -> None:
    for name in ("}{", "a}:items:t", "{@bob", "", "\0", "\ud800"):
        owner = RequestContext(user_id=name)
        await store.save_thread(thread(), owner)
        await store.add_thread_item("t", message("a"), owner)
    tags = {key[: key.index("}") + 1] for key in await keys(store) if key.startswith("{")}
    quoted = ("%7D%7B", "a%7D%3Aitems%3At", "%7B%40bob", "", "%00", "%ED%A0%80")
    assert tags == {f"{{@{name}}}" for name in quoted}


@pytest.mark.parametrize(
    "said", ["decode_responses=True", "encoding=latin-1", "encoding_errors=strict", "retry=3"]
)
async def test_a_url_cannot_change_how_answers_are_read(store_url: str, said: str) -> None:
    """With text in place of bytes each owner in the list counted as unknown and was removed."""
    async with Store.open(f"{store_url}&{said}") as store:
        await store.save_thread(thread(), ALICE)
        assert [owner async for owner in store.owners()] == ["alice"]
        with pytest.raises(NotFoundError):
            await store.load_thread("a\ud83d", ALICE)


async def test_thousands_of_documents_fit_an_answer(store: Store) -> None:
    """More than Lua's stack can hold, in one page and in one list of attachments."""
    await store.save_thread(thread(), ALICE)
    ids = [f"i{n:04}" for n in range(9001)]
    for n in range(0, len(ids), 1000):
        adds = (store.add_thread_item("t", message(i), ALICE) for i in ids[n : n + 1000])
        await asyncio.gather(*adds)
    page = await store.load_thread_items("t", None, 10**6, "desc", ALICE)
    assert sorted(reading.ids(page)) == ids
    for n in range(0, 5000, 1000):
        saves = (store.save_attachment(file(i), ALICE) for i in ids[n : n + 1000])
        await asyncio.gather(*saves)
    homes = await store._client.hgetall(f"{store._base('alice')}homes")
    listed = [each.id.encode() for each in await store.load_attachments(None, ALICE)]
    assert (len(listed), listed) == (5000, sorted(homes, key=homes.get)), "in the order of saving"


@pytest.mark.parametrize(
    ("setting", "value", "named"),
    [
        ("appendonly", "no", "appendonly yes"),
        ("maxmemory-policy", "allkeys-lru", "maxmemory-policy noeviction"),
        ("maxmemory-policy", "volatile-lru", "maxmemory-policy noeviction"),
    ],
)
async def test_a_server_that_may_lose_data_is_warned_about(
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
            says = {b"INFO": f"${len(info)}\r\n{info}\r\n".encode(), b"GET": b"$2\r\n99\r\n"}
            says |= dict.fromkeys((b"AUTH", b"SETINFO"), b"+OK\r\n")
            while line := await reader.readline():
                writer.write(says.get(line.strip(), b""))
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
    assert "is at 99" in await answer("redis_version:6.2.0\r\nrole:master\r\n")
    assert "replica" in await answer("redis_version:7.2.4\r\nrole:slave\r\n")
    assert "6.2" in await answer("something:else\r\n")


WRONG = ["/99", "/name", "/0?prefix=a{b", "/0?nonsense=1", "/0?db=x", "/0?max_connections=1"]


@pytest.mark.parametrize("wrong", [*WRONG, "rediss://"])
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
