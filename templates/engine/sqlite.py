"""The engine that the store's tests run on: SQLite, a file for each test.

TEST_STORE_URL moves the files to another disk: with `sqlite:////mnt/any.db` they are beside any.db.
"""

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

__all__ = ["ENGINE", "SHARED", "engine_url", "store_url"]

ENGINE = "sqlite"
SHARED = True


@pytest.fixture(scope="session")
def engine_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the URL of a file whose folder the tests may use."""
    fresh = f"sqlite:///{tmp_path_factory.mktemp('engine') / 'chat.db'}"
    return os.environ.get("TEST_STORE_URL") or fresh


@pytest.fixture
def store_url(engine_url: str) -> Iterator[str]:
    """Yield the URL of a file that is not there yet; remove it and its log afterwards."""
    folder = Path(engine_url.removeprefix("sqlite:///")).parent
    name = f"test_{secrets.token_hex(8)}.db"
    yield f"sqlite:///{folder / name}"
    for path in folder.glob(f"{name}*"):
        path.unlink()
