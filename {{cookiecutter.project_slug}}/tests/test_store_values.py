"""The Store's contract: what is stored comes back as it was, or is refused by name."""

import math
from typing import get_args

import pytest
from chatkit.types import (
    Annotation,
    AssistantMessageContent,
    AssistantMessageItem,
    Attachment,
    EntitySource,
    HiddenContextItem,
    ThreadItem,
    ThreadMetadata,
    ThreadStatus,
)

from app.store import ChatStore as Store

from . import reading
from .values import (
    ALICE,
    ATTACHMENTS,
    BASE,
    ITEMS,
    NOON,
    STATUSES,
    STRANGE,
    TIMES,
    file,
    message,
    thread,
)

pytestmark = pytest.mark.anyio
SURROGATE = "a\ud83db"
HALF_EMOJI = pytest.mark.parametrize("bad", [SURROGATE, "\udc00"])


async def test_samples_cover_every_type_of_the_sdk() -> None:
    """A new release of the SDK with a new type fails here, not in production."""
    for samples, union in (
        (ITEMS, ThreadItem),
        (ATTACHMENTS, Attachment),
        (STATUSES, ThreadStatus),
    ):
        assert {type(sample) for sample in samples} == set(get_args(get_args(union)[0]))


async def test_every_type_of_item_comes_back_equal(store: Store) -> None:
    await store.save_thread(thread(), ALICE)
    for item in ITEMS:
        await store.add_thread_item("t", item, ALICE)
        assert await store.load_item("t", item.id, ALICE) == item
    assert (await store.load_thread_items("t", None, 99, "asc", ALICE)).data == ITEMS


async def test_every_type_of_attachment_comes_back_equal(store: Store) -> None:
    for attachment in ATTACHMENTS:
        await store.save_attachment(attachment, ALICE)
        assert await store.load_attachment(attachment.id, ALICE) == attachment
    assert await store.load_attachments(None, ALICE) == ATTACHMENTS


async def test_every_status_comes_back_equal(store: Store) -> None:
    for status in STATUSES:
        saved = ThreadMetadata(id="t", created_at=NOON, status=status)
        await store.save_thread(saved, ALICE)
        assert await store.load_thread("t", ALICE) == saved


async def test_times_come_back_naive_or_aware_as_they_were(store: Store) -> None:
    """The SDK subtracts naive times from naive ones: an aware one would break it."""
    for moment in TIMES:
        await store.save_thread(thread("t", moment), ALICE)
        await store.save_item("t", message("a", created_at=moment), ALICE)
        for loaded in (
            (await store.load_thread("t", ALICE)).created_at,
            (await store.load_item("t", "a", ALICE)).created_at,
        ):
            assert loaded == moment
            assert loaded.utcoffset() == moment.utcoffset()


async def test_any_text_comes_back_equal(store: Store) -> None:
    saved = ThreadMetadata(
        id="t",
        created_at=NOON,
        title=STRANGE,
        allowed_image_domains=[STRANGE, ""],
        metadata={STRANGE: [STRANGE, {"": None}], "numbers": [0.1, -1, 2**53 + 1, 1e300, True]},
    )
    await store.save_thread(saved, ALICE)
    assert await store.load_thread("t", ALICE) == saved


async def test_fields_left_out_and_fields_set_to_none_come_back_equal(store: Store) -> None:
    for title in (None, ""):
        saved = ThreadMetadata(id="t", created_at=NOON, title=title, allowed_image_domains=[])
        await store.save_thread(saved, ALICE)
        assert await store.load_thread("t", ALICE) == saved


async def test_a_megabyte_comes_back_equal(store: Store) -> None:
    big = "ä€😀\0x" * 100_000
    saved = ThreadMetadata(id="t", created_at=NOON, metadata={"big": big})
    await store.save_thread(saved, ALICE)
    await store.add_thread_item("t", message("a", big), ALICE)
    await store.save_attachment(file("f", name=big), ALICE)
    assert await store.load_thread("t", ALICE) == saved
    assert (await store.load_threads(9, None, "asc", ALICE)).data == [saved]
    assert (await store.load_thread_items("t", None, 9, "asc", ALICE)).data == [message("a", big)]
    assert await store.load_attachment("f", ALICE) == file("f", name=big)


