"""The app behind a real uvicorn and real HTTP, in the test's own event loop."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import uvicorn
from agents import ModelSettings, Tool, TResponseInputItem
from agents.items import TResponseStreamEvent
from agents.models.interface import Model
from fastapi import FastAPI

from app.auth import Authenticator
from app.context import RequestContext, context_for
from app.filetypes import EXTENSIONS
from app.main import create_app
from app.offline import OfflineModel
from app.settings import Settings
from app.store import ChatStore as Store
from app.streaming import Turns

SECRET = "0123456789abcdef0123456789abcdef"
Event = dict[str, Any]


class Words(OfflineModel):
    """A model that streams numbered words, and records what it was given and that it ended."""

    def __init__(self, count: int = 200, delay: float = 0.005) -> None:
        """Say `count` words, `delay` seconds apart."""
        super().__init__(delay)
        self.count = count
        self.given: list[list[Any]] = []
        self.ended = 0

    async def stream_response(
        self,
        system_instructions: str | None,
        input: str | list[TResponseInputItem],  # noqa: A002 - the interface's name
        model_settings: ModelSettings,
        tools: list[Tool],
        *args: Any,
        **kwargs: Any,
    ) -> AsyncIterator[TResponseStreamEvent]:
        """Stream the words; count the end, however it comes."""
        self.given.append(list(input))
        try:
            async for event in super().stream_response(
                system_instructions, input, model_settings, tools, *args, **kwargs
            ):
                yield event
        finally:
            self.ended += 1

    def answer(self, items: list[Any], said: list[str]) -> str:
        """Return the numbered words."""
        return " ".join(f"w{n}" for n in range(self.count))


class Caller(httpx2.AsyncClient):
    """One browser: the app it talks to, its cookie, and the protocol's operations."""

    def __init__(self, served: "Served", **headers: str) -> None:
        """Begin without a cookie."""
        # verify=False: there is no TLS here, and reading the certificates takes 50 ms
        super().__init__(base_url=served.url, headers=headers, timeout=30, verify=False)
        self.served = served

    async def op(self, kind: str, /, **params: Any) -> httpx2.Response:
        """Call an operation and read the whole answer."""
        return await self.post("/chatkit", json={"type": kind, "params": params})

    @asynccontextmanager
    async def events(self, kind: str, **params: Any) -> AsyncIterator[AsyncIterator[Event]]:
        """Call a streaming operation; leaving the block closes the connection, as Stop does."""
        body = {"type": kind, "params": params}
        async with self.stream("POST", "/chatkit", json=body) as response:
            assert response.status_code == 200, await response.aread()
            yield read_events(response)

    async def answer(self, kind: str, **params: Any) -> list[Event]:
        """Call a streaming operation and return every event of the answer."""
        async with self.events(kind, **params) as events:
            return [event async for event in events]

    async def say(self, text: str, thread_id: str | None = None, **extra: Any) -> list[Event]:
        """Send a message and return every event of the answer."""
        kind, params = message(text, thread_id, **extra)
        return await self.answer(kind, **params)

    async def ask(self, text: str, thread_id: str | None = None, **extra: Any) -> httpx2.Response:
        """Send a message that may be refused, and read the whole response."""
        kind, params = message(text, thread_id, **extra)
        return await self.op(kind, **params)

    async def items(self, thread_id: str) -> list[Event]:
        """Return the thread's items as the page would see them after a reload."""
        answer = await self.op("items.list", thread_id=thread_id, limit=100, order="asc")
        found: list[Event] = answer.json()["data"]
        return found


async def read_events(response: httpx2.Response) -> AsyncIterator[Event]:
    """Yield an answer's events, without the comments."""
    async for line in response.aiter_lines():
        if line.startswith("data: "):
            yield json.loads(line.removeprefix("data: "))


def message(text: str, thread_id: str | None = None, **extra: Any) -> tuple[str, dict[str, Any]]:
    """Return the operation and parameters of a user's message."""
    part = {"type": "input_text", "text": text}
    user_input = {"content": [part], "attachments": [], "inference_options": {}} | extra
    if thread_id is None:
        return "threads.create", {"input": user_input}
    return "threads.add_user_message", {"thread_id": thread_id, "input": user_input}


def thread_of(events: list[Event]) -> str:
    """Return the id of the thread that these events created."""
    return str(events[0]["thread"]["id"])


def text_of(events: list[Event]) -> str:
    """Return the text that the events streamed."""
    updates = (event["update"] for event in events if event["type"] == "thread.item.updated")
    return "".join(update["delta"] for update in updates if "delta" in update)


