"""A thread beside its answers, over real HTTP: its title, its lock, its end."""

from pathlib import Path

import pytest
from chatkit.types import LockedStatus

from app.context import context_for

from .serving import Words, begun, message, serving, settings_for, thread_of

pytestmark = pytest.mark.anyio


async def test_a_thread_deleted_during_its_answer_stays_deleted(
    store_url: str, tmp_path: Path
) -> None:
    """The SDK saves its stale copy after the answer; the tombstone refuses it, quietly."""
    async with serving(settings_for(store_url, tmp_path), Words(40)) as served:
        async with served.caller() as caller:
            kind, params = message("hello")
            async with caller.events(kind, **params) as events:
                thread_id = thread_of([await anext(events)])
                assert (await caller.op("threads.delete", thread_id=thread_id)).status_code == 200
                seen = [event async for event in events]
            assert "error" not in [event["type"] for event in seen]
            assert (await caller.op("threads.get_by_id", thread_id=thread_id)).status_code == 404
            assert (await caller.op("threads.list")).json()["data"] == []


async def test_a_thread_that_another_worker_deletes_ends_its_answer_quietly(
    store_url: str, tmp_path: Path
) -> None:
    """Nobody stops the answer here; its next write meets the tombstone."""
    async with serving(settings_for(store_url, tmp_path), Words(40)) as served:
        async with served.caller() as caller:
            async with begun(caller, "hello") as (thread_id, events):
                store = served.app.state.store
                owner = await anext(store.owners())
                await store.delete_thread(thread_id, context_for(owner))
                seen = [event["type"] async for event in events]
            assert "error" not in seen
            assert (await caller.op("threads.list")).json()["data"] == []


async def test_a_title_changed_during_an_answer_stays(store_url: str, tmp_path: Path) -> None:
    """The app never changes the SDK's copy of the thread, so nothing overwrites the new title."""
    async with serving(settings_for(store_url, tmp_path), Words(40)) as served:
        async with served.caller() as caller:
            async with begun(caller, "hello there") as (thread_id, events):
                await caller.op("threads.update", thread_id=thread_id, title="Mine")
                assert [event async for event in events]
            answer = await caller.op("threads.get_by_id", thread_id=thread_id)
            assert answer.json()["title"] == "Mine"


async def test_the_first_message_names_the_thread(store_url: str, tmp_path: Path) -> None:
    """The title is cut at a word, and the page hears of it during the answer."""
    text = "Tell me everything about the history of chat servers and their stores, please"
    async with serving(settings_for(store_url, tmp_path), Words(3)) as served:
        async with served.caller() as caller:
            events = await caller.say(text)
            title = (await caller.op("threads.get_by_id", thread_id=thread_of(events))).json()[
                "title"
            ]
    updates = [event for event in events if event["type"] == "thread.updated"]
    assert [update["thread"]["title"] for update in updates] == [title]
    assert len(title) <= 60
    assert text.startswith(title.rstrip("…").rstrip())


async def test_a_locked_thread_takes_no_message(store_url: str, tmp_path: Path) -> None:
    """The SDK does not look at a thread's status; the app does, and gives the reason."""
    async with serving(settings_for(store_url, tmp_path), Words(3)) as served:
        async with served.caller() as caller:
            thread_id = thread_of(await caller.say("hello"))
            store = served.app.state.store
            owner = await anext(store.owners())
            thread = await store.load_thread(thread_id, context_for(owner))
            thread.status = LockedStatus(reason="Under review.")
            await store.save_thread(thread, context_for(owner))
            kind, params = message("again", thread_id)
            answer = await caller.op(kind, **params)
            assert (answer.status_code, answer.json()["error"]["message"]) == (409, "Under review.")
            assert len(await caller.items(thread_id)) == 2
