"""Tools over HTTP: those that fail, and what later turns know of those that ran."""

import time
from dataclasses import replace
from pathlib import Path

import pytest
from agents import (
    Agent,
    GuardrailFunctionOutput,
    StopAtTools,
    ToolGuardrailFunctionOutput,
    ToolInputGuardrailData,
    function_tool,
    input_guardrail,
    output_guardrail,
    tool_input_guardrail,
)
from agents.testing import ScriptedModel, assistant_message, function_call
from chatkit import types as t
from chatkit.agents import AgentContext, ClientToolCall

from app.context import RequestContext
from app.failures import RETRY
from app.offline import DEMO, OfflineModel

from .model_server import Call, model_server
from .serving import text_of, thread_of
from .talking import Chat, agent_with, asking, calls, hang, talking, tools

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("error", [RuntimeError, SystemExit])
async def test_a_tool_that_raises_ends_with_a_sentence(
    store_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: type[BaseException],
) -> None:
    """The user sees that it failed and the request's id, never the cause; the log has that."""

    @function_tool
    async def broken(ctx: Chat) -> str:
        """Fail."""
        raise error("password=hunter2")

    tools(monkeypatch, broken)
    model = calls("broken", "Sorry.", "Yes?")
    async with talking(store_url, tmp_path, model) as caller:
        events = await caller.say("go")
        assert text_of(await caller.say("on", thread_of(events))) == "Yes?"
    notice = next(event for event in events if event["type"] == "notice")
    assert notice["message"].startswith("The tool broken failed. (request ")
    assert text_of(events) == "Sorry."
    assert "hunter2" not in str(events) + str([call.input for call in model.calls])
    assert "hunter2" in caplog.text


