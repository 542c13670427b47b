"""The store in Redis or Valkey: one round trip per operation, in Lua where it has several steps.

All keys of one owner share a hash tag, so that the same code runs on a cluster:
    threads, order, places         documents by id; ids in order; a thread's place in it
    items:T, sequence:T            the same for the items of thread T
    feedback:T, lease:T, gone:T    thumbs; the turn under way; the tombstone of a deleted thread
    files, homes                   attachments; when each came and to which thread it belongs
    token, count                   the owner's entry in the list of owners; a counter of arrivals
The list of owners (see `_save`) and the schema's number are in other slots.
"""

import asyncio
import json
import logging
import re
import secrets
import time
import zlib
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from hashlib import sha1
from typing import Any, Self, TypeVar
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

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
from redis import exceptions
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

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
Client = Redis | RedisCluster
YEAR_ONE = datetime(1, 1, 1, tzinfo=UTC)
EARLIEST = sort_time(YEAR_ONE) - 86_400_000_000  # the year 1 begins earlier in the east
SCHEMA = 1  # of keys and documents; raise it when older apps cannot read them
SHARDS = 16
CONNECTIONS = 50  # in use at once, per process
WAIT_SECONDS = 4.5  # the longest wait for an answer
# TimeoutError: TCP's keepalive; ReadOnlyError: an ex-primary; RuntimeError: uvloop, when closed.
LOST = (exceptions.ConnectionError, exceptions.TimeoutError, exceptions.ReadOnlyError, RuntimeError)
OURS = {"decode_responses", "encoding", "encoding_errors", "retry"}  # whatever an address says
ENGINE_ERRORS = (exceptions.RedisError, exceptions.RedisClusterException)
UNLISTED, ELSEWHERE = 2, 3  # what a save may answer

