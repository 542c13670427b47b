"""`python -m app export|forget|purge|import|sweep`: move users' data out and in, or delete it.

An export is JSON lines, each with its `owner` and one of `thread`, `attachment`, `item` or
`feedback`; a thread comes before what belongs to it. `import` reads it into any storage type.
"""

import argparse
import asyncio
import base64
import json
import os
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from io import BytesIO
from typing import IO, Any, TypeVar

from chatkit.store import NotFoundError
from chatkit.types import Attachment, Page, ThreadMetadata
from tqdm.asyncio import tqdm

from .attachments import Files, size_of
from .blobs import PARTS, key_of, owner_in
from .context import RequestContext, context_for
from .settings import Settings
from .store import ATTACHMENT, ITEM, ChatStore, open_store

T = TypeVar("T")
Line = dict[str, Any]
PAGE = 100
COUNTED = {"thread": "threads", "attachment": "files", "item": "items"}


class DataError(RuntimeError):
    """One sentence that says why the command cannot go on."""


def main(options: argparse.Namespace, settings: Settings) -> int:
    """Run a command; return 0, or 1 with nothing to export or forget, or 2 for a caller's fault."""
    try:
        return asyncio.run(_run(options, settings))
    except BrokenPipeError:  # the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (DataError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2


async def _run(options: argparse.Namespace, settings: Settings) -> int:
    counts = Counter[str]()
    async with open_store(settings) as store:
        files = Files(settings, store)
        match options.command:
            case "export":
                owners = [each async for each in store.owners()] if options.all else [options.user]
                await _export(owners, store, files, counts)
            case "import":
                name = 0 if options.file == "-" else options.file
                with open(name, "rb") as file:  # noqa: ASYNC230, PTH123 - nothing else runs here
                    await import_lines(file, store, files, counts, os.fstat(file.fileno()).st_size)
            case "forget":
                await forget(options.user, store, files, counts)
            case "purge":
                await purge(options.older_than, store, files, counts)
            case "sweep":
                records, objects = await files.sweep()
                counts.update(records=records, objects=objects)
    done = ", ".join(f"{number:,} {name}" for name, number in counts.items())
    sys.stderr.write(f"{options.command}: {done or 'nothing'}\n")
    return 0 if counts or options.command not in ("export", "forget") else 1


async def _export(owners: list[str], store: ChatStore, files: Files, counts: Counter[str]) -> None:
    """Write the lines; a bar counts them, unless they go to the terminal."""
    hidden = sys.stdout.isatty() or None  # None: hidden if stderr is not a terminal
    lines = (line for owner in owners async for line in export_lines(owner, store, files))
    async for line in tqdm(lines, "export", unit=" lines", disable=hidden):
        sys.stdout.write(json.dumps(line) + "\n")
        counts.update(COUNTED[key] for key in line.keys() & COUNTED)
    sys.stdout.flush()


async def _walk(
    load: Callable[..., Awaitable[Page[T]]], context: RequestContext, **which: str
) -> AsyncIterator[T]:
    """Yield the elements of every page."""
    after = None
    while True:
        page = await load(**which, limit=PAGE, after=after, order="asc", context=context)
        if after and not page.data:  # the element at the cursor was deleted
            raise DataError("The data changed while it was read. Run the command again.")
        for element in page.data:
            yield element
        if not page.has_more:
            return
        after = page.after


async def export_lines(owner: str, store: ChatStore, files: Files) -> AsyncIterator[Line]:
    """Yield all that an owner has; one page of items or one file is in memory at a time."""
    context = context_for(owner)
    for thread in [each async for each in _walk(store.load_threads, context)]:
        inside = {"owner": owner, "thread_id": thread.id}
        yield {"owner": owner, "thread": thread.model_dump(mode="json")}
        for attachment in await store.load_attachments(thread.id, context):
            yield inside | await _file_line(attachment, files, context)
        feedback, thumbs = await store.load_feedback(thread.id, context), {}
        try:
            async for item in _walk(store.load_thread_items, context, thread_id=thread.id):
                yield inside | {"item": item.model_dump(mode="json")}
                if item.id in feedback:  # an import ends at a thumb on an item deleted meanwhile
                    thumbs[item.id] = feedback[item.id]
        except DataError:
            with suppress(NotFoundError):  # it was deleted
                await store.load_thread(thread.id, context)
                raise
        if thumbs:
            yield inside | {"feedback": thumbs}
    for attachment in await store.load_attachments(None, context):
        if attachment.thread_id is None:
            yield {"owner": owner} | await _file_line(attachment, files, context)


