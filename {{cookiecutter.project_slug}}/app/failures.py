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


EXPECTED: dict[type[Exception], tuple[str, bool]] = {
    agents.InputGuardrailTripwireTriggered: ("That cannot be answered here.", False),
    agents.OutputGuardrailTripwireTriggered: ("That cannot be answered here.", False),
    agents.ToolInputGuardrailTripwireTriggered: ("That cannot be done here.", False),
    agents.ToolOutputGuardrailTripwireTriggered: ("That cannot be done here.", False),
    agents.MaxTurnsExceeded: ("The answer took too many steps. Ask for less at once.", False),
    agents.ModelRefusalError: ("The model refused to answer. Ask in another way.", False),
    NoAnswerError: ("The model gave no answer.", True),
    TurnTimeoutError: ("The answer took too long and was stopped. Ask for less at once.", False),
    ActionRefusedError: (REFUSED_ACTION, False),
}
"""What the user reads, and whether to offer a retry. Not a fault: logged without a traceback."""
UNEXPECTED: dict[type[Exception], tuple[str, bool]] = {
    openai.AuthenticationError: (WRONG_KEY, False),
    openai.PermissionDeniedError: (WRONG_KEY, False),
    openai.NotFoundError: (f"The model's server does not know the model. {OPERATOR}", False),
    openai.RateLimitError: ("The model's server is busy or its quota is used up.", True),
    openai.BadRequestError: (f"The model's server refused the request. {OPERATOR}", False),
    openai.APIConnectionError: ("The model's server cannot be reached.", True),
    openai.APIError: ("The model's server has trouble.", True),
    agents.ModelBehaviorError: ("The model broke its answer off.", True),
    Exception: ("Something went wrong on our side.", True),
}
"""The same for faults. The first match counts, so base classes stand below their subclasses."""


def explain(error: Exception, request_id: str, thread_id: str) -> CustomStreamError:
    """Log why there is no answer; return what the user reads, with the request's id."""
    cause = None if isinstance(error, tuple(EXPECTED)) else error
    facts = {"request_id": request_id, "thread_id": thread_id, "cause": type(error).__name__}
    log.log(logging.ERROR if cause else logging.WARNING, "no answer", exc_info=cause, extra=facts)
    known = (EXPECTED | UNEXPECTED).items()
    text, retry = next(told for kind, told in known if isinstance(error, kind))
    match error:
        case agents.InputGuardrailTripwireTriggered() | agents.OutputGuardrailTripwireTriggered():
            reason = error.guardrail_result.output.output_info
            text = reason if isinstance(reason, str) else text
        case openai.BadRequestError(code="context_length_exceeded"):
            text = "This is more than the model can read. Start a new conversation."
    text = f"{text} {RETRY}" if retry else text
    return CustomStreamError(text + _request(request_id), allow_retry=retry)


def unavailable(request_id: str) -> ErrorEvent:
    """Return the event for a fault of ours; the log has the cause under the request's id."""
    text, _ = UNEXPECTED[Exception]
    return ErrorEvent(message=f"{text} {RETRY}{_request(request_id)}", allow_retry=True)


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
    return await _tell(args.run_context, args.tool_name, "failed", args.error)


async def tool_hangs(context: agents.RunContextWrapper[Chat], error: Exception) -> str:
    """Tell the model and the user that a tool took longer than TOOL_SECONDS."""
    return await _tell(context, getattr(context, "tool_name", "tool"), "took too long", error)


async def _tell(
    context: agents.RunContextWrapper[Chat], tool: str, what: str, error: Exception
) -> str:
    request_id = request_id_of(context.context.request_context)
    log.error("tool %s %s", tool, what, exc_info=error, extra={"request_id": request_id})
    message = f"The tool {tool} {what}.{_request(request_id)}"
    await context.context.stream(NoticeEvent(level="warning", message=message))
    return f"The tool {tool} {what}. Tell the user so and do not call it again."
