"""What a turn has said so far, read from its events."""

from collections.abc import Callable, Iterator
from typing import Any, Literal

from chatkit.types import (
    AssistantMessageContent,
    AssistantMessageContentPartAdded,
    AssistantMessageContentPartAnnotationAdded,
    AssistantMessageContentPartDone,
    AssistantMessageContentPartTextDelta,
    AssistantMessageItem,
    ClientToolCallItem,
    GeneratedImageItem,
    GeneratedImageUpdated,
    ThreadItem,
    ThreadItemAddedEvent,
    ThreadItemDoneEvent,
    ThreadItemRemovedEvent,
    ThreadItemReplacedEvent,
    ThreadItemUpdatedEvent,
    ThreadStreamEvent,
    WidgetItem,
    WidgetRootUpdated,
    WidgetStreamingTextValueDelta,
    WorkflowItem,
    WorkflowTaskAdded,
    WorkflowTaskUpdated,
)


def keep(items: dict[str, ThreadItem], event: ThreadStreamEvent) -> None:
    """Bring `items` up to what the event says: each item as the user sees it now."""
    match event:
        case ThreadItemAddedEvent():
            items[event.item.id] = event.item.model_copy(deep=True)
        case ThreadItemDoneEvent() | ThreadItemReplacedEvent():
            items[event.item.id] = event.item
        case ThreadItemRemovedEvent():
            items.pop(event.item_id, None)
        case ThreadItemUpdatedEvent() if item := items.get(event.item_id):
            _update(item, event.update)


def _update(item: ThreadItem, update: object) -> None:  # noqa: C901 - one case a kind
    """Change an item as the page does."""
    match item, update:
        case AssistantMessageItem(), AssistantMessageContentPartTextDelta():
            _part(item, update.content_index).text += update.delta
        case AssistantMessageItem(), AssistantMessageContentPartAnnotationAdded():
            _part(item, update.content_index).annotations.append(update.annotation)
        case (
            AssistantMessageItem(),
            AssistantMessageContentPartAdded() | AssistantMessageContentPartDone(),
        ):
            noted = _part(item, update.content_index).annotations
            part = update.content.model_copy(deep=True)
            part.annotations = part.annotations or noted  # the SDK's "done" comes without them
            item.content[update.content_index] = part
        case WorkflowItem(), WorkflowTaskAdded():
            item.workflow.tasks.append(update.task)
        case WorkflowItem(), WorkflowTaskUpdated():
            item.workflow.tasks[update.task_index] = update.task
        case WidgetItem(), WidgetRootUpdated():
            item.widget = update.widget.model_copy(deep=True)
        case WidgetItem(), WidgetStreamingTextValueDelta():
            for component in _components(item.widget):
                if component.id == update.component_id:
                    component.value += update.delta
        case GeneratedImageItem(), GeneratedImageUpdated():
            item.image = update.image


def _part(item: AssistantMessageItem, index: int) -> AssistantMessageContent:
    """Return a part of a message; deltas may come before it was announced."""
    while len(item.content) <= index:
        item.content.append(AssistantMessageContent(text=""))
    return item.content[index]


def _components(component: Any) -> Iterator[Any]:
    """Return a widget's component and all within it."""
    yield component
    children = getattr(component, "children", None) or []
    for child in children if isinstance(children, list) else [children]:
        yield from _components(child)


def has_content(item: ThreadItem) -> bool:
    """Say whether an unfinished item shows anything: an empty message or image is not kept."""
    match item:
        case AssistantMessageItem():
            return any(part.text.strip() for part in item.content)
        case GeneratedImageItem():
            return item.image is not None
        case _:
            return True


class OwnIds:
    """Gives the model's items ids of the store's: many servers call all theirs `__fake_id__`."""

    def __init__(self, new_id: Callable[[Literal["message", "tool_call"]], str]) -> None:
        """Take ids from `new_id`."""
        self._new_id = new_id
        self._open: dict[str, str] = {}
        self._given: dict[str, list[str]] = {}

    def own(self, event: ThreadStreamEvent) -> list[ThreadStreamEvent]:
        """Return the event with the item's own id, the same in every event of one item."""
        match event:
            case ThreadItemAddedEvent(item=AssistantMessageItem() as item):
                new = self._open[item.id] = self._new(item.id)
            case ThreadItemDoneEvent(item=AssistantMessageItem() as item):
                new = self._open.pop(item.id, "") or self._new(item.id)
            case ThreadItemDoneEvent(item=ClientToolCallItem() as item):
                new = self._new_id("tool_call")
            case ThreadItemUpdatedEvent() if event.item_id in self._open:
                return [event.model_copy(update={"item_id": self._open[event.item_id]})]
            case ThreadItemRemovedEvent():
                given = self._given.pop(event.item_id, [event.item_id])
                return [ThreadItemRemovedEvent(item_id=own) for own in given]
            case _:
                return [event]
        return [event.model_copy(update={"item": item.model_copy(update={"id": new})})]

    def _new(self, model_id: str) -> str:
        new = self._new_id("message")
        self._given.setdefault(model_id, []).append(new)
        return new
