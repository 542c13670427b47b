"""Conversations in this process's memory: nothing to run, nothing left after a restart.

Records are kept as JSON bytes, so every caller gets a copy. No method awaits anything that waits,
so each is atomic for the tasks of the event loop.
"""

import json
import re
import secrets
import time
from bisect import bisect_left, bisect_right
from collections import OrderedDict, defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, Self, TypeVar

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
NUMBER_BITS = 40
NUMBERS = (1 << NUMBER_BITS) - 1
READ_ITEM: Callable[[bytes], ThreadItem] = ITEM.validator.validate_json  # saves a call: 10% faster


class Shelf(Generic[T]):
    """Values by id and in order: a page costs one binary search and its own length."""

    def __init__(self) -> None:
        # By id: the rank above a 40-bit running number. A dict with a key that is not a string
        # keeps the hashes itself, not in the strings: a new id is as fast among many.
        self._places: dict[str | None, int] = {None: 0}
        self._order: list[int] = []  # all places, sorted
        self._values: list[T] = []  # in the same order
        self._count = 0
        self._whole = True  # nothing removed or put in between: a number gives its value's index

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: str) -> T | None:
        """Return the value with this id, if there is one."""
        place = self._places.get(key)
        return None if place is None else self._values[self._at(place)]

    def _at(self, place: int) -> int:
        return (place & NUMBERS) - 1 if self._whole else bisect_left(self._order, place)

    def put(self, key: str, value: T, rank: int = 0) -> None:
        """Put a value after all others of its rank, or in place of the one with its id."""
        place = self._places.get(key)
        if place is None:
            number = self._count = self._count + 1
        elif place >> NUMBER_BITS == rank:
            self._values[self._at(place)] = value
            return
        else:
            number = place & NUMBERS
            self.pop(key)
        place = self._places[key] = (rank << NUMBER_BITS) + number
        if self._order and place < self._order[-1]:  # seldom
            at, self._whole = bisect_left(self._order, place), False
            self._order.insert(at, place)
            self._values.insert(at, value)
        else:
            self._order.append(place)
            self._values.append(value)

    def pop(self, key: str) -> None:
        """Remove the value with this id, if there is one."""
        if place := self._places.pop(key, None):
            at, self._whole = self._at(place), False
            del self._order[at], self._values[at]

    def page(self, after: str | None, limit: int, order: str) -> tuple[list[T], bool]:
        """Return up to `limit` values after the id `after`, and whether more follow."""
        cursor = self._places.get(after)
        if limit <= 0 or cursor is None:
            return [], False
        if order == "desc":
            end = len(self) if after is None else bisect_left(self._order, cursor)
            found = self._values[max(0, end - limit - 1) : end][::-1]
        else:
            start = 0 if after is None else bisect_right(self._order, cursor)
            found = self._values[start : start + limit + 1]
        return found[:limit], len(found) > limit


@dataclass
class Conversation:
    """A thread and what is kept with it."""

    doc: bytes = b""
    items: Shelf[bytes] = field(default_factory=Shelf)
    feedback: dict[str, FeedbackKind] = field(default_factory=dict)
    turn: tuple[str, float] = ("", 0.0)  # who holds the lease, and until when
    stopping: bool = False

    def holder(self) -> str | None:
        """Return the turn that holds the lease now."""
        return self.turn[0] if self.turn[1] > time.monotonic() else None


