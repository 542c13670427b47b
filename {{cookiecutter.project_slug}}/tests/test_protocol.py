"""What a caller may send, and what an error looks like."""

import json
from pathlib import Path
from typing import Any

import pytest

from app.logs import JSON_LINE

from .serving import Words, begun, thread_of
from .talking import talking

pytestmark = pytest.mark.anyio

EMPTY = {"type": "input_text", "text": ""}
MANY_PARTS = {"content": [EMPTY] * 201, "attachments": [], "inference_options": {}}
WRONG: list[tuple[str, Any, int]] = [
    ("no JSON", b"{", 400),
    ("no operation", {}, 400),
    ("a list", [], 400),
    ("many parts", {"type": "threads.create", "params": {"input": MANY_PARTS}}, 413),
    (
        "an unknown part",
        {"type": "threads.create", "params": {"input": {"content": [{"type": "input_smell"}]}}},
        400,
    ),
    ("an unknown operation", {"type": "threads.explode", "params": {}}, 404),
    ("no parameters", {"type": "threads.get_by_id"}, 400),
    ("deep nesting", b'{"type": "threads.list", "params": ' + b"[" * 5000, 400),
    ("a lone surrogate", b'{"type":"threads.get_by_id","params":{"thread_id":"\\ud800"}}', 400),
    ("a NUL", {"type": "threads.get_by_id", "params": {"thread_id": "\0"}}, 404),
    ("unknown thread", {"type": "threads.get_by_id", "params": {"thread_id": "thr_x"}}, 404),
    (
        "the title of an unknown thread",
        {"type": "threads.update", "params": {"thread_id": "x", "title": "t"}},
        404,
    ),
    (
        "a long title",
        {"type": "threads.update", "params": {"thread_id": "x", "title": "t" * 201}},
        400,
    ),
    (
        "a retry in an unknown thread",
        {"type": "threads.retry_after_item", "params": {"thread_id": "x", "item_id": "y"}},
        404,
    ),
    (
        "an action in an unknown thread",
        {"type": "threads.custom_action", "params": {"thread_id": "x", "action": {"type": "a"}}},
        404,
    ),
    (
        "a client tool in an unknown thread",
        {"type": "threads.add_client_tool_output", "params": {"thread_id": "x", "result": 1}},
        404,
    ),
    (
        "feedback in an unknown thread",
        {
            "type": "items.feedback",
            "params": {"thread_id": "x", "item_ids": ["y"], "kind": "positive"},
        },
        404,
    ),
    (
        "too many thumbs",
        {
            "type": "items.feedback",
            "params": {"thread_id": "x", "item_ids": ["y"] * 101, "kind": "positive"},
        },
        400,
    ),
    (
        "an endless list",
        {"type": "items.feedback", "params": {"item_ids": [0] * 100_000}},
        400,
    ),
    (
        "a long output from the page",
        {
            "type": "threads.add_client_tool_output",
            "params": {"thread_id": "x", "result": "x" * 40_000},
        },
        413,
    ),
    (
        "a long answer to a question",
        {
            "type": "threads.add_structured_input",
            "params": {
                "thread_id": "x",
                "item_id": "y",
                "input": {"answers": {"q": {"values": ["x" * 40_000]}}},
            },
        },
        413,
    ),
    (
        "dictation without an API",
        {"type": "input.transcribe", "params": {"audio_base64": "AAAA", "mime_type": "audio/webm"}},
        501,
    ),
]


