"""An SSE answer that keeps what was said.

When a reader leaves, Starlette cancels the response in an anyio scope that cancels every later
`await`, too: the clean-up of a stopped answer could save nothing. So a task of its own drives the
answer and outlives the connection; the response only reads what the task has left for it.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Literal

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from .errors import ApiError

log = logging.getLogger("app.streaming")
RENEW_SECONDS = 1.5
"""Time between renewals of a lease of 15 s; a renewal also notices a stop from another process."""


class Turn:
    """One answer under way: driven by its own task, read by at most one connection."""

    def __init__(self, turn_id: str, user: str) -> None:
        """Prepare the turn; `Turns.start` sets it going."""
        self.id, self.user = turn_id, user
        self.thread_id = ""  # known from the start, or once the thread is created
        self.events = 0
        self.first_event_seconds: float | None = None
        self.outcome: Literal["running", "done", "stopped", "failed"] = "running"
        self._started = time.monotonic()
        self._ready: list[bytes] = []  # unbounded: it never holds more than one answer
        self._error: Exception | None = None
        self._news = asyncio.Event()
        self._unread = False  # the reader is gone; the answer may go on
        self.finishing = False  # only the lease is left to release: too late for a stop
        self.task: asyncio.Task[None] | None = None

    async def drive(self, answer: AsyncGenerator[bytes, None]) -> None:
        """Run the whole answer; nothing but `answer` is awaited, so a cancel lands inside it."""
        try:
            async for event in answer:
                if self.first_event_seconds is None:
                    self.first_event_seconds = time.monotonic() - self._started
                self.events += 1
                if not self._unread:
                    self._ready.append(event)
                    self._news.set()
            self.outcome = "done"
        except asyncio.CancelledError:
            self.outcome = "stopped"
        except Exception as error:
            self.outcome, self._error = "failed", error  # `first` raises it
            if self.events:  # but not once the response has begun
                log.exception("answer cut short", extra={"thread_id": self.thread_id})

    @property
    def running(self) -> bool:
        """Say whether the answer or its clean-up still runs, whatever `outcome` says by then."""
        return self.task is None or not self.task.done()

    def begin(self, answer: AsyncGenerator[bytes, None]) -> asyncio.Task[None]:
        """Start to drive the answer; whoever waits hears of the end, however it comes."""
        self.task = asyncio.create_task(self.drive(answer))
        self.task.add_done_callback(lambda _: self._news.set())
        return self.task

    def stop(self) -> None:
        """Cancel the answer, once: a second cancel would cut its clean-up short."""
        if self.task and self.running and not (self.finishing or self.task.cancelling()):
            self.outcome = "stopped"
            self.task.cancel()

    def leave(self) -> None:
        """Throw away what is ready and what will be: nobody reads it any more."""
        self._unread = True
        self._ready.clear()
        self._news.set()

    async def first(self) -> None:
        """Wait for the first event, so that an error before it gets a status of its own.

        Raises:
            Exception: what the answer raised before its first event.
            ApiError: 409 when it was stopped before its first event, 404 when it has none.
        """
        await self._news.wait()
        if self._error is not None:
            raise self._error
        if not self._ready and self.outcome == "stopped":
            raise ApiError(409, "stopped", "The answer was stopped before it began.")
        if not self._ready:
            raise ApiError(404, "not_found", "There is no such thread, message or file.")

    async def chunks(self, heartbeat: float) -> AsyncGenerator[bytes, None]:
        """Yield what is ready, in one piece; a comment after `heartbeat` seconds of silence."""
        while not self._unread:
            if self._ready:
                data, self._ready = b"".join(self._ready), []
                yield data
                continue
            if not self.running:
                return
            self._news.clear()
            try:
                async with asyncio.timeout(heartbeat):
                    await self._news.wait()
            except TimeoutError:
                yield b": still here\n\n"


class Turns:
    """All answers under way in this process."""

    def __init__(
        self,
        renew: Callable[[Turn], Awaitable[bool]],
        *,
        on_disconnect: Literal["cancel", "finish"],
        per_user: int,
        total: int,
    ) -> None:
        """Keep the limits; `renew` extends a turn's lease and says whether the turn may go on."""
        self._renew, self._on_disconnect = renew, on_disconnect
        self._per_user, self._total = per_user, total
        self._running: set[Turn] = set()
        self.on_end: Callable[[Turn], None] = lambda _: None
        self.grace_over = False  # True once uvicorn has waited: `close` then does not
        self._closing = False
        self._renewer: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        """Return how many answers are under way."""
        return len(self._running)

    def start(self, turn: Turn, answer: AsyncGenerator[bytes, None]) -> None:
        """Set a turn going.

        Raises:
            ApiError: 429 past a limit, 503 when the app is shutting down.
        """
        if self._closing:
            raise ApiError(503, "closing", "The service restarts. Try again in a moment.")
        of_user = sum(other.user == turn.user for other in self._running)
        if of_user >= self._per_user or len(self) >= self._total:
            text = "Too many answers are under way. Wait for one to end."
            raise ApiError(429, "too_many_turns", text, {"Retry-After": "5"})
        self._running.add(turn)
        turn.begin(answer).add_done_callback(lambda _: self._ended(turn))
        if self._renewer is None or self._renewer.done():
            self._renewer = asyncio.create_task(self._keep_leases())

    def _ended(self, turn: Turn) -> None:
        self._running.remove(turn)
        self.on_end(turn)

    async def _keep_leases(self) -> None:
        """Renew all leases at once: on a slow store, one after the other would be too late."""
        while self._running:
            await asyncio.sleep(RENEW_SECONDS)
            await asyncio.gather(*map(self._keep_lease, self._running))

    async def _keep_lease(self, turn: Turn) -> None:
        """Stop a turn that lost its lease or was asked to stop."""
        try:
            if turn.running and turn.thread_id and not await self._renew(turn):
                turn.stop()
        except Exception:
            log.exception("lease not renewed", extra={"thread_id": turn.thread_id})

    def disconnected(self, turn: Turn) -> None:
        """Apply ON_DISCONNECT to an answer that nobody reads any more."""
        turn.leave()
        if self._on_disconnect == "cancel":
            turn.stop()

    def stop_thread(self, user: str, thread_id: str) -> bool:
        """Stop this user's answer in this thread; say whether one ran in this process."""
        found = [t for t in self._running if (t.user, t.thread_id) == (user, thread_id)]
        for turn in found:
            turn.stop()
        return bool(found)

    async def close(self, grace: float) -> None:
        """Give the answers `grace` seconds to end, then stop them and wait for their clean-up."""
        self._closing = True
        if tasks := [turn.task for turn in self._running if turn.task]:
            await asyncio.wait(tasks, timeout=0 if self.grace_over else grace)
            for turn in self._running:
                turn.stop()
            await asyncio.gather(*tasks, return_exceptions=True)
        if self._renewer is not None:
            self._renewer.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._renewer


class EventStream(Response):
    """The connection's side of a turn: sends what is ready, and notices when the reader leaves."""

    media_type = "text/event-stream"

    def __init__(self, turn: Turn, turns: Turns, heartbeat: float) -> None:
        """Answer with the events of `turn`; X-Accel-Buffering keeps nginx from holding them."""
        self._turn, self._turns, self._heartbeat = turn, turns, heartbeat
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(headers=headers, media_type=self.media_type)
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the turn ends or the reader is gone, noticed even while `send` is waiting."""
        gone = asyncio.create_task(self._gone(receive))
        gone.add_done_callback(lambda _: self._turns.disconnected(self._turn))
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            async for data in self._turn.chunks(self._heartbeat):
                await send({"type": "http.response.body", "body": data, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except OSError:
            log.debug("reader gone", extra={"thread_id": self._turn.thread_id})
        except asyncio.CancelledError:  # uvicorn's grace is over: end as a stop does
            self._turns.grace_over = True
            self._turn.leave()
            self._turn.stop()
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            gone.cancel()

    @staticmethod
    async def _gone(receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
