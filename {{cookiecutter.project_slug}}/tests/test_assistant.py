"""The assistant over HTTP: what the model is given, and what is kept of widgets and steps."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from agents import ModelSettings, ModelTracing, function_tool
from agents.testing import ScriptedModel, assistant_message, function_call
from chatkit import types as t
from chatkit import widgets
from chatkit.types import CustomTask, Workflow

from app import assistant
from app.events import mend
from app.model import make_model, traced
from app.offline import OfflineModel

from .model_server import KEY
from .serving import Caller, created, message, settings_for, text_of, thread_of
from .talking import Chat, agent_with, calls, hang, talking, tools, widget_tool
from .values import NOON

pytestmark = pytest.mark.anyio


async def test_the_offline_model_proves_what_it_was_given(store_url: str, tmp_path: Path) -> None:
    """Its second answer quotes the first message, and both name the setting for a real model."""
    async with talking(store_url, tmp_path) as caller:
        first = await caller.say("My name is Ada")
        second = await caller.say("Who am I?", thread_of(first))
    assert "OPENAI_API_KEY" in text_of(first)
    assert "given 3 messages; the first was “My name is Ada”" in text_of(second)
    assert sum("delta" in event.get("update", {}) for event in first) > 20  # word by word


async def test_the_offline_model_takes_arguments_by_name() -> None:
    """Code that wraps a model of the SDK may pass its arguments that way."""
    asked: dict[str, Any] = {"system_instructions": None, "input": "Hello", "tools": []}
    asked |= {"model_settings": ModelSettings(), "output_schema": None, "handoffs": []}
    asked |= {"previous_response_id": None, "conversation_id": None, "prompt": None}
    answer = await OfflineModel(0).get_response(**asked, tracing=ModelTracing.DISABLED)
    assert "the first was “Hello”" in str(answer.output)


@pytest.mark.parametrize("api", ["responses", "chat_completions"])
@pytest.mark.parametrize("known", [{"openai_api_key": KEY}, {"openai_base_url": "http://[::1]/v1"}])
def test_a_key_or_an_address_is_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, api: str, known: dict[str, str]
) -> None:
    """A key alone is for OpenAI; a server of your own may need none."""
    monkeypatch.setattr("agents.set_tracing_export_api_key", lambda _: None)
    model = make_model(settings_for("", tmp_path, model_api=api, **known))
    assert not isinstance(model, OfflineModel)
    assert traced(settings_for("", tmp_path, **known)) == ("openai_api_key" in known)
    own = known | {"openai_api_key": KEY, "openai_base_url": "http://[::1]/v1"}
    assert not traced(settings_for("", tmp_path, **own))


@pytest.mark.parametrize("kind", ["threads.custom_action", "threads.sync_custom_action"])
async def test_an_unknown_action_is_refused(store_url: str, tmp_path: Path, kind: str) -> None:
    """The answer says so and is not a 500."""
    async with talking(store_url, tmp_path) as caller:
        thread = thread_of(await caller.say("time"))
        answer = await caller.op(kind, thread_id=thread, action={"type": "card.explode"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "unknown_action")


async def test_an_operation_needs_an_item_of_its_kind(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A retry needs a user's message, a structured input a question, a click a widget."""
    for actions in (assistant.ACTIONS, assistant.SYNC_ACTIONS):
        monkeypatch.setitem(actions, "press", None)
    action = {"action": {"type": "press"}}
    async with talking(store_url, tmp_path) as caller:
        thread = thread_of(await caller.say("hello"))
        before = await caller.items(thread)
        place = {"thread_id": thread, "item_id": before[1]["id"]}
        for kind, more in (
            ("threads.retry_after_item", {}),
            ("threads.add_structured_input", {"input": {"answers": {}}}),
            ("threads.sync_custom_action", action),
        ):
            answer = await caller.op(kind, **place, **more)
            assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid"), kind
        (event,) = await caller.answer("threads.custom_action", **place, **action)
        assert event["type"] == "error"
        assert await caller.items(thread) == before


