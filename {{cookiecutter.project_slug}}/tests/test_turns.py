"""A turn over real HTTP: nothing said is lost, one answer at a time, and clean ends."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextvars import copy_context
from pathlib import Path
from typing import Any

import pytest
from chatkit.types import ThreadItem

from app.events import TURN_STATE
from app.store import LEASE_SECONDS
from app.streaming import RENEW_SECONDS, Turn

from .serving import Caller, Words, begun, created, message, read_some, text_of, thread_of, until
from .talking import delayed, talking

pytestmark = pytest.mark.anyio


async def stored_answer(caller: Caller, thread_id: str) -> str:
    """Wait until no answer is under way, then return the newest one."""
    await caller.served.settled()
    answers = [i for i in await caller.items(thread_id) if i["type"] == "assistant_message"]
    return str(answers[-1]["content"][0]["text"])


async def hidden_items(caller: Caller, thread_id: str) -> list[ThreadItem]:
    """Return what the thread holds besides what the page sees."""
    context = await caller.served.first_user()
    page = await caller.served.store.load_thread_items(thread_id, None, 100, "asc", context)
    return [item for item in page.data if item.type == "sdk_hidden_context"]


async def test_a_stopped_answer_keeps_everything_that_was_received(
    store_url: str, tmp_path: Path
) -> None:
    """Ten stops, each after some text: the stored text begins with it, and the model has ended."""
    model = Words()
    async with talking(store_url, tmp_path, model) as caller:
        thread_id: str | None = None
        for stops in range(1, 11):
            thread_id, received = await read_some(caller, thread_id, words=stops)
            stored = await stored_answer(caller, thread_id)
            assert stored.startswith(received)
            assert len(stored) < len(" ".join(f"w{n}" for n in range(200)))
            assert model.ended == stops
            assert len(await hidden_items(caller, thread_id)) == stops


async def test_a_reader_that_never_reads_loses_nothing(store_url: str, tmp_path: Path) -> None:
    """The connection is closed with the answer still unread in its buffers."""
    async with talking(store_url, tmp_path, Words(400, 0.001)) as caller:
        thread_id = thread_of(await caller.say("hello"))
        host, port = caller.served.url.removeprefix("http://").split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        kind, params = message("again", thread_id)
        body = json.dumps({"type": kind, "params": params})
        cookie = "; ".join(f"{name}={value}" for name, value in caller.cookies.items())
        head = f"POST /chatkit HTTP/1.1\r\nHost: {host}\r\nCookie: {cookie}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write((head + body).encode())
        await until(lambda: any(turn.events > 9 for turn in caller.served.turns.running))
        writer.close()
        assert (await stored_answer(caller, thread_id)).startswith("w0 w1 w2")
        assert len(await hidden_items(caller, thread_id)) == 1


async def test_the_first_message_of_a_thread_outlives_an_early_stop(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client may leave as soon as it hears of the thread: its message is stored by then."""
    async with talking(store_url, tmp_path, Words(50)) as caller:
        delayed(monkeypatch, caller.served.store, "add_thread_item", 0.05)
        async with created(caller, "important") as (thread_id, _):
            pass
        await caller.served.settled()
        assert (await caller.items(thread_id))[0]["type"] == "user_message"


async def test_a_client_that_leaves_with_the_last_event_leaves_no_lease(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer was complete: there is nothing to stop, and the next message is accepted."""
    async with talking(store_url, tmp_path, Words(3)) as caller:
        releasing = delayed(monkeypatch, caller.served.store, "release_turn", 0.2)
        async with created(caller, "hello") as (thread_id, _):
            await releasing.wait()
        assert text_of(await caller.say("and?", thread_id)) == "w0 w1 w2"


async def test_a_stop_before_the_first_event_is_reported(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread exists, so it is not a 404."""
    async with talking(store_url, tmp_path, Words(3)) as caller:
        thread_id = thread_of(await caller.say("hello"))
        claim, claimed = caller.served.store.claim_turn, asyncio.Event()

        async def slow(*arguments: Any) -> bool:
            granted: bool = await claim(*arguments)
            claimed.set()
            await asyncio.sleep(5)
            return granted

        monkeypatch.setattr(caller.served.store, "claim_turn", slow)
        asking = asyncio.create_task(caller.ask("again", thread_id))
        await claimed.wait()
        (turn,) = caller.served.turns.running
        turn.stop()
        answer = await asking
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "stopped")


@pytest.mark.parametrize("outcome", ["failed", "stopped"])
async def test_an_answer_that_cannot_be_stored_is_reported_logged_and_counted(
    store_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    outcome: str,
) -> None:
    """The stream ends with a sentence, not silently; the log says what a stop has lost."""

    async def away(*_: object, **__: object) -> None:
        raise ConnectionRefusedError("nobody listens")

    async with talking(store_url, tmp_path, Words(50)) as caller:
        async with begun(caller, "hello") as (_, events):
            for method in ("add_thread_item", "load_thread"):
                monkeypatch.setattr(caller.served.store, method, away)
            monkeypatch.setattr("app.events.AWAY_SECONDS", 0)
            last = [event async for event in events][-1] if outcome == "failed" else None
        await caller.served.settled()
        turns = caller.served.app.state.metrics.turns.labels(outcome)
    assert last is None or (last["type"], last["allow_retry"]) == ("error", True)
    assert "nobody listens" in caplog.text
    noted = {"failed": "answer cut short", "stopped": "words lost"}
    assert noted[outcome] in caplog.messages
    assert turns._value.get() == 1


