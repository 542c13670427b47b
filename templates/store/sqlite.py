"""Conversations in one SQLite file: one thread writes, with group commit, and another reads.

Several processes of one machine may share the file; a network file system must not hold it.
"""
# ruff: noqa: S608 - statements are built from this file's constants alone

import asyncio
import json
import re
import secrets
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import Any, Self, TypeAlias, TypeVar

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

T = TypeVar("T")
Work: TypeAlias = Callable[[sqlite3.Connection], T]
Asked: TypeAlias = tuple[Work[Any], asyncio.Future[Any], float]  # and until when it may wait
BUSY_SECONDS = 4.0  # how long another process may hold the file; a start-up ends within 5 s
GROUP = 128  # most operations in one commit, so that another process gets its turn
SCHEMA = [
    """CREATE TABLE threads (key INTEGER PRIMARY KEY, seq INTEGER AS (key), owner BLOB NOT NULL,
        id TEXT NOT NULL, created INTEGER NOT NULL, doc TEXT NOT NULL, UNIQUE (owner, id))""",
    "CREATE INDEX threads_in_order ON threads (owner, created, seq)",
    """CREATE TABLE items (key INTEGER PRIMARY KEY,
        thread INTEGER NOT NULL REFERENCES threads ON DELETE CASCADE,
        id TEXT NOT NULL, feedback TEXT, doc TEXT NOT NULL, UNIQUE (thread, id))""",
    "CREATE INDEX items_with_feedback ON items (thread) WHERE feedback IS NOT NULL",
    """CREATE TABLE attachments (key INTEGER PRIMARY KEY, owner BLOB NOT NULL, id TEXT NOT NULL,
        thread INTEGER REFERENCES threads ON DELETE CASCADE,
        doc TEXT NOT NULL, UNIQUE (owner, id))""",
    "CREATE INDEX attachments_of_thread ON attachments (thread)",
    """CREATE TABLE turns (thread INTEGER PRIMARY KEY REFERENCES threads ON DELETE CASCADE,
        id TEXT NOT NULL, until REAL NOT NULL, stopping INTEGER NOT NULL DEFAULT 0)""",
    "CREATE TABLE tombstones (owner BLOB, id TEXT, until REAL NOT NULL, PRIMARY KEY (owner, id))",
    "CREATE INDEX tombstones_by_end ON tombstones (until)",
]
"""Append only: `PRAGMA user_version` is the number of these statements that a file has run.

An item's key is its thread's, shifted by 32 bits, plus its number in the thread: a page lies
together in the file. `seq` repeats the key: SQLite uses no index for a pair with the key itself.
"""
MINE = "owner = ?1 AND id = ?2"
THREAD = f"(SELECT key FROM threads WHERE {MINE})"


