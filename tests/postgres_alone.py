"""What the PostgreSQL store promises besides the contract: for `test_pgbouncer.py`."""

import asyncio
import random
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest
from chatkit.store import NotFoundError

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
    """Whether the database has it or the address asks for it: not all text would fit."""
    connection = await asyncpg.connect(private_engine.url)
    for name, encoding in (("latin", "LATIN1"), ("bytes", "SQL_ASCII")):
        kind = f"ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0"
        await connection.execute(f"CREATE DATABASE {name} {kind}")
    await connection.close()
    url = private_engine.url
    async with Store.open(urlsplit(url)._replace(path="/bytes").geturl()) as store:  # any text fits
        await store.save_thread(thread("ä😀", title="ä😀"), ALICE)
        assert await store.load_thread("ä😀", ALICE) == thread("ä😀", title="ä😀")
    for wrong in (urlsplit(url)._replace(path="/latin").geturl(), f"{url}&client_encoding=latin1"):
        with pytest.raises(StoreError, match=r"LATIN1.* needs a database in UTF8"):
            async with Store.open(wrong):
                pass


async def test_an_old_server_is_refused_by_name(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = asyncpg.types.ServerVersion(12, 9, 0, "final", 0)
    least = old._replace(major=13)
    monkeypatch.setattr(asyncpg.Connection, "get_server_version", lambda _: least)
    async with Store.open(store_url):
        pass
    monkeypatch.setattr(asyncpg.Connection, "get_server_version", lambda _: old)
    with pytest.raises(StoreError, match=r"^STORE_URL=.*: this is PostgreSQL 12, the app needs 13"):
        async with Store.open(store_url):
            pass


async def test_a_failover_address_without_a_primary_ends_the_start_in_one_line(
    store_url: str,
) -> None:
    only_standby = f"{store_url}&target_session_attrs=standby"
    with pytest.raises(StoreError, match=r"^STORE_URL=[^\n]*$"):
        async with Store.open(only_standby):
            pass


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


async def test_a_migration_may_take_longer_than_an_answer_and_keeps_the_data(
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


async def test_a_step_that_fails_ends_the_start_in_one_line_and_changes_nothing(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = "CREATE TABLE chatkit.more (a text)", "SELECT unknown()"  # whose error has a hint too
    with monkeypatch.context() as patch:
        patch.setattr(module, "MIGRATIONS", (*module.MIGRATIONS, *steps))
        with pytest.raises(StoreError, match=r"^STORE_URL=[^\n]*unknown\(\)[^\n]*HINT[^\n]*$"):
            async with Store.open(store_url):
                pass
    async with Store.open(store_url) as store:
        assert await store._pool.run("SELECT to_regclass('chatkit.more') AS more") == [(None,)]


async def test_a_schema_whose_name_would_have_to_be_quoted_is_refused(store_url: str) -> None:
    """It is part of statements, and other programs could not name it."""
    for name in ("", "Chat", 'a"b', "9", "a-b", "x" * 64):
        with pytest.raises(StoreError, match="STORE_URL: its schema has to be a lower-case name"):
            async with Store.open(f"{store_url.rpartition('=')[0]}={name}"):
                pass


async def test_a_wrong_database_ends_the_start_in_one_line(private_engine: PrivateEngine) -> None:
    wrong = urlsplit(private_engine.url)._replace(path="/none").geturl()
    with pytest.raises(StoreError, match=r'^STORE_URL=[^\n]*: database "none" does not exist$'):
        async with Store.open(wrong):
            pass


async def test_claims_that_race_a_delete_are_granted_or_find_no_thread(store_url: str) -> None:
    """Without the lock on the thread's row, the foreign key would refuse them."""
    async with Store.open(store_url) as store:
        for n in range(100):
            await store.save_thread(thread(f"t{n}"), ALICE)
            claims = [store.claim_turn(f"t{n}", f"turn{k}", ALICE) for k in range(9)]
            calls = (*claims[:3], store.delete_thread(f"t{n}", ALICE), *claims[3:])
            answers = await asyncio.gather(*calls, return_exceptions=True)
            failed = {type(each) for each in answers if isinstance(each, Exception)}
            assert failed <= {NotFoundError}


async def test_feedback_on_many_items_at_once_never_deadlocks(store_url: str) -> None:
    """One query plan finds rows in the order of their ids, another in that of their places."""
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


async def test_an_upgrade_elsewhere_is_waited_for_but_not_for_ever(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MIGRATION_SECONDS", 1)
    async with Store.open(store_url) as store:
        connection = await store._pool._connect(5)
        async with connection.transaction():
            lock = "SELECT pg_advisory_xact_lock(hashtext($1))"
            await connection.execute(lock, store._pool._schema)
            with pytest.raises(StoreError, match="no answer in time"):
                async with Store.open(store_url):
                    pass
        await connection.close()


async def test_everybodys_tombstones_end_after_a_day(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also those of somebody who never comes back."""
    async with Store.open(store_url) as store:
        await store.save_thread(thread(), ALICE)
        await store.delete_thread("t", ALICE)
        for seconds, left in ((3600, 1), (0, 0)):
            monkeypatch.setattr(module, "TOMBSTONE_SECONDS", seconds)
            assert [owner async for owner in store.owners()] == []
            assert len(await store._pool.run("SELECT FROM chatkit.thread")) == left


async def test_even_more_tombstones_than_one_answer_can_delete_end(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A day after a purge of many threads; otherwise no owner could ever be listed again."""
    monkeypatch.setattr(module, "ANSWER_SECONDS", 2)
    monkeypatch.setattr(module, "PORTION", 20, raising=False)
    async with Store.open(store_url) as store:
        await store.save_thread(thread(), ALICE)
        await store._pool.run("""INSERT INTO chatkit.thread (owner, id, deleted)
            SELECT 'bob', number, now() - interval '2 days' FROM generate_series(1, 60) number""")
        await store._pool.run("""CREATE FUNCTION chatkit.slow() RETURNS trigger LANGUAGE plpgsql
            AS 'BEGIN PERFORM pg_sleep(0.05); RETURN OLD; END'""")
        await store._pool.run("""CREATE TRIGGER slow BEFORE DELETE ON chatkit.thread
            FOR EACH ROW EXECUTE FUNCTION chatkit.slow()""")
        assert [owner async for owner in store.owners()] == ["alice"]
        assert len(await store._pool.run("SELECT FROM chatkit.thread")) == 1


@pytest.mark.parametrize(("size", "cached"), [(2, 0), (3, 5)])
async def test_the_settings_reach_the_connections(
    store_url: str, tmp_path: Path, size: int, cached: int
) -> None:
    """The server is asked how many there are, and how many statements each keeps."""
    changes = {"store_pool_size": size, "store_statement_cache_size": cached}
    async with module.open_store(settings_for(store_url, tmp_path, **changes)) as store:
        sleep = "SELECT pg_backend_pid() AS pid FROM pg_sleep(0.2)"
        answers = await asyncio.gather(*(store._pool.run(sleep) for _ in range(9)))
        assert len({rows[0]["pid"] for rows in answers}) == size
        for n in range(9 * size):
            await store._pool.run(f"SELECT {n}")
        kept = await store._pool.run("SELECT FROM pg_prepared_statements")
        assert len(kept) == cached
