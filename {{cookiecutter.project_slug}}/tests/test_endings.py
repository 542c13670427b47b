"""How answers end: what is left open, comes out of order or breaks is stored as it was seen."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from agents import GuardrailFunctionOutput, function_tool, output_guardrail
from agents.testing import ScriptedModel, assistant_message, function_call
from chatkit import types as t
from openai.types.responses.response_reasoning_item import ResponseReasoningItem, Summary

from app import assistant, server

from .model_server import Cut, Fault, model_server
from .serving import Caller, Words, created, text_of, thread_of
from .talking import (
    Chat,
    agent_with,
    asking,
    calls,
    delayed,
    hang,
    talking,
    tools,
    widget_tool,
)
from .values import NOON

pytestmark = pytest.mark.anyio


async def texts(caller: Caller, thread_id: str) -> list[str]:
    """Return what is stored: the text of each message, and the kind of each other item."""
    items = await caller.items(thread_id)
    return [item["content"][0]["text"] if "content" in item else item["type"] for item in items]


async def fail() -> None:
    """Break off."""
    raise RuntimeError


@pytest.mark.parametrize("end", [fail, hang])
async def test_a_widget_that_its_tool_leaves_open_ends_as_it_was(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: Any
) -> None:
    """The page sees its end, and a reload shows it."""
    tools(monkeypatch, widget_tool("It", "It is late", end=end))
    async with talking(store_url, tmp_path, calls("show", "Sorry."), tool_seconds=0.2) as caller:
        events = await caller.say("go")
        items = await caller.items(thread_of(events))
    added = [e["item"]["id"] for e in events if e["type"] == "thread.item.added"]
    done = [e["item"]["id"] for e in events if e["type"] == "thread.item.done"]
    assert set(added) <= set(done)
    (widget,) = [item for item in items if item["type"] == "widget"]
    assert widget["widget"]["children"][0]["value"] == "It is late"


@pytest.mark.parametrize("fault", [Fault(400), Cut("")])
async def test_a_retry_that_fails_gives_the_answer_back(
    store_url: str, tmp_path: Path, fault: Fault | Cut
) -> None:
    """The SDK removes it first; the page gets it back before the error."""
    with model_server("good answer", fault, "better answer") as models:
        async with asking(store_url, tmp_path, models) as caller:
            thread_id = thread_of(await caller.say("go"))
            place = {"thread_id": thread_id, "item_id": (await caller.items(thread_id))[0]["id"]}
            seen = await caller.answer("threads.retry_after_item", **place)
            assert await texts(caller, thread_id) == ["go", "good answer"]
            again = await caller.answer("threads.retry_after_item", **place)
            assert text_of(again) == "better answer"
            assert await texts(caller, thread_id) == ["go", "better answer"]
    assert [event["type"] for event in seen][-2:] == ["thread.item.done", "error"]


@function_tool
async def look(ctx: Chat) -> str:
    """Look something up."""
    return "found"


@output_guardrail
async def tripped(ctx: Any, agent: Any, output: Any) -> GuardrailFunctionOutput:
    """Refuse what is bad."""
    return GuardrailFunctionOutput("no", tripwire_triggered="bad" in output)


def thought(text: str) -> ResponseReasoningItem:
    """Return what a model thinks before it answers."""
    summary = Summary(text=text, type="summary_text")
    return ResponseReasoningItem(id="rs_1", summary=[summary], type="reasoning")


@pytest.mark.parametrize(
    "again",
    [
        [[thought("hm"), function_call("look", {}, call_id="c", item_id="f")], RuntimeError("x")],
        [[assistant_message("a bad answer", item_id="m2")]],
        [[assistant_message("", item_id="m2")]],
        [[thought("hm")]],
    ],
    ids=["thinks, calls a tool and fails", "trips a guardrail", "is empty", "only thinks"],
)
async def test_a_retry_without_an_answer_leaves_everything_as_it_was(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again: list[Any]
) -> None:
    """Thoughts, calls and what a guardrail removed are no answer; the model is given none."""
    agent_with(monkeypatch, output_guardrails=[tripped])
    tools(monkeypatch, look)
    last = [assistant_message("fine", item_id="m3")]
    model = ScriptedModel([[assistant_message("good", item_id="m1")], *again, last])
    async with talking(store_url, tmp_path, model) as caller:
        thread_id = thread_of(await caller.say("go"))
        place = {"thread_id": thread_id, "item_id": (await caller.items(thread_id))[0]["id"]}
        seen = await caller.answer("threads.retry_after_item", **place)
        assert await texts(caller, thread_id) == ["go", "good"]
        await caller.say("and?", thread_id)
    assert seen[-1]["type"] == "error"
    shown = {event["item"]["id"] for event in seen if event["type"] == "thread.item.done"}
    gone = {event["item_id"] for event in seen if event["type"] == "thread.item.removed"}
    assert len(shown - gone) == 1
    assert model.last_call
    assert [item["content"] for item in model.last_call.input] == ["go", "good", "and?"]


@pytest.mark.parametrize("words", [0, 3])
async def test_a_stopped_retry_keeps_the_old_answer_until_a_word_has_come(
    store_url: str, tmp_path: Path, words: int
) -> None:
    """And the model hears of a stop only if something was cut short."""
    model = Words(2, 0)
    async with talking(store_url, tmp_path, model) as caller:
        thread_id = thread_of(await caller.say("go"))
        place = {"thread_id": thread_id, "item_id": (await caller.items(thread_id))[0]["id"]}
        model.count, model.delay = 200, 0.01 if words else 10
        async with caller.events("threads.retry_after_item", **place) as events:
            seen = [await anext(events)]
            while text_of(seen).count(" ") < words:
                seen.append(await anext(events))
        model.delay = 0
        await caller.say("and?", thread_id)
        stored = await texts(caller, thread_id)
    assert stored[1].startswith(text_of(seen) if words else "w0 w1")
    question, answer, told = [item["content"] for item in model.given[-1]]
    assert (question, answer) == ("go", stored[1])
    assert (told != "and?") == bool(words)


async def test_half_an_emoji_in_a_thought_loses_no_answer(store_url: str, tmp_path: Path) -> None:
    """Thoughts are streamed as well."""
    said = [thought("hm \ud83d"), assistant_message("fine", item_id="m")]
    async with talking(store_url, tmp_path, ScriptedModel([said])) as caller:
        thread_id = thread_of(await caller.say("go"))
        _, thinking, _ = await caller.items(thread_id)
    assert thinking["workflow"]["tasks"][0]["content"] == "hm �"


async def test_what_a_button_streamed_before_it_failed_stays(
    store_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As the page shows it; the log has the cause under the id that the user sees."""

    async def failing(thread: t.ThreadMetadata, *_: Any) -> AsyncIterator[t.ThreadStreamEvent]:
        base = {"thread_id": thread.id, "created_at": NOON}
        yield t.ThreadItemAddedEvent(item=t.AssistantMessageItem(id="m", **base, content=[]))
        part = t.AssistantMessageContentPartTextDelta(content_index=0, delta="half an")
        yield t.ThreadItemUpdatedEvent(item_id="m", update=part)
        raise RuntimeError

    monkeypatch.setitem(assistant.ACTIONS, "test.fail", failing)
    async with talking(store_url, tmp_path) as caller:
        thread_id = thread_of(await caller.say("go"))
        action = {"thread_id": thread_id, "action": {"type": "test.fail"}}
        events = await caller.answer("threads.custom_action", **action)
        assert (await texts(caller, thread_id))[2:] == ["half an"]
    record = next(record for record in caplog.records if record.message == "no answer")
    assert f"(request {vars(record)['request_id']})" in events[-1]["message"]


