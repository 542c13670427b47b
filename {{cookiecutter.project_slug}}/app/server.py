"""The ChatKit server: runs a request's turn and keeps what was said when it is stopped."""

import asyncio
import logging
import time
from datetime import UTC, datetime
from functools import partial
from typing import Any

from agents import Agent
from chatkit import types as t
from chatkit.errors import BaseStreamError, CustomStreamError, ErrorCode
from chatkit.server import ChatKitServer
from chatkit.store import NotFoundError

from .assistant import ACTIONS, SYNC_ACTIONS, Chat
from .attachments import Files
from .checks import check
from .context import RequestContext, owner_of, request_id_of
from .errors import ApiError, place_of
from .events import TURN_STATE, Action, Events, TurnState, patiently
from .failures import NO_ACTION, UNEXPECTED, explain
from .limits import Limits
from .model import make_client, title_by_model, title_of, transcribe
from .run import run
from .settings import Settings
from .store import ChatStore
from .streaming import Frames, Turn, Turns

log = logging.getLogger("app.server")
CLAIM_SECONDS = 2.0
"""How long a message waits for an answer that is stopping: people press Stop, then type."""


class AppServer(ChatKitServer[RequestContext]):
    """Checks a request, runs its turn under the thread's lease, and keeps all that was said."""

    def __init__(
        self, store: ChatStore, files: Files, agent: Agent[Chat], settings: Settings, limits: Limits
    ) -> None:
        """Take the parts, in the app's event loop: leases are renewed from here on."""
        super().__init__(store, files)
        self._store, self._files, self._agent, self._settings = store, files, agent, settings
        self._limits = limits
        self.turns = Turns(settings, store)
        self._hearing = make_client(settings) if settings.transcribe_model else None  # takes 20 ms
        self._naming: set[asyncio.Task[str | None]] = set()

    async def handle(self, request: t.ChatKitReq, context: RequestContext) -> bytes | Turn:
        """Return the operation's JSON answer, or a turn whose first event is ready.

        NotFoundError for what this user does not have; ApiError for whatever else is refused.
        """
        await check(request, context, self._store, self._files, self._settings)
        if t.is_streaming_req(request):
            self._limits.tokens.check(owner_of(context))
            turn = self.turns.start(owner_of(context), partial(self._answer, request, context))
            await turn.first()
            return turn
        if isinstance(request, t.ThreadsDeleteReq):
            self.turns.stop_thread(owner_of(context), request.params.thread_id)
            await self._files.delete_thread(request.params.thread_id, context)
            return b"{}"
        return self._files.links.sign(await self._process_non_streaming(request, context), context)

    async def close(self) -> None:
        """Stop the answers that are still under way, and close the client for dictations."""
        await self.turns.close()
        for naming in self._naming:
            naming.cancel()
        if self._hearing:
            await self._hearing.close()

    async def stop(self, thread_id: str, context: RequestContext) -> bool:
        """Stop the answer in a thread, wherever it runs; say whether there was one."""
        here = self.turns.stop_thread(owner_of(context), thread_id)
        return here or await self._store.stop_turn(thread_id, context)

    # --- a turn ---

    async def _answer(self, request: t.StreamingReq, context: RequestContext, turn: Turn) -> Frames:
        """Yield a turn's events as SSE frames, under the lease of its thread."""
        TURN_STATE.set(state := TurnState(self._store, context, self._settings.tool_seconds))
        created, thread_id = b"", getattr(request.params, "thread_id", "")
        try:
            if thread_id:
                await self._claim(turn, thread_id, context)
            async for event in self._events(request, context, turn):
                if isinstance(event, t.ThreadCreatedEvent):
                    thread_id = event.thread.id
                    created = self._frame(event, context)  # sent once its message is stored
                    turn.events += 1
                    await self._claim(turn, thread_id, context)
                else:
                    yield created + self._frame(event, context)
                    created = b""
        except (asyncio.CancelledError, Exception) as error:
            if created:  # nothing of it was stored, and the caller is told that nothing began
                turn.finishing = True  # its lease goes with its thread
                await self._files.undo_thread(thread_id, context)
            elif isinstance(error, asyncio.CancelledError) and turn.thread_id:
                await self._store_stop(thread_id, context)
            elif turn.events and isinstance(error, NotFoundError):
                return  # deleted meanwhile: there is nobody to tell
            elif turn.events:  # otherwise the response's status says it
                log.exception("answer cut short", extra={"thread_id": thread_id})
                yield self._frame(t.ErrorEvent(code=ErrorCode.STREAM_ERROR), context)
            raise
        finally:
            turn.finishing = True  # a stop now would leave the lease behind
            # a connection that was opened meanwhile keeps this context, and so the state
            state.unsaved, state.stored, state.replaced = {}, {}, None
            if thread_id and (turn.thread_id or turn.task.cancelling()):  # granted, or perhaps
                await self._store.release_turn(thread_id, turn.id, context)

    async def _events(self, request: t.StreamingReq, context: RequestContext, turn: Turn) -> Events:
        """Yield the SDK's events, and at the end or before an error what is still to be stored."""
        state = TURN_STATE.get()
        if isinstance(request, t.ThreadsRetryAfterItemReq):
            behind: list[t.ThreadItem] = []
            state.whole = True  # until the SDK begins to remove what is there
            async for item in self._paginate_thread_items_reverse(turn.thread_id, context):
                if item.id == request.params.item_id:
                    state.replaced, state.whole = behind, False
                    break
                behind.insert(0, item)
        async for event in self._process_streaming_impl(request, context):
            if isinstance(event, t.ErrorEvent):
                await patiently(self._store.load_thread, turn.thread_id, context)  # fails if gone
                turn.failed = True
                async for end in state.rest(turn.thread_id):
                    yield end
            yield event
        async for end in state.rest(turn.thread_id):
            yield end

    async def _store_stop(self, thread_id: str, context: RequestContext) -> None:
        """Store what was said before a stop, and the stop itself if it cut the answer short."""
        state = TURN_STATE.get()
        try:
            async for _ in state.rest(thread_id):
                pass
            if not state.whole:
                thread = t.ThreadMetadata(id=thread_id, created_at=datetime.now(UTC))
                await patiently(super().handle_stream_cancelled, thread, [], context)
        except NotFoundError:
            pass  # the thread was deleted meanwhile
        except Exception:
            log.exception("words lost", extra={"thread_id": thread_id})

    async def handle_stream_cancelled(self, *_: Any, **__: Any) -> None:
        """Do nothing: `_store_stop` does it, even for a stop that comes before the SDK's part.

        The SDK would drop widgets and workflows, and write partial text over finished text.
        """

    async def _claim(self, turn: Turn, thread_id: str, context: RequestContext) -> None:
        deadline = time.monotonic() + CLAIM_SECONDS
        while not await self._store.claim_turn(thread_id, turn.id, context):
            if time.monotonic() > deadline:
                text = "An answer is under way in this conversation. Stop it, or try again soon."
                raise ApiError(409, "turn_under_way", text, {"Retry-After": "2"})
            await asyncio.sleep(0.05)
        turn.thread_id = thread_id

    def _frame(self, event: t.ThreadStreamEvent, context: RequestContext) -> bytes:
        if isinstance(event, t.ErrorEvent) and event.code == ErrorCode.STREAM_ERROR:
            text = f"{UNEXPECTED[Exception]} (request {request_id_of(context)})"  # it has no text
            event = t.ErrorEvent(message=text, allow_retry=True)
        # like the SDK's `_serialize`, but without building a string first: half the time
        data = event.__pydantic_serializer__.to_json(
            event, by_alias=True, exclude_none=True, context={"exclude_metadata": True}
        )
        return b"data: %b\n\n" % self._files.links.sign(data, context)

    async def respond(
        self, thread: t.ThreadMetadata, message: t.UserMessageItem | None, context: RequestContext
    ) -> Events:
        """Stream the assistant's answer; name the thread after its first message."""
        title, old = title_of(message) if message and not thread.title else "", thread.title
        if title and await self._store.set_title_if_unchanged(thread.id, old, title, context):
            yield self._renamed(thread, title)
        chat = Chat(thread=thread, store=self._store, request_context=context)
        state = TURN_STATE.get()
        answer = run(chat, self._agent, self._settings, self._files, self._limits)
        async for event in state.keep(answer, thread):
            yield event
        state.whole = True
        if title and message and self._settings.title_model:
            naming = asyncio.create_task(self._name(thread.id, title, message, context))
            self._naming.add(naming)
            naming.add_done_callback(self._naming.remove)
            await asyncio.wait({naming}, timeout=CLAIM_SECONDS / 2)  # the list shows a late one
            if naming.done() and (new := naming.result()):
                yield self._renamed(thread, new)

    async def _name(
        self, thread_id: str, old: str, message: t.UserMessageItem, context: RequestContext
    ) -> str | None:
        """Set a better title and return it; a renamed thread keeps its name."""
        try:
            new = await title_by_model(self._agent.model, message, self._settings)
            if new and await self._store.set_title_if_unchanged(thread_id, old, new, context):
                return new
        except Exception:  # the user has the answer: a title is not worth an error
            log.exception("no title")
        return None

    def _renamed(self, thread: t.ThreadMetadata, title: str) -> t.ThreadUpdatedEvent:
        """Return the event that shows a title; the SDK would save a changed `thread` itself."""
        named = thread.model_copy(update={"title": title})
        return t.ThreadUpdatedEvent(thread=self._to_thread_response(named))

    # --- the rest of the protocol ---

    async def action(
        self,
        thread: t.ThreadMetadata,
        action: Action,
        sender: t.WidgetItem | None,
        context: RequestContext,
    ) -> Events:
        """Run the handler that `assistant.ACTIONS` names for the action's type."""
        try:
            events = ACTIONS[action.type](thread, action, sender, context)
            async for event in TURN_STATE.get().keep(events, thread):
                yield event
        except ValueError as error:  # the handler does not accept what the page sent
            log.warning("action refused", extra={"type": action.type, "place": place_of(error)})
            raise CustomStreamError(f"{NO_ACTION} (request {request_id_of(context)})") from error
        except ApiError as error:
            raise CustomStreamError(error.message) from error
        except (BaseStreamError, NotFoundError):
            raise
        except Exception as error:
            chat = Chat(thread=thread, store=self._store, request_context=context)
            raise explain(error, chat) from error

    async def sync_action(
        self,
        thread: t.ThreadMetadata,
        action: Action,
        sender: t.WidgetItem | None,
        context: RequestContext,
    ) -> t.SyncCustomActionResponse:
        """Run the handler that `assistant.SYNC_ACTIONS` names, and store what it changed."""
        known = thread.model_copy(deep=True)
        try:
            answer = await SYNC_ACTIONS[action.type](thread, action, sender, context)
        except ValueError as error:
            log.warning("action refused", extra={"type": action.type, "place": place_of(error)})
            raise ApiError(400, "action", NO_ACTION) from error
        if answer.updated_item is not None:
            await self._store.save_item(thread.id, answer.updated_item, context)
        if thread != known:
            await TurnState(self._store, context).merge(thread, known)
            await self._store.save_thread(thread, context)
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
        """Turn speech into text through the configured API; a kilobyte counts as a token."""
        self._limits.tokens.check(owner_of(context))
        self._limits.tokens.spend(owner_of(context), len(audio_input.data) // 1000)  # heard or not
        async with self._files.arriving(context):
            return await transcribe(audio_input, self._hearing, self._settings.transcribe_model)
