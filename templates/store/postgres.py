"""The Store in PostgreSQL, 13 or newer: one SQL statement, so one round trip, per operation.

Every key begins with the owner. Adding an item locks its thread's row while the item's position is
drawn, so items become visible in their order. A deleted thread leaves a tombstone in place of
its own row: a save that comes late finds it, whatever the timing.
"""
# ruff: noqa: S608 - statements are built from this file's constants alone

import asyncio
import json
import re
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Self, TypeAlias, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit

import asyncpg
from chatkit.store import NotFoundError, Store, StoreItemType, default_generate_id
from chatkit.types import (
    AssistantMessageItem,
    Attachment,
    FeedbackKind,
    Page,
    ThreadItem,
    ThreadMetadata,
)
from pydantic import TypeAdapter, ValidationError

from .context import RequestContext as Context
from .context import owner_of

# --- the same in every store: values ---
ITEM: TypeAdapter[ThreadItem] = TypeAdapter(ThreadItem)
ATTACHMENT: TypeAdapter[Attachment] = TypeAdapter(Attachment)
ITEMS: TypeAdapter[list[ThreadItem]] = TypeAdapter(list[ThreadItem])
THREADS: TypeAdapter[list[ThreadMetadata]] = TypeAdapter(list[ThreadMetadata])
ATTACHMENTS: TypeAdapter[list[Attachment]] = TypeAdapter(list[Attachment])
ANSWER_JSON = AssistantMessageItem.__pydantic_serializer__.to_json
NO_ANNOTATIONS: list[object] = []
STRICT = json.JSONEncoder(ensure_ascii=False, allow_nan=False, default=str)
UNFIT_FOR_AN_ID = re.compile("[\0\ud800-\udfff]")  # some engines refuse NUL and lone surrogates
LEASE_SECONDS = 15
TOMBSTONE_SECONDS = 86_400
Record = TypeVar("Record", ThreadMetadata, ThreadItem, Attachment)


class StoreError(RuntimeError):
    """The engine cannot be used: one line that says what was tried and which setting to change."""


def new_id(kind: StoreItemType) -> str:
    """Return the SDK's prefix and 128 bits: milliseconds, then random bits (as in UUIDv7)."""
    prefix = default_generate_id(kind).partition("_")[0]
    return f"{prefix}_{time.time_ns() // 1_000_000:012x}{secrets.token_hex(10)}"


def require_storable(**ids: str | None) -> None:
    """Raise ValueError, naming the field, for an id that no engine could hold."""
    for name, value in ids.items():
        if value and UNFIT_FOR_AN_ID.search(value):
            raise ValueError(f"{name} holds a NUL or a lone surrogate")


