"""What the page shows of a thread's items, and what a user does with them."""

import json
from typing import Any

import pytest
from playwright.sync_api import Route, expect

from page.browsing import ABOUT, ASKED, PNG, Visitor, change_config, one_store, until

pytestmark = pytest.mark.product
PLACE = """(words, index) => {
  const range = new Range();
  range.setStart(words.firstChild, index);
  range.setEnd(words.firstChild, index + 1);
  return range.getBoundingClientRect().x;
}"""


@one_store
def test_what_an_answer_offers(ada: Visitor) -> None:
    """A thumb, and the same question answered again; a widget's buttons: `test_client.py`."""
    ada.open().say("What time is it?")
    ada.button("Good answer").click()
    expect(ada.button("Good answer")).to_have_attribute("aria-pressed", "true")
    ada.button("Answer again").click()
    expect(ada.button("Close")).to_be_visible()
    expect(ada.send).to_be_visible()
    expect(ada.messages).to_have_count(1)
    expect(ada.page.locator(".widget")).to_have_count(1)


@one_store
def test_all_that_the_protocol_may_send_is_shown(ada: Visitor) -> None:
    """Steps, sources, questions, notices, the browser's tools, an error with a second try."""
    source = {"source": {"type": "url", "title": "A book", "url": "https://x.example"}}
    part = {"type": "output_text", "text": "", "annotations": []}
    answer = {"type": "assistant_message", "id": "a", "content": [part], **ABOUT}
    other = answer | {"id": "b", "content": [part | {"text": "Another answer"}]}
    whole = part | {"text": "Half & whole", "annotations": [source]}
    card = {"type": "Card", "children": [], "status": {"text": "Sent"}}
    widget = {"type": "widget", "id": "c", "widget": card, **ABOUT}
    months = {"type": "multiple_choice", "options": [{"value": "May"}, {"value": "June"}]}
    inputs = [{"id": "m", "question": "When?", **months}, {"id": "p", "question": "Where?"}]
    flow = {"type": "custom", "tasks": [], "summary": {"title": "Thinking"}, "expanded": True}
    delta = {"type": "assistant_message.content_part.text_delta", "content_index": 0}
    stream = [
        {"type": "thread.created", "thread": {"id": "thr_1"}},
        {"type": "stream_options", "stream_options": {"allow_cancel": True}},
        {"type": "thread.item.done", "item": ASKED},
        {"type": "progress_update", "text": "Looking"},
        {"type": "thread.item.added", "item": {"type": "workflow", "id": "w", "workflow": flow}},
        update("w", type="workflow.task.added", task_index=0, task={"title": "First step"}),
        {"type": "thread.item.done", "item": widget},
        {
            "type": "thread.item.done",
            "item": {"type": "structured_input", "id": "q", "inputs": inputs, **ABOUT},
        },
        {"type": "thread.item.added", "item": answer},
        update("a", **delta, delta="Half "),
        update("a", **delta, delta="& whole"),
        {
            "type": "thread.item.done",
            "item": answer | {"content": [whole]},
        },
        {"type": "thread.item.done", "item": {"type": "end_of_turn", "id": "e"}},
        {"type": "notice", "level": "info", "message": "Half of your share is used."},
        {
            "type": "thread.item.done",
            "item": {
                "type": "client_tool_call",
                "id": "t",
                "status": "pending",
                "name": "get_time_zone",
                "arguments": {},
                **ABOUT,
            },
        },
    ]
    broken = [{"type": "error", "code": "custom", "message": "Too long.", "allow_retry": True}]
    answers = {
        "threads.list": {"data": [], "has_more": False},
        "threads.create": stream,
        "threads.add_client_tool_output": broken,
        "threads.retry_after_item": [{"type": "thread.item.done", "item": other}],
    }
    asked: list[dict[str, Any]] = []

    def reply(route: Route) -> None:
        asked.append(route.request.post_data_json)
        said = answers[asked[-1]["type"]]
        if isinstance(said, dict):
            route.fulfill(json=said)
        else:
            body = "".join(f": beat\n\ndata: {json.dumps(event)}\n\n" for event in said)
            route.fulfill(body=body, content_type="text/event-stream")

    ada.page.route("**/chatkit", reply)
    ada.open()
    ada.box.fill("Go")
    ada.send.click()
    expect(ada.status).to_contain_text("Too long.")
    expect(ada.page.get_by_text("Thinking")).to_be_visible()
    ada.page.get_by_text("Thinking").click()
    expect(ada.page.get_by_text("First step")).to_be_visible()
    expect(ada.page.get_by_text("Sent")).to_be_visible()
    expect(ada.page.get_by_text("Half & whole")).to_be_visible()
    expect(ada.page.get_by_text("When? – May – June")).to_be_visible()
    expect(ada.page.get_by_text("Where?", exact=True)).to_be_visible()
    expect(ada.page.get_by_text("Source: A book")).to_be_visible()
    assert asked[-1]["params"]["result"] == {"time_zone": "Europe/Lisbon"}
    ada.status.get_by_role("button", name="Try again").click()
    expect(ada.status).to_be_empty()
    assert asked[-1]["params"] == {"thread_id": "thr_1", "item_id": "u"}
    expect(ada.page.get_by_text("Another answer")).to_be_visible()
    expect(ada.page.get_by_text("Half & whole")).to_have_count(0)


