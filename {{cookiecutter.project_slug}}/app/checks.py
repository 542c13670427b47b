"""Checks before the SDK, which accepts any number, text or id and fails late, with a 500."""

from chatkit import types as t
from chatkit.types import ChatKitReq
from fastapi import Request
from pydantic import TypeAdapter, ValidationError

from .assistant import ACTIONS, SYNC_ACTIONS
from .attachments import Files, sized
from .context import RequestContext
from .errors import ApiError
from .settings import Settings
from .store import ChatStore
from .uploads import bounded

REQUEST: TypeAdapter[ChatKitReq] = TypeAdapter(ChatKitReq)
"""Made once: the SDK makes one for each request, which costs 4 ms."""
MAX_PAGE = 100
MAX_TITLE_CHARS = 200
MAX_FEEDBACK_ITEMS = 100
MAX_PARTS = 200
MAX_COMMAS = 50_000
"""In text and between values: a million values take seconds to build or to validate."""
MAX_FAULTS = 1000


def parse(body: bytes, settings: Settings) -> ChatKitReq:
    """Return the request; ApiError says what is wrong with it, without quoting it."""
    if body.count(b",") > (most := max(MAX_COMMAS, settings.max_text_chars)):
        raise ApiError(400, "invalid_request", f"A request may have at most {most:,} commas.")
    try:
        request = REQUEST.validate_json(body)
    except ValidationError as error:
        if error.error_count() > MAX_FAULTS:
            raise ApiError(400, "invalid_request", "The request is not valid.") from None
        first = error.errors(include_url=False, include_input=False)[0]
        if first["type"] == "union_tag_invalid" and not first["loc"]:
            raise ApiError(404, "unknown_operation", "There is no such operation.") from error
        place = ".".join(map(str, first["loc"][1:]))
        text = f"The request is not valid: {place or 'body'}: {first['msg']}."
        raise ApiError(400, "invalid_request", text[:300]) from error
    if len(body) > (limit := settings.max_body_bytes) and request.type != "input.transcribe":
        raise ApiError(413, "too_large", f"A request may have at most {limit:,} bytes.")
    return request


async def read_json_body(request: Request, settings: Settings) -> bytes:
    """Read a JSON body and stop at the limit, before the rest has arrived."""
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind != "application/json":
        raise ApiError(415, "content_type", "Send JSON, with Content-Type: application/json.")
    limit = settings.max_body_bytes
    if settings.transcribe_model:
        limit = max(limit, settings.max_audio_bytes * 4 // 3 + 4096)
    too_large = ApiError(413, "too_large", f"A request may have at most {limit:,} bytes.")
    return await bounded(request, limit, too_large).body()


async def check(
    request: ChatKitReq, context: RequestContext, store: ChatStore, files: Files, settings: Settings
) -> None:
    """Refuse what this user may not do and what would fail later; clamp page sizes.

    NotFoundError for what this user does not have; ApiError 400 or 413 for a value that is not
    allowed, 409 for a locked or closed thread, 429 for a fifth dictation: each holds 25 MB.
    """
    _check_values(request, settings)
    if isinstance(request, t.InputTranscribeReq) and files.arriving(context).locked():
        text = "Too many dictations or uploads are under way. Wait for one to end."
        raise ApiError(429, "too_many_uploads", text, {"Retry-After": "5"})
    if isinstance(request, t.ThreadsCreateReq):
        await files.check(request.params.input.attachments, None, context)
    elif isinstance(request, t.StreamingReq | t.ThreadsSyncCustomActionReq):
        thread = await store.load_thread(request.params.thread_id, context)
        if isinstance(request, t.ThreadsCustomActionReq | t.ThreadsSyncCustomActionReq):
            known = ACTIONS if isinstance(request, t.ThreadsCustomActionReq) else SYNC_ACTIONS
            if (kind := request.params.action.type) not in known:
                raise ApiError(400, "unknown_action", f"This app has no action {kind[:80]!r}.")
        if isinstance(thread.status, t.LockedStatus | t.ClosedStatus):
            text = thread.status.reason or f"This conversation is {thread.status.type}."
            raise ApiError(409, f"thread_{thread.status.type}", text)
        if isinstance(request, t.ThreadsAddUserMessageReq):
            await files.check(request.params.input.attachments, thread.id, context)
        elif isinstance(request, t.ThreadsRetryAfterItemReq):  # or the SDK searches all pages
            await store.load_item(thread.id, request.params.item_id, context)


def _check_values(request: ChatKitReq, settings: Settings) -> None:
    """Check what needs no look-up in the store: sizes, and what a message asks for."""
    match request:
        case t.ThreadsListReq() | t.ItemsListReq() if request.params.limit is not None:
            request.params.limit = min(max(request.params.limit, 1), MAX_PAGE)
        case t.ThreadsUpdateReq() if len(request.params.title) > MAX_TITLE_CHARS:
            raise ApiError(400, "title", f"A title may have at most {MAX_TITLE_CHARS} characters.")
        case t.ItemsFeedbackReq() if len(request.params.item_ids) > MAX_FEEDBACK_ITEMS:
            text = f"Feedback is for at most {MAX_FEEDBACK_ITEMS} messages at a time."
            raise ApiError(400, "feedback", text)
        case t.InputTranscribeReq():
            most = settings.max_audio_bytes
            if len(request.params.audio_base64.rstrip("=")) * 3 // 4 > most:
                raise ApiError(413, "audio_too_large", f"A dictation is at most {sized(most)}.")
        case t.ThreadsAddStructuredInputReq() | t.ThreadsAddClientToolOutputReq():
            most = settings.max_text_chars
            if len(request.params.model_dump_json()) > most:
                text = f"An answer may have at most {most:,} characters."
                raise ApiError(413, "message_too_long", text)
        case t.ThreadsCreateReq() | t.ThreadsAddUserMessageReq():
            _check_message(request.params.input, settings)


def _check_message(message: t.UserMessageInput, settings: Settings) -> None:
    texts = [p.text for p in message.content if isinstance(p, t.UserMessageTextContent)]
    tags = [p.model_dump_json() for p in message.content if isinstance(p, t.UserMessageTagContent)]
    size = sum(map(len, [*texts, *tags, message.quoted_text or ""]))
    if size > settings.max_text_chars or len(message.content) > MAX_PARTS:
        most = f"{settings.max_text_chars:,} characters and {MAX_PARTS} parts"
        raise ApiError(413, "message_too_long", f"A message may have at most {most}.")
    if not (tags or message.attachments or any(map(str.strip, texts))):
        raise ApiError(400, "message_empty", "The message is empty.")
    if len(message.attachments) > settings.max_attachments:
        text = f"A message may have at most {settings.max_attachments} files."
        raise ApiError(400, "too_many_attachments", text)
    options = message.inference_options
    if options.model is not None and options.model not in settings.allowed_models:
        raise ApiError(400, "model", "That model cannot be chosen here.")
    if options.tool_choice is not None and options.tool_choice.id not in settings.allowed_tools:
        raise ApiError(400, "tool_choice", "That tool cannot be chosen here.")
