"""The model that `Settings` ask for: offline, or any server that speaks one of OpenAI's APIs."""

import logging
from collections.abc import AsyncIterator
from copy import copy
from typing import Any
from uuid import uuid4

import agents
from chatkit.types import AudioInput, TranscriptionResult, UserMessageItem
from openai import AsyncOpenAI, AsyncStream, BadRequestError, OpenAIError

from .errors import ApiError
from .events import TURN_STATE
from .failures import sentence
from .offline import OfflineModel
from .settings import Settings

log = logging.getLogger("app.model")
TITLE_CHARS = 60


def make_client(settings: Settings) -> AsyncOpenAI | None:
    """Return a client for the model's server, None when neither key nor address is set."""
    key = settings.openai_api_key.get_secret_value()
    if not key and not settings.openai_base_url:
        return None
    return AsyncOpenAI(
        api_key=key or "none",  # local servers need none, but the client insists
        base_url=settings.openai_base_url or None,
        timeout=settings.turn_seconds,
    )


def make_model(settings: Settings) -> agents.Model:
    """Return the model that answers; the offline one when nothing else is set."""
    client = make_client(settings)
    if client is None:
        if not settings.development:
            log.warning("the offline model answers: set OPENAI_API_KEY or OPENAI_BASE_URL")
        return OfflineModel()
    # agents without a model of their own ask the same server, not whichever the environment names
    agents.set_default_openai_client(client, use_for_tracing=False)
    agents.set_default_openai_api(settings.model_api)
    if traced(settings):
        agents.set_tracing_export_api_key(client.api_key)
    if settings.model_api == "responses":
        return agents.OpenAIResponsesModel(settings.model, client)
    _watch(client.chat.completions)
    return agents.OpenAIChatCompletionsModel(settings.model, client)


def _watch(completions: Any) -> None:
    """Note when a chat completion was cut short: the SDK takes it for complete."""
    create = completions.create

    async def watched(stream: Any) -> AsyncIterator[Any]:
        reason, ids = None, dict[int, str]()
        async with stream:
            async for chunk in stream:
                for choice in chunk.choices or ():  # null beside the usage, of some servers
                    reason = choice.finish_reason or reason
                    _identify(getattr(choice.delta, "tool_calls", None) or (), ids)
                yield chunk
        if state := TURN_STATE.get(None):
            state.cut = reason in (None, "length", "content_filter")

    async def asked(**request: Any) -> Any:
        answer = await create(**request)
        return watched(answer) if isinstance(answer, AsyncStream) else answer

    completions.create = asked


def _identify(calls: Any, ids: dict[int, str]) -> None:
    """Give each call an id of its own: servers send none, or one for all, which the SDK refuses."""
    for call in calls:
        if call.index not in ids:
            new = call.id not in (None, "", *ids.values())
            ids[call.index] = call.id if new else f"call_{uuid4().hex}"
        call.id = ids[call.index]


def traced(settings: Settings) -> bool:
    """Say whether runs are traced at OpenAI: only those that OpenAI's own server answers."""
    return bool(settings.openai_api_key) and not settings.openai_base_url


def named(model: Any, name: str) -> Any:
    """Return the model of that name on the same server; a model without a name stays as it is."""
    if isinstance(model, agents.OpenAIResponsesModel | agents.OpenAIChatCompletionsModel):
        model = copy(model)
        model.model = name
    return model


def text_of(message: UserMessageItem) -> str:
    """Return what the user typed, on one line."""
    return " ".join(" ".join(part.text for part in message.content).split())


def title_of(message: UserMessageItem) -> str:
    """Return a thread's first title: the message or its file's name, cut at a word."""
    text = text_of(message) or next((file.name for file in message.attachments), "")
    if len(text) <= TITLE_CHARS:
        return text
    head = text[: TITLE_CHARS - 1]
    return f"{head.rpartition(' ')[0] or head}…"


async def title_by_model(model: Any, message: UserMessageItem, settings: Settings) -> str:
    """Return a better title from the model that TITLE_MODEL names."""
    namer = agents.Agent[None](
        "Title",
        instructions="Answer with a title of at most five words for the chat that this begins.",
        model=named(model, settings.title_model),
    )
    config = agents.RunConfig(tracing_disabled=True)
    result = await agents.Runner.run(namer, text_of(message)[:2000], run_config=config)
    return " ".join(str(result.final_output).strip("\"'“”. \n").split())[:TITLE_CHARS]


async def transcribe(
    audio: AudioInput, client: AsyncOpenAI | None, model: str
) -> TranscriptionResult:
    """Return what was said; ApiError 501 without a model's server, 400 or 503 if it fails."""
    if client is None:
        raise ApiError(501, "not_offered", "Dictation needs TRANSCRIBE_MODEL and a model's server.")
    file = (f"speech.{audio.media_type.rpartition('/')[2]}", audio.data, audio.media_type)
    try:
        answer = await client.audio.transcriptions.create(file=file, model=model)
    except BadRequestError as error:
        raise ApiError(400, "audio", "This recording cannot be understood.") from error
    except OpenAIError as error:
        log.exception("no dictation")
        raise ApiError(503, "unavailable", sentence(error)) from error
    return TranscriptionResult(text=answer.text)
