"""What the PostgreSQL store promises besides the contract: for `test_pgbouncer.py`."""

import asyncio
import time
from urllib.parse import urlsplit

import asyncpg
import pytest

from app import store as module
from app.store import ChatStore as Store
from app.store import StoreError

from .engine import PrivateEngine
from .values import ALICE, thread

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


async def test_an_old_server_is_refused_by_name(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = asyncpg.types.ServerVersion(12, 9, 0, "final", 0)
    monkeypatch.setattr(asyncpg.Connection, "get_server_version", lambda _: old)
    with pytest.raises(StoreError, match="this is PostgreSQL 12, the app needs 13"):
        async with Store.open(store_url):
            pass


async def test_a_newer_schema_is_refused_and_left_alone(store_url: str) -> None:
    async with Store.open(store_url) as store:
        await store._run("INSERT INTO chatkit.migration VALUES (99)")
        with pytest.raises(StoreError, match="is at 99, newer than the app: update the app"):
            async with Store.open(store_url):
                pass
        (newest,) = (await store._run("SELECT max(version) FROM chatkit.migration"))[0]
        assert newest == 99


async def test_a_wrong_database_ends_the_start_in_one_line(private_engine: PrivateEngine) -> None:
    wrong = urlsplit(private_engine.url)._replace(path="/none").geturl()
    with pytest.raises(StoreError, match=r'^STORE_URL=[^\n]*: database "none" does not exist$'):
        async with Store.open(wrong):
            pass


async def test_who_waits_for_a_connection_waits_no_longer_than_for_an_answer(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many wait for a server that is silent, all hear of it within the same seconds."""
    monkeypatch.setattr(module, "ANSWER_SECONDS", 1)
    async with Store.open(store_url, pool_size=2) as store:
        begun = time.monotonic()
        calls = [store._run("SELECT pg_sleep(60)") for _ in range(9)]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(each, Exception) for each in answers)
        assert time.monotonic() - begun < 2
        await store.ping()


async def test_an_upgrade_elsewhere_is_waited_for_but_not_for_good(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MIGRATION_SECONDS", 1)
    async with Store.open(store_url) as store:
        connection = await store._connect()
        async with connection.transaction():
            lock = "SELECT pg_advisory_xact_lock(hashtext($1))"
            await connection.execute(lock, store._schema)
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
            assert len(await store._run("SELECT FROM chatkit.thread")) == left
