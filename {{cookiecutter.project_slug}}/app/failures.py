"""What went wrong in an answer: one sentence for the user, the cause for the log."""

import asyncio
import logging
import re
from functools import partial
from typing import Any

import agents
import openai
from chatkit.errors import CustomStreamError
from chatkit.types import NoticeEvent

from .assistant import Chat
from .context import request_id_of
from .errors import place_of
from .events import TURN_STATE

log = logging.getLogger("app.failures")
RETRY = "Try again in a moment."
OPERATOR = "Tell whoever runs this app."
WRONG_KEY = f"The model's server does not accept this app's key. {OPERATOR}"
TOO_LONG = re.compile("context.?(length|size|window)")
NO_FILES = re.compile(r"image input|multimodal|content\[\]\.type|part type")
"""How llama.cpp and vLLM refuse a picture or a PDF, some with a 500."""
GUARDRAILS = (agents.InputGuardrailTripwireTriggered, agents.OutputGuardrailTripwireTriggered)
NO_ACTION = "That button cannot do this. Reload the page and try again."


class NoAnswerError(Exception):
    """The model ended its answer without a word."""


EXPECTED: dict[type[Exception] | tuple[type[Exception], ...], str] = {
    GUARDRAILS: "That cannot be answered here.",
    agents.ToolInputGuardrailTripwireTriggered: "That cannot be done here.",
    agents.ToolOutputGuardrailTripwireTriggered: "That cannot be done here.",
    agents.MaxTurnsExceeded: "The answer took too many steps. Ask for less at once.",
    agents.ModelRefusalError: "The model refused to answer. Ask in another way.",
    NoAnswerError: f"The model gave no answer. {RETRY}",
    agents.ModelTimeoutError: "The answer took too long and was stopped. Ask for less at once.",
}
"""What the user reads, with a button if it ends with RETRY. No faults, so no traceback."""
UNEXPECTED: dict[type[Exception], str] = {
    openai.AuthenticationError: WRONG_KEY,
    openai.PermissionDeniedError: WRONG_KEY,
    openai.NotFoundError: f"The model's server does not know the model. {OPERATOR}",
    openai.RateLimitError: f"The model's server is busy or its quota is used up. {RETRY}",
    openai.BadRequestError: f"The model's server refused the request. {OPERATOR}",
    openai.APIConnectionError: f"The model's server cannot be reached. {RETRY}",
    openai.APIError: f"The model's server has trouble. {RETRY}",
    agents.ModelBehaviorError: f"The model broke off its answer: ask for the rest. {RETRY}",
    Exception: f"Something went wrong on our side. {RETRY}",
}
"""The same for faults. The first match counts, so base classes come after their subclasses."""


def sentence(error: Exception) -> str:
    """Return the sentence that a user reads for an error."""
    return next(text for kind, text in (EXPECTED | UNEXPECTED).items() if isinstance(error, kind))


def explain(error: Exception, chat: Chat) -> CustomStreamError:
    """Log why there is no answer; return what the user reads, with the request's id."""
    cause = None if isinstance(error, tuple(EXPECTED)) else error
    request_id, thread_id = request_id_of(chat.request_context), chat.thread.id
    facts = {"request_id": request_id, "thread_id": thread_id, "cause": type(error).__name__}
    log.log(logging.ERROR if cause else logging.WARNING, "no answer", exc_info=cause, extra=facts)
    text = sentence(error)
    retry = text.endswith(RETRY)
    if isinstance(error, GUARDRAILS):
        reason = error.guardrail_result.output.output_info
        text = reason if isinstance(reason, str) else text
    elif isinstance(error, openai.BadRequestError) and TOO_LONG.search(str(error)):
        text = "This is more than the model can read. Start a new conversation."
    elif isinstance(error, openai.APIStatusError) and NO_FILES.search(str(error)):
        text, retry = "The model cannot read this file. Start a new conversation without it.", False
    return CustomStreamError(f"{text} (request {request_id})", allow_retry=retry)


def bound(tool: Any) -> None:
    """Give a tool TOOL_SECONDS, and its errors to `_failed`, unless it has rules of its own.

    A tool's `sys.exit()` ends no server; the tools of an agent that is a tool are bounded, too.
    """
    run = getattr(tool, "on_invoke_tool", None)
    if isinstance(tool, agents.FunctionTool) and getattr(run, "func", None) is not _bounded:
        tool.on_invoke_tool = partial(_bounded, run, tool.timeout_seconds)
        failed = agents.tool.resolve_function_tool_failure_error_function(tool)
        if failed is agents.default_tool_error_function:  # a tool's own stays
            agents.tool.set_function_tool_failure_error_function(tool, _failed)
        for inner in getattr(getattr(tool, "_agent_instance", None), "tools", ()):
            bound(inner)


async def _bounded(run: Any, own: float | None, context: Any, arguments: str) -> Any:
    state = TURN_STATE.get(None)  # the limit is the turn's: several apps may share a tool
    try:
        async with asyncio.timeout(state.tool_seconds if state and not own else None):
            return await run(context, arguments)
    except (TimeoutError, SystemExit) as error:
        return await _failed(context, error)


async def _failed(context: Any, error: BaseException) -> str:
    """Tell the model and the user that a tool failed; a ValueError is for the model to correct."""
    chat, tool = context.context, context.tool_name
    if type(error) in (ValueError, agents.ModelBehaviorError):
        log.warning("tool %s refused", tool, extra={"place": place_of(error)})
        return str(error)
    what = "took too long" if isinstance(error, TimeoutError) else "failed"
    request_id = request_id_of(chat.request_context)
    log.error("tool %s %s", tool, what, exc_info=error, extra={"request_id": request_id})
    message = f"The tool {tool} {what}. (request {request_id})"
    await chat.stream(NoticeEvent(level="warning", message=message))
    return f"The tool {tool} {what}. Tell the user so and do not call it again."
