"""What the model is given of a conversation: its newest whole turns, in a form any model takes."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

from agents import ItemHelpers, TResponseInputItem
from chatkit import types as t
from chatkit.agents import ThreadItemConverter
from openai.types.responses import ResponseFunctionToolCall
from openai.types.responses import ResponseInputContentParam as Part

from .assistant import Chat
from .context import RequestContext
from .filetypes import PDF
from .settings import Settings

Input = TResponseInputItem | list[TResponseInputItem] | None
ContentPart = Callable[[t.Attachment, RequestContext], Awaitable[Part]]
PDF_BYTES = 32 << 20
"""All PDFs together: each turn sends them whole, which takes about four times that in memory."""
REMEMBERED_CHARS = 20_000
"""How much of a tool's output later turns are given."""
REFUSED = {"type": "refused"}
"""Stored after a message that a guardrail stopped: later turns are not given that message."""


async def load_history(chat: Chat, settings: Settings) -> list[t.ThreadItem]:
    """Return the newest turns, oldest first: whole ones, within HISTORY_ITEMS and HISTORY_CHARS.

    The newest turn is always included. However long the thread, this loads one page from its end,
    and more only to reach the beginning of the newest turn.
    """
    thread, context = chat.thread, chat.request_context
    newest: list[t.ThreadItem] = []
    size, whole, after, more, most = 0, 0, None, True, settings.history_items
    while more and not whole:
        page = await chat.store.load_thread_items(thread.id, after, most, "desc", context)
        after, more = page.after, page.has_more
        for item in page.data:
            size += length_of(item)
            if whole and (size > settings.history_chars or len(newest) >= most):
                more = True
                break
            newest.append(item)
            if isinstance(item, t.UserMessageItem):
                whole = len(newest)  # up to here, these are whole turns
    given: list[t.ThreadItem] = []
    for item in reversed(newest[:whole] if more else newest):
        if isinstance(item, t.HiddenContextItem) and item.content == REFUSED:
            while given and not isinstance(given.pop(), t.UserMessageItem):
                pass  # drop the refused message and all that came after it
        else:
            given.append(item)
    return given


def length_of(item: t.ThreadItem) -> int:
    """Return about how many characters the model reads of an item."""
    match item:
        case t.UserMessageItem() | t.AssistantMessageItem():
            quote = getattr(item, "quoted_text", None) or ""
            return len(quote) + sum(len(part.text) for part in item.content)
        case t.GeneratedImageItem():
            return 0  # the model is told of it in one sentence
    return len(item.model_dump_json())


def length_given(given: object) -> int:
    """Return about how many characters the model is given; of a file, a kilobyte is a token's."""
    match given:
        case str():
            return len(given)
        case {"image_url": str(data)} | {"file_data": str(data)}:
            return len(data) // 333  # in base64, a kilobyte has 1,333
        case dict():
            return sum(map(length_given, given.values()))
        case list():
            return sum(map(length_given, given))
    return 0


def tool_memory(name: str, arguments: str, output: object) -> dict[str, str]:
    """Return what a hidden item keeps of a server tool's call: of its output, only the text."""
    call = ResponseFunctionToolCall(call_id="", name=name, arguments="", type="function_call")
    given: Any = ItemHelpers.tool_call_output_item(call, output)["output"]
    parts = [{"text": given}] if isinstance(given, str) else given
    text = "\n".join(part.get("text", "(a file, shown to you at that time)") for part in parts)
    return {"type": "tool_call", "name": name, "arguments": arguments, "output": _cut(text)}


def _cut(text: str) -> str:
    return text if len(text) <= REMEMBERED_CHARS else f"{text[:REMEMBERED_CHARS]}… (cut)"