async def test_a_second_stop_does_not_interrupt_the_clean_up_of_the_first() -> None:
    """The stop button, the closed connection and the app's shutdown may coincide."""
    stored = False

    async def answer() -> AsyncGenerator[bytes, None]:
        nonlocal stored
        try:
            yield b"data: {}"
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.01)
            stored = True

    turn = Turn("ada", lambda _: answer())
    await turn.first()
    for _ in range(3):
        turn.stop()
        await asyncio.sleep(0)
    await asyncio.wait({turn.task})
    assert stored


async def test_a_message_right_after_stop_is_answered(store_url: str, tmp_path: Path) -> None:
    """Stop, then type: the second message waits for the first answer's clean-up."""
    model = Words(30)
    async with talking(store_url, tmp_path, model) as caller:
        thread_id, received = await read_some(caller, None, words=3)
        events = await caller.say("and now?", thread_id)
        items = await caller.items(thread_id)
    assert text_of(events).endswith("w29")
    texts = [i["content"][0]["text"] for i in items if i["type"] == "assistant_message"]
    assert texts[0].startswith(received)
    assert [item["type"] for item in items] == ["user_message", "assistant_message"] * 2


async def test_a_second_message_during_an_answer_is_refused(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise both answers would answer the second message."""
    monkeypatch.setattr("app.server.CLAIM_SECONDS", 0.2)
    async with talking(store_url, tmp_path, Words(5000)) as caller:
        async with created(caller, "first") as (thread_id, _):
            answer = await caller.ask("second", thread_id)
            assert answer.status_code == 409
            assert "An answer is under way" in answer.json()["error"]["message"]


async def test_finish_stores_the_whole_answer_of_a_closed_connection(
    store_url: str, tmp_path: Path
) -> None:
    """With ON_DISCONNECT=finish a lost network does not cost the answer."""
    async with talking(store_url, tmp_path, Words(60), on_disconnect="finish") as caller:
        thread_id, _ = await read_some(caller, None, words=2)
        assert (await stored_answer(caller, thread_id)).endswith("w59")


async def test_finish_can_still_be_stopped_by_its_owner_alone(
    store_url: str, tmp_path: Path
) -> None:
    """The stop route ends an answer that goes on without a reader; a stranger's does nothing."""
    async with talking(store_url, tmp_path, Words(5000), on_disconnect="finish") as caller:
        thread_id, received = await read_some(caller, None, words=2)
        async with caller.served.caller() as stranger:
            assert (await stranger.post(f"/threads/{thread_id}/stop")).json() == {"stopped": False}
        assert (await caller.post(f"/threads/{thread_id}/stop")).json() == {"stopped": True}
        stored = await stored_answer(caller, thread_id)
        assert stored.startswith(received)
        assert not stored.endswith("w4999")


async def test_an_answer_keeps_its_lease_and_hears_of_a_stop_elsewhere(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It outlives its first lease; the store tells its worker of a stop asked of another one."""
    assert RENEW_SECONDS < LEASE_SECONDS / 5
    monkeypatch.setattr("app.store.LEASE_SECONDS", 1)
    monkeypatch.setattr("app.streaming.RENEW_SECONDS", 0.1)
    async with talking(store_url, tmp_path, Words(5000)) as caller:
        store = caller.served.store
        async with created(caller, "hello") as (thread_id, events):
            context = await caller.served.first_user()
            await asyncio.sleep(1.2)
            assert not await store.claim_turn(thread_id, "another worker's", context)
            monkeypatch.setattr(caller.served.turns, "stop_thread", lambda *_: False)  # elsewhere
            assert (await caller.post(f"/threads/{thread_id}/stop")).json() == {"stopped": True}
            assert [event async for event in events]
        assert (await stored_answer(caller, thread_id)).startswith("w0 w1")


async def test_silence_is_filled_with_comments(store_url: str, tmp_path: Path) -> None:
    """Proxies close a silent connection; a comment is not an event and says nothing."""
    async with talking(store_url, tmp_path, Words(2, delay=0.3), heartbeat_seconds=0.05) as caller:
        kind, params = message("hello")
        async with caller.stream("POST", "/chatkit", json={"type": kind, "params": params}) as got:
            lines = [line async for line in got.aiter_lines()]
            assert got.headers["cache-control"] == "no-cache, no-transform"
            assert got.headers["x-accel-buffering"] == "no"
    assert sum(line.startswith(":") for line in lines) >= 4


async def test_what_was_said_is_not_kept_in_memory(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A driver's connections and timers keep the context in which they were created."""
    async with talking(store_url, tmp_path) as caller:
        add, contexts = caller.served.store.add_thread_item, []

        async def add_thread_item(*args: Any, **kwargs: Any) -> None:
            contexts.append(copy_context())
            await add(*args, **kwargs)

        monkeypatch.setattr(caller.served.store, "add_thread_item", add_thread_item)
        await caller.say("hello")
        await caller.served.settled()
    state = contexts[-1][TURN_STATE]
    assert not [*state.unsaved, *state.stored]
