"""What browser tests share: a running app that can be killed, a page that reports its faults."""

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, Route, expect

from baked import STORAGES, BakedProject, Session, free_port, uv, wait_until_ready

HERE = Path(__file__).parent
LOG_VIOLATIONS = """addEventListener("securitypolicyviolation", ({violatedDirective, blockedURI}) =>
    console.error("CSP", violatedDirective, blockedURI))"""
FED = r"""
const real = fetch;
window.fetch = async (url, init) => {
  if (!/"threads\.(create|add_|retry_)/.test(init?.body)) return real(url, init);
  window.turn = JSON.parse(init.body);
  return new Response(new ReadableStream({start: (stream) => {
    const encoder = new TextEncoder();
    init.signal.addEventListener("abort", () => stream.error(init.signal.reason));
    window.feed = (it) => stream.enqueue(encoder.encode(`data: ${JSON.stringify(it)}\n\n`));
    window.end = () => stream.close();
  }}));
};
"""
"""The events of answers come from `feed`, one by one; `turn` is what was asked last."""
ABOUT = {"thread_id": "thr_1", "created_at": "2026-01-01T00:00:00"}
ASKED = {"type": "user_message", "id": "u", "attachments": [], **ABOUT}
ASKED["content"] = [{"type": "input_text", "text": "Go"}]
GAP = "log => Math.round(log.scrollHeight - log.scrollTop - log.clientHeight)"
JS = "text/javascript"
SCRIPT = "https://cdn.platform.openai.com/deployments/chatkit/chatkit.js"
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de"
    "0000000c49444154789c63606060000000040001f61738550000000049454e44ae426082"
)
STORES = [pytest.param(name, marks=pytest.mark.xdist_group(f"page-{name}")) for name in STORAGES]
ONE = [pytest.param("memory", marks=pytest.mark.xdist_group("page-memory"))]
each_store = pytest.mark.parametrize("app", STORES, indirect=True)
one_store = pytest.mark.parametrize("app", ONE, indirect=True)


