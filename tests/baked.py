"""A baked app as tests see it: its commands run without the tests' own environment."""

import ast
import contextlib
import http.cookiejar
import itertools
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

TEMPLATE = Path(__file__).parents[1]
STORAGES = ("memory", "sqlite", "redis", "postgres")
CONTEXTS = ("dict", "dataclass", "pydantic")
KEPT = ("PIP_", "UV_", "SSL_", "REQUESTS_", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SYSTEMROOT")
"""The outer variables that a baked app may see: they say how to reach a package index."""
FIRST = 11_000 + 400 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
PORTS = itertools.cycle(random.sample(range(FIRST, FIRST + 400), 400))  # this worker's own
ENGINE = "import dev, sys\nwith dev.engine() as url: print(url, flush=True), sys.stdin.read()"


def bare_environment(**more: str) -> dict[str, str]:
    """Return an environment with only a PATH, a home and the way to a package index."""
    kept = {name: value for name, value in os.environ.items() if name.upper().startswith(KEPT)}
    kept.pop("UV_PROJECT_ENVIRONMENT", None)
    path = f"{Path(sys.base_prefix, 'bin')}{os.pathsep}{os.defpath}"
    return kept | {"PATH": path, "HOME": str(Path.home()), "LANG": "C.UTF-8"} | more


def uv() -> str:
    """Return the path of the uv that runs these tests."""
    beside = Path(sys.executable).with_name("uv")
    found = os.environ.get("UV") or (str(beside) if beside.exists() else shutil.which("uv"))
    if not found:
        raise RuntimeError("no uv: run the tests with `make test`")
    return found


def tracked() -> list[Path]:
    """Return the paths of all files that belong to the template."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=TEMPLATE, capture_output=True, check=True, text=True,
    ).stdout  # fmt: skip
    return [path for name in listed.split("\0") if name and (path := TEMPLATE / name).exists()]


def copy_template(folder: Path) -> None:
    """Copy what cookiecutter reads, over an older copy if there is one."""
    skip = shutil.ignore_patterns(".*_cache", "__pycache__", ".venv", ".hypothesis")
    for name in ("hooks", "templates", "{{cookiecutter.project_slug}}"):
        shutil.copytree(TEMPLATE / name, folder / name, ignore=skip, dirs_exist_ok=True)
    shutil.copy(TEMPLATE / "cookiecutter.json", folder)


def parse(path: Path) -> None:
    """Parse a file if its suffix says how; raise an exception if it is wrong."""
    parsers: dict[str, Callable[[str], object]] = {
        ".py": ast.parse,
        ".toml": tomllib.loads,
        ".yaml": yaml.safe_load,
        ".yml": yaml.safe_load,
        ".json": json.loads,
    }
    if found := parsers.get(path.suffix):
        found(path.read_text(encoding="utf-8"))


def message(text: str, **more: object) -> dict[str, Any]:
    """Return a user's message as the protocol has it."""
    part = {"type": "input_text", "text": text}
    return {"content": [part], "attachments": [], "inference_options": {}} | more


def free_port() -> int:
    """Return a port that no browser refuses, no client is given and no other worker's app takes.

    Of the ports that the Fetch standard calls bad, the highest is 10080.
    """
    for port in PORTS:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            break
    return port


@dataclass
class Session:
    """One user of a running app: sends ChatKit operations and keeps the cookie."""

    url: str
    _opener: urllib.request.OpenerDirector = field(init=False)

    def __post_init__(self) -> None:
        """Start with an empty cookie jar and no proxy."""
        jar = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), jar)

    def fetch(self, request: str | urllib.request.Request, seconds: float = 20) -> bytes:
        """Return the whole answer; a refusal is a closed HTTPError."""
        try:
            with self._opener.open(request, timeout=seconds) as answer:
                return bytes(answer.read())
        except urllib.error.HTTPError as refusal:
            refusal.close()
            raise

    def get(self, path: str) -> str:
        """Return the body of a page."""
        return self.fetch(self.url + path).decode()

    def send(self, path: str, body: bytes, kind: str = "application/json", **headers: str) -> bytes:
        """Send a body to an address; return the whole answer."""
        known = {"Content-Type": kind, **headers}
        request = urllib.request.Request(self.url + path, body, known)  # noqa: S310 - the app's own
        return self.fetch(request, 60)

    def post(self, operation: str, **params: object) -> bytes:
        """Send one operation; return the whole answer."""
        body = {"type": operation, "params": params, "metadata": {}}
        return self.send("/chatkit", json.dumps(body).encode())

    def events(self, operation: str, **params: object) -> list[dict[str, Any]]:
        """Send one streaming operation; return its events."""
        lines = self.post(operation, **params).decode().splitlines()
        return [json.loads(line[6:]) for line in lines if line.startswith("data: ")]

    def say(self, text: str, thread_id: str | None = None) -> tuple[str, str]:
        """Send a message, without an id in a new thread; return the thread's id and the answer."""
        said = message(text)
        if thread_id is None:
            events = self.events("threads.create", input=said)
            thread_id = next(e["thread"]["id"] for e in events if e["type"] == "thread.created")
        else:
            events = self.events("threads.add_user_message", thread_id=thread_id, input=said)
        items = [e["item"] for e in events if e["type"] == "thread.item.done"]
        answers = [i for i in items if i["type"] == "assistant_message"]
        if not answers:
            raise AssertionError(f"no answer among {[e['type'] for e in events]}: {events[-1]}")
        return thread_id, "".join(part["text"] for part in answers[-1]["content"])


