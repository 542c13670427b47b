"""The engine of the tests: one PostgreSQL for the whole run, a schema of its own for each test."""

import asyncio
import os
import secrets
from collections.abc import Iterator

import asyncpg
import pytest

import dev
from app.store import PostgresStore as Store
from dev import Server as PrivateEngine

__all__ = [
    "ENGINE",
    "SHARED",
    "PrivateEngine",
    "Store",
    "engine_url",
    "private_engine",
    "store_url",
]

ENGINE = "postgres"
SHARED = True
"""Two stores on one URL see the same data."""


@pytest.fixture(scope="session")
def engine_url() -> Iterator[str]:
    """Yield the URL of TEST_STORE_URL, or of an engine that ends with the run."""
    if url := os.environ.get("TEST_STORE_URL"):
        yield url
        return
    with dev.engine() as url:
        yield url


@pytest.fixture
def store_url(engine_url: str) -> Iterator[str]:
    """Yield a URL with a schema that nobody else uses, and drop that schema at the end."""
    schema = f"test_{secrets.token_hex(8)}"
    yield f"{engine_url}{'&' if '?' in engine_url else '?'}schema={schema}"
    asyncio.run(_drop(engine_url, schema))


@pytest.fixture
def private_engine() -> Iterator[PrivateEngine]:
    """Yield an engine that a test may stop, start and kill; its settings are the durable ones."""
    with dev.throwaway() as data, PrivateEngine(data) as engine:
        yield engine


async def _drop(url: str, schema: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(f'DROP SCHEMA IF EXISTS "{schema}" CASCADE')
    finally:
        await connection.close()
