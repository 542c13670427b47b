"""How much one caller may ask for."""

import asyncio
import json
import time
from pathlib import Path

import pytest
from chatkit.types import TranscriptionResult
from fastapi import Request

from app.checks import parse, read_json_body
from app.context import owner_of
from app.errors import ApiError
from app.limits import Limits
from app.settings import Settings

from . import values
from .sending import PDF, sent
from .serving import Words, begun, message, text_of, thread_of
from .talking import talking

pytestmark = pytest.mark.anyio


async def test_requests_past_the_limit_wait(store_url: str, tmp_path: Path) -> None:
    """429 says when to come back; other users are not held up."""
    async with talking(store_url, tmp_path, requests_per_minute=3) as caller:
        answers = [await caller.op("threads.list") for _ in range(5)]
        # the cookie came with the first answer, so the first request counted for it as well
        assert [a.status_code for a in answers] == [200, 200, 200, 429, 429]
        assert 1 <= int(answers[-1].headers["retry-after"]) <= 60
        async with caller.served.caller() as other:
            assert (await other.op("threads.list")).status_code == 200


async def test_any_page_size_is_answered(store_url: str, tmp_path: Path) -> None:
    """The SDK passes it on unchecked; the app clamps it to 1..100."""
    async with talking(store_url, tmp_path) as caller:
        thread_id = thread_of(await caller.say("hello"))
        store, context = caller.served.store, await caller.served.first_user()
        for n in range(100):
            await store.add_thread_item(thread_id, values.message(f"i{n}"), context)
        for limit, count in ((-1, 1), (0, 1), (1, 1), (1000, 100), (10**19, 100)):
            answer = await caller.op("items.list", thread_id=thread_id, limit=limit)
            assert answer.status_code == 200
            assert len(answer.json()["data"]) == count
            listed = await caller.op("threads.list", limit=limit)
            assert len(listed.json()["data"]) == 1


@pytest.mark.parametrize(("limit", "elsewhere"), [("turns_per_user", 200), ("turns_total", 429)])
async def test_the_number_of_answers_at_once_is_limited(
    store_url: str, tmp_path: Path, limit: str, elsewhere: int
) -> None:
    """The next one gets 429: from this user, or from anybody."""
    model = Words(1000)
    async with talking(store_url, tmp_path, model, **{limit: 1}) as caller:
        async with begun(caller, "hello"), caller.served.caller() as other:
            model.count = 3  # words of the other user's answer
            refused = await caller.ask("hello")
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "5")
            assert (await other.ask("hello")).status_code == elsewhere


async def test_a_users_daily_tokens_are_limited(store_url: str, tmp_path: Path) -> None:
    """The answer that exceeds the allowance is the last one until tomorrow."""
    async with talking(store_url, tmp_path, Words(3), tokens_per_day=100) as caller:
        await caller.say("hello")
        owner = owner_of(await caller.served.first_user())
        caller.served.app.state.limits.tokens.spend(owner, 1_000)
        answer = await caller.ask("again")
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) > 60


def test_many_users_in_a_day_do_not_slow_a_request() -> None:
    """Nor does it start a thread that goes through all the counts."""
    limits = Limits(Settings(_env_file=None, tokens_per_day=1))
    limits.tokens.check("anybody")
    for number in range(100_000):
        limits.tokens.spend(f"user {number}", 1)
    start = time.process_time()
    for _ in range(50):
        limits.tokens.spend("you", 1)
        time.sleep(0.01)
    assert time.process_time() - start < 0.05


