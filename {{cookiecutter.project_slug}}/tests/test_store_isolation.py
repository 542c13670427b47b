"""The Store's contract: whose data it is. Two owners have the same ids on purpose."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from chatkit.store import NotFoundError
from chatkit.types import Page
from pydantic import BaseModel

from app.context import RequestContext, context_for
from app.store import ChatStore as Store

from . import reading
from .values import ALICE, BOB, file, message, thread

pytestmark = pytest.mark.anyio
Call = Callable[[Store, RequestContext], Awaitable[Any]]

READS: dict[str, Call] = {
    "load_thread": lambda s, c: s.load_thread("t", c),
    "load_threads": lambda s, c: s.load_threads(9, None, "desc", c),
    "load_threads after": lambda s, c: s.load_threads(9, "t", "asc", c),
    "load_thread_items": lambda s, c: s.load_thread_items("t", None, 9, "asc", c),
    "load_thread_items after": lambda s, c: s.load_thread_items("t", "a", 9, "asc", c),
    "load_item": lambda s, c: s.load_item("t", "a", c),
    "load_attachment": lambda s, c: s.load_attachment("f", c),
    "load_attachments": lambda s, c: s.load_attachments("t", c),
    "load_attachments of all": lambda s, c: s.load_attachments(None, c),
    "load_feedback": lambda s, c: s.load_feedback("t", c),
}
WRITES: dict[str, Call] = {
    "save_thread": lambda s, c: s.save_thread(thread(title="Mine"), c),
    "add_thread_item": lambda s, c: s.add_thread_item("t", message("a", "mine"), c),
    "add_thread_item new": lambda s, c: s.add_thread_item("t", message("z", "mine"), c),
    "save_item": lambda s, c: s.save_item("t", message("a", "mine"), c),
    "save_attachment": lambda s, c: s.save_attachment(file("f", name="mine"), c),
    "save_attachment of thread": lambda s, c: s.save_attachment(file("f", "t", name="mine"), c),
    "save_feedback": lambda s, c: s.save_feedback("t", ["a"], "negative", c),
    "save_feedback of none": lambda s, c: s.save_feedback("t", [], "negative", c),
    "set_title_if_unchanged": lambda s, c: s.set_title_if_unchanged("t", "About t", "Mine", c),
    "claim_turn": lambda s, c: s.claim_turn("t", "turn", c),
    "renew_turn": lambda s, c: s.renew_turn("t", "turn", c),
    "release_turn": lambda s, c: s.release_turn("t", "turn", c),
    "stop_turn": lambda s, c: s.stop_turn("t", c),
    "undelete_thread": lambda s, c: s.undelete_thread("t", c),
    "delete_thread_item": lambda s, c: s.delete_thread_item("t", "a", c),
    "delete_attachment": lambda s, c: s.delete_attachment("f", c),
    "delete_thread": lambda s, c: s.delete_thread("t", c),
}
SIMILAR = ["", " ", "a", "A", "a:b", "a:b:c", "a\0", "a\0b", "a%00", "a}{b", "{a}", "a/b", "a%2Fb"]
SIMILAR += ["ä", "a\u0308", "_", "%", "*", "x" * 998, "x" * 999, "'; DROP TABLE items; --"]
SIMILAR += ["a\ud83d", "a\\ud83d"]


async def fill(store: Store, context: RequestContext, text: str) -> None:
    """Give an owner a thread of two items with an attachment and feedback."""
    await store.save_thread(thread(title=text), context)
    for item_id in ("a", "b"):
        await store.add_thread_item("t", message(item_id, text), context)
    await store.save_attachment(file("f", "t", name=text), context)
    await store.save_feedback("t", ["a"], "positive", context)


async def answer(call: Call, store: Store, context: RequestContext) -> str:
    """Return what a call answers, including errors and their text."""
    try:
        result = await call(store, context)
    except (NotFoundError, ValueError) as error:
        return f"{type(error)}: {error}"
    return result.model_dump_json() if isinstance(result, BaseModel) else repr(result)


@pytest.mark.parametrize("name", [*READS, *WRITES])
async def test_what_is_foreign_answers_as_what_is_unknown(store: Store, name: str) -> None:
    """Bob asks when nobody has the ids, Carol when Alice has: not a letter may differ."""
    call = (READS | WRITES)[name]
    unknown = await answer(call, store, BOB)
    await fill(store, ALICE, "About t")
    await store.claim_turn("t", "turn", ALICE)
    before = await reading.export(store, ALICE)
    assert await answer(call, store, context_for("carol")) == unknown
    assert await reading.export(store, ALICE) == before
    assert await store.renew_turn("t", "turn", ALICE)


@pytest.mark.parametrize("name", WRITES)
async def test_no_write_reaches_the_same_ids_of_another_owner(store: Store, name: str) -> None:
    await fill(store, ALICE, "About t")
    await fill(store, BOB, "About t")
    before = await reading.export(store, ALICE)
    await answer(WRITES[name], store, BOB)
    assert await reading.export(store, ALICE) == before
    await store.delete_thread("t", ALICE)
    await answer(WRITES["undelete_thread"], store, BOB)
    with pytest.raises(NotFoundError):
        await store.save_thread(thread(), ALICE)


async def test_each_owner_reads_its_own_under_the_same_ids(store: Store) -> None:
    await fill(store, ALICE, "of Alice")
    alone = {name: await answer(call, store, ALICE) for name, call in READS.items()}
    await fill(store, BOB, "of Bob")
    await store.save_thread(thread("t2"), BOB)
    await store.save_attachment(file("f2"), BOB)
    assert {name: await answer(call, store, ALICE) for name, call in READS.items()} == alone


async def test_no_call_reaches_another_thread_of_its_owner(store: Store) -> None:
    """Not even one with the same items, title and turn, nor a deleted one."""
    await fill(store, ALICE, "About t")
    narrow = {name: READS[name] for name in READS if not re.search("threads|all", name)}
    alone = {name: await answer(call, store, ALICE) for name, call in narrow.items()}
    for thread_id in ("gone", "s"):
        await store.save_thread(thread(thread_id, title="About t"), ALICE)
    await store.delete_thread("gone", ALICE)
    for item_id in ("a", "b"):
        await store.add_thread_item("s", message(item_id, thread_id="s"), ALICE)
    await store.save_attachment(file("g", "s"), ALICE)
    await store.save_feedback("s", ["a", "b"], "negative", ALICE)
    assert {name: await answer(call, store, ALICE) for name, call in narrow.items()} == alone
    for thread_id in ("s", "t"):
        await store.claim_turn(thread_id, "turn", ALICE)
    before = await reading.export(store, ALICE, "s")
    for name, call in WRITES.items():
        await answer(call, store, ALICE)
        assert await reading.export(store, ALICE, "s") == before, name
        assert await store.renew_turn("s", "turn", ALICE), name
        with pytest.raises(NotFoundError):
            await store.save_thread(thread("gone"), ALICE)


async def test_a_deleted_thread_of_one_owner_stays_with_the_other(store: Store) -> None:
    await fill(store, ALICE, "of Alice")
    await fill(store, BOB, "of Bob")
    before = await reading.export(store, ALICE)
    await store.delete_thread("t", BOB)
    assert await reading.export(store, ALICE) == before
    assert await reading.export(store, BOB) == ""
    await store.save_thread(thread(title="of Alice"), ALICE)  # Bob's tombstone is Bob's
    assert await reading.export(store, ALICE) == before


async def test_owners_with_similar_names_never_meet(store: Store) -> None:
    """Colons, braces, NUL, case, wildcards: nothing in a name reaches another owner's keys."""
    contexts = [context_for(name) for name in SIMILAR]
    for n, context in enumerate(contexts):
        assert await reading.export(store, context) == ""
        await fill(store, context, f"of number {n}")
    before = [await reading.export(store, context) for context in contexts]
    assert sorted([owner async for owner in store.owners()]) == sorted(SIMILAR)
    for n in range(0, len(contexts), 2):
        await store.delete_thread("t", contexts[n])
        before[n] = ""
    assert [await reading.export(store, context) for context in contexts] == before


