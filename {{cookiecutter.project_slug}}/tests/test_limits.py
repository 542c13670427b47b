"""How much one caller may ask for."""

import json
import time
from pathlib import Path

import pytest

from app.checks import parse
from app.errors import ApiError
from app.settings import Settings

from .serving import Words, begun, message, serving, settings_for, until

pytestmark = pytest.mark.anyio


async def test_requests_past_the_limit_wait(store_url: str, tmp_path: Path) -> None:
    """429 says when to come back; another user is not held up."""
    settings = settings_for(store_url, tmp_path, requests_per_minute=3)
    async with serving(settings, Words(2)) as served:
        async with served.caller() as caller, served.caller() as other:
            answers = [await caller.op("threads.list") for _ in range(5)]
            # the cookie came with the first answer, so the first request counted for it too
            assert [a.status_code for a in answers] == [200, 200, 200, 429, 429]
            assert 1 <= int(answers[-1].headers["retry-after"]) <= 60
            assert (await other.op("threads.list")).status_code == 200


@pytest.mark.parametrize(("limit", "elsewhere"), [("turns_per_user", 200), ("turns_total", 429)])
async def test_so_many_answers_are_given_at_once(
    store_url: str, tmp_path: Path, limit: str, elsewhere: int
) -> None:
    """The next one gets 429: of this user, or of anybody."""
    settings = settings_for(store_url, tmp_path, **{limit: 1})
    async with serving(settings, Words(1000)) as served:
        async with served.caller() as caller, served.caller() as other:
            await caller.op("threads.list")
            kind, params = message("hello")
            async with caller.events(kind, **params) as events:
                await anext(events)
                assert (await caller.op(kind, **params)).status_code == 429
                body = {"type": kind, "params": params}
                async with other.stream("POST", "/chatkit", json=body) as answer:
                    assert answer.status_code == elsewhere


async def test_a_users_tokens_of_a_day_are_bounded(store_url: str, tmp_path: Path) -> None:
    """The answer that goes past the share is the last one until tomorrow."""
    settings = settings_for(store_url, tmp_path, tokens_per_day=100)
    async with serving(settings, Words(3)) as served:
        async with served.caller() as caller:
            await caller.say("hello")
            owner = await anext(served.app.state.store.owners())
            served.app.state.limits.spend_tokens(owner, 1_000)
            kind, params = message("again")
            answer = await caller.op(kind, **params)
            assert answer.status_code == 429
            assert int(answer.headers["retry-after"]) > 60


@pytest.mark.parametrize(("share", "status"), [(50, 429), (500, 200)])
async def test_a_stopped_answer_counts_about_what_it_took(
    store_url: str, tmp_path: Path, share: int, status: int
) -> None:
    """The model's server has not counted it yet; stopping shortly before the end is not free."""
    settings, model = settings_for(store_url, tmp_path, tokens_per_day=share), Words(500)
    async with serving(settings, model) as served, served.caller() as caller:
        async with begun(caller, "x" * 200):
            pass
        await until(lambda: not served.app.state.server.turns.running)
        kind, params = message("again")
        model.delay = 0
        assert (await caller.op(kind, **params)).status_code == status


async def test_a_dictation_counts_toward_the_tokens_of_a_day(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its length: not every server says what it took."""

    async def heard(*_: object) -> str:
        return "words"

    monkeypatch.setattr("app.server.transcribe", heard)
    settings = settings_for(store_url, tmp_path, tokens_per_day=1, transcribe_model="ears")
    async with serving(settings) as served, served.caller() as caller:
        await caller.op("threads.list")  # the cookie
        audio = {"audio_base64": "AAAA" * 400, "mime_type": "audio/webm"}
        statuses = [(await caller.op("input.transcribe", **audio)).status_code for _ in range(2)]
    assert statuses == [200, 429]


@pytest.mark.parametrize(
    ("kind", "params"),
    [
        ("threads.add_structured_input", b'{"input":{"answers":{"q":{"values":[%b]}}}}'),
        ("threads.add_client_tool_output", b'{"result":[%b]}'),
        ("threads.list", b"[%b]"),
    ],
)
def test_a_request_of_a_million_values_is_refused_unread(kind: str, params: bytes) -> None:
    """Also where a dictation could be so long: to build them takes seconds."""
    body = b'{"type":"%b","params":%b}' % (kind.encode(), params % b",".join([b"{}"] * 1_000_000))
    start = time.process_time()
    with pytest.raises(ApiError, match=r"50,000 commas at most"):
        parse(body, Settings(_env_file=None))
    assert time.process_time() - start < 0.1


def test_what_is_wrong_is_not_told_of_each_of_many_values() -> None:
    """It would take longer than to find it; a text may have as many commas, and be of commas."""
    settings = Settings(_env_file=None, max_text_chars=60_000)
    input_ = {"content": [0] * 40_000, "attachments": [], "inference_options": {}}
    body = {"type": "threads.create", "params": {"input": input_}}
    with pytest.raises(ApiError, match=r"'The request is not valid\.'"):
        parse(json.dumps(body).encode(), settings)
    kind, params = message("," * 59_900)
    assert parse(json.dumps({"type": kind, "params": params}).encode(), settings).type == kind