async def _file_line(file: Attachment, files: Files, context: RequestContext) -> Line:
    line: Line = {"attachment": file.model_dump(mode="json")}
    for part in PARTS:
        try:
            line[f"bytes{part}"] = base64.b64encode(await files.read(file, context, part)).decode()
        except FileNotFoundError as error:  # no preview, or an upload that never came
            error.__traceback__ = None  # anyio's cycle would keep this line's bytes in memory
    if "bytes" not in line and file.upload_descriptor is None:
        tqdm.write(f"{file.id}: its bytes are not in FILES_URL", file=sys.stderr)
    return line


async def import_lines(
    file: IO[bytes], store: ChatStore, files: Files, counts: Counter[str], size: int = 0
) -> None:
    """Store an export of `size` bytes (a pipe: 0); running it again does no harm.

    Raises:
        DataError: names the line that cannot be read or stored.
    """
    with tqdm(desc="import", total=size, unit="B", unit_scale=True, disable=None) as bar:
        for number, text in enumerate(file, 1):
            try:
                line = json.loads(text)
                await _write(line, store, files)
            except (ValueError, TypeError, RecursionError, NotFoundError) as error:
                reason = str(error).partition("\n")[0]
                raise DataError(f"Line {number} cannot be imported: {reason}") from error
            counts.update(COUNTED[key] for key in line.keys() & COUNTED)
            bar.update(len(text))


async def _write(line: Any, store: ChatStore, files: Files) -> None:
    match line:
        case {"owner": str(owner), "thread": document}:
            context = context_for(owner)
            thread = ThreadMetadata.model_validate(document)
            await store.undelete_thread(thread.id, context)
            await store.save_thread(thread, context)
        case {"owner": str(owner), "attachment": document}:
            attachment = ATTACHMENT.validate_python(document)
            for part in PARTS:
                if f"bytes{part}" in line:
                    data = base64.b64decode(line[f"bytes{part}"], validate=True)
                    await files.blobs.put(key_of(owner, attachment.id, part), BytesIO(data))
            await store.save_attachment(attachment, context_for(owner))
        case {"owner": str(owner), "item": document, "thread_id": str(thread_id)}:
            item = ITEM.validate_python(document)
            await store.add_thread_item(thread_id, item, context_for(owner))
        case {"owner": str(owner), "feedback": dict(feedback), "thread_id": str(thread_id)}:
            for item_id, kind in feedback.items():
                await store.save_feedback(thread_id, [item_id], kind, context_for(owner))
        case _:
            raise ValueError("it is not a line of an export")


async def forget(owner: str, store: ChatStore, files: Files, counts: Counter[str]) -> None:
    """Delete all threads and files of an owner, bytes without a record included."""
    context = context_for(owner)
    attachments = await store.load_attachments(None, context)  # threads take theirs with them
    with tqdm(desc="forget", unit=" threads", disable=None) as bar:
        while threads := (await store.load_threads(PAGE, None, "asc", context)).data:
            for thread in threads:
                await store.delete_thread(thread.id, context)
                counts["threads"] += 1
                bar.update()
    for attachment in attachments:
        await store.delete_attachment(attachment.id, context)
    counts += Counter(files=len(attachments), bytes=sum(map(size_of, attachments)))  # drops zeros
    async for key in files.blobs.keys(key_of(owner), time.time() + 60):
        if owner_in(key) == owner:
            await files.blobs.delete(key)


async def purge(age: float, store: ChatStore, files: Files, counts: Counter[str]) -> None:
    """Delete every thread whose newest item is older than `age` seconds."""
    before = time.time() - age  # a naive time is this machine's, as the SDK writes it
    owners = [owner async for owner in store.owners()]
    for owner in tqdm(owners, "purge", unit=" users", disable=None):
        context = context_for(owner)
        for thread in [each async for each in _walk(store.load_threads, context)]:
            if thread.created_at.timestamp() < before:
                newest = await store.load_thread_items(thread.id, None, 1, "desc", context)
                if all(item.created_at.timestamp() < before for item in newest.data):
                    gone = await files.delete_thread(thread.id, context)
                    counts += Counter(threads=1, files=len(gone), bytes=sum(map(size_of, gone)))