# `=== name: keys` begins a script; in it each key is a local, and T is the thread in ARGV[1].
# A script that answers false found no such thread or item. A thread's place in the order is its
# moment in 18 digits, a number in 12, and its id; a value of `homes` is a number in 12, "=", an id.
LUA = """
local call, thread = redis.call, ARGV[1]
local function documents(docs, ids)
  local found = #ids > 0 and call('HMGET', docs, unpack(ids, 1, math.min(#ids, 4000))) or {}
  for i = 4001, #ids do found[i] = call('HGET', docs, ids[i]) end -- too many for Lua's stack
  return found
end
local function page(order, docs, places)
  local limit, down, first = math.min(tonumber(ARGV[2]), 2 ^ 31), ARGV[3] == 'desc', 0
  if limit < 1 then return { 0 } end
  local after = ARGV[4]
  if after then
    if places then after = call('HGET', places, after) end
    local rank = after and call(down and 'ZREVRANK' or 'ZRANK', order, after)
    if not rank then return { 0 } end
    first = rank + 1
  end
  local ids = call(down and 'ZREVRANGE' or 'ZRANGE', order, first, first + limit)
  local more = table.remove(ids, limit + 1) and 1 or 0
  if places then for i, place in ipairs(ids) do ids[i] = place:sub(31) end end
  local found = documents(docs, ids)
  found[#found + 1] = more
  return found
end
local function attached(homes, home)
  local found, all = {}, call('HGETALL', homes)
  for i = 1, #all, 2 do
    local number, its = all[i + 1]:sub(1, 12), all[i + 1]:sub(13)
    if home == its or home == 'any' then found[#found + 1] = number .. all[i] end
  end
  table.sort(found)
  for i, file in ipairs(found) do found[i] = file:sub(13) end
  return found
end
local function number(count) return string.format('%012d', call('INCR', count)) end
local function listed(token) -- again after an hour: a failover may have lost the entry
  local new, held, old = ARGV[2], call('GET', token), tonumber(ARGV[#ARGV])
  return held and tonumber(held:sub(5, 16), 16) > old or new ~= '' and call('SET', token, new)
end
local function delist(token, count, threads, files)
  if call('EXISTS', threads, files) > 0 then return '' end
  call('DEL', count)
  return call('GETDEL', token)
end
=== load_threads: order threads places
return page(order, threads, places)
=== save_thread: token count threads order places gone:{T}
if call('EXISTS', gone) == 1 then return false end
if not listed(token) then return 2 end
local old, moment, doc = call('HGET', places, thread), ARGV[3], ARGV[4]
local place = moment .. (old and old:sub(19, 30) or number(count)) .. thread
if old then call('ZREM', order, old) end
call('ZADD', order, 0, place)
call('HSET', places, thread, place)
call('HSET', threads, thread, doc)
return 1
=== delete_thread: token count threads files homes order places \
sequence:{T} items:{T} feedback:{T} lease:{T} gone:{T}
if call('HDEL', threads, thread) == 0 then return '' end
call('ZREM', order, call('HGET', places, thread))
call('HDEL', places, thread)
for _, f in pairs(attached(homes, '='..thread)) do call('HDEL', files, f) call('HDEL', homes, f) end
call('UNLINK', sequence, items, feedback, lease)
call('SET', gone, '', 'EX', ARGV[2])
return delist(token, count, threads, files)
=== set_title_if_unchanged: threads
local doc, old, new = call('HGET', threads, thread), ARGV[2], ARGV[3]
if not doc or doc:sub(1, #old) ~= old then return 0 end
call('HSET', threads, thread, new .. doc:sub(#old + 1))
return 1
=== load_thread_items: sequence:{T} items:{T}
return page(sequence, items)
=== add_thread_item: threads sequence:{T} items:{T}
if call('HEXISTS', threads, thread) == 0 then return false end
if call('HSET', items, ARGV[2], ARGV[3]) == 1 then
  local last = call('ZRANGE', sequence, -1, -1, 'WITHSCORES')[2] or 0
  call('ZADD', sequence, last + 1, ARGV[2])
end
return 1
=== delete_thread_item: sequence:{T} items:{T} feedback:{T}
call('ZREM', sequence, ARGV[2])
call('HDEL', feedback, ARGV[2])
return call('HDEL', items, ARGV[2])
=== save_feedback: threads items:{T} feedback:{T}
if call('HEXISTS', threads, thread) == 0 then return false end
for i = 3, #ARGV do if call('HEXISTS', items, ARGV[i]) == 0 then return false end end
for i = 3, #ARGV do call('HSET', feedback, ARGV[i], ARGV[2]) end
return 1
=== save_attachment: token count threads files homes
local file, doc, home = ARGV[3], ARGV[4], ARGV[5]
if home ~= '' and call('HEXISTS', threads, thread) == 0 then return false end
if not listed(token) then return 2 end
local old = call('HGET', homes, file)
if old and #old > 12 and old:sub(13) ~= home then return 3 end
call('HSET', homes, file, (old and old:sub(1, 12) or number(count)) .. home)
call('HSET', files, file, doc)
return 1
=== load_attachments: files homes
return documents(files, attached(homes, ARGV[2]))
=== delete_attachment: token count threads files homes
call('HDEL', homes, ARGV[2])
return call('HDEL', files, ARGV[2]) == 1 and delist(token, count, threads, files) or ''
=== claim_turn: threads lease:{T}
if call('HEXISTS', threads, thread) == 0 then return false end
if call('SET', lease, '+' .. ARGV[2], 'NX', 'EX', ARGV[3]) then return 1 end
return call('GET', lease):sub(2) == ARGV[2] and call('EXPIRE', lease, ARGV[3]) or 0
=== renew_turn: lease:{T}
return call('GET', lease) == '+' .. ARGV[2] and call('EXPIRE', lease, ARGV[3]) or 0
=== release_turn: lease:{T}
return (call('GET', lease) or ''):sub(2) == ARGV[2] and call('DEL', lease) or 0
=== stop_turn: lease:{T}
local held = call('GET', lease) -- '+' and the turn; '-' and the turn once it is to stop
return held and call('SET', lease, '-' .. held:sub(2), 'KEEPTTL') and 1 or 0
"""


