"""One turn of the assistant: from the thread's history to the events that the page sees."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import agents
from agents.tool_context import ToolContext
from chatkit import types as t
from chatkit.agents import stream_agent_response
from chatkit.errors import BaseStreamError
from chatkit.store import NotFoundError

from .assistant import Chat
from .attachments import Files
from .context import owner_of
from .events import TURN_STATE, Events, Hidden, mend, storable
from .failures import GUARDRAILS, NoAnswerError, bound, explain
from .history import REFUSED, Converter, length_given, length_of, load_history, tool_memory
from .limits import Limits
from .model import named, traced
from .settings import Settings

Queue = asyncio.Queue[t.ThreadStreamEvent | Exception | None]


async def run(
    chat: Chat, agent: agents.Agent[Chat], settings: Settings, files: Files, limits: Limits
) -> Events:
    """Answer the newest turn of the thread and count its tokens; the model stops with the caller.

    CustomStreamError is a sentence for the user; NotFoundError: the thread was deleted meanwhile.
    """
    context, state = chat.request_context, TURN_STATE.get()
    try:
        history = await load_history(chat, settings)
        converter = Converter(context, files.content_part, settings.max_attachments)
        given = await converter.convert(history)
        result = _start(agent, given, chat, _choices(history), settings)
        try:
            events = _events(chat, result, settings.turn_seconds)
            async for event in storable(events, chat.generate_id):
                yield event
        finally:
            said = [*state.stored.values(), *state.unsaved.values()]
            tokens = result.context_wrapper.usage.total_tokens  # a stopped call has none
            tokens = tokens or (length_given(given) + sum(map(length_of, said))) // 4
            limits.tokens.spend(owner_of(context), tokens)
    except (NotFoundError, BaseStreamError):
        raise
    except Exception as error:
        if isinstance(error, GUARDRAILS):
            for item_id in [*state.stored, *state.unsaved]:  # all that was said is taken back
                yield t.ThreadItemRemovedEvent(item_id=item_id)
        if isinstance(error, agents.InputGuardrailTripwireTriggered):
            yield t.ThreadItemDoneEvent(item=_hidden(chat, REFUSED))
        raise explain(error, chat) from error
    if state.cut:
        raise explain(agents.ModelBehaviorError("cut off"), chat)
    if state.answered:
        return
    newest: Any = result.new_items[-1] if result.new_items else None
    output = getattr(newest, "output", None)  # from a tool that ends the answer: StopAtTools
    if not output:
        raise explain(NoAnswerError(), chat)
    text = mend(tool_memory("", "", output)["output"])
    item = t.AssistantMessageItem(
        id=chat.generate_id("message"),
        thread_id=chat.thread.id,
        created_at=datetime.now(UTC),
        content=[t.AssistantMessageContent(text=text)],
    )
    yield t.ThreadItemDoneEvent(item=item)


def _choices(history: list[t.ThreadItem]) -> t.InferenceOptions:
    """Return what the user chose in the composer; after an output of the page, only the model."""
    asked = [item for item in history if isinstance(item, t.UserMessageItem)]
    shown = [item for item in history if not isinstance(item, Hidden)]
    chosen = asked[-1].inference_options if asked else t.InferenceOptions()
    return chosen if shown[-1:] == asked[-1:] else t.InferenceOptions(model=chosen.model)


def _start(
    agent: agents.Agent[Chat],
    given: list[agents.TResponseInputItem],
    chat: Chat,
    chosen: t.InferenceOptions,
    settings: Settings,
) -> agents.RunResultStreaming:
    """Start the model as the user chose; only `agent` gets the tool choice: others may lack it."""
    if chosen.tool_choice:
        choice = agents.ModelSettings(tool_choice=chosen.tool_choice.id)
        agent = agent.clone(model_settings=agent.model_settings.resolve(choice))
    return agents.Runner.run_streamed(
        agent,
        given,
        context=chat,
        max_turns=settings.max_turns,
        hooks=Tools(),
        run_config=agents.RunConfig(
            model=named(agent.model, chosen.model) if chosen.model else None,
            model_settings=agents.ModelSettings(include_usage=settings.tokens_per_day > 0 or None),
            group_id=chat.thread.id,
            tracing_disabled=not traced(settings),
            trace_include_sensitive_data=settings.trace_content,
            tool_not_found_behavior="return_error_to_model",
        ),
    )


async def _events(chat: Chat, result: agents.RunResultStreaming, seconds: float) -> Events:
    """Yield the run's events; stop the model when this ends, is cancelled or takes too long."""
    queue: Queue = asyncio.Queue()
    puller = asyncio.create_task(_pull(chat, result, queue))
    late = agents.ModelTimeoutError(seconds)
    timer = asyncio.get_running_loop().call_later(seconds, queue.put_nowait, late)
    if caller := asyncio.current_task():  # it may be cancelled while this waits at a yield
        caller.add_done_callback(lambda _: result.cancel())
    try:
        while event := await queue.get():
            if isinstance(event, Exception):
                raise event
            yield event
    finally:
        timer.cancel()
        result.cancel()
        await asyncio.wait({puller}, timeout=1)


