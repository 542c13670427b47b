"""Rounds against real processes on each engine: stops, SIGTERM, hostile requests.

A few of each run here, the long rounds with `make test-full`.
"""

import asyncio
import json
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import httpx2
import pytest

from baked import STORAGES, BakedProject, Session, message
from users import TOKEN, Browser, browser, complete, read_to_the_end, terminate

pytestmark = pytest.mark.product
OPEN = {"REQUESTS_PER_MINUTE": "1000000", "TURNS_PER_USER": "1000", "METRICS_TOKEN": TOKEN}
ALONE = OPEN | {"DATA_DIR": ".data/alone"}  # `served` may still have the usual one
few_or_many = pytest.mark.parametrize(
    "rounds", [pytest.param(5, id="few"), pytest.param(100, id="many", marks=pytest.mark.full)]
)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=pytest.mark.xdist_group(f"rounds-{name}")) for name in STORAGES
    ],
)
def project(request: pytest.FixtureRequest, bake: Callable[..., BakedProject]) -> BakedProject:
    """Bake an app on one engine, and make its environment."""
    baked = bake(storage_type=request.param, context_type="dict")
    baked.check("uv", "sync", "--quiet")
    return baked


@pytest.fixture(scope="module", params=["as it is", "slowed by 50 ms an operation"])
def served(request: pytest.FixtureRequest, project: BakedProject) -> Iterator[Session]:
    """Run the app in a process of its own."""
    command = ["uv", "run", "python", "-m", "app"]
    if request.param != "as it is":
        shutil.copy(Path(__file__).with_name("slowed.py"), project.path)
        command[3:] = ["slowed.py"]
    with project.serve(*command, **OPEN) as session:
        yield session


@few_or_many
def test_every_stop_keeps_what_was_received(served: Session, rounds: int) -> None:
    """What is stored begins with all that was received, and the model's run has ended."""

    async def run() -> None:
        chance = random.Random(rounds)
        async with browser(served) as user:
            before = (await user.settled()).get("stopped", 0)
            thread_id: str | None = None
            for stops in range(1, rounds + 1):
                thread_id, received = await user.stopped_after(chance.randint(1, 20), thread_id)
                assert (await user.settled())["stopped"] == before + stops
                assert (await user.answers(thread_id))[-1].startswith(received)

    complete(run())


