"""Upstream's own designs, rewritten as a yardstick: how its guides and samples store data.

Only what is measured is here. Neither keeps the order of adding or asks whose thread it is.
"""

import sqlite3
from pathlib import Path

from chatkit.types import Page, ThreadItem
from pydantic import TypeAdapter

ITEM: TypeAdapter[ThreadItem] = TypeAdapter(ThreadItem)


class UpstreamMemory:
    """Lists of live objects: each page sorts the thread and looks for the cursor."""

    def __init__(self) -> None:
        self.items: dict[str, list[ThreadItem]] = {}

    def fill(self, thread_id: str, items: list[ThreadItem]) -> None:
        self.items[thread_id] = items

    async def page(self, thread_id: str, after: str) -> Page[ThreadItem]:
        """Sort by time, newest first, scan for the cursor, slice."""
        items = sorted(self.items[thread_id], key=lambda item: item.created_at, reverse=True)
        start = next((n + 1 for n, item in enumerate(items) if item.id == after), 0)
        data, more = items[start : start + 20], start + 20 < len(items)
        return Page(data=data, has_more=more, after=data[-1].id if more else None)


class UpstreamSQLite:
    """A connection for each call, in the event loop; ordered by time, without an index for it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        columns = "id TEXT PRIMARY KEY, thread_id TEXT, user_id TEXT, created_at TEXT, data TEXT"
        with sqlite3.connect(path) as db:
            db.execute(f"CREATE TABLE items ({columns})")

    def fill(self, thread_id: str, items: list[ThreadItem]) -> None:
        """Insert all at once: a commit for each would take the whole benchmark's time."""
        rows = ((i.id, thread_id, i.created_at.isoformat(), i.model_dump_json()) for i in items)
        with sqlite3.connect(self.path) as db:
            db.executemany("INSERT INTO items VALUES (?, ?, 'u', ?, ?)", rows)

    async def page(self, thread_id: str, after: str) -> Page[ThreadItem]:
        """Look up the cursor's time, then select what is older."""
        sql = (
            "SELECT data FROM items WHERE thread_id = ? AND user_id = 'u' AND created_at < ?"
            " ORDER BY created_at DESC LIMIT 21"
        )
        with sqlite3.connect(self.path) as db:
            (at,) = db.execute("SELECT created_at FROM items WHERE id = ?", (after,)).fetchone()
            rows = db.execute(sql, (thread_id, at)).fetchall()
        data, more = [ITEM.validate_json(doc) for (doc,) in rows[:20]], len(rows) > 20
        return Page(data=data, has_more=more, after=data[-1].id if more else None)
