"""An app to talk to, tools for its assistant, and a model that calls them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from agents import RunContextWrapper
from agents.models.interface import Model
from agents.testing import ScriptedModel, assistant_message, function_call
from chatkit.agents import AgentContext
from chatkit.widgets import DynamicWidgetRoot as Widget

from app import assistant
from app.context import RequestContext
from app.offline import OfflineModel

from .serving import Caller, serving, settings_for

Chat = RunContextWrapper[AgentContext[RequestContext]]


@asynccontextmanager
async def talking(
    store_url: str, folder: Path, model: Model | None = None, **changes: Any
) -> AsyncIterator[Caller]:
    """Serve the app and return a browser."""
    settings = settings_for(store_url, folder, **changes)
    async with serving(settings, model or OfflineModel(0)) as app, app.caller() as caller:
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


def calls(name: str, *texts: str) -> ScriptedModel:
    """Return a model that calls a tool, then says each text in a turn of its own."""
    call = function_call(name, {}, call_id="call_1", item_id="fc_1")
    return ScriptedModel([[call], *[[assistant_message(text)] for text in texts]])