async def test_an_answer_whose_write_fails_for_a_while_is_stored(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine restarts, say: the user sees an error, and has the answer."""
    model = ScriptedModel([[assistant_message("fine", item_id="m")]])
    async with talking(store_url, tmp_path, model) as caller:
        store, add = caller.served.store, caller.served.store.add_thread_item
        refused: list[str] = []

        async def failing(thread_id: str, item: t.ThreadItem, context: Any) -> None:
            if item.type == "assistant_message" and len(refused) < 3:
                refused.append(item.id)
                raise OSError
            await add(thread_id, item, context)

        monkeypatch.setattr(store, "add_thread_item", failing)
        events = await caller.say("go")
        assert await texts(caller, thread_of(events)) == ["go", "fine"]
    assert (len(refused), events[-1]["type"]) == (3, "error")


async def test_a_widget_is_stored_to_its_end_when_the_run_fails_after_it(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its events are still queued when the model's turns are used up."""
    sizes = ("x" * size for size in range(1, 31))
    tools(monkeypatch, widget_tool(*sizes, end=lambda: asyncio.sleep(0)))
    async with talking(store_url, tmp_path, calls("show"), max_turns=1) as caller:
        events = await caller.say("go")
        _, widget = await caller.items(thread_of(events))
    assert events[-1]["type"] == "error"
    assert "progress_update" not in [event["type"] for event in events]
    assert widget["widget"]["children"][0]["value"] == "x" * 30


async def test_the_model_is_not_told_of_a_stop_after_the_answer(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a better title is looked for, the answer is already complete."""
    looking = delayed(monkeypatch, server, "title_by_model", 60)
    said = [assistant_message(text, item_id=text) for text in ("Whole.", "More.")]
    model = ScriptedModel([[said[0]], [said[1]]])
    async with talking(store_url, tmp_path, model, title_model="titles") as caller:
        async with created(caller, "go") as (thread_id, _):
            await looking.wait()
            assert (await caller.post(f"/threads/{thread_id}/stop")).json() == {"stopped": True}
        await caller.say("and?", thread_id)
    assert model.last_call
    assert [item["content"] for item in model.last_call.input] == ["go", "Whole.", "and?"]
