"""What the memory store promises besides the contract."""

import pytest
from chatkit.store import NotFoundError

from app.store import ChatStore as Store
from app.store import StoreError

from .values import ALICE, file, thread

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("url", ["", "memory", "redis://:hunter2@host", "memory://name"])
async def test_any_other_url_is_refused_with_the_setting_and_no_password(url: str) -> None:
    with pytest.raises(StoreError, match="STORE_URL") as refusal:
        async with Store.open(url):
            pass
    assert "hunter2" not in str(refusal.value)


async def test_an_owner_who_only_asks_leaves_nothing_behind(store: Store) -> None:
    for calls in (
        store.load_threads(1, None, "asc", ALICE),
        store.load_thread_items("t", None, 1, "asc", ALICE),
        store.load_attachments(None, ALICE),
        store.delete_thread("t", ALICE),
        store.delete_attachment("f", ALICE),
        store.stop_turn("t", ALICE),
    ):
        await calls
    assert not store._threads
    assert not store._attachments


async def test_an_owner_with_nothing_left_leaves_nothing_behind(store: Store) -> None:
    await store.save_thread(thread(), ALICE)
    await store.save_attachment(file("f", "t"), ALICE)
    await store.save_attachment(file("g"), ALICE)
    await store.delete_thread("t", ALICE)
    with pytest.raises(NotFoundError):
        await store.save_thread(thread(), ALICE)
    await store.delete_attachment("g", ALICE)
    with pytest.raises(NotFoundError):
        await store.save_attachment(file("f", "t"), ALICE)
    assert not store._threads
    assert not store._attachments


async def test_expired_tombstones_are_removed(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise they would fill the memory of a long-lived process."""
    monkeypatch.setattr("app.store.TOMBSTONE_SECONDS", 0)
    for n in range(3):
        await store.save_thread(thread(f"t{n}"), ALICE)
        await store.delete_thread(f"t{n}", ALICE)
    assert len(store._tombstones) == 1


async def test_each_store_begins_empty(store: Store, store_url: str) -> None:
    await store.save_thread(thread(), ALICE)
    async with Store.open(store_url) as other:
        assert [owner async for owner in other.owners()] == []
