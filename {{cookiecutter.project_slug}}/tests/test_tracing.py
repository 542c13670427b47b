"""What traces contain: no file's address, and nothing that was said unless asked."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock, Mock

import pytest
from agents import TracingProcessor, function_tool, set_trace_processors
from opentelemetry.trace import TracerProvider

from .serving import thread_of
from .talking import calls, talking, tools

pytestmark = pytest.mark.anyio

Sent = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def sent() -> Iterator[Sent]:
    """Return a function that returns what would have been sent to OpenAI."""
    processor = Mock(spec=TracingProcessor)
    set_trace_processors([processor])
    ends = (processor.on_trace_end, processor.on_span_end)
    yield lambda: [call.args[0].export() for end in ends for call in end.call_args_list]
    set_trace_processors([])


@function_tool
async def look(what: str) -> str:
    """Look something up."""
    return f"{what} found"


@pytest.mark.parametrize("content", [False, True])
async def test_a_trace_names_its_thread_and_says_nothing_of_it_unless_asked(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent: Sent, content: bool
) -> None:
    """With TRACE_CONTENT it does."""
    tools(monkeypatch, look)
    model = calls("look", "fine", what="a secret")
    changes = {"openai_api_key": "sk-test", "trace_content": content}
    async with talking(store_url, tmp_path, model, **changes) as caller:
        thread_id = thread_of(await caller.say("go"))
    assert [each["group_id"] for each in sent() if each["object"] == "trace"] == [thread_id]
    assert ("a secret" in str(sent())) == content


async def test_what_another_server_answers_is_not_traced(
    store_url: str, tmp_path: Path, sent: Sent
) -> None:
    """OpenAI gets no trace of it, although there is a key."""
    changes = {"openai_api_key": "sk-test", "openai_base_url": "http://127.0.0.1:9"}
    async with talking(store_url, tmp_path, calls("none", "fine"), **changes) as caller:
        await caller.say("go")
    assert not sent()


async def test_a_teams_own_tracer_gets_no_files_address(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FastAPI would send it, and whoever has it can open the file."""
    provider = MagicMock(spec=TracerProvider)
    monkeypatch.setattr("opentelemetry.trace.get_tracer_provider", lambda: provider)
    async with talking(store_url, tmp_path) as caller:
        await caller.get("/files/atc_1/preview?token=secret")
        await caller.get("/config.json")
    begun = provider.get_tracer.return_value.start_span.call_args_list
    assert [span.kwargs["attributes"]["url.path"] for span in begun] == ["/config.json"]
