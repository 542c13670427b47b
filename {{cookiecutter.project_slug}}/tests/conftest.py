"""What every test may ask for."""

import gc
import ipaddress
import os
import sys
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest

from .engine import *  # noqa: F403 (the fixtures of the engine, whichever they are)
from .engine import SHARED

if TYPE_CHECKING:  # pytest-xdist's own process reads this file, and needs no SDK
    from app.store import ChatStore as Store


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Run async tests on asyncio, as the app does."""
    return "asyncio"


@pytest.fixture
async def store(store_url: str) -> AsyncIterator["Store"]:
    """An empty store on the engine of this app."""
    from app.store import ChatStore  # noqa: PLC0415 (as above)

    async with ChatStore.open(store_url) as opened:
        yield opened


@pytest.fixture
async def neighbour(store: "Store", store_url: str) -> AsyncIterator["Store"]:
    """A second store on the same data, as another process has; without one, the same store."""
    if not SHARED:
        yield store
        return
    async with type(store).open(store_url) as opened:
        yield opened


def _stay_here(event: str, args: tuple[object, ...]) -> None:
    """Let no test reach a network: whatever is asked, it is on this machine."""
    if event == "socket.connect" and isinstance(args[1], tuple):
        assert ipaddress.ip_address(args[1][0]).is_loopback, f"a test connects to {args[1][0]}"


if sys.platform != "win32":
    os.environ["TZ"] = "America/Los_Angeles"  # who takes a naive time for this machine's is seen
    time.tzset()
gc.disable()  # while all is imported: it takes a sixth less
if not os.environ.get("TEST_STORE_URL"):  # which may be elsewhere
    sys.addaudithook(_stay_here)


def pytest_collection_finish() -> None:
    """Look at what is imported no more: a full collection of the SDK's objects takes 0.2 s."""
    gc.freeze()
    gc.enable()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int | None:
    """Take one worker more than cores, as half of the tests' time is waiting."""
    if os.environ.get("PYTEST_XDIST_AUTO_NUM_WORKERS"):
        return None  # xdist reads it
    return (os.cpu_count() or 1) + 1
