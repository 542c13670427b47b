"""`python -m app export|forget|purge|import|sweep`: a user's data, out, away and in again.

An export is JSON lines, each with its `owner` and one of `thread`, `attachment`, `item` or
`feedback`; a thread comes before what belongs to it. `import` reads it back, also into an app
with another storage type: that is the way from one to the other.
"""

import argparse
import asyncio
import base64
import json
import os
import re
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import nullcontext, suppress
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar

from chatkit.store import NotFoundError
from chatkit.types import Attachment, Page, ThreadItem, ThreadMetadata

from .attachments import Files, size_of
from .blobs import PARTS, key_of, owner_in
from .context import RequestContext, context_for
from .settings import Settings
from .store import ATTACHMENT, ITEM, ChatStore, open_store, sort_time

T = TypeVar("T")
Line = dict[str, Any]
PAGE = 100
BATCH_LINES, BATCH_CHARS = 1000, 32 << 20
"""How much an import holds at once; the threads of a batch are written side by side."""
CLEAR = "\r\x1b[K"
UNITS = {"h": 3600, "d": 86_400, "w": 7 * 86_400}


class DataError(RuntimeError):
    """One sentence that says why the command cannot go on."""


class Counts(dict[str, int]):
    """What was done so far, shown as it grows when somebody watches."""

    shown = 0.0

    def add(self, name: str, number: int = 1) -> None:
        """Count; show it on a terminal, five times a second at most."""
        self[name] = self.get(name, 0) + number
        if sys.stderr.isatty() and time.monotonic() > self.shown + 0.2:
            self.shown = time.monotonic()
            sys.stderr.write(f"{CLEAR}{self}")

    def end(self, command: str) -> None:
        """Say in one line what was done."""
        sys.stderr.write(f"{CLEAR if self.shown else ''}{command}: {self}\n")

    def __str__(self) -> str:
        """Return `3 threads, 41 items`."""
        return ", ".join(f"{number:,} {name}" for name, number in self.items()) or "nothing"


def main(arguments: list[str], settings: Settings) -> int:
    """Run a command; return 0, 1 when there was nothing to do it to, 2 for what can be mended."""
    parser = argparse.ArgumentParser(prog="python -m app", description="Look after users' data.")
    commands = parser.add_subparsers(dest="command", required=True)
    export = commands.add_parser("export", help="write a user's data to the standard output")
    who = export.add_mutually_exclusive_group(required=True)
    who.add_argument("user", nargs="?")
    who.add_argument("--all", action="store_true", help="every user's")
    load = commands.add_parser("import", help="read an export back")
    load.add_argument("file", nargs="?", help="the export; without it, the standard input")
    commands.add_parser("forget", help="delete all that a user has").add_argument("user")
    purge = commands.add_parser("purge", help="delete threads in which nobody wrote for long")
    purge.add_argument("--older-than", type=_seconds, required=True, metavar="90d")
    commands.add_parser("sweep", help="remove uploads never sent and bytes without a record")
    try:
        return asyncio.run(_run(parser.parse_args(arguments), settings))
    except BrokenPipeError:  # the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (DataError, OSError, UnicodeDecodeError) as error:
        sys.stderr.write(f"{error}\n")
        return 2


def _seconds(text: str) -> float:
    found = re.fullmatch(r"(\d{1,6})([hdw])", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r}: write a number and h, d or w, such as 90d")
    return float(found[1]) * UNITS[found[2]]


async def _run(options: argparse.Namespace, settings: Settings) -> int:
    counts = Counts()
    async with open_store(settings) as store, Files.open(settings, store) as files:
        match options.command:
            case "export":
                everyone = [owner async for owner in store.owners()]
                for owner in everyone if options.all else [options.user]:
                    async for line in export_lines(owner, store, files, counts):
                        sys.stdout.write(json.dumps(line) + "\n")
                sys.stdout.flush()
            case "import":
                path = options.file and Path(options.file)
                with path.open(encoding="utf-8") if path else nullcontext(sys.stdin) as lines:
                    await import_lines(lines, store, files, counts)
            case "forget":
                await forget(options.user, store, files, counts)
            case "purge":
                await purge(options.older_than, store, files, counts)
            case "sweep":
                records, objects = await files.sweep()
                counts |= {"records": records, "objects": objects}
    counts.end(options.command)
    return 0 if counts or options.command not in ("export", "forget") else 1


async def _walk(load: Callable[[str | None], Awaitable[Page[T]]]) -> AsyncIterator[T]:
    """Yield the elements of every page."""
    after = None
    while True:
        page = await load(after)
        if after and not page.data:  # the element at the cursor was deleted
            raise DataError("The data changed while it was read. Run the command again.")
        for element in page.data:
            yield element
        if not page.has_more:
            return
        after = page.after


async def export_lines(
    owner: str, store: ChatStore, files: Files, counts: Counts
) -> AsyncIterator[Line]:
    """Yield all that an owner has; one thread's page or one file is in memory at a time."""
    context = context_for(owner)
    async for thread in _walk(lambda after: store.load_threads(PAGE, after, "asc", context)):
        counts.add("threads")
        inside = {"owner": owner, "thread_id": thread.id}
        yield {"owner": owner, "thread": thread.model_dump(mode="json")}
        for attachment in await store.load_attachments(thread.id, context):
            yield inside | await _file_line(attachment, files, context, counts)

        def load(after: str | None, thread_id: str = thread.id) -> Awaitable[Page[ThreadItem]]:
            return store.load_thread_items(thread_id, after, PAGE, "asc", context)

        async for item in _walk(load):
            counts.add("items")
            yield inside | {"item": item.model_dump(mode="json")}
        if feedback := await store.load_feedback(thread.id, context):
            yield inside | {"feedback": feedback}
    for attachment in await store.load_attachments(None, context):
        if attachment.thread_id is None:
            yield {"owner": owner} | await _file_line(attachment, files, context, counts)


