"""A model's server on loopback: both of OpenAI's APIs, scripted, and as strict as the real one."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "sk-local"
MODELS = ("gpt-5-mini", "gpt-other", "title-model", "ears")


@dataclass(frozen=True)
class Call:
    """A step of the script: the model calls a tool."""

    name: str
    arguments: str = "{}"


@dataclass(frozen=True)
class Fault:
    """A step of the script: the server answers with an error."""

    status: int
    code: str | None = None


@dataclass(frozen=True)
class Pause:
    """A step of the script: the first words, then silence."""

    text: str
    seconds: float


@dataclass(frozen=True)
class Cut:
    """A step of the script: the first words of an answer, and how it is then cut off."""

    text: str
    how: Any = "incomplete"  # in chat completions: the finish_reason, which may be missing


@dataclass(frozen=True)
class Raw:
    """A step of the script: an item of a response, as it is."""

    item: dict[str, Any]


Step = str | Call | Cut | Fault | Pause | Raw


@dataclass
class ModelServer:
    """What the server will say, and what it was given."""

    url: str = ""
    script: list[Step] = field(default_factory=list)
    given: list[dict[str, Any]] = field(default_factory=list)
    audio: list[bytes] = field(default_factory=list)
    calls: int = 0

    def next_step(self) -> Step:
        """Return the next step; after the end of the script, plain words."""
        return self.script.pop(0) if self.script else f"answer {len(self.given)}"

    def next_call_id(self) -> str:
        """Return an id for a call; some servers use the same few again and again."""
        self.calls += 1
        return f"call_{self.calls % 2}"


@contextmanager
def model_server(*script: Step) -> Iterator[ModelServer]:
    """Serve on a free port of loopback for as long as the block lasts."""
    state = ModelServer(script=list(script))
    handler = type("Handler", (Handler,), {"state": state})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        state.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield state
        finally:
            server.shutdown()
            thread.join()


class Handler(BaseHTTPRequestHandler):
    """One request of the openai client."""

    state: ModelServer

    def log_message(self, *args: object) -> None:
        """Keep quiet."""

    def do_POST(self) -> None:  # noqa: PLR0911 - one answer a case
        """Answer as the script says, after the checks that the real API makes."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers["Authorization"] != f"Bearer {KEY}":
            return self.refuse(401, "invalid_api_key")
        if self.path == "/v1/audio/transcriptions":
            if self.state.script and isinstance(first := self.state.script[0], Fault):
                return self.refuse(first.status, first.code)
            self.state.audio.append(body)
            return self.answer({"text": "spoken words"})
        request = json.loads(body)
        self.state.given.append(request)
        if request["model"] not in MODELS:
            return self.refuse(404, "model_not_found")
        chat = self.path == "/v1/chat/completions"
        if fault := wrong_chat(request["messages"]) if chat else wrong_input(request["input"]):
            return self.refuse(400, fault)
        step = self.state.next_step()
        if isinstance(step, Fault):
            return self.refuse(step.status, step.code)
        call_id = self.state.next_call_id()
        events = chat_events(step, call_id) if chat else response_events(step, call_id)
        if request.get("stream"):
            if not request.get("stream_options", {}).get("include_usage"):  # chat's own option
                events = (event for event in events if "usage" not in event)
            return self.stream(events, chat=chat)
        whole = list(events)[-1]
        return self.answer(chat_whole(step) if chat else whole["response"])

    def answer(self, value: object, status: int = 200) -> None:
        """Send JSON."""
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Retry-After-Ms", "1")
        self.end_headers()
        self.wfile.write(data)

    def refuse(self, status: int, code: str | None) -> None:
        """Send an error in the form of the real API."""
        self.answer({"error": {"message": f"no: {code}", "type": "x", "code": code}}, status)

    def stream(self, events: Iterator[dict[str, Any]], *, chat: bool) -> None:
        """Send server-sent events."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        try:
            for event in events:
                name = "" if chat else f"event: {event['type']}\n"
                self.wfile.write(f"{name}data: {json.dumps(event)}\n\n".encode())
                self.wfile.flush()
            if chat:
                self.wfile.write(b"data: [DONE]\n\n")
        except OSError:
            return  # the app stopped reading


def words(step: str | Cut | Pause) -> Iterator[str]:
    """Yield text word by word."""
    text = step if isinstance(step, str) else step.text
    for index, word in enumerate(text.split(" ")):
        yield f" {word}" if index else word
    if isinstance(step, Pause):
        time.sleep(step.seconds)


def chat_events(step: Step, call_id: str) -> Iterator[dict[str, Any]]:
    """Yield the chunks of a chat completion."""

    def chunk(delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 0, "model": "m"}
        return {**head, "choices": [choice]}

    if isinstance(step, Call):
        function = {"name": step.name, "arguments": step.arguments}
        call = {"index": 0, "id": call_id, "type": "function", "function": function}
        yield chunk({"role": "assistant", "content": None, "tool_calls": [call]})
        yield chunk({}, "tool_calls")
    elif isinstance(step, str | Pause | Cut):
        yield chunk({"role": "assistant", "content": ""})
        for word in words(step):
            yield chunk({"content": word})
        yield chunk({}, step.how if isinstance(step, Cut) else "stop")
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    yield {**chunk({}), "choices": [], "usage": usage}


def chat_whole(step: Step) -> dict[str, Any]:
    """Return a whole chat completion."""
    message = {"role": "assistant", "content": step}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    head = {"id": "chatcmpl-1", "object": "chat.completion", "created": 0, "model": "m"}
    return {**head, "choices": [choice]}


def response_events(step: Step, call_id: str) -> Iterator[dict[str, Any]]:
    """Yield the events of a response."""
    numbers = iter(range(10**6))

    def event(kind: str, **fields: Any) -> dict[str, Any]:
        return {"type": f"response.{kind}", "sequence_number": next(numbers), **fields}

    head = {"id": f"resp_{time.time_ns()}", "object": "response", "created_at": 0, "model": "m"}
    head |= {"tool_choice": "auto", "tools": [], "parallel_tool_calls": True, "output": []}
    yield event("created", response={**head, "status": "in_progress"})
    item: dict[str, Any]
    if isinstance(step, Raw):
        item = step.item
        yield event("output_item.added", output_index=0, item=item)
    elif isinstance(step, Call):
        item = {"type": "function_call", "id": f"fc_{time.time_ns()}", "call_id": call_id}
        item |= {"name": step.name, "arguments": step.arguments, "status": "completed"}
        yield event("output_item.added", output_index=0, item={**item, "arguments": ""})
        place = {"output_index": 0, "item_id": item["id"], "name": step.name}
        yield event("function_call_arguments.done", arguments=step.arguments, **place)
    else:
        item = {"type": "message", "id": f"msg_{time.time_ns()}", "role": "assistant"}
        item |= {"status": "completed", "content": []}
        part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        place = {"output_index": 0, "item_id": item["id"], "content_index": 0}
        yield event("output_item.added", output_index=0, item=item)
        yield event("content_part.added", part=part, **place)
        text = ""
        for word in words(step if isinstance(step, str | Cut | Pause) else ""):
            text += word
            yield event("output_text.delta", delta=word, logprobs=[], **place)
        yield event("output_text.done", text=text, logprobs=[], **place)
        item = {**item, "content": [{**part, "text": text}]}
    yield event("output_item.done", output_index=0, item=item)
    usage: dict[str, Any] = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}
    usage |= {"input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0}}
    usage |= {"output_tokens_details": {"reasoning_tokens": 0}}
    how = step.how if isinstance(step, Cut) else "completed"
    done = {**head, "status": how, "output": [item], "usage": usage}
    if how == "incomplete":
        done |= {"incomplete_details": {"reason": "max_output_tokens"}}
    yield event(how, response=done)


def wrong_chat(messages: list[dict[str, Any]]) -> str | None:
    """Return what a chat-completions server refuses: odd parts, calls without results."""
    open_calls: list[str] = []
    for message in messages:
        role, content = message["role"], message.get("content")
        if role == "tool":
            if message["tool_call_id"] not in open_calls:
                return "a result without its call"
            open_calls.remove(message["tool_call_id"])
            continue
        if open_calls:
            return "a call without its result"
        open_calls = [call["id"] for call in message.get("tool_calls", [])]
        if role == "assistant" and not (isinstance(content, str) or open_calls):
            return "assistant content must be a text"
        if isinstance(content, list) and any(
            part["type"] not in {"text", "image_url", "file"} for part in content
        ):
            return "unknown content part"
    return "a call without its result" if open_calls else None


def wrong_input(items: list[dict[str, Any]] | str) -> str | None:
    """Return what the Responses API refuses: calls without results, ids used twice."""
    calls: list[str] = []
    results: list[str] = []
    for item in items if isinstance(items, list) else []:
        kind = item.get("type", "message")
        if kind == "function_call":
            calls.append(item["call_id"])
        elif kind == "function_call_output":
            results.append(item["call_id"])
        elif kind == "image_generation_call":
            continue
        elif kind != "message" or item["role"] not in {"user", "assistant"}:
            return f"unknown item {kind}"
        elif item["role"] == "assistant" and not ("id" in item or isinstance(item["content"], str)):
            return "assistant content must be a text"
    if len(set(calls)) < len(calls):
        return "a call id used twice"
    return None if sorted(calls) == sorted(results) else "calls and results do not match"
