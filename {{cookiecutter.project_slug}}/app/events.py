"""What a turn has said that is not stored yet, as the page shows it."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any, Literal

from chatkit import types as t
from chatkit.store import Store

from .context import RequestContext


@dataclass
class TurnState:
    """What the parts of a turn, which the SDK calls one by one, have to tell each other."""

    unsaved: dict[str, t.ThreadItem] = field(default_factory=dict)
    """What the page shows and the store does not have yet; what began first stands first."""
    said: set[str] = field(default_factory=set)
    """What the page was given as an answer, and still shows."""
    retried: str = ""
    """The item after which a retry answers anew."""
    replaced: list[t.ThreadItem] = field(default_factory=list)
    """What the retry removed, oldest first: it is put back if nothing comes in its place."""
    whole: bool = False
    """Whether all of the answer is stored: a later stop has nothing to add."""


TURN_STATE: ContextVar[TurnState] = ContextVar("turn_state")
"""Each turn runs in a task of its own, and so has a state of its own."""


async def kept(
    events: AsyncIterator[t.ThreadStreamEvent],
    store: Store[RequestContext],
    thread_id: str,
    context: RequestContext,
) -> AsyncIterator[t.ThreadStreamEvent]:
    """Yield the events, and keep their items in TURN_STATE until the SDK has stored them.

    What the user saw first takes its place in the thread first, though it may end later.
    """
    state = TURN_STATE.get()
    async for event in events:
        match event:
            case t.ThreadItemAddedEvent(item=item):
                state.unsaved[item.id] = item.model_copy(deep=True)
            case t.ThreadItemUpdatedEvent() if begun := state.unsaved.get(event.item_id):
                change(begun, event.update)
            case t.ThreadItemRemovedEvent():
                state.unsaved.pop(event.item_id, None)
                state.said.discard(event.item_id)
            case t.ThreadItemDoneEvent(item=item) | t.ThreadItemReplacedEvent(item=item):
                state.unsaved[item.id] = item
                if is_answer(item):
                    state.said.add(item.id)
                earlier = takewhile(lambda each: each is not item, [*state.unsaved.values()])
                for begun in filter(has_content, earlier):
                    await store.add_thread_item(thread_id, begun, context)
        yield event
        if isinstance(event, t.ThreadItemDoneEvent | t.ThreadItemReplacedEvent):
            del state.unsaved[event.item.id]  # the SDK stores it before it asks for more


async def rest(
    store: Store[RequestContext], thread_id: str, context: RequestContext
) -> AsyncIterator[t.ThreadStreamEvent]:
    """Store what an answer that broke off has left, or what stood there before a vain retry.

    Yields the events by which the page shows the same.
    """
    state = TURN_STATE.get()
    items = [*state.unsaved.values()]
    gone = [item for item in items if not has_content(item)]
    if state.retried and not state.said and not any(map(is_answer, items)):
        gone = [*items, *await behind(store, thread_id, state.retried, context)]
        items, state.whole = state.replaced, True
    for item in gone:
        await store.delete_thread_item(thread_id, item.id, context)
        yield t.ThreadItemRemovedEvent(item_id=item.id)
    for item in filter(has_content, items):
        await store.add_thread_item(thread_id, item, context)
        if not isinstance(item, t.HiddenContextItem):
            yield t.ThreadItemDoneEvent(item=item)


async def behind(
    store: Store[RequestContext], thread_id: str, item_id: str, context: RequestContext
) -> list[t.ThreadItem]:
    """Return what stands behind an item in its thread, oldest first."""
    items: list[t.ThreadItem] = []
    after, more = None, True
    while more:
        page = await store.load_thread_items(thread_id, after, 100, "desc", context)
        after, more = page.after, page.has_more
        for item in page.data:
            if item.id == item_id:
                return items[::-1]
            items.append(item)
    return items[::-1]


def change(item: t.ThreadItem, update: object) -> None:  # noqa: C901 - one case a kind
    """Apply an update to an item, as the page does."""
    match item, update:
        case t.AssistantMessageItem(), t.AssistantMessageContentPartTextDelta():
            _part(item, update.content_index).text += update.delta
        case t.AssistantMessageItem(), t.AssistantMessageContentPartAnnotationAdded():
            _part(item, update.content_index).annotations.append(update.annotation)
        case t.AssistantMessageItem(), t.AssistantMessageContentPartAdded():
            _part(item, update.content_index)
            item.content[update.content_index] = update.content.model_copy(deep=True)
        case t.AssistantMessageItem(), t.AssistantMessageContentPartDone():
            _part(item, update.content_index).text = update.content.text  # it brings no annotations
        case t.WorkflowItem(), t.WorkflowTaskAdded() | t.WorkflowTaskUpdated():
            item.workflow.tasks[update.task_index : update.task_index + 1] = [update.task]
        case t.WidgetItem(), t.WidgetRootUpdated():
            item.widget = update.widget.model_copy(deep=True)
        case t.WidgetItem(), t.WidgetStreamingTextValueDelta():
            for component in _components(item.widget):
                if component.id == update.component_id:
                    component.value += update.delta
        case t.GeneratedImageItem(), t.GeneratedImageUpdated():
            item.image = update.image


def _part(item: t.AssistantMessageItem, index: int) -> t.AssistantMessageContent:
    """Return a part of a message; its deltas may come before it is announced."""
    while len(item.content) <= index:
        item.content.append(t.AssistantMessageContent(text=""))
    return item.content[index]


def _components(component: Any) -> Iterator[Any]:
    """Return a widget's component and all within it."""
    yield component
    children = getattr(component, "children", None) or []
    for child in children if isinstance(children, list) else [children]:
        yield from _components(child)


