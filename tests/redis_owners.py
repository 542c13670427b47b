"""The list of owners that the Redis store keeps: for `test_cluster.py`."""

import asyncio
import time

import pytest
from redis import exceptions

from app.store import SHARDS, new_id
from app.store import ChatStore as Store

from .redis_alone import keys
from .values import ALICE, file, thread

pytestmark = pytest.mark.anyio


async def entries(store: Store) -> list[bytes]:
    """Return the list of owners as it is stored."""
    shards = [f"{store._prefix}:owners:{shard}" for shard in range(SHARDS)]
    return [entry for shard in shards for entry in await store._client.smembers(shard)]


def token(age: int) -> str:
    """Return what an entry that was made so many seconds ago has before its owner's name."""
    return f"thr_{int(time.time() - age) * 1000:012x}{'0' * 20}"


async def test_an_owner_who_comes_and_goes_on_two_stores_is_listed_while_there_is_data(
    store: Store, neighbour: Store
) -> None:
    async def visit(where: Store, name: str) -> None:
        await where.save_thread(thread(name), ALICE)
        await where.delete_thread(name, ALICE)

    for n in range(20):
        visits = [visit((store, neighbour)[i % 2], f"v{n}-{i}") for i in range(6)]
        await asyncio.gather(store.save_thread(thread(f"stays{n}"), ALICE), *visits)
        assert [owner async for owner in neighbour.owners()] == ["alice"]
        await asyncio.gather(
            store.delete_thread(f"stays{n}", ALICE),
            visit(neighbour, f"w{n}"),
            visit(store, f"x{n}"),
        )
        assert [owner async for owner in neighbour.owners()] == []
    assert await entries(store) == []


async def test_an_owner_who_cannot_be_listed_gets_nothing_stored(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Owners are listed first: whatever fails after that, nobody with data is missing."""
    ask = store._ask

    async def list_nobody(*command: str | int) -> object:
        if command[0] == "SADD":
            raise exceptions.ConnectionError
        return await ask(*command)

    monkeypatch.setattr(store, "_ask", list_nobody)
    for save in (store.save_thread(thread(), ALICE), store.save_attachment(file("f"), ALICE)):
        with pytest.raises(exceptions.ConnectionError):
            await save
    assert await keys(store) == set()


async def test_an_owner_who_comes_back_during_the_listing_is_listed(
    store: Store, neighbour: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.save_thread(thread("old"), ALICE)
    ask = store._ask

    async def asked(*command: str | int) -> object:
        answer = await ask(*command)
        if command[0] == "SSCAN" and answer[1]:
            await neighbour.delete_thread("old", ALICE)
            await neighbour.save_thread(thread("new"), ALICE)
        return answer

    monkeypatch.setattr(store, "_ask", asked)
    assert [owner async for owner in store.owners()] == ["alice"]


async def test_an_owner_whose_entry_a_failover_lost_is_listed_again(store: Store) -> None:
    """Once, by a save an hour later: the list is on another node and may have lost its newest."""
    await store.save_thread(thread(), ALICE)
    current = f"{store._base('alice')}token"
    await store._client.srem(*store._entry(ALICE, (await store._client.get(current)).decode()))
    assert [owner async for owner in store.owners()] == []
    for age, listed in ((3500, []), (3700, ["alice"])):
        await store._client.set(current, token(age))
        for _ in range(2):
            await store.save_thread(thread(), ALICE)
        assert [owner async for owner in store.owners()] == listed
    assert len(await entries(store)) == 1


async def test_a_clock_behind_the_servers_lists_an_owner_once(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not at each save: each time an entry would stay for a day."""
    behind = time.time() - 7200
    monkeypatch.setattr("time.time", lambda: behind)
    monkeypatch.setattr("time.time_ns", lambda: int(behind * 10**9))
    for number in range(3):
        await store.save_thread(thread(f"t{number}"), ALICE)
    assert len(await entries(store)) == 1


async def test_an_entry_that_a_crash_left_names_nobody_and_ends_after_a_day(store: Store) -> None:
    """Before that, its thread may be about to be stored."""
    for age in (0, 86_300, 86_500):
        await store._client.sadd(*store._entry(ALICE, token(age)))
    assert [owner async for owner in store.owners()] == []
    assert len(await entries(store)) == 2


async def test_an_owner_who_comes_back_after_a_day_keeps_the_old_entry_for_half_an_hour(
    store: Store,
) -> None:
    """Another listing may look there alone, if it has passed the new entry's place."""
    await store._client.sadd(*store._entry(ALICE, token(86_500)))
    await store.save_thread(thread(), ALICE)
    for age, left in ((0, 2), (1700, 2), (1900, 1)):
        await store._client.set(f"{store._base('alice')}token", token(age))
        assert [owner async for owner in store.owners()] == ["alice"]
        assert len(await entries(store)) == left


async def test_an_owner_stays_listed_and_is_named_once(store: Store) -> None:
    """However old the entry is, and beside more of them, left by crashes, than fit an answer."""
    await store.save_thread(thread(), ALICE)
    await store._client.set(f"{store._base('alice')}token", token(10**6))
    shard, current = store._entry(ALICE, token(10**6))
    left = [store._entry(ALICE, new_id("thread"))[1] for _ in range(1500)]
    await store._client.delete(shard)
    await store._client.sadd(shard, current, *left)
    async with asyncio.timeout(10):
        assert [owner async for owner in store.owners()] == ["alice"]
    assert sorted(await entries(store)) == sorted(each.encode() for each in (current, *left))
