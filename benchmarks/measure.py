"""What is measured of a store: operations against the floor, small against large, 32 at once."""

import asyncio
import importlib
import random
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import islice
from types import ModuleType
from typing import Any

from chatkit.types import AssistantMessageContent, AssistantMessageItem, ThreadMetadata
from floors import Floor, awake
from table import AT_ONCE, Row

KINDS = ("memory", "sqlite", "redis", "postgres")
SMALL = 100
CALLS, BURSTS, DELETES = 10, 3, 5  # of each, per round
TEXT = "what a model says in one short paragraph. " * 8
START = datetime(2026, 1, 1, tzinfo=UTC)
DELETED = "delete_thread of 1,000 items"
BOUNDS = {  # how slow each may be, in the order of KINDS
    "page of 20, first": (1.10, 1.25, 1.30, 1.40),
    "page of 20, after a cursor": (1.10, 1.25, 1.30, 1.40),
    "page of 20, beside a writer": (None, None, None, None),
    "load_item": (1.10, 1.50, 1.20, 2.60),
    "load_threads, 20": (1.20, 1.40, 1.50, 1.70),
    "add_thread_item": (1.30, 1.30, 1.30, 1.35),
    "save_item": (1.30, 1.30, 1.30, 1.35),
    DELETED: (1.30, 1.30, None, 1.30),
    f"{DELETED} in 1 ms": (None, None, 1.0, None),
    f"{AT_ONCE} pages at once": (None, None, 0.80, 0.73),  # of the floor's rate, at least
    f"{AT_ONCE} adds at once": (None, 3.0, None, None),
}
GROWTH = 1.10
Work = Callable[[], Awaitable[object]]


@dataclass
class Plan:
    """How much is measured."""

    rows: int
    rounds: int
    deletes: int


def item(item_id: str, thread_id: str = "t0", number: int = 0) -> AssistantMessageItem:
    """Return an answer of usual length, made different by the number."""
    return AssistantMessageItem(
        id=item_id,
        thread_id=thread_id,
        created_at=START + timedelta(seconds=number),
        content=[AssistantMessageContent(text=f"{number} times " + TEXT)],
    )


async def medians(rounds: int, works: dict[str, Work], calls: int = 1) -> dict[str, float]:
    """Return the median of each work in microseconds; each gets its turn in every round.

    The turns are shuffled: what comes right after a floor is slower, as the engine has slept.
    """
    taken: dict[str, list[float]] = {name: [] for name in works}
    turns, chance = list(works.items()), random.Random(0)  # noqa: S311 (the same in every run)
    for count in range(rounds + 1):
        chance.shuffle(turns)
        for name, work in turns:
            for _ in range(calls):
                begun = time.perf_counter()
                await work()
                if count:  # the first round warms up
                    taken[name].append(time.perf_counter() - begun)
    return {name: statistics.median(found) * 1e6 for name, found in taken.items()}


async def some_at_once(calls: Iterator[Awaitable[object]]) -> None:
    """Make many calls, a few hundred at a time."""
    while some := list(islice(calls, 500)):
        await asyncio.gather(*some)


