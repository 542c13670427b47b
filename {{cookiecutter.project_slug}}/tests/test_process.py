"""`python -m app` as a process: what it says when it cannot start, and how it ends."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from app.__main__ import main

ROOT = Path(__file__).parent.parent


def environment(folder: Path, **settings: str) -> dict[str, str]:
    """Return the settings, and of this machine's environment only what Python needs."""
    kept = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT") if name in os.environ}
    base = {"DATA_DIR": str(folder / "data"), "PORT": "0", "PYTHONPATH": str(ROOT)}
    return kept | base | settings


def refusal(folder: Path, **settings: str) -> tuple[int, str]:
    """Run an app that cannot start; return its status and what it said."""
    done = subprocess.run(
        [sys.executable, "-m", "app"],
        env=environment(folder, **settings),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stderr


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
        ({"HOST": "0.0.0.0"}, "HOST=0.0.0.0"),  # noqa: S104 - refused
        ({"ENVIRONMENT": "production"}, "STORE_URL"),
        ({"ON_DISCONNECT": "panic"}, "ON_DISCONNECT=panic"),
    ],
)
def test_a_wrong_setting_is_named_in_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    settings: dict[str, str],
    name: str,
) -> None:
    """Exit status 2, the setting and its fault, nothing else."""
    monkeypatch.chdir(tmp_path)  # away from the `.env` of who runs this
    for key, value in settings.items():
        monkeypatch.setenv(key, value)
    assert main([]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert name in line


def test_a_wrong_store_is_named_in_one_line(tmp_path: Path) -> None:
    """The setting to change is STORE_URL."""
    status, said = refusal(tmp_path, STORE_URL="mongodb://user:hidden@127.0.0.1/chat")
    assert status == 2
    assert "STORE_URL" in said
    assert "hidden" not in said
    assert len(said.splitlines()) == 1


def test_a_port_in_use_is_named_in_one_line(tmp_path: Path, store_url: str) -> None:
    """The line names the port and the setting."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        status, said = refusal(tmp_path, PORT=port, STORE_URL=store_url)
    assert status == 2
    assert port in said
    assert "PORT" in said
    assert "Traceback" not in said


def test_an_unknown_command_names_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    """A misspelt command does not start a server."""
    assert main(["exprot"]) == 2
    assert "export" in capsys.readouterr().err


def test_the_app_starts_answers_and_ends_on_sigterm(tmp_path: Path, store_url: str) -> None:
    """Alive, ready, a page, and a clean exit."""
    with running(tmp_path, STORE_URL=store_url) as (process, url):
        with httpx2.Client(base_url=url, timeout=60) as client:
            assert client.get("/healthz").json() == {"status": "ok"}
            assert client.get("/readyz").json() == {"status": "ok"}
            assert "<!doctype html>" in client.get("/").text.lower()
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=15) == 0