def test_counts_are_dropped_at_the_end_of_their_day(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those of users who do not come back."""
    limits = Limits(Settings(_env_file=None, tokens_per_day=1))
    for user in ("gone", "you"):
        limits.tokens.check(user)
        limits.tokens.spend(user, 1)
    with pytest.raises(ApiError, match="tomorrow"):
        limits.tokens.check("you")
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 86_400)
    limits.tokens.check("you")
    assert not limits.tokens._used


@pytest.mark.parametrize(("share", "status"), [(50, 429), (500, 200)])
async def test_a_stopped_answer_counts_about_what_it_took(
    store_url: str, tmp_path: Path, share: int, status: int
) -> None:
    """The model's server has not counted it by then; a stop just before the end is not free."""
    model = Words(500)
    async with talking(store_url, tmp_path, model, tokens_per_day=share) as caller:
        async with begun(caller, "x" * 200):
            pass
        await caller.served.settled()
        model.delay = 0
        assert (await caller.ask("again")).status_code == status


@pytest.mark.parametrize(("data", "share"), [(b"words " * 1000, 1000), (PDF + bytes(500_000), 400)])
async def test_a_stopped_answer_counts_the_files_that_it_read(
    store_url: str, tmp_path: Path, data: bytes, share: int
) -> None:
    """Text by its length, any other by its size: or else a stop made every file free."""
    async with talking(store_url, tmp_path, Words(500), tokens_per_day=share) as caller:
        attachment = await sent(caller, data, "file")
        kind, params = message("read", attachments=[attachment["id"]])
        async with caller.events(kind, **params) as events:
            async for event in events:
                if event["type"] == "thread.item.updated":
                    break
        await caller.served.settled()
        assert (await caller.ask("again")).status_code == 429


async def test_a_dictation_counts_towards_the_daily_tokens(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its length: not every server reports its tokens."""

    async def heard(*_: object) -> TranscriptionResult:
        return TranscriptionResult(text="words")

    monkeypatch.setattr("app.server.transcribe", heard)
    async with talking(store_url, tmp_path, tokens_per_day=1, transcribe_model="ears") as caller:
        await caller.op("threads.list")  # the cookie
        audio = {"audio_base64": "AAAA" * 400, "mime_type": "audio/webm"}
        statuses = [(await caller.op("input.transcribe", **audio)).status_code for _ in range(2)]
    assert statuses == [200, 429]


@pytest.mark.parametrize(("share", "asked"), [(1, 1), (0, 4)])
async def test_dictations_at_once_share_the_limits(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: int, asked: int
) -> None:
    """They count before they are answered; each is held in memory, so a fifth is refused."""
    under_way, end = 0, asyncio.Event()

    async def listening(*_: object) -> TranscriptionResult:
        nonlocal under_way
        under_way += 1
        await end.wait()
        return TranscriptionResult(text="words")

    monkeypatch.setattr("app.server.transcribe", listening)
    limits = {"tokens_per_day": share, "transcribe_model": "ears"}
    async with talking(store_url, tmp_path, **limits) as caller:
        await caller.op("threads.list")  # the cookie
        audio = {"audio_base64": "AAAA" * 400, "mime_type": "audio/webm"}
        asking = [asyncio.create_task(caller.op("input.transcribe", **audio)) for _ in range(8)]
        while sum(each.done() for each in asking) < 8 - asked:
            assert under_way <= asked
            await asyncio.sleep(0.01)
        end.set()
        statuses = sorted(answer.status_code for answer in await asyncio.gather(*asking))
    assert statuses == [200] * asked + [429] * (8 - asked)


@pytest.mark.parametrize(
    ("kind", "params"),
    [
        ("threads.add_structured_input", b'{"input":{"answers":{"q":{"values":[%b]}}}}'),
        ("threads.add_client_tool_output", b'{"result":[%b]}'),
        ("threads.list", b"[%b]"),
    ],
)
def test_a_request_of_a_million_values_is_refused_unread(kind: str, params: bytes) -> None:
    """Even where a dictation might be this long: building the values takes seconds."""
    body = b'{"type":"%b","params":%b}' % (kind.encode(), params % b",".join([b"{}"] * 1_000_000))
    start = time.process_time()
    with pytest.raises(ApiError, match=r"at most 50,000 commas"):
        parse(body, Settings(_env_file=None))
    assert time.process_time() - start < 0.1


def test_errors_are_not_listed_for_each_of_many_values() -> None:
    """That would take longer than finding them; text may have as many commas, or be all commas."""
    settings = Settings(_env_file=None, max_text_chars=60_000)
    input_ = {"content": [0] * 40_000, "attachments": [], "inference_options": {}}
    body = {"type": "threads.create", "params": {"input": input_}}
    with pytest.raises(ApiError, match=r"'The request is not valid\.'"):
        parse(json.dumps(body).encode(), settings)
    kind, params = message("," * 59_900)
    assert parse(json.dumps({"type": kind, "params": params}).encode(), settings).type == kind


async def test_a_body_that_was_read_before_the_route_is_read_all_the_same(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sentry's integration reads it; the route would wait a minute for another. Limits hold."""

    async def read(request: Request, settings: Settings) -> bytes:
        await request.body()
        return await read_json_body(request, settings)

    monkeypatch.setattr("app.main.read_json_body", read)
    async with talking(store_url, tmp_path, Words(3), max_body_bytes=2000) as caller:
        caller.timeout = 5
        assert text_of(await caller.say("hello")) == "w0 w1 w2"
        assert (await caller.ask("x" * 2000)).status_code == 413
