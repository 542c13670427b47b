"""Any model: both APIs through the real openai client, against a server on loopback."""

import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest
from agents import Agent, RunConfig, Runner, function_tool

from app.model import make_client

from .model_server import Call, Cut, Fault, ModelServer, Pause, model_server
from .sending import PDF, picture, sent
from .serving import text_of, thread_of
from .talking import Chat, asking, card, talking, tools

pytestmark = pytest.mark.anyio
APIS = ("responses", "chat_completions")
LOOK = Call("look", "{}")


@function_tool
async def look(ctx: Chat) -> str:
    """Show a widget."""
    await ctx.context.stream_widget(card("Here it is."))
    return "The user sees it in a widget."


@pytest.fixture(autouse=True)
def _own_tools(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the team's tools out: some exist in only one of the APIs."""
    tools(monkeypatch, look)


def given(server: ModelServer, request: int = -1) -> list[dict[str, Any]]:
    """Return the messages or items of one request, without the instructions."""
    body = server.given[request]
    items: list[dict[str, Any]] = body.get("input") or body["messages"][1:]
    return items


def error_of(events: list[dict[str, Any]]) -> str:
    """Return the sentence that the user reads instead of an answer."""
    assert events[-1]["type"] == "error", events[-1]
    return str(events[-1]["message"])


@pytest.mark.parametrize("api", APIS)
async def test_ten_turns_with_tools_reach_the_model_whole(
    store_url: str, tmp_path: Path, api: str
) -> None:
    """Ids stay distinct though the server repeats its own; calls come back with their results."""
    script = [step for turn in range(10) for step in (LOOK, f"answer {turn}")]
    with model_server(*script) as server:
        async with asking(store_url, tmp_path, server, model_api=api) as caller:
            thread = None
            for turn in range(10):
                events = await caller.say(f"question {turn}", thread)
                assert text_of(events).endswith(f"answer {turn}"), events[-1]
                thread = thread or thread_of(events)
            items = await caller.items(thread or "")
    answers = [item for item in items if item["type"] == "assistant_message"]
    assert [item["content"][0]["text"] for item in answers] == [f"answer {n}" for n in range(10)]
    assert len({item["id"] for item in items}) == len(items) == 30  # question, widget, answer
    last = json.dumps(given(server))
    said = [f"{what} {turn}" for turn in range(10) for what in ("question", "answer")]
    assert re.findall(r"(?:question|answer) \d", last) == said[:-1]
    assert last.count('"name": "look"') == 10
    assert last.count("The user sees it in a widget.") == 10
    assert server.given[-1]["model"] == "gpt-5-mini"


@pytest.mark.parametrize("api", APIS)
async def test_a_chosen_model_answers_and_a_chosen_tool_is_called(
    store_url: str, tmp_path: Path, api: str
) -> None:
    """The composer's choice counts if it is on the list; for others see `test_protocol.py`."""
    lists = {"allowed_models": ["gpt-other"], "allowed_tools": ["look"]}
    with model_server() as server:
        async with asking(store_url, tmp_path, server, model_api=api, **lists) as caller:
            choice = {"model": "gpt-other", "tool_choice": {"id": "look"}}
            await caller.say("hello", inference_options=choice)
            await caller.say("hello")
    assert [request["model"] for request in server.given] == ["gpt-other", "gpt-5-mini"]
    assert "look" in json.dumps(server.given[0]["tool_choice"])


@pytest.mark.parametrize(
    ("api", "kinds"),
    [
        ("responses", ["input_text", "input_image", "input_file", "input_text"]),
        ("chat_completions", ["text", "image_url", "file", "text"]),
    ],
)
async def test_files_reach_the_model_in_the_form_of_its_api(
    store_url: str, tmp_path: Path, api: str, kinds: list[str]
) -> None:
    """A picture, a PDF and a text file, after what the user typed."""
    files = [(picture(), "a.png"), (PDF, "b.pdf"), (b"plain", "c.txt")]
    with model_server("seen") as server:
        async with asking(store_url, tmp_path, server, model_api=api) as caller:
            ids = [(await sent(caller, data, name))["id"] for data, name in files]
            assert text_of(await caller.say("read", attachments=ids)) == "seen"
    assert [part["type"] for part in given(server)[-1]["content"]] == kinds


FAULTS: list[tuple[str, dict[str, Any], list[Any], str]] = [
    ("a wrong key", {"openai_api_key": "sk-wrong"}, [], "does not accept this app's key"),
    ("an unknown model", {"model": "gpt-nobody"}, [], "does not know the model"),
    ("a full quota", {}, [Fault(429)] * 9, "busy"),
    ("a broken server", {}, [Fault(500)] * 9, "has trouble"),
    ("no server", {"openai_base_url": "http://127.0.0.1:9/v1"}, [], "cannot be reached"),
    ("a long text", {}, [Fault(400, "context_length_exceeded")], "Start a new conversation"),
    ("silence", {"turn_seconds": 1}, [Pause("first words", 3)], "took too long"),
    ("nothing by the one API", {}, [""], "gave no answer"),
    ("nothing by the other", {}, [""], "gave no answer"),
    ("endless calls", {"max_turns": 2}, [LOOK] * 9, "too many steps"),
    ("a failed answer", {}, [Cut("first words", "failed")], "broke off its answer"),
    ("a local model's", {}, [Fault(400, "maximum context length")], "Start a new conversation"),
    ("a bad request", {}, [Fault(400)], "refused the request"),
]
NO_FAULTS = ("silence", "nothing by the one API", "nothing by the other", "endless calls")


@pytest.mark.parametrize("number", range(len(FAULTS)), ids=[fault[0] for fault in FAULTS])
async def test_a_fault_is_one_sentence_and_the_thread_stays_usable(
    store_url: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
) -> None:
    """The user reads what to do and the request's id; the log has the cause under the same id."""
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)
    what, changes, script, sentence = FAULTS[number]
    api = APIS[number % 2]
    with model_server(*script) as server, caplog.at_level(logging.INFO, "app"):
        changed = {"model_api": api} | changes
        async with asking(store_url, tmp_path, server, **changed) as caller:
            events = await caller.say(what)
            server.script.clear()
            again = await caller.say("again", thread_of(events))
            items = await caller.items(thread_of(events))
    assert sentence in error_of(events)
    record = next(record for record in caplog.records if record.message == "no answer")
    assert vars(record)["cause"]
    traced = ("WARNING", False) if what in NO_FAULTS else ("ERROR", True)
    assert (record.levelname, bool(record.exc_info)) == traced
    assert events[-1]["allow_retry"] == ("Try again in a moment." in error_of(events))
    line = next(record for record in caplog.records if record.name == "app.request")
    assert vars(line)["outcome"] == "failed", "an operator counts these"
    assert f"(request {vars(record)['request_id']})" in error_of(events)
    assert text_of(again).startswith("answer") if script else sentence in error_of(again)
    said = [item for item in items if item["type"] == "user_message"]
    assert [item["content"][0]["text"] for item in said] == [what, "again"]


