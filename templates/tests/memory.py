"""What the store in memory promises besides the contract."""

import pytest

from app.store import ChatStore as Store
from app.store import StoreError

from .values import ALICE, thread

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("url", ["", "memory", "redis://:hunter2@host", "memory://name"])
async def test_any_other_url_is_refused_with_the_setting_and_no_password(url: str) -> None:
    with pytest.raises(StoreError, match="STORE_URL") as refusal:
        async with Store.open(url):
            pass
    assert "hunter2" not in str(refusal.value)


async def test_each_store_begins_empty(store: Store, store_url: str) -> None:
    await store.save_thread(thread(), ALICE)
    async with Store.open(store_url) as other:
        assert [owner async for owner in other.owners()] == []