@pytest.mark.parametrize(("body", "status"), [w[1:] for w in WRONG], ids=[w[0] for w in WRONG])
async def test_a_wrong_request_gets_a_status_and_a_sentence(
    store_url: str, tmp_path: Path, body: object, status: int
) -> None:
    """No 500, no broken stream; the answer has the request's id."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with talking(store_url, tmp_path) as caller:
        answer = await caller.post(
            "/chatkit",
            content=data,
            headers={"Content-Type": "application/json", "X-Request-ID": "req-1"},
        )
    assert answer.status_code == status, answer.text
    assert set(answer.json()["error"]) == {"code", "message", "request_id"}
    assert answer.json()["error"]["request_id"] == answer.headers["x-request-id"] == "req-1"


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"inference_options": {"model": "gpt-expensive"}}, 400),
        ({"inference_options": {"tool_choice": {"id": "rm"}}}, 400),
        ({"attachments": ["a"] * 3}, 400),
        ({"attachments": ["atc_unknown"]}, 404),
        ({"quoted_text": "x" * 400}, 413),
        ({"content": [{"type": "input_tag", "id": "x", "text": "x" * 400, "data": {}}]}, 413),
        ({"content": []}, 400),
    ],
)
async def test_what_a_message_carries_is_checked_before_it_makes_a_thread(
    store_url: str, tmp_path: Path, change: dict[str, Any], status: int
) -> None:
    """The models and tools a user may choose are listed in the settings; sizes are limited.

    With an unknown attachment the SDK would create the thread first and break the stream.
    """
    limits: dict[str, Any] = {"allowed_models": ["gpt-other"], "allowed_tools": ["look"]}
    limits |= {"max_attachments": 2, "max_text_chars": 300}
    async with talking(store_url, tmp_path, **limits) as caller:
        assert (await caller.ask("hello", **change)).status_code == status
        assert (await caller.op("threads.list")).json()["data"] == []


@pytest.mark.parametrize("declared", [True, False], ids=["declared", "chunked"])
async def test_a_large_body_is_refused_before_it_is_read(
    store_url: str, tmp_path: Path, *, declared: bool
) -> None:
    """413 at the limit, with or without a Content-Length."""

    async def chunks() -> Any:
        for _ in range(100):
            yield b" " * 1000

    async with talking(store_url, tmp_path, max_body_bytes=2000) as caller:
        answer = await caller.post(
            "/chatkit",
            content=b" " * 5000 if declared else chunks(),
            headers={"Content-Type": "application/json"},
        )
        assert answer.status_code == 413


async def test_only_dictation_may_have_a_larger_body(store_url: str, tmp_path: Path) -> None:
    """Only its body may be larger than MAX_BODY_BYTES."""
    changes = {"max_body_bytes": 2000, "transcribe_model": "whisper-1", "max_audio_bytes": 2000}
    async with talking(store_url, tmp_path, **changes) as caller:
        assert (await caller.ask("x" * 3000)).status_code == 413
        audio = {"audio_base64": "AAAA" * 700, "mime_type": "audio/webm"}
        answer = await caller.op("input.transcribe", **audio)
        assert answer.json()["error"]["code"] == "audio_too_large"


async def test_only_json_is_taken(store_url: str, tmp_path: Path) -> None:
    """A form on a foreign page cannot send JSON without asking first."""
    async with talking(store_url, tmp_path) as caller:
        headers = {"Content-Type": "text/plain"}
        answer = await caller.post("/chatkit", content=b"{}", headers=headers)
        assert answer.status_code == 415


@pytest.mark.parametrize(
    ("kind", "said"), [(ConnectionError, (503, "unavailable")), (KeyError, (500, "internal"))]
)
async def test_an_unreachable_store_is_reported_and_recovers(
    store_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: type[Exception],
    said: tuple[int, str],
) -> None:
    """503 with a sentence, /readyz fails with the reason, and both recover by themselves.

    A bug of our own is a 500: monitors tell the two apart.
    """

    async def away(*_: object, **__: object) -> None:
        raise kind("nobody listens")

    async with talking(store_url, tmp_path) as caller:
        with monkeypatch.context() as patch:
            patch.setattr(caller.served.store, "ping", away)
            patch.setattr(caller.served.store, "load_threads", away)
            assert (await caller.get("/readyz")).status_code == 503
            assert "nobody listens" in (await caller.get("/readyz")).text
            answer = await caller.op("threads.list")
            assert (answer.status_code, answer.json()["error"]["code"]) == said
            assert answer.headers["x-request-id"] == answer.json()["error"]["request_id"]
        assert (await caller.get("/readyz")).status_code == 200
        assert (await caller.op("threads.list")).status_code == 200
        assert (await caller.get("/healthz")).status_code == 200


async def test_a_wrong_parameter_is_named(store_url: str, tmp_path: Path) -> None:
    """In your own routes as well."""
    async with talking(store_url, tmp_path) as caller:
        answer = await caller.get("/files/x/file")
    text = "query.token is not valid: Field required."
    assert (answer.status_code, answer.json()["error"]["message"]) == (400, text)


async def test_the_log_says_where_in_the_app_a_value_was_refused(
    store_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Not where in a library it was found."""
    async with talking(store_url, tmp_path) as caller:
        caller.headers["Origin"] = "http://["
        assert (await caller.op("threads.list")).status_code == 400
    record = next(record for record in caplog.records if record.message == "refused")
    assert "auth.py:" in vars(record)["place"]