async def _pull(chat: Chat, result: agents.RunResultStreaming, queue: Queue) -> None:
    """Queue the SDK's events, then an error or None, in a task that is never cancelled."""
    end: Exception | None = None

    async def patient() -> AsyncIterator[agents.StreamEvent]:
        """Yield the run's own events; its error waits for everything that tools have sent."""
        nonlocal end
        try:
            async for event in result.stream_events():
                data: Any = getattr(event, "data", None)
                if getattr(data, "summary_index", 0) is None:  # as LiteLLM sends some thoughts
                    data.summary_index = 0
                yield event
        except Exception as error:  # noqa: BLE001 - `_events` raises it
            end, chat.client_tool_call = error, None

    source: Any = SimpleNamespace(stream_events=patient)
    try:
        async for event in stream_agent_response(chat, source):
            # a copy: tools keep changing the workflow that they added
            added = isinstance(event, t.ThreadItemAddedEvent)
            queue.put_nowait(event.model_copy(deep=True) if added else event)
    except Exception as error:  # noqa: BLE001 - as above
        end = error
    finally:
        queue.put_nowait(end)
        await chat.stream(t.ProgressUpdateEvent(text=""))  # ends a task that the SDK may leave


class Tools(agents.RunHooks[Chat]):
    """Bounds the server's tools, and keeps their calls as hidden items for the next turns."""

    async def on_agent_start(self, context: Any, agent: Any) -> None:
        """Bound an agent's tools now: done later, a call that waits for approval would fail."""
        for tool in agent.tools:
            bound(tool)

    async def on_tool_start(self, context: Any, agent: Any, tool: Any) -> None:
        """Bound the tools of MCP servers, which are made again for each step."""
        bound(tool)

    async def on_tool_end(self, context: Any, agent: Any, tool: Any, result: object) -> None:
        """Store a call and its output where it happened in the thread."""
        chat: Chat = context.context
        page = chat.client_tool_call
        if not isinstance(context, ToolContext) or (page and page.name == context.tool_name):
            return  # a call that the page runs is stored as an item of its own
        item = _hidden(chat, tool_memory(context.tool_name, context.tool_arguments, result))
        TURN_STATE.get().unsaved[item.id] = item  # now: a stop may come before its event
        await chat.stream(t.ThreadItemDoneEvent(item=item))  # so that a guardrail can remove it


def _hidden(chat: Chat, content: dict[str, str]) -> t.HiddenContextItem:
    return t.HiddenContextItem(
        id=chat.generate_id("tool_call"),
        thread_id=chat.thread.id,
        created_at=datetime.now(UTC),
        content=content,
    )