class RedisStore(Store[Context]):
    """Threads, items and attachments in Redis or Valkey, alone or as a cluster."""

    def __init__(self, client: Client, prefix: str = "chatkit", size: int = CONNECTIONS) -> None:
        """Use a client that answers in bytes; all keys begin with `prefix`."""
        self._client: Any = client  # the driver types every answer as str or bytes
        self._prefix = prefix
        self._closed = False
        self._size, self._free = size, asyncio.Semaphore(size)
        self._idle: list[Any] = []  # clients of one connection each: the one last used is on top
        self._scripts: dict[str, tuple[list[str], str, str]] = {}
        common, *scripts = re.split("^=== ", LUA, flags=re.MULTILINE)
        for script in scripts:
            head, _, body = script.partition("\n")
            name, *keys = head.replace(":", "", 1).split()
            names = ", ".join(key.partition(":")[0] for key in keys)
            lua = f"{common}local {names} = unpack(KEYS)\n{body}"
            self._scripts[name] = keys, lua, sha1(lua.encode(), usedforsecurity=False).hexdigest()

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str) -> AsyncIterator[Self]:
        """Open the store at redis://[user:password@]host:port/0?prefix=chatkit, rediss:// for TLS.

        Any node of a cluster will do: its mode is recognised. `max_connections=20` says how many
        a process may have (default: 51), in a cluster per node. StoreError comes within 5 s.
        """
        store = cls(*await _connect(url))
        try:
            yield store
        finally:
            store._closed = True
            try:
                for _ in range(store._size):  # all are free once the last call has its answer
                    await store._free.acquire()
            finally:
                for each in [*store._idle, store._client]:
                    await each.aclose()

    async def ping(self) -> None:
        """Raise the driver's error unless the server takes writes; any cluster node may answer."""
        # An ex-primary refuses even to delete nothing: apps that only read find the new one too.
        cluster = isinstance(self._client, RedisCluster)
        await self._ask(*["PING"] if cluster else ["DEL", f"{self._prefix}:"])

    # --- threads ---

    def generate_thread_id(self, context: Context) -> str:
        """Return a new id; the SDK's own has only 32 random bits and would soon repeat."""
        return new_id("thread")

    async def load_thread(self, thread_id: str, context: Context) -> ThreadMetadata:
        """Return a thread's metadata, or raise NotFoundError."""
        return ThreadMetadata.model_validate_json(await self._doc(context, "threads", thread_id))

    async def save_thread(self, thread: ThreadMetadata, context: Context) -> None:
        """Add a thread or replace its metadata; NotFoundError if it was deleted in the last day."""
        require_storable(thread_id=thread.id)
        moment = f"{sort_time(thread.created_at) - EARLIEST:018d}"
        await self._save("save_thread", context, thread.id, moment, dump(thread, THREADS))

    async def load_threads(
        self, limit: int, after: str | None, order: str, context: Context
    ) -> Page[ThreadMetadata]:
        """Return the owner's threads by creation time; an unknown cursor gives an empty page."""
        return await self._page(THREADS, "load_threads", context, "", limit, order, after)

    async def delete_thread(self, thread_id: str, context: Context) -> None:
        """Delete a thread with its items and attachments; its id is barred for a day."""
        await self._delete("delete_thread", context, thread_id, TOMBSTONE_SECONDS)

    async def undelete_thread(self, thread_id: str, context: Context) -> None:
        """Let a deleted id be saved again, for an import."""
        await self._ask("DEL", f"{self._base(owner_of(context))}gone:{thread_id}")

    async def set_title_if_unchanged(
        self, thread_id: str, old: str | None, new: str, context: Context
    ) -> bool:
        """Set the title if it is still `old`; return whether it was set."""
        args = _title(old), _title(new)
        return bool(await self._run("set_title_if_unchanged", context, thread_id, *args))

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
        return await self._page(ITEMS, "load_thread_items", context, thread_id, limit, order, after)

    async def add_thread_item(self, thread_id: str, item: ThreadItem, context: Context) -> None:
        """Add an item at the end, or replace it in place; NotFoundError without its thread."""
        require_storable(thread_id=thread_id, item_id=item.id)
        if item.thread_id != thread_id:
            item = item.model_copy(update={"thread_id": thread_id})
        await self._run("add_thread_item", context, thread_id, item.id, dump(item, ITEMS))

    save_item = add_thread_item  # both add, both replace

    async def load_item(self, thread_id: str, item_id: str, context: Context) -> ThreadItem:
        """Return an item, or raise NotFoundError."""
        return ITEM.validate_json(await self._doc(context, f"items:{thread_id}", item_id))

    async def delete_thread_item(self, thread_id: str, item_id: str, context: Context) -> None:
        """Delete an item and its feedback, if they are there."""
        await self._run("delete_thread_item", context, thread_id, item_id)

    async def save_feedback(
        self, thread_id: str, item_ids: list[str], kind: FeedbackKind, context: Context
    ) -> None:
        """Store a thumb for each item; NotFoundError, and nothing stored, unless all exist."""
        require_storable(thread_id=thread_id, item_ids="".join(item_ids))
        await self._run("save_feedback", context, thread_id, kind, *item_ids)

    async def load_feedback(self, thread_id: str, context: Context) -> dict[str, FeedbackKind]:
        """Return the thumbs of a thread by item."""
        found = await self._ask("HGETALL", f"{self._base(owner_of(context))}feedback:{thread_id}")
        return {item.decode(): kind.decode() for item, kind in found.items()}

    # --- attachments ---

    async def save_attachment(self, attachment: Attachment, context: Context) -> None:
        """Add or replace a record. NotFoundError: no such thread. ValueError: it is in another."""
        thread_id, doc = attachment.thread_id, dump(attachment, ATTACHMENTS)
        require_storable(attachment_id=attachment.id, thread_id=thread_id)
        args = attachment.id, doc, "" if thread_id is None else f"={thread_id}"
        if await self._save("save_attachment", context, thread_id or "", *args) == ELSEWHERE:
            raise ValueError("thread_id: the attachment belongs to another thread")

    async def load_attachment(self, attachment_id: str, context: Context) -> Attachment:
        """Return an attachment's record, or raise NotFoundError."""
        return ATTACHMENT.validate_json(await self._doc(context, "files", attachment_id))

    async def delete_attachment(self, attachment_id: str, context: Context) -> None:
        """Delete an attachment's record, if it is there."""
        await self._delete("delete_attachment", context, "", attachment_id)

    async def load_attachments(self, thread_id: str | None, context: Context) -> list[Attachment]:
        """Return a thread's records, or all the owner's if `thread_id` is None, oldest first."""
        home = "any" if thread_id is None else f"={thread_id}"
        docs = await self._run("load_attachments", context, "", home)
        return [ATTACHMENT.validate_json(doc) for doc in docs]

    async def owners(self) -> AsyncIterator[str]:
        """Yield every owner that has a thread or an attachment, each once."""
        day_ago, half_an_hour_ago = (
            f"thr_{int(time.time() - age) * 1000:012x}" for age in (TOMBSTONE_SECONDS, 1800)
        )
        for shard in range(SHARDS):
            key, seen, cursor = f"{self._prefix}:owners:{shard}", set[str](), None
            while cursor != 0:
                cursor, entries = await self._ask("SSCAN", key, cursor or 0, "COUNT", 1000)
                for entry in entries:
                    token, _, name = entry.decode().partition(" ")
                    owner = unquote(name, errors="surrogatepass")
                    current = await self._ask("GET", self._base(owner) + "token")
                    # A crash left it, or a newer one is there: for so long that no other listing,
                    # and no failover, can have missed that. It is renewed after an hour.
                    stale = current != token.encode() and token < day_ago
                    if stale and (current or b"") < half_an_hour_ago.encode():
                        await self._ask("SREM", key, entry)
                    if current and owner not in seen:  # also under a newer entry than this one
                        seen.add(owner)
                        yield owner

    # --- turns: one answer at a time in a thread ---

    async def claim_turn(self, thread_id: str, turn_id: str, context: Context) -> bool:
        """Take a thread's lease for LEASE_SECONDS; False while another turn holds it.

        NotFoundError without the thread. A lease is no lock: a worker that was paused
        past its lease may still write.
        """
        require_storable(thread_id=thread_id, turn_id=turn_id)
        return bool(await self._run("claim_turn", context, thread_id, turn_id, LEASE_SECONDS))

    async def renew_turn(self, thread_id: str, turn_id: str, context: Context) -> bool:
        """Extend the lease; False if it was lost or the turn was asked to stop."""
        return bool(await self._run("renew_turn", context, thread_id, turn_id, LEASE_SECONDS))

    async def release_turn(self, thread_id: str, turn_id: str, context: Context) -> None:
        """Give the lease back, if it is this turn's."""
        await self._run("release_turn", context, thread_id, turn_id)

    async def stop_turn(self, thread_id: str, context: Context) -> bool:
        """Ask the turn that holds the lease to stop; False when none does."""
        return bool(await self._run("stop_turn", context, thread_id))

    # --- how it asks ---

    def _base(self, owner: str) -> str:
        """Return what the owner's keys begin with; what is in the braces decides the slot."""
        return self._prefix + ":{@" + quote(owner, safe="", errors="surrogatepass") + "}:"

    async def _ask(self, *command: str | bytes | int) -> Any:
        """Send a command; the driver's TimeoutError when there is no answer in WAIT_SECONDS.

        The driver's own deadlines would cost a sixth of the trip, its pool a tenth.
        """
        if self._closed:
            raise exceptions.ConnectionError("The store is closed")
        task: Any = asyncio.current_task()
        cancelled = task.cancelling()
        try:
            async with asyncio.timeout(WAIT_SECONDS), self._free:
                client = self._idle.pop() if self._idle else self._client.client()
                try:
                    answer = await client.execute_command(*command)
                except BaseException:
                    self._idle.insert(0, client)  # perhaps without a connection: the last to try
                    raise
                self._idle.append(client)
                if task.cancelling() > cancelled:  # Python 3.11's `wait_for` in the driver hid it
                    raise asyncio.CancelledError
                return answer
        except TimeoutError:
            if pool := getattr(self._client, "connection_pool", None):  # a cluster's has none
                await pool.update_active_connections_for_reconnect()  # all may be silent
            raise exceptions.TimeoutError(f"No answer within {WAIT_SECONDS} s") from None

    async def _run(
        self, name: str, context: Context, thread_id: str, *args: str | bytes | int
    ) -> Any:
        """Run a script; NotFoundError when it answers false."""
        keys, lua, sha = self._scripts[name]
        base = self._base(owner_of(context))
        names = [base + key.replace("{T}", thread_id) for key in keys]
        try:
            found = await self._ask("EVALSHA", sha, len(names), *names, thread_id, *args)
        except exceptions.NoScriptError:  # the first time, and after a flush
            found = await self._ask("EVAL", lua, len(names), *names, thread_id, *args)
        if found is None:
            raise NotFoundError("There is no such thread or item")
        return found

    async def _page(
        self, adapter: TypeAdapter[Any], name: str, context: Context, thread_id: str, *window: Any
    ) -> Page[Any]:
        """Return the page in a script's answer: documents, and whether there are more."""
        given = [arg for arg in window if arg is not None]  # the cursor comes last
        *docs, more = await self._run(name, context, thread_id, *given)
        data = adapter.validate_json(b"[" + b",".join(docs) + b"]")
        return Page(data=data, has_more=bool(more), after=data[-1].id if more else None)

    async def _save(self, name: str, context: Context, thread_id: str, *args: str | bytes) -> Any:
        """Run a save; if the owner is not listed, or was long ago, list it and save again.

        Listed before the save and taken off after the last delete, each time under a new token: a
        crash or a race may leave an owner without data on the list, but never one with data off it.
        """
        hour_ago = int(time.time() - 3600) * 1000  # by the token's clock
        answer = await self._run(name, context, thread_id, "", *args, hour_ago)
        if answer == UNLISTED:
            token = new_id("thread")
            await self._ask("SADD", *self._entry(context, token))
            answer = await self._run(name, context, thread_id, token, *args, hour_ago)
            current = await self._ask("GET", self._base(owner_of(context)) + "token")
            if current != token.encode():  # another save was faster
                await self._ask("SREM", *self._entry(context, token))
        return answer

    async def _delete(self, name: str, context: Context, thread_id: str, arg: str | int) -> None:
        """Run a deletion, and if nothing is left, take the owner off the list."""
        if token := await self._run(name, context, thread_id, arg):
            await self._ask("SREM", *self._entry(context, token.decode()))

    def _entry(self, context: Context, token: str) -> tuple[str, str]:
        """Return the set that lists the owner, and the entry in it."""
        owner = quote(owner_of(context), safe="", errors="surrogatepass")
        return f"{self._prefix}:owners:{zlib.crc32(owner.encode()) % SHARDS}", f"{token} {owner}"

    async def _doc(self, context: Context, key: str, field: str) -> bytes:
        """Return a document, or raise NotFoundError."""
        if doc := await self._ask("HGET", self._base(owner_of(context)) + key, field):
            return bytes(doc)
        raise NotFoundError(f"There is no {field!a}")


