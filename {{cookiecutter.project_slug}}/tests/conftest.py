"""What every test may use."""

import gc
import ipaddress
import os
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .engine import *  # noqa: F403 (the engine's fixtures, whichever engine it is)
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
    """A second store on the same data, as in another process; in memory, the same store."""
    if not SHARED:
        yield store
        return
    async with type(store).open(store_url) as opened:
        yield opened


def _stay_here(event: str, args: tuple[object, ...]) -> None:
    """Let no test reach a network: all that it connects to is on this machine."""
    if event == "socket.connect" and isinstance(args[1], tuple):
        assert ipaddress.ip_address(args[1][0]).is_loopback, f"a test connects to {args[1][0]}"


if sys.platform != "win32":
    os.environ["TZ"] = "America/Los_Angeles"  # shows code that takes naive times for local ones
    time.tzset()
gc.disable()  # during the imports: they take a sixth less time
if not os.environ.get("TEST_STORE_URL"):  # a store of your own may be elsewhere
    sys.addaudithook(_stay_here)
    os.environ["SSL_CERT_DIR"] = str(Path(__file__).parent)  # no TLS: certificates take 20 ms


def pytest_collection_finish() -> None:
    """Never collect what is imported: a full collection of the SDK's objects takes 0.2 s."""
    gc.freeze()
    gc.enable()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int | None:
    """Use one more worker than there are cores: half of the tests' time is waiting."""
    if os.environ.get("PYTEST_XDIST_AUTO_NUM_WORKERS"):
        return None  # xdist reads the variable itself
    return (os.cpu_count() or 1) + 1