@pytest.mark.parametrize("separator", [":", "/", "}", "|", " ", "\x01"])
async def test_an_owner_and_an_id_never_add_up_to_another_key(store: Store, separator: str) -> None:
    """Owner `a` with thread `t:t` is not owner `a:t` with thread `t`."""
    first, second = context_for("a"), context_for(f"a{separator}t")
    odd = f"t{separator}t"
    await store.save_thread(thread(odd), first)
    await store.add_thread_item(odd, message("a"), first)
    assert await reading.export(store, second) == ""
    await fill(store, second, "of the second")
    assert await reading.threads(store, first) == [odd]
    assert await reading.items(store, first, thread_id=odd) == ["a"]


@pytest.fixture
async def crowd(store: Store) -> list[str]:
    """Make thirty owners with threads, attachments or both."""
    names = [f"owner-{n}" for n in range(30)]
    for n, name in enumerate(names):
        context = context_for(name)
        if n % 3 != 0:
            await store.save_thread(thread(), context)
        if n % 3 != 1:
            await store.save_attachment(file("f"), context)
    return names


async def test_owners_names_each_owner_once(store: Store, crowd: list[str]) -> None:
    assert sorted([owner async for owner in store.owners()]) == sorted(crowd)


async def test_owners_leaves_out_those_with_nothing_left(store: Store, crowd: list[str]) -> None:
    for name in crowd[3:]:
        context = context_for(name)
        await store.delete_thread("t", context)
        await store.delete_attachment("f", context)
    assert sorted([owner async for owner in store.owners()]) == crowd[:3]