def dump(record: Record, kind: TypeAdapter[list[Record]]) -> bytes:
    """Return the JSON of a record; ValueError names the field that cannot be stored as it is.

    It is written and read back as a page of one, which drops the items the SDK puts in a Thread.
    """
    field = "content"  # in a plain answer, nothing else can be at fault
    try:
        # plain answers are most common; Pydantic checks no assignments, and a loop is fastest
        if type(record) is AssistantMessageItem and type(record.created_at) is datetime:
            for part in record.content:
                if type(part.text) is not str or part.annotations != NO_ANNOTATIONS:
                    break
            else:
                return ANSWER_JSON(record, warnings=False)
        field = type(record).__name__
        # Pydantic would write NaN as null, and a lone surrogate in a key as U+FFFD
        for name, value in kind.dump_python([record], warnings=False)[0].items():
            field = name
            STRICT.encode(value).encode()
        page = kind.dump_json([record], warnings=False)
        kind.validate_json(page)  # Pydantic may write what it cannot read: deep nesting, say
    except ValidationError as error:  # its text would quote what was said
        reasons = error.errors(include_url=False, include_input=False)
        raise ValueError(f"{type(record).__name__} cannot be stored: {reasons}") from None
    except (AttributeError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{field} cannot be stored: {error}") from None
    return page[1:-1]


def sort_time(moment: datetime) -> int:
    """Return microseconds since 1970 for sorting; a naive time counts as UTC."""
    if not isinstance(moment, datetime):
        raise ValueError("created_at is not a datetime")  # noqa: TRY004 - as for any wrong field
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (aware - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


# --- end ---

ANSWER_SECONDS = 5
MIGRATION_SECONDS = 60
IDLE_SECONDS = 60
PORTION = 10_000  # tombstones deleted in one statement: a purge may have left a million
FORM = "postgresql://user:password@host:5432/database (in a password @ is %40, / %2F, # %23, ? %3F)"
MIGRATIONS = (
    """
    CREATE TABLE chatkit.migration (version integer PRIMARY KEY, taken timestamptz DEFAULT now());
    CREATE TABLE chatkit.thread (
        owner text COLLATE "C", id text COLLATE "C", doc text, created bigint,
        seq bigint GENERATED BY DEFAULT AS IDENTITY, deleted timestamptz);
    CREATE INDEX thread_page ON chatkit.thread (owner, created, seq) WHERE created IS NOT NULL;
    CREATE INDEX thread_deleted ON chatkit.thread (deleted) WHERE deleted IS NOT NULL;
    ALTER TABLE chatkit.thread ADD PRIMARY KEY (owner, id);
    CREATE TABLE chatkit.item (
        owner text COLLATE "C", thread_id text COLLATE "C", id text COLLATE "C", doc text NOT NULL,
        seq bigint GENERATED BY DEFAULT AS IDENTITY, feedback text,
        FOREIGN KEY (owner, thread_id) REFERENCES chatkit.thread ON DELETE CASCADE);
    CREATE INDEX item_page ON chatkit.item (owner, thread_id, seq);
    CREATE INDEX item_feedback ON chatkit.item (owner, thread_id) WHERE feedback IS NOT NULL;
    ALTER TABLE chatkit.item ADD PRIMARY KEY (owner, thread_id, id);
    CREATE TABLE chatkit.attachment (
        owner text COLLATE "C", id text COLLATE "C", doc text NOT NULL, thread_id text COLLATE "C",
        seq bigint GENERATED BY DEFAULT AS IDENTITY, PRIMARY KEY (owner, id),
        FOREIGN KEY (owner, thread_id) REFERENCES chatkit.thread ON DELETE CASCADE);
    CREATE INDEX attachment_thread ON chatkit.attachment (owner, thread_id);
    CREATE TABLE chatkit.lease (
        owner text COLLATE "C", thread_id text COLLATE "C", turn_id text NOT NULL,
        until timestamptz NOT NULL, stopping boolean NOT NULL DEFAULT false,
        PRIMARY KEY (owner, thread_id),
        FOREIGN KEY (owner, thread_id) REFERENCES chatkit.thread ON DELETE CASCADE);
    """,
)
"""The steps that make the schema: add to the end, never change one that has shipped.

Primary keys come last: of two indexes that look the same to it, the planner takes the newer, and
plans made while a table is small are kept.
"""
THREAD = "FROM chatkit.thread WHERE owner = $1 AND id = $2 AND deleted IS NULL"

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
LOST = (asyncpg.PostgresConnectionError, asyncpg.InterfaceError, asyncpg.InternalClientError)


class PostgresStore(Store[Context]):
    """Conversations in one schema, which the statements call `chatkit` whatever its name is."""

    def __init__(self, pool: "_Pool") -> None:
        self._pool = pool

    @classmethod
    @asynccontextmanager
    async def open(
        cls, url: str, *, pool_size: int = 10, statement_cache_size: int = 100
    ) -> AsyncIterator[Self]:
        """Connect and bring the schema (`?schema=chatkit`) up to date; close at the end.

        PgBouncer in transaction mode needs `statement_cache_size=0`. StoreError says within 5 s
        that the URL is wrong, or the database unreachable, read-only, too old, or newer than the
        app; while another process upgrades the schema it waits a minute.
        """
        async with _Pool.open(url, pool_size, statement_cache_size) as pool:
            yield cls(pool)

    async def _find(
        self, statement: str, context: Context, *values: str | int | None
    ) -> list[asyncpg.Record]:
        """Return the owner's ($1) rows; none for an id that no engine could have stored."""
        if UNFIT_FOR_AN_ID.search("".join(map(str, values))):
            return []
        return await self._pool.run(statement, _owner(context), *values)

    async def _doc(self, statement: str, context: Context, *ids: str) -> str:
        """Return the document that the statement finds, or raise NotFoundError."""
        if rows := await self._find(statement, context, *ids):
            return str(rows[0]["doc"])
        raise NotFoundError(f"There is no {ids[-1]!a}")

    async def _page(
        self, adapter: TypeAdapter[Any], sql: str, limit: int, context: Context, *ids: str | None
    ) -> Page[Any]:
        """Return a page; one row more than `limit` is read to see whether others follow."""
        if limit <= 0:
            return Page()
        given = [each for each in ids if each is not None]  # the cursor comes last
        rows = await self._find(sql, context, min(limit, 2**40) + 1, *given)
        docs, more = [row[0] for row in rows[:limit]], len(rows) > limit
        found = adapter.validate_json(f"[{','.join(docs)}]")  # all together, which is faster
        return Page(data=found, has_more=more, after=found[-1].id if more else None)

    async def ping(self) -> None:
        """Raise the driver's error when the database does not answer."""
        await self._pool.run("SELECT FROM chatkit.migration LIMIT 1")

    async def owners(self) -> AsyncIterator[str]:
        """Yield every owner that has a thread or an attachment, each once; drop old tombstones."""
        old = "deleted < now() - $1 * interval '1 second'"
        statement = f"""DELETE FROM chatkit.thread WHERE {old} AND (owner, id) IN (
            SELECT owner, id FROM chatkit.thread WHERE {old} LIMIT {PORTION}) RETURNING true"""
        while await self._pool.run(statement, TOMBSTONE_SECONDS):
            pass
        statement = """SELECT least(
            (SELECT min(owner) FROM chatkit.thread WHERE owner >= $1 AND created IS NOT NULL),
            (SELECT min(owner) FROM chatkit.attachment WHERE owner >= $1)) AS owner"""
        owner = ""
        while (owner := (await self._pool.run(statement, owner))[0]["owner"]) is not None:
            yield owner.encode().decode("unicode_escape")
            owner += "\1"  # the next possible name

    # --- threads ---

    def generate_thread_id(self, context: Context) -> str:
        """Return a new id; the SDK's own has only 32 random bits and would soon repeat."""
        return new_id("thread")

    async def load_thread(self, thread_id: str, context: Context) -> ThreadMetadata:
        """Return a thread's metadata, or raise NotFoundError."""
        doc = await self._doc(f"SELECT doc {THREAD}", context, thread_id)
        return ThreadMetadata.model_validate_json(doc)

    async def save_thread(self, thread: ThreadMetadata, context: Context) -> None:
        """Add a thread or replace its metadata; NotFoundError if it was deleted in the last day."""
        require_storable(thread_id=thread.id)
        doc = dump(thread, THREADS).decode()
        statement = """
            INSERT INTO chatkit.thread AS old (owner, id, created, doc) VALUES ($1, $2, $3, $4)
            ON CONFLICT (owner, id) DO UPDATE SET created = $3, doc = $4, deleted = NULL,
                seq = CASE WHEN old.deleted IS NULL THEN old.seq ELSE excluded.seq END
            WHERE old.deleted IS NULL OR old.deleted < now() - $5 * interval '1 second'
            RETURNING true"""
        values = (thread.id, sort_time(thread.created_at), doc, TOMBSTONE_SECONDS)
        if not await self._pool.run(statement, _owner(context), *values):
            raise NotFoundError(f"The thread {thread.id!a} was deleted")

    async def load_threads(
        self, limit: int, after: str | None, order: str, context: Context
    ) -> Page[ThreadMetadata]:
        """Return the owner's threads by creation time; an unknown cursor gives an empty page."""
        than, way = _towards(order)
        mine = "FROM chatkit.thread WHERE owner = $1"
        start = f"AND (created, seq) {than} (SELECT created, seq {mine} AND id = $3)"
        statement = f"""SELECT doc {mine} AND created IS NOT NULL
            {start if after is not None else ""} ORDER BY created {way}, seq {way} LIMIT $2"""
        return await self._page(THREADS, statement, limit, context, after)

    async def delete_thread(self, thread_id: str, context: Context) -> None:
        """Delete a thread with its items and attachments; its id is barred for a day."""
        statement = f"""WITH gone AS (DELETE {THREAD} RETURNING owner, id)
            INSERT INTO chatkit.thread (owner, id, deleted) SELECT owner, id, now() FROM gone"""
        await self._find(statement, context, thread_id)

    async def undelete_thread(self, thread_id: str, context: Context) -> None:
        """Let a deleted id be saved again, for an import."""
        statement = """DELETE FROM chatkit.thread
            WHERE owner = $1 AND id = $2 AND deleted IS NOT NULL"""
        await self._find(statement, context, thread_id)

    async def set_title_if_unchanged(
        self, thread_id: str, old: str | None, new: str, context: Context
    ) -> bool:
        """Set the title if it is still `old`; return whether it was set."""
        statement = """UPDATE chatkit.thread SET doc = $4 || substr(doc, length($3::text) + 1)
            WHERE owner = $1 AND id = $2 AND starts_with(doc, $3) RETURNING true"""
        return bool(await self._find(statement, context, thread_id, _title(old), _title(new)))

    # --- items ---

    def generate_item_id(
        self, item_type: StoreItemType, thread: ThreadMetadata, context: Context
    ) -> str:
        """Return a new id with the SDK's prefix for its kind."""
        return new_id(item_type)

    async def load_thread_items(
        self, thread_id: str, after: str | None, limit: int, order: str, context: Context
    ) -> Page[ThreadItem]:
        """Return items in the order of adding; an unknown thread or cursor gives an empty page."""
        than, way = _towards(order)
        its = "FROM chatkit.item WHERE owner = $1 AND thread_id = $3"
        start = f"AND seq {than} (SELECT seq {its} AND id = $4)"
        statement = f"""SELECT doc {its} {start if after is not None else ""}
            ORDER BY seq {way} LIMIT $2"""
        return await self._page(ITEMS, statement, limit, context, thread_id, after)

    async def add_thread_item(self, thread_id: str, item: ThreadItem, context: Context) -> None:
        """Add an item at the end, or replace it in place; NotFoundError without its thread."""
        require_storable(thread_id=thread_id, item_id=item.id)
        if item.thread_id != thread_id:
            item = item.model_copy(update={"thread_id": thread_id})
        doc = dump(item, ITEMS).decode()
        statement = f"""
            WITH locked AS (SELECT {THREAD} FOR NO KEY UPDATE)
            INSERT INTO chatkit.item (owner, thread_id, id, doc) SELECT $1, $2, $3, $4 FROM locked
            ON CONFLICT (owner, thread_id, id) DO UPDATE SET doc = $4 RETURNING true"""
        if not await self._pool.run(statement, _owner(context), thread_id, item.id, doc):
            raise NotFoundError(f"There is no thread {thread_id!a}")

    save_item = add_thread_item  # both add, both replace

    async def load_item(self, thread_id: str, item_id: str, context: Context) -> ThreadItem:
        """Return an item, or raise NotFoundError."""
        statement = "SELECT doc FROM chatkit.item WHERE owner = $1 AND thread_id = $2 AND id = $3"
        return ITEM.validate_json(await self._doc(statement, context, thread_id, item_id))

    async def delete_thread_item(self, thread_id: str, item_id: str, context: Context) -> None:
        """Delete an item and its feedback, if they are there."""
        statement = "DELETE FROM chatkit.item WHERE owner = $1 AND thread_id = $2 AND id = $3"
        await self._find(statement, context, thread_id, item_id)

    async def save_feedback(
        self, thread_id: str, item_ids: list[str], kind: FeedbackKind, context: Context
    ) -> None:
        """Store a thumb for each item; NotFoundError, and nothing stored, unless all exist."""
        require_storable(thread_id=thread_id, item_ids="".join(item_ids), kind=kind)
        # The thread is locked first: rows of several items would be locked in no fixed order. They
        # are locked too: an item that was deleted while this waited must not be counted.
        statement = f"""
            WITH locked AS (SELECT {THREAD} FOR NO KEY UPDATE), its AS (
                SELECT FROM chatkit.item, locked
                WHERE owner = $1 AND thread_id = $2 AND id = ANY($3) FOR NO KEY UPDATE OF item
            ), found AS (
                SELECT FROM locked WHERE cardinality($3::text[]) = (SELECT count(*) FROM its)
            ), noted AS (
                UPDATE chatkit.item SET feedback = $4 FROM found
                WHERE owner = $1 AND thread_id = $2 AND id = ANY($3))
            SELECT true FROM found"""
        values = (thread_id, list(set(item_ids)), kind)
        if not await self._pool.run(statement, _owner(context), *values):
            raise NotFoundError(f"Not all items are there: {item_ids!a}")

    async def load_feedback(self, thread_id: str, context: Context) -> dict[str, FeedbackKind]:
        """Return the thumbs of a thread by item."""
        statement = """SELECT id, feedback FROM chatkit.item
            WHERE owner = $1 AND thread_id = $2 AND feedback IS NOT NULL"""
        rows = await self._find(statement, context, thread_id)
        return {row["id"]: row["feedback"] for row in rows}

    # --- attachments ---

    async def save_attachment(self, attachment: Attachment, context: Context) -> None:
        """Add or replace a record. NotFoundError: no such thread. ValueError: it is in another."""
        require_storable(attachment_id=attachment.id, thread_id=attachment.thread_id)
        statement = f"""
            WITH locked AS (SELECT {THREAD} FOR KEY SHARE), saved AS (
                INSERT INTO chatkit.attachment AS old (owner, thread_id, id, doc)
                SELECT $1, $2, $3, $4 WHERE $2 IS NULL OR EXISTS (SELECT FROM locked)
                ON CONFLICT (owner, id) DO UPDATE SET thread_id = $2, doc = $4
                WHERE old.thread_id IS NULL OR old.thread_id = $2 RETURNING true)
            SELECT $2 IS NULL OR EXISTS (SELECT FROM locked) AS found,
                EXISTS (SELECT FROM saved) AS saved"""
        values = (attachment.thread_id, attachment.id, dump(attachment, ATTACHMENTS).decode())
        row = (await self._pool.run(statement, _owner(context), *values))[0]
        if not row["found"]:
            raise NotFoundError(f"There is no thread {attachment.thread_id!a}")
        if not row["saved"]:
            raise ValueError("thread_id: the attachment belongs to another thread")

    async def load_attachment(self, attachment_id: str, context: Context) -> Attachment:
        """Return an attachment's record, or raise NotFoundError."""
        statement = "SELECT doc FROM chatkit.attachment WHERE owner = $1 AND id = $2"
        return ATTACHMENT.validate_json(await self._doc(statement, context, attachment_id))

    async def load_attachments(self, thread_id: str | None, context: Context) -> list[Attachment]:
        """Return a thread's records, or all the owner's if `thread_id` is None, oldest first."""
        some, ids = ("", ()) if thread_id is None else ("AND thread_id = $2", (thread_id,))
        statement = f"SELECT doc FROM chatkit.attachment WHERE owner = $1 {some} ORDER BY seq"
        rows = await self._find(statement, context, *ids)
        return ATTACHMENTS.validate_json(f"[{','.join(row['doc'] for row in rows)}]")

    async def delete_attachment(self, attachment_id: str, context: Context) -> None:
        """Delete an attachment's record, if it is there."""
        statement = "DELETE FROM chatkit.attachment WHERE owner = $1 AND id = $2"
        await self._find(statement, context, attachment_id)

    # --- turns ---

    async def claim_turn(self, thread_id: str, turn_id: str, context: Context) -> bool:
        """Take a thread's lease for LEASE_SECONDS; False while another turn holds it.

        NotFoundError without the thread. A lease is no lock: a worker that was paused
        past its lease may still write.
        """
        require_storable(thread_id=thread_id, turn_id=turn_id)
        statement = f"""
            WITH locked AS (SELECT {THREAD} FOR KEY SHARE), taken AS (
                INSERT INTO chatkit.lease AS old (owner, thread_id, turn_id, until)
                SELECT $1, $2, $3, clock_timestamp() + $4 * interval '1 second' FROM locked
                ON CONFLICT (owner, thread_id) DO UPDATE SET turn_id = $3, until = excluded.until,
                    stopping = old.stopping AND old.until > clock_timestamp()
                WHERE old.turn_id = $3 OR old.until < clock_timestamp() RETURNING true)
            SELECT EXISTS (SELECT FROM taken) AS taken FROM locked"""
        if not (rows := await self._find(statement, context, thread_id, turn_id, LEASE_SECONDS)):
            raise NotFoundError(f"There is no thread {thread_id!a}")
        return bool(rows[0]["taken"])

    async def renew_turn(self, thread_id: str, turn_id: str, context: Context) -> bool:
        """Extend the lease; False if it was lost or the turn was asked to stop."""
        statement = """UPDATE chatkit.lease
            SET until = clock_timestamp() + $4 * interval '1 second'
            WHERE owner = $1 AND thread_id = $2 AND turn_id = $3 AND NOT stopping
                AND until > clock_timestamp() RETURNING true"""
        return bool(await self._find(statement, context, thread_id, turn_id, LEASE_SECONDS))

    async def release_turn(self, thread_id: str, turn_id: str, context: Context) -> None:
        """Give the lease back, if it is this turn's."""
        statement = "DELETE FROM chatkit.lease WHERE owner = $1 AND thread_id = $2 AND turn_id = $3"
        await self._find(statement, context, thread_id, turn_id)

    async def stop_turn(self, thread_id: str, context: Context) -> bool:
        """Ask the turn that holds the lease to stop; False when none does."""
        statement = """UPDATE chatkit.lease SET stopping = true
            WHERE owner = $1 AND thread_id = $2 AND until > clock_timestamp() RETURNING true"""
        return bool(await self._find(statement, context, thread_id))


class _Pool:
    """A few connections; asyncpg's own pool would cost a task for each statement."""

    def __init__(self, urls: list[str], options: dict[str, Any], schema: str, size: int) -> None:
        self._urls, self._options = urls, options  # one per host, the last that accepted us first
        self._schema = schema
        self._free = asyncio.Semaphore(size)  # serves in order
        self._ends: dict[Connection, float] = {}  # when each has to go; the oldest comes first
        self._busy: set[Connection] = set()
        self._closed = False

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, size: int, statement_cache_size: int) -> AsyncIterator[Self]:
        """Try the database, and bring the schema up to date; at the end wait for what runs."""
        urls, schema, shown = _split(url)
        # What is cut off here also ends on the server; but PgBouncer refuses the setting.
        end = {"statement_timeout": f"{ANSWER_SECONDS}s"} if statement_cache_size else {}
        options = {"statement_cache_size": statement_cache_size, "server_settings": end}
        pool = cls(urls, options, schema, size)
        try:
            async with asyncio.timeout(ANSWER_SECONDS) as limit:
                await pool._migrate(limit)
        except (StoreError, OSError, asyncpg.PostgresError, *LOST) as error:
            reason = " ".join(str(error).split()) or "no answer in time"
            raise StoreError(f"STORE_URL={shown}: {reason}") from None
        except (ValueError, OverflowError):  # a wrong port, say; its text may quote the password
            raise StoreError(f"STORE_URL cannot be read, expected {FORM}") from None
        watch = asyncio.create_task(pool._watch())
        try:
            yield pool
        finally:
            pool._closed = True
            try:
                for _ in range(size):  # all of them are free once the last call has its answer
                    await pool._free.acquire()
            finally:
                watch.cancel()
                pool._disconnect()

    async def _connect(self, seconds: float) -> Connection:
        """Connect to the first host that accepts us; a silent one leaves time to ask the next."""
        options = self._options | {"timeout": seconds / len(self._urls)}
        for url in [*self._urls]:
            try:
                connection: Connection = await asyncpg.connect(url, **options)
            except (OSError, asyncpg.PostgresError, *LOST) as error:
                failure = error
                self._urls.sort(key=url.__eq__)  # it goes to the end
            else:
                return connection
        raise failure

    async def _migrate(self, limit: asyncio.Timeout) -> None:
        """Run the missing steps, all or none; replicas that start meanwhile wait."""
        connection = await self._connect(ANSWER_SECONDS)
        try:
            if (server := connection.get_server_version()) < (13,):
                raise StoreError(f"this is PostgreSQL {server.major}, the app needs 13 or newer")
            ((level, reads, *encodings),) = await connection.fetch(
                "SELECT current_setting('transaction_isolation'),"
                " current_setting('transaction_read_only'),"
                " current_setting('server_encoding'), current_setting('client_encoding')"
            )
            if not {*encodings} <= {"UTF8", "SQL_ASCII"}:
                raise StoreError(f"encodings are {encodings}, the app needs a database in UTF8")
            if (level, reads) != ("read committed", "off"):
                raise StoreError(
                    f"transactions are {level}, read-only {reads}: the app needs a primary with "
                    "default_transaction_isolation 'read committed'"
                )
            await connection.execute("BEGIN; SET LOCAL statement_timeout = 0")
            limit.reschedule(asyncio.get_running_loop().time() + MIGRATION_SECONDS)
            await connection.execute("SELECT pg_advisory_xact_lock(hashtext($1))", self._schema)
            if await connection.fetchval("SELECT to_regnamespace($1) IS NULL", self._schema):
                await connection.execute(f'CREATE SCHEMA "{self._schema}"')
            table, version = f"{self._schema}.migration", 0
            if await connection.fetchval("SELECT to_regclass($1) IS NOT NULL", table):
                newest = _sql(self._schema, "SELECT max(version) FROM chatkit.migration")
                version = await connection.fetchval(newest)
            if version > len(MIGRATIONS):
                raise StoreError(f"{table} is at {version}, newer than the app: update the app")
            record = _sql(self._schema, "INSERT INTO chatkit.migration VALUES ($1)")
            for number, step in enumerate(MIGRATIONS[version:], version + 1):
                limit.reschedule(None)  # others wait a minute, but a step takes as long as it takes
                await connection.execute(_sql(self._schema, step))
                await connection.execute(record, number)
            await connection.execute("COMMIT")
        finally:
            connection.terminate()  # which rolls back what failed

    async def run(self, statement: str, *values: object) -> list[asyncpg.Record]:
        """Return a statement's rows, over the oldest connection, which has prepared the most.

        A connection that turns out to be dead is replaced, once: so every statement is one that
        may run twice (a title's second answer is False). A cancelled call is cancelled in the
        server too, and loses its connection.
        """
        if self._closed:
            raise asyncpg.InterfaceError("the store is closed")
        end = time.monotonic() + ANSWER_SECONDS
        async with self._free:
            idle = (each for each in self._ends if each not in self._busy and not each.is_closed())
            connection = next(idle, None)
            while True:
                if fresh := connection is None or connection.is_closed():
                    connection = await self._connect(end - time.monotonic())
                self._ends[connection] = end
                self._busy.add(connection)
                try:
                    rows = await connection.fetch(_sql(self._schema, statement), *values)
                except asyncpg.ProgramLimitExceededError:  # of an index row
                    connection.terminate()
                    raise ValueError("owner and ids are too long together") from None
                except (Exception, asyncio.CancelledError) as error:
                    with suppress(Exception):  # it may wait for a lock: this cancels it first
                        await connection.close(timeout=1)
                    if not isinstance(error, LOST):
                        raise
                    self._disconnect()  # if one is dead, all are
                    if fresh or time.monotonic() > end:
                        raise
                else:
                    self._ends[connection] = time.monotonic() + IDLE_SECONDS
                    return rows
                finally:
                    self._busy.remove(connection)

    async def _watch(self) -> None:
        """Cut off what gets no answer; asyncpg's own timeout costs more and waits twice as long.

        Close what a burst has left idle: the server may have no other connection for a process
        that has none, and a proxy in between may have dropped it.
        """
        while True:
            await asyncio.sleep(0.2)
            now = time.monotonic()
            for connection in [each for each, end in self._ends.items() if end < now]:
                connection.terminate()
                del self._ends[connection]

    def _disconnect(self) -> None:
        """Close the idle connections."""
        for connection in self._ends.keys() - self._busy:
            connection.terminate()


def _owner(context: Context) -> str:
    """Return the owner escaped to ASCII: text columns refuse a NUL and lone surrogates."""
    return owner_of(context).encode("unicode_escape").decode()


def _title(title: str | None) -> str:
    """Return how the JSON of a thread with this title begins: the title is its first field."""
    thread = ThreadMetadata(title=title, id="", created_at=datetime.fromtimestamp(0, UTC))
    return dump(thread, THREADS).decode().partition('"id":""')[0]


@cache
def _sql(schema: str, statement: str) -> str:
    return statement.replace("chatkit.", f'"{schema}".')


def _towards(order: str) -> tuple[str, str]:
    """Return how a page's SQL compares with its cursor, and how it is sorted."""
    return ("<", "DESC") if order == "desc" else (">", "ASC")


def _split(url: str) -> tuple[list[str], str, str]:
    """Return a URL for each host, the name of our schema, and the URL without its secrets."""
    with suppress(ValueError):  # its text may quote part of the password
        parts = urlsplit(url)
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        schema = query.pop("schema", "chatkit")
        if re.fullmatch("postgres(ql)?://([^/?#@]*@)?[^@]*", url):  # the password is in its place
            if not re.fullmatch("[a-z_][a-z0-9_]{0,62}", schema):
                raise StoreError("STORE_URL: its schema has to be a lower-case name")
            user, at, hosts = parts.netloc.rpartition("@")
            if "," in hosts:  # or a replica that accepted us once would keep us
                query.setdefault("target_session_attrs", "read-write")
            parts = parts._replace(query=urlencode(query))
            urls = [parts._replace(netloc=user + at + host).geturl() for host in hosts.split(",")]
            return urls, schema, f"postgresql://{hosts}{parts.path}"
    raise StoreError(f"STORE_URL cannot be read, expected {FORM}")


ChatStore = PostgresStore  # the name by which the rest of the app knows its store


def open_store(settings: Any) -> AbstractAsyncContextManager[PostgresStore]:
    """Open the store of the app's settings."""
    return PostgresStore.open(
        settings.store_url,
        pool_size=settings.store_pool_size,
        statement_cache_size=settings.store_statement_cache_size,
    )
