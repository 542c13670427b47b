"""The Store's contract: many at once, in one process and in several, lose nothing."""

import asyncio
import random
import sys
from collections.abc import Awaitable, Iterable

import pytest
from chatkit.store import NotFoundError

from app.store import ChatStore as Store

from . import reading
from .engine import SHARED
from .values import ALICE, BOB, file, message, thread

pytestmark = pytest.mark.anyio
HUNDRED = [f"i{n}" for n in range(100)]
ADDER = """
import asyncio, sys
from app.store import ChatStore as Store
from tests.values import ALICE, message

async def add(url, first):
    async with Store.open(url) as store:
        print("ready", flush=True)
        sys.stdin.readline()
        for ten in range(int(first), int(first) + 50, 10):
            items = (message(f"i{n}") for n in range(ten, ten + 10))
            await asyncio.gather(*(store.add_thread_item("t", item, ALICE) for item in items))

asyncio.run(add(*sys.argv[1:]))
"""


@pytest.fixture
async def both(store: Store, neighbour: Store) -> tuple[Store, Store]:
    """Return two stores on the same data, in which Alice has the empty thread `t`."""
    await store.save_thread(thread(), ALICE)
    return store, neighbour


async def at_once(calls: Iterable[Awaitable[object]]) -> list[object]:
    """Return what each call answers, NotFoundError included; raise any other error."""
    async with asyncio.timeout(30):
        answers = await asyncio.gather(*calls, return_exceptions=True)
    for each in answers:
        if isinstance(each, BaseException) and not isinstance(each, NotFoundError):
            raise each
    return list(answers)


async def test_a_hundred_adds_at_once_are_all_there(both: tuple[Store, Store]) -> None:
    await at_once(both[n % 2].add_thread_item("t", message(f"i{n}"), ALICE) for n in range(100))
    walked = await reading.items(both[0], ALICE)
    assert sorted(walked) == sorted(HUNDRED)
    assert await reading.items(both[1], ALICE) == walked
    assert await reading.items(both[1], ALICE, order="desc") == walked[::-1]


if SHARED:  # other data end with their process

    async def test_a_hundred_adds_from_two_processes_are_all_there(
        both: tuple[Store, Store], store_url: str, pytestconfig: pytest.Config
    ) -> None:
        command, pipe = (sys.executable, "-c", ADDER, store_url), asyncio.subprocess.PIPE
        adders = [
            await asyncio.create_subprocess_exec(
                *command, first, cwd=pytestconfig.rootpath, stdin=pipe, stdout=pipe
            )
            for first in ("0", "50")
        ]
        for adder in adders:
            assert adder.stdout
            assert await adder.stdout.readline()
        await asyncio.gather(*(adder.communicate(b"go\n") for adder in adders))
        assert [adder.returncode for adder in adders] == [0, 0]
        assert sorted(await reading.items(both[0], ALICE)) == sorted(HUNDRED)


async def test_a_hundred_threads_at_once_are_all_there(both: tuple[Store, Store]) -> None:
    await at_once(both[n % 2].save_thread(thread(i), BOB) for n, i in enumerate(HUNDRED))
    walked = await reading.threads(both[0], BOB)
    assert sorted(walked) == sorted(HUNDRED)
    assert await reading.threads(both[1], BOB, order="desc") == walked[::-1]


async def test_one_id_added_many_times_at_once_is_one_item(both: tuple[Store, Store]) -> None:
    await at_once(both[n % 2].add_thread_item("t", message("a", str(n)), ALICE) for n in range(30))
    assert await reading.items(both[0], ALICE) == ["a"]


async def test_one_thread_saved_many_times_at_once_is_one_thread(both: tuple[Store, Store]) -> None:
    await at_once(both[n % 2].save_thread(thread("u", title=str(n)), ALICE) for n in range(30))
    assert await reading.threads(both[0], ALICE) == ["t", "u"]


