"""The end of the app over real HTTP: its answers end first, in the time that they have."""

import asyncio
import time
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from app.context import context_for
from app.errors import ApiError
from app.main import create_app
from app.streaming import Turn

from .serving import Words, message, read_some, serving, settings_for, until

pytestmark = pytest.mark.anyio


async def test_a_shutdown_waits_once_for_answers_that_would_finish(
    store_url: str, tmp_path: Path
) -> None:
    """First the server waits, then the app would: together they outlasted a container's grace."""
    settings = settings_for(store_url, tmp_path, shutdown_seconds=1, on_disconnect="finish")
    async with serving(settings, Words(5000)) as served:
        caller = served.caller()
        reader = asyncio.create_task(read_some(caller, None, words=5000))
        await until(lambda: len(served.app.state.server.turns.running) == 1)
        start = time.monotonic()
    assert time.monotonic() - start < 1.8
    await asyncio.gather(reader, return_exceptions=True)
    await caller.aclose()


async def test_an_answer_that_nobody_reads_any_more_has_its_time_to_end(
    store_url: str, tmp_path: Path
) -> None:
    """With ON_DISCONNECT=finish the server waits for it as for the others."""
    settings = settings_for(store_url, tmp_path, shutdown_seconds=9, on_disconnect="finish")
    outcomes: list[str] = []
    async with serving(settings, Words(60)) as served, served.caller() as caller:
        await read_some(caller, None, words=2)
        (turn,) = served.app.state.server.turns.running
        turn.task.add_done_callback(lambda _: outcomes.append(turn.outcome))
        assert not outcomes
    assert outcomes == ["done"]


@pytest.mark.parametrize("step", ["claim_turn", "add_thread_item"])
async def test_a_first_message_that_is_stopped_before_it_is_told_of_leaves_no_thread(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """The caller is told that nothing began, and will send it again."""
    settings = settings_for(store_url, tmp_path, shutdown_seconds=0)
    async with serving(settings, Words(3)) as served, served.caller() as caller:
        state, adding = served.app.state, asyncio.Event()

        async def slowly(*_: object, **__: object) -> None:
            adding.set()
            await asyncio.Event().wait()

        monkeypatch.setattr(state.store, step, slowly)
        kind, params = message("hello")
        saying = asyncio.create_task(caller.op(kind, **params))
        await adding.wait()
        await state.server.turns.close()
        assert (await saying).status_code == 409
        assert [owner async for owner in state.store.owners()] == []


async def test_a_turn_that_is_stopped_before_its_first_step_is_refused() -> None:
    """Whoever waits for its first event hears of it."""

    async def answer() -> AsyncGenerator[bytes, None]:
        yield b"never"

    turn = Turn("ada", lambda _: answer())
    turn.stop()
    with pytest.raises(ApiError, match="stopped before it began"):
        await asyncio.wait_for(turn.first(), 1)


async def test_the_app_ends_its_answers_before_it_closes_the_store(
    store_url: str, tmp_path: Path
) -> None:
    """A stop of the server is a stop of its answers: what was said is there afterwards."""
    settings = settings_for(store_url, tmp_path, shutdown_seconds=0)
    async with serving(settings, Words(5000)) as served:
        callers = [served.caller() for _ in range(5)]
        store = served.app.state.store
        tails = [asyncio.create_task(read_some(caller, None, words=400)) for caller in callers]
        turns = served.app.state.server.turns
        await until(lambda: sum(turn.events > 9 for turn in turns.running) == 5)
        kept: list[bool] = []
        close = served.app.state.server.turns.close

        async def close_and_look() -> None:
            await close()
            async for owner in store.owners():
                page = await store.load_threads(10, None, "asc", context_for(owner))
                items = await store.load_thread_items(
                    page.data[0].id, None, 10, "asc", context_for(owner)
                )
                kinds = [item.type for item in items.data]
                kept.append(kinds == ["user_message", "assistant_message", "sdk_hidden_context"])

        served.app.state.server.turns.close = close_and_look
    assert kept == [True] * 5
    await asyncio.gather(*tails, return_exceptions=True)
    for caller in callers:
        await caller.aclose()


async def test_leases_are_renewed_whatever_came_of_one(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the store cancelled the call."""
    monkeypatch.setattr("app.streaming.RENEW_SECONDS", 0.01)
    renewed: list[object] = []

    async def cancelled(*lease: object) -> bool:
        renewed.append(lease)
        raise asyncio.CancelledError

    async with serving(settings_for(store_url, tmp_path), Words(30)) as served:
        monkeypatch.setattr(served.app.state.store, "renew_turn", cancelled)
        async with served.caller() as caller:
            await caller.say("hello")
    assert len(renewed) > 1


async def test_another_task_may_end_the_app_than_began_it(store_url: str, tmp_path: Path) -> None:
    """Fixtures of a team's own tests do so."""
    app = create_app(settings_for(store_url, tmp_path))
    lifespan = app.router.lifespan_context(app)
    await asyncio.create_task(lifespan.__aenter__())
    await asyncio.create_task(lifespan.__aexit__(None, None, None))