class SQLiteStore(Store[Context]):
    """The SDK's Store in one file. Each operation is one hop to a thread and one transaction.

    Times are Unix seconds by the machine's clock. In every statement ?1 is the owner.
    """

    def __init__(self, reader: "_Worker", writer: "_Worker") -> None:
        """Take two running threads; `open` starts and ends them."""
        self._reader, self._writer = reader, writer

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str) -> AsyncIterator[Self]:
        """Open `sqlite:///relative.db` or `sqlite:////absolute.db`; close once all is written.

        Raises StoreError within 5 s: no such folder, not a database, a newer schema, locked.
        """
        kind, path = url.partition(":")[0], url.removeprefix("sqlite:///")
        if path in (url, "", ":memory:"):
            known = "write sqlite:///chat.db, or sqlite:////data/chat.db"
            raise StoreError(f"STORE_URL begins with {kind!a}: {known}")  # a password may follow
        try:
            reads, writes = await asyncio.to_thread(_connect, path)
        except (sqlite3.Error, ValueError) as error:
            raise StoreError(f"cannot use the file {path!r} of STORE_URL: {error}") from error
        workers = _Worker(reads, 0), _Worker(writes, GROUP)
        try:
            yield cls(*workers)
        finally:
            await asyncio.gather(*(worker.close() for worker in workers))

    async def ping(self) -> None:
        """Raise sqlite3.Error when the file cannot be read."""
        await self._reader.ask(_fetch("PRAGMA schema_version"))

    # --- threads ---

    def generate_thread_id(self, context: Context) -> str:
        """Return a new id; the SDK's own has only 32 random bits and would soon repeat."""
        return new_id("thread")

    async def load_thread(self, thread_id: str, context: Context) -> ThreadMetadata:
        """Return a thread's metadata, or raise NotFoundError."""
        sql = f"SELECT doc FROM threads WHERE {MINE}"
        return ThreadMetadata.model_validate_json(await self._doc(sql, context, thread_id))

    async def save_thread(self, thread: ThreadMetadata, context: Context) -> None:
        """Add a thread or replace its metadata; NotFoundError if it was deleted in the last day."""
        require_storable(thread_id=thread.id)
        sql = f"""INSERT INTO threads (owner, id, created, doc) SELECT ?1, ?2, ?3, ?4 WHERE NOT
            EXISTS (SELECT 1 FROM tombstones WHERE {MINE} AND until > ?5)
            ON CONFLICT DO UPDATE SET created = excluded.created, doc = excluded.doc"""
        created, doc = sort_time(thread.created_at), dump(thread, THREADS).decode()
        if not await self._change(sql, context, thread.id, created, doc, time.time()):
            raise NotFoundError(f"The thread {thread.id!a} was deleted")

    async def load_threads(
        self, limit: int, after: str | None, order: str, context: Context
    ) -> Page[ThreadMetadata]:
        """Return the owner's threads by creation time; an unknown cursor gives an empty page."""
        than, way = ("<", "DESC") if order == "desc" else (">", "ASC")
        # The plus drops a column's type affinity: a pair of typed values would not use the index.
        start = f"AND (created, seq) {than} (SELECT +created, +seq FROM threads WHERE {MINE})"
        sql = f"""SELECT doc FROM threads WHERE owner = ?1 {start if after is not None else ""}
            ORDER BY created {way}, seq {way} LIMIT ?3"""
        return await self._page(THREADS, sql, limit, context, after)

    async def delete_thread(self, thread_id: str, context: Context) -> None:
        """Delete a thread with its items and attachments; its id is barred for a day."""
        key, now = (_owner(context), thread_id), time.time()

        def delete(db: sqlite3.Connection) -> None:
            # One range of keys is faster than the foreign key's cascade, row by row.
            its_keys = f"key > {THREAD} << 32 AND key < {THREAD} + 1 << 32"
            db.execute(f"DELETE FROM items WHERE {its_keys}", key)
            if db.execute(f"DELETE FROM threads WHERE {MINE}", key).rowcount:
                db.execute("DELETE FROM tombstones WHERE until <= ?", (now,))
                tombstone = (*key, now + TOMBSTONE_SECONDS)
                db.execute("INSERT OR REPLACE INTO tombstones VALUES (?, ?, ?)", tombstone)

        with suppress(UnicodeEncodeError):
            await self._writer.ask(delete)

    async def undelete_thread(self, thread_id: str, context: Context) -> None:
        """Let a deleted id be saved again, for an import."""
        await self._change(f"DELETE FROM tombstones WHERE {MINE}", context, thread_id)

    async def set_title_if_unchanged(
        self, thread_id: str, old: str | None, new: str, context: Context
    ) -> bool:
        """Set the title if it is still `old`; return whether it was set."""
        sql = f"""UPDATE threads SET doc = ?4 || substr(doc, length(?3) + 1)
            WHERE {MINE} AND substr(doc, 1, length(?3)) = ?3"""
        return await self._change(sql, context, thread_id, _title(old), _title(new)) > 0

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
        bounds, descending = [f"{THREAD} << 32", f"{THREAD} + 1 << 32"], order == "desc"
        if after is not None:
            bounds[descending] = f"(SELECT key FROM items WHERE thread = {THREAD} AND id = ?3)"
        sql = f"""SELECT doc FROM items WHERE key > {bounds[0]} AND key < {bounds[1]}
            ORDER BY key {"DESC" if descending else "ASC"} LIMIT ?4"""
        return await self._page(ITEMS, sql, limit, context, thread_id, after)

    async def add_thread_item(self, thread_id: str, item: ThreadItem, context: Context) -> None:
        """Add an item at the end, or replace it in place; NotFoundError without its thread."""
        require_storable(thread_id=thread_id, item_id=item.id)
        sql = f"""INSERT INTO items (key, thread, id, doc) SELECT
            1 + coalesce((SELECT max(key) FROM items WHERE key >= low AND key < high), low),
            thread, ?3, ?4 FROM (SELECT key AS thread, key << 32 AS low, key + 1 << 32 AS high
                FROM threads WHERE {MINE})
            WHERE true ON CONFLICT (thread, id) DO UPDATE SET doc = excluded.doc"""
        if item.thread_id != thread_id:
            item = item.model_copy(update={"thread_id": thread_id})
        await self._change(sql, context, thread_id, item.id, dump(item, ITEMS).decode(), least=1)

    save_item = add_thread_item  # both add, both replace

    async def load_item(self, thread_id: str, item_id: str, context: Context) -> ThreadItem:
        """Return an item, or raise NotFoundError."""
        sql = f"SELECT doc FROM items WHERE thread = {THREAD} AND id = ?3"
        return ITEM.validate_json(await self._doc(sql, context, thread_id, item_id))

    async def delete_thread_item(self, thread_id: str, item_id: str, context: Context) -> None:
        """Delete an item and its feedback, if they are there."""
        sql = f"DELETE FROM items WHERE thread = {THREAD} AND id = ?3"
        await self._change(sql, context, thread_id, item_id)

    async def save_feedback(
        self, thread_id: str, item_ids: list[str], kind: FeedbackKind, context: Context
    ) -> None:
        """Store a thumb for each item; NotFoundError, and nothing stored, unless all exist."""
        require_storable(thread_id=thread_id, item_ids="".join(item_ids))
        sql = f"""UPDATE items SET feedback = ?3
            WHERE thread = {THREAD} AND id IN (SELECT value FROM json_each(?4))"""
        least = len(set(item_ids))
        values = thread_id, kind, json.dumps(item_ids)
        await self._change(sql, context, *values, least=least, needs=thread_id)

    async def load_feedback(self, thread_id: str, context: Context) -> dict[str, FeedbackKind]:
        """Return the thumbs of a thread by item."""
        sql = f"SELECT id, feedback FROM items WHERE thread = {THREAD} AND feedback IS NOT NULL"
        return dict(await self._rows(sql, context, thread_id))

    # --- attachments ---

    async def save_attachment(self, attachment: Attachment, context: Context) -> None:
        """Add or replace a record. NotFoundError: no such thread. ValueError: it is in another."""
        require_storable(attachment_id=attachment.id, thread_id=attachment.thread_id)
        sql = f"""INSERT INTO attachments (owner, id, thread, doc)
            SELECT ?1, ?3, {THREAD}, ?4 WHERE ?2 IS NULL OR {THREAD} IS NOT NULL
            ON CONFLICT DO UPDATE SET thread = excluded.thread, doc = excluded.doc
            WHERE attachments.thread IS NULL OR attachments.thread = excluded.thread"""
        values = attachment.thread_id, attachment.id, dump(attachment, ATTACHMENTS).decode()
        if not await self._change(sql, context, *values, needs=attachment.thread_id):
            raise ValueError("thread_id: the attachment belongs to another thread")

    async def load_attachment(self, attachment_id: str, context: Context) -> Attachment:
        """Return an attachment's record, or raise NotFoundError."""
        sql = "SELECT doc FROM attachments WHERE owner = ?1 AND id = ?2"
        return ATTACHMENT.validate_json(await self._doc(sql, context, attachment_id))

    async def delete_attachment(self, attachment_id: str, context: Context) -> None:
        """Delete an attachment's record, if it is there."""
        await self._change(f"DELETE FROM attachments WHERE {MINE}", context, attachment_id)

    async def load_attachments(self, thread_id: str | None, context: Context) -> list[Attachment]:
        """Return a thread's records, or all the owner's if `thread_id` is None, oldest first."""
        its, ids = ("owner = ?1", ()) if thread_id is None else (f"thread = {THREAD}", (thread_id,))
        sql = f"SELECT doc FROM attachments WHERE {its} ORDER BY key"
        rows = await self._rows(sql, context, *ids)
        return [ATTACHMENT.validate_json(doc) for (doc,) in rows]

    async def owners(self) -> AsyncIterator[str]:
        """Yield every owner that has a thread or an attachment, each once."""
        sql = """SELECT owner FROM threads WHERE owner > ?1
            UNION SELECT owner FROM attachments WHERE owner > ?1 ORDER BY owner LIMIT 500"""
        last: Any = ""  # any blob sorts after all text
        while rows := await self._reader.ask(_fetch(sql, last)):
            for (last,) in rows:
                yield last.decode("utf-8", "surrogatepass")

    # --- turns: one answer at a time in a thread ---

    async def claim_turn(self, thread_id: str, turn_id: str, context: Context) -> bool:
        """Take a thread's lease for LEASE_SECONDS; False while another turn holds it.

        NotFoundError without the thread. A lease is no lock: a worker that was paused
        past its lease may still write.
        """
        require_storable(thread_id=thread_id, turn_id=turn_id)
        sql = f"""INSERT INTO turns (thread, id, until)
            SELECT key, ?3, ?4 + {LEASE_SECONDS} FROM threads WHERE {MINE}
            ON CONFLICT DO UPDATE SET id = excluded.id, until = excluded.until,
                stopping = stopping AND turns.id = excluded.id AND turns.until > ?4
            WHERE turns.id = excluded.id
                OR turns.until NOT BETWEEN ?4 AND ?4 + {2 * LEASE_SECONDS}"""  # a clock went back
        values = thread_id, turn_id, time.time()
        return await self._change(sql, context, *values, needs=thread_id) > 0

    async def renew_turn(self, thread_id: str, turn_id: str, context: Context) -> bool:
        """Extend the lease; False if it was lost or the turn was asked to stop."""
        sql = f"""UPDATE turns SET until = ?4 + {LEASE_SECONDS}
            WHERE thread = {THREAD} AND id = ?3 AND until > ?4 AND NOT stopping"""
        return await self._change(sql, context, thread_id, turn_id, time.time()) > 0

    async def release_turn(self, thread_id: str, turn_id: str, context: Context) -> None:
        """Give the lease back, if it is this turn's."""
        sql = f"DELETE FROM turns WHERE thread = {THREAD} AND id = ?3"
        await self._change(sql, context, thread_id, turn_id)

    async def stop_turn(self, thread_id: str, context: Context) -> bool:
        """Ask the turn that holds the lease to stop; False when none does."""
        sql = f"UPDATE turns SET stopping = 1 WHERE thread = {THREAD} AND until > ?3"
        return await self._change(sql, context, thread_id, time.time()) > 0

    # --- how the two threads are asked ---

    async def _rows(self, sql: str, context: Context, *values: object) -> list[Any]:
        """Return the owner's rows; none for an id that is not valid UTF-8."""
        try:
            return await self._reader.ask(_fetch(sql, _owner(context), *values))
        except UnicodeEncodeError:
            return []

    async def _doc(self, sql: str, context: Context, *ids: str) -> str:
        """Return the document that the statement finds, or raise NotFoundError."""
        if rows := await self._rows(sql, context, *ids):
            return str(rows[0][0])
        raise NotFoundError(f"There is no {ids[-1]!a}")

    async def _page(
        self, adapter: TypeAdapter[Any], sql: str, limit: int, context: Context, *ids: object
    ) -> Page[Any]:
        """Return a page; one row more than `limit` is read to see whether others follow.

        All documents come in one row: per row Python releases the GIL and waits to get it back.
        """
        if limit <= 0:
            return Page()
        sql = f"SELECT count(*), CAST(group_concat(doc, ',\n') AS BLOB) FROM ({sql})"
        rows = await self._rows(sql, context, *ids, min(limit, 1 << 62) + 1)
        count, docs = rows[0] if rows else (0, None)
        more, docs = count > limit, docs or b""
        end = docs.rindex(b",\n") if more else len(docs)  # within JSON newlines are escaped
        data = adapter.validate_json(b"[%b]" % docs[:end])
        return Page(data=data, has_more=more, after=data[-1].id if more else None)

    async def _change(
        self, sql: str, context: Context, *values: object, least: int = 0, needs: str | None = None
    ) -> int:
        """Return the number of changed rows.

        NotFoundError, and no change: fewer than `least`, or none and no thread `needs`. That is
        looked up at once: a moment later it may be there, and the refusal would mean another thing.
        """
        owner = _owner(context)

        def change(db: sqlite3.Connection) -> int:
            rows = db.execute(sql, (owner, *values)).rowcount
            its = owner, needs
            known = rows or needs is None or db.execute(f"SELECT {THREAD}", its).fetchone()[0]
            if rows < least or not known:
                raise NotFoundError("There is no such thread or item")
            return rows

        try:
            return await self._writer.ask(change)
        except UnicodeEncodeError:  # an id that is not valid UTF-8 is nobody's
            return 0


