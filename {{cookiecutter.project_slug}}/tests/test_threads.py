"""A thread beside its answers, over real HTTP: its title, its lock, its end."""

import asyncio
import inspect
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from agents import function_tool
from agents.testing import ScriptedModel, assistant_message, function_call
from chatkit.types import ClosedStatus, LockedStatus
from pydantic import TypeAdapter

from app import assistant
from app.store import ChatStore

from .model_server import Fault, Pause, model_server
from .sending import address, sent
from .serving import Words, begun, created, message, text_of, thread_of
from .talking import Chat, asking, talking, tools

pytestmark = pytest.mark.anyio


async def test_a_thread_deleted_during_its_answer_stays_deleted(
    store_url: str, tmp_path: Path
) -> None:
    """The SDK saves its stale copy after the answer; the tombstone quietly refuses it."""
    async with talking(store_url, tmp_path, Words(200)) as caller:
        async with begun(caller, "hello") as (thread_id, events):
            assert (await caller.op("threads.delete", thread_id=thread_id)).status_code == 200
            seen = [event async for event in events]
        assert "error" not in [event["type"] for event in seen]
        assert "w199" not in text_of(seen), "the model goes on, and is paid for"
        assert (await caller.op("threads.get_by_id", thread_id=thread_id)).status_code == 404
        assert (await caller.op("threads.list")).json()["data"] == []


async def test_a_thread_that_another_worker_deletes_ends_its_answer_quietly(
    store_url: str, tmp_path: Path
) -> None:
    """Nothing stops the answer here until its next write meets the tombstone."""
    async with talking(store_url, tmp_path, Words(40)) as caller:
        async with begun(caller, "hello") as (thread_id, events):
            await caller.served.store.delete_thread(thread_id, await caller.served.first_user())
            seen = [event["type"] async for event in events]
        assert "error" not in seen
        assert (await caller.op("threads.list")).json()["data"] == []


async def test_a_refused_first_message_leaves_no_thread(store_url: str, tmp_path: Path) -> None:
    """If several new threads want the same file, one gets it."""
    async with talking(store_url, tmp_path) as caller:
        file = (await sent(caller, b"x", "a.txt"))["id"]
        answers = await asyncio.gather(*(caller.ask("look", attachments=[file]) for _ in range(4)))
        assert min(answer.status_code for answer in answers) == 200
        assert len((await caller.op("threads.list")).json()["data"]) == 1


