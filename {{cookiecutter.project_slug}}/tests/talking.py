"""An app to talk to, tools for its assistant, and a model that calls them."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from agents import FunctionTool, RunContextWrapper, function_tool
from agents.models.interface import Model
from agents.testing import ScriptedModel, assistant_message, function_call
from chatkit.agents import AgentContext
from chatkit.widgets import DynamicWidgetRoot as Widget

from app import assistant
from app.context import RequestContext
from app.offline import OfflineModel

from .model_server import KEY, ModelServer
from .serving import Caller, serving, settings_for

Chat = RunContextWrapper[AgentContext[RequestContext]]


@asynccontextmanager
async def talking(
    store_url: str, folder: Path, model: Model | None = None, /, **changes: Any
) -> AsyncIterator[Caller]:
    """Serve the app with the given model, or the offline one without pauses; return a browser."""
    settings = settings_for(store_url, folder, **changes)
    async with serving(settings, model or OfflineModel(0)) as app, app.caller() as caller:
        yield caller


@asynccontextmanager
async def asking(
    store_url: str, folder: Path, server: ModelServer, **changes: Any
) -> AsyncIterator[Caller]:
    """Serve the app with a model server on loopback; return a browser."""
    known = {"openai_api_key": KEY, "openai_base_url": server.url}
    settings = settings_for(store_url, folder, **(known | changes))
    async with serving(settings) as app, app.caller() as caller:
        yield caller


def tools(monkeypatch: pytest.MonkeyPatch, *these: Any) -> None:
    """Give the assistant other tools."""
    monkeypatch.setattr(assistant, "TOOLS", list(these))


def agent_with(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    """Change the assistant's agent."""
    make = assistant.make_agent
    monkeypatch.setattr("app.main.make_agent", lambda *parts: make(*parts).clone(**changes))


def card(text: str) -> Widget:
    """Return a widget whose text may grow."""
    part = {"type": "Text", "id": "text", "value": text}
    return Widget.model_validate({"type": "Card", "children": [part]})


def delayed(
    monkeypatch: pytest.MonkeyPatch, owner: object, name: str, seconds: float
) -> asyncio.Event:
    """Delay a method's start by so many seconds; return an event that its first call sets."""
    method, called = getattr(owner, name), asyncio.Event()

    async def late(*args: Any, **kwargs: Any) -> Any:
        called.set()
        await asyncio.sleep(seconds)
        return await method(*args, **kwargs)

    monkeypatch.setattr(owner, name, late)
    return called


async def hang() -> None:
    """Never end."""
    await asyncio.Event().wait()


def widget_tool(*texts: str, end: Callable[[], Awaitable[object]] = hang) -> FunctionTool:
    """Return a tool `show` whose widget has one text after another, and then ends like this."""

    @function_tool
    async def show(ctx: Chat) -> None:
        """Show a widget that grows."""

        async def grow() -> AsyncGenerator[Widget, None]:
            for text in texts:
                yield card(text)
            await end()

        await ctx.context.stream_widget(grow())

    return show


def calls(name: str, *texts: str, **arguments: str) -> ScriptedModel:
    """Return a model that calls a tool, then says each text in a turn of its own."""
    call = function_call(name, arguments, call_id="call_1", item_id="fc_1")
    return ScriptedModel([[call], *[[assistant_message(text)] for text in texts]])