def nested(depth: int) -> ThreadMetadata:
    """Return a thread whose JSON is `depth` levels deep."""
    inner: object = 1
    for _ in range(depth - 2):
        inner = [inner]
    return ThreadMetadata(id="t", created_at=NOON, metadata={"deep": inner})


async def test_what_is_stored_can_be_read_again(store: Store) -> None:
    """Pydantic writes deeper nesting and longer numbers than it reads."""
    await store.save_thread(nested(199), ALICE)
    long = ThreadMetadata(id="t", created_at=NOON, metadata={"long": 10**4500})
    for refused in (nested(200), nested(240), long):
        with pytest.raises(ValueError, match="cannot be stored"):
            await store.save_thread(refused, ALICE)
    assert (await store.load_threads(9, None, "asc", ALICE)).data == [nested(199)]


async def test_an_endless_value_is_refused(store: Store) -> None:
    """A value that contains itself, and one that is nested deeper than Python can go."""
    inner: list[object] = []
    inner.append(inner)
    for endless in (inner, nested(3000).metadata):
        with pytest.raises(ValueError, match="metadata cannot be stored"):
            await store.save_thread(
                ThreadMetadata(id="t", created_at=NOON, metadata={"a": endless}), ALICE
            )
    assert (await store.load_threads(9, None, "asc", ALICE)).data == []


@pytest.mark.parametrize(
    ("field", "value"),
    [("metadata", "secret"), ("created_at", "secret"), ("created_at", None), ("created_at", 5)],
)
async def test_a_field_of_the_wrong_type_is_refused_by_name(
    store: Store, field: str, value: object
) -> None:
    """Pydantic does not check assignments; the owner could never list threads again."""
    wrong = thread()
    setattr(wrong, field, value)
    with pytest.raises(ValueError, match=field) as refusal:
        await store.save_thread(wrong, ALICE)
    assert "secret" not in str(refusal.value)
    assert (await store.load_threads(9, None, "asc", ALICE)).data == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("created_at", "secret"),
        ("content", [{"text": "secret"}]),
        ("text", ["secret"]),
        ("text", None),
        ("annotations", {}),
    ],
)
async def test_an_answer_with_a_wrong_type_is_refused_by_name(
    store: Store, field: str, value: object
) -> None:
    """Its thread could never be read again."""
    await store.save_thread(thread(), ALICE)
    wrong = message("a")
    setattr(wrong if hasattr(wrong, field) else wrong.content[0], field, value)
    with pytest.raises(ValueError, match=r"created_at|content") as refusal:
        await store.add_thread_item("t", wrong, ALICE)
    assert "secret" not in str(refusal.value)
    assert await reading.items(store, ALICE) == []


@pytest.mark.parametrize("endless", [math.nan, math.inf, -math.inf])
async def test_a_number_that_is_not_finite_is_refused_by_name(store: Store, endless: float) -> None:
    """Pydantic would store null for it."""
    await store.save_thread(thread(), ALICE)
    before = await reading.export(store, ALICE)
    refused = thread()
    refused.metadata = {"a": [1.5, {"deep": endless}]}
    with pytest.raises(ValueError, match="metadata cannot"):
        await store.save_thread(refused, ALICE)
    hidden = HiddenContextItem(id="a", **BASE, content={"score": endless})
    with pytest.raises(ValueError, match="content cannot"):
        await store.add_thread_item("t", hidden, ALICE)
    source = EntitySource(id="e", title="E", data={"score": endless})
    said = AssistantMessageContent(text="as", annotations=[Annotation(source=source)])
    answer = AssistantMessageItem(id="b", **BASE, content=[said])
    with pytest.raises(ValueError, match="content cannot"):
        await store.add_thread_item("t", answer, ALICE)
    assert await reading.export(store, ALICE) == before


