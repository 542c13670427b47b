"""What the store in a file promises besides the contract."""

import asyncio
import contextlib
import re
import sqlite3
import threading
import time
from pathlib import Path

import anyio
import pytest
from chatkit.store import NotFoundError

from app.store import BUSY_SECONDS, SCHEMA, StoreError
from app.store import ChatStore as Store

from . import reading
from .values import ALICE, message, thread

pytestmark = pytest.mark.anyio


async def test_what_was_stored_is_there_when_the_file_is_opened_again(store_url: str) -> None:
    async with Store.open(store_url) as store:
        await store.save_thread(thread(), ALICE)
        await store.add_thread_item("t", message("a"), ALICE)
        before = await reading.export(store, ALICE)
    async with Store.open(store_url) as store:
        assert await reading.export(store, ALICE) == before


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", "STORE_URL begins with '': write sqlite:///"),
        ("redis://:hunter2@host", "STORE_URL begins with 'redis': write sqlite:///"),
        ("sqlite:", "STORE_URL begins with 'sqlite': write sqlite:///"),
        ("sqlite:///", "STORE_URL begins with 'sqlite': write sqlite:///"),
        ("sqlite:///:memory:", "STORE_URL begins with 'sqlite': write sqlite:///"),
        ("sqlite:///a\0b", r"cannot use the file 'a\x00b' of STORE_URL: "),
        ("sqlite:////no/where/x.db", "cannot use the file '/no/where/x.db' of STORE_URL: "),
    ],
)
async def test_a_wrong_url_is_refused_with_the_setting_and_no_password(url: str, said: str) -> None:
    with pytest.raises(StoreError, match=f"^{re.escape(said)}") as refusal:
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


async def test_a_newer_schema_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "chat.db"
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE threads (something TEXT)")
        db.execute("PRAGMA user_version = 1000")
    before = path.read_bytes()
    with pytest.raises(StoreError, match=r"STORE_URL.*1000"):
        async with Store.open(f"sqlite:///{path}"):
            pass
    assert path.read_bytes() == before


async def test_a_newer_schema_is_refused_while_its_app_writes(store_url: str) -> None:
    """At once, by its number, not as a locked file."""
    async with Store.open(store_url):
        pass
    with contextlib.closing(sqlite3.connect(store_url.removeprefix("sqlite:///"))) as newer:
        newer.execute("PRAGMA user_version = 1000")
        newer.execute("BEGIN IMMEDIATE")
        async with asyncio.timeout(3):
            with pytest.raises(StoreError, match="has schema 1000"):
                async with Store.open(store_url):
                    pass


