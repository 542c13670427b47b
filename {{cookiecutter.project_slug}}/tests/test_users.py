"""Two users whose ids collide: what is foreign and what is unknown cannot be told apart."""

import json
from pathlib import Path
from typing import Any

import pytest
from chatkit.types import FileAttachment, ThreadMetadata, WidgetItem
from chatkit.widgets import Card

from app import assistant
from app.context import RequestContext, context_for
from app.store import ChatStore as Store

from .serving import Caller, Served, Words, message, serving, settings_for, thread_of

pytestmark = pytest.mark.anyio


def operations(thread: str, item: str, attachment: str) -> list[tuple[str, dict[str, Any]]]:
    """Return every operation of the protocol that names something, and those that list."""
    user_input = message("hi", thread)[1]["input"]
    action = {"type": "press", "payload": {}}
    with_file = user_input | {"attachments": [attachment]}
    return [
        ("threads.get_by_id", {"thread_id": thread}),
        ("threads.list", {}),
        ("threads.list", {"after": thread}),
        ("threads.update", {"thread_id": thread, "title": "taken"}),
        ("threads.delete", {"thread_id": thread}),
        ("threads.create", {"input": with_file}),
        ("threads.add_user_message", {"thread_id": thread, "input": user_input}),
        ("threads.add_client_tool_output", {"thread_id": thread, "result": 1}),
        (
            "threads.add_structured_input",
            {"thread_id": thread, "item_id": item, "input": {"answers": {}}},
        ),
        ("threads.retry_after_item", {"thread_id": thread, "item_id": item}),
        ("threads.custom_action", {"thread_id": thread, "item_id": item, "action": action}),
        ("threads.sync_custom_action", {"thread_id": thread, "item_id": item, "action": action}),
        ("items.list", {"thread_id": thread}),
        ("items.list", {"thread_id": thread, "after": item}),
        ("items.feedback", {"thread_id": thread, "item_ids": [item], "kind": "negative"}),
        ("attachments.delete", {"attachment_id": attachment}),
    ]


async def everything(store: Store, owner: str) -> str:
    """Return all that the store holds of one owner."""
    context = context_for(owner)
    found: list[str] = [a.model_dump_json() for a in await store.load_attachments(None, context)]
    threads = await store.load_threads(100, None, "asc", context)
    for thread in threads.data:
        items = await store.load_thread_items(thread.id, None, 100, "asc", context)
        found += [thread.model_dump_json(), items.model_dump_json()]
        found.append(json.dumps(await store.load_feedback(thread.id, context)))
    return "\n".join(found)


async def fill(served: Served, caller: Caller) -> tuple[str, str, str, str]:
    """Give one user a thread, messages, a widget, feedback and a file; return owner and ids."""
    thread_id = thread_of(await caller.say("private words"))
    store = served.app.state.store
    owner = [owner async for owner in store.owners()][-1]
    context: RequestContext = context_for(owner)
    thread: ThreadMetadata = await store.load_thread(thread_id, context)
    widget = WidgetItem(
        id="msg_widget", thread_id=thread_id, created_at=thread.created_at, widget=Card(children=[])
    )
    await store.add_thread_item(thread_id, widget, context)
    file = FileAttachment(id="atc_private", name="a.txt", mime_type="text/plain")
    await store.save_attachment(file, context)
    await store.save_feedback(thread_id, ["msg_widget"], "positive", context)
    return owner, thread_id, "msg_widget", "atc_private"


async def test_nothing_of_another_user_is_seen_changed_or_confirmed(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each answer equals, byte by byte, the one for an id that nobody has."""
    for actions in (assistant.ACTIONS, assistant.SYNC_ACTIONS):
        monkeypatch.setitem(actions, "press", None)
    async with serving(settings_for(store_url, tmp_path), Words(3)) as served:
        async with served.caller() as alice, served.caller() as mallory:
            owner, *ids = await fill(served, alice)
            await mallory.op("threads.list")
            before = await everything(served.app.state.store, owner)
            nobody = ["thr_nobody", "msg_nobody", "atc_nobody"]
            for foreign, unknown in zip(operations(*ids), operations(*nobody), strict=True):
                same = {"X-Request-ID": "same"}
                answers = [
                    await mallory.post(
                        "/chatkit", json={"type": kind, "params": params}, headers=same
                    )
                    for kind, params in (foreign, unknown)
                ]
                assert answers[0].status_code == answers[1].status_code, foreign
                assert answers[0].status_code != 403
                assert answers[0].content == answers[1].content, foreign
                assert "private" not in answers[0].text
            assert await everything(served.app.state.store, owner) == before


async def test_users_with_the_same_ids_have_their_own_data(store_url: str, tmp_path: Path) -> None:
    """One user deletes the thread whose id both have; the other's stays as it was."""
    async with serving(settings_for(store_url, tmp_path), Words(3)) as served:
        async with served.caller() as alice, served.caller() as bob:
            owner, thread_id, *_ = await fill(served, alice)
            bobs = thread_of(await bob.say("hello"))
            store = served.app.state.store
            other = next(o for o in [o async for o in store.owners()] if o != owner)
            thread = await store.load_thread(bobs, context_for(other))
            thread.id = thread_id
            await store.save_thread(thread, context_for(other))
            before = await everything(store, owner)
            assert (await bob.op("threads.get_by_id", thread_id=thread_id)).status_code == 200
            await bob.say("mine", thread_id)
            await bob.op("threads.delete", thread_id=thread_id)
            assert await everything(store, owner) == before
            assert (await bob.op("threads.get_by_id", thread_id=thread_id)).status_code == 404
