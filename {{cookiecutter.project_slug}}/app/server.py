"""The ChatKit server: runs a request's turn and keeps what was said when it is stopped."""

import asyncio
import logging
import secrets
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from agents import Agent
from chatkit import types as t
from chatkit.actions import Action
from chatkit.agents import AgentContext
from chatkit.errors import ErrorCode
from chatkit.server import ChatKitServer
from chatkit.store import NotFoundError
from chatkit.types import StreamingReq as StreamingRequest
from pydantic import ValidationError

from .assistant import ACTIONS, SYNC_ACTIONS
from .attachments import Files
from .checks import check, parse
from .context import RequestContext, context_for, owner_of, request_id_of
from .errors import ApiError
from .events import has_content, update
from .failures import ActionRefusedError, explain, unavailable
from .limits import Limits
from .model import title_by_model, title_of, transcribe
from .run import run
from .settings import Settings
from .store import ChatStore
from .streaming import Turn, Turns

log = logging.getLogger("app.server")
CLAIM_SECONDS = 2.0
"""How long a message waits for an answer that is stopping: people press Stop, then type."""


@dataclass
class Kept:
    """What a stop must know of its turn, besides the items that the SDK holds as pending."""

    done: dict[str, t.ThreadItem] = field(default_factory=dict)
    """Whole items, for the write of one of them may be what the stop interrupts."""
    marked: bool = False
    """Whether the stop has been written down."""


KEPT: ContextVar[Kept] = ContextVar("kept")
"""Each turn is a task of its own, and so has its own."""