# --- copies ---


async def test_what_was_passed_in_may_be_changed_afterwards(store: Store) -> None:
    saved, item, attachment = thread(), message("a"), file("f")
    await store.save_thread(saved, ALICE)
    await store.add_thread_item("t", item, ALICE)
    await store.save_attachment(attachment, ALICE)
    before = await reading.export(store, ALICE)
    saved.title, attachment.name = "Changed", "changed.txt"
    saved.metadata["new"] = 1
    item.content.append(AssistantMessageContent(text="changed"))
    assert await reading.export(store, ALICE) == before


async def test_what_came_back_may_be_changed(store: Store) -> None:
    await store.save_thread(thread(), ALICE)
    await store.add_thread_item("t", message("a"), ALICE)
    await store.save_attachment(file("f"), ALICE)
    await store.save_feedback("t", ["a"], "positive", ALICE)
    before = await reading.export(store, ALICE)
    page = await store.load_thread_items("t", None, 9, "asc", ALICE)
    for record in (
        await store.load_thread("t", ALICE),
        await store.load_item("t", "a", ALICE),
        await store.load_attachment("f", ALICE),
        *page.data,
        *(await store.load_threads(9, None, "asc", ALICE)).data,
        *(await store.load_attachments(None, ALICE)),
    ):
        record.id = "changed"
    page.data.clear()
    (await store.load_feedback("t", ALICE)).clear()
    assert await reading.export(store, ALICE) == before


async def test_saving_does_not_change_what_was_passed_in(store: Store) -> None:
    await store.save_thread(thread(), ALICE)
    item = message("a", thread_id="other")
    await store.add_thread_item("t", item, ALICE)
    assert item == message("a", thread_id="other")


# --- what cannot be stored ---


@HALF_EMOJI
async def test_a_lone_surrogate_in_a_thread_is_refused_by_name(store: Store, bad: str) -> None:
    await store.save_thread(thread(), ALICE)
    before = await reading.export(store, ALICE)
    title, value, key, deep_key = thread(title=bad), thread(), thread(), thread()
    value.metadata = {"a": [1, {"deep": bad}]}
    key.metadata = {bad: 1}  # pydantic would store it as another key
    deep_key.metadata = {"a": {bad: 1}}
    for refused, field in (
        (title, "title"),
        (value, "metadata"),
        (key, "metadata"),
        (deep_key, "metadata"),
    ):
        with pytest.raises(ValueError, match=field):
            await store.save_thread(refused, ALICE)
        new = refused.model_copy(update={"id": "new"})
        with pytest.raises(ValueError, match=field):
            await store.save_thread(new, ALICE)
    with pytest.raises(ValueError, match="title"):
        await store.set_title_if_unchanged("t", thread().title, bad, ALICE)
    assert await reading.export(store, ALICE) == before


@HALF_EMOJI
@pytest.mark.parametrize("method", ["add_thread_item", "save_item"])
async def test_a_lone_surrogate_in_an_item_is_refused_by_name(
    store: Store, bad: str, method: str
) -> None:
    await store.save_thread(thread(), ALICE)
    await store.add_thread_item("t", message("a"), ALICE)
    before = await reading.export(store, ALICE)
    for item_id in ("a", "new"):
        text, hidden = message(item_id, bad), HiddenContextItem(id=item_id, **BASE, content=[bad])
        for refused in (text, hidden):
            with pytest.raises(ValueError, match="content"):
                await getattr(store, method)("t", refused, ALICE)
    assert await reading.export(store, ALICE) == before


@HALF_EMOJI
async def test_a_lone_surrogate_in_an_attachment_is_refused_by_name(store: Store, bad: str) -> None:
    await store.save_attachment(file("f"), ALICE)
    before = await reading.export(store, ALICE)
    for attachment_id in ("f", "new"):
        with pytest.raises(ValueError, match="name"):
            await store.save_attachment(file(attachment_id, name=bad), ALICE)
    assert await reading.export(store, ALICE) == before
