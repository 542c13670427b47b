"""Requests of the protocol, and a reader of their answers that needs no network."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

Asgi = Callable[..., Awaitable[None]]


async def consume(answer: Asgi) -> list[bytes]:
    """Run an answer through ASGI to its end, as a reader that keeps up; return its body."""
    body: list[bytes] = []

    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()
        return {}

    async def send(message: dict[str, Any]) -> None:
        body.append(message.get("body", b""))

    scope = {"type": "http", "asgi": {"spec_version": "2.3"}, "method": "POST", "headers": []}
    await answer(scope, receive, send)
    return body


def body_of(kind: str, **params: object) -> bytes:
    """Return a request of the protocol."""
    return json.dumps({"type": kind, "params": params}).encode()


CONTENT = [{"type": "input_text", "text": "hello"}]
INPUT = {"content": CONTENT, "attachments": [], "inference_options": {}}
CREATE = body_of("threads.create", input=INPUT)


def message(thread_id: str) -> bytes:
    """Return a request that adds a user's message."""
    return body_of("threads.add_user_message", thread_id=thread_id, input=INPUT)