async def test_metrics_need_their_token(store_url: str, tmp_path: Path) -> None:
    """Off without a token; with it, counts of requests and answers."""
    async with talking(store_url, tmp_path) as caller:
        assert (await caller.get("/metrics")).status_code == 404
    async with talking(store_url, tmp_path, Words(20), metrics_token="m" * 32) as caller:
        await caller.say("hello")
        retry = await caller.op("threads.retry_after_item", thread_id="thr_x", item_id="y")
        assert retry.status_code == 404  # refused: no wait for a first event is counted
        assert (await caller.get("/metrics")).status_code == 401
        assert (await caller.get("/made/up")).status_code == 404
        pod = {"Authorization": "Bearer " + "m" * 32, "Host": "10.1.2.3"}  # as Prometheus sends it
        wrong = {"Authorization": "Bearer " + "m" * 31}
        assert (await caller.get("/metrics", headers=wrong)).status_code == 401
        answer = await caller.get("/metrics", headers=pod)
        assert 'chat_turns_total{outcome="done"} 1.0' in answer.text
        assert "chat_first_event_seconds_count 1.0" in answer.text
        refused = 'chat_requests_total{op="threads.retry_after_item",status="404"} 1.0'
        assert refused in answer.text
        assert 'chat_requests_total{op="metrics",status="401"} 2.0' in answer.text
        async with begun(caller, "more"):
            assert "chat_active_streams 1.0" in (await caller.get("/metrics", headers=pod)).text
        assert "made" not in answer.text  # each counted name takes memory for good


async def test_each_request_has_a_line_of_json_without_what_was_said(
    store_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Who, what, how long; for a refusal also why: a status has many reasons."""
    caplog.set_level("INFO", "app.request")
    async with talking(store_url, tmp_path) as caller:
        caller.headers["X-Request-ID"] = "req-1"
        events = await caller.say("a secret")
        await caller.op("threads.get_by_id", thread_id="thr_x")
    record, refused = [record for record in caplog.records if record.name == "app.request"]
    line = json.loads(JSON_LINE.format(record))
    assert (line["request_id"], line["op"], line["status"]) == ("req-1", "threads.create", 200)
    assert (line["outcome"], line["message"], line["level"]) == ("done", "request", "INFO")
    assert (line["thread_id"], line["events"]) == (thread_of(events), len(events))
    assert 0 < line["first_event_ms"] < line["ms"]
    assert line["user"].startswith("anon-")
    assert (vars(refused)["op"], vars(refused)["code"]) == ("threads.get_by_id", "not_found")
    assert "secret" not in json.dumps(line)


async def test_every_answer_has_safe_headers(store_url: str, tmp_path: Path) -> None:
    """Errors have them as well; a request for a foreign host is refused."""
    async with talking(store_url, tmp_path) as caller:
        for path in ("/", "/healthz", "/nothing"):
            headers = (await caller.get(path)).headers
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["x-frame-options"] == "DENY"
            assert headers["referrer-policy"] == "no-referrer"
            assert "content-security-policy" in headers
        assert set((await caller.get("/nothing")).json()) == {"error"}
        rebound = await caller.get("/", headers={"Host": "evil.example"})
        assert rebound.status_code == 400
        for odd in ("two words", "x" * 65):
            answer = await caller.get("/healthz", headers={"X-Request-ID": odd})
            assert len(answer.headers["x-request-id"]) == 16
