"""The routes of files: uploads in one step or two, and downloads at signed addresses."""

import asyncio
from collections.abc import AsyncIterator
from tempfile import SpooledTemporaryFile
from typing import Literal
from urllib.parse import quote

from anyio import to_thread
from chatkit.store import NotFoundError
from chatkit.types import Attachment
from fastapi import APIRouter, Request, Response
from starlette.datastructures import UploadFile
from starlette.responses import StreamingResponse
from starlette.types import Message

from .attachments import Files, size_of, too_large
from .auth import Caller
from .blobs import key_of
from .context import RequestContext, owner_of
from .errors import ApiError

FORM_BYTES = 64 * 1024  # what multipart may add to the file itself
SILENT_SECONDS = 60  # how long a body may pause

router = APIRouter(prefix="/files")


def bounded(request: Request, limit: int, refusal: ApiError) -> Request:
    """Return a request whose body raises the refusal at the limit, before the rest has arrived."""
    if int(request.headers.get("content-length", 0)) > limit:
        raise refusal
    chunks, size = request.stream(), 0  # not `receive`: Sentry, say, may have read the body

    async def receive() -> Message:
        nonlocal size
        try:
            async with asyncio.timeout(SILENT_SECONDS):  # `wait_for` would make a task each time
                chunk = await anext(chunks)
        except TimeoutError:
            raise ApiError(408, "cut_off", "The request stopped arriving.") from None
        size += len(chunk)
        if size > limit:
            raise refusal
        return {"type": "http.request", "body": chunk, "more_body": bool(chunk)}

    return Request(request.scope, receive)


def as_json(files: Files, attachment: Attachment, context: RequestContext) -> Response:
    """Answer with an attachment as ChatKit expects it."""
    data = attachment.model_dump_json(context={"exclude_metadata": True}, exclude_none=True)
    return Response(files.links.sign(data.encode(), context), media_type="application/json")


@router.post("")
async def upload(request: Request, context: Caller) -> Response:
    """Take a direct upload: multipart/form-data with the field `file`."""
    files, most = request.app.state.files, request.app.state.settings.max_file_bytes
    body = bounded(request, most + FORM_BYTES, too_large(most))
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise ApiError(400, "form", "Send multipart/form-data with a file.")  # others parse slowly
    async with (
        files.arriving(context),
        body.form(max_files=1, max_fields=8, max_part_size=1024) as form,
    ):
        if not isinstance(file := form.get("file"), UploadFile):
            raise ApiError(400, "file_missing", "The field `file` is missing.")
        name, kind = file.filename or "", file.content_type or ""
        attachment = await files.receive_directly(file.file, name, kind, context)
        return as_json(files, attachment, context)


@router.put("/{attachment_id}/upload")
async def upload_announced(attachment_id: str, token: str, request: Request) -> Response:
    """Take the bytes of a two-phase upload, once, at the address that `attachments.create` gave."""
    files: Files = request.app.state.files
    context = files.links.opened(token, "upload", attachment_id)
    request.app.state.limits.hit(owner_of(context), request)
    announced = await files.load_announced(attachment_id, context)
    async with files.arriving(context):
        with SpooledTemporaryFile(max_size=1 << 20) as file:
            size = size_of(announced)
            async for chunk in bounded(request, size, too_large(size)).stream():
                await to_thread.run_sync(file.write, chunk)
            attachment = await files.receive(file, announced, context)
    return as_json(files, attachment, context)


@router.get("/{attachment_id}/url")
async def address(attachment_id: str, request: Request, context: Caller) -> dict[str, str]:
    """Return an address where the owner's browser can fetch the file for a while."""
    await request.app.state.store.load_attachment(attachment_id, context)
    return {"url": request.app.state.files.links.url("file", attachment_id, context)}


@router.get("/{attachment_id}/{purpose}")
async def download(
    attachment_id: str, purpose: Literal["file", "preview"], token: str, request: Request
) -> Response:
    """Send a file to whoever has its address: to be saved, or an image's preview to be shown."""
    files, store = request.app.state.files, request.app.state.store
    context = files.links.opened(token, purpose, attachment_id)
    attachment = await store.load_attachment(attachment_id, context)
    part, kind, how = "", attachment.mime_type, "attachment"  # never shown as a page
    if purpose == "preview":
        part, kind, how = ".preview", "image/jpeg", "inline"
    chunks = files.blobs.read(key_of(owner_of(context), attachment_id, part))
    try:
        first = await anext(chunks)  # while a 404 is still possible
    except FileNotFoundError:
        raise NotFoundError(attachment_id) from None

    async def body() -> AsyncIterator[bytes]:
        yield first
        async for chunk in chunks:
            yield chunk

    headers = {
        "Content-Disposition": f"{how}; filename*=UTF-8''{quote(attachment.name, safe='')}",
        "Content-Security-Policy": "default-src 'none'; sandbox",
        "Cross-Origin-Resource-Policy": "cross-origin" if part else "same-origin",
        "Cache-Control": f"private, max-age={request.app.state.settings.file_link_seconds}",
    }
    return StreamingResponse(body(), media_type=kind, headers=headers)
