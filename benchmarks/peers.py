"""Upstream's own designs, written anew as a yardstick: what its guides and samples store with.

Only what is measured is here. Both keep no order of adding, and neither asks whose a thread is.
"""

import sqlite3
from pathlib import Path
from typing import Any

from chatkit.types import Page, ThreadItem
from pydantic import TypeAdapter

ITEM: TypeAdapter[ThreadItem] = TypeAdapter(ThreadItem)


class UpstreamMemory:
    """Lists of live objects: each page sorts the thread and looks for the cursor."""

    def __init__(self) -> None:
        self.items: dict[str, list[ThreadItem]] = {}

    async def load_thread_items(
        self, thread_id: str, after: str | None, limit: int, order: str, context: Any
    ) -> Page[ThreadItem]:
        """Sort by time, scan for the cursor, slice."""
        items = sorted(
            self.items.get(thread_id, []), key=lambda i: i.created_at, reverse=order == "desc"
        )
        start = 0
        if after:
            start = next((n + 1 for n, item in enumerate(items) if item.id == after), 0)
        data, more = items[start : start + limit], start + limit < len(items)
        return Page(data=data, has_more=more, after=data[-1].id if more else None)


class UpstreamSQLite:
    """A connection for each call, in the event loop; ordered by time, without an index for it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with sqlite3.connect(path) as db:
            db.execute(
                "CREATE TABLE items (id TEXT PRIMARY KEY, thread_id TEXT, user_id TEXT,"
                " created_at TEXT, data TEXT)"
            )

    async def fill(self, thread_id: str, items: list[ThreadItem]) -> None:
        """Insert all at once: a commit for each would take the whole benchmark's time."""
        rows = [
            (i.id, thread_id, "u", i.created_at.isoformat(), i.model_dump_json()) for i in items
        ]
        with sqlite3.connect(self.path) as db:
            db.executemany("INSERT INTO items VALUES (?, ?, ?, ?, ?)", rows)

    async def load_thread_items(
        self, thread_id: str, after: str | None, limit: int, order: str, context: Any
    ) -> Page[ThreadItem]:
        """Look the cursor's time up, then select what is younger or older."""
        sql, values = "SELECT data FROM items WHERE thread_id = ? AND user_id = ?", [thread_id, "u"]
        with sqlite3.connect(self.path) as db:
            if after:
                row = db.execute("SELECT created_at FROM items WHERE id = ?", (after,)).fetchone()
                sql += " AND created_at " + ("<" if order == "desc" else ">") + " ?"
                values.append(row[0])
            sql += f" ORDER BY created_at {'DESC' if order == 'desc' else 'ASC'} LIMIT {limit + 1}"
            rows = db.execute(sql, values).fetchall()
        data = [ITEM.validate_json(doc) for (doc,) in rows[:limit]]
        more = len(rows) > limit
        return Page(data=data, has_more=more, after=data[-1].id if more else None)
