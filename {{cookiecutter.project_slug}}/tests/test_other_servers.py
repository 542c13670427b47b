"""Servers other than OpenAI's: what LiteLLM, llama.cpp and others send, or leave out."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from agents import function_tool

from . import model_server as servers
from .model_server import Call, Fault, model_server
from .serving import text_of, thread_of
from .talking import Chat, asking, card, tools

pytestmark = pytest.mark.anyio

Sent = Iterator[dict[str, Any]]


def sending(monkeypatch: pytest.MonkeyPatch, kind: str, change: Callable[[Sent], Sent]) -> None:
    """Let the server send its events of that kind with a change."""
    events = getattr(servers, kind)
    monkeypatch.setattr(servers, kind, lambda *step: change(events(*step)))


@function_tool
async def look(ctx: Chat) -> str:
    """Show a widget."""
    await ctx.context.stream_widget(card("Here it is."))
    return "shown"


@pytest.mark.parametrize("call_id", ["", None, "the same"])
async def test_calls_without_ids_of_their_own_are_all_made(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call_id: str | None
) -> None:
    """The SDK refuses an empty id, and one that comes twice."""

    def two(events: Sent) -> Sent:
        for event in events:
            delta = event["choices"][0]["delta"] if event["choices"] else {}
            if calls := delta.get("tool_calls"):
                calls[0]["id"] = call_id
                calls.append({**calls[0], "index": 1})
            yield event

    tools(monkeypatch, look)
    sending(monkeypatch, "chat_events", two)
    with model_server(Call("look"), "fine") as server:
        async with asking(store_url, tmp_path, server, model_api="chat_completions") as caller:
            events = await caller.say("go")
            items = await caller.items(thread_of(events))
    assert text_of(events).endswith("fine")
    kinds = [item["type"] for item in items]
    assert kinds == ["user_message", "widget", "widget", "assistant_message"]
    messages = server.given[-1]["messages"]
    made = [call["id"] for message in messages for call in message.get("tool_calls") or ()]
    assert len(set(made)) == len(made) == 2
    assert made == [each["tool_call_id"] for each in messages if each["role"] == "tool"]


async def test_null_for_no_choices_breaks_no_answer(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As some servers send it beside the usage."""

    def nothing(events: Sent) -> Sent:
        for event in events:
            yield event if event["choices"] else {**event, "choices": None}

    tools(monkeypatch)
    sending(monkeypatch, "chat_events", nothing)
    with model_server("fine") as server:
        settings = {"model_api": "chat_completions", "tokens_per_day": 1000}
        async with asking(store_url, tmp_path, server, **settings) as caller:
            events = await caller.say("go")
    assert (text_of(events), events[-1]["type"]) == ("fine", "thread.item.done")


async def test_a_thought_without_its_summarys_index_breaks_no_answer(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LiteLLM leaves it out where it makes a response of a chat completion."""
    item = {"type": "reasoning", "id": "rs_1", "summary": []}
    place = {"item_id": "rs_1", "output_index": 0, "sequence_number": 1}

    def thinking(events: Sent) -> Sent:
        yield next(events)
        yield {"type": "response.output_item.added", "item": item, **place}
        for word in ("let me ", "think"):
            yield {"type": "response.reasoning_summary_text.delta", "delta": word, **place}
        yield {"type": "response.output_item.done", "item": item, **place}
        yield from events

    tools(monkeypatch)
    sending(monkeypatch, "response_events", thinking)
    with model_server("fine words") as server:
        async with asking(store_url, tmp_path, server) as caller:
            events = await caller.say("go")
            _, thought, answer = await caller.items(thread_of(events))
    assert thought["workflow"]["tasks"][0]["content"] == "let me think"
    assert answer["content"][0]["text"] == text_of(events) == "fine words"


@pytest.mark.parametrize(
    "fault",
    [
        Fault(500, "image input is not supported"),
        Fault(400, "unsupported content[].type"),
        Fault(400, "tiny is not a multimodal model"),
    ],
)
async def test_a_model_that_cannot_read_a_file_says_so(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    """To try again would not help: the server refuses each turn that has the file."""
    tools(monkeypatch)
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)
    with model_server(fault, fault, fault) as server:
        async with asking(store_url, tmp_path, server, model_api="chat_completions") as caller:
            error = (await caller.say("go"))[-1]
    assert error["message"].startswith("The model cannot read this file.")
    assert not error["allow_retry"]
