"""Ways to read what a store holds: page by page, and all of it."""

from collections.abc import Awaitable, Callable
from typing import Any

from chatkit.types import Page, ThreadItem, ThreadMetadata

from app.context import RequestContext
from app.store import ChatStore as Store


def ids(page: Page[ThreadItem] | Page[ThreadMetadata]) -> list[str]:
    """Return the ids of a page; check that its cursor is what the contract says."""
    found = [each.id for each in page.data]
    assert page.after == (found[-1] if page.has_more else None)
    return found


async def walk(ask: Callable[[str | None], Awaitable[Page[Any]]], limit: int) -> list[str]:
    """Ask for one page after another; return all ids, each of which must come once."""
    walked: list[str] = []
    after = None
    while True:
        page = await ask(after)
        assert len(page.data) <= limit
        assert not set(walked).intersection(ids(page))
        walked += ids(page)
        if not page.has_more:
            return walked
        after = page.after


async def items(
    store: Store,
    context: RequestContext,
    *,
    thread_id: str = "t",
    order: str = "asc",
    limit: int = 40,
) -> list[str]:
    """Walk through a thread and return the ids of its items."""
    load = store.load_thread_items
    return await walk(lambda after: load(thread_id, after, limit, order, context), limit)


async def threads(
    store: Store, context: RequestContext, *, order: str = "asc", limit: int = 40
) -> list[str]:
    """Walk through an owner's threads and return their ids."""
    return await walk(lambda after: store.load_threads(limit, after, order, context), limit)


async def export(store: Store, context: RequestContext, only: str | None = None) -> str:
    """Return all that an owner has, or has in one thread, as one string."""
    lines = []
    for thread_id in [only] if only else await threads(store, context):
        lines.append((await store.load_thread(thread_id, context)).model_dump_json())
        for item_id in await items(store, context, thread_id=thread_id):
            item = await store.load_item(thread_id, item_id, context)
            lines.append(item.model_dump_json())
        lines.append(repr(sorted((await store.load_feedback(thread_id, context)).items())))
    attachments = await store.load_attachments(only, context)
    return "\n".join([*lines, *(each.model_dump_json() for each in attachments)])