async def test_what_was_acknowledged_is_there_for_the_neighbour_at_once(
    both: tuple[Store, Store],
) -> None:
    for n in range(20):
        writer, reader = both if n % 2 else both[::-1]
        await writer.add_thread_item("t", message(f"i{n}"), ALICE)
        assert await reader.load_item("t", f"i{n}", ALICE) == message(f"i{n}")
        assert (await reader.load_thread_items("t", None, 1, "desc", ALICE)).data[0].id == f"i{n}"


async def test_a_reader_at_the_tail_of_twelve_writers_misses_nothing(
    both: tuple[Store, Store],
) -> None:
    """An item that commits late must not appear before what the reader has already seen."""
    writers_ended = asyncio.Event()

    async def write(name: int) -> None:
        text = "x" if name % 4 else random.Random(name).randbytes(20_000).hex()  # some take longer
        for n in range(30):
            await both[name % 2].add_thread_item("t", message(f"w{name}-{n}", text), ALICE)

    async def follow(reader: Store) -> list[str]:
        seen: list[str] = []
        while True:
            ended = writers_ended.is_set()
            after = seen[-1] if seen else None
            page = await reader.load_thread_items("t", after, 100, "asc", ALICE)
            seen += reading.ids(page)
            if ended and not page.data:
                return seen
            await asyncio.sleep(0)

    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        readers = [tasks.create_task(follow(each)) for each in both]
        await asyncio.gather(*(write(name) for name in range(12)))
        writers_ended.set()
    stored = await reading.items(both[0], ALICE)
    assert len(stored) == 12 * 30
    assert [reader.result() for reader in readers] == [stored, stored]


async def test_a_walk_beside_writers_gives_what_was_there_once(both: tuple[Store, Store]) -> None:
    for item_id in HUNDRED[:40]:
        await both[0].add_thread_item("t", message(item_id), ALICE)
    adds = (both[0].add_thread_item("t", message(i), ALICE) for i in HUNDRED[40:])
    walks = asyncio.gather(
        reading.items(both[1], ALICE, limit=3),
        reading.items(both[1], ALICE, limit=3, order="desc"),
    )
    (forward, backward), _ = await asyncio.gather(walks, at_once(adds))
    assert forward[:40] == HUNDRED[:40]
    assert backward[-40:] == HUNDRED[:40][::-1]


async def test_adds_that_race_a_delete_leave_no_orphan(both: tuple[Store, Store]) -> None:
    for n in range(10):
        thread_id = f"r{n}"
        await both[0].save_thread(thread(thread_id), ALICE)
        calls: list[Awaitable[object]] = [
            call
            for k in range(8)
            for call in (
                both[k % 2].add_thread_item(thread_id, message(f"i{k}"), ALICE),
                both[k % 2].save_attachment(file(f"f{n}-{k}", thread_id), ALICE),
                both[k % 2].save_thread(thread(thread_id), ALICE),
                both[k % 2].claim_turn(thread_id, f"turn{k}", ALICE),
            )
        ]
        calls.insert(2 * n, both[n % 2].delete_thread(thread_id, ALICE))
        await at_once(calls)
        assert await both[1].load_attachments(None, ALICE) == []
        assert await reading.threads(both[1], ALICE) == ["t"]
        await both[0].undelete_thread(thread_id, ALICE)
        await both[0].save_thread(thread(thread_id), ALICE)
        assert await reading.items(both[1], ALICE, thread_id=thread_id) == []
        assert await both[0].claim_turn(thread_id, "later", ALICE)
        await both[0].delete_thread(thread_id, ALICE)


async def test_a_thread_saved_meanwhile_is_missing_or_free(both: tuple[Store, Store]) -> None:
    """No claim hears that another turn holds it, no attachment that it is in another thread."""
    for n in range(5):
        answers = await at_once(
            [
                both[0].save_thread(thread(f"before{n}"), ALICE),  # the others wait for it
                both[0].claim_turn(f"n{n}", "turn", ALICE),
                both[0].save_attachment(file("f", f"n{n}"), ALICE),
                both[0].save_thread(thread(f"n{n}"), ALICE),
            ]
        )
        assert False not in answers
        await both[1].delete_thread(f"n{n}", ALICE)