ChatStore = RedisStore  # the name by which the rest of the app knows its store


def open_store(settings: Any) -> AbstractAsyncContextManager[RedisStore]:
    """Return the store that the settings name, to be entered with `async with`."""
    return RedisStore.open(settings.store_url)


def _title(title: str | None) -> str:
    """Return how the JSON of a thread with this title begins: the title is its first field."""
    thread = ThreadMetadata(id="", title=title, created_at=YEAR_ONE)
    return dump(thread, THREADS).decode().partition(',"id":')[0]


class _Single(Redis):
    """A client of one connection, without the driver's metrics: they cost a tenth of the trip."""

    connection_pool: Any  # shared by all clients

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Ask, and ask again if the connection is dead: scripts may run twice (a title: False)."""
        if not self.connection:
            await self.initialize()
        connection: Any = self.connection
        try:
            if connection.should_reconnect():
                await connection.disconnect(nowait=True)
            await connection.send_command(*args)
            return await self.parse_response(connection, args[0], **options)
        except LOST as error:
            if isinstance(error, exceptions.ReadOnlyError):  # the others would read stale data
                await self.connection_pool.update_active_connections_for_reconnect()
            await connection.disconnect(nowait=True)
        await connection.send_command(*args)
        return await self.parse_response(connection, args[0], **options)


class _Cluster(RedisCluster):
    """A cluster's client that asks again while a slot has no primary, or a silent one."""

    RedisClusterRequestTTL = 200  # tries, most 50 ms apart, while half of a script's keys moved
    ERRORS_ALLOW_RETRY: Any = (*LOST, exceptions.ClusterDownError, exceptions.SlotNotCoveredError)

    def get_node(self, host: Any = None, port: Any = None, node_name: Any = None) -> Any:
        """Return a node, even one that has just joined: a slot that moves to it leads there."""
        host, _, port = (node_name or f"{host}:{port}").rpartition(":")
        node = ClusterNode(host, int(port), "primary", **self.connection_kwargs)
        return self.nodes_manager.nodes_cache.setdefault(node.name, node)

    async def get_nodes_from_slot(self, command: str, *args: Any) -> Any:
        """Return the node of a slot; if it has none, the next try looks for it again."""
        try:
            return await super().get_nodes_from_slot(command, *args)
        except KeyError:
            self._initialize = True
            await asyncio.sleep(0.25)
            raise exceptions.SlotNotCoveredError("A slot has no node") from None

    def client(self) -> Self:
        """Return this client: it keeps the connections to all nodes itself."""
        return self