class MemoryStore(Store[Context]):
    """Threads, items and attachments in dictionaries, each owner's apart."""

    def __init__(self) -> None:
        """Start empty."""
        self._conversations: dict[tuple[str, str], Conversation] = {}  # by owner and thread
        self._threads: defaultdict[str, Shelf[Conversation]] = defaultdict(Shelf)  # each in order
        self._attachments: defaultdict[str, dict[str, tuple[str | None, bytes]]] = defaultdict(dict)
        self._tombstones: OrderedDict[tuple[str, str], float] = OrderedDict()  # oldest first

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str) -> AsyncIterator[Self]:
        """Open an empty store; StoreError when the URL is not memory://."""
        if url != "memory://":
            raise StoreError(f"STORE_URL begins with {url.partition(':')[0]!a}, not memory://")
        yield cls()

    async def ping(self) -> None:
        """Do nothing: this engine is always there."""

    def _find(self, thread_id: str, context: Context) -> Conversation:
        if found := self._conversations.get((owner_of(context), thread_id)):
            return found
        raise NotFoundError(f"There is no thread {thread_id!a}")

    def _look(self, thread_id: str, context: Context) -> Conversation:
        """Return a conversation, or an empty one that is kept nowhere."""
        return self._conversations.get((owner_of(context), thread_id)) or Conversation()

    # --- threads ---

    def generate_thread_id(self, context: Context) -> str:
        """Return a new id; the SDK's own has only 32 random bits and would soon repeat."""
        return new_id("thread")

    async def load_thread(self, thread_id: str, context: Context) -> ThreadMetadata:
        """Return a thread's metadata, or raise NotFoundError."""
        return ThreadMetadata.model_validate_json(self._find(thread_id, context).doc)

    async def save_thread(self, thread: ThreadMetadata, context: Context) -> None:
        """Add a thread or replace its metadata; NotFoundError if it was deleted in the last day."""
        require_storable(thread_id=thread.id)
        doc = dump(thread, THREADS)
        key, created = (owner_of(context), thread.id), sort_time(thread.created_at)
        if self._tombstones.get(key, 0) > time.monotonic():
            raise NotFoundError(f"The thread {thread.id!a} was deleted")
        conversation = self._conversations.setdefault(key, Conversation())
        conversation.doc = doc
        self._threads[key[0]].put(thread.id, conversation, created)

    async def load_threads(
        self, limit: int, after: str | None, order: str, context: Context
    ) -> Page[ThreadMetadata]:
        """Return the owner's threads by creation time; an unknown cursor gives an empty page."""
        threads = self._threads.get(owner_of(context), Shelf())  # reading must not create one
        found, more = threads.page(after, limit, order)
        data = THREADS.validate_json(b"[%b]" % b",".join(each.doc for each in found))
        return Page(data=data, has_more=more, after=data[-1].id if more else None)

    async def delete_thread(self, thread_id: str, context: Context) -> None:
        """Delete a thread with its items and attachments; its id is barred for a day."""
        key, now = (owner_of(context), thread_id), time.monotonic()
        if self._conversations.pop(key, None):
            for attachment in await self.load_attachments(thread_id, context):
                await self.delete_attachment(attachment.id, context)
            self._threads[key[0]].pop(thread_id)
            if not self._threads[key[0]]:
                del self._threads[key[0]]
            while self._tombstones and next(iter(self._tombstones.values())) <= now:
                self._tombstones.popitem(last=False)  # before this id gets a second one
            self._tombstones[key] = now + TOMBSTONE_SECONDS

    async def undelete_thread(self, thread_id: str, context: Context) -> None:
        """Let a deleted id be saved again, for an import."""
        self._tombstones.pop((owner_of(context), thread_id), None)

    async def set_title_if_unchanged(
        self, thread_id: str, old: str | None, new: str, context: Context
    ) -> bool:
        """Set the title if it is still `old`; return whether it was set."""
        # an unfit title is refused even if nothing would be set, as by the other engines
        dump(ThreadMetadata(id="", title=f"{old}{new}", created_at=datetime.now(UTC)), THREADS)
        conversation = self._look(thread_id, context)
        thread = conversation.doc and ThreadMetadata.model_validate_json(conversation.doc)
        if not thread or thread.title != old:
            return False
        conversation.doc = dump(thread.model_copy(update={"title": new}), THREADS)
        return True

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
        conversation = self._look(thread_id, context)
        found, more = conversation.items.page(after, limit, order)
        data = ITEMS.validate_json(b"[%b]" % b",".join(found))  # all together, which is faster
        return Page(data=data, has_more=more, after=data[-1].id if more else None)

    async def add_thread_item(self, thread_id: str, item: ThreadItem, context: Context) -> None:
        """Add an item at the end, or replace it in place; NotFoundError without its thread."""
        if not (thread_id + item.id).isprintable():  # it nearly always is, and this is faster
            require_storable(thread_id=thread_id, item_id=item.id)
        if item.thread_id != thread_id:
            item = item.model_copy(update={"thread_id": thread_id})
        doc = dump(item, ITEMS)
        self._find(thread_id, context).items.put(item.id, doc)

    save_item = add_thread_item  # both add, both replace

    async def load_item(self, thread_id: str, item_id: str, context: Context) -> ThreadItem:
        """Return an item, or raise NotFoundError."""
        if doc := self._look(thread_id, context).items.get(item_id):
            return READ_ITEM(doc)
        raise NotFoundError(f"There is no item {item_id!a}")

    async def delete_thread_item(self, thread_id: str, item_id: str, context: Context) -> None:
        """Delete an item and its feedback, if they are there."""
        conversation = self._look(thread_id, context)
        conversation.items.pop(item_id)
        conversation.feedback.pop(item_id, None)

    async def save_feedback(
        self, thread_id: str, item_ids: list[str], kind: FeedbackKind, context: Context
    ) -> None:
        """Store a thumb for each item; NotFoundError, and nothing stored, unless all exist."""
        require_storable(thread_id=thread_id, item_ids="".join(item_ids))
        conversation = self._find(thread_id, context)
        if not all(map(conversation.items.get, item_ids)):
            raise NotFoundError("There is no such item")
        conversation.feedback |= dict.fromkeys(item_ids, kind)

    async def load_feedback(self, thread_id: str, context: Context) -> dict[str, FeedbackKind]:
        """Return the thumbs of a thread by item."""
        return dict(self._look(thread_id, context).feedback)

    # --- attachments ---

    async def save_attachment(self, attachment: Attachment, context: Context) -> None:
        """Add or replace a record. NotFoundError: no such thread. ValueError: it is in another."""
        require_storable(attachment_id=attachment.id, thread_id=attachment.thread_id)
        doc, thread_id = dump(attachment, ATTACHMENTS), attachment.thread_id
        if thread_id is not None:
            self._find(thread_id, context)
        held = self._attachments[owner_of(context)]
        if held.get(attachment.id, (None,))[0] not in (None, thread_id):
            raise ValueError("thread_id: the attachment belongs to another thread")
        held[attachment.id] = thread_id, doc

    async def load_attachment(self, attachment_id: str, context: Context) -> Attachment:
        """Return an attachment's record, or raise NotFoundError."""
        if found := self._attachments.get(owner_of(context), {}).get(attachment_id):
            return ATTACHMENT.validate_json(found[1])
        raise NotFoundError(f"There is no attachment {attachment_id!a}")

    async def delete_attachment(self, attachment_id: str, context: Context) -> None:
        """Delete an attachment's record, if it is there."""
        held = self._attachments.get(owner_of(context), {})
        held.pop(attachment_id, None)
        if not held:
            self._attachments.pop(owner_of(context), None)

    async def load_attachments(self, thread_id: str | None, context: Context) -> list[Attachment]:
        """Return a thread's records, or all the owner's if `thread_id` is None, oldest first."""
        held = self._attachments.get(owner_of(context), {})
        return [ATTACHMENT.validate_json(v) for of, v in held.values() if thread_id in (None, of)]

    async def owners(self) -> AsyncIterator[str]:
        """Yield every owner that has a thread or an attachment, each once."""
        for owner in self._threads.keys() | self._attachments.keys():
            yield owner

    # --- turns: one answer at a time in a thread ---

    async def claim_turn(self, thread_id: str, turn_id: str, context: Context) -> bool:
        """Take a thread's lease for LEASE_SECONDS; False while another turn holds it.

        NotFoundError without the thread. A lease is no lock: a worker that was paused
        past its lease may still write.
        """
        require_storable(thread_id=thread_id, turn_id=turn_id)
        conversation = self._find(thread_id, context)
        holder = conversation.holder()
        if holder not in (None, turn_id):
            return False
        conversation.stopping = conversation.stopping and holder == turn_id
        conversation.turn = turn_id, time.monotonic() + LEASE_SECONDS
        return True

    async def renew_turn(self, thread_id: str, turn_id: str, context: Context) -> bool:
        """Extend the lease; False if it was lost or the turn was asked to stop."""
        conversation = self._look(thread_id, context)
        if conversation.holder() != turn_id or conversation.stopping:
            return False
        conversation.turn = turn_id, time.monotonic() + LEASE_SECONDS
        return True

    async def release_turn(self, thread_id: str, turn_id: str, context: Context) -> None:
        """Give the lease back, if it is this turn's."""
        conversation = self._look(thread_id, context)
        if conversation.holder() == turn_id:
            conversation.turn = "", 0.0

    async def stop_turn(self, thread_id: str, context: Context) -> bool:
        """Ask the turn that holds the lease to stop; False when none does."""
        conversation = self._look(thread_id, context)
        conversation.stopping = conversation.holder() is not None
        return conversation.stopping


ChatStore = MemoryStore  # the name by which the rest of the app knows its store


def open_store(settings: Any) -> AbstractAsyncContextManager[MemoryStore]:
    """Return the store that the settings name, to be entered with `async with`."""
    return MemoryStore.open(settings.store_url or "memory://")