@dataclass
class RunningApp:
    """A baked app in a process of its own, on a port that it keeps across restarts."""

    project: BakedProject
    settings: dict[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Return where it listens."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        """Return the file with what it said."""
        return self.project.path.with_name(f"{self.project.path.name}-{self.port}.log")

    def start(self) -> None:
        """Start it, and return when it is ready."""
        command = [uv(), "run", "python", str(HERE / "launch.py")]
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                command,
                cwd=self.project.path,
                env=self.project.environment(PORT=str(self.port), **self.settings),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        wait_until_ready(Session(self.url), self.process, self.log)

    def end(self, how: signal.Signals = signal.SIGKILL) -> None:
        """End it, and all that it started."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, how)
            self.process.wait(20)


class Visitor:
    """A user with a browser of their own, on the page of a running app."""

    def __init__(self, page: Page, app: RunningApp) -> None:
        """Take the page; `faults` collects every error that its console shows."""
        self.page, self.app = page, app
        self.faults: list[str] = []
        page.on("console", self._note)
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.add_init_script(LOG_VIOLATIONS)

    def _note(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.faults.append(f"{message.text} ({message.location.get('url')})")

    def open(self, path: str = "/?plain") -> "Visitor":
        """Open the page and wait until it accepts a message."""
        self.page.goto(self.app.url + path)
        expect(self.send).to_be_enabled()
        return self

    def reload(self) -> None:
        """Load the page again."""
        self.page.reload()
        expect(self.send).to_be_enabled()

    def button(self, name: str | re.Pattern[str]) -> Locator:
        """Return the button that a screen reader calls by this name."""
        return self.page.get_by_role("button", name=name, exact=True)

    @property
    def send(self) -> Locator:
        """Return the button that sends."""
        return self.button("Send")

    @property
    def box(self) -> Locator:
        """Return the box for a message."""
        return self.page.get_by_role("textbox", name="Message")

    @property
    def answers(self) -> Locator:
        """Return the assistant's items that can be seen."""
        return self.page.get_by_role("article", name="Assistant")

    @property
    def messages(self) -> Locator:
        """Return the user's messages."""
        return self.page.get_by_role("article", name="You")

    @property
    def chats(self) -> Locator:
        """Return the list of chats."""
        return self.page.get_by_role("navigation", name="Chats").get_by_role("listitem")

    @property
    def status(self) -> Locator:
        """Return the line that says how things are."""
        return self.page.get_by_role("status")

    def chat(self, title: str) -> Locator:
        """Return the button that opens a chat."""
        return self.chats.get_by_role("button", name=title, exact=True)

    def open_among(self, count: int) -> "Visitor":
        """Open the page with chats “Chat 0” and so on, each with one message, “In chat 0”."""
        self.page.request.get(f"{self.app.url}/config.json")  # it sets the cookie
        self.make(f"/chats/{count}")
        self.open()
        expect(self.page.locator("#chats li")).to_have_count(min(count, 50))
        return self

    def fill(self, count: int) -> None:
        """Add messages to the open chat, “Message number 0” and so on, and load it again."""
        thread = self.page.url.partition("#")[2]
        self.make(f"/fill/{thread}/{count}")
        self.reload()

    def make(self, path: str) -> None:
        """Have one of `launch.py`'s routes make what is read, as if asked by the app's own page."""
        made = self.page.request.post(self.app.url + path, headers={"Origin": self.app.url})
        assert made.ok

    def attach(self, *names: str, data: bytes = PNG) -> None:
        """Choose images for the next message."""
        files = [{"name": name, "mimeType": "image/png", "buffer": data} for name in names]
        self.page.locator("input[type=file]").set_input_files(files)

    def forgive(self, pattern: str) -> None:
        """Drop the faults that a test has caused on purpose."""
        self.faults = [fault for fault in self.faults if not re.search(pattern, fault)]

    def open_fed(self) -> None:
        """Open the page with `FED`."""
        self.page.add_init_script(FED)
        self.open()

    def begin_fed(self) -> None:
        """Send a first message, if the page is `FED`; let its thread and the message come back."""
        self.box.fill("Go")
        self.send.click()
        self.asks("threads.create")
        self.feed("thread.created", thread={"id": "thr_1"})
        self.feed("thread.item.done", item=ASKED)

    def asks(self, kind: str) -> None:
        """Wait until the page has asked for an answer of this kind, if it is `FED`."""
        until(self.page, lambda: self.page.evaluate("window.turn?.type") == kind)

    def feed(self, kind: str, **event: object) -> None:
        """Let the answer's next event come, if the page is `FED`."""
        self.page.evaluate("event => feed(event)", {"type": kind, **event})

    def settle(self) -> None:
        """Wait until the page has done what its last events led to."""
        self.page.evaluate("new Promise((done) => setTimeout(() => requestAnimationFrame(done)))")

    def begin(self, text: str) -> None:
        """Send a message and wait for the answer's first words."""
        count = self.answers.count()
        self.box.fill(text)
        self.box.press("Enter")
        expect(self.answers.nth(count)).to_contain_text(re.compile(r"\w"))

    def say(self, text: str) -> str:
        """Send a message; return the whole answer."""
        self.begin(text)
        expect(self.send).to_be_visible()
        return self.answers.last.locator(".text").inner_text()


def until(page: Page, condition: Callable[[], object]) -> None:
    """Wait, for at most ten seconds, until a condition holds."""
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        page.wait_for_timeout(10)


class Held:
    """Requests of one kind, kept back until the test lets them go."""

    def __init__(self, page: Page, kind: str = "", url: str = "**/chatkit") -> None:
        """Keep them from now on: those to a URL, or of one kind in ChatKit's protocol."""
        self.page, self.kind, self.keeps = page, kind, True
        self.routes: list[Route] = []
        page.route(url, self._keep)

    def _keep(self, route: Route) -> None:
        if self.keeps and (not self.kind or route.request.post_data_json["type"] == self.kind):
            self.routes.append(route)
        else:
            route.fallback()

    def wait(self, count: int = 1) -> list[Route]:
        """Return the requests once there are this many."""
        until(self.page, lambda: len(self.routes) == count)
        return self.routes

    def release(self) -> None:
        """Let them all go, and keep back no more."""
        self.keeps = False
        for route in self.routes:
            route.continue_()


@contextlib.contextmanager
def visit(browser: Browser, app: RunningApp, **options: object) -> Iterator[Visitor]:
    """Give a new user with a fresh browser; at the end its console must be clean."""
    with contextlib.closing(browser.new_context(**options)) as context:
        context.set_default_timeout(15_000)
        elsewhere = re.compile(rf"^https?://(?!127\.0\.0\.1:{app.port}/)")
        context.route(elsewhere, lambda route: route.abort("blockedbyclient"))
        visitor = Visitor(context.new_page(), app)
        yield visitor
        assert visitor.faults == []


def change_config(page: Page, **changes: object) -> None:
    """Let the page read other values from /config.json than the server gave."""

    def change(route: Route) -> None:
        route.fulfill(json=route.fetch().json() | changes)

    page.route("**/config.json", change)


def open_official(ada: Visitor, path: str = "/") -> Locator:
    """Open the page with the stand-in in place of the CDN's component; return the stand-in."""
    stand_in = {"path": HERE / "chatkit.js", "content_type": JS}
    ada.page.route(SCRIPT, lambda route: route.fulfill(**stand_in))
    ada.page.goto(ada.app.url + path)
    chatkit = ada.page.locator("openai-chatkit")
    expect(chatkit).to_have_text("What can I help with today?")
    return chatkit


def faults_of_axe(page: Page) -> None:
    """Assert that axe-core finds nothing serious."""
    found = Axe().run(page).response["violations"]
    serious = [fault for fault in found if fault["impact"] in ("serious", "critical")]
    assert [(fault["id"], fault["nodes"][0]["html"]) for fault in serious] == []
