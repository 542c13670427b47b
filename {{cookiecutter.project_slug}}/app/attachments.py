"""Files: which are accepted, whose they are, what the model is given, when they are deleted.

The routes are in `uploads.py`, types are detected in `filetypes.py`, bytes kept in `blobs.py`.

A record in the store says whose file it is; the bytes are stored under a key made of the owner and
the id. The record is written and deleted first: a crash leaves a file that no message has, or bytes
without a record, and `sweep` removes both.
"""

import asyncio
import base64
import json
import logging
import math
import random
import time
from contextlib import aclosing, suppress
from io import SEEK_END, BytesIO
from typing import IO, Any
from weakref import WeakValueDictionary

from anyio import CancelScope, CapacityLimiter, to_thread
from chatkit import types as t
from chatkit.store import AttachmentStore, NotFoundError
from openai.types.responses import ResponseInputContentParam as ContentParam
from pydantic import AnyUrl

from .blobs import FOLDER, PARTS, key_of, open_blobs, owner_in
from .context import RequestContext, context_for, owner_of
from .errors import ApiError
from .events import patiently
from .filetypes import EXTENSIONS, PDF, TEXT, UNKNOWN, display_name, look
from .links import Links
from .settings import Settings
from .store import ChatStore, new_id

log = logging.getLogger("app.files")
MAX_FILES = 5000  # that one user may have: each upload reads all of their records
SWEPT = "swept"  # the key of the object that says when a replica last swept


def size_of(attachment: t.Attachment) -> int:
    """Return a file's size in bytes, as it was uploaded or announced."""
    return int((attachment.metadata or {}).get("size", 0))


def sized(count: int) -> str:
    """Return a number of bytes in readable form."""
    return f"{count / 2**20:.4g} MB" if count >= 2**20 else f"{count:,} bytes"


