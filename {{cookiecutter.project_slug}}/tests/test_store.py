"""The Store's contract: threads, items, order and pages."""

import pytest
from chatkit.store import NotFoundError
from chatkit.types import EndOfTurnItem, LockedStatus, Page, Thread, ThreadMetadata

from app.context import RequestContext
from app.store import ChatStore as Store

from . import reading
from .values import ALICE, BOB, NOON, TIMES, at, file, message, thread

pytestmark = pytest.mark.anyio
FIFTY = [f"i{n}" for n in range(50)]
ORDERS = pytest.mark.parametrize("order", ["asc", "desc"])
PUTTING = pytest.mark.parametrize("method", ["add_thread_item", "save_item"])


async def fill(store: Store, ids: list[str], context: RequestContext = ALICE) -> None:
    """Make a thread of messages that all have the same time."""
    await store.save_thread(thread(), context)
    for item_id in ids:
        await store.add_thread_item("t", message(item_id), context)


# --- order and pages ---


async def test_walk_gives_each_item_once_when_fifty_times_are_equal(store: Store) -> None:
    await fill(store, FIFTY)
    for limit in (1, 7, 49, 50, 51):
        assert await reading.items(store, ALICE, order="asc", limit=limit) == FIFTY
        assert await reading.items(store, ALICE, order="desc", limit=limit) == FIFTY[::-1]


async def test_walk_gives_each_thread_once_when_fifty_times_are_equal(store: Store) -> None:
    for thread_id in FIFTY:
        await store.save_thread(thread(thread_id), ALICE)
    for limit in (1, 7, 49, 50, 51):
        assert await reading.threads(store, ALICE, order="asc", limit=limit) == FIFTY
        assert await reading.threads(store, ALICE, order="desc", limit=limit) == FIFTY[::-1]


async def test_items_come_in_the_order_of_adding_not_of_time(store: Store) -> None:
    await store.save_thread(thread(), ALICE)
    moments = [at(5), at(-5), *TIMES, at(0)]
    names = [f"i{99 - n}" for n in range(len(moments))]  # and not of their ids
    for name, moment in zip(names, moments, strict=True):
        await store.add_thread_item("t", message(name, created_at=moment), ALICE)
    assert await reading.items(store, ALICE) == names


async def test_threads_come_by_time_and_naive_counts_as_utc(store: Store) -> None:
    """TIMES holds noon in UTC twice (naive first), in India (earlier), and the years 1 and 9999."""
    for _ in range(2):  # saved again, each keeps its place
        for n, moment in enumerate(TIMES):
            await store.save_thread(thread(f"t{n}", moment), ALICE)
    expected = ["t4", "t3", "t1", "t0", "t2", "t5"]
    assert await reading.threads(store, ALICE, limit=2) == expected
    assert await reading.threads(store, ALICE, limit=2, order="desc") == expected[::-1]


async def test_threads_a_microsecond_apart_are_told_apart(store: Store) -> None:
    for micros in (3, 1, 2):
        await store.save_thread(thread(f"t{micros}", at(micros / 1e6)), ALICE)
    assert await reading.threads(store, ALICE) == ["t1", "t2", "t3"]


async def test_page_says_has_more_only_while_more_follow(store: Store) -> None:
    await fill(store, ["a", "b", "c"])
    page = await store.load_thread_items("t", None, 2, "asc", ALICE)
    assert (reading.ids(page), page.has_more, page.after) == (["a", "b"], True, "b")
    page = await store.load_thread_items("t", None, 3, "asc", ALICE)
    assert (reading.ids(page), page.has_more, page.after) == (["a", "b", "c"], False, None)
    page = await store.load_thread_items("t", "b", 2, "asc", ALICE)
    assert (reading.ids(page), page.has_more, page.after) == (["c"], False, None)
    page = await store.load_thread_items("t", "c", 2, "asc", ALICE)
    assert page == Page()


@ORDERS
async def test_limit_of_zero_or_less_gives_an_empty_page(store: Store, order: str) -> None:
    await fill(store, ["a", "b"])
    for limit in (0, -1, -(10**19)):
        for after in (None, "a"):
            assert await store.load_thread_items("t", after, limit, order, ALICE) == Page()
        for after in (None, "t"):
            assert await store.load_threads(limit, after, order, ALICE) == Page()


