"""Each store against its driver's floor, and against upstream's own designs, in one run.

`make bench` runs it with 10,000 rows, `make bench-full` with 100,000; it needs what the apps need.
A ratio is the store's median over the floor's, measured in turns: a few calls of each, round
after round. The floor of a read is the cheapest round trip (floors.py) plus parsing the same
answer; the floor of a write is a bare insert of the same bytes. All run on asyncio's own loop.
"""

import argparse
import asyncio
import gc
import importlib
import json
import os
import platform
import re
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

warnings.filterwarnings("ignore", category=DeprecationWarning)  # the SDK's, about its widgets

from floors import FLOORS  # noqa: E402 (after the filter)
from measure import KINDS, SMALL, Bench, Plan, item, medians  # noqa: E402
from peers import UpstreamMemory, UpstreamSQLite  # noqa: E402
from table import Row  # noqa: E402

ROOT = Path(__file__).parents[1]
HEAD = """| store | operation | store's | floor's | ratio | bound | kept |
| --- | --- | --: | --: | --: | --: | --- |"""


def load(kind: str, folder: Path) -> ModuleType:
    """Return a store as a package of its own, made of two files, as the README says."""
    package = folder / f"bench_{kind}"
    package.mkdir()
    (package / "__init__.py").touch()
    for name in (f"store/{kind}", "context/dict"):
        text = (ROOT / "templates" / f"{name}.py").read_text()
        (package / f"{name.partition('/')[0]}.py").write_text(text)
    return importlib.import_module(f"{package.name}.store")


@contextmanager
def engine(kind: str, folder: Path) -> Iterator[str]:
    """Yield the URL of a private engine: each commit is synced to disk, in Redis once a second."""
    if kind == "memory":
        yield "memory://"
    elif kind == "sqlite":
        yield f"sqlite:///{folder / 'chat.db'}"
    else:
        dev = ROOT / "templates" / "dev" / f"{kind}.py"
        (folder / f"dev_{kind}.py").write_text(dev.read_text())
        module = importlib.import_module(f"dev_{kind}")
        if kind == "redis":
            with module.engine() as url:
                yield url
        else:
            with module.Server(folder / kind) as server:
                yield server.url


async def measure_store(kind: str, folder: Path, url: str, plan: Plan) -> list[Row]:
    """Print a store's lines as they are found, and return them."""
    module = load(kind, folder)
    rows = []
    async with module.ChatStore.open(url) as store, FLOORS[kind](url) as floor:
        bench = Bench(kind, module, store, floor, plan)
        await bench.seed()
        gc.collect()
        gc.freeze()  # as the app does: the SDK's objects are collected no more
        async for row in bench.rows():
            print(row.line(), flush=True)
            rows.append(row)
    return rows


async def measure_peers(folder: Path, plan: Plan) -> dict[str, list[float]]:
    """Return, for each upstream design, the times of a page of a small and of a large thread."""
    found = {}
    peers = {
        "upstream's in-memory": UpstreamMemory(),
        "upstream's SQLite": UpstreamSQLite(folder / "upstream.db"),
    }
    for name, peer in peers.items():
        works = {}
        for thread_id, count in (("t0", SMALL), ("t1", plan.rows)):
            peer.fill(thread_id, [item(f"{thread_id}-{n}", thread_id, n) for n in range(count)])
            works[thread_id] = partial(peer.page, thread_id, f"{thread_id}-{count // 2}")
        times = await medians(max(2, plan.rounds // 20), works, calls=2)
        found[name] = [times["t0"], times["t1"]]
    return found


def ours_as_peers(rows: list[Row], plan: Plan) -> dict[str, list[float]]:
    """Return the same two figures for our stores."""
    small, found = "page of 20, after a cursor", {}
    large = f"{small}: {plan.rows:,} against {SMALL}"
    for row in rows:
        if row.operation in (small, large):
            found.setdefault(f"this template's {row.store}", []).append(row.ours)
    return found


def machine() -> dict[str, Any]:
    """Return the machine that the figures were measured on."""
    cpuinfo = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*: (.+)", cpuinfo.read_text()) if cpuinfo.exists() else None
    return {
        "processor": model[1] if model else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    }


def main() -> None:
    """Print the tables and write them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--full", action="store_true", help="100,000 rows")
    parser.add_argument("--rows", type=int, help="rows of the large thread")
    parser.add_argument("--rounds", type=int, help="rounds of ten calls each")
    parser.add_argument("--stores", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--json", type=Path, default=Path(__file__).with_name("stores.json"))
    options = parser.parse_args()
    plan = Plan(
        rows=options.rows or (100_000 if options.full else 10_000),
        rounds=options.rounds or (200 if options.full else 150),
        deletes=30,
    )
    begun, found = time.monotonic(), machine()
    print(", ".join(f"{name}: {value}" for name, value in found.items()), end="\n\n")
    print(HEAD)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o711)  # PostgreSQL's own user has to get in
        sys.path.insert(0, name)
        for kind in options.stores:
            with engine(kind, folder) as url:
                rows += asyncio.run(measure_store(kind, folder, url, plan))
        peers = asyncio.run(measure_peers(folder, plan)) | ours_as_peers(rows, plan)
    print(f"\n| page of 20 after a cursor | of {SMALL} items | of {plan.rows:,} |")
    print("| --- | --: | --: |")
    for name, (small, large) in peers.items():
        print(f"| {name} | {small / 1000:.3f} ms | {large / 1000:.3f} ms |")
    missed = [row for row in rows if row.kept is False]
    print(f"\n{len(missed)} ratios beyond their bound, {time.monotonic() - begun:.0f} s in all")
    lines = [asdict(row) | {"ratio": row.ratio, "kept": row.kept} for row in rows]
    result = {"machine": found, "plan": asdict(plan), "rows": lines, "peers": peers}
    options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