@dataclass(frozen=True)
class BakedProject:
    """A generated app in its folder."""

    path: Path
    answers: Mapping[str, str] = field(default_factory=dict)

    @property
    def contract(self) -> list[str]:
        """The test files that any store has to pass, wherever its engine is."""
        found = sorted(self.path.glob("tests/test_store*.py"))
        names = [path.relative_to(self.path).as_posix() for path in found]
        return [name for name in names if name != "tests/test_store_engine.py"]

    def environment(self, **more: str) -> dict[str, str]:
        """Return its commands' environment: nothing from outside, and uv on the PATH."""
        bare = bare_environment(**more)
        return bare | {"PATH": f"{Path(uv()).parent}{os.pathsep}{bare['PATH']}"}

    def run(
        self, *command: str, timeout: float = 600, **more: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the app's folder; its output, errors included, is in `stdout`."""
        process = subprocess.Popen(
            [uv(), *command[1:]] if command[0] == "uv" else command,
            cwd=self.path,
            env=self.environment(**more),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            start_new_session=True,
        )
        try:
            said, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            _kill(process)
            said, _ = process.communicate()
            said += f"\n(killed after {timeout:.0f} s)"
        finally:
            _kill(process)
        return subprocess.CompletedProcess(command, process.returncode, said)

    def check(self, *command: str, timeout: float = 600, **more: str) -> str:
        """Run a command that must succeed; return its output."""
        done = self.run(*command, timeout=timeout, **more)
        if done.returncode:
            raise AssertionError(f"{' '.join(command)} ended with {done.returncode}\n{done.stdout}")
        return done.stdout

    def files(self) -> set[str]:
        """Return the paths of its files, as they were baked."""
        made = {".venv", ".data", "__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache"}
        return {
            path.relative_to(self.path).as_posix()
            for path in self.path.rglob("*")
            if path.is_file() and not made & set(path.relative_to(self.path).parts)
        }

    @contextlib.contextmanager
    def engine(self) -> Iterator[str]:
        """Run the private engine; yield its address, or "" where the store has no server.

        The environment (`uv sync`) has to exist.
        """
        if not (self.path / "dev.py").exists():
            yield ""
            return
        with subprocess.Popen(
            [self.path / ".venv/bin/python", "-c", ENGINE],
            cwd=self.path,
            env=self.environment(),
            stdin=subprocess.PIPE,  # the engine ends when this is closed
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout
            yield process.stdout.readline().strip()

    @contextlib.contextmanager
    def serve(self, *command: str, **more: str) -> Iterator[Session]:
        """Run the app until the block ends, then end it with SIGTERM, which must be clean.

        Raises:
            AssertionError: it did not start, did not end within 20 s or ended with an error.
        """
        port = free_port()
        log = self.path.with_name(f"{self.path.name}-{port}.log")
        with log.open("wb") as out:
            process = subprocess.Popen(
                command or ("make", "run"),
                cwd=self.path,
                env=self.environment(PORT=str(port), **more),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        session = Session(f"http://127.0.0.1:{port}")
        try:
            wait_until_ready(session, process, log)
            yield session
            with contextlib.suppress(OSError):  # one that is ending already is not told twice
                session.get("/healthz")
                os.killpg(process.pid, signal.SIGTERM)
            ended = _all_ended(process, 20)
            said = log.read_text(encoding="utf-8", errors="replace")
            codes = (0, 2, -signal.SIGTERM, 128 + signal.SIGTERM)
            if not ended or "Traceback" in said or process.returncode not in codes:
                raise AssertionError(f"ended: {ended}, with {process.returncode}:\n{said}")
        finally:
            _kill(process)
            process.wait()


def _kill(process: subprocess.Popen[Any]) -> None:
    """Kill a process and its children, whatever is left of them."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _all_ended(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Wait for a process and its children: make ends at once, the app when it is done."""
    end = time.monotonic() + seconds
    with contextlib.suppress(ProcessLookupError):
        while time.monotonic() < end:
            process.poll()
            os.killpg(process.pid, 0)
            time.sleep(0.05)
        return False
    return True


def wait_until_ready(session: Session, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until /readyz answers, for at most two minutes; otherwise raise the log as an error."""
    end = time.monotonic() + 120
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError):
            session.get("/readyz")
            return
        time.sleep(0.1)
    raise AssertionError(f"not ready:\n{log.read_text(encoding='utf-8', errors='replace')}")
