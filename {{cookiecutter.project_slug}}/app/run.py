"""One turn of the assistant: from the thread's history to the events that the page sees."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from copy import copy
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

from agents import (
    Agent,
    FunctionTool,
    InputGuardrailTripwireTriggered,
    ModelSettings,
    RunConfig,
    RunContextWrapper,
    RunHooks,
    Runner,
    RunResultStreaming,
    StreamEvent,
    Tool,
    TResponseInputItem,
)
from agents.tool_context import ToolContext
from chatkit import types as t
from chatkit.agents import stream_agent_response
from chatkit.errors import BaseStreamError
from chatkit.store import NotFoundError

from .assistant import Chat
from .attachments import Files
from .context import owner_of, request_id_of
from .events import TURN_STATE, OwnIds, TurnState, has_content, mend
from .failures import NoAnswerError, TurnTimeoutError, explain, tool_failed, tool_hangs
from .history import REFUSED, Converter, length_of, load_history, tool_memory
from .limits import Limits
from .model import named, traced
from .settings import Settings


async def run(  # noqa: PLR0917 - what a turn is made of
    chat: Chat,
    message: t.UserMessageItem | None,
    agent: Agent[Chat],
    settings: Settings,
    files: Files,
    limits: Limits,
) -> AsyncIterator[t.ThreadStreamEvent]:
    """Answer the newest turn of the thread; the model stops when the caller does.

    At the end its tokens count toward TOKENS_PER_DAY: the server's figure, or an estimate.

    Raises:
        CustomStreamError: one sentence for the user; the log has the cause.
        NotFoundError: the thread was deleted meanwhile.
    """
    context, state = chat.request_context, TURN_STATE.get()
    ids = OwnIds(chat.generate_id)
    try:
        history = await load_history(chat, settings)
        converter = Converter(context, files.content_part, settings.max_attachments)
        given = await converter.convert(history)
        result = _start(agent, given, chat, _choices(message, history), settings)
        complete = False
        try:
            async for event in _events(chat, result, settings.turn_seconds):
                for own in ids.own(mend(event)):
                    yield own
            complete = True
        finally:
            tokens = result.context_wrapper.usage.total_tokens
            if not complete:  # a stopped call has no count: about 4 characters a token
                tokens += sum(map(length_of, [*history, *state.unsaved.values()])) // 4
            limits.spend_tokens(owner_of(context), tokens)
    except (NotFoundError, BaseStreamError):
        raise
    except Exception as error:
        if isinstance(error, InputGuardrailTripwireTriggered):
            yield t.ThreadItemDoneEvent(item=_hidden(chat, REFUSED))
        raise explain(error, request_id_of(context), chat.thread.id) from error
    for end in _ends(state):
        yield end
    if not state.said:
        raise explain(NoAnswerError(), request_id_of(context), chat.thread.id)


def _ends(state: TurnState) -> Iterator[t.ThreadStreamEvent]:
    """End what the model or a tool left open: what shows something stays, the rest goes."""
    for item in [*state.unsaved.values()]:
        removed = t.ThreadItemRemovedEvent(item_id=item.id)
        yield t.ThreadItemDoneEvent(item=item) if has_content(item) else removed


def _choices(message: t.UserMessageItem | None, history: list[t.ThreadItem]) -> t.InferenceOptions:
    """Return what the user chose in the composer; with an output of the page, the model alone."""
    if message:
        return message.inference_options
    for item in reversed(history):
        if isinstance(item, t.UserMessageItem):
            return t.InferenceOptions(model=item.inference_options.model)
    return t.InferenceOptions()


def _start(
    agent: Agent[Chat],
    history: list[TResponseInputItem],
    chat: Chat,
    chosen: t.InferenceOptions,
    settings: Settings,
) -> RunResultStreaming:
    """Start the model with what the user chose and a time limit for each of the agent's tools."""
    tools = [copy(tool) for tool in agent.tools]
    for tool in tools:
        if isinstance(tool, FunctionTool) and tool.timeout_seconds is None:
            tool.timeout_seconds, tool.timeout_error_function = settings.tool_seconds, tool_hangs
    return Runner.run_streamed(
        agent.clone(tools=tools),
        history,
        context=chat,
        max_turns=settings.max_turns,
        hooks=ToolMemory(),
        run_config=RunConfig(
            model=named(agent.model, chosen.model) if chosen.model else None,
            model_settings=ModelSettings(
                tool_choice=chosen.tool_choice.id if chosen.tool_choice else None,
                include_usage=True if settings.tokens_per_day else None,
            ),
            group_id=chat.thread.id,
            tracing_disabled=not traced(settings),
            trace_include_sensitive_data=settings.trace_content,
            tool_error_formatter=tool_failed,
            tool_not_found_behavior="return_error_to_model",
        ),
    )