async def _file_line(
    attachment: Attachment, files: Files, context: RequestContext, counts: Counts
) -> Line:
    counts.add("files")
    line: Line = {"attachment": attachment.model_dump(mode="json")}
    for part in PARTS:
        try:
            data = b"".join([chunk async for chunk in files.read(attachment, context, part)])
            line[f"bytes{part}"] = base64.b64encode(data).decode()
        except NotFoundError:
            continue  # no preview, or an upload that was announced and never came
    return line


async def import_lines(
    lines: Iterable[str], store: ChatStore, files: Files, counts: Counts
) -> None:
    """Write an export; once more does no harm, so what was interrupted can be run again.

    Raises:
        DataError: names the line that cannot be read or stored.
    """
    turn = asyncio.Semaphore(16)

    async def write(group: list[tuple[int, Line]]) -> None:
        async with turn:
            for number, line in group:
                await _at(number, _write(line, store, files, counts))

    for batch in _batches(lines):
        groups: dict[tuple[str, str], list[tuple[int, Line]]] = {}
        for number, text in batch:
            line = _parsed(number, text)
            if "thread" in line:  # one after the other: equal times are in the order of saving
                await _at(number, _write(line, store, files, counts))
            else:
                key = line["owner"], str(line.get("thread_id"))
                groups.setdefault(key, []).append((number, line))
        try:
            async with asyncio.TaskGroup() as tasks:
                for group in groups.values():
                    tasks.create_task(write(group))
        except ExceptionGroup as several:
            raise several.exceptions[0] from None


def _batches(lines: Iterable[str]) -> Iterator[list[tuple[int, str]]]:
    batch, size = list[tuple[int, str]](), 0
    for number, text in enumerate(lines, 1):
        batch.append((number, text))
        size += len(text)
        if len(batch) == BATCH_LINES or size > BATCH_CHARS:
            yield batch
            batch, size = list[tuple[int, str]](), 0
    yield batch


def _parsed(number: int, text: str) -> Line:
    with suppress(ValueError):
        line = json.loads(text)
        if isinstance(line, dict) and isinstance(line.get("owner"), str):
            return line
    raise DataError(f"Line {number} is no line of an export.")


async def _at(number: int, work: Awaitable[None]) -> None:
    """Wait for the work; say at which line it failed."""
    try:
        await work
    except (ValueError, KeyError, TypeError, NotFoundError) as error:
        reason = str(error).partition("\n")[0]
        raise DataError(f"Line {number} cannot be stored: {reason}") from error


async def _write(line: Line, store: ChatStore, files: Files, counts: Counts) -> None:
    context = context_for(line["owner"])
    match line:
        case {"thread": document}:
            thread = ThreadMetadata.model_validate(document)
            await store.undelete_thread(thread.id, context)
            await store.save_thread(thread, context)
            counts.add("threads")
        case {"attachment": document}:
            attachment = ATTACHMENT.validate_python(document)
            for part in PARTS:
                if f"bytes{part}" in line:
                    data = base64.b64decode(line[f"bytes{part}"], validate=True)
                    await files.write(attachment, BytesIO(data), context, part)
            await store.save_attachment(attachment, context)
            counts.add("files")
        case {"item": document, "thread_id": str(thread_id)}:
            await store.add_thread_item(thread_id, ITEM.validate_python(document), context)
            counts.add("items")
        case {"feedback": dict(feedback), "thread_id": str(thread_id)}:
            for item_id, kind in feedback.items():
                await store.save_feedback(thread_id, [item_id], kind, context)
        case _:
            raise ValueError("it holds neither a thread nor a file, an item or feedback")


async def forget(owner: str, store: ChatStore, files: Files, counts: Counts) -> None:
    """Delete all threads and files of an owner, bytes without a record included."""
    context = context_for(owner)
    while threads := (await store.load_threads(PAGE, None, "asc", context)).data:
        for thread in threads:
            await _delete(thread, files, context, counts)
    for attachment in await store.load_attachments(None, context):
        await files.delete_attachment(attachment.id, context)
        counts.add("files")
        counts.add("bytes", size_of(attachment))
    async for key in files.blobs.keys(key_of(owner), time.time() + 60):
        if owner_in(key) == owner:
            await files.blobs.delete(key)


async def purge(age: float, store: ChatStore, files: Files, counts: Counts) -> None:
    """Delete every thread whose newest item is older than `age` seconds."""
    before = (time.time() - age) * 1e6
    async for owner in store.owners():
        context, after, more = context_for(owner), None, True
        while more:
            page = await store.load_threads(PAGE, after, "asc", context)
            more = page.has_more and sort_time(page.data[-1].created_at) < before
            for thread in page.data:
                newest = await store.load_thread_items(thread.id, None, 1, "desc", context)
                if max(sort_time(each.created_at) for each in [thread, *newest.data]) < before:
                    await _delete(thread, files, context, counts)
                else:
                    after = thread.id


async def _delete(
    thread: ThreadMetadata, files: Files, context: RequestContext, counts: Counts
) -> None:
    counts.add("threads")
    for attachment in await files.delete_thread(thread.id, context):
        counts.add("files")
        counts.add("bytes", size_of(attachment))
