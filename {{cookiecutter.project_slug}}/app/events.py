"""What a turn has said so far, read from its events."""

from collections.abc import Callable, Iterator
from typing import Any, Literal

from chatkit import types as t


def keep(items: dict[str, t.ThreadItem], event: t.ThreadStreamEvent) -> None:
    """Bring `items` up to what the event says: each item as the user sees it now."""
    match event:
        case t.ThreadItemAddedEvent():
            items[event.item.id] = event.item.model_copy(deep=True)
        case t.ThreadItemDoneEvent() | t.ThreadItemReplacedEvent():
            items[event.item.id] = event.item
        case t.ThreadItemRemovedEvent():
            items.pop(event.item_id, None)
        case t.ThreadItemUpdatedEvent() if item := items.get(event.item_id):
            update(item, event.update)


def update(item: t.ThreadItem, update: object) -> None:  # noqa: C901 - one case a kind
    """Change an item as the page does."""
    match item, update:
        case t.AssistantMessageItem(), t.AssistantMessageContentPartTextDelta():
            _part(item, update.content_index).text += update.delta
        case t.AssistantMessageItem(), t.AssistantMessageContentPartAnnotationAdded():
            _part(item, update.content_index).annotations.append(update.annotation)
        case t.AssistantMessageItem(), t.AssistantMessageContentPartAdded():
            _part(item, update.content_index)
            item.content[update.content_index] = update.content.model_copy(deep=True)
        case t.AssistantMessageItem(), t.AssistantMessageContentPartDone():
            _part(item, update.content_index).text = update.content.text  # it has no annotations
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
    """Return a part of a message; deltas may come before it was announced."""
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
    """Say whether an item shows anything: an unfinished one without is not kept."""
    match item:
        case t.AssistantMessageItem():
            return any(part.text.strip() for part in item.content)
        case t.GeneratedImageItem():
            return item.image is not None
        case t.HiddenContextItem():
            return False
        case _:
            return True


class OwnIds:
    """Gives the model's items ids of the store's: many servers call all theirs `__fake_id__`."""

    def __init__(self, new_id: Callable[[Literal["message", "tool_call"]], str]) -> None:
        """Take ids from `new_id`."""
        self._new_id = new_id
        self._open: dict[str, str] = {}
        self._given: dict[str, list[str]] = {}

    def own(self, event: t.ThreadStreamEvent) -> list[t.ThreadStreamEvent]:
        """Return the event with the item's own id, the same in every event of one item."""
        match event:
            case t.ThreadItemAddedEvent(item=t.AssistantMessageItem() as item):
                new = self._open[item.id] = self._new(item.id)
            case t.ThreadItemDoneEvent(item=t.AssistantMessageItem() as item):
                new = self._open.pop(item.id, "") or self._new(item.id)
            case t.ThreadItemDoneEvent(item=t.ClientToolCallItem() as item):
                new = self._new_id("tool_call")
            case t.ThreadItemUpdatedEvent() if event.item_id in self._open:
                return [event.model_copy(update={"item_id": self._open[event.item_id]})]
            case t.ThreadItemRemovedEvent():
                given = self._given.pop(event.item_id, [event.item_id])
                return [t.ThreadItemRemovedEvent(item_id=own) for own in given]
            case _:
                return [event]
        return [event.model_copy(update={"item": item.model_copy(update={"id": new})})]

    def _new(self, model_id: str) -> str:
        new = self._new_id("message")
        self._given.setdefault(model_id, []).append(new)
        return new