async def _connect(url: str) -> tuple[Client, str, int]:
    """Return a client with a fit server, the prefix of all keys, how many may ask at once."""
    address, prefix, size, shown = _parse(url)
    # `surrogatepass`: any id may be asked for
    options: dict[str, Any] = {"protocol": 2, "encoding_errors": "surrogatepass"}
    options["socket_timeout"] = None  # `_ask` has the deadline, also for connecting
    client: Client | None = None
    try:
        client = _Single.from_url(address, single_connection_client=True, **options)
        async with asyncio.timeout(WAIT_SECONDS):
            info = await client.info()
            if info.get("cluster_enabled"):
                await client.aclose()
                seconds = WAIT_SECONDS / 3  # a silent node leaves time to ask its successor
                options |= {"socket_timeout": seconds, "socket_connect_timeout": seconds}
                options |= {"retry": Retry(NoBackoff(), 3), "require_full_coverage": False}
                options["reinitialize_steps"] = 0  # a slot that moves cuts off nobody
                client = _Cluster.from_url(address, **options)
            await _require_fit(client, info, f"{prefix}:schema")
    except (*ENGINE_ERRORS, OSError, TypeError, ValueError) as error:
        if client:
            await client.aclose()
        reason = " ".join(str(error).split()).rstrip(".") or f"no answer within {WAIT_SECONDS} s"
        raise StoreError(f"No store at {shown}: {reason}. Check STORE_URL") from error
    log = logging.getLogger(__name__)
    if not info.get("aof_enabled"):
        log.warning("%s keeps no log of writes, so a crash loses them: set `appendonly yes`", shown)
    if info.get("maxmemory_policy", "noeviction") != "noeviction":
        log.warning("%s drops data when full: set `maxmemory-policy noeviction`", shown)
    return client, prefix, size


