"""What a turn has said that is not stored yet, as the page shows it."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any, TypeVar

from chatkit import actions
from chatkit import types as t
from chatkit.store import NotFoundError, Store, StoreItemType
from pydantic import BaseModel

from .context import RequestContext

Action = actions.Action[str, Any]
Events = AsyncIterator[t.ThreadStreamEvent]
Hidden = t.HiddenContextItem | t.SDKHiddenContextItem
T = TypeVar("T")
AWAY_SECONDS = 12.0
"""How long an answer's last words wait for an engine that restarts, or for its successor."""


@dataclass
class TurnState:
    """What the parts of a turn, which the SDK calls one by one, need to tell each other."""

    store: Store[RequestContext]
    context: RequestContext
    tool_seconds: float | None = None
    """The longest one tool may take; None: as long as it likes."""
    unsaved: dict[str, t.ThreadItem] = field(default_factory=dict)
    """What the page shows and the store does not have yet, in the order in which it began."""
    stored: dict[str, t.ThreadItem] = field(default_factory=dict)
    """What this turn has stored and not taken back."""
    replaced: list[t.ThreadItem] | None = None
    """What a retry removes, oldest first: it is put back if nothing takes its place."""
    cut: bool = False
    """Whether the model's server ended its newest answer early."""
    whole: bool = False
    """Whether the answer is whole, or the one before a retry still stands: a stop cuts nothing."""

    @property
    def answered(self) -> bool:
        """Say whether the user was told anything; hidden items and thoughts alone do not count."""
        items = [*self.unsaved.values(), *self.stored.values()]
        said = (item for item in items if has_content(item) and not isinstance(item, Hidden))
        return any(item.type != "workflow" or item.workflow.type != "reasoning" for item in said)

    async def keep(self, events: Events, thread: t.ThreadMetadata) -> Events:
        """Yield the events, and keep their items until the SDK has stored them.

        What the user saw first takes its place in the thread first, even if it ends later.
        What others change in the thread meanwhile stays.
        """
        known = thread.model_copy(deep=True)
        async for event in events:
            match event:
                case t.ThreadItemAddedEvent(item=item):
                    self.unsaved[item.id] = item.model_copy(deep=True)
                case t.ThreadItemUpdatedEvent() if begun := self.unsaved.get(event.item_id):
                    change(begun, event.update)
                case t.ThreadItemRemovedEvent():
                    self.unsaved.pop(event.item_id, None)
                    self.stored.pop(event.item_id, None)
                case t.ThreadItemDoneEvent(item=item) | t.ThreadItemReplacedEvent(item=item):
                    self.unsaved[item.id] = item
                    earlier = takewhile(lambda each: each is not item, [*self.unsaved.values()])
                    for begun in filter(has_content, earlier):
                        await self.store.add_thread_item(thread.id, begun, self.context)
            known = await self.merge(thread, known)
            yield event
            if isinstance(event, t.ThreadItemDoneEvent):  # the SDK has stored it by now
                self.stored[event.item.id] = self.unsaved.pop(event.item.id)
            elif isinstance(event, t.ThreadItemReplacedEvent):
                self.unsaved.pop(event.item.id)
        await self.merge(thread, known)

    async def merge(self, thread: t.ThreadMetadata, known: t.ThreadMetadata) -> t.ThreadMetadata:
        """Bring a thread up to date, except for its own changes since it was `known`; copy it."""
        if thread == known:  # else a tool changed it, and the SDK saves the whole of it
            return known
        now = await self.store.load_thread(thread.id, self.context)
        for name in ("title", "status", "allowed_image_domains"):
            if getattr(thread, name) == getattr(known, name):
                setattr(thread, name, getattr(now, name))
        old, new = known.metadata, thread.metadata
        ours = {k for k in old | new if (k in old, old.get(k)) != (k in new, new.get(k))}
        others = {k: v for k, v in now.metadata.items() if k not in ours}
        thread.metadata = others | {k: v for k, v in new.items() if k in ours}
        return thread.model_copy(deep=True)

    async def rest(self, thread_id: str) -> Events:
        """Store what an answer left unfinished, or what was there before a retry that gave nothing.

        Yields the events that make the page show the same.
        """
        items = [*self.unsaved.values()]
        gone = [item for item in [*self.stored.values(), *items] if not has_content(item)]
        if self.replaced is not None and not self.answered:
            gone, items, self.whole = [*self.stored.values(), *items], self.replaced, True
        for item in gone:
            await patiently(self.store.delete_thread_item, thread_id, item.id, self.context)
            self.stored.pop(item.id, None)
            yield t.ThreadItemRemovedEvent(item_id=item.id)
        for item in filter(has_content, items):
            await patiently(self.store.add_thread_item, thread_id, item, self.context)
            if not isinstance(item, Hidden):
                yield t.ThreadItemDoneEvent(item=item)
        self.unsaved, self.replaced = {}, None


TURN_STATE: ContextVar[TurnState] = ContextVar("turn_state")
"""Each turn runs in a task of its own, and so has a state of its own."""


async def patiently(call: Callable[..., Awaitable[T]], *args: Any) -> T:
    """Return what a store call returns; the call is repeated while the engine is away."""
    deadline = time.monotonic() + AWAY_SECONDS
    while True:
        try:
            return await call(*args)
        except (NotFoundError, ValueError):
            raise
        except Exception:
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(0.2)


def change(item: t.ThreadItem, update: object) -> None:
    """Apply an update to an item, as the page does."""
    match item, update:
        case t.AssistantMessageItem(), t.AssistantMessageContentPartTextDelta():
            _part(item, update.content_index).text += update.delta
        case t.AssistantMessageItem(), t.AssistantMessageContentPartAnnotationAdded():
            _part(item, update.content_index).annotations.append(update.annotation)
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
    """Yield a widget's component and all that it contains."""
    yield component
    children = getattr(component, "children", None) or []
    for child in children if isinstance(children, list) else [children]:
        yield from _components(child)


def has_content(item: t.ThreadItem) -> bool:
    """Say whether an item shows anything; an unfinished one that does not is dropped."""
    match item:
        case t.AssistantMessageItem():
            return any(part.text.strip() for part in item.content)
        case t.GeneratedImageItem():
            return item.image is not None
        case t.WorkflowItem():
            return bool(item.workflow.tasks)
    return True


async def storable(events: Events, new_id: Callable[[StoreItemType], str]) -> Events:
    """Yield the events with text that can be stored and ids of our own: servers repeat theirs."""
    given: dict[str, str] = {}
    async for told in events:
        event = mend(told)
        match event:
            case t.ThreadItemAddedEvent(item=t.AssistantMessageItem() as item):
                given[item.id] = new = new_id("message")
                item.id = new
            case t.ThreadItemDoneEvent(item=t.AssistantMessageItem() as item):
                item.id = given.get(item.id, item.id)
            case t.ThreadItemDoneEvent(item=t.ClientToolCallItem() as item):
                item.id = new_id("tool_call")
            case t.ThreadItemUpdatedEvent():
                event.item_id = given.get(event.item_id, event.item_id)
        yield event


def mend(value: Any) -> Any:
    """Return the value with halves of emoji joined; a lone half, as servers send, is replaced."""
    match value:
        case str() if not value.isascii():  # nearly all text is, and the check is fast
            return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        case list():
            return [*map(mend, value)]
        case BaseModel():
            mended = {name: whole for name, each in value if (whole := mend(each)) != each}
            return value.model_copy(update=mended) if mended else value
    return value
