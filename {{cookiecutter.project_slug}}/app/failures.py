"""What went wrong in an answer: one sentence for the user, the cause for the log."""

import logging

import agents
import openai
from chatkit.errors import CustomStreamError
from chatkit.types import ErrorEvent, NoticeEvent

from .assistant import Chat
from .context import request_id_of
from .errors import place_of

log = logging.getLogger("app.failures")
RETRY = "Try again in a moment."
OPERATOR = "Tell whoever runs this app."
WRONG_KEY = f"The model's server does not accept this app's key. {OPERATOR}"
REFUSED_ACTION = "That button cannot do this. Reload the page and try again."


class TurnTimeoutError(Exception):
    """The whole answer took longer than TURN_SECONDS."""


class NoAnswerError(Exception):
    """The model ended its answer without a word."""


class ActionRefusedError(Exception):
    """A button sent something that its handler does not accept."""


EXPECTED: dict[type[Exception], str] = {
    agents.InputGuardrailTripwireTriggered: "That cannot be answered here.",
    agents.OutputGuardrailTripwireTriggered: "That cannot be answered here.",
    agents.ToolInputGuardrailTripwireTriggered: "That cannot be done here.",
    agents.ToolOutputGuardrailTripwireTriggered: "That cannot be done here.",
    agents.MaxTurnsExceeded: "The answer took too many steps. Ask for less at once.",
    agents.ModelRefusalError: "The model refused to answer. Ask in another way.",
    NoAnswerError: f"The model gave no answer. {RETRY}",
    TurnTimeoutError: "The answer took too long and was stopped. Ask for less at once.",
    ActionRefusedError: REFUSED_ACTION,
}
"""What the user reads, with a button where it ends with RETRY. No faults: no traceback."""
UNEXPECTED: dict[type[Exception], str] = {
    openai.AuthenticationError: WRONG_KEY,
    openai.PermissionDeniedError: WRONG_KEY,
    openai.NotFoundError: f"The model's server does not know the model. {OPERATOR}",
    openai.RateLimitError: f"The model's server is busy or its quota is used up. {RETRY}",
    openai.BadRequestError: f"The model's server refused the request. {OPERATOR}",
    openai.APIConnectionError: f"The model's server cannot be reached. {RETRY}",
    openai.APIError: f"The model's server has trouble. {RETRY}",
    agents.ModelBehaviorError: f"The model broke its answer off. {RETRY}",
    Exception: f"Something went wrong on our side. {RETRY}",
}
"""The same for faults. The first match counts, so base classes stand below their subclasses."""


def explain(error: Exception, request_id: str, thread_id: str) -> CustomStreamError:
    """Log why there is no answer; return what the user reads, with the request's id."""
    cause = None if isinstance(error, tuple(EXPECTED)) else error
    facts = {"request_id": request_id, "thread_id": thread_id, "cause": type(error).__name__}
    log.log(logging.ERROR if cause else logging.WARNING, "no answer", exc_info=cause, extra=facts)
    known = (EXPECTED | UNEXPECTED).items()
    text = next(told for kind, told in known if isinstance(error, kind))
    match error:
        case agents.InputGuardrailTripwireTriggered() | agents.OutputGuardrailTripwireTriggered():
            reason = error.guardrail_result.output.output_info
            text = reason if isinstance(reason, str) else text
        case openai.BadRequestError(code="context_length_exceeded"):
            text = "This is more than the model can read. Start a new conversation."
    return CustomStreamError(text + _request(request_id), allow_retry=text.endswith(RETRY))


def unavailable(request_id: str) -> ErrorEvent:
    """Return the event for a fault of ours; the log has the cause under the request's id."""
    return ErrorEvent(message=UNEXPECTED[Exception] + _request(request_id), allow_retry=True)


def _request(request_id: str) -> str:
    return f" (request {request_id})" if request_id else ""


async def tool_failed(args: agents.ToolErrorFormatterArgs[Chat]) -> str | None:
    """Tell the model and the user that a tool raised; a ValueError is for the model to correct.

    Return None to leave the wording to the SDK, as for a tool that does not exist.
    """
    if args.error is None:
        return None
    if type(args.error) in (ValueError, agents.ModelBehaviorError):
        log.warning("tool %s refused", args.tool_name, extra={"place": place_of(args.error)})
        return str(args.error)
    return await _tell(args.run_context.context, args.tool_name, "failed", args.error)


async def tool_hangs(context: agents.RunContextWrapper[Chat], error: Exception) -> str:
    """Tell the model and the user that a tool took longer than TOOL_SECONDS."""
    tool = getattr(context, "tool_name", "tool")
    return await _tell(context.context, tool, "took too long", error)


async def _tell(chat: Chat, tool: str, what: str, error: Exception) -> str:
    request_id = request_id_of(chat.request_context)
    log.error("tool %s %s", tool, what, exc_info=error, extra={"request_id": request_id})
    message = f"The tool {tool} {what}.{_request(request_id)}"
    await chat.stream(NoticeEvent(level="warning", message=message))
    return f"The tool {tool} {what}. Tell the user so and do not call it again."
