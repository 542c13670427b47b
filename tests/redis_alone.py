"""What the Redis store promises besides the contract: for `test_cluster.py`."""

import asyncio
import logging
import re
import shutil
import time
from pathlib import Path

import pytest
from chatkit.store import NotFoundError
from redis.asyncio import Redis

from app.context import RequestContext
from app.store import SCHEMA, StoreError
from app.store import ChatStore as Store

from . import reading
from .engine import PrivateEngine
from .test_store_isolation import fill
from .values import ALICE, file, message, thread

pytestmark = pytest.mark.anyio


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
    assert await client.get(f"{store._prefix}:schema") == b"1"
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


async def test_a_url_may_limit_the_connections(private_engine: PrivateEngine) -> None:
    """If the server accepts no more, callers wait."""
    async with Redis.from_url(private_engine.url) as client:
        await client.config_set("maxclients", 5)
        async with Store.open(f"{private_engine.url}?max_connections=4") as store:
            await store.save_thread(thread(), ALICE)
            await asyncio.gather(*(store.load_thread("t", ALICE) for _ in range(60)))
            assert len(await client.client_list()) == 5


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
            says |= dict.fromkeys((b"AUTH", b"SETINFO"), b"+OK\r\n") | {b"SLOTS": b"-ERR none\r\n"}
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
    assert "is at 99" in await answer("redis_version:6.2\r\nrole:master\r\n")
    assert "replica" in await answer("redis_version:7.2.4\r\nrole:slave\r\n")
    assert "Cluster" in await answer("redis_version:7.2.4\r\ncluster_enabled:1\r\n")
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


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://u:hunter2@127.0.0.1/7?nonsense=1", "redis://127.0.0.1:6379/7"),
        ("redis://u:hunter2@127.0.0.1:1", "redis://127.0.0.1:1"),
    ],
)
async def test_an_error_at_the_start_says_which_server_was_asked(url: str, shown: str) -> None:
    with pytest.raises(StoreError, match=f"^No store at {shown}: .*[^.]. Check STORE_URL$"):
        async with Store.open(url):
            pass


async def test_idle_connections_that_the_server_takes_back_fail_no_call(
    private_engine: PrivateEngine,
) -> None:
    """By its setting `timeout`, as the README says: another process may need them."""
    async with Store.open(private_engine.url) as store, Store.open(private_engine.url) as other:

        async def clients() -> int:
            return len(await other._client.execute_command("CLIENT LIST"))

        await store.save_thread(thread(), ALICE)
        await asyncio.gather(*(store.load_thread("t", ALICE) for _ in range(30)))
        assert await clients() > 30
        await other._client.execute_command("CONFIG SET", "timeout", "1")
        for _ in range(100):  # it looks about once a second
            await asyncio.sleep(0.1)
            if (left := await clients()) == 1:
                break
        assert left == 1
        answers = [store.load_thread("t", ALICE) for _ in range(30)]
        assert await asyncio.gather(*answers) == [thread()] * 30


async def test_a_backup_is_restored_as_the_readme_says(private_engine: PrivateEngine) -> None:
    """The server starts as it always does, and what is said afterwards is kept, too."""
    readme = Path(__file__).parents[1] / "README.md"
    (line,) = re.findall(r"```text\n(file .*\n)```", readme.read_text(encoding="utf-8"))
    async with Store.open(private_engine.url) as store:
        await store.save_thread(thread(), ALICE)
        await store._client.execute_command("SAVE")
        await store.save_thread(thread("later"), ALICE)
    private_engine.stop()
    log = private_engine.folder / "appendonlydir"
    shutil.rmtree(log)
    log.mkdir()
    (private_engine.folder / "dump.rdb").rename(log / "appendonly.aof.1.base.rdb")
    (log / "appendonly.aof.manifest").write_text(line)
    private_engine.start()
    async with Store.open(private_engine.url) as store:
        assert (await store.load_threads(9, None, "asc", ALICE)).data == [thread()]
        await store.save_thread(thread("new"), ALICE)
    private_engine.kill()
    private_engine.start()
    async with Store.open(private_engine.url) as store:
        assert (await store.load_threads(9, None, "asc", ALICE)).data == [thread(), thread("new")]
