"""What a store on a server promises besides the contract."""

import asyncio
import re
import traceback
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from chatkit.store import NotFoundError

from app.__main__ import main
from app.settings import Settings
from app.store import ChatStore as Store
from app.store import StoreError

from . import engine, reading
from .test_store_isolation import READS, WRITES, answer, fill
from .values import ALICE, message, thread

pytestmark = pytest.mark.anyio


async def test_the_store_works_again_as_soon_as_its_engine_does(
    private_engine: engine.PrivateEngine,
) -> None:
    """While the engine is away each call fails within the connect timeout; no restart is needed."""
    async with Store.open(private_engine.url) as store:
        await store.save_thread(thread(), ALICE)
        await store.add_thread_item("t", message("a"), ALICE)
        async with asyncio.timeout(12):
            private_engine.stop()  # which waits for no client
            answers = await asyncio.gather(
                *(store.load_item("t", "a", ALICE) for _ in range(5)),
                *(store.add_thread_item("t", message("b"), ALICE) for _ in range(5)),
                store.ping(),
                return_exceptions=True,
            )
        assert all(isinstance(each, Exception) for each in answers)
        assert not any(isinstance(each, NotFoundError | ValueError) for each in answers)
        private_engine.start()
        await store.add_thread_item("t", message("b"), ALICE)
        await store.ping()
        assert await reading.items(store, ALICE) == ["a", "b"]


async def test_each_operation_is_one_round_trip(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Owner and cursor are looked up on the way; in Redis a first save or last delete adds some."""
    asks, ask = (store, "_ask") if hasattr(store, "_ask") else (vars(store)["_pool"], "run")
    asking, trips = getattr(asks, ask), []

    async def counted(*args: object) -> object:
        trips.append(args)
        return await asking(*args)

    monkeypatch.setattr(asks, ask, counted)
    await store.save_thread(thread("other"), ALICE)
    for name, call in (READS | WRITES).items():
        await answer(call, store, ALICE)  # brings its script to the node
        await store.undelete_thread("t", ALICE)
        await fill(store, ALICE, "About t")
        trips.clear()
        await answer(call, store, ALICE)
        assert len(trips) == 1, name


async def test_a_restart_that_nobody_saw_fails_no_call(
    private_engine: engine.PrivateEngine,
) -> None:
    """All connections are dead; the next callers do not notice."""
    async with Store.open(private_engine.url) as store:
        await store.save_thread(thread(), ALICE)
        before, after = ([f"{name}{n}" for n in range(40)] for name in "ab")
        await asyncio.gather(*(store.add_thread_item("t", message(i), ALICE) for i in before))
        private_engine.kill()
        private_engine.start()
        await asyncio.gather(*(store.add_thread_item("t", message(i), ALICE) for i in after))
        assert sorted(await reading.items(store, ALICE)) == sorted(before + after)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "mongodb://:hunter2@host",
        "{scheme}://u:hunter2@127.0.0.1:1/x",
        "{scheme}://u:hunter2@127.0.0.1:99999/x",
        "{scheme}://u@127.0.0.1:hunter2/x",
        "{scheme}://a/b:hunter2@127.0.0.1:1/x",
        "{scheme}:/u:hunter2@127.0.0.1:1/x",
        "{scheme}:u:hunter2@127.0.0.1:1/x",
        "{scheme}://u:4711#hunter2@127.0.0.1:1/x",
        "{scheme}://u:4711?hunter2@127.0.0.1:1/x",
    ],
)
async def test_a_start_without_the_engine_ends_with_the_setting_and_no_password(
    engine_url: str, url: str
) -> None:
    async with asyncio.timeout(6):
        with pytest.raises(StoreError, match="STORE_URL") as refusal:
            async with Store.open(url.replace("{scheme}", urlsplit(engine_url).scheme)):
                pass
    assert not re.search("hunter2|4711", "".join(traceback.format_exception(refusal.value)))
    assert "\n" not in str(refusal.value)


async def test_a_wrong_password_ends_the_start_and_is_not_shown(
    private_engine: engine.PrivateEngine,
) -> None:
    secret = urlsplit(private_engine.url).password or ""
    with pytest.raises(StoreError, match="STORE_URL") as refusal:
        async with Store.open(private_engine.url.replace(secret, "hunter2")):
            pass
    assert "hunter2" not in str(refusal.value)


def test_a_development_engine_that_cannot_start_is_reported_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """There is no wheel for this machine, say, or the app is already running."""

    class Taken:
        def __init__(self, folder: Path) -> None:
            self.folder = folder

        def start(self) -> None:
            raise RuntimeError(f"{self.folder} is in use")

    monkeypatch.chdir(tmp_path)  # away from the developer's own `.env`
    monkeypatch.setenv("STORE_URL", "")
    monkeypatch.setattr("app.__main__.set_up_logging", lambda _: None)  # it would replace pytest's
    monkeypatch.setattr("dev.Server", Taken)
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"{Path('.data') / engine.ENGINE} is in use\n"


def test_a_hosting_platforms_variable_names_the_store_unless_ours_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("STORE_URL", raising=False)
    monkeypatch.setenv({"redis": "REDIS_URL"}.get(engine.ENGINE, "DATABASE_URL"), "theirs")
    assert Settings(_env_file=None).store_url == "theirs"
    monkeypatch.setenv("STORE_URL", "ours")
    assert Settings(_env_file=None).store_url == "ours"
