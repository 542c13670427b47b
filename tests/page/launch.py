"""Starts a baked app as `python -m app` does, with one more route, which fills a thread."""

import os
import sys
from datetime import UTC, datetime
from typing import Any

sys.path.insert(0, os.getcwd())  # noqa: PTH109 - the app's folder

from chatkit.types import InferenceOptions, UserMessageItem, UserMessageTextContent
from fastapi import FastAPI, Request

from app import __main__ as command
from app import main

create_app = main.create_app


def create_app_to_fill(*args: Any, **kwargs: Any) -> FastAPI:
    """Return the app with `POST /fill/{thread_id}/{count}`, for the caller's own thread."""
    app = create_app(*args, **kwargs)

    @app.post("/fill/{thread_id}/{count}")
    async def fill(thread_id: str, count: int, request: Request, context: main.Caller) -> None:
        for n in range(count):
            item = UserMessageItem(
                id=f"filled-{n}",
                thread_id=thread_id,
                created_at=datetime.now(UTC),
                content=[UserMessageTextContent(text=f"Message number {n}")],
                inference_options=InferenceOptions(),
            )
            await request.app.state.store.add_thread_item(thread_id, item, context)

    return app


main.create_app = create_app_to_fill
sys.exit(command.main([]))
