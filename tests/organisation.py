"""Two users of one organisation and one of another: for `test_contexts.py`."""

import json
from pathlib import Path

import pytest

from .sending import address, on_disk, path_of, picture, sent
from .serving import Caller, Words, begun, serving, settings_for, text_of, thread_of

pytestmark = pytest.mark.anyio


async def threads(caller: Caller) -> list[str]:
    """Return the ids of the threads that a user is shown."""
    return [thread["id"] for thread in (await caller.op("threads.list")).json()["data"]]


async def test_an_organisation_shares_what_another_does_not_see(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads, files, answers under way, and deletion."""
    monkeypatch.setattr("app.streaming.RENEW_SECONDS", 60)  # no stop may come through the store
    model = Words(3, 0.01)
    same = {"file_link_seconds": 10**9}  # so that addresses do not change between two reads
    settings = settings_for(store_url, tmp_path, turns_per_user=1, **same)
    async with serving(settings, model) as served:
        ada, bob, eve = (served.caller(**{"X-Org": name}) for name in ("acme", "acme", "rival"))
        async with ada, bob, eve:
            file = (await sent(ada, picture(), "a.png"))["id"]
            thread = thread_of(await ada.say("look", attachments=[file]))
            assert [owner async for owner in served.store.owners()] == ["acme"]

            assert await threads(bob) == [thread]
            await bob.say("I see it, too", thread)
            assert "data:image/jpeg;base64," in json.dumps(model.given[-1])
            items = await bob.items(thread)
            assert items == await ada.items(thread)
            assert len(items) == 4
            assert (await bob.get(await address(bob, file))).content == picture()
            preview = path_of(items[0]["attachments"][0]["preview_url"])
            assert (await bob.get(preview)).status_code == 200

            nobody = await eve.get("/files/x/url", headers={"X-Org": ""})
            assert nobody.json()["error"]["code"] == "no_owner", "all such would share data"
            assert await threads(eve) == []
            assert await eve.items(thread) == []
            assert (await eve.get(f"/files/{file}/url")).status_code == 404
            await eve.op("attachments.delete", attachment_id=file)
            await eve.op("threads.delete", thread_id=thread)
            assert await ada.items(thread) == items

            model.count = 200
            async with begun(ada, "go on") as (long, events):
                assert (await bob.ask("at once", thread)).status_code == 429
                assert not (await eve.post(f"/threads/{long}/stop")).json()["stopped"]
                assert (await bob.post(f"/threads/{long}/stop")).json()["stopped"]
                assert "w199" not in text_of([event async for event in events])
            async with begun(ada, "go on") as (long, events):
                await bob.op("threads.delete", thread_id=long)
                assert "w199" not in text_of([event async for event in events])

            for each in await threads(bob):
                await bob.op("threads.delete", thread_id=each)
            assert await threads(ada) == []
            assert on_disk(tmp_path) == []
