"""The example's widget: a clock that streams in, with two buttons. Delete it with its tool."""

from datetime import datetime
from zoneinfo import ZoneInfo

from chatkit import types as t
from chatkit.widgets import DynamicWidgetRoot as Widget

from .context import RequestContext
from .events import Action, Events


def read_clock(zone: str) -> str:
    """Return the time there; the model reads the text of a tool's ValueError and may try again."""
    try:
        return f"It is {datetime.now(ZoneInfo(zone)):%H:%M:%S} in {zone}"
    except (LookupError, OSError, ValueError):
        raise ValueError(f"There is no time zone {zone[:80]!r}.") from None


def clock(zone: str, text: str, *, closed: bool = False) -> Widget:
    """Return a card with the time and, unless it is closed, two buttons."""
    again = {"type": "clock.again", "payload": {"zone": zone}}
    close = {"type": "clock.close", "streaming": False}
    buttons = [
        {"type": "Button", "label": "Again", "onClickAction": again},
        {"type": "Button", "label": "Close", "onClickAction": close},
    ]
    parts = [{"type": "Text", "id": "time", "value": text}, {"type": "Row", "children": buttons}]
    return Widget.model_validate({"type": "Card", "children": parts[:1] if closed else parts})


async def clock_again(
    thread: t.ThreadMetadata, action: Action, sender: t.WidgetItem | None, context: RequestContext
) -> Events:
    """Answer the Again button with an event: the card shows the new time."""
    match sender, action.payload:
        case t.WidgetItem(), {"zone": str(zone)}:
            text = read_clock(zone)
            update = {"widget": clock(zone, text), "copy_text": text}
            yield t.ThreadItemReplacedEvent(item=sender.model_copy(update=update))
        case _:
            raise ValueError("clock.again is sent by the widget, with a zone")


async def clock_close(
    thread: t.ThreadMetadata, action: Action, sender: t.WidgetItem | None, context: RequestContext
) -> t.SyncCustomActionResponse:
    """Answer the Close button with the changed item: the card loses its buttons."""
    if sender is None:
        raise ValueError("clock.close is sent by the widget")
    widget = clock("", sender.copy_text or "", closed=True)
    return t.SyncCustomActionResponse(updated_item=sender.model_copy(update={"widget": widget}))
