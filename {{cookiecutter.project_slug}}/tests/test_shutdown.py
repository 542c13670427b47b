"""The end of the app over real HTTP: its answers end first, in the time they are given."""

import asyncio
import time
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from app.context import context_for
from app.errors import ApiError
from app.main import create_app
from app.streaming import Turn

from . import reading
from .serving import Words, read_some, serving, settings_for, until
from .talking import delayed, talking

pytestmark = pytest.mark.anyio


async def test_a_shutdown_waits_once_for_answers_that_would_finish(
    store_url: str, tmp_path: Path
) -> None:
    """If the server and then the app waited, they would outlast a container's grace period."""
    settings = settings_for(store_url, tmp_path, shutdown_seconds=1, on_disconnect="finish")
    async with serving(settings, Words(5000)) as served:
        caller = served.caller()
        reader = asyncio.create_task(read_some(caller, None, words=5000))
        await until(lambda: len(served.turns.running) == 1)
        start = time.monotonic()
    assert time.monotonic() - start < 2
    await asyncio.gather(reader, return_exceptions=True)
    await caller.aclose()


async def test_an_answer_without_a_reader_has_its_time_to_end(
    store_url: str, tmp_path: Path
) -> None:
    """With ON_DISCONNECT=finish the server waits for it as for any other."""
    outcomes: list[str] = []
    async with talking(
        store_url, tmp_path, Words(60), shutdown_seconds=9, on_disconnect="finish"
    ) as caller:
        await read_some(caller, None, words=2)
        (turn,) = caller.served.turns.running
        turn.task.add_done_callback(lambda _: outcomes.append(turn.outcome))
        assert not outcomes
    assert outcomes == ["done"]


@pytest.mark.parametrize("step", ["claim_turn", "add_thread_item"])
async def test_a_first_message_stopped_before_its_first_event_leaves_no_thread(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """The caller is told that nothing began, and will send the message again."""
    async with talking(store_url, tmp_path, Words(3), shutdown_seconds=0) as caller:
        begun = delayed(monkeypatch, caller.served.store, step, 60)
        saying = asyncio.create_task(caller.ask("hello"))
        await begun.wait()
        await caller.served.turns.close()
        assert (await saying).status_code == 409
        assert [owner async for owner in caller.served.store.owners()] == []


async def test_a_turn_that_is_stopped_before_its_first_step_is_refused() -> None:
    """Whoever waits for its first event gets the error."""

    async def answer() -> AsyncGenerator[bytes, None]:
        yield b"never"

    turn = Turn("ada", lambda _: answer())
    turn.stop()
    with pytest.raises(ApiError, match="stopped before it began"):
        await asyncio.wait_for(turn.first(), 1)


async def test_the_app_ends_its_answers_before_it_closes_the_store(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopping the server stops its answers, and what was said is stored."""
    settings = settings_for(store_url, tmp_path, shutdown_seconds=0)
    async with serving(settings, Words(5000)) as served:
        callers = [served.caller() for _ in range(5)]
        store, turns, close = served.store, served.turns, served.turns.close
        tails = [asyncio.create_task(read_some(caller, None, words=400)) for caller in callers]
        await until(lambda: sum(turn.events > 9 for turn in turns.running) == 5)
        kept: list[bool] = []

        async def close_and_look() -> None:
            await close()
            async for owner in store.owners():
                context = context_for(owner)
                (thread_id,) = await reading.threads(store, context)
                items = await store.load_thread_items(thread_id, None, 10, "asc", context)
                kinds = [item.type for item in items.data]
                kept.append(kinds == ["user_message", "assistant_message", "sdk_hidden_context"])

        monkeypatch.setattr(turns, "close", close_and_look)
    assert kept == [True] * 5
    await asyncio.gather(*tails, return_exceptions=True)
    for caller in callers:
        await caller.aclose()


async def test_leases_are_renewed_after_a_renewal_that_failed(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if the store cancelled the call."""
    monkeypatch.setattr("app.streaming.RENEW_SECONDS", 0.01)
    renewed: list[object] = []

    async def cancelled(*lease: object) -> bool:
        renewed.append(lease)
        raise asyncio.CancelledError

    async with talking(store_url, tmp_path, Words(30)) as caller:
        monkeypatch.setattr(caller.served.store, "renew_turn", cancelled)
        await caller.say("hello")
    assert len(renewed) > 1


async def test_one_task_may_start_and_another_end_the_app(store_url: str, tmp_path: Path) -> None:
    """As the fixtures of a team's own tests do."""
    app = create_app(settings_for(store_url, tmp_path))
    lifespan = app.router.lifespan_context(app)
    await asyncio.create_task(lifespan.__aenter__())
    await asyncio.create_task(lifespan.__aexit__(None, None, None))


async def test_an_app_that_cannot_start_fails_the_test_that_serves_it(
    store_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """And no other: uvicorn would end the whole run. The log has the reason."""

    def broken(*_: object) -> None:
        raise ValueError("two agents have one name")

    monkeypatch.setattr("app.main.make_agent", broken)
    with pytest.raises(RuntimeError, match="the app did not start"):
        async with talking(store_url, tmp_path):
            pytest.fail("it is served")
    assert "two agents have one name" in caplog.text