async def test_reading_and_failing_make_nobody_an_owner(store: Store) -> None:
    for name, call in (READS | WRITES).items():
        if name not in ("save_thread", "save_attachment"):
            await answer(call, store, ALICE)
    assert [owner async for owner in store.owners()] == []
    assert await store.load_threads(9, None, "asc", ALICE) == Page()


# --- cancelled calls ---


async def test_the_answer_of_a_cancelled_call_reaches_nobody_else(store: Store) -> None:
    """A connection reused with an answer still under way hands one user another's data."""
    for context in (ALICE, BOB):
        await store.save_thread(thread(), context)
    owners = {"alice": ALICE, "bob": BOB}
    for name, context in owners.items():
        await store.add_thread_item("t", message("a", name), context)

    async def read(name: str) -> bool:
        item = await store.load_item("t", "a", owners[name])
        return item == message("a", name)

    for steps in range(8):
        calls = [asyncio.create_task(read(name)) for name in [*owners] * 8]
        for _ in range(steps):
            await asyncio.sleep(0)
        await asyncio.sleep(steps / 5000)
        for call in calls[::3]:
            call.cancel()
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert {answer for answer in answers if not isinstance(answer, BaseException)} <= {True}
        assert all(isinstance(answer, bool | asyncio.CancelledError) for answer in answers)


async def test_a_cancelled_task_ends(store: Store) -> None:
    """Python 3.11's `wait_for`, which drivers use, swallows a cancel that comes as it ends."""
    await store.save_thread(thread(), ALICE)

    async def read_on() -> None:
        for _ in range(10_000):
            await store.load_thread("t", ALICE)
            await asyncio.sleep(0)

    for steps in range(20):
        await store.load_thread("t", ALICE)  # connects: cancelling that is another matter
        reader = asyncio.create_task(read_on())
        await asyncio.sleep(steps / 5000)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