async def _require_fit(client: Client, info: dict[str, Any], key: str) -> None:
    """Raise ValueError for a replica (in a cluster any node will do), an old server, newer data."""
    if info.get("role") == "slave" and not info.get("cluster_enabled"):
        raise ValueError("it is a replica, which takes no writes")
    version = str(info.get("redis_version", "0"))
    if [int(number) for number in version.split(".")[:2]] < [6, 2]:
        raise ValueError(f"it is Redis {version}, and 6.2 is needed")
    if (found := int(await client.get(key) or 0)) > SCHEMA:
        raise ValueError(f"its data is at {found}, newer than the app: update the app")
    if found < SCHEMA:
        await client.set(key, SCHEMA, nx=not found)


def _parse(url: str) -> tuple[str, str, int, str]:
    """Return the address for the driver, the prefix, the size, the address without its secrets."""
    with suppress(ValueError):  # its text may quote the password
        parts = urlsplit(url)
        query = {key: value for key, value in parse_qsl(parts.query) if key not in OURS}
        prefix = query.pop("prefix", "chatkit")
        size = int(query.get("max_connections", CONNECTIONS + 1)) - 1  # the first is kept apart
        shown = f"{parts.scheme}://{parts.hostname}:{parts.port or 6379}{parts.path}"
        form = r"rediss?://([^/?#]*@)?[^/?#@]+(/\d*)?(\?[^#@]*)?"  # the password is in its place
        if re.fullmatch(form, url) and parts.hostname and size > 0 and re.fullmatch(r"\w+", prefix):
            return parts._replace(query=urlencode(query)).geturl(), prefix, size, shown
    raise StoreError(
        "STORE_URL is not redis://[user:password@]host[:port][/0][?prefix=chatkit], rediss:// for "
        "TLS (in a password @ is %40, / %2F, # %23, ? %3F)"
    )