ChatStore = SQLiteStore  # the name by which the rest of the app knows its store


def open_store(settings: Any) -> AbstractAsyncContextManager[SQLiteStore]:
    """Return the store that the settings name, to be entered with `async with`."""
    return SQLiteStore.open(settings.store_url)


def _owner(context: Context) -> bytes:
    """Return the owner as bytes: a BLOB can hold any text, lone surrogates too."""
    return owner_of(context).encode("utf-8", "surrogatepass")


def _title(title: str | None) -> str:
    """Return how the JSON of a thread with this title begins: the title is its first field."""
    thread = ThreadMetadata(title=title, id="", created_at=datetime.fromtimestamp(0, UTC))
    return dump(thread, THREADS).decode().partition('"id":')[0]


def _fetch(sql: str, *values: object) -> Work[list[Any]]:
    """Return the work that fetches all rows."""
    return lambda db: db.execute(sql, values).fetchall()


class _Worker(Thread):
    """A connection in a thread of its own, which does what it is asked, in order."""

    def __init__(self, db: sqlite3.Connection, group: int) -> None:
        """Start writing, up to `group` pieces of work per commit, or with 0 reading, one by one."""
        super().__init__(daemon=True)
        self._db, self._group, self._ended = db, group, False
        self._asked: SimpleQueue[Asked | None] = SimpleQueue()
        self.start()

    async def ask(self, work: Work[T]) -> T:
        """Return the work's result once it is committed, or raise its error."""
        if self._ended:
            raise sqlite3.ProgrammingError("The store is closed")
        answer: asyncio.Future[T | Exception] = asyncio.get_running_loop().create_future()
        self._asked.put((work, answer, time.monotonic() + BUSY_SECONDS))
        if isinstance(outcome := await answer, Exception):
            raise outcome
        return outcome

    def close(self) -> Awaitable[None]:
        """Accept no more, cancelled or not; await it until all that was asked is done."""
        self._ended = True
        self._asked.put(None)
        return asyncio.to_thread(self.join)

    def run(self) -> None:
        """Do the waiting work, a group at a time; answer once it is committed. Close at the end."""
        db, asked = self._db, self._asked
        for first in iter(asked.get, None):
            batch = [first]
            try:
                if self._group:
                    _patiently(db, "BEGIN IMMEDIATE", first[2])  # others have their own deadlines
                while len(batch) < self._group and not asked.empty():
                    if (another := asked.get()) is None:
                        asked.put(None)  # the end, for the outer loop
                        break
                    batch.append(another)
                if len(batch) == 1:  # it needs no savepoint, which would copy each page it changes
                    outcomes = [first[0](db)]
                else:
                    outcomes = [_attempt(db, work) for work, *_ in batch]
                if self._group:
                    db.execute("COMMIT")
            except Exception as error:  # noqa: BLE001 - whoever waits must hear of it
                with suppress(sqlite3.Error):  # SQLite may have rolled back by itself
                    db.execute("ROLLBACK")
                outcomes = [error] * len(batch)
            for loop in {answer.get_loop() for _, answer, _ in batch}:
                with suppress(RuntimeError):  # it is closed: nobody waits there any more
                    loop.call_soon_threadsafe(_settle, loop, batch, outcomes)
        db.close()