class Served:
    """A running app and its address."""

    def __init__(self, app: FastAPI, url: str) -> None:
        """Keep both, and the parts of the app that tests look at most."""
        self.app, self.url = app, url
        self.store: Store = app.state.store
        self.turns: Turns = app.state.server.turns

    def caller(self, **headers: str) -> Caller:
        """Return a new browser."""
        return Caller(self, **headers)

    async def first_user(self) -> RequestContext:
        """Return the context of a user who has something stored: in most tests the only one."""
        return context_for(await anext(self.store.owners()))

    async def settled(self) -> None:
        """Wait until no answer is under way."""
        await until(lambda: not self.turns.running)


class Server(uvicorn.Server):
    """uvicorn without its signal handlers (they are pytest's here) and its pauses at the end."""

    def __init__(self, config: uvicorn.Config, grace: float) -> None:
        """Prepare the server; `grace` is how many seconds answers have to end."""
        super().__init__(config)
        self.stopping, self.grace = asyncio.Event(), grace

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the app; uvicorn's own exit would end pytest, with no word of the reason."""
        try:
            await super().startup(sockets)
        except SystemExit:
            raise RuntimeError("the app did not start: the log has its error") from None

    async def main_loop(self) -> None:
        """Serve until the test ends."""
        await self.stopping.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Give answers their grace to end, then end the app."""
        for connection in list(self.server_state.connections):
            connection.shutdown()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.grace):
                while self.server_state.connections or self.server_state.tasks:  # noqa: ASYNC110
                    await asyncio.sleep(0.001)
        for task in self.server_state.tasks:
            task.cancel()
        for server in self.servers:
            server.close()
        await self.lifespan.shutdown()


@asynccontextmanager
async def serving(
    settings: Settings, model: Model | None = None, auth: Authenticator | None = None
) -> AsyncIterator[Served]:
    """Serve the app on a free port of loopback for as long as the block lasts."""
    app = create_app(settings, model=model, auth=auth or Authenticator(settings))
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        config = uvicorn.Config(app, log_config=None, access_log=False)
        server = Server(config, settings.shutdown_seconds + 0.1)
        task = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started:
            if task.done():
                await task  # raises what `startup` raised
            await asyncio.sleep(0.001)
        try:
            yield Served(app, f"http://127.0.0.1:{listener.getsockname()[1]}")
        finally:
            server.stopping.set()
            await task


def settings_for(store_url: str, folder: Path, **changes: Any) -> Settings:
    """Return settings that no `.env`, no environment and none of a team's usual defaults change."""
    base: dict[str, Any] = {"store_url": store_url, "data_dir": folder, "openai_api_key": ""}
    base |= {"model": "gpt-5-mini", "title_model": "", "transcribe_model": "", "history_items": 50}
    base |= {"model_api": "responses", "on_disconnect": "cancel", "file_types": [*EXTENSIONS]}
    return Settings(_env_file=None, **(base | {"requests_per_minute": 100_000} | changes))


def production(store_url: str, folder: Path, **changes: Any) -> Settings:
    """Return the settings of a production app."""
    base: dict[str, Any] = {
        "environment": "production",
        "secret_key": SECRET,
        "chatkit_domain_key": "domain_pk_real",
        "allowed_hosts": "Chat.Example.com",
    }
    return settings_for(store_url, folder, **(base | changes))


async def until(condition: Callable[[], bool]) -> None:
    """Wait until the condition holds, for at most five seconds."""
    for _ in range(500):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise TimeoutError


@asynccontextmanager
async def created(caller: Caller, text: str) -> AsyncIterator[tuple[str, AsyncIterator[Event]]]:
    """Send a first message; yield its thread as soon as it exists, and the events that follow."""
    kind, params = message(text)
    async with caller.events(kind, **params) as events:
        yield thread_of([await anext(events)]), events


@asynccontextmanager
async def begun(caller: Caller, text: str) -> AsyncIterator[tuple[str, AsyncIterator[Event]]]:
    """Send a first message; yield its thread, and the events after the answer's first words."""
    async with created(caller, text) as (thread_id, events):
        async for event in events:
            if event["type"] == "thread.item.updated":
                break
        yield thread_id, events


async def read_some(caller: Caller, thread_id: str | None, words: int) -> tuple[str, str]:
    """Send a message, read some words, and stop by closing the connection."""
    kind, params = message("go on", thread_id)
    seen: list[Event] = []
    async with caller.events(kind, **params) as events:
        async for event in events:
            seen.append(event)
            if text_of(seen).count(" ") >= words:
                break
    return thread_id or thread_of(seen), text_of(seen)
