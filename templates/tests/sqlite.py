"""What the store in a file promises besides the contract."""

import asyncio
import sys
from pathlib import Path

import pytest

from app.store import StoreError

from . import reading
from .engine import Store
from .values import ALICE, message, thread

pytestmark = pytest.mark.anyio

ADDER = """
import asyncio, sys
from tests.engine import Store
from tests.values import ALICE, message

async def add(url, name):
    async with Store.open(url) as store:
        adds = (store.add_thread_item("t", message(f"{name}-{n}"), ALICE) for n in range(50))
        await asyncio.gather(*adds)

asyncio.run(add(*sys.argv[1:]))
"""


async def test_a_hundred_adds_from_two_processes_are_all_there(
    store: Store, store_url: str, pytestconfig: pytest.Config
) -> None:
    await store.save_thread(thread(), ALICE)
    adders = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", ADDER, store_url, name, cwd=pytestconfig.rootpath
        )
        for name in ("one", "two")
    ]
    assert [await adder.wait() for adder in adders] == [0, 0]
    expected = [f"{name}-{n}" for name in ("one", "two") for n in range(50)]
    assert sorted(await reading.items(store, ALICE)) == sorted(expected)


async def test_what_was_stored_is_there_when_the_file_is_opened_again(store_url: str) -> None:
    async with Store.open(store_url) as store:
        await store.save_thread(thread(), ALICE)
        await store.add_thread_item("t", message("a"), ALICE)
        before = await reading.export(store, ALICE)
    async with Store.open(store_url) as store:
        assert await reading.export(store, ALICE) == before


@pytest.mark.parametrize(
    "url", ["", "redis://:hunter2@host", "sqlite:", "sqlite:////no/where/x.db"]
)
async def test_a_wrong_url_is_refused_with_the_setting_and_no_password(url: str) -> None:
    with pytest.raises(StoreError, match="STORE_URL") as refusal:
        async with Store.open(url):
            pass
    assert "hunter2" not in str(refusal.value)
    assert "\n" not in str(refusal.value)


async def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    other = tmp_path / "notes.txt"
    other.write_text("Not a database. " * 100)
    with pytest.raises(StoreError, match="STORE_URL"):
        async with Store.open(f"sqlite:///{other}"):
            pass
    assert other.read_text() == "Not a database. " * 100