@ORDERS
async def test_a_huge_limit_gives_all(store: Store, order: str) -> None:
    await fill(store, ["a", "b"])
    for limit in (10**9, 2**31 - 1, 2**31, 2**63 - 1, 10**19):
        page = await store.load_thread_items("t", None, limit, order, ALICE)
        assert sorted(reading.ids(page)) == ["a", "b"]
        rest = await store.load_thread_items("t", page.data[0].id, limit, order, ALICE)
        assert reading.ids(rest) == [page.data[1].id]
        assert reading.ids(await store.load_threads(limit, None, order, ALICE)) == ["t"]


@ORDERS
async def test_cursor_that_is_not_in_the_thread_gives_an_empty_page(
    store: Store, order: str
) -> None:
    """Deleted, unknown, of another thread, of another owner, no id at all: never page one again."""
    await fill(store, ["a", "gone", "b"])
    await store.delete_thread_item("t", "gone", ALICE)
    await store.save_thread(thread("t2"), ALICE)
    await store.add_thread_item("t2", message("elsewhere"), ALICE)
    await fill(store, ["bobs"], BOB)
    for after in ("gone", "never", "elsewhere", "bobs", "", "t", "a\0", "\udc00"):
        assert await store.load_thread_items("t", after, 10, order, ALICE) == Page()


@ORDERS
async def test_cursor_that_is_no_thread_of_the_owner_gives_an_empty_page(
    store: Store, order: str
) -> None:
    await fill(store, ["i"])
    for thread_id, context in (("gone", ALICE), ("last", ALICE), ("bobs", BOB)):
        await store.save_thread(thread(thread_id), context)
    await store.delete_thread("gone", ALICE)
    for after in ("gone", "never", "bobs", "", "i", "a\0", "\udc00"):
        assert await store.load_threads(10, after, order, ALICE) == Page()


async def test_items_of_an_unknown_thread_are_an_empty_page(store: Store) -> None:
    assert await store.load_thread_items("none", None, 10, "asc", ALICE) == Page()


# --- writing ---


@PUTTING
async def test_putting_again_replaces_in_place(store: Store, method: str) -> None:
    """The SDK retries and resumes: a stored id is replaced, never doubled, never moved."""
    await fill(store, ["a", "b", "c"])
    for _ in range(2):
        await getattr(store, method)("t", message("b", "new", at(9)), ALICE)
    assert await reading.items(store, ALICE) == ["a", "b", "c"]
    assert await store.load_item("t", "b", ALICE) == message("b", "new", at(9))


async def test_an_item_may_be_replaced_by_another_type(store: Store) -> None:
    await fill(store, ["a", "b"])
    end = EndOfTurnItem(id="a", thread_id="t", created_at=NOON)
    await store.save_item("t", end, ALICE)
    assert (await store.load_thread_items("t", None, 1, "asc", ALICE)).data == [end]


async def test_saving_an_unknown_item_adds_it_at_the_end(store: Store) -> None:
    await fill(store, ["a"])
    await store.save_item("t", message("b", created_at=at(-9)), ALICE)
    assert await reading.items(store, ALICE) == ["a", "b"]


async def test_a_deleted_item_that_is_added_again_comes_last(store: Store) -> None:
    await fill(store, ["a", "b"])
    await store.delete_thread_item("t", "a", ALICE)
    await store.add_thread_item("t", message("a"), ALICE)
    assert await reading.items(store, ALICE) == ["b", "a"]


async def test_saving_a_thread_replaces_its_record_and_keeps_its_place(store: Store) -> None:
    for thread_id in ("a", "b", "c"):
        await store.save_thread(thread(thread_id), ALICE)
    changed = ThreadMetadata(
        id="a",
        created_at=NOON,
        title="New",
        status=LockedStatus(reason="why"),
        metadata={"k": 1},
        allowed_image_domains=["i.example"],
    )
    await store.save_thread(changed, ALICE)
    assert await store.load_thread("a", ALICE) == changed
    assert await reading.threads(store, ALICE) == ["a", "b", "c"]


async def test_saving_a_thread_keeps_its_items_and_attachments(store: Store) -> None:
    await fill(store, ["a", "b"])
    await store.save_attachment(file("f", "t"), ALICE)
    await store.save_thread(thread(title="New"), ALICE)
    assert await reading.items(store, ALICE) == ["a", "b"]
    assert await store.load_attachments("t", ALICE) == [file("f", "t")]


async def test_a_thread_whose_time_changes_moves(store: Store) -> None:
    for n, thread_id in enumerate(("a", "b", "c")):
        await store.save_thread(thread(thread_id, at(n)), ALICE)
    await store.save_thread(thread("a", at(1.5)), ALICE)
    assert await reading.threads(store, ALICE, limit=1) == ["b", "a", "c"]