@pytest.mark.parametrize("api", APIS)
async def test_an_agent_without_a_model_asks_the_apps_server(
    store_url: str, tmp_path: Path, api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the server that the environment names: what is said is only for the app's."""
    monkeypatch.setenv("OPENAI_DEFAULT_MODEL", "gpt-5-mini")
    with model_server("fine") as server:
        async with asking(store_url, tmp_path, server, model_api=api):
            untraced = RunConfig(tracing_disabled=True)
            result = await Runner.run(Agent("Judge"), "a secret", run_config=untraced)
    assert result.final_output == "fine"
    assert "a secret" in json.dumps(server.given[-1])
    assert ("messages" in server.given[-1]) == (api == "chat_completions")


@pytest.mark.parametrize("api", APIS)
async def test_a_users_share_is_counted_as_the_models_server_counts(
    store_url: str, tmp_path: Path, api: str
) -> None:
    """Chat-completions servers report tokens only on request; these words are about 50."""
    with model_server("fine", "fine") as server:
        async with asking(store_url, tmp_path, server, model_api=api, tokens_per_day=30) as caller:
            statuses = [(await caller.ask("x" * 200)).status_code for _ in range(3)]
    assert statuses == [200, 200, 429]


async def test_what_was_said_before_a_fault_is_kept(store_url: str, tmp_path: Path) -> None:
    """The words that the user saw are in the thread, and in the model's next input."""
    with model_server(Pause("first words", 3)) as server:
        async with asking(store_url, tmp_path, server, turn_seconds=1) as caller:
            events = await caller.say("go")
            items = await caller.items(thread_of(events))
            await caller.say("and?", thread_of(events))
    assert [item["type"] for item in items] == ["user_message", "assistant_message"]
    assert items[1]["content"][0]["text"] == "first words"
    assert {"role": "assistant", "content": "first words"} in given(server)


@pytest.mark.parametrize(
    ("api", "how"),
    [(APIS[0], "incomplete"), (APIS[1], "length"), (APIS[1], "content_filter"), (APIS[1], None)],
)
async def test_a_cut_answer_is_kept_and_said_to_be_cut(
    store_url: str, tmp_path: Path, api: str, how: str | None
) -> None:
    """By a limit, a filter or a lost connection: what came is kept, and the next turn goes on."""
    with model_server(Call("imagined"), Cut("first words", how)) as server:
        async with asking(store_url, tmp_path, server, model_api=api) as caller:
            events = await caller.say("go")
            await caller.say("go on", thread_of(events))
            _, cut, *_ = await caller.items(thread_of(events))
    assert "broke off its answer: ask for the rest" in error_of(events)
    assert cut["content"][0]["text"] == given(server)[-2]["content"] == "first words"


@pytest.mark.parametrize("api", APIS)
async def test_half_an_emoji_from_the_model_loses_no_answer(
    store_url: str, tmp_path: Path, api: str
) -> None:
    """What cannot be stored is replaced; the rest is kept."""
    with model_server("words \ud83d and \ud83d\ude00 more") as server:
        async with asking(store_url, tmp_path, server, model_api=api) as caller:
            events = await caller.say("go")
            _, answer = await caller.items(thread_of(events))
    assert text_of(events) == answer["content"][0]["text"] == "words � and 😀 more"


async def test_a_message_that_never_had_a_word_is_taken_off_the_page(
    store_url: str, tmp_path: Path
) -> None:
    """Otherwise an empty message would stay there until a reload."""
    with model_server(Pause("", 3)) as server:
        async with asking(store_url, tmp_path, server, turn_seconds=1) as caller:
            events = await caller.say("go")
            items = await caller.items(thread_of(events))
    (added,) = [e["item"]["id"] for e in events if e["type"] == "thread.item.added"]
    assert {"type": "thread.item.removed", "item_id": added} in events
    assert [item["type"] for item in items] == ["user_message"]


async def test_dictation_without_a_models_server_is_refused(store_url: str, tmp_path: Path) -> None:
    """TRANSCRIBE_MODEL would name a model that nobody serves."""
    async with talking(store_url, tmp_path, transcribe_model="ears") as caller:
        for audio, status in (("AAAA", 501), ("bad base64", 400)):
            answer = await caller.op("input.transcribe", audio_base64=audio, mime_type="audio/webm")
            assert answer.status_code == status


@pytest.mark.parametrize(
    ("fault", "status", "text"),
    [(Fault(400), 400, "cannot be understood"), (Fault(401), 503, "does not accept")],
)
async def test_a_recording_that_is_refused_says_why(
    store_url: str, tmp_path: Path, fault: Fault, status: int, text: str
) -> None:
    """Whether the fault is the user's or the operator's."""
    with model_server(fault) as server:
        async with asking(store_url, tmp_path, server, transcribe_model="ears") as caller:
            answer = await caller.op(
                "input.transcribe", audio_base64="AAAA", mime_type="audio/webm"
            )
    assert answer.status_code == status
    assert text in answer.json()["error"]["message"]


async def test_all_dictations_share_one_client(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Making one takes 20 ms of everybody's time. It is closed at the end."""
    clients: list[Any] = []

    def noted(settings: Any) -> Any:
        clients.append(make_client(settings))
        return clients[-1]

    monkeypatch.setattr("app.server.make_client", noted)
    audio = {"audio_base64": "AAAA", "mime_type": "audio/webm"}
    with model_server() as server:
        async with asking(store_url, tmp_path, server, transcribe_model="ears") as caller:
            for _ in range(2):
                assert (await caller.op("input.transcribe", **audio)).status_code == 200
    (client,) = clients
    assert client.is_closed()


async def test_dictation_and_titles_go_through_the_same_server(
    store_url: str, tmp_path: Path
) -> None:
    """Speech becomes text, the second title is the model's; each only if its setting is set."""
    with model_server("an answer", "“A Good Title.”") as server:
        extras = {"transcribe_model": "ears", "title_model": "title-model"}
        async with asking(store_url, tmp_path, server, **extras) as caller:
            audio = {"audio_base64": "AAAA", "mime_type": "audio/webm;codecs=opus"}
            answer = await caller.op("input.transcribe", **audio)
            assert answer.json() == {"text": "spoken words"}
            assert b'filename="speech.webm"' in server.audio[0]
            events = await caller.say("hello there")
    titles = [event["thread"]["title"] for event in events if event["type"] == "thread.updated"]
    assert titles == ["hello there", "A Good Title"]
    assert server.given[-1]["model"] == "title-model"