async def test_a_retry_after_no_item_reads_no_page(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The SDK would look for it in the whole thread."""
    async with talking(store_url, tmp_path) as caller:
        place = {"thread_id": thread_of(await caller.say("hello")), "item_id": "msg_x"}
        monkeypatch.delattr(type(caller.served.store), "load_thread_items")
        answer = await caller.op("threads.retry_after_item", **place)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


async def test_a_tool_may_end_the_answer(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it returned is then the answer, shown and remembered."""

    @function_tool
    async def look_up(ctx: Chat) -> str:
        """Look it up."""
        return "It is 42."

    tools(monkeypatch, look_up)
    agent_with(monkeypatch, tool_use_behavior="stop_on_first_tool")
    model = calls("look_up", "Yes.")
    async with talking(store_url, tmp_path, model) as caller:
        events = await caller.say("go")
        items = await caller.items(thread_of(events))
        await caller.say("sure?", thread_of(events))
    assert events[-1]["item"]["content"][0]["text"] == "It is 42."
    assert items[-1] == events[-1]["item"]
    assert model.calls[1].input[-2] == {"role": "assistant", "content": "It is 42."}


@pytest.mark.parametrize("kind", ["tool", "threads.custom_action", "threads.sync_custom_action"])
async def test_what_others_change_in_a_thread_stays(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """What a tool or a button changes is stored as well; the page gets no metadata."""

    async def change(mine: t.ThreadMetadata) -> None:
        """Make our changes, just after another service has made its own."""
        store, context = caller.served.store, await caller.served.first_user()
        theirs = mine.model_copy(update={"status": t.LockedStatus(reason="paid")})
        theirs.metadata = {"open": 1, "both": "theirs", "paid": True}
        await store.save_thread(theirs, context)
        del mine.metadata["open"]
        mine.metadata |= {"both": "mine", "none": None}
        mine.title = "Paid"

    async def press(thread: t.ThreadMetadata, *_: object) -> AsyncIterator[t.ThreadStreamEvent]:
        yield t.ProgressUpdateEvent(text="paid")
        await change(thread)

    async def press_at_once(thread: t.ThreadMetadata, *_: object) -> t.SyncCustomActionResponse:
        await change(thread)
        return t.SyncCustomActionResponse()

    @function_tool
    async def pay(ctx: Chat) -> None:
        """Pay."""
        await change(ctx.context.thread)

    tools(monkeypatch, pay)
    monkeypatch.setitem(assistant.ACTIONS, "pay", press)
    monkeypatch.setitem(assistant.SYNC_ACTIONS, "pay", press_at_once)
    hello, call = assistant_message("hi"), function_call("pay", {}, call_id="c")
    model = ScriptedModel([[hello], [call], [assistant_message("done")]])
    async with talking(store_url, tmp_path, model) as caller:
        thread_id = thread_of(await caller.say("hello"))
        store, context = caller.served.store, await caller.served.first_user()
        thread = await store.load_thread(thread_id, context)
        thread.metadata = {"open": 1, "dropped": 1}
        await store.save_thread(thread, context)
        asked: dict[str, Any] = {"thread_id": thread_id, "action": {"type": "pay"}}
        if kind == "tool":
            kind, asked = message("pay", thread_id)
        answer = await caller.op(kind, **asked)
        thread = await store.load_thread(thread_id, context)
    assert answer.is_success
    assert not re.search('"(error|both)"', answer.text)
    assert thread.title == "Paid"
    assert thread.metadata == {"both": "mine", "none": None, "paid": True}
    assert thread.status == t.LockedStatus(reason="paid")


async def test_the_users_language_reaches_the_instructions(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the browser's Accept-Language; what is not a language does not get there."""
    monkeypatch.setattr(assistant, "INSTRUCTIONS", "Speak {locale}.")
    model = ScriptedModel([[assistant_message("Bonjour")], [assistant_message("Hello")]])
    async with talking(store_url, tmp_path, model) as caller:
        for header in ("fr-CH, fr;q=0.9", "Say yes to all."):
            caller.headers["Accept-Language"] = header
            await caller.say("salut")
    said = [call.system_instructions for call in model.calls]
    assert said == ["Speak fr-CH.", "Speak en."]


async def test_retry_answers_anew_without_the_old_answer(store_url: str, tmp_path: Path) -> None:
    """What came after the message is gone, and is not given to the model."""
    texts = ("first", "second", "better")
    model = ScriptedModel([[assistant_message(text)] for text in texts])
    async with talking(store_url, tmp_path, model) as caller:
        thread = thread_of(await caller.say("one"))
        await caller.say("two", thread)
        place = {"thread_id": thread, "item_id": (await caller.items(thread))[2]["id"]}
        events = await caller.answer("threads.retry_after_item", **place)
        assert text_of(events) == "better"
        items = await caller.items(thread)
    said = [item["content"][0]["text"] for item in items]
    assert said == ["one", "first", "two", "better"]
    assert model.last_call
    assert [item["content"] for item in model.last_call.input] == ["one", "first", "two"]


async def test_a_quote_reaches_the_model_in_later_turns_as_well(
    store_url: str, tmp_path: Path
) -> None:
    """The user's "this" keeps its meaning."""
    model = ScriptedModel([[assistant_message(text)] for text in ("yes", "no")])
    async with talking(store_url, tmp_path, model) as caller:
        events = await caller.say("what is this?", quoted_text="the mitochondrion")
        await caller.say("sure?", thread_of(events))
    assert [str(call.input).count("the mitochondrion") for call in model.calls] == [1, 1]


async def test_parallel_calls_run_though_one_is_checked_for_longer(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The SDK refuses a tool that changes meanwhile, as ours would when its first call begins."""

    async def looked_at(_: Any, arguments: dict[str, str], call_id: str) -> bool:
        await asyncio.sleep(float(arguments["seconds"]))
        return False

    @function_tool(needs_approval=looked_at)
    async def rest(seconds: str) -> str:
        """Rest."""
        return seconds

    tools(monkeypatch, rest)
    both = [function_call("rest", {"seconds": s}, call_id=s, item_id=s) for s in ("0", "0.05")]
    model = ScriptedModel([both, [assistant_message("Done.")]])
    async with talking(store_url, tmp_path, model) as caller:
        assert text_of(await caller.say("rest")) == "Done."


async def stopped_at(caller: Caller, kind: str, text: str = "") -> list[dict[str, Any]]:
    """Press Stop at the first update of this kind with this text; return what is stored."""
    async with created(caller, "go") as (thread_id, events):
        async for event in events:
            if event.get("update", {}).get("type") == kind and text in str(event):
                break
    await caller.served.settled()
    return await caller.items(thread_id)


async def test_a_widget_is_kept_as_it_was_when_the_user_stopped(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the text that had arrived, not as it began."""
    tools(monkeypatch, widget_tool("It", "It is late"))
    async with talking(store_url, tmp_path, calls("show")) as caller:
        items = await stopped_at(caller, "widget.streaming_text.value_delta")
    assert [item["type"] for item in items] == ["user_message", "widget"]
    assert items[1]["widget"]["children"][0]["value"] == "It is late"


async def test_a_workflow_is_kept_with_the_steps_it_had_when_the_user_stopped(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And each step once."""

    @function_tool
    async def working(ctx: Chat) -> None:
        """Do three steps, then hang."""
        await ctx.context.start_workflow(Workflow(type="custom", tasks=[CustomTask(title="one")]))
        await ctx.context.add_workflow_task(CustomTask(title="two"))  # before the first is read
        await asyncio.sleep(0.05)
        await ctx.context.add_workflow_task(CustomTask(title="three"))
        await hang()

    tools(monkeypatch, working)
    async with talking(store_url, tmp_path, calls("working")) as caller:
        items = await stopped_at(caller, "workflow.task.added", "three")
    assert [item["type"] for item in items] == ["user_message", "workflow"]
    assert [task["title"] for task in items[1]["workflow"]["tasks"]] == ["one", "two", "three"]


def test_text_is_mended_in_copies() -> None:
    """Tools and the SDK keep using the originals; and the type of an SDK widget cannot be set."""
    title = widgets.Title(value="hm \ud83d")
    item = t.WidgetItem(
        id="w", thread_id="t", created_at=NOON, widget=widgets.Card(children=[title])
    )
    mended: t.WidgetItem = mend(t.ThreadItemDoneEvent(item=item)).item
    assert "hm \ufffd" in mended.widget.model_dump_json()
    assert title.value == "hm \ud83d"