async def test_a_first_message_that_fails_can_be_sent_again_with_its_file(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of the thread stays; the file does."""

    async def away(*_: object, **__: object) -> None:
        raise OSError

    async with talking(store_url, tmp_path) as caller:
        file = (await sent(caller, b"x", "a.txt"))["id"]
        with monkeypatch.context() as broken:
            broken.setattr(caller.served.store, "add_thread_item", away)
            assert (await caller.ask("look", attachments=[file])).status_code == 503
        assert (await caller.op("threads.list")).json()["data"] == []
        thread_id = thread_of(await caller.say("look", attachments=[file]))
        assert (await caller.items(thread_id))[0]["attachments"][0]["id"] == file
        assert (await caller.get(await address(caller, file))).content == b"x"


async def test_an_item_that_cannot_be_read_is_the_servers_fault(
    store_url: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A newer app may have written it: a 503, and the log says why without quoting it."""
    async with talking(store_url, tmp_path, Words(3)) as caller:
        thread_id = thread_of(await caller.say("hello"))

        async def unreadable(*_: object, **__: object) -> None:
            TypeAdapter(int).validate_json('"what was said"')

        monkeypatch.setattr(caller.served.store, "load_thread_items", unreadable)
        answer = await caller.op("items.list", thread_id=thread_id)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")
    assert [vars(r)["cause"] for r in caplog.records if r.message == "unavailable"] == [
        "ValidationError"
    ]
    assert "what was said" not in caplog.text


async def test_the_first_message_names_the_thread(store_url: str, tmp_path: Path) -> None:
    """The title is cut at a word, and the page hears of it during the answer."""
    text = "Tell me everything about the history of chat servers and their stores, please"
    async with talking(store_url, tmp_path, Words(3)) as caller:
        events = await caller.say(text)
        title = (await caller.op("threads.get_by_id", thread_id=thread_of(events))).json()["title"]
    updates = [event for event in events if event["type"] == "thread.updated"]
    assert [update["thread"]["title"] for update in updates] == [title]
    assert title == "Tell me everything about the history of chat servers and…"
    kinds = [event["type"] for event in events]
    assert kinds.index("thread.updated") < kinds.index("thread.item.added"), "it came too late"


async def test_a_title_stays_when_a_tool_changes_the_thread(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The SDK then saves its own copy, which has neither the first title nor a new one."""

    @function_tool
    async def noting(ctx: Chat) -> str:
        """Keep something with the thread."""
        thread = ctx.context.thread
        thread.metadata["seen"] = thread.metadata.get("seen", 0) + 1
        if thread.metadata["seen"] == 2:  # meanwhile the user changes the title
            await caller.op("threads.update", thread_id=thread.id, title="Mine")
        return "noted"

    tools(monkeypatch, noting)
    call = function_call("noting", {}, call_id="c", item_id="f")
    steps = [[call], [assistant_message("one", item_id="1")]]
    model = ScriptedModel([*steps, [call], [assistant_message("two", item_id="2")]])
    async with talking(store_url, tmp_path, model) as caller:
        thread_id = thread_of(await caller.say("My first words"))
        thread = (await caller.op("threads.get_by_id", thread_id=thread_id)).json()
        assert thread["title"] == "My first words"
        events = await caller.say("on", thread_id)
        thread = (await caller.op("threads.get_by_id", thread_id=thread_id)).json()
    assert thread["title"] == "Mine"
    assert [e["thread"]["title"] for e in events if e["type"] == "thread.updated"] == ["Mine"]


async def test_a_title_changed_meanwhile_stays_when_the_model_finds_one(
    store_url: str, tmp_path: Path
) -> None:
    """Neither the SDK's copy of the thread nor TITLE_MODEL's answer overwrites it."""
    with model_server(Pause("hello", 0.3), "A better title") as server:
        async with asking(store_url, tmp_path, server, title_model="titles") as caller:
            async with begun(caller, "hello there") as (thread_id, events):
                await caller.op("threads.update", thread_id=thread_id, title="Mine")
                assert [event async for event in events]
            answer = await caller.op("threads.get_by_id", thread_id=thread_id)
    assert answer.json()["title"] == "Mine"
    assert server.given[-1]["model"] == "titles"


async def test_an_answer_stands_even_if_no_title_is_found(store_url: str, tmp_path: Path) -> None:
    """The thread keeps its first title."""
    with model_server("hello", Fault(400)) as server:
        async with asking(store_url, tmp_path, server, title_model="titles") as caller:
            events = await caller.say("hello there")
            answer = await caller.op("threads.get_by_id", thread_id=thread_of(events))
    assert [event["type"] for event in events][-1] == "thread.item.done"
    assert (answer.json()["title"], len(server.given)) == ("hello there", 2)


async def test_a_message_right_after_the_answer_does_not_wait_for_a_title(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long TITLE_MODEL takes; the list of threads shows its title later."""
    looking, thought = asyncio.Event(), asyncio.Event()

    async def slowly(*_: object) -> str:
        looking.set()
        await thought.wait()
        return "Late"

    monkeypatch.setattr("app.server.title_by_model", slowly)
    monkeypatch.setattr("app.server.CLAIM_SECONDS", 0.4)
    async with talking(store_url, tmp_path, Words(3), title_model="titles") as caller:
        async with created(caller, "hello") as (thread_id, _):
            await looking.wait()
            assert text_of(await caller.say("and?", thread_id)) == "w0 w1 w2"
        thought.set()
        await asyncio.gather(*caller.served.app.state.server._naming)
        answer = await caller.op("threads.get_by_id", thread_id=thread_id)
    assert answer.json()["title"] == "Late"


@pytest.mark.parametrize("pages", [1, 2])
async def test_a_retry_that_is_stopped_before_it_begins_changes_nothing(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pages: int
) -> None:
    """Stopped while the app or the SDK collects what it replaces; the model hears of no stop."""
    model, read, asked = Words(2, 0), [], asyncio.Event()
    async with talking(store_url, tmp_path, model) as caller:
        thread_id = thread_of(await caller.say("go"))
        place = {"thread_id": thread_id, "item_id": (await caller.items(thread_id))[0]["id"]}
        load = caller.served.store.load_thread_items

        async def slowly(*window: Any, **named: Any) -> Any:
            read.append(window)
            if len(read) == pages:
                asked.set()
                await asyncio.sleep(5)
            return await load(*window, **named)

        monkeypatch.setattr(caller.served.store, "load_thread_items", slowly)
        retry = asyncio.create_task(caller.op("threads.retry_after_item", **place))
        await asked.wait()
        assert (await caller.post(f"/threads/{thread_id}/stop")).json() == {"stopped": True}
        assert (await retry).json()["error"]["code"] == "stopped"
        await caller.say("and?", thread_id)
    assert [item["content"] for item in model.given[-1]] == ["go", "w0 w1", "and?"]


async def test_a_thumb_is_stored_and_logged(
    store_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The newest thumb on an answer counts."""
    caplog.set_level("INFO", "app.server")
    async with talking(store_url, tmp_path, Words(3)) as caller:
        thread_id = thread_of(await caller.say("hello"))
        item_id = (await caller.items(thread_id))[1]["id"]
        thumb = {"thread_id": thread_id, "item_ids": [item_id]}
        for kind in ("positive", "negative"):
            assert (await caller.op("items.feedback", **thumb, kind=kind)).status_code == 200
        context = await caller.served.first_user()
        stored = await caller.served.store.load_feedback(thread_id, context)
    assert stored == {item_id: "negative"}
    logged = [vars(record) for record in caplog.records if record.message == "feedback"]
    assert [(each["items"], each["kind"]) for each in logged] == [
        ([item_id], "positive"),
        ([item_id], "negative"),
    ]


async def test_a_turn_asks_the_store_as_often_in_a_long_thread_as_in_a_short_one(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """300 items and 30; renewals of the lease depend on time and are not counted."""
    counts = Counter[str]()

    def counted(name: str, method: Any) -> Any:
        async def call(*args: Any, **kwargs: Any) -> Any:
            counts[name] += 1
            return await method(*args, **kwargs)

        return call

    for name, method in inspect.getmembers(ChatStore, inspect.iscoroutinefunction):
        if name[0] != "_" and name != "renew_turn":
            monkeypatch.setattr(ChatStore, name, counted(name, method))
    asked = []
    async with talking(store_url, tmp_path, Words(3)) as caller:
        thread_id = thread_of(await caller.say("hello"))
        store, context = caller.served.store, await caller.served.first_user()
        said = await store.load_item(thread_id, (await caller.items(thread_id))[1]["id"], context)
        for first, last in ((0, 30), (30, 300)):
            for number in range(first, last):
                item = said.model_copy(update={"id": f"msg_{number}"})
                await store.add_thread_item(thread_id, item, context)
            counts.clear()
            await caller.say("and now", thread_id)
            asked.append(dict(counts))
    assert asked[0] == asked[1]
    assert asked[0]["add_thread_item"]


@pytest.mark.parametrize("status", [LockedStatus, ClosedStatus])
async def test_a_locked_thread_takes_no_message(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: Any
) -> None:
    """Nor anything else that is answered. The SDK ignores the status; the app says why."""
    for actions in (assistant.ACTIONS, assistant.SYNC_ACTIONS):
        monkeypatch.setitem(actions, "press", None)
    async with talking(store_url, tmp_path, Words(3)) as caller:
        thread_id = thread_of(await caller.say("hello"))
        store, context = caller.served.store, await caller.served.first_user()
        thread = await store.load_thread(thread_id, context)
        thread.status = status(reason="Under review.")
        await store.save_thread(thread, context)
        items = await caller.items(thread_id)
        place = {"thread_id": thread_id, "item_id": items[0]["id"]}
        for kind, params in (
            message("again", thread_id),
            ("threads.retry_after_item", place),
            ("threads.add_client_tool_output", {"thread_id": thread_id, "result": 1}),
            ("threads.add_structured_input", place | {"input": {"answers": {}}}),
            ("threads.custom_action", place | {"action": {"type": "press"}}),
            ("threads.sync_custom_action", place | {"action": {"type": "press"}}),
        ):
            refused = await caller.op(kind, **params)
            assert refused.status_code == 409, kind
            assert refused.json()["error"]["message"] == "Under review."
        assert await caller.items(thread_id) == items
