"""The example: its tool, its widget and its buttons, over HTTP. Goes with `app/clock.py`."""

from pathlib import Path

import pytest

from .serving import thread_of
from .talking import talking

pytestmark = pytest.mark.anyio


async def test_the_tool_shows_progress_and_a_widget_that_grows(
    store_url: str, tmp_path: Path
) -> None:
    """First the progress, then the card with its text in pieces, then the answer."""
    async with talking(store_url, tmp_path) as caller:
        events = await caller.say("What time is it?")
        items = await caller.items(thread_of(events))
    kinds = [(event.get("update") or event)["type"] for event in events]
    order = ["progress_update", "widget.streaming_text.value_delta", "thread.item.done"]
    assert [kind for kind in dict.fromkeys(kinds) if kind in order] == [
        "thread.item.done",
        *order[:2],
    ]
    assert [item["type"] for item in items] == ["user_message", "widget", "assistant_message"]
    assert items[1]["widget"]["children"][0]["value"].endswith("in UTC")


async def test_buttons_change_the_widget_with_and_without_a_stream(
    store_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The button Again replaces the card, Close removes its buttons; a reload shows the same."""
    async with talking(store_url, tmp_path) as caller:
        thread = thread_of(await caller.say("time"))
        widget = (await caller.items(thread))[1]
        again = {"type": "clock.again", "payload": {"zone": "Europe/Paris"}}
        place = {"thread_id": thread, "item_id": widget["id"]}
        last = (await caller.answer("threads.custom_action", **place, action=again))[-1]
        assert last["type"] == "thread.item.replaced"
        assert last["item"]["widget"]["children"][0]["value"].endswith("Europe/Paris")
        close = {"type": "clock.close"}
        answer = await caller.op("threads.sync_custom_action", **place, action=close)
        assert len(answer.json()["updated_item"]["widget"]["children"]) == 1
        stored = (await caller.items(thread))[1]
        assert stored["id"] == widget["id"]
        assert stored["widget"] == answer.json()["updated_item"]["widget"]
        wrong = {"type": "clock.again", "payload": {"zone": ["no", "zone"]}}
        events = await caller.answer("threads.custom_action", **place, action=wrong)
        (error,) = [event for event in events if event["type"] == "error"]
        assert error["message"].startswith("That button cannot do this. Reload the page")
        assert "(request " in error["message"]
        assert (await caller.items(thread))[1] == stored
        answer = await caller.op("threads.sync_custom_action", thread_id=thread, action=close)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "action")
    refused = [vars(record) for record in caplog.records if record.message == "action refused"]
    assert [record["type"] for record in refused] == ["clock.again", "clock.close"]
    assert all("clock.py:" in record["place"] for record in refused)
