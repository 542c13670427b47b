"""What is measured of a store: operations beside the floor's, small beside large, 32 at once."""

import asyncio
import importlib
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import ModuleType
from typing import Any

from chatkit.types import AssistantMessageContent, AssistantMessageItem, ThreadMetadata
from floors import Floor

KINDS = ("memory", "sqlite", "redis", "postgres")
SMALL = 100
AT_ONCE = 32
START = datetime(2026, 1, 1, tzinfo=UTC)
BOUNDS = {  # how slow each may be, in the order of KINDS
    "page of 20, first": (1.10, 1.25, 1.30, 1.40),
    "page of 20, after a cursor": (1.10, 1.25, 1.30, 1.40),
    "page of 20, beside a writer": (None, None, None, None),
    "load_item": (1.10, 1.50, 1.20, 2.60),
    "load_threads, 20": (1.20, 1.40, 1.50, 1.70),
    "add_thread_item": (1.30, 1.30, 1.30, 1.35),
    "save_item": (1.30, 1.30, 1.30, 1.35),
    "delete_thread of 1,000 items": (1.30, 1.30, None, 1.30),
}
RATES = {"pages": (None, None, 0.80, 0.73), "adds": (None, 3.0, None, None)}
GROWTH = 1.10
Work = Callable[[], Awaitable[object]]


@dataclass
class Row:
    """One line of the table: two medians in microseconds, or two rates, and their ratio."""

    store: str
    operation: str
    ours: float
    floor: float
    bound: float | None
    least: bool = False  # the bound is a least ratio, not a greatest

    @property
    def ratio(self) -> float:
        return self.ours / self.floor

    @property
    def kept(self) -> bool | None:
        """Say whether the ratio keeps its bound; None when it has none."""
        if self.bound is None:
            return None
        return self.ratio >= self.bound if self.least else self.ratio <= self.bound

    def line(self) -> str:
        rate = self.operation.startswith(str(AT_ONCE))
        shown = [f"{x:,.0f}/s" if rate else f"{x / 1000:.3f} ms" for x in (self.ours, self.floor)]
        bound = f"{'≥' if self.least else '≤'} {self.bound:.2f}" if self.bound else ""
        verdict = {None: "", True: "yes", False: "**no**"}[self.kept]
        cells = self.store, self.operation, *shown, f"{self.ratio:.2f}", bound, verdict
        return f"| {' | '.join(cells)} |"


@dataclass
class Plan:
    """How much is measured."""

    rows: int
    rounds: int
    deletes: int


def item(item_id: str, thread_id: str = "t0", number: int = 0) -> AssistantMessageItem:
    """Return an answer of usual length."""
    return AssistantMessageItem(
        id=item_id,
        thread_id=thread_id,
        created_at=START + timedelta(seconds=number),
        content=[AssistantMessageContent(text="What a model says in one short paragraph. " * 8)],
    )