class AppServer(ChatKitServer[RequestContext]):
    """Checks a request, runs its turn under the thread's lease, and loses nothing of it."""

    def __init__(
        self,
        store: ChatStore,
        files: Files,
        agent: Agent[AgentContext[RequestContext]],
        settings: Settings,
        limits: Limits,
    ) -> None:
        """Take the parts; nothing is opened here."""
        super().__init__(store, files)
        self._store, self._files, self._agent, self._settings = store, files, agent, settings
        self._limits = limits
        self.turns = Turns(
            lambda turn: store.renew_turn(turn.thread_id, turn.id, context_for(turn.user)),
            on_disconnect=settings.on_disconnect,
            per_user=settings.turns_per_user,
            total=settings.turns_total,
        )

    async def handle(self, body: bytes, context: RequestContext) -> tuple[str, bytes | Turn]:
        """Return the operation's name, and its JSON answer or a turn whose first event is there.

        Raises:
            ApiError: what cannot be taken, with its status.
            NotFoundError: what this user does not have.
        """
        request = parse(body)
        limit = self._settings.max_body_bytes
        if len(body) > limit and not isinstance(request, t.InputTranscribeReq):
            raise ApiError(413, "too_large", f"A request has {limit:,} bytes at most.")
        await check(request, context, self._store, self._files, self._settings)
        if t.is_streaming_req(request):
            turn = Turn(secrets.token_hex(12), owner_of(context))
            self._limits.check_tokens(turn.user)
            self.turns.start(turn, self._answer(request, context, turn))
            await turn.first()
            return request.type, turn
        if isinstance(request, t.ThreadsDeleteReq):
            return request.type, await self._delete(request.params.thread_id, context)
        answer = await self._process_non_streaming(request, context)
        return request.type, self._files.links.sign(answer, context)

    async def stop(self, thread_id: str, context: RequestContext) -> bool:
        """Stop the answer in a thread, wherever it runs; say whether there was one."""
        here = self.turns.stop_thread(owner_of(context), thread_id)
        return here or await self._store.stop_turn(thread_id, context)

    async def _delete(self, thread_id: str, context: RequestContext) -> bytes:
        """Delete a thread with its files, and stop the answer in it."""
        self.turns.stop_thread(owner_of(context), thread_id)
        await self._files.delete_thread(thread_id, context)
        return b"{}"

    # --- a turn ---

    async def _answer(
        self, request: StreamingRequest, context: RequestContext, turn: Turn
    ) -> AsyncGenerator[bytes, None]:
        """Yield a turn's events as SSE frames, under the lease of its thread."""
        KEPT.set(Kept())
        created = b""
        try:
            if not isinstance(request, t.ThreadsCreateReq):
                await self._claim(turn, request.params.thread_id, context)
            async for event in self._process_streaming_impl(request, context):
                if isinstance(event, t.ThreadCreatedEvent):
                    await self._claim(turn, event.thread.id, context)
                    created = self._frame(event, context)  # goes out when its message is stored
                    continue
                if isinstance(event, t.ErrorEvent) and not await self._exists(turn, context):
                    return  # deleted meanwhile: there is nobody to tell
                frame = self._frame(event, context)
                yield created + frame if created else frame
                created = b""
        except asyncio.CancelledError:
            await self._mark_stopped(turn, context)
            raise
        except Exception:
            if turn.events:  # else the answer has a status of its own
                yield self._frame(unavailable(request_id_of(context)), context)
            elif created:  # nothing of the first message was stored
                await self._files.delete_thread(turn.thread_id, context)
            raise
        finally:
            if turn.thread_id:
                turn.over = True  # a stop would only keep the lease
                await self._store.release_turn(turn.thread_id, turn.id, context)

    async def _mark_stopped(self, turn: Turn, context: RequestContext) -> None:
        """Write a stop down that came before the SDK began to watch for it."""
        if turn.thread_id and not KEPT.get().marked:
            thread = t.ThreadMetadata(id=turn.thread_id, created_at=datetime.now(UTC))
            await self.handle_stream_cancelled(thread, [], context)

    async def _claim(self, turn: Turn, thread_id: str, context: RequestContext) -> None:
        """Take the thread's lease, waiting a little for an answer that is just stopping."""
        deadline = asyncio.get_running_loop().time() + CLAIM_SECONDS
        try:
            while not await self._store.claim_turn(thread_id, turn.id, context):
                if asyncio.get_running_loop().time() > deadline:
                    text = "An answer is under way in this conversation. Stop it or wait for it."
                    raise ApiError(409, "turn_under_way", text, {"Retry-After": "2"})
                await asyncio.sleep(0.05)
        except asyncio.CancelledError:  # the lease may have been granted meanwhile
            await self._store.release_turn(thread_id, turn.id, context)
            raise
        turn.thread_id = thread_id

    async def _exists(self, turn: Turn, context: RequestContext) -> bool:
        try:
            await self._store.load_thread(turn.thread_id, context)
        except NotFoundError:
            return False
        except Exception:
            log.exception("store unavailable")
        return True

    def _frame(self, event: t.ThreadStreamEvent, context: RequestContext) -> bytes:
        if isinstance(event, t.ErrorEvent) and event.code == ErrorCode.STREAM_ERROR:
            event = unavailable(request_id_of(context))  # the SDK has no sentence for it
        # As the SDK's `_serialize`, but without the way over a string: half the time.
        data = event.__pydantic_serializer__.to_json(
            event, by_alias=True, exclude_none=True, context={"exclude_metadata": True}
        )
        return b"data: %b\n\n" % self._files.links.sign(data, context)

    async def respond(
        self,
        thread: t.ThreadMetadata,
        input_user_message: t.UserMessageItem | None,
        context: RequestContext,
    ) -> AsyncIterator[t.ThreadStreamEvent]:
        """Stream the assistant's answer; name the thread after its first message."""
        title = None
        if input_user_message and not thread.title:
            title = title_of(input_user_message)
            if await self._store.set_title_if_unchanged(thread.id, thread.title, title, context):
                yield renamed(thread, title)
        owner = owner_of(context)
        async for event in run(
            self._agent,
            self._store,
            thread,
            input_user_message,
            context,
            self._settings,
            self._files,
            lambda tokens: self._limits.spend_tokens(owner, tokens),
        ):
            yield _noted(event)
        if title and input_user_message and self._settings.title_model:
            better = await title_by_model(self._agent, input_user_message, self._settings)
            if better and await self._store.set_title_if_unchanged(
                thread.id, title, better, context
            ):
                yield renamed(thread, better)

    async def handle_stream_cancelled(
        self, thread: t.ThreadMetadata, pending_items: list[t.ThreadItem], context: RequestContext
    ) -> None:
        """Store what was said before the stop, and that it was stopped.

        The SDK would drop widgets and workflows, and would put a partial text over a full one
        whose write had just begun: an item that was done is stored again as it was.
        """
        kept = KEPT.get()
        kept.marked = True
        pending = {item.id: kept.done.get(item.id, item) for item in pending_items}
        with suppress(NotFoundError):  # the thread was deleted meanwhile
            for item in filter(has_content, pending.values()):
                await self._store.add_thread_item(thread.id, item, context)
            await super().handle_stream_cancelled(thread, [], context)

    def _update_pending_items(
        self, pending_items: dict[str, t.ThreadItem], event: t.ThreadItemUpdatedEvent
    ) -> None:
        """Bring an unfinished item up to date; the SDK leaves widgets and images as they began."""
        if item := pending_items.get(event.item_id):
            update(item, event.update)

    # --- what else the protocol offers ---

    async def action(
        self,
        thread: t.ThreadMetadata,
        action: Action[str, Any],
        sender: t.WidgetItem | None,
        context: RequestContext,
    ) -> AsyncIterator[t.ThreadStreamEvent]:
        """Run the handler that `assistant.ACTIONS` names for the action's type."""
        try:
            async for event in ACTIONS[action.type](thread, action, sender, context):
                yield _noted(event)
        except ValueError as error:  # the page sent what the handler cannot take
            refused = ActionRefusedError(action.type)
            raise explain(refused, request_id_of(context), thread.id) from error

    async def sync_action(
        self,
        thread: t.ThreadMetadata,
        action: Action[str, Any],
        sender: t.WidgetItem | None,
        context: RequestContext,
    ) -> t.SyncCustomActionResponse:
        """Run the handler that `assistant.SYNC_ACTIONS` names, and store the item it changed."""
        try:
            answer = await SYNC_ACTIONS[action.type](thread, action, sender, context)
        except ValidationError as error:  # the page sent what the handler cannot take
            raise ApiError(400, "action", "That button cannot do this.") from error
        if answer.updated_item is not None:
            await self._store.save_item(thread.id, answer.updated_item, context)
        return answer

    async def add_feedback(
        self, thread_id: str, item_ids: list[str], feedback: t.FeedbackKind, context: RequestContext
    ) -> None:
        """Store a thumb up or down beside the items; NotFoundError unless all are the user's."""
        await self._store.save_feedback(thread_id, item_ids, feedback, context)
        log.info("feedback", extra={"thread_id": thread_id, "items": item_ids, "kind": feedback})

    async def transcribe(
        self, audio_input: t.AudioInput, context: RequestContext
    ) -> t.TranscriptionResult:
        """Turn speech into text through the configured API."""
        return t.TranscriptionResult(text=await transcribe(audio_input, self._settings))


def _noted(event: t.ThreadStreamEvent) -> t.ThreadStreamEvent:
    """Return the event; what it finishes is kept for a stop."""
    if isinstance(event, t.ThreadItemDoneEvent | t.ThreadItemReplacedEvent):
        KEPT.get().done[event.item.id] = event.item
    return event


def renamed(thread: t.ThreadMetadata, title: str) -> t.ThreadUpdatedEvent:
    """Return the event that shows a title; `thread` itself stays as it is (the SDK would save)."""
    fields = thread.model_dump(include=set(t.ThreadMetadata.model_fields)) | {"title": title}
    return t.ThreadUpdatedEvent(thread=t.Thread(**fields, items=t.Page()))
