"""The Store's contract: which ids there are, and which there cannot be."""

import asyncio
import random
import re
from collections.abc import Awaitable

import pytest
from chatkit.store import NotFoundError
from chatkit.types import Page

from app.context import context_for
from app.store import ChatStore as Store

from . import reading
from .values import ALICE, file, message, thread

pytestmark = pytest.mark.anyio
BAD = pytest.mark.parametrize("bad", ["\0", "a\0b", "a\ud83db"])


async def test_ids_have_the_prefix_of_the_sdk_and_96_bits_or_more(store: Store) -> None:
    made = [store.generate_thread_id(ALICE) for _ in range(1000)]
    made += [store.generate_item_id("message", thread(), ALICE) for _ in range(1000)]
    assert len(set(made)) == len(made)
    assert all(re.fullmatch(r"(thr|msg)_[0-9a-f-]{24,}", each) for each in made)
    assert store.generate_item_id("tool_call", thread(), ALICE).startswith("tc_")
    assert store.generate_item_id("attachment", thread(), ALICE).startswith("atc_")


async def test_ids_of_later_milliseconds_sort_later(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Time-ordered ids keep B-trees and write-ahead logs small."""
    made = []
    for millisecond in range(1, 20):
        monkeypatch.setattr("time.time_ns", lambda ms=millisecond: ms * 10**6)
        made.append(store.generate_thread_id(ALICE))
    assert made == sorted(made)


async def test_any_text_without_nul_may_be_an_id(store: Store) -> None:
    odd_ids = ["", " ", "a:b", "a/b", "{a}", "a%b_c*[d]?", "'\"\\", "ä😀\n", "x" * 999]
    for odd in odd_ids:
        await store.save_thread(thread(odd), ALICE)
        await store.add_thread_item(odd, message(odd, thread_id=odd), ALICE)
        await store.save_attachment(file(odd, odd), ALICE)
        await store.save_feedback(odd, [odd], "positive", ALICE)
    assert await reading.threads(store, ALICE, limit=1) == odd_ids
    for odd in odd_ids:
        page = await store.load_thread_items(odd, None, 9, "asc", ALICE)
        assert page.data == [message(odd, thread_id=odd)]
        assert await store.load_thread_items(odd, odd, 9, "asc", ALICE) == Page()
        assert await store.load_attachments(odd, ALICE) == [file(odd, odd)]
        assert await store.load_feedback(odd, ALICE) == {odd: "positive"}
        await store.delete_thread_item(odd, odd, ALICE)
        await store.delete_thread(odd, ALICE)
    assert await reading.export(store, ALICE) == ""


@pytest.mark.parametrize("length", [3000, 10**6])
async def test_a_very_long_name_is_taken_or_refused(store: Store, length: int) -> None:
    """By a ValueError, not the driver's error: an index may have a limit. Reads find nothing."""
    long = random.Random(7).randbytes(length // 2).hex()
    for write, read in (
        (store.save_thread(thread(long), ALICE), store.load_thread(long, ALICE)),
        (store.add_thread_item("t", message(long), ALICE), store.load_item("t", long, ALICE)),
        (store.save_attachment(file(long), ALICE), store.load_attachment(long, ALICE)),
        (store.save_thread(thread(), context_for(long)), store.load_thread("t", context_for(long))),
    ):
        await store.save_thread(thread(), ALICE)
        (refused,) = await asyncio.gather(write, return_exceptions=True)
        if refused:
            assert isinstance(refused, ValueError)
            assert "id" in str(refused)
            with pytest.raises(NotFoundError):
                await read
        else:
            await read


@BAD
async def test_an_id_that_no_engine_holds_is_refused_by_name_on_writes(
    store: Store, bad: str
) -> None:
    await store.save_thread(thread(), ALICE)
    before = await reading.export(store, ALICE)
    for write in (
        store.save_thread(thread(bad, title="x"), ALICE),
        store.add_thread_item("t", message(bad, "x"), ALICE),
        store.save_item("t", message(bad, "x"), ALICE),
        store.add_thread_item(bad, message("a", "x"), ALICE),
        store.save_item(bad, message("a", "x"), ALICE),
        store.save_attachment(file(bad), ALICE),
        store.save_attachment(file("f", bad), ALICE),
        store.save_feedback("t", [bad], "positive", ALICE),
        store.save_feedback(bad, ["a"], "positive", ALICE),
        store.claim_turn(bad, "turn", ALICE),
        store.claim_turn("t", bad, ALICE),
    ):
        with pytest.raises(ValueError, match="id"):
            await write
    assert await reading.export(store, ALICE) == before


@BAD
async def test_an_id_that_no_engine_holds_is_not_found_on_reads(store: Store, bad: str) -> None:
    await store.save_thread(thread(), ALICE)
    for read in (
        store.load_thread(bad, ALICE),
        store.load_item("t", bad, ALICE),
        store.load_item(bad, "a", ALICE),
        store.load_attachment(bad, ALICE),
    ):
        with pytest.raises(NotFoundError):
            await read
    assert await store.load_thread_items(bad, None, 9, "asc", ALICE) == Page()
    assert await store.load_attachments(bad, ALICE) == []
    assert await store.load_feedback(bad, ALICE) == {}


@BAD
async def test_an_id_that_no_engine_holds_never_raises_the_drivers_error(
    store: Store, bad: str
) -> None:
    """Calls that neither read nor store an id may call it unknown or refuse it, nothing else."""
    await store.save_thread(thread(), ALICE)
    before = await reading.export(store, ALICE)
    calls: list[Awaitable[object]] = [
        store.delete_thread(bad, ALICE),
        store.delete_thread_item("t", bad, ALICE),
        store.delete_thread_item(bad, "a", ALICE),
        store.delete_attachment(bad, ALICE),
        store.undelete_thread(bad, ALICE),
        store.set_title_if_unchanged(bad, None, "x", ALICE),
        store.renew_turn(bad, "turn", ALICE),
        store.release_turn(bad, "turn", ALICE),
        store.stop_turn(bad, ALICE),
    ]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(each) for each in answers if each} <= {NotFoundError, ValueError}
    assert await reading.export(store, ALICE) == before