def update(item_id: str, **change: object) -> dict[str, object]:
    """Return the event of a change to an item."""
    return {"type": "thread.item.updated", "item_id": item_id, "update": change}


@one_store
def test_each_line_has_a_direction_of_its_own(ada: Visitor) -> None:
    """Below a line that runs to the right, Hebrew still ends on the left."""
    ada.open_fed()
    ada.begin_fed()
    both = [{"type": "input_text", "text": "Hello!\nשלום!"}]
    ada.feed("thread.item.done", item=ASKED | {"id": "both", "content": both})
    words = ada.messages.last.locator(".text")
    assert words.evaluate(PLACE, 0) < words.evaluate(PLACE, 5)
    assert words.evaluate(PLACE, 7) > words.evaluate(PLACE, 11)


@one_store
def test_a_locked_chat_is_read_only(ada: Visitor) -> None:
    """It says why, and accepts nothing; the next one does."""
    ada.open().say("Hello")

    def lock(route: Route) -> None:
        if route.request.post_data_json["type"] != "threads.get_by_id":
            return route.fallback()
        thread = route.fetch().json() | {"status": {"type": "locked", "reason": "Under review."}}
        return route.fulfill(json=thread)

    ada.page.route("**/chatkit", lock)
    ada.page.reload()
    expect(ada.status).to_have_text("Under review.")
    expect(ada.box).to_be_disabled()
    expect(ada.send).to_be_disabled()
    ada.button("New chat").click()
    expect(ada.box).to_be_enabled()


@one_store
def test_with_finish_stop_is_a_request_of_its_own(ada: Visitor) -> None:
    """ON_DISCONNECT=finish lets an answer outlive its connection, so Stop has to say more."""
    change_config(ada.page, stopByRequest=True)
    ada.open().begin("Tell me much.")
    with ada.page.expect_response("**/threads/*/stop") as stopped:
        ada.button("Stop").click()
    assert stopped.value.ok


@one_store
def test_a_file_is_removed_before_it_is_sent(ada: Visitor) -> None:
    """What was taken out of the composer is not in the message, and a refused file says why."""
    ada.open()
    for name in ("kept.png", "removed.png"):
        ada.attach(name)
        expect(ada.button(f"Remove {name}")).to_be_visible()
        expect(ada.send).to_be_enabled()
    with ada.page.expect_request(lambda request: "attachments.delete" in (request.post_data or "")):
        ada.button("Remove removed.png").click()
    ada.attach("empty.png", data=b"")
    expect(ada.status).to_contain_text("empty")
    ada.say("One is left.")
    expect(ada.messages.get_by_role("img")).to_have_count(1)
    ada.forgive("400")


@one_store
def test_an_upload_shows_how_far_it_is(ada: Visitor) -> None:
    """Over a slow line, until the file is there."""
    ada.open()
    slow = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 200_000}
    ada.page.context.new_cdp_session(ada.page).send("Network.emulateNetworkConditions", slow)
    ada.attach("large.png", data=PNG + bytes(400_000))
    bar = ada.page.get_by_role("progressbar", name="Upload of large.png")
    until(ada.page, lambda: 0 < bar.evaluate("bar => bar.value") < 1)
    expect(bar).to_have_count(0)
    expect(ada.page.get_by_role("listitem").locator("img")).to_be_visible()


GIVE = """([kind, name, words]) => {
  const data = new DataTransfer();
  if (name) data.items.add(new File([Uint8Array.from(PNG)], name, { type: "image/png" }));
  if (words) data.setData("text/plain", words);
  const event = new (kind === "paste" ? ClipboardEvent : DragEvent)(kind,
    { clipboardData: data, dataTransfer: data, bubbles: true, cancelable: true });
  return !document.getElementById("text").dispatchEvent(event);
}""".replace("PNG", str(list(PNG)))
"""Drop or paste a file, words or both; return whether the page handled it."""


@one_store
def test_a_file_may_be_dropped_or_pasted(ada: Visitor) -> None:
    """Anywhere on the page; words are the browser's, and a disabled box takes no file."""
    ada.open()
    for kind in ("drop", "paste"):
        assert ada.page.evaluate(GIVE, [kind, f"{kind}.png", ""])
        row = ada.page.get_by_role("listitem").filter(has_text=f"{kind}.png")
        expect(row.locator("img")).to_be_visible()
        assert not ada.page.evaluate(GIVE, [kind, "", "words"])
        assert not ada.page.evaluate(GIVE, [kind, "cells.png", "1\t2"])
    ada.say("Two files.")
    expect(ada.messages.get_by_role("img")).to_have_count(2)
    ada.box.evaluate("text => text.disabled = true")
    for kind in ("dragover", "drop"):
        assert ada.page.evaluate(GIVE, [kind, "late.png", ""]), "the browser would open it"
    expect(ada.page.get_by_text("late.png")).to_have_count(0)
