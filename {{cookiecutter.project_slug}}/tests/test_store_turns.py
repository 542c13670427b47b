"""The Store's contract: what it has besides ChatKit's methods."""

import asyncio

import pytest
from chatkit.store import NotFoundError

from app.context import context_for
from app.store import LEASE_SECONDS, TOMBSTONE_SECONDS
from app.store import ChatStore as Store

from . import reading
from .values import ALICE, BOB, file, message, thread

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
async def conversation(store: Store) -> None:
    """Give Bob and Alice a thread of two items each, under the same ids; Alice's is newer."""
    for context in (BOB, ALICE):
        await store.save_thread(thread(), context)
        for item_id in ("a", "b"):
            await store.add_thread_item("t", message(item_id), context)


# --- deleted stays deleted ---


async def test_a_lease_lasts_15_seconds_and_a_tombstone_a_day() -> None:
    assert (LEASE_SECONDS, TOMBSTONE_SECONDS) == (15, 24 * 60 * 60)


async def test_a_deleted_thread_is_not_saved_again(store: Store) -> None:
    """The SDK saves its stale copy after the answer, which would bring the thread back."""
    for context in (ALICE, BOB):  # the second leaves the first one's tombstone alone
        await store.delete_thread("t", context)
    for _ in range(2):
        with pytest.raises(NotFoundError):
            await store.save_thread(thread(), ALICE)
        await store.delete_thread("t", ALICE)
    assert await reading.export(store, ALICE) == ""


async def test_an_undeleted_thread_may_be_saved_and_is_empty(store: Store) -> None:
    await store.save_feedback("t", ["a"], "positive", ALICE)
    await store.save_attachment(file("f", "t"), ALICE)
    await store.claim_turn("t", "turn", ALICE)
    await store.delete_thread("t", ALICE)
    await store.undelete_thread("t", ALICE)
    await store.save_thread(thread(), ALICE)
    assert await reading.items(store, ALICE) == []
    assert await store.load_feedback("t", ALICE) == {}
    assert await store.load_attachments(None, ALICE) == []
    assert await store.claim_turn("t", "other", ALICE)


async def test_undelete_leaves_a_living_thread_alone(store: Store) -> None:
    before = await reading.export(store, ALICE)
    await store.undelete_thread("t", ALICE)
    assert await reading.export(store, ALICE) == before


