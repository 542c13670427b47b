"""The Store's contract: any sequence of operations answers as a small model of it does."""

import asyncio
import os
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar

import pytest
from chatkit.store import NotFoundError
from chatkit.types import FeedbackKind
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from app.context import RequestContext, context_for
from app.store import ChatStore as Store

from . import reading
from .values import INDIA, NOON, at, file, message, thread

OWNERS = st.sampled_from(["alice", "bob"])
THREADS = st.sampled_from(["t1", "t2", "t3"])
ITEMS = st.sampled_from(["i1", "i2", "i3", "i4", "i5"])
FILES, TURNS = st.sampled_from(["f1", "f2", "f3"]), st.sampled_from(["turn1", "turn2"])
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=5)
TITLES = st.sampled_from(["one", "two"])
TIMES = st.sampled_from([NOON, NOON.replace(tzinfo=UTC), NOON.replace(tzinfo=INDIA), at(1)])
KINDS: st.SearchStrategy[FeedbackKind] = st.sampled_from(["positive", "negative"])
LIMITS = st.integers(-1, 4)
ORDERS = st.sampled_from(["asc", "desc"])


@dataclass
class Conversation:
    """A thread as the contract sees it."""

    title: str
    created_at: datetime
    items: dict[str, str] = field(default_factory=dict)
    feedback: dict[str, FeedbackKind] = field(default_factory=dict)
    turn: str | None = None
    stopping: bool = False


@dataclass
class Belongings:
    """What one owner has, in the order of adding."""

    threads: dict[str, Conversation] = field(default_factory=dict)
    files: dict[str, tuple[str | None, str]] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)

    def listed(self) -> list[str]:
        """Return the ids of the threads by time; sorting keeps the order of adding."""
        times = {key: held.created_at for key, held in self.threads.items()}
        return sorted(times, key=lambda key: times[key].replace(tzinfo=times[key].tzinfo or UTC))


def page(ids: list[str], after: str | None, limit: int, order: str) -> tuple[list[str], bool]:
    """Return the ids of a page, and whether more follow."""
    ids = ids if order == "asc" else ids[::-1]
    if limit <= 0 or (after is not None and after not in ids):
        return [], False
    rest = ids if after is None else ids[ids.index(after) + 1 :]
    return rest[:limit], len(rest) > limit


