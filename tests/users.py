"""Users of a running app: they talk, stop, and look at what was kept."""

import asyncio
import contextlib
import json
import os
import re
import signal
from collections.abc import AsyncIterator, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx2

from baked import Session, message

TOKEN = "t" * 32
METRICS = {"Authorization": f"Bearer {TOKEN}"}
Event = dict[str, Any]
T = TypeVar("T")


class Browser(httpx2.AsyncClient):
    """One user of a running app."""

    async def op(self, kind: str, **params: Any) -> httpx2.Response:
        """Call an operation and read the whole answer."""
        return await self.post("/chatkit", json={"type": kind, "params": params})

    @asynccontextmanager
    async def talk(self, text: str, thread_id: str | None) -> AsyncIterator[AsyncIterator[Event]]:
        """Send a message and yield its events; leaving the block closes the connection."""
        body: dict[str, Any] = {"type": "threads.create", "params": {"input": message(text)}}
        if thread_id:
            body["type"] = "threads.add_user_message"
            body["params"]["thread_id"] = thread_id
        async with self.stream("POST", "/chatkit", json=body) as answer:
            assert answer.status_code == 200, await answer.aread()
            yield self._events(answer)

    @staticmethod
    async def _events(answer: httpx2.Response) -> AsyncIterator[Event]:
        async for line in answer.aiter_lines():
            if line.startswith("data: "):
                yield json.loads(line.removeprefix("data: "))

    async def stopped_after(self, words: int, thread_id: str | None) -> tuple[str, str]:
        """Send a message, receive some words, stop; return the thread and what was received."""
        received = ""
        async with self.talk("Tell me more.", thread_id) as events:
            async for event in events:
                if event["type"] == "thread.created":
                    thread_id = event["thread"]["id"]
                received += event.get("update", {}).get("delta", "")
                if received.count(" ") >= words:
                    break
        assert thread_id
        return thread_id, received

    async def answers(self, thread_id: str) -> list[str]:
        """Return the stored answers of a thread's newest items, oldest first."""
        page = await self.op("items.list", thread_id=thread_id, limit=100, order="desc")
        items = [item for item in page.json()["data"] if item["type"] == "assistant_message"]
        return [item["content"][0]["text"] for item in reversed(items)]

    async def settled(self) -> dict[str, float]:
        """Wait until no answer is under way, for at most a second; return the turns' outcomes."""
        for _ in range(100):
            text = (await self.get("/metrics", headers=METRICS)).text
            if "chat_active_streams 0.0" in text:
                found = re.findall(r'chat_turns_total\{outcome="(\w+)"\} ([\d.]+)', text)
                return {name: float(count) for name, count in found}
            await asyncio.sleep(0.01)
        raise AssertionError("an answer still goes on a second after its reader left")


def browser(session: Session) -> Browser:
    """Return a new user of the app."""
    return Browser(base_url=session.url, timeout=60)


def complete(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in a thread of its own: browser tests leave their event loop in this one."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()


def processes(session: Session, word: bytes) -> list[int]:
    """Return the ids of an app's processes whose command line has this word."""
    found, port = [], f"PORT={session.url.rpartition(':')[2]}".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (folder / "cmdline").read_bytes().split(b"\0")
            if word in words and port in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
    return found


def terminate(session: Session) -> None:
    """Send SIGTERM to the app itself: the command that started it would end without waiting."""
    for process in processes(session, b"app"):
        os.kill(process, signal.SIGTERM)


async def read_to_the_end(
    session: Session, begun: asyncio.Semaphore
) -> tuple[httpx2.Cookies, str, str]:
    """Send a message; return the cookie, the thread and all that came before the app ended."""
    received = thread_id = ""
    async with browser(session) as user:
        async with user.talk("Tell me more.", None) as events:
            with contextlib.suppress(httpx2.TransportError):
                async for event in events:
                    thread_id = event.get("thread", {}).get("id") or thread_id
                    if delta := event.get("update", {}).get("delta", ""):
                        begun.release()
                        received += delta
        return user.cookies, thread_id, received
