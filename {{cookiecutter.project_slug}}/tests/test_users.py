"""Two users whose ids collide: what is foreign and what is unknown cannot be told apart."""

from pathlib import Path
from typing import Any

import pytest
from chatkit.types import WidgetItem
from chatkit.widgets import Card

from app import assistant
from app.context import context_for, owner_of

from . import reading
from .serving import Caller, message, thread_of
from .talking import talking
from .values import NOON, file

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


async def fill(caller: Caller) -> tuple[str, str, str]:
    """Give the first user a thread, messages, a widget, feedback and a file; return their ids."""
    thread_id = thread_of(await caller.say("private words"))
    store, context = caller.served.store, await caller.served.first_user()
    base = {"thread_id": thread_id, "created_at": NOON}
    widget = WidgetItem(id="msg_widget", **base, widget=Card(children=[]))
    await store.add_thread_item(thread_id, widget, context)
    await store.save_attachment(file("atc_private"), context)
    await store.save_feedback(thread_id, ["msg_widget"], "positive", context)
    return thread_id, "msg_widget", "atc_private"


async def test_nothing_of_another_user_is_seen_changed_or_confirmed(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each answer equals, byte by byte, the one for an id that nobody has."""
    for actions in (assistant.ACTIONS, assistant.SYNC_ACTIONS):
        monkeypatch.setitem(actions, "press", None)
    async with talking(store_url, tmp_path) as alice, alice.served.caller() as mallory:
        ids = await fill(alice)
        store, owner = alice.served.store, await alice.served.first_user()
        await mallory.op("threads.list")
        mallory.headers["X-Request-ID"] = "same"
        before = await reading.export(store, owner)
        nobody = ("thr_nobody", "msg_nobody", "atc_nobody")
        for foreign, unknown in zip(operations(*ids), operations(*nobody), strict=True):
            answers = [await mallory.op(kind, **params) for kind, params in (foreign, unknown)]
            assert answers[0].status_code == answers[1].status_code, foreign
            assert answers[0].status_code != 403
            assert answers[0].content == answers[1].content, foreign
            assert "private" not in answers[0].text
        assert await reading.export(store, owner) == before


async def test_users_with_the_same_ids_have_their_own_data(store_url: str, tmp_path: Path) -> None:
    """One user deletes the thread whose id both have; the other's stays as it was."""
    async with talking(store_url, tmp_path) as alice, alice.served.caller() as bob:
        thread_id, *_ = await fill(alice)
        store, owner = alice.served.store, await alice.served.first_user()
        bobs = thread_of(await bob.say("hello"))
        names = [name async for name in store.owners()]
        (other,) = (context_for(name) for name in names if name != owner_of(owner))
        thread = await store.load_thread(bobs, other)
        thread.id = thread_id
        await store.save_thread(thread, other)
        before = await reading.export(store, owner)
        assert (await bob.op("threads.get_by_id", thread_id=thread_id)).status_code == 200
        await bob.say("mine", thread_id)
        await bob.op("threads.delete", thread_id=thread_id)
        assert await reading.export(store, owner) == before
        assert (await bob.op("threads.get_by_id", thread_id=thread_id)).status_code == 404