async def medians(rounds: int, works: dict[str, Work], calls: int = 10) -> dict[str, float]:
    """Return each work's median in microseconds; in every round each gets its turn."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for count in range(rounds + 1):
        for name, work in works.items():
            for _ in range(calls):
                begun = time.perf_counter()
                await work()
                if count:  # the first round warms up
                    taken[name].append(time.perf_counter() - begun)
    return {name: statistics.median(found) * 1e6 for name, found in taken.items()}


async def rates(rounds: int, works: dict[str, Work]) -> dict[str, float]:
    """Return how often a second each is done when many are under way."""

    def at_once(work: Work) -> Work:
        async def burst() -> None:
            await asyncio.gather(*(work() for _ in range(AT_ONCE)))

        return burst

    bursts = {name: at_once(work) for name, work in works.items()}
    found = await medians(rounds, bursts, calls=3)
    return {name: AT_ONCE / median * 1e6 for name, median in found.items()}


class Bench:
    """One store and its floor, with a small and a large thread, and two owners of such sizes."""

    def __init__(self, kind: str, module: ModuleType, store: Any, floor: Floor, plan: Plan) -> None:
        self.kind, self.module, self.store, self.floor, self.plan = kind, module, store, floor, plan
        context = importlib.import_module(f"{module.__package__}.context").RequestContext
        self.few, self.many = context(user_id="few"), context(user_id="many")
        self.number = 0

    def bound(self, table: dict[str, Any], operation: str) -> float | None:
        found: float | None = table[operation][KINDS.index(self.kind)]
        return found

    async def seed(self) -> None:
        """Store the threads and items that are read."""
        for context, count in ((self.few, SMALL), (self.many, self.plan.rows)):
            for first in range(0, count, 500):
                threads = (
                    ThreadMetadata(id=f"t{n}", created_at=START + timedelta(seconds=n // 50))
                    for n in range(first, min(first + 500, count))
                )
                await asyncio.gather(*(self.store.save_thread(each, context) for each in threads))
        for thread_id, count in (("t0", SMALL), ("t1", self.plan.rows)):
            for first in range(0, count, 500):
                numbers = range(first, min(first + 500, count))
                items = (item(f"i{n}", thread_id) for n in numbers)
                await asyncio.gather(
                    *(self.store.add_thread_item(thread_id, each, self.few) for each in items)
                )
        page = await self.store.load_thread_items("t0", None, 20, "asc", self.few)
        self.docs = [each.model_dump_json() for each in page.data]
        threads = await self.store.load_threads(20, None, "asc", self.few)
        self.threads = [each.model_dump_json() for each in threads.data]

    async def floor_page(self) -> None:
        """Go there and back, and parse twenty items."""
        await self.floor.trip()
        _ = [self.module.ITEM.validate_json(doc) for doc in self.docs]

    async def floor_item(self) -> None:
        await self.floor.trip()
        self.module.ITEM.validate_json(self.docs[0])

    async def floor_threads(self) -> None:
        await self.floor.trip()
        _ = [ThreadMetadata.model_validate_json(doc) for doc in self.threads]

    async def floor_insert(self) -> None:
        """Store the bytes; in memory, where that is nothing, make them."""
        self.number += 1
        name = f"n{self.number}"
        doc = item(name).model_dump_json() if self.kind == "memory" else self.docs[0]
        await self.floor.insert(name, doc)

    def page(self, thread_id: str, after: str | None = None) -> Work:
        return lambda: self.store.load_thread_items(thread_id, after, 20, "desc", self.few)

    def threads_page(self, context: Any, after: str | None = None) -> Work:
        return lambda: self.store.load_threads(20, after, "desc", context)

    def add(self, thread_id: str) -> Work:
        async def once() -> None:
            self.number += 1
            await self.store.add_thread_item(
                thread_id, item(f"n{self.number}", thread_id), self.few
            )

        return once

    async def reads(self) -> AsyncIterator[Row]:
        middle = f"i{self.plan.rows // 2}"
        last = f"t{self.plan.rows // 2}"

        def load(thread_id: str) -> Work:
            return lambda: self.store.load_item(thread_id, "i50", self.few)

        groups: list[tuple[Work, dict[str, tuple[Work, Work]]]] = [
            (
                self.floor_page,
                {
                    "page of 20, first": (self.page("t0"), self.page("t1")),
                    "page of 20, after a cursor": (self.page("t0", "i50"), self.page("t1", middle)),
                },
            ),
            (self.floor_item, {"load_item": (load("t0"), load("t1"))}),
            (
                self.floor_threads,
                {
                    "load_threads, 20": (self.threads_page(self.few), self.threads_page(self.many)),
                    "load_threads, after a cursor": (
                        self.threads_page(self.few, "t50"),
                        self.threads_page(self.many, last),
                    ),
                },
            ),
        ]
        for floor, operations in groups:
            works = {"floor": floor}
            for name, (small, large) in operations.items():
                works |= {name: small, f"{name}, large": large}
            found = await medians(self.plan.rounds, works)
            for name in operations:
                if name in BOUNDS:
                    bound = self.bound(BOUNDS, name)
                    yield Row(self.kind, name, found[name], found["floor"], bound)
                growth = f"{name}: {self.plan.rows:,} against {SMALL}"
                yield Row(self.kind, growth, found[f"{name}, large"], found[name], GROWTH)

    async def beside_a_writer(self) -> Row:
        """Read while another task adds to the same store, one item after the other."""

        async def write() -> None:
            while True:
                await self.add("t2")()
                await asyncio.sleep(0)

        writer = asyncio.create_task(write())
        works = {"floor": self.floor_page, "page": self.page("t0", "i50")}
        found = await medians(self.plan.rounds, works)
        writer.cancel()
        await asyncio.gather(writer, return_exceptions=True)
        name = "page of 20, beside a writer"
        return Row(self.kind, name, found["page"], found["floor"], self.bound(BOUNDS, name))

    async def writes(self) -> AsyncIterator[Row]:
        again = item("i50", "t0")
        works = {
            "floor": self.floor_insert,
            "add_thread_item": self.add("t0"),
            "save_item": lambda: self.store.save_item("t0", again, self.few),
            "large": self.add("t1"),
        }
        found = await medians(self.plan.rounds, works)
        for name in ("add_thread_item", "save_item"):
            bound = self.bound(BOUNDS, name)
            yield Row(self.kind, name, found[name], found["floor"], bound)
        growth = f"add_thread_item: {self.plan.rows:,} against {SMALL}"
        yield Row(self.kind, growth, found["large"], found["add_thread_item"], GROWTH)

    async def delete(self) -> Row:
        """Delete threads of a thousand items each, which are stored outside the measured time."""
        ours, floor = [], []
        for number in range(self.plan.deletes):
            name = f"doomed{number}"
            await self.store.save_thread(ThreadMetadata(id=name, created_at=START), self.few)
            adds = (
                self.store.add_thread_item(name, item(f"i{n}", name), self.few) for n in range(1000)
            )
            await asyncio.gather(*adds)
            await self.floor.fill(name, self.docs[0])
            begun = time.perf_counter()
            await self.floor.remove(name)
            between = time.perf_counter()
            await self.store.delete_thread(name, self.few)
            ours.append(time.perf_counter() - between)
            floor.append(between - begun)
        name = "delete_thread of 1,000 items"
        medians_of = [statistics.median(each) * 1e6 for each in (ours, floor)]
        return Row(self.kind, name, medians_of[0], medians_of[1], self.bound(BOUNDS, name))

    async def at_once(self) -> AsyncIterator[Row]:
        rounds = max(2, self.plan.rounds // 5)
        pages = {"floor": self.floor_page, "ours": self.page("t0", "i50")}
        adds = {"floor": self.floor_insert, "ours": self.add("t2")}
        for name, works in (("pages", pages), ("adds", adds)):
            found = await rates(rounds, works)
            bound = self.bound(RATES, name)
            operation = f"{AT_ONCE} {name} at once"
            yield Row(self.kind, operation, found["ours"], found["floor"], bound, least=True)

    async def rows(self) -> AsyncIterator[Row]:
        """Yield the table's lines as they are found."""
        async for row in self.reads():
            yield row
        yield await self.beside_a_writer()
        async for row in self.writes():
            yield row
        yield await self.delete()
        async for row in self.at_once():
            yield row