def data_url(kind: str, data: bytes) -> str:
    """Return a URL that holds the content itself, in the form that the model accepts."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


class Files(AttachmentStore[RequestContext]):
    """The files of all users, kept where FILES_URL says; StoreError if that cannot be used."""

    def __init__(self, settings: Settings, store: ChatStore) -> None:
        self._settings, self._store = settings, store
        self.blobs = open_blobs(settings.files_url, settings.data_dir / "files")
        self.links = Links(settings)
        self._locks = WeakValueDictionary[str, asyncio.Lock]()
        self._arriving = WeakValueDictionary[str, asyncio.Semaphore]()
        self._looking = CapacityLimiter(1)  # one image is decoded at a time: each takes memory

    # --- in ---

    def arriving(self, context: RequestContext) -> asyncio.Semaphore:
        """Return what lets in four of a user's uploads or dictations: they take disk and memory."""
        return self._arriving.setdefault(owner_of(context), asyncio.Semaphore(4))

    async def create_attachment(
        self, params: t.AttachmentCreateParams, context: RequestContext
    ) -> t.Attachment:
        """Announce a file: the answer says where to send the bytes."""
        if not self._settings.max_attachments:
            raise NotImplementedError
        if params.size <= 0:
            raise ApiError(400, "file_empty", "The file is empty.")
        if params.size > self._settings.max_file_bytes:
            raise too_large(self._settings.max_file_bytes)
        claimed = params.mime_type if params.mime_type in EXTENSIONS else UNKNOWN
        attachment = self._record(new_id("attachment"), params.name, claimed, params.size)
        url = AnyUrl(self.links.url("upload", attachment.id, context))
        attachment.upload_descriptor = t.AttachmentUploadDescriptor(url=url, method="PUT")
        # a lock of this worker: another one may let in one file too many
        async with self._locks.setdefault(owner_of(context), asyncio.Lock()):
            sizes = [*map(size_of, await self._store.load_attachments(None, context)), params.size]
            limit = self._settings.max_user_file_bytes
            if sum(sizes) > limit or len(sizes) > MAX_FILES:
                most = f"{MAX_FILES:,} files of {sized(limit)} in all"
                raise ApiError(413, "quota", f"You can keep {most}. Delete some first.")
            await self._store.save_attachment(attachment, context)
        return attachment

    async def receive(
        self, file: IO[bytes], announced: t.Attachment, context: RequestContext
    ) -> t.Attachment:
        """Check and store the bytes of an announced file."""
        if file.seek(0, SEEK_END) != size_of(announced):
            raise ApiError(400, "file_size", "The file does not have the announced size.")
        kind, preview = await to_thread.run_sync(look, file, limiter=self._looking)
        if kind not in self._settings.file_types:
            raise ApiError(415, "file_type", f"Files of this type ({kind}) are not accepted.")
        attachment = self._record(announced.id, announced.name, kind, size_of(announced))
        key = key_of(owner_of(context), attachment.id)
        async with self._locks.setdefault(owner_of(context), asyncio.Lock()):
            await self.load_announced(announced.id, context)  # another try may have come first
            file.seek(0)
            await self.blobs.put(key, file)
            if preview:
                await self.blobs.put(f"{key}.preview", BytesIO(preview))
            await self._store.save_attachment(attachment, context)
        return attachment

    async def receive_directly(
        self, file: IO[bytes], name: str, kind: str, context: RequestContext
    ) -> t.Attachment:
        """Take a file that was not announced; a refused one leaves nothing behind."""
        params = t.AttachmentCreateParams(name=name, size=file.seek(0, SEEK_END), mime_type=kind)
        announced = await self.create_attachment(params, context)
        try:
            return await self.receive(file, announced, context)
        except BaseException:
            with CancelScope(shield=True):
                await self.delete_attachment(announced.id, context)
            raise

    async def load_announced(self, attachment_id: str, context: RequestContext) -> t.Attachment:
        """Return the record of a file that waits for its bytes; ApiError 409 if it has them."""
        attachment = await self._store.load_attachment(attachment_id, context)
        if attachment.upload_descriptor is None:
            raise ApiError(409, "file_complete", "This file has been uploaded already.")
        return attachment

    def _record(self, attachment_id: str, name: str, kind: str, size: int) -> t.Attachment:
        """Return the record; a preview is stored by name, and `Links.sign` turns it into a URL."""
        fields: Any = {"id": attachment_id, "name": display_name(name), "mime_type": kind}
        fields["metadata"] = {"size": size, "created": round(time.time())}
        if not kind.startswith("image/"):
            return t.FileAttachment(**fields)
        return t.ImageAttachment(**fields, preview_url=AnyUrl(f"preview:{attachment_id}"))

    async def check(self, ids: list[str], thread_id: str | None, context: RequestContext) -> None:
        """Refuse files that a message in this thread (None: a new one) cannot have.

        NotFoundError for one that this user does not have, ApiError for any other reason.
        """
        for attachment_id in ids:
            attachment = await self._store.load_attachment(attachment_id, context)
            if attachment.upload_descriptor:
                raise ApiError(409, "file_pending", "A file is still being uploaded.")
            if attachment.thread_id is not None and attachment.thread_id != thread_id:
                raise ApiError(409, "file_used", "A file belongs to another conversation.")

    # --- out ---

    async def read(
        self, file: t.Attachment, context: RequestContext, part: str = "", most: float = math.inf
    ) -> bytes:
        """Return a file's or its `.preview`'s bytes, to about `most`; FileNotFoundError if gone."""
        data = bytearray()
        async with aclosing(self.blobs.read(key_of(owner_of(context), file.id, part))) as chunks:
            async for chunk in chunks:
                data += chunk
                if len(data) > most:
                    break
        return bytes(data)

    async def content_part(self, attachment: t.Attachment, context: RequestContext) -> ContentParam:
        """Return what the model is given: the picture, the PDF, the text, or a description."""
        name, kind = json.dumps(attachment.name, ensure_ascii=False), attachment.mime_type
        try:
            if isinstance(attachment, t.ImageAttachment):
                url = data_url("image/jpeg", await self.read(attachment, context, ".preview"))
                return {"type": "input_image", "detail": "auto", "image_url": url}
            if kind == PDF:
                url = data_url(PDF, await self.read(attachment, context))
                return {"type": "input_file", "filename": attachment.name, "file_data": url}
            if kind == TEXT:
                limit = self._settings.max_text_chars
                head = await self.read(attachment, context, most=4 * limit + 8)
                said = head.decode("utf-8-sig", "replace")
                cut = f"\n(cut after {limit} characters)" if len(said) > limit else ""
                text = f"The file {name}:\n{said[:limit]}{cut}"
            else:
                size = size_of(attachment)
                text = f"(The file {name}, {kind}, {size} bytes; its content cannot be read here.)"
        except FileNotFoundError:
            text = f"(The file {name} is no longer there.)"
        except Exception:  # one file's: the conversation goes on, and the next turn tries again
            log.exception("file %s cannot be read", attachment.id)
            text = f"(The file {name} cannot be read just now.)"
        return {"type": "input_text", "text": text}

    # --- deleted ---

    async def delete_attachment(self, attachment_id: str, context: RequestContext) -> None:
        """Delete a file of this user's; ignore any other id."""
        with suppress(NotFoundError):
            await self._store.load_attachment(attachment_id, context)  # only known ids become paths
            await self._store.delete_attachment(attachment_id, context)
            await self._delete_bytes(attachment_id, context)

    async def delete_thread(self, thread_id: str, context: RequestContext) -> list[t.Attachment]:
        """Delete a thread with its files; return their records."""
        attached = await self._store.load_attachments(thread_id, context)
        await self._store.delete_thread(thread_id, context)
        for attachment in attached:
            await self._delete_bytes(attachment.id, context)
        return attached

    async def undo_thread(self, thread_id: str, context: RequestContext) -> None:
        """Delete a thread that never began; its files can be sent again."""
        attached = await patiently(self._store.load_attachments, thread_id, context)
        await patiently(self._store.delete_thread, thread_id, context)
        for file in attached:
            loose = file.model_copy(update={"thread_id": None})
            await patiently(self._store.save_attachment, loose, context)

    async def _delete_bytes(self, attachment_id: str, context: RequestContext) -> None:
        for part in PARTS:
            await self.blobs.delete(key_of(owner_of(context), attachment_id, part))

    async def sweep(self, age: float = 86_400) -> tuple[int, int]:
        """Remove unused files older than `age` seconds; return how many records and objects.

        A record without a thread is an upload that was never sent; an object without a record was
        left by a crash.
        """
        before, records = time.time() - age, 0
        async for owner in self._store.owners():
            context = context_for(owner)
            for attachment in await self._store.load_attachments(None, context):
                created = (attachment.metadata or {}).get("created", before)
                if attachment.thread_id is None and created < before:
                    await self.delete_attachment(attachment.id, context)
                    records += 1
        return records, await self._sweep_objects(before)

    async def sweep_hourly(self) -> None:
        """Sweep about once an hour, for ever; one replica does it for all."""
        while True:
            await asyncio.sleep(random.uniform(1800, 5400))  # noqa: S311 - no secret
            try:
                if not 0 < time.time() - await self._swept_at() < 1800:
                    await self.sweep()
                    await self.blobs.put(SWEPT, BytesIO(str(time.time()).encode()))
            except Exception:
                log.exception("files cannot be swept")

    async def _swept_at(self) -> float:
        with suppress(FileNotFoundError, ValueError):
            return float(b"".join([part async for part in self.blobs.read(SWEPT)]))
        return 0.0

    async def _sweep_objects(self, before: float) -> int:
        """Remove objects without a record, unless most have none: then the store is the wrong one.

        A store in memory is exempt: it forgets its records.
        """
        owner, known, kept, gone, lost = None, set[str](), 0, 0, list[str]()
        async for key in self.blobs.keys(FOLDER, before):  # one owner after another
            if not (whose := owner_in(key)):
                continue
            if whose != owner:
                owner = whose
                found = await self._store.load_attachments(None, context_for(owner))
                known = {key_of(owner, each.id, part) for each in found for part in PARTS}
            if key in known:
                kept += 1
                continue
            gone += 1
            if gone <= 10_000:  # the rest next time
                lost.append(key)
        if gone > max(kept, 2) and not self._settings.store_url.startswith("memory:"):
            log.warning("most files have no record and are kept: is STORE_URL the right one?")
            return 0
        for key in lost:
            await self.blobs.delete(key)
        return len(lost)


def too_large(limit: int) -> ApiError:
    """Return the refusal; a client that is cut off while it sends would not hear it."""
    return ApiError(413, "file_too_large", f"A file may have at most {sized(limit)}.")
