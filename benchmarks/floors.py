"""The floor of each engine: the least that its driver needs, with nothing of ours in between.

`trip` is the cheapest round trip, `insert` stores the bytes of one item under its id with the
engine's own durability (not in memory), `remove` deletes what `fill` stored: one thread's items.
"""

import asyncio
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from chatkit.types import AssistantMessageItem as Item


class Memory:
    """A dictionary; there is no round trip."""

    def __init__(self) -> None:
        self.threads: dict[str, dict[str, str]] = {}

    async def trip(self) -> None:
        pass

    async def fill(self, thread: str, items: Iterable[Item]) -> None:
        """Add each in its own task, as in the store: the cost of freeing depends on the layout."""
        held = self.threads[thread] = dict[str, str]()

        async def add(number: int, item: Item) -> None:
            held[str(number)] = item.model_dump_json()

        await asyncio.gather(*(add(*numbered) for numbered in enumerate(items)))

    async def remove(self, thread: str) -> None:
        del self.threads[thread]


class SQLite:
    """One connection in a standard library thread pool of one; a commit per write."""

    def __init__(self, path: Path) -> None:
        self.pool = ThreadPoolExecutor(1)
        self.db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self.db.execute("PRAGMA journal_mode = WAL")
        self.db.execute("PRAGMA synchronous = FULL")
        self.db.execute("CREATE TABLE docs (id TEXT PRIMARY KEY, doc TEXT)")
        self.db.execute("CREATE TABLE items (thread TEXT, id TEXT, doc TEXT)")
        self.db.execute("CREATE UNIQUE INDEX items_by_id ON items (thread, id)")
        # A log that still grows takes longer to flush; the store's has grown by now.
        self.db.execute("INSERT INTO docs VALUES ('', zeroblob(8000000))")
        self.db.execute("DELETE FROM docs")
        # What is deleted lies among other rows, as in the store.
        others = ((f"other{n // 1000}", str(n % 1000), "x" * 500) for n in range(10_000))
        self.db.execute("BEGIN")
        self.db.executemany("INSERT INTO items VALUES (?, ?, ?)", others)
        self.db.execute("COMMIT")

    def hop(self, work: Callable[[], Any]) -> asyncio.Future[Any]:
        return asyncio.get_running_loop().run_in_executor(self.pool, work)

    def close(self) -> None:
        self.pool.shutdown()
        self.db.close()

    async def trip(self) -> None:
        await self.hop(int)

    async def insert(self, item_id: str, doc: str) -> None:
        values = (item_id, doc)
        await self.hop(lambda: self.db.execute("INSERT INTO docs VALUES (?, ?)", values))

    async def fill(self, thread: str, items: Iterable[Item]) -> None:
        rows = [(thread, str(n), item.model_dump_json()) for n, item in enumerate(items)]
        await self.hop(lambda: self.db.execute("BEGIN"))
        await self.hop(lambda: self.db.executemany("INSERT INTO items VALUES (?, ?, ?)", rows))
        await self.hop(lambda: self.db.execute("COMMIT"))

    async def remove(self, thread: str) -> None:
        await self.hop(lambda: self.db.execute("DELETE FROM items WHERE thread = ?", (thread,)))


class Redis:
    """The driver's client: PING, SET, and UNLINK of a hash."""

    def __init__(self, client: Any) -> None:
        self.client = client

    async def trip(self) -> None:
        await self.client.ping()

    async def insert(self, item_id: str, doc: str) -> None:
        await self.client.set(f"floor:{item_id}", doc)

    async def fill(self, thread: str, items: Iterable[Item]) -> None:
        docs = {number: item.model_dump_json() for number, item in enumerate(items)}
        await self.client.hset(f"floor:{thread}", mapping=docs)

    async def remove(self, thread: str) -> None:
        await self.client.unlink(f"floor:{thread}")


class Postgres:
    """As many connections as the store may hold, taken in turns; prepared statements."""

    def __init__(self, connections: list[Any]) -> None:
        self.idle = connections
        self.free = asyncio.Semaphore(len(connections))

    async def fetch(self, sql: str, *values: object) -> None:
        async with self.free:
            connection = self.idle.pop()
            try:
                await connection.fetch(sql, *values)
            finally:
                self.idle.append(connection)

    async def trip(self) -> None:
        await self.fetch("SELECT 1")

    async def insert(self, item_id: str, doc: str) -> None:
        await self.fetch("INSERT INTO floor.docs VALUES ($1, $2)", item_id, doc)

    async def fill(self, thread: str, items: Iterable[Item]) -> None:
        """Add one by one, as in a conversation: each row then has its own transaction."""
        sql = "INSERT INTO floor.items VALUES ($1, $2, $3)"
        rows = ((thread, str(n), item.model_dump_json()) for n, item in enumerate(items))
        await asyncio.gather(*(self.fetch(sql, *row) for row in rows))

    async def remove(self, thread: str) -> None:
        await self.fetch("DELETE FROM floor.items WHERE thread = $1", thread)


@contextmanager
def awake(*, together: bool) -> Iterator[None]:
    """Keep the cores from sleeping: waking a virtual one takes as long as what is measured.

    A process for each core spins at a priority that gives way to all others. `together` keeps
    all threads of this process on one core: a hand-over to a thread on another core takes twice as
    long, and the system puts some threads there for good, the floor's or the store's.
    """
    idle = "os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))"
    spin = [sys.executable, "-c", f"import os\n{idle}\nwhile os.getppid() == {os.getpid()}: pass"]
    cores = os.cpu_count() or 1 if hasattr(os, "SCHED_IDLE") else 0
    spinners = [subprocess.Popen(spin) for _ in range(cores)]
    own = os.sched_getaffinity(0) if together and hasattr(os, "sched_getaffinity") else set[int]()
    _stay({*sorted(own)[:1]})
    try:
        yield
    finally:
        _stay(own)
        for spinner in spinners:
            spinner.kill()
            spinner.wait()


def _stay(cores: set[int]) -> None:
    """Keep each thread on these cores, if any are given; new threads follow their starter."""
    for thread in threading.enumerate() if cores else ():
        os.sched_setaffinity(thread.native_id or 0, cores)


@asynccontextmanager
async def sqlite(url: str) -> AsyncIterator[SQLite]:
    """Yield a connection to a file beside the store's."""
    with closing(SQLite(Path(url.removeprefix("sqlite:///")).with_name("floor.db"))) as floor:
        yield floor


@asynccontextmanager
async def redis(url: str) -> AsyncIterator[Redis]:
    """Yield a client of the same server."""
    from redis.asyncio import Redis as Client  # noqa: PLC0415 (only where it is measured)

    async with Client.from_url(url) as client:
        yield Redis(client)


@asynccontextmanager
async def postgres(url: str) -> AsyncIterator[Postgres]:
    """Yield ten connections to the same database."""
    import asyncpg  # noqa: PLC0415 (only where it is measured)

    connections = [await asyncpg.connect(url) for _ in range(10)]
    await connections[0].execute(
        "CREATE SCHEMA floor; CREATE TABLE floor.docs (id text PRIMARY KEY, doc text);"
        "CREATE TABLE floor.items (thread text, id text, doc text, PRIMARY KEY (thread, id))"
    )
    yield Postgres(list(connections))
    for connection in connections:
        await connection.close()


Floor = Memory | SQLite | Redis | Postgres
FLOORS = {
    "memory": lambda _: nullcontext(Memory()),
    "sqlite": sqlite,
    "redis": redis,
    "postgres": postgres,
}