async def test_a_tombstone_ends(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.store.TOMBSTONE_SECONDS", 1)
    await store.delete_thread("t", ALICE)
    with pytest.raises(NotFoundError):
        await store.save_thread(thread(), ALICE)
    await store.save_thread(thread("u"), ALICE)
    await asyncio.sleep(1.1)
    await store.save_thread(thread(), ALICE)
    assert await reading.items(store, ALICE) == []
    assert await reading.threads(store, ALICE) == ["u", "t"]  # as they were saved


# --- titles ---


async def test_a_title_is_set_while_it_is_what_was_read(store: Store) -> None:
    assert await store.set_title_if_unchanged("t", "About t", "New", ALICE)
    assert not await store.set_title_if_unchanged("t", "About t", "Late", ALICE)
    assert await store.load_thread("t", ALICE) == thread(title="New")
    assert (await store.load_threads(9, None, "asc", ALICE)).data == [thread(title="New")]


async def test_a_first_title_is_set_where_there_was_none(store: Store) -> None:
    untitled = thread("u").model_copy(update={"title": None})
    await store.save_thread(untitled, ALICE)
    assert not await store.set_title_if_unchanged("u", "", "Wrong", ALICE)
    assert not await store.set_title_if_unchanged("u", "None", "Wrong", ALICE)
    assert await store.set_title_if_unchanged("u", None, "A \0 title 😀", ALICE)
    assert not await store.set_title_if_unchanged("u", None, "Late", ALICE)
    assert await store.load_thread("u", ALICE) == thread("u", title="A \0 title 😀")


async def test_an_odd_title_is_compared_as_it_is(store: Store) -> None:
    odd = 'NUL \0, "quotes" \\ and 😀'
    await store.save_thread(thread(title=odd), ALICE)
    assert not await store.set_title_if_unchanged("t", odd.upper(), "Wrong", ALICE)
    assert await store.set_title_if_unchanged("t", odd, "New", ALICE)


async def test_setting_a_title_keeps_items_and_metadata(store: Store) -> None:
    full = thread().model_copy(update={"metadata": {"empty": [], "deep": {"n": 1.0, "none": None}}})
    await store.save_thread(full, ALICE)
    assert await store.set_title_if_unchanged("t", full.title, "New", ALICE)
    assert await store.load_thread("t", ALICE) == full.model_copy(update={"title": "New"})
    assert await reading.items(store, ALICE) == ["a", "b"]


@pytest.mark.parametrize("old", ["About t", "Another"])
async def test_a_title_with_a_lone_surrogate_is_refused_by_name(store: Store, old: str) -> None:
    with pytest.raises(ValueError, match="title"):
        await store.set_title_if_unchanged("t", old, "a\ud83d", ALICE)
    assert await store.load_thread("t", ALICE) == thread()


async def test_the_title_of_a_missing_thread_is_not_set(store: Store) -> None:
    await store.delete_thread("t", ALICE)
    assert not await store.set_title_if_unchanged("t", "About t", "New", ALICE)
    assert not await store.set_title_if_unchanged("none", None, "New", ALICE)
    assert await reading.threads(store, ALICE) == []


# --- feedback ---


async def test_feedback_is_stored_beside_the_items(store: Store) -> None:
    await store.save_feedback("t", ["a", "b"], "positive", ALICE)
    await store.save_feedback("t", ["b", "b"], "negative", ALICE)  # an item may be named twice
    assert await store.load_feedback("t", ALICE) == {"a": "positive", "b": "negative"}
    assert await store.load_feedback("t", BOB) == {}
    assert await reading.items(store, ALICE) == ["a", "b"]


async def test_feedback_on_a_missing_item_stores_none_of_it(store: Store) -> None:
    await store.save_feedback("t", ["a"], "negative", ALICE)
    for thread_id, item_ids in (("t", ["a", "none"]), ("t", ["none"]), ("none", [])):
        with pytest.raises(NotFoundError):
            await store.save_feedback(thread_id, item_ids, "positive", ALICE)
    assert await store.load_feedback("t", ALICE) == {"a": "negative"}


async def test_feedback_goes_with_its_item(store: Store) -> None:
    await store.save_feedback("t", ["a", "b"], "positive", ALICE)
    await store.delete_thread_item("t", "a", ALICE)
    assert await store.load_feedback("t", ALICE) == {"b": "positive"}
    await store.add_thread_item("t", message("a"), ALICE)
    assert await store.load_feedback("t", ALICE) == {"b": "positive"}
    await store.delete_thread("t", ALICE)
    assert await store.load_feedback("t", ALICE) == {}


async def test_feedback_stays_when_its_item_or_thread_is_saved_again(store: Store) -> None:
    await store.save_feedback("t", ["a"], "positive", ALICE)
    await store.save_item("t", message("a", "new"), ALICE)
    await store.save_thread(thread(title="New"), ALICE)
    assert await store.load_feedback("t", ALICE) == {"a": "positive"}


# --- attachments ---


async def test_saving_an_attachment_again_replaces_it(store: Store) -> None:
    await store.save_attachment(file("f"), ALICE)
    await store.save_attachment(file("f", "t", name="b.txt"), ALICE)
    await store.save_attachment(file("f", "t", name="c.txt"), ALICE)
    assert await store.load_attachment("f", ALICE) == file("f", "t", name="c.txt")
    assert await store.load_attachments("t", ALICE) == [file("f", "t", name="c.txt")]


@pytest.mark.parametrize("elsewhere", ["t2", None])
async def test_an_attachment_never_leaves_its_thread(store: Store, elsewhere: str | None) -> None:
    await store.save_thread(thread("t2"), ALICE)
    for home in ("t", ""):  # "" is an id too
        await store.save_thread(thread(home), ALICE)
        await store.save_attachment(file("f" + home, home), ALICE)
        with pytest.raises(ValueError, match="thread_id"):
            await store.save_attachment(file("f" + home, elsewhere, name="taken"), ALICE)
        assert await store.load_attachment("f" + home, ALICE) == file("f" + home, home)
    assert await store.load_attachments("t2", ALICE) == []


@pytest.mark.parametrize("name", ["none", "of-bob", "deleted"])
async def test_an_attachment_to_a_missing_thread_is_refused(store: Store, name: str) -> None:
    await store.save_thread(thread("of-bob"), BOB)
    await store.save_thread(thread("deleted"), ALICE)
    await store.delete_thread("deleted", ALICE)
    await store.save_attachment(file("loose"), ALICE)
    for attachment_id in ("f", "loose"):
        with pytest.raises(NotFoundError):
            await store.save_attachment(file(attachment_id, name), ALICE)
    assert await store.load_attachments(None, ALICE) == [file("loose")]


async def test_attachments_are_listed_by_thread_and_oldest_first(store: Store) -> None:
    await store.save_thread(thread("t2"), ALICE)
    for attachment_id, thread_id in [("z", "t"), ("y", None), ("x", "t2"), ("w", "t"), ("y", "t")]:
        await store.save_attachment(file(attachment_id, thread_id), ALICE)
    await store.save_attachment(file("z", "t", name="again"), ALICE)
    assert [each.id for each in await store.load_attachments("t", ALICE)] == ["z", "y", "w"]
    assert [each.id for each in await store.load_attachments(None, ALICE)] == ["z", "y", "x", "w"]
    assert await store.load_attachments("none", ALICE) == []
    assert await store.load_attachments(None, BOB) == []


async def test_deleting_an_attachment_leaves_the_others(store: Store) -> None:
    for attachment_id in ("f", "g"):
        await store.save_attachment(file(attachment_id, "t"), ALICE)
    await store.delete_attachment("f", ALICE)
    with pytest.raises(NotFoundError):
        await store.load_attachment("f", ALICE)
    assert await store.load_attachments("t", ALICE) == [file("g", "t")]
    assert await store.load_attachments(None, ALICE) == [file("g", "t")]


# --- turns ---


async def test_one_turn_at_a_time_holds_the_lease(store: Store) -> None:
    assert await store.claim_turn("t", "one", ALICE)
    assert not await store.claim_turn("t", "two", ALICE)
    assert await store.claim_turn("t", "one", ALICE)
    assert await store.renew_turn("t", "one", ALICE)
    assert not await store.renew_turn("t", "two", ALICE)
    assert await store.claim_turn("t", "two", BOB)


async def test_a_released_lease_may_be_taken(store: Store) -> None:
    await store.claim_turn("t", "one", ALICE)
    await store.release_turn("t", "two", ALICE)  # not its own
    assert not await store.claim_turn("t", "two", ALICE)
    await store.release_turn("t", "one", ALICE)
    assert not await store.renew_turn("t", "one", ALICE)
    assert await store.claim_turn("t", "two", ALICE)
    await store.release_turn("t", "one", ALICE)  # too late
    assert await store.renew_turn("t", "two", ALICE)


async def test_a_stopped_turn_hears_of_it_at_its_next_renewal(store: Store) -> None:
    await store.claim_turn("t", "one", ALICE)
    assert not await store.stop_turn("t", BOB)
    assert await store.renew_turn("t", "one", ALICE)
    assert await store.stop_turn("t", ALICE)
    assert not await store.renew_turn("t", "one", ALICE)
    assert await store.claim_turn("t", "one", ALICE)
    assert not await store.renew_turn("t", "one", ALICE)
    assert not await store.claim_turn("t", "two", ALICE)  # it still writes what it had


async def test_a_stopped_turn_releases_its_lease(store: Store) -> None:
    await store.claim_turn("t", "one", ALICE)
    await store.stop_turn("t", ALICE)
    await store.release_turn("t", "one", ALICE)
    assert await store.claim_turn("t", "two", ALICE)
    assert await store.renew_turn("t", "two", ALICE)  # the stop was not meant for it
    await store.release_turn("t", "two", ALICE)
    assert not await store.stop_turn("t", ALICE)


async def test_no_turn_is_no_error(store: Store) -> None:
    for thread_id in ("t", "none"):
        assert not await store.stop_turn(thread_id, ALICE)
        assert not await store.renew_turn(thread_id, "one", ALICE)
        await store.release_turn(thread_id, "one", ALICE)


async def test_a_turn_needs_its_thread(store: Store) -> None:
    await store.claim_turn("t", "one", ALICE)
    await store.delete_thread("t", ALICE)
    for context, thread_id in ((ALICE, "t"), (ALICE, "none"), (context_for("c"), "t")):
        with pytest.raises(NotFoundError):
            await store.claim_turn(thread_id, "two", context)
    assert not await store.renew_turn("t", "one", ALICE)
    assert not await store.stop_turn("t", ALICE)


async def test_a_lease_that_is_not_renewed_ends(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that died blocks its thread for LEASE_SECONDS, no longer."""
    monkeypatch.setattr("app.store.LEASE_SECONDS", 2)
    await store.save_thread(thread("u"), ALICE)
    for thread_id in ("t", "u"):
        await store.claim_turn(thread_id, "dead", ALICE)
    await store.stop_turn("t", ALICE)
    await store.claim_turn("t", "slow", BOB)
    await store.save_thread(thread("u"), BOB)
    await store.claim_turn("u", "again", BOB)
    await asyncio.sleep(1.2)
    assert await store.renew_turn("t", "slow", BOB)
    assert await store.claim_turn("u", "again", BOB)  # this renews it too
    await asyncio.sleep(1.2)
    assert not await store.claim_turn("t", "two", BOB)
    assert not await store.claim_turn("u", "two", BOB)
    assert not await store.stop_turn("t", ALICE)
    assert not await store.renew_turn("u", "dead", ALICE)
    assert await store.claim_turn("t", "two", ALICE)
    assert await store.renew_turn("t", "two", ALICE)
