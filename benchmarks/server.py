"""The server against the stock SDK and a bare SSE answer, side by side in one run.

`python benchmarks/server.py` bakes the memory app, imports it and prints a table. The ratios to the
stock SDK are measured in one process through ASGI, without a network: they are the code's own
cost. The rate against a bare answer is measured over HTTP on loopback, as a reader sees it.
"""

import argparse
import asyncio
import gc
import importlib
import json
import platform
import socket
import subprocess
import sys
import tempfile
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn
from asking import CREATE, Asgi, body_of, consume, message
from chatkit import types
from chatkit.server import ChatKitServer
from measure import Work, medians
from starlette.responses import Response, StreamingResponse

ROOT = Path(__file__).parent.parent
DELTAS = 200
MODULES = ("context", "store", "settings", "attachments", "limits", "server", "streaming")
MODULES += ("assistant", "checks", "offline")


def bake(folder: Path) -> Path:
    """Bake the default app into a folder and return its path."""
    command = [sys.executable, "-m", "cookiecutter", str(ROOT), "--no-input", "-o", str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    return next(folder.iterdir())


class Bench:
    """The parts under test, made once."""

    def __init__(self, folder: Path) -> None:
        """Import the baked app."""
        sys.path.insert(0, str(folder))
        warnings.simplefilter("ignore")
        app = {name: importlib.import_module(f"app.{name}") for name in MODULES}
        self.context = app["context"].RequestContext(user_id="bench")
        self.store = app["store"].ChatStore()
        self.stream = app["streaming"].EventStream
        settings = app["settings"].Settings(_env_file=None, data_dir=folder / ".data")
        self.settings, self.parse = settings, app["checks"].parse
        files = app["attachments"].Files(settings, self.store)
        limits = app["limits"].Limits(settings)
        self.silence = asyncio.Event()

        async def respond(_: object, thread: Any, *__: object) -> AsyncIterator[Any]:
            """Say one message in many deltas, as a model does."""
            item_id = self.store.generate_item_id("message", thread, self.context)
            place = {"thread_id": thread.id, "created_at": thread.created_at}
            item = types.AssistantMessageItem(id=item_id, content=[], **place)
            yield types.ThreadItemAddedEvent(item=item)
            for _ in range(DELTAS):
                delta = types.AssistantMessageContentPartTextDelta(content_index=0, delta="word ")
                yield types.ThreadItemUpdatedEvent(item_id=item_id, update=delta)
            said = types.AssistantMessageContent(text="word " * DELTAS)
            yield types.ThreadItemDoneEvent(item=item.model_copy(update={"content": [said]}))

        async def idle(_: object, thread: Any, *__: object) -> AsyncIterator[Any]:
            await self.silence.wait()
            yield types.ProgressUpdateEvent(text=thread.id)

        stock = type("Stock", (ChatKitServer,), {"respond": respond})
        ours = type("Ours", (app["server"].AppServer,), {"respond": respond})
        quiet = type("Quiet", (app["server"].AppServer,), {"respond": idle})
        self.stock = stock(self.store)
        self.ours = ours(self.store, files, None, settings, limits)
        roomy = settings.model_copy(update={"turns_per_user": 10**6, "turns_total": 10**6})
        self.quiet = quiet(self.store, files, None, roomy, limits)
        agent = app["assistant"].make_agent(settings, app["offline"].OfflineModel(0))
        self.real = app["server"].AppServer(self.store, files, agent, settings, limits)

    async def stock_answer(self, body: bytes) -> Asgi:
        """Answer as upstream's quick start does."""
        result = await self.stock.process(body, self.context)
        if hasattr(result, "json"):
            return Response(result.json, media_type="application/json")
        return StreamingResponse(result, media_type="text/event-stream")

    async def our_answer(self, server: Any, body: bytes) -> Asgi:
        """Answer as the app's route does, with one of the app's servers."""
        answer = await server.handle(self.parse(body, self.settings), self.context)
        if isinstance(answer, bytes):
            return Response(answer, media_type="application/json")
        return self.stream(answer, self.settings)

    async def thread_of(self, count: int) -> str:
        """Store a thread of `count` items, the last a question; return its id."""
        thread_id = f"thread_of_{count}"
        base = {"thread_id": thread_id, "created_at": datetime(2026, 1, 1, tzinfo=UTC)}
        thread = types.ThreadMetadata(id=thread_id, title="t", created_at=base["created_at"])
        await self.store.save_thread(thread, self.context)
        for n in range(1, count + 1):
            if (count - n) % 2:
                part = types.AssistantMessageContent(text="an answer of some words " * 8)
                item = types.AssistantMessageItem(id=f"i{n}", content=[part], **base)
            else:
                part = types.UserMessageTextContent(text="a question of some words")
                chosen = types.InferenceOptions()
                content = {"content": [part], "inference_options": chosen}
                item = types.UserMessageItem(id=f"i{n}", attachments=[], **content, **base)
            await self.store.add_thread_item(thread_id, item, self.context)
        return thread_id


async def idle_bytes(bench: Bench, threads: list[str]) -> float:
    """Return how much memory one open, silent stream takes: the growth of this process."""
    gc.collect()
    before = resident()
    tasks = []
    for thread_id in threads:
        asked = bench.parse(message(thread_id), bench.settings)
        turn = await bench.quiet.handle(asked, bench.context)
        stream = bench.stream(turn, bench.settings)
        tasks.append(asyncio.create_task(consume(stream)))
    await asyncio.sleep(0.5)
    gc.collect()
    grown = resident() - before
    bench.silence.set()
    await asyncio.gather(*tasks)
    return grown / len(threads)


def resident() -> int:
    """Return this process's resident memory in bytes."""
    with Path("/proc/self/statm").open() as file:
        return int(file.read().split()[1]) * 4096


def main() -> None:
    """Print the table; write it as JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--streams", type=int, default=2000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = asyncio.run(measure(bake(Path(folder)), options.rounds, options.streams))
    print(f"Python {platform.python_version()}, {platform.machine()}, {options.rounds} rounds\n")
    print("| what | figure | target |\n| --- | --- | --- |")
    for name, figure, target in rows:
        print(f"| {name} | {figure} | {target} |")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


async def measure(folder: Path, rounds: int, streams: int) -> list[tuple[str, str, str]]:
    """Return the table's rows."""
    bench = Bench(folder)

    async def new_thread() -> str:
        created = await consume(await bench.stock_answer(CREATE))
        return str(json.loads(created[1].removeprefix(b"data: "))["thread"]["id"])

    thread_id = await new_thread()
    get, say = body_of("threads.get_by_id", thread_id=thread_id), message(thread_id)

    def asgi(make: Callable[[bytes], Awaitable[Asgi]], body: bytes) -> Work:
        async def once() -> None:
            await consume(await make(body))

        return once

    ours = partial(bench.our_answer, bench.ours)
    servers = {"stock": bench.stock_answer, "ours": ours}
    gets = await medians(rounds, {n: asgi(make, get) for n, make in servers.items()})
    says = await medians(rounds, {n: asgi(make, say) for n, make in servers.items()})
    turns, real = {}, partial(bench.our_answer, bench.real)
    for count in (30, 300):  # the same question, answered again: the thread keeps its length
        place = {"thread_id": await bench.thread_of(count), "item_id": f"i{count}"}
        turns[f"{count}"] = asgi(real, body_of("threads.retry_after_item", **place))
    turn = await medians(rounds, turns)
    whole = b"".join(await consume(await ours(say)))
    frames = [part + b"\n\n" for part in whole.split(b"\n\n") if part]
    wire = await over_http(bench, frames, say, rounds)
    idle = await idle_bytes(bench, [await new_thread() for _ in range(streams)])
    events = len(frames)
    return [
        ("threads.get_by_id, stock SDK", f"{gets['stock'] / 1e3:.2f} ms", ""),
        ("threads.get_by_id, this app", f"{gets['ours'] / 1e3:.2f} ms", ""),
        ("threads.get_by_id, ratio", f"{gets['ours'] / gets['stock']:.3f}", "at most 0.08"),
        (f"stream of {events} events, stock SDK", f"{says['stock'] / 1e3:.2f} ms", ""),
        (f"stream of {events} events, this app", f"{says['ours'] / 1e3:.2f} ms", ""),
        ("stream, ratio", f"{says['ours'] / says['stock']:.2f}", "at most 0.5"),
        ("a turn in a thread of 30 items", f"{turn['30'] / 1e3:.2f} ms", ""),
        ("a turn in a thread of 300 items", f"{turn['300'] / 1e3:.2f} ms", ""),
        ("300 against 30, ratio", f"{turn['300'] / turn['30']:.2f}", "at most 1.2"),
        ("over HTTP: bare SSE of the same events", f"{wire['bare'] / 1e3:.2f} ms", ""),
        ("over HTTP: this app", f"{wire['ours'] / 1e3:.2f} ms", ""),
        ("over HTTP: rate against bare", f"{wire['bare'] / wire['ours']:.2f}", "at least 0.3"),
        (f"an idle stream, of {streams}", f"{idle / 1024:.0f} KiB", "at most 64 KiB"),
    ]


async def over_http(
    bench: Bench, frames: list[bytes], body: bytes, rounds: int
) -> dict[str, float]:
    """Return the times of a bare answer and of ours, each over its own connection."""

    async def bare() -> AsyncIterator[bytes]:
        for frame in frames:
            yield frame

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        if scope["path"] == "/bare":
            answer = StreamingResponse(bare(), media_type="text/event-stream")
        else:
            await receive()
            answer = await bench.our_answer(bench.ours, body)
        await answer(scope, receive, send)

    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_level="error"))
    serving = asyncio.create_task(server.serve([listener]))

    def call(path: str) -> Work:
        async def once() -> None:
            reader, writer = await asyncio.open_connection(*listener.getsockname())
            head = f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: "
            writer.write(f"{head}{len(body)}\r\n\r\n".encode() + body)
            assert (await reader.read()).count(b"data: ") >= len(frames)
            writer.close()

        return once

    found = await medians(rounds, {"bare": call("/bare"), "ours": call("/ours")})
    server.should_exit = True
    await serving
    return found


if __name__ == "__main__":
    main()