class StoreMachine(RuleBasedStateMachine):
    """Does the same to a store and to the model, and compares every answer."""

    url: ClassVar[str]
    made: ClassVar[int] = 0

    def __init__(self) -> None:
        """Open the store in an event loop of its own, with new owners."""
        super().__init__()
        StoreMachine.made += 1
        self.owners: dict[str, Belongings] = {"alice": Belongings(), "bob": Belongings()}
        self.runner = asyncio.Runner()
        self.stack = AsyncExitStack()
        self.store: Store = self.runner.run(self.stack.enter_async_context(Store.open(self.url)))

    def context(self, owner: str) -> RequestContext:
        return context_for(f"{owner}{StoreMachine.made}")

    def ask(self, call: Coroutine[Any, Any, Any]) -> Any:
        """Return what the store answers, or the type of its error."""
        try:
            return self.runner.run(call)
        except (NotFoundError, ValueError) as error:
            return type(error)

    def teardown(self) -> None:
        """Compare all that is left, and close."""
        try:
            for owner in self.owners:
                self.compare(owner)
        finally:
            self.runner.run(self.stack.aclose())
            self.runner.close()

    def compare(self, owner: str) -> None:
        mine, context = self.owners[owner], self.context(owner)
        assert self.ask(reading.threads(self.store, context, limit=2)) == mine.listed()
        for thread_id, wanted in mine.threads.items():
            listed = self.ask(reading.items(self.store, context, thread_id=thread_id, limit=2))
            assert listed == list(wanted.items)
            assert self.ask(self.store.load_feedback(thread_id, context)) == wanted.feedback
        attached = self.ask(self.store.load_attachments(None, context))
        assert attached == [file(key, *value) for key, value in mine.files.items()]

    @initialize()
    def begin(self) -> None:
        """Begin with something to change."""
        for owner in ("alice", "bob"):
            for thread_id in ("t1", "t2"):
                self.save_thread(owner, thread_id, NOON, "one")
                for item_id in ("i1", "i2"):
                    self.put_item(owner, thread_id, item_id, owner, add=True)

    # --- threads ---

    @rule(owner=OWNERS, thread_id=THREADS, when=TIMES, title=TITLES)
    def save_thread(self, owner: str, thread_id: str, when: datetime, title: str) -> None:
        mine = self.owners[owner]
        answer = self.ask(
            self.store.save_thread(thread(thread_id, when, title), self.context(owner))
        )
        if thread_id in mine.deleted:
            assert answer is NotFoundError
            return
        assert answer is None
        conversation = mine.threads.setdefault(thread_id, Conversation(title, when))
        conversation.title, conversation.created_at = title, when

    @rule(owner=OWNERS, thread_id=THREADS)
    def load_thread(self, owner: str, thread_id: str) -> None:
        found = self.owners[owner].threads.get(thread_id)
        wanted = thread(thread_id, found.created_at, found.title) if found else NotFoundError
        assert self.ask(self.store.load_thread(thread_id, self.context(owner))) == wanted

    @rule(owner=OWNERS, after=st.none() | THREADS, limit=LIMITS, order=ORDERS)
    def load_threads(self, owner: str, after: str | None, limit: int, order: str) -> None:
        answer = self.ask(self.store.load_threads(limit, after, order, self.context(owner)))
        wanted = page(self.owners[owner].listed(), after, limit, order)
        assert (reading.ids(answer), answer.has_more) == wanted

    @rule(owner=OWNERS, thread_id=THREADS)
    def delete_thread(self, owner: str, thread_id: str) -> None:
        mine = self.owners[owner]
        assert self.ask(self.store.delete_thread(thread_id, self.context(owner))) is None
        if mine.threads.pop(thread_id, None):
            mine.deleted.add(thread_id)
            mine.files = {key: kept for key, kept in mine.files.items() if kept[0] != thread_id}

    @rule(owner=OWNERS, thread_id=THREADS)
    def undelete_thread(self, owner: str, thread_id: str) -> None:
        assert self.ask(self.store.undelete_thread(thread_id, self.context(owner))) is None
        self.owners[owner].deleted.discard(thread_id)

    @rule(owner=OWNERS, thread_id=THREADS, old=TITLES, new=TITLES)
    def set_title(self, owner: str, thread_id: str, old: str, new: str) -> None:
        found = self.owners[owner].threads.get(thread_id)
        call = self.store.set_title_if_unchanged(thread_id, old, new, self.context(owner))
        assert self.ask(call) == (found is not None and found.title == old)
        if found and found.title == old:
            found.title = new

    # --- items ---

    @rule(owner=OWNERS, thread_id=THREADS, item_id=ITEMS, text=TEXTS, add=st.booleans())
    def put_item(self, owner: str, thread_id: str, item_id: str, text: str, add: bool) -> None:
        found = self.owners[owner].threads.get(thread_id)
        put = self.store.add_thread_item if add else self.store.save_item
        answer = self.ask(put(thread_id, message(item_id, text), self.context(owner)))
        assert answer is (None if found else NotFoundError)
        if found:
            found.items[item_id] = text

    @rule(owner=OWNERS, thread_id=THREADS, item_id=ITEMS)
    def load_item(self, owner: str, thread_id: str, item_id: str) -> None:
        found = self.owners[owner].threads.get(thread_id)
        answer = self.ask(self.store.load_item(thread_id, item_id, self.context(owner)))
        if found and item_id in found.items:
            assert answer == message(item_id, found.items[item_id], thread_id=thread_id)
        else:
            assert answer is NotFoundError

    @rule(owner=OWNERS, thread_id=THREADS, after=st.none() | ITEMS, limit=LIMITS, order=ORDERS)
    def load_items(
        self, owner: str, thread_id: str, after: str | None, limit: int, order: str
    ) -> None:
        found = self.owners[owner].threads.get(thread_id)
        context = self.context(owner)
        answer = self.ask(self.store.load_thread_items(thread_id, after, limit, order, context))
        wanted = page(list(found.items) if found else [], after, limit, order)
        assert (reading.ids(answer), answer.has_more) == wanted

    @rule(owner=OWNERS, thread_id=THREADS, item_id=ITEMS)
    def delete_item(self, owner: str, thread_id: str, item_id: str) -> None:
        context = self.context(owner)
        assert self.ask(self.store.delete_thread_item(thread_id, item_id, context)) is None
        if found := self.owners[owner].threads.get(thread_id):
            found.items.pop(item_id, None)
            found.feedback.pop(item_id, None)

    @rule(owner=OWNERS, thread_id=THREADS, ids=st.lists(ITEMS, min_size=1, max_size=3), kind=KINDS)
    def save_feedback(self, owner: str, thread_id: str, ids: list[str], kind: FeedbackKind) -> None:
        found = self.owners[owner].threads.get(thread_id)
        answer = self.ask(self.store.save_feedback(thread_id, ids, kind, self.context(owner)))
        if found and found.items.keys() >= set(ids):
            assert answer is None
            found.feedback.update(dict.fromkeys(ids, kind))
        else:
            assert answer is NotFoundError

    # --- attachments ---

    @rule(owner=OWNERS, file_id=FILES, thread_id=st.none() | THREADS, name=TEXTS)
    def save_attachment(self, owner: str, file_id: str, thread_id: str | None, name: str) -> None:
        mine = self.owners[owner]
        answer = self.ask(
            self.store.save_attachment(file(file_id, thread_id, name), self.context(owner))
        )
        held = mine.files.get(file_id, (None, ""))[0]
        missing, taken = {thread_id} - {None, *mine.threads}, held not in (None, thread_id)
        if missing or taken:
            assert (answer is NotFoundError and missing) or (answer is ValueError and taken)
        else:
            assert answer is None
            mine.files[file_id] = thread_id, name

    @rule(owner=OWNERS, thread_id=THREADS, file_id=FILES)
    def load_attachments(self, owner: str, thread_id: str, file_id: str) -> None:
        held, context = self.owners[owner].files, self.context(owner)
        wanted = file(file_id, *held[file_id]) if file_id in held else NotFoundError
        assert self.ask(self.store.load_attachment(file_id, context)) == wanted
        listed = [each.id for each in self.ask(self.store.load_attachments(thread_id, context))]
        assert listed == [key for key, (place, _) in held.items() if place == thread_id]

    @rule(owner=OWNERS, file_id=FILES)
    def delete_attachment(self, owner: str, file_id: str) -> None:
        assert self.ask(self.store.delete_attachment(file_id, self.context(owner))) is None
        self.owners[owner].files.pop(file_id, None)

    # --- turns ---

    @rule(owner=OWNERS, thread_id=THREADS, turn=TURNS)
    def claim(self, owner: str, thread_id: str, turn: str) -> None:
        found = self.owners[owner].threads.get(thread_id)
        answer = self.ask(self.store.claim_turn(thread_id, turn, self.context(owner)))
        if not found:
            assert answer is NotFoundError
            return
        assert answer is (found.turn in (None, turn))
        if answer:
            found.turn, found.stopping = turn, found.stopping and found.turn == turn

    @rule(owner=OWNERS, thread_id=THREADS, turn=TURNS)
    def renew(self, owner: str, thread_id: str, turn: str) -> None:
        found = self.owners[owner].threads.get(thread_id)
        answer = self.ask(self.store.renew_turn(thread_id, turn, self.context(owner)))
        assert answer is (found is not None and found.turn == turn and not found.stopping)

    @rule(owner=OWNERS, thread_id=THREADS, turn=TURNS)
    def release(self, owner: str, thread_id: str, turn: str) -> None:
        found = self.owners[owner].threads.get(thread_id)
        assert self.ask(self.store.release_turn(thread_id, turn, self.context(owner))) is None
        if found and found.turn == turn:
            found.turn, found.stopping = None, False

    @rule(owner=OWNERS, thread_id=THREADS)
    def stop(self, owner: str, thread_id: str) -> None:
        found = self.owners[owner].threads.get(thread_id)
        answer = self.ask(self.store.stop_turn(thread_id, self.context(owner)))
        assert answer is (found is not None and found.turn is not None)
        if found and answer:
            found.stopping = True


def test_any_sequence_of_operations_answers_as_the_model_does(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.store.LEASE_SECONDS", 600)
    monkeypatch.setattr(StoreMachine, "url", store_url, raising=False)
    run_state_machine_as_test(
        StoreMachine,
        settings=settings(
            max_examples=int(os.environ.get("TEST_SEQUENCES", "40")),
            stateful_step_count=50,
            derandomize="TEST_SEQUENCES" not in os.environ,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