def _settle(loop: asyncio.AbstractEventLoop, batch: list[Asked], outcomes: list[Any]) -> None:
    """Give each outcome to whoever asked from this loop, unless the call was cancelled."""
    for (_, answer, _), outcome in zip(batch, outcomes, strict=True):
        if answer.get_loop() is loop and not answer.done():
            answer.set_result(outcome)


def _attempt(db: sqlite3.Connection, work: Work[T]) -> T | Exception:
    """Return the work's result, or its error after undoing this work alone."""
    db.execute("SAVEPOINT work")
    try:
        outcome: T | Exception = work(db)
    except Exception as error:
        if not db.in_transaction:  # a full disk has ended it: all of it is undone
            raise
        db.execute("ROLLBACK TO work")
        outcome = error
    db.execute("RELEASE work")
    return outcome


def _connect(path: str) -> tuple[sqlite3.Connection, sqlite3.Connection]:
    """Return a connection to read and one to write, and bring the file's schema up to date."""
    connect = partial(sqlite3.connect, path, isolation_level=None, check_same_thread=False)
    with ExitStack() as unless_done:
        writes = connect(timeout=0)
        unless_done.callback(writes.close)
        _patiently(writes, "PRAGMA synchronous = FULL")
        writes.execute("PRAGMA foreign_keys = ON")
        while (found := _patiently(writes, "PRAGMA user_version").fetchone()[0]) < len(SCHEMA):
            if writes.in_transaction:
                writes.execute(SCHEMA[found])
                writes.execute(f"PRAGMA user_version = {found + 1}")
            else:  # only now, as another process may write for a while; then look again
                _patiently(writes, "BEGIN IMMEDIATE")
        if found > len(SCHEMA):
            known = f"schema {found}, newer than this app's {len(SCHEMA)}"
            raise StoreError(f"the file {path!r} of STORE_URL has {known}")
        if writes.in_transaction:
            _patiently(writes, "COMMIT")
        _patiently(writes, "PRAGMA journal_mode = WAL")  # last: a newer app's file stays as it is
        try:  # does nothing, but is refused on a read-only file
            writes.execute("PRAGMA incremental_vacuum")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:  # busy: another one writes
                raise
        reads = connect(timeout=BUSY_SECONDS)
        reads.execute("PRAGMA query_only = ON")
        unless_done.pop_all()
    return reads, writes


def _patiently(db: sqlite3.Connection, sql: str, end: float | None = None) -> sqlite3.Cursor:
    """Run a statement that locks the file, waiting for other processes up to `end`.

    SQLite's own wait looks every 100 ms, too seldom to get in beside a process that writes a lot.
    """
    end = end or time.monotonic() + BUSY_SECONDS
    while True:
        try:
            return db.execute(sql)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                raise
        time.sleep(0.002)
