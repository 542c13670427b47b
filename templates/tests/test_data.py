"""A user's data: out, in again, away; on the engine of this app."""

import gc
import io
import json
import time
import tracemalloc
from collections import Counter
from collections.abc import Awaitable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from app.attachments import Files
from app.blobs import key_of
from app.context import context_for
from app.data import DataError, export_lines, forget, import_lines, purge
from app.store import ChatStore as Store

from .filling import fill
from .sending import on_disk
from .serving import settings_for
from .values import ITEMS, file, message, thread

pytestmark = pytest.mark.anyio
DAY = 86_400.0
NOW = datetime.now(UTC)
OWNER = "https://login.example/|ada \0 {x}"


@pytest.fixture
def files(store: Store, store_url: str, tmp_path: Path) -> Files:
    """Files of the store under test, in a folder of the test's own."""
    return Files(settings_for(store_url, tmp_path), store)


async def exported(store: Store, files: Files, owner: str = OWNER) -> list[bytes]:
    """Return an owner's export, as it would be written."""
    return [json.dumps(line).encode() async for line in export_lines(owner, store, files)]


def saved(lines: list[bytes]) -> io.BytesIO:
    """Return these lines as a file."""
    return io.BytesIO(b"".join(line + b"\n" for line in lines))


async def test_what_was_forgotten_comes_back_equal(
    store: Store, files: Files, tmp_path: Path
) -> None:
    """Export, forget, import, export: threads, items, feedback and files, in the same order."""
    await fill(store, files, OWNER)
    await fill(store, files, owner="other", threads=1)
    before, other = await exported(store, files), await exported(store, files, "other")
    assert len(before) == 3 * (1 + 1 + len(ITEMS) + 1) + 2
    counts = Counter[str]()
    await forget(OWNER, store, files, counts)
    assert counts == {"threads": 3, "files": 5, "bytes": 17}
    assert await exported(store, files) == []
    assert len(on_disk(tmp_path)) == 3, "the other user's"
    for _ in range(2):  # a second time changes nothing
        await import_lines(saved(before), store, files, Counter())
        assert await exported(store, files) == before
    assert await exported(store, files, "other") == other


@pytest.mark.parametrize(
    "wrong",
    [
        "{",
        "[]",
        "{}",
        '{"owner": 1}',
        '{"owner": "a", "thread": ' + "[" * 100_000,
        '{"owner": "a"}',
        '{"owner": "a", "thread": {"id": "t"}}',
        '{"owner": "a", "thread_id": "none", "item": {"type": "end_of_turn"}}',
        json.dumps({"owner": "a", "thread_id": "none", "item": ITEMS[0].model_dump(mode="json")}),
        '{"owner": "a", "thread_id": "none", "feedback": {"i": "positive"}}',
        json.dumps({"owner": "a", "attachment": file("f").model_dump(mode="json"), "bytes": "?"}),
        json.dumps({"owner": "a", "attachment": file("f").model_dump(mode="json"), "bytes": 1}),
    ],
)
async def test_a_wrong_line_is_named(store: Store, files: Files, wrong: str) -> None:
    """One sentence with its number; the threads before it are there."""
    good = json.dumps({"owner": "a", "thread": thread("t").model_dump(mode="json")})
    with pytest.raises(DataError, match=r"^Line 2 ") as raised:
        await import_lines(saved([good.encode(), wrong.encode()]), store, files, Counter())
    assert "\n" not in str(raised.value)
    assert len(await exported(store, files, "a")) == 1


