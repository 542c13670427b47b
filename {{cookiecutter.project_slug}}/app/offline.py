"""A model that needs no key and no network: it streams word by word and says what it was given."""

import asyncio
import re
import uuid
from collections.abc import AsyncIterator
from typing import Any

from agents import ItemHelpers, Model, ModelResponse
from agents.items import TResponseOutputItem
from agents.testing import ModelCall, ModelStep, ScriptedModel, assistant_message, function_call

DEMO: dict[str, tuple[str, dict[str, Any]]] = {"time": ("current_time", {"zone": "UTC"})}
"""A word in the user's message, and the call that it triggers if the agent has that tool."""


class OfflineModel(Model):
    """Shows the whole app at work, tools and widgets included, until a real model is set."""

    def __init__(self, delay: float = 0.02) -> None:
        """Wait `delay` seconds before each word."""
        self.delay = delay

    async def get_response(self, *args: Any, **kwargs: Any) -> ModelResponse:
        """Return the whole answer at once."""
        model = ScriptedModel([ModelStep.respond(self._respond)])
        return await model.get_response(*args, **kwargs)

    async def stream_response(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        """Stream the answer in the events of the Responses API, its text word by word."""
        model = ScriptedModel([ModelStep.respond(self._respond)])
        async for event in model.stream_response(*args, **kwargs):
            if event.type != "response.output_text.delta":
                yield event
                continue
            for word in re.findall(r"\s*\S+", event.delta):
                await asyncio.sleep(self.delay)
                yield event.model_copy(update={"delta": word})

    def _respond(self, asked: ModelCall) -> list[TResponseOutputItem]:
        items: list[Any] = ItemHelpers.input_to_new_input_list(asked.input)
        messages = [item["content"] for item in items if item.get("role") == "user"] or [""]
        said = [m if isinstance(m, str) else m[0].get("text", "") for m in messages]
        words = re.findall(r"\w+", said[-1].lower())
        for word, (name, arguments) in DEMO.items():
            wanted = word in words or asked.model_settings.tool_choice == name
            known = name in {t.name for t in asked.tools} | {h.tool_name for h in asked.handoffs}
            if wanted and known and items[-1].get("type") != "function_call_output":
                return [function_call(name, arguments, call_id=f"call_{uuid.uuid4().hex}")]
        return [assistant_message(self.answer(items, said), item_id=f"msg_{uuid.uuid4().hex}")]

    def answer(self, items: list[Any], said: list[str]) -> str:
        """Show what was given: how many messages, the first and the last of them."""
        if items[-1].get("type") == "function_call_output":
            return f"The tool answered: {items[-1]['output']}"
        given = sum("role" in item for item in items)
        return (
            "I am the offline model: I stream words but cannot think. Set OPENAI_API_KEY in .env "
            f"for a real one. I was given {given} message{'s' if given > 1 else ''}; the first was "
            f"“{said[0][:200]}”, the last “{said[-1][-200:]}”."
        )
