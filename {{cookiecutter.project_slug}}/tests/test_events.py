"""What a turn keeps until it is stored: each kind of item, as the page shows it."""

from collections.abc import AsyncIterator

import pytest
from chatkit import types as t
from pydantic import BaseModel

from app.events import TurnState
from app.store import ChatStore as Store

from .talking import card
from .values import ALICE, BASE, NOON, thread

pytestmark = pytest.mark.anyio

Plain = dict[str, object]
EMPTY = t.AssistantMessageItem(id="m", **BASE, content=[])
FULL = EMPTY.model_copy(update={"content": [t.AssistantMessageContent(text="Let me look.")]})
WIDGET = t.WidgetItem(id="w", **BASE, widget=card("It is late"))
IMAGE = t.GeneratedImageItem(id="i", **BASE)
PICTURE = t.GeneratedImage(id="p", url="https://a.example/p")
PLAN = t.WorkflowItem(id="f", **BASE, workflow=t.Workflow(type="custom", tasks=[]))
DONE = t.Workflow(type="custom", tasks=[t.CustomTask(title="Look")])


def part(text: str) -> t.AssistantMessageContentPartTextDelta:
    """Return the update by which a message grows."""
    return t.AssistantMessageContentPartTextDelta(content_index=0, delta=text)


def plain(*values: BaseModel) -> list[Plain]:
    """Return plain data to compare: a stored widget comes back as one of the SDK's classes."""
    return [value.model_dump(exclude_none=True) for value in values]


async def left(
    store: Store, *events: t.ThreadStreamEvent
) -> tuple[TurnState, list[Plain], list[Plain]]:
    """Return the state of a turn of these events, what it sends at its end, and what is stored."""

    async def told() -> AsyncIterator[t.ThreadStreamEvent]:
        for event in events:
            yield event

    await store.save_thread(thread(), ALICE)
    state = TurnState(store, ALICE)
    async for event in state.keep(told(), thread()):
        if isinstance(event, t.ThreadItemDoneEvent):  # as the SDK does
            await store.add_thread_item("t", event.item, ALICE)
    ends = [event async for event in state.rest("t")]
    stored = await store.load_thread_items("t", None, 9, "asc", ALICE)
    return state, plain(*ends), plain(*stored.data)


@pytest.mark.parametrize(
    ("begun", "updates", "shown"),
    [
        (EMPTY, [part("Let me"), part(" look.")], {"content": FULL.content}),
        (WIDGET, [t.WidgetRootUpdated(widget=card("Later"))], {"widget": card("Later")}),
        (IMAGE, [t.GeneratedImageUpdated(image=PICTURE)], {"image": PICTURE}),
        (PLAN, [t.WorkflowTaskAdded(task_index=0, task=DONE.tasks[0])], {"workflow": DONE}),
    ],
)
async def test_what_is_left_open_is_kept_as_the_page_shows_it(
    store: Store, begun: t.ThreadItem, updates: list[t.ThreadItemUpdate], shown: dict[str, object]
) -> None:
    """Whatever kind of item it is; the event's own item is not changed."""
    sent = begun.model_copy(deep=True)
    grown = [t.ThreadItemUpdatedEvent(item_id=begun.id, update=update) for update in updates]
    state, ends, stored = await left(store, t.ThreadItemAddedEvent(item=sent), *grown)
    kept = begun.model_copy(update=shown)
    assert (ends, stored) == (plain(t.ThreadItemDoneEvent(item=kept)), plain(kept))
    assert not state.unsaved
    assert sent == begun


@pytest.mark.parametrize("begun", [EMPTY, IMAGE, PLAN])
async def test_what_shows_nothing_yet_is_taken_back(store: Store, begun: t.ThreadItem) -> None:
    """An empty bubble, a picture without its image, a plan without a task."""
    _, ends, stored = await left(store, t.ThreadItemAddedEvent(item=begun))
    assert (ends, stored) == (plain(t.ThreadItemRemovedEvent(item_id=begun.id)), [])


async def test_a_message_that_ended_blank_is_taken_back_once(store: Store) -> None:
    """Some models begin with a line break, then call a tool or say nothing."""
    blank = EMPTY.model_copy(update={"content": [t.AssistantMessageContent(text="\n\n")]})
    begun, done = t.ThreadItemAddedEvent(item=EMPTY), t.ThreadItemDoneEvent(item=blank)
    state, ends, stored = await left(store, begun, done)
    assert (ends, stored) == (plain(t.ThreadItemRemovedEvent(item_id="m")), [])
    assert [event async for event in state.rest("t")] == []


@pytest.mark.parametrize("item", [FULL, WIDGET, PLAN.model_copy(update={"workflow": DONE})])
async def test_what_has_ended_is_sent_once(store: Store, item: t.ThreadItem) -> None:
    """The SDK has stored it; nothing is left to do at the end."""
    begun, done = t.ThreadItemAddedEvent(item=item), t.ThreadItemDoneEvent(item=item)
    state, ends, stored = await left(store, begun, done)
    assert (ends, stored, state.answered) == ([], plain(item), True)


async def test_what_was_removed_does_not_come_back(store: Store) -> None:
    """Neither on the page nor in the store."""
    gone = t.ThreadItemRemovedEvent(item_id="w")
    state, ends, stored = await left(store, t.ThreadItemAddedEvent(item=WIDGET), gone)
    assert (ends, stored, state.answered) == ([], [], False)


async def test_what_began_first_is_stored_first(store: Store) -> None:
    """Even if a widget is done before the text above it, as the SDK reports of some."""
    _, _, stored = await left(
        store,
        t.ThreadItemAddedEvent(item=EMPTY),
        t.ThreadItemUpdatedEvent(item_id="m", update=part("Let me")),
        t.ThreadItemDoneEvent(item=WIDGET),
        t.ThreadItemDoneEvent(item=FULL),
    )
    assert stored == plain(FULL, WIDGET)


async def test_a_failed_retry_changes_only_what_follows_its_message(store: Store) -> None:
    """What was put back for the model alone is not shown to the user."""

    def told(name: str) -> t.SDKHiddenContextItem:
        return t.SDKHiddenContextItem(id=name, thread_id="t", created_at=NOON, content=name)

    async def events() -> AsyncIterator[t.ThreadStreamEvent]:
        yield t.ThreadItemReplacedEvent(item=told("older"))
        yield t.ThreadItemDoneEvent(item=told("by a tool"))

    await store.save_thread(thread(), ALICE)
    for name in ("older", "asked", "by a tool"):
        await store.add_thread_item("t", told(name), ALICE)
    state = TurnState(store, ALICE, replaced=[told("stopped")])
    assert [event async for event in state.keep(events(), thread())]
    (removed,) = [event async for event in state.rest("t")]
    assert removed == t.ThreadItemRemovedEvent(item_id="by a tool")
    stored = await store.load_thread_items("t", None, 9, "asc", ALICE)
    assert stored.data == [told("older"), told("asked"), told("stopped")]
