"""All that an owner can have, in the store and in files."""

import io

from chatkit.types import AttachmentUploadDescriptor
from pydantic import AnyUrl

from app.attachments import Files
from app.blobs import key_of
from app.context import context_for
from app.store import ChatStore as Store

from .values import ITEMS, STATUSES, file, thread


async def fill(store: Store, files: Files, owner: str, threads: int = 3) -> None:
    """Give an owner threads with every kind of item, feedback, and files inside and outside."""
    context = context_for(owner)
    for number in range(threads):
        known = thread(f"t{number}").model_copy(
            update={"status": STATUSES[number % len(STATUSES)], "metadata": {"n": number}}
        )
        await store.save_thread(known, context)
        for item in ITEMS:
            await store.add_thread_item(known.id, item, context)
        await store.save_feedback(known.id, [ITEMS[0].id], "positive", context)
        inside = file(f"f{number}", known.id).model_copy(update={"metadata": {"size": 4}})
        await files.blobs.put(key_of(owner, inside.id), io.BytesIO(b"\0\xff%d" % number))
        await files.blobs.put(key_of(owner, inside.id, ".preview"), io.BytesIO(b"small"))
        await store.save_attachment(inside, context)
    outside = file("f-alone").model_copy(update={"metadata": {"size": 5}})
    await files.blobs.put(key_of(owner, outside.id), io.BytesIO(b"alone"))
    await store.save_attachment(outside, context)
    announced = AttachmentUploadDescriptor(url=AnyUrl("https://files.example/f"), method="PUT")
    waiting = file("f-announced").model_copy(update={"upload_descriptor": announced})
    await store.save_attachment(waiting, context)
