"""Starts a baked app as `python -m app` does, with two more routes, which make data to read."""

import os
import sys
from datetime import UTC, datetime
from typing import Any

sys.path.insert(0, os.getcwd())  # noqa: PTH109 - the app's folder

from chatkit.types import (
    InferenceOptions,
    ThreadMetadata,
    UserMessageItem,
    UserMessageTextContent,
)
from fastapi import FastAPI, Request

from app import __main__ as command
from app import main
from app.auth import Caller

create_app = main.create_app


def create_app_to_fill(*args: Any, **kwargs: Any) -> FastAPI:
    """Return the app with `POST /fill/{thread_id}/{count}` and `POST /chats/{count}`."""
    app = create_app(*args, **kwargs)

    def message(thread_id: str, item_id: str, text: str) -> UserMessageItem:
        return UserMessageItem(
            id=item_id,
            thread_id=thread_id,
            created_at=datetime.now(UTC),
            content=[UserMessageTextContent(text=text)],
            inference_options=InferenceOptions(),
        )

    @app.post("/fill/{thread_id}/{count}")
    async def fill(thread_id: str, count: int, request: Request, context: Caller) -> None:
        for n in range(count):
            item = message(thread_id, f"filled-{n}", f"Message number {n}")
            await request.app.state.store.add_thread_item(thread_id, item, context)

    @app.post("/chats/{count}")
    async def chats(count: int, request: Request, context: Caller) -> None:
        store = request.app.state.store
        for n in range(count):
            now, thread_id = datetime.now(UTC), store.generate_thread_id(context)
            thread = ThreadMetadata(id=thread_id, created_at=now, title=f"Chat {n}")
            await store.save_thread(thread, context)
            item = message(thread_id, "first", f"In chat {n}")
            await store.add_thread_item(thread_id, item, context)

    return app


main.create_app = create_app_to_fill
sys.exit(command.main([]))
