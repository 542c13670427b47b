"""What went wrong in an answer: one sentence for the user, the cause for the log."""

import logging

import openai
from agents import (
    InputGuardrailTripwireTriggered,
    MaxTurnsExceeded,
    ModelRefusalError,
    OutputGuardrailTripwireTriggered,
    RunContextWrapper,
    ToolErrorFormatterArgs,
)
from chatkit.agents import AgentContext
from chatkit.errors import CustomStreamError
from chatkit.types import NoticeEvent

from .context import RequestContext, request_id_of

log = logging.getLogger("app.failures")
RETRY = "Try again in a moment."
OPERATOR = "Tell whoever runs this app."


class TurnTimeoutError(Exception):
    """The whole answer took longer than TURN_SECONDS."""


LIMITS = (
    InputGuardrailTripwireTriggered,
    OutputGuardrailTripwireTriggered,
    MaxTurnsExceeded,
    TurnTimeoutError,
)
"""What ends an answer as it should: no fault to be traced."""


def explain(error: Exception, request_id: str, thread_id: str) -> CustomStreamError:
    """Log why there is no answer; return what the user reads, with the request's id."""
    cause = None if isinstance(error, LIMITS) else error
    facts = {"request_id": request_id, "thread_id": thread_id, "cause": type(error).__name__}
    log.log(logging.ERROR if cause else logging.WARNING, "no answer", exc_info=cause, extra=facts)
    text = _sentence(error)
    suffix = f" (request {request_id})" if request_id else ""
    return CustomStreamError(text + suffix, allow_retry=RETRY in text)


def _sentence(error: Exception) -> str:  # noqa: C901, PLR0911 - one case a cause
    match error:
        case InputGuardrailTripwireTriggered() | OutputGuardrailTripwireTriggered():
            reason = error.guardrail_result.output.output_info
            return reason if isinstance(reason, str) else "That cannot be answered here."
        case MaxTurnsExceeded():
            return "The answer took too many steps. Ask for less at once."
        case TurnTimeoutError():
            return "The answer took too long and was stopped. Ask for less at once."
        case openai.AuthenticationError() | openai.PermissionDeniedError():
            return f"The model's server does not accept this app's key. {OPERATOR}"
        case openai.NotFoundError():
            return f"The model's server does not know the model. {OPERATOR}"
        case openai.RateLimitError():
            return f"The model's server is busy or its quota is used up. {RETRY}"
        case openai.BadRequestError() if error.code == "context_length_exceeded":
            return "This is more than the model can read. Start a new conversation."
        case openai.BadRequestError() | openai.UnprocessableEntityError():
            return f"The model's server refused the request. {OPERATOR}"
        case openai.APIConnectionError():
            return f"The model's server cannot be reached. {RETRY}"
        case openai.APIError():
            return f"The model's server has trouble. {RETRY}"
        case ModelRefusalError():
            return "The model refused to answer. Ask in another way."
        case _:
            return f"Something went wrong on our side. {RETRY}"


async def tool_failed(args: ToolErrorFormatterArgs[AgentContext[RequestContext]]) -> str | None:
    """Tell the model of a tool that raised, and the user too; a ValueError's text is for the model.

    Returns None for what the SDK words itself, such as a tool that does not exist.
    """
    if args.error is None:
        return None
    if type(args.error) is ValueError:
        return str(args.error)
    return await _tell(args.run_context, args.tool_name, "failed", args.error)


async def tool_hangs(
    context: RunContextWrapper[AgentContext[RequestContext]], error: Exception
) -> str:
    """Tell the model, and the user too, of a tool that took longer than TOOL_SECONDS."""
    return await _tell(context, getattr(context, "tool_name", "tool"), "took too long", error)


async def _tell(
    context: RunContextWrapper[AgentContext[RequestContext]],
    tool: str,
    what: str,
    error: Exception,
) -> str:
    chat = context.context
    request_id = request_id_of(chat.request_context)
    log.error(
        "tool %s %s", tool, what, exc_info=error, extra={"request_id": request_id, "tool": tool}
    )
    suffix = f" (request {request_id})" if request_id else ""
    message = f"The tool {tool} {what}.{suffix}"
    await chat.stream(NoticeEvent(level="warning", message=message))
    return f"The tool {tool} {what}. Tell the user so and do not call it again."