def has_content(item: t.ThreadItem) -> bool:
    """Say whether an item shows anything: if not, an unfinished one is dropped."""
    match item:
        case t.AssistantMessageItem():
            return any(part.text.strip() for part in item.content)
        case t.GeneratedImageItem():
            return item.image is not None
        case t.WorkflowItem():
            return bool(item.workflow.tasks)
        case _:
            return True


def is_answer(item: t.ThreadItem) -> bool:
    """Say whether an item tells the user anything, as thoughts alone and hidden items do not."""
    thoughts = isinstance(item, t.WorkflowItem) and item.workflow.type == "reasoning"
    return has_content(item) and not thoughts and not isinstance(item, t.HiddenContextItem)


def mend(event: t.ThreadStreamEvent) -> t.ThreadStreamEvent:
    """Return the event with texts that can be stored: a server may send half an emoji."""
    match event:
        case t.ThreadItemUpdatedEvent(update=t.AssistantMessageContentPartTextDelta() as update):
            update.delta = _whole(update.delta)
        case t.ThreadItemUpdatedEvent(update=t.AssistantMessageContentPartDone() as update):
            update.content.text = _whole(update.content.text)
        case t.ThreadItemDoneEvent(item=t.AssistantMessageItem() as item):
            for part in item.content:
                part.text = _whole(part.text)
        case t.ThreadItemUpdatedEvent(
            update=t.WorkflowTaskAdded() | t.WorkflowTaskUpdated() as update
        ):
            update.task = _mended(update.task)
        case t.ThreadItemDoneEvent(item=t.WorkflowItem() as item):
            item.workflow.tasks = [*map(_mended, item.workflow.tasks)]
    return event


def _mended(task: t.Task) -> t.Task:
    if isinstance(task, t.ThoughtTask):
        return task.model_copy(update={"content": _whole(task.content)})
    return task


def _whole(text: str) -> str:
    """Return a text whose halves of emoji are joined, or replaced where one is missing."""
    if text.isascii():  # nearly always, and fast
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


class OwnIds:
    """Gives the model's items ids from the store: many servers call every item `__fake_id__`."""

    def __init__(self, new_id: Callable[[Literal["message", "tool_call"]], str]) -> None:
        """Take ids from `new_id`."""
        self._new_id = new_id
        self._given: dict[str, list[str]] = {}

    def own(self, event: t.ThreadStreamEvent) -> list[t.ThreadStreamEvent]:
        """Return the event under the store's id; removing a shared id removes several items."""
        match event:
            case t.ThreadItemAddedEvent(item=t.AssistantMessageItem() as item):
                new = self._new_id("message")
                self._given.setdefault(item.id, []).append(new)
            case t.ThreadItemDoneEvent(item=t.AssistantMessageItem() as item):
                new = self._given.get(item.id, [item.id])[-1]
            case t.ThreadItemDoneEvent(item=t.ClientToolCallItem() as item):
                new = self._new_id("tool_call")
            case t.ThreadItemUpdatedEvent() if given := self._given.get(event.item_id):
                return [event.model_copy(update={"item_id": given[-1]})]
            case t.ThreadItemRemovedEvent():
                removed = self._given.pop(event.item_id, [event.item_id])
                return [t.ThreadItemRemovedEvent(item_id=own) for own in removed]
            case _:
                return [event]
        return [event.model_copy(update={"item": item.model_copy(update={"id": new})})]
