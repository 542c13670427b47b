"""An SSE answer that keeps what was said.

When a reader leaves, Starlette cancels the response in an anyio scope that cancels every later
`await`, too: the clean-up of a stopped answer could save nothing. So a task of its own drives the
answer and outlives the connection; the response only reads what the task has left for it.
"""

import asyncio
import logging
import secrets
from collections.abc import AsyncGenerator, Callable
from typing import Literal

from chatkit.store import NotFoundError
from fastapi.sse import EventSourceResponse
from starlette.types import Receive, Scope, Send

from .context import context_for
from .errors import ApiError
from .settings import Settings
from .store import ChatStore

log = logging.getLogger("app.streaming")
RENEW_SECONDS = 1.5
"""Time between renewals of a lease of 15 s; a renewal also notices a stop from another process."""

Frames = AsyncGenerator[bytes, None]


class Turn:
    """One answer under way: driven by its own task, read by at most one connection."""

    def __init__(self, user: str, answer: Callable[["Turn"], Frames]) -> None:
        """Start driving the answer; its end wakes whoever waits, however it comes."""
        self.id, self.user = secrets.token_hex(12), user
        self.thread_id = ""  # known from the start, or once the thread is created
        self.events = 0
        self._ready: list[bytes] = []  # unbounded: it never holds more than one answer
        self._news = asyncio.Event()
        self.failed = False  # its error was sent as an event
        self.finishing = False  # only the lease is left to release: too late for a stop
        self.task = asyncio.create_task(self.drive(answer(self)))
        self.task.add_done_callback(lambda _: self._news.set())

    async def drive(self, answer: Frames) -> None:
        """Run the whole answer; nothing but `answer` is awaited, so a cancel lands inside it."""
        async for event in answer:
            self.events += 1
            self._ready.append(event)
            self._news.set()

    @property
    def outcome(self) -> Literal["running", "done", "stopped", "failed"]:
        """Say how the answer has ended, or is about to."""
        if self.task.cancelling() or self.task.cancelled():
            return "stopped"
        if not self.task.done():
            return "running"
        return "failed" if self.failed or self.task.exception() else "done"

    def stop(self) -> None:
        """Cancel the answer, once: a second cancel would cut its clean-up short."""
        if not (self.finishing or self.task.cancelling() or self.task.done()):
            self.task.cancel()

    async def first(self) -> None:
        """Wait for the first event, so that an error before it gets a status of its own.

        Raises that error, ApiError 409 when the answer was stopped before, NotFoundError when it
        ended without an event because the thread was deleted meanwhile.
        """
        await self._news.wait()
        if self._ready:
            return
        if self.outcome == "stopped":
            raise ApiError(409, "stopped", "The answer was stopped before it began.")
        raise self.task.exception() or NotFoundError

    async def chunks(self, heartbeat: float) -> Frames:
        """Yield what is ready, in one piece; a comment after `heartbeat` seconds of silence."""
        while self._ready or not self.task.done():
            try:
                async with asyncio.timeout(heartbeat):
                    await self._news.wait()
            except TimeoutError:
                self._ready.append(b": still here\n\n")
            data, self._ready = b"".join(self._ready), []
            self._news.clear()
            yield data


class Turns:
    """All answers under way in this process."""

    def __init__(self, settings: Settings, store: ChatStore) -> None:
        """Start renewing the leases, which are in the store."""
        self._settings, self._store = settings, store
        self.running: set[Turn] = set()
        self.on_end: Callable[[Turn], None] = lambda _: None
        self._renewer = asyncio.create_task(self._keep_leases())

    def start(self, user: str, answer: Callable[[Turn], Frames]) -> Turn:
        """Start a turn of this user's; ApiError 429 past a limit."""
        of_user, limits = sum(turn.user == user for turn in self.running), self._settings
        if of_user >= limits.turns_per_user or len(self.running) >= limits.turns_total:
            text = "Too many answers are under way. Wait for one to end."
            raise ApiError(429, "too_many_turns", text, {"Retry-After": "5"})
        turn = Turn(user, answer)
        self.running.add(turn)
        turn.task.add_done_callback(lambda _: self.running.remove(turn))
        turn.task.add_done_callback(lambda _: self.on_end(turn))
        return turn

    async def _keep_leases(self) -> None:
        """Renew all leases together: one after another would be too late on a slow store."""
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            renewals = [self._renew(turn) for turn in self.running if turn.thread_id]
            # whatever one of them raises: later turns have no other renewer
            await asyncio.gather(*renewals, return_exceptions=True)

    async def _renew(self, turn: Turn) -> None:
        """Renew a turn's lease; stop the turn if it was lost, or if somebody asked for a stop."""
        try:
            if not await self._store.renew_turn(turn.thread_id, turn.id, context_for(turn.user)):
                turn.stop()
        except Exception:
            log.exception("lease not renewed", extra={"thread_id": turn.thread_id})

    def stop_thread(self, user: str, thread_id: str) -> bool:
        """Stop this user's answer in this thread; say whether one ran in this process."""
        found = [t for t in self.running if (t.user, t.thread_id) == (user, thread_id)]
        for turn in found:
            turn.stop()
        return bool(found)

    async def close(self) -> None:
        """Stop the answers and wait for their clean-up.

        Those with a connection, even one whose reader is gone, had uvicorn's grace period to end.
        """
        for turn in self.running:
            turn.stop()
        await asyncio.gather(*(turn.task for turn in self.running), return_exceptions=True)
        self._renewer.cancel()
        await asyncio.wait({self._renewer})


class EventStream(EventSourceResponse):
    """The connection's side of a turn: sends what is ready, and notices when the reader leaves."""

    def __init__(self, turn: Turn, settings: Settings) -> None:
        """Answer with the events of `turn`; the headers keep proxies from holding them."""
        self._turn, self._finishes = turn, settings.on_disconnect == "finish"
        headers = {"Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no"}
        super().__init__(turn.chunks(settings.heartbeat_seconds), headers=headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the turn ends, even to nobody: this makes uvicorn wait for its end.

        A reader who leaves is noticed even while `send` is waiting.
        """
        gone = asyncio.create_task(self.listen_for_disconnect(receive))
        if not self._finishes:
            gone.add_done_callback(lambda _: self._turn.stop())
        try:
            await self.stream_response(send)
        except asyncio.CancelledError:  # uvicorn's grace is over: end as a stop does
            self._turn.stop()
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            gone.cancel()