async def test_saving_a_thread_with_items_keeps_the_metadata_alone(store: Store) -> None:
    """`threads.get_by_id` breaks when `items` come back: the SDK passes them twice."""
    full = Thread(**thread().model_dump(), items=Page(data=[message("a")]))
    await store.save_thread(full, ALICE)
    for loaded in (
        await store.load_thread("t", ALICE),
        *(await store.load_threads(1, None, "asc", ALICE)).data,
    ):
        assert type(loaded) is ThreadMetadata
        assert loaded == thread()
    assert await reading.items(store, ALICE) == []


@PUTTING
async def test_the_argument_decides_the_thread(store: Store, method: str) -> None:
    for thread_id in ("t", "other"):
        await store.save_thread(thread(thread_id), ALICE)
    await getattr(store, method)("t", message("a", thread_id="other"), ALICE)
    assert (await store.load_item("t", "a", ALICE)).thread_id == "t"
    assert await reading.items(store, ALICE, thread_id="other") == []


async def test_one_item_id_may_be_in_two_threads(store: Store) -> None:
    for thread_id in ("t", "other"):
        await store.save_thread(thread(thread_id), ALICE)
        await store.add_thread_item(thread_id, message("a", thread_id, NOON, thread_id), ALICE)
    await store.delete_thread_item("other", "a", ALICE)
    assert await store.load_item("t", "a", ALICE) == message("a", "t")


@PUTTING
async def test_an_item_without_its_thread_is_refused_and_leaves_nothing(
    store: Store, method: str
) -> None:
    with pytest.raises(NotFoundError):
        await getattr(store, method)("t", message("a"), ALICE)
    assert await reading.threads(store, ALICE) == []
    await store.save_thread(thread(), ALICE)
    assert await reading.items(store, ALICE) == []


@PUTTING
async def test_an_item_does_not_bring_a_deleted_thread_back(store: Store, method: str) -> None:
    await fill(store, ["a"])
    await store.delete_thread("t", ALICE)
    for item_id in ("a", "b"):
        with pytest.raises(NotFoundError):
            await getattr(store, method)("t", message(item_id), ALICE)
    assert await reading.export(store, ALICE) == ""


async def test_deleting_an_item_leaves_the_others(store: Store) -> None:
    await fill(store, ["a", "b", "c"])
    for _ in range(2):
        await store.delete_thread_item("t", "b", ALICE)
    assert await reading.items(store, ALICE) == ["a", "c"]
    with pytest.raises(NotFoundError):
        await store.load_item("t", "b", ALICE)
    assert (await store.load_item("t", "c", ALICE)).id == "c"


async def test_deleting_a_thread_takes_its_items_and_attachments_along(store: Store) -> None:
    await fill(store, ["a", "b"])
    await store.save_attachment(file("f", "t"), ALICE)
    await store.delete_thread("t", ALICE)
    assert await store.load_threads(10, None, "asc", ALICE) == Page()
    assert await store.load_thread_items("t", None, 10, "asc", ALICE) == Page()
    for missing in (
        store.load_thread("t", ALICE),
        store.load_item("t", "a", ALICE),
        store.load_attachment("f", ALICE),
        store.save_feedback("t", [], "positive", ALICE),
    ):
        with pytest.raises(NotFoundError):
            await missing


async def test_deleting_a_thread_leaves_the_others(store: Store) -> None:
    for thread_id in ("t", "t1", "t2"):
        await store.save_thread(thread(thread_id), ALICE)
        await store.add_thread_item(thread_id, message("a", thread_id=thread_id), ALICE)
        await store.save_attachment(file(f"f-{thread_id}", thread_id), ALICE)
    await store.save_attachment(file("loose"), ALICE)
    await store.delete_thread("t1", ALICE)
    assert await reading.threads(store, ALICE) == ["t", "t2"]
    for thread_id in ("t", "t2"):
        assert await reading.items(store, ALICE, thread_id=thread_id) == ["a"]
    left = [each.id for each in await store.load_attachments(None, ALICE)]
    assert left == ["f-t", "f-t2", "loose"]


async def test_deleting_what_is_not_there_does_nothing(store: Store) -> None:
    await store.delete_thread_item("none", "none", ALICE)
    await store.delete_attachment("none", ALICE)
    await store.delete_thread("t", ALICE)
    await store.save_thread(thread(), ALICE)  # what never existed leaves no tombstone
    assert await reading.threads(store, ALICE) == ["t"]