async def _events(
    chat: Chat, result: RunResultStreaming, seconds: float
) -> AsyncIterator[t.ThreadStreamEvent]:
    """Yield the run's events; stop the model when this ends, is cancelled or takes too long."""
    queue: asyncio.Queue[t.ThreadStreamEvent | TurnTimeoutError | None] = asyncio.Queue()

    def stop(_: object) -> None:
        result.cancel()

    puller = asyncio.create_task(_pull(chat, result, queue.put_nowait))
    timer = asyncio.get_running_loop().call_later(seconds, queue.put_nowait, TurnTimeoutError())
    caller = asyncio.current_task()
    if caller:
        caller.add_done_callback(stop)  # it may be cancelled while this waits at a yield
    try:
        while event := await queue.get():
            if isinstance(event, TurnTimeoutError):
                raise event
            yield event
        await puller
    finally:
        timer.cancel()
        result.cancel()
        if caller:
            caller.remove_done_callback(stop)
        done, _ = await asyncio.wait({puller}, timeout=1)
        for task in done:
            task.exception()  # looked at, or asyncio would log it


async def _pull(
    chat: Chat, result: RunResultStreaming, put: Callable[[t.ThreadStreamEvent | None], None]
) -> None:
    """Read the SDK's stream to its end and put None there, in a task that is never cancelled."""
    last, passed = t.ProgressUpdateEvent(text=""), asyncio.Event()

    async def patient() -> AsyncIterator[StreamEvent]:
        """Yield the run's own events; before its error let all pass that tools have sent."""
        try:
            async for event in result.stream_events():
                yield event
        except Exception:
            await chat.stream(last)
            await passed.wait()
            raise

    source: Any = SimpleNamespace(stream_events=patient)
    try:
        async for event in stream_agent_response(chat, source):
            if event is last:
                passed.set()
                continue
            # a copy: tools go on changing the workflow that they added
            added = isinstance(event, t.ThreadItemAddedEvent)
            put(event.model_copy(deep=True) if added else event)
    finally:
        passed.set()  # or `patient` would wait for good where the SDK itself has failed
        put(None)
        await chat.stream(last)  # the SDK leaves a task waiting on its queue, which this ends


class ToolMemory(RunHooks[Chat]):
    """Keeps the calls of server tools as hidden items, for the model's next turns."""

    async def on_tool_end(
        self, context: RunContextWrapper[Chat], agent: Agent[Chat], tool: Tool, result: object
    ) -> None:
        """Store a call and its output where it happened in the thread."""
        chat = context.context
        page = chat.client_tool_call
        if not isinstance(context, ToolContext) or (page and page.name == context.tool_name):
            return  # a call that the page runs is stored as an item of its own
        memory = tool_memory(context.tool_name, context.tool_arguments, result)
        item = _hidden(chat, memory)
        TURN_STATE.get().unsaved[item.id] = item  # now: a stop may come before its event
        await chat.stream(t.ThreadItemDoneEvent(item=item))  # so that a guardrail can remove it


def _hidden(chat: Chat, content: dict[str, str]) -> t.HiddenContextItem:
    """Return an item that the user never sees."""
    return t.HiddenContextItem(
        id=chat.generate_id("tool_call"),
        thread_id=chat.thread.id,
        created_at=datetime.now(UTC),
        content=content,
    )