async def test_an_export_whose_data_changes_meanwhile_says_so(
    store: Store, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A deleted thread is fine; but if a page's last item is gone, what follows is unknown."""
    monkeypatch.setattr("app.data.PAGE", 2)
    context = context_for("a")
    for name in ("t", "u", "v"):
        await store.save_thread(thread(name), context)
        for item_id in ("a", "b", "c"):
            await store.add_thread_item(name, message(item_id), context)

    async def export(change: Awaitable[None]) -> list[str]:
        """Return the ids in an export; the change is made after the first page of items."""
        ids: list[str] = []
        async for line in export_lines("a", store, files):
            ids.append((line.get("thread") or line["item"])["id"])
            if len(ids) == 3:
                await change
        return ids

    whole = ["u", "a", "b", "c", "v", "a", "b", "c"]
    assert await export(store.delete_thread("t", context)) == ["t", "a", "b", *whole]
    with pytest.raises(DataError, match=r"changed while it was read\. Run the command again"):
        await export(store.delete_thread_item("u", "b", context))


async def test_an_export_holds_one_file_in_memory_at_a_time(store: Store, files: Files) -> None:
    """What is written is let go at once: no need to wait for the collector."""
    for number in range(8):  # none has a preview
        each = file(f"f{number}").model_copy(update={"metadata": {"size": 1 << 20}})
        await files.blobs.put(key_of(OWNER, each.id), io.BytesIO(bytes(1 << 20)))
        await store.save_attachment(each, context_for(OWNER))
    gc.disable()
    tracemalloc.start()
    try:
        async for line in export_lines(OWNER, store, files):
            assert len(line["bytes"]) > 1 << 20
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        gc.enable()
    assert most < 8 << 20, "each file takes 1 MB, its line 1.4 MB more"


async def test_an_export_holds_thumbs_on_its_own_items_alone(
    store: Store, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An import ends at a thumb on an item that was deleted meanwhile, or came too late."""
    monkeypatch.setattr("app.data.PAGE", 2)
    context = context_for("a")
    await store.save_thread(thread(), context)
    for item_id in ("a", "b", "c", "d"):
        await store.add_thread_item("t", message(item_id), context)
    await store.save_feedback("t", ["a", "c"], "positive", context)
    lines: list[bytes] = []
    async for line in export_lines("a", store, files):
        lines.append(json.dumps(line).encode())
        if b'"b"' in lines[-1]:  # the first page's last
            await store.delete_thread_item("t", "c", context)
        if b'"d"' in lines[-1]:  # the last
            await store.add_thread_item("t", message("late"), context)
            await store.save_feedback("t", ["late"], "positive", context)
    await forget("a", store, files, Counter())
    await import_lines(saved(lines), store, files, Counter())
    assert await store.load_feedback("t", context) == {"a": "positive"}


async def test_forget_deletes_bytes_that_have_no_record(
    store: Store, files: Files, tmp_path: Path
) -> None:
    """But none of an owner whose name begins the same way."""
    for owner in ("a" * 100, "a" * 101):
        await files.blobs.put(key_of(owner, "lost"), io.BytesIO(b"x"))
    await forget("a" * 100, store, files, Counter())
    assert len(on_disk(tmp_path)) == 1
    await forget("a" * 101, store, files, Counter())
    assert on_disk(tmp_path) == []


async def test_purge_deletes_threads_in_which_nobody_has_written_for_long(
    store: Store, files: Files, tmp_path: Path
) -> None:
    """An old thread with a new message stays, as do new ones; files go with their thread."""
    old = NOW - timedelta(days=100)
    for owner in ("a", "b"):
        context = context_for(owner)
        for n in range(205):
            await store.save_thread(thread(f"old{n}", old), context)
        await store.add_thread_item("old7", message("i", "late", NOW), context)
        await store.add_thread_item("old8", message("i", "early", old), context)
        await store.save_thread(thread("new", NOW), context)
    await files.blobs.put(key_of("a", "f"), io.BytesIO(b"x"))
    sized = file("f", "old9").model_copy(update={"metadata": {"size": 1}})
    await store.save_attachment(sized, context_for("a"))
    counts = Counter[str]()
    await purge(90 * DAY, store, files, counts)
    assert counts == {"threads": 2 * 204, "files": 1, "bytes": 1}
    assert on_disk(tmp_path) == []
    for owner in ("a", "b"):
        page = await store.load_threads(10, None, "asc", context_for(owner))
        assert [each.id for each in page.data] == ["old7", "new"]


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="Windows has no TZ")
async def test_purge_reads_naive_times_as_local_time(
    store: Store, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The SDK writes them; west of Greenwich, read as UTC, they would look hours too old."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "America/Los_Angeles")
        time.tzset()
        written = datetime.now()  # noqa: DTZ005 - as the SDK does
        await store.save_thread(thread("new", written), context_for("a"))
        await purge(3 * 3600, store, files, Counter())
        left = (await store.load_threads(9, None, "asc", context_for("a"))).data
        assert [each.id for each in left] == ["new"]
        await store.save_thread(thread("new", written - timedelta(hours=4)), context_for("a"))
        await purge(3 * 3600, store, files, Counter())
        assert not (await store.load_threads(1, None, "asc", context_for("a"))).data
    time.tzset()
