"""Tools that are not functions of the app: those of an MCP server, and other agents."""

import asyncio
from pathlib import Path

import pytest
from agents import Agent
from agents.mcp import MCPServerStdio
from agents.testing import ScriptedModel, assistant_message, function_call
from mcp.types import CallToolResult, ImageContent, TextContent, Tool

from .serving import text_of, thread_of
from .talking import agent_with, calls, talking, tools

pytestmark = pytest.mark.anyio


class Shop(MCPServerStdio):
    """An MCP server without its process."""

    def __init__(self) -> None:
        super().__init__({"command": "none"})

    async def list_tools(self, *_: object) -> list[Tool]:
        return [
            Tool(name=name, input_schema={"type": "object"}) for name in ("look", "fail", "hang")
        ]

    async def call_tool(self, tool_name: str, *_: object, **__: object) -> CallToolResult:
        if tool_name == "hang":
            await asyncio.sleep(9)
        if tool_name == "fail":
            raise RuntimeError("password=hunter2")
        picture = ImageContent(type="image", data="QUJD" * 99, mime_type="image/png")
        return CallToolResult(content=[TextContent(type="text", text="A chair:"), picture])


@pytest.mark.parametrize(("name", "what"), [("fail", "failed"), ("hang", "took too long")])
async def test_a_tool_of_an_mcp_server_ends_with_a_sentence(
    store_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    what: str,
) -> None:
    """Like a tool of the app, though it is made anew for each step; two at once as well."""
    agent_with(monkeypatch, mcp_servers=[Shop()])
    both = [function_call(name, {}, call_id=each, item_id=each) for each in "ab"]
    model = ScriptedModel([both, [assistant_message("Sorry.")]])
    async with talking(store_url, tmp_path, model, tool_seconds=0.1) as caller:
        events = await caller.say("go")
    notices = [event["message"] for event in events if event["type"] == "notice"]
    assert [text.partition(" (")[0] for text in notices] == [f"The tool {name} {what}."] * 2
    assert text_of(events) == "Sorry."
    assert "hunter2" not in str(events) + str([call.input for call in model.calls])


async def test_the_bytes_of_a_picture_from_an_mcp_server_are_not_remembered(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model sees it once; later turns hear that there was one."""
    agent_with(monkeypatch, mcp_servers=[Shop()])
    model = calls("look", "Nice.", "Yes.")
    async with talking(store_url, tmp_path, model) as caller:
        thread = thread_of(await caller.say("look"))
        await caller.say("sure?", thread)
    seen, later = (str(call.input) for call in model.calls[1:])
    assert "QUJD" in seen
    assert "QUJD" not in later
    assert "A chair:\\n(a file, shown to you at that time)" in later


async def test_an_agent_as_a_tool_that_fails_ends_with_a_sentence(
    store_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The log has the cause, which the SDK would keep to itself."""
    inner = Agent("Inner", model=ScriptedModel([RuntimeError("hunter2")]))
    tools(monkeypatch, inner.as_tool("helper", "Help."))
    model = calls("helper", "Sorry.", input="x")
    async with talking(store_url, tmp_path, model) as caller:
        events = await caller.say("go")
    (notice,) = [event["message"] for event in events if event["type"] == "notice"]
    assert notice.startswith("The tool helper failed. (request ")
    assert text_of(events) == "Sorry."
    assert "hunter2" in caplog.text
    assert "hunter2" not in str(events)


async def test_only_the_assistant_must_call_the_chosen_tool(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Servers refuse a choice of tool from an agent that does not have the tool."""
    model = calls("helper", "Helped.", "Done.", input="x")
    tools(monkeypatch, Agent("Inner", model=model).as_tool("helper", "Help."))
    async with talking(store_url, tmp_path, model, allowed_tools=["helper"]) as caller:
        choice = {"tool_choice": {"id": "helper"}}
        assert text_of(await caller.say("go", inference_options=choice)) == "Done."
    assert [call.model_settings.tool_choice for call in model.calls] == ["helper", None, None]
