"""A model that needs no key and no network: it streams word by word and says what it was given."""

import asyncio
import re
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

from agents import Model, ModelResponse, ModelSettings, Tool, Usage
from agents.items import TResponseStreamEvent
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

DEMO = {"time": ("current_time", '{"zone": "UTC"}')}
"""A word in the user's message, and the call that it makes when the agent has that tool."""

_EVENT: TypeAdapter[TResponseStreamEvent] = TypeAdapter(ResponseStreamEvent)


class OfflineModel(Model):
    """Shows the whole app at work, tools and widgets included, until a real model is set."""

    def __init__(self, delay: float = 0.02) -> None:
        """Wait `delay` seconds before each word."""
        self.delay = delay

    async def get_response(self, *args: Any, **kwargs: Any) -> ModelResponse:
        """Return the whole answer at once."""
        events = [event async for event in self.stream_response(*args, **kwargs)]
        return ModelResponse(events[-1].response.output, Usage(), None)  # type: ignore[union-attr]

    async def stream_response(
        self,
        system_instructions: str | None,
        input: Any,  # noqa: A002 - the interface's name
        model_settings: ModelSettings,
        tools: list[Tool],
        *args: Any,
        **kwargs: Any,
    ) -> AsyncIterator[TResponseStreamEvent]:
        """Stream one message, or one call of a tool, in the events of the Responses API."""
        items = [{"role": "user", "content": input}] if isinstance(input, str) else input
        for event in self._events(items, {tool.name for tool in tools}, model_settings.tool_choice):
            if event["type"].endswith(".delta"):
                await asyncio.sleep(self.delay)
            yield _EVENT.validate_python({"sequence_number": 0, "output_index": 0, **event})

    def _events(self, items: list[Any], tools: set[str], choice: object) -> Iterator[Any]:
        """Yield what a model's server sends: an item begins, grows and ends, then the response."""
        messages = [item["content"] for item in items if item.get("role") == "user"] or [""]
        said = [m if isinstance(m, str) else m[0].get("text", "") for m in messages]
        words = re.findall(r"\w+", said[-1].lower())
        calls = [call for word, call in DEMO.items() if word in words or choice == call[0]]
        item: dict[str, Any] = {"id": f"msg_{uuid.uuid4().hex}", "status": "completed"}
        if items[-1].get("type") != "function_call_output" and calls and calls[0][0] in tools:
            item |= {"type": "function_call", "call_id": item["id"]}
            item |= {"name": calls[0][0], "arguments": calls[0][1]}
            yield {"type": "response.output_item.added", "item": item}
        else:
            part = {"type": "output_text", "text": "", "annotations": []}
            item |= {"type": "message", "role": "assistant", "content": []}
            place = {"item_id": item["id"], "content_index": 0, "logprobs": []}
            yield {"type": "response.output_item.added", "item": item}
            yield {"type": "response.content_part.added", "part": part, **place}
            text = self.answer(items, said)
            for word in re.findall(r"\s*\S+", text):
                yield {"type": "response.output_text.delta", "delta": word, **place}
            yield {"type": "response.output_text.done", "text": text, **place}
            item = {**item, "content": [{**part, "text": text}]}
        yield {"type": "response.output_item.done", "item": item}
        response = {"id": f"resp_{uuid.uuid4().hex}", "created_at": 0, "model": "offline"}
        response |= {"object": "response", "parallel_tool_calls": False, "tool_choice": "auto"}
        response |= {"tools": [], "output": [item]}
        yield {"type": "response.completed", "response": response}

    def answer(self, items: list[Any], said: list[str]) -> str:
        """Prove what was given: how many messages, the first and the last of them."""
        if items[-1].get("type") == "function_call_output":
            return f"The tool answered: {items[-1]['output']}"
        given = sum("role" in item for item in items)
        return (
            "I am the offline model: I stream words but cannot think. Set OPENAI_API_KEY in .env "
            f"for a real one. I was given {given} message{'s' if given > 1 else ''}; the first was "
            f"“{said[0][:200]}”, the last “{said[-1][-200:]}”."
        )
