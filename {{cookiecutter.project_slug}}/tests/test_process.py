"""`python -m app` as a process: what it says when it cannot start, and how it ends."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx2
import pytest

from app.__main__ import main, serve
from app.settings import Settings

from .engine import SHARED
from .serving import message, settings_for

ROOT = Path(__file__).parent.parent


def environment(folder: Path, **settings: str) -> dict[str, str]:
    """Return the settings, and only what Python needs of this machine's environment."""
    kept = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT") if name in os.environ}
    base = {"DATA_DIR": str(folder / "data"), "PORT": "0", "PYTHONPATH": str(ROOT)}
    return kept | base | settings


@pytest.fixture
def refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Return a function that runs an app that cannot start, and returns what it says."""
    monkeypatch.chdir(tmp_path)  # away from your own `.env`
    monkeypatch.setattr("app.__main__.set_up_logging", lambda _: None)  # keep pytest's
    monkeypatch.setenv("STORE_URL", "")  # the app sets it, for its workers; undone at the end

    def refused(*arguments: str, **settings: str) -> str:
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(SystemExit) as ended:
            sys.exit(main(list(arguments)))
        assert ended.value.code == 2
        return capsys.readouterr().err.removesuffix("\n")

    return refused


@contextmanager
def running(folder: Path, **settings: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start the app; yield the process and the address that it printed."""
    process = subprocess.Popen(
        [sys.executable, "-m", "app"],
        env=environment(folder, **settings),
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        found = re.search(r"http://\S+", line)
        assert found, line
        yield process, found[0]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"PORT": "eighty"}, "PORT=eighty"),
        ({"MAX_TURNS": "0"}, "MAX_TURNS=0"),
        ({"SHUTDOWN_SECONDS": "inf"}, "SHUTDOWN_SECONDS=inf"),
        ({"ON_DISCONNECT": "panic"}, "ON_DISCONNECT=panic"),
        ({"ALLOWED_ORIGINS": "https://a.example,*"}, "ALLOWED_ORIGINS=*"),
        ({"ALLOWED_ORIGINS": "https://a.example/"}, "ALLOWED_ORIGINS=https://a.example/"),
        ({"IMAGE_HOSTS": "*"}, "IMAGE_HOSTS=*"),
        ({"FILE_TYPES": "image/png,image/jpg"}, "FILE_TYPES=image/jpg"),
        ({"FILES_URL": "ftp://host/a"}, "FILES_URL=ftp://host/a"),
        ({"FILES_URL": "s3"}, "FILES_URL=s3"),
        ({"ALLOWED_HOSTS": "a.example:8000"}, "ALLOWED_HOSTS=a.example:8000"),
        ({"PUBLIC_URL": "a.example"}, "PUBLIC_URL=a.example"),
        ({"OIDC_ISSUER": "login.example"}, "OIDC_ISSUER=login.example"),
        ({"OPENAI_BASE_URL": "my.models"}, "OPENAI_BASE_URL=my.models"),
        ({"WORKERS": "2", "FILES_URL": "memory://"}, "WORKERS must be 1"),
        ({"DATA_DIR": "taken", "STORE_URL": ""}, "DATA_DIR=taken: "),
        ({"STORE_URL": "mongodb://user:hidden@127.0.0.1/chat"}, "STORE_URL"),
    ],
)
def test_a_wrong_setting_is_named_in_one_line(
    refusal: Callable[..., str], tmp_path: Path, settings: dict[str, str], name: str
) -> None:
    """Exit status 2, the setting and what is wrong; nothing else, least of all a password."""
    (tmp_path / "taken").touch()
    line = refusal(**settings)
    assert name in line
    assert "\n" not in line
    assert "hidden" not in line