async def test_a_file_of_an_older_app_is_brought_up_to_date_and_keeps_its_data(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Store.open(store_url) as store:
        await store.save_thread(thread(), ALICE)
        before = await reading.export(store, ALICE)
    monkeypatch.setattr("app.store.SCHEMA", [*SCHEMA, "ALTER TABLE threads ADD more TEXT"])
    for _ in range(2):  # once is enough
        async with Store.open(store_url) as store:
            assert await reading.export(store, ALICE) == before
            await store._reader.ask(lambda db: db.execute("SELECT more FROM threads"))
    monkeypatch.undo()
    with pytest.raises(StoreError, match=f"has schema {len(SCHEMA) + 1}"):
        async with Store.open(store_url):
            pass


async def test_a_file_that_another_process_keeps_locked_is_refused_in_time(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write ends within BUSY_SECONDS, and so does a start that has to write; others go on."""
    assert BUSY_SECONDS < 5
    monkeypatch.setattr("app.store.BUSY_SECONDS", 0.5)
    async with Store.open(store_url) as store:
        await store.save_thread(thread(), ALICE)
        with contextlib.closing(sqlite3.connect(store_url.removeprefix("sqlite:///"))) as other:
            other.execute("BEGIN IMMEDIATE")
            async with asyncio.timeout(4):
                with pytest.raises(sqlite3.OperationalError, match="locked"):
                    await store.add_thread_item("t", message("a"), ALICE)
                async with Store.open(store_url) as beside:
                    assert (await beside.load_thread("t", ALICE)).id == "t"
                monkeypatch.setattr("app.store.SCHEMA", [*SCHEMA, "CREATE TABLE more (a)"])
                with pytest.raises(StoreError, match="locked"):
                    async with Store.open(store_url):
                        pass
                opening = Store.open(store_url)
                start = asyncio.create_task(opening.__aenter__())
                await asyncio.sleep(0.1)
                other.execute("COMMIT")
                await start
                await opening.__aexit__(None, None, None)
        await store.add_thread_item("t", message("b"), ALICE)
        assert await reading.items(store, ALICE) == ["b"]


async def test_a_write_behind_others_waits_no_longer_for_the_file(
    store: Store, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of several writes in a row has the same time, no more and no less."""
    monkeypatch.setattr("app.store.BUSY_SECONDS", 1.0)
    await store.save_thread(thread(), ALICE)

    async def seconds(number: int) -> float:
        await asyncio.sleep(number / 5)
        begun = asyncio.get_running_loop().time()
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            await store.add_thread_item("t", message(f"i{number}"), ALICE)
        return asyncio.get_running_loop().time() - begun

    with contextlib.closing(sqlite3.connect(store_url.removeprefix("sqlite:///"))) as other:
        other.execute("BEGIN IMMEDIATE")
        waited = await asyncio.gather(*map(seconds, range(4)))
    assert 0.95 < min(waited) < 1.5
    assert max(waited) < 2.4


async def test_a_full_disk_is_an_error_and_leaves_nothing_half_written(store: Store) -> None:
    """What was acknowledged is there, the rest is not, and what makes room still works."""
    await store.save_thread(thread(), ALICE)
    store._writer._db.execute("PRAGMA max_page_count = 60")
    adds = (store.add_thread_item("t", message(f"i{n}", "x" * 4000), ALICE) for n in range(200))
    answers = await asyncio.gather(*adds, return_exceptions=True)
    stored = [f"i{n}" for n, answer in enumerate(answers) if answer is None]
    assert await reading.items(store, ALICE) == stored
    failures = [answer for answer in answers if answer is not None]
    assert failures
    assert {str(failure) for failure in failures} == {"database or disk is full"}
    await store.delete_thread("t", ALICE)


async def test_a_read_only_file_is_an_error_that_ends_nothing(store: Store) -> None:
    await store.save_thread(thread(), ALICE)
    store._writer._db.execute("PRAGMA query_only = ON")
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        await store.add_thread_item("t", message("a"), ALICE)
    assert await reading.items(store, ALICE) == []
    store._writer._db.execute("PRAGMA query_only = OFF")
    await store.add_thread_item("t", message("a"), ALICE)
    assert await reading.items(store, ALICE) == ["a"]


async def test_a_file_that_nobody_may_write_is_refused_at_the_start(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not only in the first chat."""
    async with Store.open(store_url):
        pass
    connect = sqlite3.connect
    monkeypatch.setattr(
        sqlite3, "connect", lambda path, **how: connect(f"file:{path}?mode=ro", uri=True, **how)
    )
    with pytest.raises(StoreError, match=r"STORE_URL.*readonly"):
        async with Store.open(store_url):
            pass


async def test_a_close_that_is_cancelled_again_and_again_ends_its_threads(store_url: str) -> None:
    with anyio.CancelScope() as scope:
        async with Store.open(store_url) as store:
            scope.cancel()
            await anyio.sleep_forever()
    for worker in (store._reader, store._writer):
        worker.join(5)
        assert not worker.is_alive()


async def test_a_clock_that_goes_back_keeps_no_thread_locked(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lease of a worker that died would last for as long as the clock went back."""
    await store.save_thread(thread(), ALICE)
    with monkeypatch.context() as patch:
        ahead = time.time() + 20
        patch.setattr("app.store.time.time", lambda: ahead)
        await store.claim_turn("t", "dead", ALICE)
        await store.stop_turn("t", ALICE)
    assert await store.claim_turn("t", "next", ALICE)
    assert await store.renew_turn("t", "next", ALICE)  # the stop was not meant for it


def traced(store: Store) -> list[str]:
    """Return a list that grows by each statement that the writer runs from now on."""
    ran = list[str]()
    store._writer._db.set_trace_callback(ran.append)
    return ran


async def test_a_write_that_fails_does_not_fail_the_others_in_its_commit(store: Store) -> None:
    """All that it did is undone, and nothing else."""
    await store.save_thread(thread(), ALICE)
    await store.add_thread_item("t", message("a"), ALICE)
    adds = [
        store.add_thread_item("gone" if n % 3 else "t", message(f"i{n}"), ALICE) for n in range(60)
    ]
    ran = traced(store)
    thumb = store.save_feedback("t", ["a", "none"], "positive", ALICE)
    held = threading.Event()
    first = store._writer.ask(lambda _: held.wait())
    all_of_them = asyncio.gather(first, *adds, thumb, return_exceptions=True)
    asyncio.get_running_loop().call_soon(held.set)  # when all have asked, however slow this is
    _, *answers, missing = await all_of_them
    assert [type(a) for a in answers] == [NotFoundError if n % 3 else type(None) for n in range(60)]
    assert await reading.items(store, ALICE) == ["a", *(f"i{n}" for n in range(0, 60, 3))]
    assert isinstance(missing, NotFoundError)
    assert await store.load_feedback("t", ALICE) == {}
    assert ran.count("COMMIT") < 4


async def test_cancelled_calls_lose_nothing_that_was_acknowledged(store: Store) -> None:
    """Each of them has happened or not, and the thread goes on."""
    await store.save_thread(thread(), ALICE)
    adds = [
        asyncio.create_task(store.add_thread_item("t", message(f"i{n}"), ALICE)) for n in range(300)
    ]
    ran = traced(store)
    await asyncio.sleep(0.003)
    for add in adds[::2]:
        add.cancel()
    answers = await asyncio.gather(*adds, return_exceptions=True)
    acknowledged = {f"i{n}" for n, answer in enumerate(answers) if answer is None}
    stored = await reading.items(store, ALICE)
    assert acknowledged <= set(stored)
    assert len(stored) == len(set(stored))
    assert ran.count("COMMIT") > 2, "one long transaction would keep other processes out"


async def test_closing_waits_for_what_was_asked(store_url: str) -> None:
    async with Store.open(store_url) as store:
        await store.save_thread(thread(), ALICE)
        adds = [
            asyncio.create_task(store.add_thread_item("t", message(f"i{n}"), ALICE))
            for n in range(50)
        ]
        await asyncio.sleep(0)
    await asyncio.gather(*adds)
    with pytest.raises(sqlite3.ProgrammingError):
        await store.ping()
    async with Store.open(store_url) as again:
        assert len(await reading.items(again, ALICE)) == 50


async def test_a_long_read_keeps_nobody_from_writing(store: Store, store_url: str) -> None:
    """Such as a copy for a backup."""
    await store.save_thread(thread(), ALICE)
    with contextlib.closing(sqlite3.connect(store_url.removeprefix("sqlite:///"))) as other:
        other.execute("BEGIN")
        assert other.execute("SELECT count(*) FROM threads").fetchone() == (1,)
        await store.save_thread(thread("u"), ALICE)
        assert other.execute("SELECT count(*) FROM threads").fetchone() == (1,)
