"""Your assistant: its instructions, its tools, its actions. A team starts here."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

from agents import Agent, Model, RunContextWrapper, Tool, function_tool
from chatkit import types as t
from chatkit.actions import Action
from chatkit.agents import AgentContext
from chatkit.widgets import DynamicWidgetRoot as Widget

from .clock import clock, clock_again, clock_close, read_clock
from .context import RequestContext, locale_of
from .settings import Settings

INSTRUCTIONS = "You are a helpful, honest assistant. Be brief. The user's language is {locale}."

Chat = AgentContext[RequestContext]
Reply = TypeVar("Reply")
Handler = Callable[[t.ThreadMetadata, Action[str, Any], t.WidgetItem | None, RequestContext], Reply]
"""What a button calls: with its thread, its action and, if the page names it, its widget."""


@function_tool
async def current_time(ctx: RunContextWrapper[Chat], zone: str) -> str:
    """Show the user the time in an IANA time zone, such as Europe/Paris."""
    await ctx.context.stream(t.ProgressUpdateEvent(icon="clock", text=f"Reading the clock: {zone}"))
    text = read_clock(zone)

    async def grow() -> AsyncGenerator[Widget, None]:
        for end in (5, len(text)):
            yield clock(zone, text[:end])

    await ctx.context.stream_widget(grow(), copy_text=text)
    return f"{text}. The user sees it in a widget."


TOOLS: list[Tool] = [current_time]

ACTIONS: dict[str, Handler[AsyncIterator[t.ThreadStreamEvent]]] = {
    "clock.again": clock_again,
}
"""What buttons do, by the type of their action: the handler yields events."""

SYNC_ACTIONS: dict[str, Handler[Awaitable[t.SyncCustomActionResponse]]] = {
    "clock.close": clock_close,
}
"""The same for buttons with `streaming: False`: the handler returns the changed item."""


def make_agent(settings: Settings, model: Model) -> Agent[Chat]:
    """Return the agent that answers."""

    def instructions(ctx: RunContextWrapper[Chat], agent: Agent[Chat]) -> str:
        return INSTRUCTIONS.replace("{locale}", locale_of(ctx.context.request_context))

    return Agent(
        "Assistant",
        instructions=instructions,
        model=model,
        tools=TOOLS,
    )