def test_a_key_that_cannot_be_read_is_named_in_one_line(
    refusal: Callable[..., str], tmp_path: Path
) -> None:
    """Another user of this machine may have made it."""
    (tmp_path / "secret_key").mkdir()
    line = refusal(DATA_DIR=str(tmp_path))
    assert line.startswith(f"DATA_DIR={tmp_path}: ")
    assert line.endswith("secret_key'")
    assert "\n" not in line


def test_a_folder_that_cannot_take_uploads_is_named_in_one_line(
    refusal: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On another user's volume, say: the app would start, and every upload would fail."""

    def denied(**_: object) -> None:  # tests may run as root, who is denied nothing
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("app.__main__.TemporaryFile", denied)
    key = "0123456789abcdefghijklmnopqrstuvwxyz"
    line = refusal(DATA_DIR=str(tmp_path), SECRET_KEY=key, STORE_URL="elsewhere://")
    assert line == f"DATA_DIR={tmp_path}: [Errno 13] Permission denied"


def test_an_empty_key_is_replaced(tmp_path: Path) -> None:
    """The disk may have been full; anybody could forge what an empty key signs."""
    (tmp_path / "secret_key").touch()
    assert len(Settings(data_dir=tmp_path).signing_key()) == 64
    assert Settings(data_dir=tmp_path, secret_key="mine").signing_key() == "mine"
    made = tmp_path / "other"
    assert Settings(data_dir=made).signing_key() == Settings(data_dir=made).signing_key()
    if os.name == "posix":
        assert (made / "secret_key").stat().st_mode & 0o077 == 0, "others can read the key"


def test_production_has_a_line_for_each_setting_that_is_missing(
    refusal: Callable[..., str],
) -> None:
    """Nobody has to start it five times to learn of five settings."""
    lines = refusal(ENVIRONMENT="production").splitlines()
    names = ("STORE_URL", "SECRET_KEY", "OIDC_ISSUER", "CHATKIT_DOMAIN_KEY", "ALLOWED_HOSTS")
    assert [line.startswith(name) for line, name in zip(lines, names, strict=True)] == [True] * 5


@pytest.mark.parametrize("more", [{"WORKERS": "2"}, {"ENVIRONMENT": "production"}])
def test_reload_is_for_one_worker_in_development(
    refusal: Callable[..., str], more: dict[str, str]
) -> None:
    """Anything else is refused, and not ignored."""
    lines = refusal(RELOAD="true", **more).splitlines()
    assert "RELOAD is for development with one worker" in lines


def test_a_wrong_line_of_the_env_file_is_named(refusal: Callable[..., str], tmp_path: Path) -> None:
    """With what is wrong about its value; the file may hold other programs' variables."""
    (tmp_path / ".env").write_text("POSTGRES_PASSWORD=x\nMAX_TURNS=zero\n")
    line = refusal()
    assert line.startswith("MAX_TURNS=zero: ")
    assert "valid integer" in line


def test_a_misspelt_name_in_the_env_file_is_reported(
    refusal: Callable[..., str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Otherwise its default would silently apply; a tool's own variables are left alone."""
    (tmp_path / ".env").write_text("OPENAI_KEY=x\nMODEL=y\nWEATHER_API_KEY=z\n")
    refusal(DATA_DIR=str(tmp_path / ".env"))
    told = [record.getMessage() for record in caplog.records]
    assert told == [".env: OPENAI_KEY is not a setting; did you mean OPENAI_API_KEY?"]


def test_an_env_file_that_cannot_be_read_is_named(
    refusal: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An old editor wrote it, or another user, for nobody else to read."""
    (tmp_path / ".env").write_bytes(b"MODEL=caf\xe9\n")
    assert refusal().startswith(".env must be UTF-8")

    def denied() -> None:
        raise PermissionError(13, "Permission denied", ".env")

    monkeypatch.setattr("app.__main__.Settings", denied)
    assert "readable by this user: [Errno 13] Permission denied" in refusal()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.com"])  # noqa: S104
def test_a_development_app_stays_on_this_machine(refusal: Callable[..., str], host: str) -> None:
    """The line says why, and what to set."""
    line = refusal(HOST=host)
    assert f"HOST={host} would expose a development app to the network" in line
    assert "ENVIRONMENT=production" in line


def test_a_port_in_use_is_named_in_one_line(refusal: Callable[..., str], store_url: str) -> None:
    """The line names the port and the setting."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        line = refusal(PORT=port, STORE_URL=store_url)
    assert "\n" not in line
    assert f"('127.0.0.1', {port})" in line
    assert "set another HOST or PORT" in line


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can limit this")
def test_a_client_that_stops_reading_is_dropped(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, store_url: str
) -> None:
    """What its download or answer holds is freed, even if the client stays connected."""

    def run(_: object, sockets: list[socket.socket]) -> None:
        with sockets[0] as door, socket.create_connection(door.getsockname()):
            with door.accept()[0] as reader:
                reader.settimeout(10)
                with pytest.raises(TimeoutError, match="Connection timed out"):
                    reader.sendall(bytes(64 << 20))

    monkeypatch.setenv("PORT", "0")  # `serve` sets it; undone at the end
    monkeypatch.setattr("app.__main__.STALLED_SECONDS", 1)
    monkeypatch.setattr("uvicorn.Server.run", run)
    assert serve(settings_for(store_url, tmp_path, port=0)) == 0


def test_an_unknown_command_names_the_known_ones(refusal: Callable[..., str]) -> None:
    """A misspelt command does not start a server; asking for help is not an error."""
    line = refusal("exprot").splitlines()[-1]
    assert "exprot" in line
    assert ("import" in line) == SHARED  # memory has no commands
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0


@pytest.mark.skipif(os.name != "posix", reason="Windows cannot signal one process")
@pytest.mark.parametrize(
    ("module", "command"),
    [("argparse", []), ("pydantic", []), ("pydantic", ["export", "--all"]), ("app.store", [])],
)
def test_ctrl_c_during_the_start_is_no_traceback(
    tmp_path: Path, module: str, command: list[str]
) -> None:
    """Not even during the imports, which take seconds; half an export says that it is one."""
    with subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "app", *command],
        env=environment(tmp_path, STORE_URL="memory://"),
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        while next(process.stderr).split()[-1] != module:
            pass
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
        assert "Traceback" not in said
        assert said.endswith("stopped before the end\n") == bool(command)
    assert process.returncode == len(command[:1])


def test_the_app_starts_answers_and_ends_on_sigterm(tmp_path: Path, store_url: str) -> None:
    """It is alive and ready, has a page, and exits cleanly.

    New clients are refused while the last answer ends, so that a proxy asks another machine.
    """
    alone = store_url.startswith("memory:") or os.name != "posix"  # Windows ends only the first
    kind, params = message("w " * 100)  # the answer takes more than 4 s
    with running(tmp_path, STORE_URL=store_url, WORKERS="1" if alone else "2") as (process, url):
        with httpx2.Client(base_url=url, timeout=60) as client:
            assert client.get("/healthz").json() == {"status": "ok"}
            assert client.get("/readyz").json() == {"status": "ok"}
            page = client.get("/")
            assert "<!doctype html>" in page.text.lower()
            assert f" {url}/;" in page.headers["content-security-policy"] + ";", "files are there"
            with client.stream("POST", "/chatkit", json={"type": kind, "params": params}) as answer:
                lines = answer.iter_lines()  # unnamed, it would close the connection
                next(lines)
                process.send_signal(signal.SIGTERM)
                with pytest.raises(httpx2.ConnectError):
                    knock(url)
        assert process.wait(timeout=15) == (0 if os.name == "posix" else 1)


def knock(url: str) -> None:
    """Ask until the connection is refused; one accepted just before that may still break."""
    while True:
        with suppress(httpx2.ReadError, httpx2.RemoteProtocolError):
            httpx2.get(f"{url}/healthz", timeout=2)
