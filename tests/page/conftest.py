"""A browser, an app with each store, and a user: for the tests of the page."""

import shutil
import signal
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, sync_playwright

from baked import BakedProject
from page.browsing import RunningApp, Visitor, visit

CHROMIUM_FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")  # its event loop would block asyncio.run in other files
def browser() -> Iterator[Browser]:
    """Start the system's Chromium; nothing is downloaded."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("no chromium on this machine: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=CHROMIUM_FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def app(request: pytest.FixtureRequest, bake: Callable[..., BakedProject]) -> Iterator[RunningApp]:
    """Bake and run an app with one store, for all the tests of that store."""
    app = RunningApp(bake(storage_type=request.param))
    try:
        app.start()
        yield app
    finally:
        app.end(signal.SIGTERM)


@pytest.fixture
def ada(browser: Browser, app: RunningApp) -> Iterator[Visitor]:
    """Give a user with a browser."""
    with visit(browser, app, locale="de-AT", timezone_id="Europe/Lisbon") as visitor:
        yield visitor
