"""What is swept: uploads that were never sent, bytes that a crash left behind."""

import asyncio
import io
import itertools
import time
from pathlib import Path

import pytest

from app.attachments import Files
from app.blobs import key_of

from .sending import address, announced, on_disk, picture, sent
from .serving import until
from .talking import talking

pytestmark = pytest.mark.anyio


async def test_sweep_removes_what_no_message_has(store_url: str, tmp_path: Path) -> None:
    """Uploads never sent and bytes without a record go after a day; what is used stays."""
    async with talking(store_url, tmp_path) as caller:
        files: Files = caller.served.app.state.files
        used = await sent(caller, picture(), "used.png")
        await caller.say("look", attachments=[used["id"]])
        await sent(caller, b"never sent", "a.txt")
        await files.blobs.put(key_of("nobody", "atc_lost"), io.BytesIO(b"lost"))
        foreign = tmp_path / "files" / "attachments" / "README"
        foreign.write_text("not ours")
        assert await files.sweep() == (0, 0)
        assert await files.sweep(age=-2) == (1, 1)  # as if it were two seconds later
        assert foreign.exists()
        assert len(on_disk(tmp_path)) == 3
        assert (await caller.get(await address(caller, used["id"]))).status_code == 200


@pytest.mark.parametrize(("url", "taken"), [("redis://other", 0), ("memory://", 3)])
async def test_sweep_with_the_wrong_store_deletes_nothing(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, taken: int
) -> None:
    """It knows nothing but a new user; a store in memory begins like that by design."""
    async with talking(store_url, tmp_path) as caller:
        files: Files = caller.served.app.state.files
        monkeypatch.setattr(
            files, "_settings", files._settings.model_copy(update={"store_url": url})
        )
        await sent(caller, b"of who has just come", "a.txt")
        for owner in ("ann", "bob", "eve"):
            await files.blobs.put(key_of(owner, "atc_1"), io.BytesIO(b"x"))
        assert await files.sweep(-60) == (1, taken)
        assert len(on_disk(tmp_path)) == 3 - taken


async def test_sweep_waits_for_a_day(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both for a file that was uploaded and for one that was only announced."""
    async with talking(store_url, tmp_path) as caller:
        now = time.time()
        await sent(caller, b"never sent", "a.txt")
        await announced(caller, "b.txt", 5)
        for hours, records in ((23, 0), (25, 2)):
            monkeypatch.setattr("app.attachments.time.time", lambda at=now + hours * 3600: at)
            assert await caller.served.app.state.files.sweep() == (records, 0)


async def test_the_app_sweeps_by_itself(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """About every hour while it runs, also after a failure, unless another process did."""
    swept = []

    async def sweep(_: Files) -> None:
        swept.append(time.monotonic())
        if len(swept) == 1:
            raise OSError("away")

    monkeypatch.setattr(Files, "sweep", sweep)
    monkeypatch.setattr("app.attachments.random.uniform", lambda *hours: sum(hours) / 7200 / 100)
    async with talking(store_url, tmp_path):
        await until(lambda: len(swept) > 1)
        await asyncio.sleep(0.05)
        assert len(swept) == 2, "once was enough for this hour"
        hours = itertools.count(time.time() + 3600, 3600)
        monkeypatch.setattr("app.attachments.time.time", hours.__next__)
        await until(lambda: len(swept) > 3)
    ended = len(swept)
    await asyncio.sleep(0.05)
    assert len(swept) == ended