class Bench:
    """One store and its floor: a small and a large thread, an owner of few and one of many."""

    def __init__(self, kind: str, module: ModuleType, store: Any, floor: Floor, plan: Plan) -> None:
        self.kind, self.module, self.store, self.floor, self.plan = kind, module, store, floor, plan
        context = importlib.import_module(f"{module.__package__}.context").RequestContext
        self.few, self.many = context(user_id="few"), context(user_id="many")
        self.number = 0

    def row(self, name: str, ours: float, floor: float, *, least: bool = False) -> Row:
        """Return a line of the table; a row without a bound of its own may grow by GROWTH."""
        bounds = BOUNDS.get(name, (GROWTH,) * len(KINDS))
        return Row(self.kind, name, ours, floor, bounds[KINDS.index(self.kind)], least)

    def grown(self, name: str, large: float, small: float) -> Row:
        return self.row(f"{name}: {self.plan.rows:,} against {SMALL}", large, small)

    async def seed(self) -> None:
        """Store the threads and items that are read."""
        save, add = self.store.save_thread, self.store.add_thread_item
        for context, count in ((self.few, SMALL), (self.many, self.plan.rows)):
            times = (START + timedelta(seconds=n // 50) for n in range(count))
            threads = (ThreadMetadata(id=f"t{n}", created_at=at) for n, at in enumerate(times))
            await some_at_once(save(each, context) for each in threads)
        for thread_id, count in (("t0", SMALL), ("t1", self.plan.rows)):
            items = (item(f"i{n}", thread_id) for n in range(count))
            await some_at_once(add(thread_id, each, self.few) for each in items)
        page = await self.store.load_thread_items("t0", None, 20, "asc", self.few)
        self.docs = [each.model_dump_json() for each in page.data]
        threads = await self.store.load_threads(20, None, "asc", self.few)
        self.threads = [each.model_dump_json() for each in threads.data]

    async def floor_page(self) -> object:
        """Go there and back, parse twenty items and return them, as a store has to."""
        await self.floor.trip()
        return [self.module.ITEM.validate_json(doc) for doc in self.docs]

    async def floor_item(self) -> object:
        await self.floor.trip()
        return self.module.ITEM.validate_json(self.docs[0])

    async def floor_threads(self) -> object:
        await self.floor.trip()
        return [ThreadMetadata.model_validate_json(doc) for doc in self.threads]

    def floor_insert(self, count: int) -> Work:
        """Store the bytes; in memory, where storing costs nothing, make them."""
        items = self.fresh("t0", count)
        if self.kind == "memory":

            async def dump() -> str:
                return next(items).model_dump_json()

            return dump
        return lambda: self.floor.insert(next(items).id, self.docs[0])

    def fresh(self, thread_id: str, count: int) -> Iterator[AssistantMessageItem]:
        """Return new items, made before anything is timed; with no id, for 32 threads in turn."""
        self.number += count
        numbers = range(self.number - count, self.number)
        return iter([item(f"n{n}", thread_id or f"t{2 + n % AT_ONCE}", n) for n in numbers])

    def page(self, thread_id: str, after: str | None = None) -> Work:
        return lambda: self.store.load_thread_items(thread_id, after, 20, "desc", self.few)

    def threads_page(self, context: Any, after: str | None = None) -> Work:
        return lambda: self.store.load_threads(20, after, "desc", context)

    def add(self, thread_id: str, count: int) -> Work:
        items = self.fresh(thread_id, count)

        async def once() -> None:
            each = next(items)
            await self.store.add_thread_item(each.thread_id, each, self.few)

        return once

    async def reads(self) -> AsyncIterator[Row]:
        page, threads, half = self.page, self.threads_page, self.plan.rows // 2

        def load(thread_id: str) -> Work:
            return lambda: self.store.load_item(thread_id, "i50", self.few)

        cursor, pages = "page of 20, after a cursor", (page("t0", "i50"), page("t1", f"i{half}"))
        listed = threads(self.few, "t50"), threads(self.many, f"t{half}")
        for name, floor, small, large in (
            ("page of 20, first", self.floor_page, page("t0"), page("t1")),
            (cursor, self.floor_page, *pages),
            ("load_item", self.floor_item, load("t0"), load("t1")),
            ("load_threads, 20", self.floor_threads, threads(self.few), threads(self.many)),
            ("load_threads, after a cursor", self.floor_threads, *listed),
        ):
            works = {"floor": floor, "small": small, "large": large}
            found = await medians(self.plan.rounds, works, CALLS)
            if name in BOUNDS:
                yield self.row(name, found["small"], found["floor"])
            yield self.grown(name, found["large"], found["small"])

    async def beside_a_writer(self) -> AsyncIterator[Row]:
        """Read while another task adds to the same store, one item after another."""

        async def write() -> None:
            while True:
                await self.add("t2", 1)()
                await asyncio.sleep(0)

        writer = asyncio.create_task(write())
        works = {"floor": self.floor_page, "page": self.page("t0", "i50")}
        found = await medians(self.plan.rounds, works, CALLS)
        writer.cancel()
        await asyncio.gather(writer, return_exceptions=True)
        yield self.row("page of 20, beside a writer", found["page"], found["floor"])

    async def writes(self) -> AsyncIterator[Row]:
        rounds = CALLS * self.plan.rounds  # of one call each: a disk's speed drifts
        count = rounds + 1
        again = iter([item("i50", "t0", number) for number in range(count)])
        works: dict[str, Work] = {
            "floor": self.floor_insert(count),
            "add_thread_item": self.add("t0", count),
            "save_item": lambda: self.store.save_item("t0", next(again), self.few),
            "large": self.add("t1", count),
        }
        found = await medians(rounds, works)
        for name in ("add_thread_item", "save_item"):
            yield self.row(name, found[name], found["floor"])
        yield self.grown("add_thread_item", found["large"], found["add_thread_item"])

    async def delete(self) -> AsyncIterator[Row]:
        """Delete threads of a thousand items each, which are stored outside the measured time.

        A few in a row: for a single one, what was stored last and is in the caches decides. In
        memory they are so short that with 30 chance decides: one floor once differed by 2.2 times.
        """
        ours, floor = list[float](), list[float]()
        whole = partial(self.store.delete_thread, context=self.few)
        pairs = [(floor, self.floor.remove), (ours, whole)]
        for count in range(self.plan.deletes * (5 if self.kind == "memory" else 1) // DELETES):
            names = [f"doomed{count}-{number}" for number in range(DELETES)]
            for name in names:
                await self.store.save_thread(ThreadMetadata(id=name, created_at=START), self.few)
                items, same = ((item(f"i{n}", name) for n in range(1000)) for _ in range(2))
                add = partial(self.store.add_thread_item, name, context=self.few)
                await asyncio.gather(*map(add, items))
                await self.floor.fill(name, same)
            for taken, delete in pairs if count % 2 else reversed(pairs):
                for name in names:
                    begun = time.perf_counter()
                    await delete(name)
                    taken.append(time.perf_counter() - begun)
        taken_us, floor_us = statistics.median(ours) * 1e6, statistics.median(floor) * 1e6
        if self.kind == "redis":  # its bound is a time, not a ratio
            yield self.row(f"{DELETED} in 1 ms", taken_us, 1000.0)
        else:
            yield self.row(DELETED, taken_us, floor_us)

    async def at_once(self) -> AsyncIterator[Row]:
        """Compare how many per second are done when many are under way."""

        def burst(work: Work) -> Work:
            return lambda: asyncio.gather(*(work() for _ in range(AT_ONCE)))

        rounds = max(2, self.plan.rounds // 5)
        count = AT_ONCE * BURSTS * (rounds + 1)
        pairs = {
            "pages": (self.floor_page, self.page("t0", "i50")),
            "adds": (self.floor_insert(count), self.add("", count)),
        }
        for name, (floor, ours) in pairs.items():
            works = {"floor": burst(floor), "ours": burst(ours)}
            found = await medians(rounds, works, BURSTS)
            rates = (AT_ONCE / found[whose] * 1e6 for whose in ("ours", "floor"))
            yield self.row(f"{AT_ONCE} {name} at once", *rates, least=True)

    async def rows(self) -> AsyncIterator[Row]:
        """Yield the table's lines as they are found."""
        reads = [self.reads, self.beside_a_writer]
        parts = [*reads, self.writes, self.delete, self.at_once]
        # SQLite's trip is a hand-over between two threads, PostgreSQL's shortest one between two
        # processes: a core that sleeps meanwhile makes the floor of a read four times as long
        steady = {"sqlite": parts[:-1], "postgres": reads}.get(self.kind, [])
        for part in parts:
            with awake(together=self.kind == "sqlite") if part in steady else nullcontext():
                async for row in part():
                    yield row
