"""How PostgreSQL runs the store's statements: for `test_pgbouncer.py`."""

import asyncio
import json
from typing import Any

import asyncpg
import pytest
from chatkit.store import NotFoundError

from app import store as module
from app.store import ChatStore as Store

from .test_store_isolation import READS, WRITES, answer, fill
from .values import ALICE, BOB, message, thread

pytestmark = pytest.mark.anyio


async def test_an_ended_tombstone_is_not_dropped_while_its_thread_is_saved(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A save turns the tombstone's row into the thread's: dropping it would lose the thread."""
    monkeypatch.setattr(module, "TOMBSTONE_SECONDS", 0)
    async with Store.open(store_url) as store:
        await store.save_thread(thread(), ALICE)
        await store.delete_thread("t", ALICE)
        connection = await store._pool._connect(5)
        async with connection.transaction():
            save = "UPDATE chatkit.thread SET deleted = NULL, created = 1, doc = $1"
            doc = thread().model_dump_json()
            await connection.execute(module._sql(store._pool._schema, save), doc)
            listing = asyncio.create_task(anext(store.owners()))
            await asyncio.sleep(0.2)
        await connection.close()
        assert await listing == "alice"
        assert await store.load_thread("t", ALICE) == thread()


async def test_a_lease_begins_when_it_is_taken(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not when it was asked for: the thread's row may have been locked for some seconds."""
    monkeypatch.setattr(module, "LEASE_SECONDS", 1)
    async with Store.open(store_url) as store:
        await store.save_thread(thread(), ALICE)
        await store.claim_turn("t", "dead", ALICE)
        connection = await store._pool._connect(5)
        async with connection.transaction():
            lock = "SELECT FROM chatkit.thread FOR UPDATE"
            await connection.execute(module._sql(store._pool._schema, lock))
            claim = asyncio.create_task(store.claim_turn("t", "turn", ALICE))
            await asyncio.sleep(1.2)
        await connection.close()
        assert await claim
        assert await store.renew_turn("t", "turn", ALICE)


async def test_feedback_that_waited_finds_the_items_of_now(store_url: str) -> None:
    """An item deleted meanwhile is missing, so none gets a thumb; one replaced is there."""
    async with Store.open(store_url) as store:
        await store.save_thread(thread(), ALICE)
        for item_id in ("a", "b", "c"):
            await store.add_thread_item("t", message(item_id), ALICE)
        connection = await store._pool._connect(5)
        async with connection.transaction():
            lock = "SELECT FROM chatkit.thread FOR UPDATE"
            await connection.execute(module._sql(store._pool._schema, lock))
            late = asyncio.create_task(store.save_feedback("t", ["a", "b"], "negative", ALICE))
            await asyncio.sleep(0.2)
            replace = "UPDATE chatkit.item SET doc = doc WHERE id = 'c'"
            good = asyncio.create_task(store.save_feedback("t", ["a", "c"], "positive", ALICE))
            await asyncio.sleep(0.2)
            await connection.execute(module._sql(store._pool._schema, replace))
            await store.delete_thread_item("t", "b", ALICE)
        await connection.close()
        with pytest.raises(NotFoundError):
            await late
        await good
        assert await store.load_feedback("t", ALICE) == {"a": "positive", "c": "positive"}


async def test_keys_are_compared_by_their_bytes_whatever_the_database_s_language(
    store_url: str,
) -> None:
    """In some languages, the next possible name after an owner's would equal that owner's."""
    async with Store.open(store_url) as store:
        rows = await store._pool.run(
            """SELECT collation_name FROM information_schema.columns WHERE table_schema = $1
            AND column_name IN ('owner', 'id', 'thread_id')""",
            store._pool._schema,
        )
    assert [row[0] for row in rows] == ["C"] * 10


def looked_at(plan: dict[str, Any]) -> float:
    """Return how many rows the steps of a plan looked at, including those they filtered out."""
    rows = sum(plan.get(each, 0) for each in ("Actual Rows", "Rows Removed by Filter"))
    return rows * plan["Actual Loops"] + sum(map(looked_at, plan.get("Plans", [])))


OTHERS = (
    """INSERT INTO chatkit.thread (owner, id, created, doc, seq)
        SELECT owner, 't' || n, created, doc, -n FROM chatkit.thread, generate_series(1, $1) n""",
    """INSERT INTO chatkit.thread (owner, id, deleted)
        SELECT owner, 'gone' || n, now() FROM chatkit.thread, generate_series(1, $1) n
        WHERE id = 't'""",
    """INSERT INTO chatkit.item (owner, thread_id, id, doc, seq, feedback)
        SELECT owner, 't' || n, id, doc, -n, CASE WHEN n % 20 = 0 THEN 'positive' END
        FROM chatkit.item, generate_series(1, $1) n
        UNION SELECT owner, 't', id || n, doc, -n, NULL FROM chatkit.item, generate_series(1, $1) n
    """,
    """INSERT INTO chatkit.attachment (owner, thread_id, id, doc)
        SELECT owner, 't' || n, id || n, doc FROM chatkit.attachment, generate_series(1, $1) n""",
    """INSERT INTO chatkit.lease SELECT owner, id, 'turn', now() + interval '1 hour'
        FROM chatkit.thread WHERE id <> 't' AND deleted IS NULL AND $1::integer > 0""",
)
"""Each gives both users so many more records, most of them ahead of the existing ones."""


async def costs(url: str, others: int, patch: pytest.MonkeyPatch) -> dict[str, float]:
    """Return how many rows each call looks at among so many other records."""
    calls = READS | {"owners": lambda s, _: anext(s.owners())} | WRITES
    calls.pop("load_attachments of all")
    taken, seen = {}, list[float]()
    async with Store.open(url, pool_size=1) as store:
        for context in (ALICE, BOB):
            await fill(store, context, "text")
        for statement in OTHERS:
            await store._pool.run(statement, others)
        run = store._pool.run

        async def counted(statement: str, *values: object) -> list[asyncpg.Record]:
            ((plan,),) = await run(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", *values)
            seen.append(looked_at(json.loads(plan)[0]["Plan"]))
            return await run(statement, *values)

        await run("ANALYZE")
        for unfit in ("seqscan", "bitmapscan"):  # it may choose these for small tables
            await run(f"SET enable_{unfit} = off")
        patch.setattr(store._pool, "run", counted)
        for name, call in calls.items():
            seen.clear()
            await answer(call, store, ALICE)
            taken[name] = sum(seen)
    return taken


async def test_a_call_looks_at_as_many_rows_among_few_records_as_among_many(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each uses an index; listing all of a user's files, which reads them all, is left out."""
    few = await costs(store_url, 100, monkeypatch)
    assert few == await costs(f"{store_url}_more", 1000, monkeypatch)