async def test_feedback_that_races_a_delete_leaves_no_orphan(both: tuple[Store, Store]) -> None:
    ids = HUNDRED[:20]
    for item_id in ids:
        await both[0].add_thread_item("t", message(item_id), ALICE)
    calls: list[Awaitable[object]] = [
        call
        for item_id in ids
        for call in (
            both[0].save_feedback("t", [item_id, "i0"], "positive", ALICE),
            both[1].delete_thread_item("t", item_id, ALICE),
        )
    ]
    await at_once(calls)
    assert await both[0].load_feedback("t", ALICE) == {}


async def test_only_one_of_many_claims_at_once_is_granted(both: tuple[Store, Store]) -> None:
    for _ in range(5):
        turns = [f"turn{n}" for n in range(16)]
        won = await at_once(both[n % 2].claim_turn("t", turns[n], ALICE) for n in range(16))
        assert won.count(True) == 1
        await both[0].release_turn("t", turns[won.index(True)], ALICE)


async def test_only_one_of_many_titles_at_once_is_set(both: tuple[Store, Store]) -> None:
    old = "About t"
    for n in range(5):
        titles = [f"{n}-{k}" for k in range(16)]
        won = await at_once(
            both[k % 2].set_title_if_unchanged("t", old, title, ALICE)
            for k, title in enumerate(titles)
        )
        assert won.count(True) == 1
        old = titles[won.index(True)]
        assert (await both[1].load_thread("t", ALICE)).title == old


async def test_an_attachment_that_many_threads_take_at_once_goes_to_one(
    both: tuple[Store, Store],
) -> None:
    places = [f"p{n}" for n in range(8)]
    for place in places:
        await both[0].save_thread(thread(place), ALICE)
    await both[0].save_attachment(file("f"), ALICE)
    answers = await asyncio.gather(
        *(both[n % 2].save_attachment(file("f", p), ALICE) for n, p in enumerate(places)),
        return_exceptions=True,
    )
    assert answers.count(None) == 1
    taken = places[answers.index(None)]
    assert await both[1].load_attachments(None, ALICE) == [file("f", taken)]
    assert {type(each) for each in answers if each} == {ValueError}


async def test_all_kinds_of_writes_at_once_never_make_each_other_fail(
    both: tuple[Store, Store],
) -> None:
    """No deadlock, no serialization failure, no lock timeout reaches a caller."""
    dice = random.Random(7)
    ids = ["x", "y", "z"]

    async def work(store: Store) -> None:
        for _ in range(12):
            one, two = dice.sample(ids, 2)
            context = dice.choice([ALICE, BOB])
            await at_once(
                [
                    store.save_thread(thread(one), context),
                    store.add_thread_item(two, message(one), context),
                    store.save_item(one, message(two), context),
                    store.delete_thread_item(one, two, context),
                    store.save_feedback(two, [one], "positive", context),
                    store.claim_turn(one, two, context),
                    store.set_title_if_unchanged(two, f"About {two}", "New", context),
                    store.save_attachment(file(f"{one}{dice.random()}", one), context),
                ]
            )
            if dice.random() < 0.3:
                await at_once(
                    [store.delete_thread(two, context), store.undelete_thread(two, context)]
                )

    await asyncio.gather(*(work(both[n % 2]) for n in range(4)))
    for context in (ALICE, BOB):
        threads = {*await reading.threads(both[0], context), None}
        attached = await both[0].load_attachments(None, context)
        assert {each.thread_id for each in attached} <= threads


async def test_several_stores_may_open_at_once(store_url: str) -> None:
    """Ten replicas start together on an engine that is still empty."""

    async def start() -> None:
        async with Store.open(store_url) as store:
            await store.ping()
            await store.save_thread(thread(), ALICE)

    await asyncio.gather(*(start() for _ in range(10)))