@few_or_many
def test_a_message_right_after_each_stop_is_answered(served: Session, rounds: int) -> None:
    """Stop, then type at once: the next answer comes, and the partial one stays before it."""

    async def run() -> None:
        async with browser(served) as user:
            for _ in range(max(rounds // 5, 2)):
                thread_id, received = await user.stopped_after(5, None)
                async with user.talk("And now?", thread_id) as events:
                    kinds = [event["type"] async for event in events]
                assert kinds.count("thread.item.done") == 2
                partial, whole = await user.answers(thread_id)
                assert partial.startswith(received)
                assert whole.startswith("I am the offline model")

    complete(run())


@few_or_many
def test_a_stop_in_the_final_write_leaves_the_whole_answer(served: Session, rounds: int) -> None:
    """Once the text is complete, a partial one never replaces it."""

    async def run() -> None:
        async with browser(served) as user:
            for count in range(rounds):
                whole, thread_id = "", ""
                async with user.talk("Hello.", None) as events:
                    async for event in events:
                        thread_id = event.get("thread", {}).get("id") or thread_id
                        update = event.get("update", {})
                        if update.get("type") == "assistant_message.content_part.done":
                            whole = update["content"]["text"]
                            await asyncio.sleep(count % 10 / 200)
                            break
                await user.settled()
                assert await user.answers(thread_id) == [whole]

    complete(run())


def test_sigterm_with_fifty_streams_open_keeps_them_all(project: BakedProject) -> None:
    """After a restart each of fifty users finds what was received (memory forgets by design)."""

    async def talk(session: Session) -> list[tuple[httpx2.Cookies, str, str]]:
        begun = [asyncio.Semaphore(0) for _ in range(50)]
        tasks = [asyncio.create_task(read_to_the_end(session, one)) for one in begun]
        async with asyncio.timeout(60):
            for one in begun:
                await one.acquire()
        terminate(session)
        return await asyncio.gather(*tasks)

    async def look(session: Session) -> None:
        for cookies, thread_id, received in kept:
            async with browser(session) as user:
                user.cookies = cookies
                assert (await user.answers(thread_id))[-1].startswith(received)

    command = ("uv", "run", "python", "-m", "app")
    with project.serve(*command, **ALONE, SHUTDOWN_SECONDS="0.5") as session:
        kept = complete(talk(session))
    assert len(kept) == 50
    assert all(thread_id and received for _, thread_id, received in kept)
    if project.answers["storage_type"] != "memory":
        with project.serve(*command, **ALONE) as session:
            complete(look(session))


HASTY = """
import sys
from app.__main__ import main
from app.offline import OfflineModel

OfflineModel.__init__.__defaults__ = (0.001,)  # seconds between its words
sys.exit(main([]))
"""
LEAVES: list[object] = [
    "", "\0", "thr_x", "../..", "x" * 5000, "\u202e", "🚀", 0, -1, 10**19, 1.5, 1e308, True, None,
    [], {}, [[]], {"a": {"b": {"c": [1, None, "\0"]}}}, ["\0"] * 50,
]  # fmt: skip
DEEP = "[" * 400 + "]" * 400


def hostile(chance: random.Random, known: dict[str, str]) -> bytes:
    """Return a valid operation with one or more of its leaves replaced."""
    user_input = message("hi")
    thread, item = {"thread_id": known["thread"]}, {"item_id": known["item"]}
    action = {"type": "clock.again", "payload": {"zone": "UTC"}}
    operations: list[tuple[str, dict[str, Any]]] = [
        ("threads.get_by_id", thread),
        ("threads.list", {"limit": 5, "order": "asc", "after": known["thread"]}),
        ("threads.update", thread | {"title": "t"}),
        ("threads.delete", thread),
        ("threads.create", {"input": user_input}),
        ("threads.add_user_message", thread | {"input": user_input}),
        ("threads.add_client_tool_output", thread | {"result": 1}),
        ("threads.add_structured_input", thread | item | {"input": {"answers": {}}}),
        ("threads.retry_after_item", thread | item),
        ("threads.custom_action", thread | item | {"action": action}),
        ("threads.sync_custom_action", thread | item | {"action": action}),
        ("items.list", thread | {"limit": 5, "order": "desc", "after": known["item"]}),
        ("items.feedback", thread | {"item_ids": [known["item"]], "kind": "positive"}),
        ("attachments.create", {"name": "a.txt", "size": 3, "mime_type": "text/plain"}),
        ("attachments.delete", {"attachment_id": known["item"]}),
        ("input.transcribe", {"audio_base64": "AAAA", "mime_type": "audio/webm"}),
    ]
    kind, params = chance.choice(operations)
    params = json.loads(json.dumps(params))
    for _ in range(chance.randint(1, 2)):
        node: Any = params
        while True:
            keys = list(node) if isinstance(node, dict) else list(range(len(node)))
            if not keys:
                break
            key = chance.choice(keys)
            if isinstance(node[key], dict | list) and chance.random() < 0.7:
                node = node[key]
                continue
            node[key] = deepcopy(chance.choice(LEAVES))
            break
    body = json.dumps({"type": kind, "params": params, "metadata": {}})
    if chance.random() < 0.05:
        body = body.replace('"hi"', DEEP).replace('"t"', r'"\ud800"')
    return body.encode()


@few_or_many
def test_hostile_requests_are_refused_and_change_nothing(
    project: BakedProject, rounds: int
) -> None:
    """Valid operations with hostile leaves, on the user's own threads and another user's.

    No 5xx but 501; a refused request changes nothing; the other user's data stay as they are.
    """

    async def talked(user: Browser) -> dict[str, str]:
        """Return the ids of a new thread and of its first item."""
        thread_id, _ = await user.stopped_after(3, None)
        await user.settled()  # after a stop it takes a moment to store what was said
        items = (await user.op("items.list", thread_id=thread_id, order="asc")).json()["data"]
        return {"thread": thread_id, "item": items[0]["id"]}

    async def run(session: Session) -> dict[int, int]:
        chance, statuses = random.Random(rounds), Counter[int]()
        headers = {"Content-Type": "application/json"}
        async with browser(session) as victim, browser(session) as attacker:

            async def seen(user: Browser, known: dict[str, str]) -> httpx2.Response:
                return await user.op("threads.get_by_id", thread_id=known["thread"])

            theirs, own = await talked(victim), await talked(attacker)
            before = (await seen(victim, theirs)).content
            for _ in range(rounds * 20):
                state = await seen(attacker, own)
                if state.status_code == 404:  # an operation has deleted it
                    own = await talked(attacker)
                    state = await seen(attacker, own)
                body = hostile(chance, chance.choice((theirs, own)))
                answer = await attacker.post("/chatkit", content=body, headers=headers)
                statuses[answer.status_code] += 1
                assert answer.status_code < 500 or answer.status_code == 501, (body, answer.text)
                if answer.status_code >= 400:
                    assert set(answer.json()["error"]) == {"code", "message", "request_id"}
                    assert (await seen(attacker, own)).content == state.content, body
            assert (await seen(victim, theirs)).content == before
        return statuses

    with project.serve("uv", "run", "python", "-c", HASTY, **ALONE) as session:
        statuses = complete(run(session))
    assert {200, 400, 404} <= set(statuses)
