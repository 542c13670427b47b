"""The engine that the store's tests run on: memory.

Whatever the engine, the tests ask this module for:
`ENGINE`       the engine's name;
`SHARED`       whether two stores that are opened on one URL see the same data;
`engine_url`   fixture for the whole run: TEST_STORE_URL, or an engine started for the run;
`store_url`    fixture: a URL with nothing behind it yet, for one test, cleaned up afterwards;
`private_engine`  fixture, where the engine is a server: one of the test's own, with `.url`,
               `.stop()` and `.start()` (the same URL and data again); both return when done.
"""

import pytest

__all__ = ["ENGINE", "SHARED", "engine_url", "store_url"]

ENGINE = "memory"
SHARED = False


@pytest.fixture(scope="session")
def engine_url() -> str:
    """Nothing to start."""
    return "memory://"


@pytest.fixture
def store_url(engine_url: str) -> str:
    """Every store in memory begins empty."""
    return engine_url