@pytest.mark.parametrize("kind", ["async", "thread", "another agent's"])
async def test_a_tool_that_hangs_ends_with_a_sentence(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """After TOOL_SECONDS the model goes on without it, whichever way the tool is written."""

    @function_tool(name_override="slow")
    async def slow_async(ctx: Chat) -> None:
        """Hang."""
        await hang()

    @function_tool(name_override="slow")
    def slow_thread(ctx: Chat) -> None:
        """Hang."""
        time.sleep(0.4)

    tools(monkeypatch, slow_thread if kind == "thread" else slow_async)
    names = ["transfer_to_other", "slow"] if kind == "another agent's" else ["slow"]
    steps = [[function_call(name, {}, call_id=name, item_id=name)] for name in names]
    model = ScriptedModel([*steps, [assistant_message("Sorry.")]])
    other = Agent[AgentContext[RequestContext]]("Other", model=model, tools=[slow_async])
    agent_with(monkeypatch, handoffs=[other])
    async with talking(store_url, tmp_path) as caller:  # an earlier app gave the tool more time
        await caller.say("hello")
    async with talking(store_url, tmp_path, model, tool_seconds=0.1) as caller:
        events = await caller.say("go")
    notice = next(event for event in events if event["type"] == "notice")
    assert notice["message"].startswith("The tool slow took too long.")
    assert text_of(events) == "Sorry."


async def test_a_hand_off_can_be_tried_without_a_key(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A word in `DEMO` can lead to another agent, as it can to a tool."""
    monkeypatch.setitem(DEMO, "refund", ("transfer_to_billing", {}))
    other = Agent[AgentContext[RequestContext]]("Billing", model=OfflineModel(0))
    agent_with(monkeypatch, handoffs=[other])
    async with talking(store_url, tmp_path) as caller:
        assert '"Billing"' in text_of(await caller.say("A refund, please"))


@pytest.mark.parametrize(
    "wrong", [({"order": "0"}, "There is no order 0."), ({}, "Invalid JSON input")]
)
async def test_a_wrong_argument_goes_back_to_the_model(
    store_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    wrong: tuple[dict[str, str], str],
) -> None:
    """The model is told and can do better; there is no notice, but the log names the tool."""
    arguments, told = wrong

    @function_tool
    async def cancel(ctx: Chat, order: str) -> None:
        """Find nothing to cancel."""
        raise ValueError(f"There is no order {order}.")

    tools(monkeypatch, cancel)
    model = calls("cancel", "Which order?", **arguments)
    async with talking(store_url, tmp_path, model) as caller:
        events = await caller.say("go")
    assert not [event for event in events if event["type"] == "notice"]
    assert model.last_call
    assert told in model.last_call.input[-1]["output"]
    assert "not call it again" not in model.last_call.input[-1]["output"]
    (record,) = [record for record in caplog.records if record.name == "app.failures"]
    assert (record.levelname, record.message) == ("WARNING", "tool cancel refused")


@pytest.mark.parametrize("fault", ["hangs", "exits"])
async def test_the_tools_of_an_agent_that_is_a_tool_are_bounded(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """The inner agent is told, and answers; the user sees which tool it was."""

    @function_tool
    async def broken(ctx: Chat) -> None:
        """Do not come back."""
        if fault == "exits":
            raise SystemExit
        await hang()

    steps = [[function_call(name, {"input": "go"}, call_id=name)] for name in ("ask", "broken")]
    model = ScriptedModel([*steps, [assistant_message("I cannot.")], [assistant_message("Sorry.")]])
    inner = Agent[AgentContext[RequestContext]]("Inner", model=model, tools=[broken])
    asked = inner.as_tool("ask", "Ask.")
    asked.timeout_seconds = 9
    tools(monkeypatch, asked)
    async with talking(store_url, tmp_path, model, tool_seconds=0.1) as caller:
        events = await caller.say("go")
    (notice,) = [event["message"] for event in events if event["type"] == "notice"]
    assert notice.startswith("The tool broken ")
    assert text_of(events) == "Sorry."
    assert model.last_call
    assert model.last_call.input[-1]["output"] == "I cannot."


async def test_a_tool_that_does_not_exist_is_the_models_mistake(
    store_url: str, tmp_path: Path
) -> None:
    """The model is told, and answers."""
    async with talking(store_url, tmp_path, calls("imagined", "I cannot.")) as caller:
        assert text_of(await caller.say("go")) == "I cannot."


# --- what later turns are given ---


@function_tool
async def mail(ctx: Chat) -> str:
    """Send a mail, and report it in many events."""
    for step in range(20):
        await ctx.context.stream(t.ProgressUpdateEvent(text=f"step {step}"))
    return "SENT"


@function_tool
async def selection(ctx: Chat) -> str:
    """Ask the page."""
    ctx.context.client_tool_call = ClientToolCall(name="selection", arguments={})
    return "asked"


async def test_what_a_tool_did_is_remembered_even_if_its_turn_failed(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the model would send the mail again."""
    tools(monkeypatch, mail)
    model = calls("mail", "Yes.")
    async with talking(store_url, tmp_path, model, max_turns=1) as caller:
        events = await caller.say("send it")
        assert "too many steps" in events[-1]["message"]
        assert text_of(await caller.say("sent?", thread_of(events))) == "Yes."
    assert model.last_call
    assert "SENT" in str(model.last_call.input)


async def test_a_tool_called_beside_one_of_the_pages_is_remembered(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page's own call is an item already, so it is not remembered twice."""
    tools(monkeypatch, selection, mail)
    names = ("selection", "mail")
    both = [function_call(name, {}, call_id=f"c_{name}", item_id=f"f_{name}") for name in names]
    model = ScriptedModel([both, [assistant_message("Asked.")], [assistant_message("Yes.")]])
    async with talking(store_url, tmp_path, model) as caller:
        thread = thread_of(await caller.say("go"))
        await caller.say("sent?", thread)
    assert model.last_call
    assert str(model.last_call.input).count("'SENT'") == 1
    assert "'asked'" not in str(model.last_call.input)


async def test_the_chosen_model_goes_on_with_what_the_page_answers(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page sends an output without the composer's choices; the message has them."""
    tools(monkeypatch, selection)
    agent_with(monkeypatch, tool_use_behavior=StopAtTools(stop_at_tool_names=["selection"]))
    with model_server(Call("selection"), "Thanks.") as server:
        async with asking(store_url, tmp_path, server, allowed_models=["gpt-other"]) as caller:
            events = await caller.say("go", inference_options={"model": "gpt-other"})
            output = {"thread_id": thread_of(events), "result": {"picked": 1}}
            answer = await caller.answer("threads.add_client_tool_output", **output)
    assert text_of(answer) == "Thanks."
    assert [request["model"] for request in server.given] == ["gpt-other"] * 2


async def test_a_tool_call_without_a_word_after_it_is_no_answer(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What only the model sees does not count as an answer."""
    tools(monkeypatch, mail)
    async with talking(store_url, tmp_path, calls("mail", "")) as caller:
        events = await caller.say("send it")
    assert "gave no answer" in events[-1]["message"]


async def test_a_guardrail_on_the_answer_removes_what_a_tool_said(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next turn must not be given what the guardrail held back."""

    @output_guardrail
    async def nothing_goes_out(*_: object) -> GuardrailFunctionOutput:
        return GuardrailFunctionOutput(output_info=None, tripwire_triggered=True)

    agent_with(monkeypatch, output_guardrails=[nothing_goes_out])
    tools(monkeypatch, mail)
    model = calls("mail", "It was SENT.", "Hm.")
    async with talking(store_url, tmp_path, model) as caller:
        events = await caller.say("send it")
        assert "That cannot be answered here." in events[-1]["message"]
        await caller.say("and?", thread_of(events))
    assert model.last_call
    assert "SENT" not in str(model.last_call.input)


async def test_a_guardrails_own_words_offer_no_button(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever they end with; and TITLE_MODEL is not given what was refused."""
    named: list[object] = []

    @input_guardrail
    async def closed(*_: object) -> GuardrailFunctionOutput:
        return GuardrailFunctionOutput("We are closed. " + RETRY, tripwire_triggered=True)

    agent_with(monkeypatch, input_guardrails=[closed])
    monkeypatch.setattr("app.server.title_by_model", lambda *parts: named.append(parts))
    async with talking(store_url, tmp_path, title_model="titles") as caller:
        events = await caller.say("open?")
    assert not named
    assert events[-1]["message"].startswith(f"We are closed. {RETRY} (request ")
    assert not events[-1]["allow_retry"]


async def test_a_tool_that_a_guardrail_forbids_ends_with_a_sentence(
    store_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """This is as it should be, so the log has no error."""

    @tool_input_guardrail
    def nothing_goes_out(_: ToolInputGuardrailData) -> ToolGuardrailFunctionOutput:
        return ToolGuardrailFunctionOutput.raise_exception()

    tools(monkeypatch, replace(mail, tool_input_guardrails=[nothing_goes_out]))
    async with talking(store_url, tmp_path, calls("mail")) as caller:
        events = await caller.say("send it")
    assert events[-1]["message"].startswith("That cannot be done here.")
    assert "Traceback" not in caplog.text