class Converter(ThreadItemConverter):
    """Turns thread items into input for both APIs: answers as plain text, calls with new ids."""

    def __init__(self, context: RequestContext, content_part: ContentPart, files: int) -> None:
        """Send the newest `files` files through `content_part`; older ones are described."""
        self._context, self._content_part, self._files = context, content_part, files
        self._sent: set[str] = set()

    async def convert(self, items: list[t.ThreadItem]) -> list[TResponseInputItem]:
        """Return the model's input for these items, oldest first."""
        files = {file.id: file for item in items for file in getattr(item, "attachments", ())}
        pdf_bytes = 0
        for file in [*files.values()][::-1][: self._files]:  # newest first
            if file.mime_type == PDF:
                pdf_bytes += (file.metadata or {}).get("size", 0)
            if file.mime_type != PDF or pdf_bytes <= PDF_BYTES:
                self._sent.add(file.id)
        # one by one: the SDK drops the quote of a message that is not the last of those it is given
        inputs: list[Any] = [each for item in items for each in await self.to_agent_input(item)]
        given: list[Any] = []
        for item in inputs:
            if item.get("role") == "user" and isinstance(item["content"], str):
                item["content"] = [_text(item["content"])]
            if given and item.get("role") == given[-1].get("role") == "user":
                given[-1]["content"] += item["content"]  # some servers refuse two in a row
            else:
                given.append(item)
        return [*map(_plain, given)]

    async def assistant_message_to_input(self, item: t.AssistantMessageItem) -> Input:
        """Replay as plain text: chat-completions servers refuse `output_text`."""
        text = "\n".join(part.text for part in item.content).strip()
        return {"role": "assistant", "content": text} if text else None

    async def client_tool_call_to_input(self, item: t.ClientToolCallItem) -> Input:
        """Replay a call that the page has answered; no model accepts one without a result."""
        if item.status == "pending":
            return None
        output = _cut(json.dumps(item.output))
        return _call(item.id, item.name, json.dumps(item.arguments), output)

    async def hidden_context_to_input(self, item: t.HiddenContextItem) -> Input:
        """Replay a server tool's call as such, any other value as text."""
        match item.content:
            case {"type": "tool_call", "name": str(name), "arguments": str(args), "output": output}:
                return _call(item.id, name, args, str(output))
            case content if not isinstance(content, str):
                text = json.dumps(content, default=str, ensure_ascii=False)
                item = item.model_copy(update={"content": text})
        return await super().hidden_context_to_input(item)

    async def generated_image_to_input(self, item: t.GeneratedImageItem) -> Input:
        """Say that there was an image: its address is for the user's browser alone."""
        return {"role": "assistant", "content": "(I made an image here; the user sees it.)"}

    async def tag_to_message_content(self, tag: t.UserMessageTagContent) -> Part:
        """Describe an @-mention as the page sent it; look it up by its id to trust it."""
        data = json.dumps(tag.data, ensure_ascii=False)[:2000]
        return _text(f"@{tag.text} is {tag.group or 'an entity'} {tag.id}: {data}")

    async def attachment_to_message_content(self, attachment: t.Attachment) -> Part:
        """Send a file's content; an old file is only described."""
        if attachment.id not in self._sent:
            return _text(f"(file {attachment.name!r}, {attachment.mime_type})")
        self._sent.remove(attachment.id)  # once is enough, even if two messages have it
        return await self._content_part(attachment, self._context)


def _plain(item: Any) -> Any:
    """Join a message's parts if all are text, else drop empty ones: some servers refuse them."""
    parts = item.get("content")
    if isinstance(parts, list):
        if all(part["type"] == "input_text" for part in parts):
            return {"role": item["role"], "content": "\n".join(part["text"] for part in parts)}
        item["content"] = [part for part in parts if part.get("text") != ""]
    return item


def _text(text: str) -> Part:
    return {"type": "input_text", "text": text}


def _call(call_id: str, name: str, arguments: str, output: str) -> list[TResponseInputItem]:
    """Return a call and its output under the item's id: a model may repeat its own ids."""
    try:
        is_object = isinstance(json.loads(arguments), dict)
    except ValueError:
        is_object = False
    if not is_object:  # a custom tool's, or broken: servers refuse those
        arguments = json.dumps({"input": arguments})
    call: Any = {"type": "function_call", "call_id": call_id, "name": name, "arguments": arguments}
    return [call, {"type": "function_call_output", "call_id": call_id, "output": output}]
