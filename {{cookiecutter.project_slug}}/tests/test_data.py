"""A user's data: out, in again, away; on the engine of this app."""

import asyncio
import io
import json
import os
import re
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from chatkit.types import ThreadItem

from app.attachments import Files
from app.blobs import key_of
from app.context import RequestContext, context_for
from app.data import WAITING, WRITERS, DataError, export_lines, forget, import_lines, main, purge
from app.settings import Settings
from app.store import ChatStore as Store
from app.store import open_store

from .engine import SHARED
from .sending import on_disk
from .serving import settings_for
from .terminal import terminal
from .values import ITEMS, STATUSES, file, message, thread

DAY = 86_400.0
NOW = datetime.now(UTC)
OWNER = "https://login.example/|ada \0 {x}"


@pytest.fixture
async def files(store: Store, store_url: str, tmp_path: Path) -> AsyncIterator[Files]:
    """Files of the store under test, in a folder of the test's own."""
    async with Files.open(settings_for(store_url, tmp_path), store) as opened:
        yield opened


async def fill(store: Store, files: Files, owner: str = OWNER, threads: int = 3) -> None:
    """Give an owner threads with every kind of item, feedback, and files in and out of them."""
    context = context_for(owner)
    for number in range(threads):
        known = thread(f"t{number}").model_copy(
            update={"status": STATUSES[number % len(STATUSES)], "metadata": {"n": number}}
        )
        await store.save_thread(known, context)
        for item in ITEMS:
            await store.add_thread_item(known.id, item, context)
        await store.save_feedback(known.id, [ITEMS[0].id], "positive", context)
        inside = file(f"f{number}", known.id).model_copy(update={"metadata": {"size": 4}})
        await files.write(inside, io.BytesIO(b"\0\xff%d" % number), context)
        await files.write(inside, io.BytesIO(b"small"), context, ".preview")
        await store.save_attachment(inside, context)
    outside = file("f-alone")
    await files.write(outside, io.BytesIO(b"alone"), context)
    await store.save_attachment(outside, context)
    await store.save_attachment(file("f-announced"), context)


async def exported(store: Store, files: Files, owner: str = OWNER) -> list[bytes]:
    """Return an owner's export, as it would be written."""
    return [json.dumps(line).encode() async for line in export_lines(owner, store, files)]


def saved(lines: list[bytes]) -> io.BytesIO:
    """Return these lines as a file."""
    return io.BytesIO(b"".join(line + b"\n" for line in lines))


@pytest.mark.anyio
async def test_what_was_forgotten_comes_back_equal(
    store: Store, files: Files, tmp_path: Path
) -> None:
    """Export, forget, import, export: threads, items, feedback and files, in the same order."""
    await fill(store, files)
    await fill(store, files, owner="other", threads=1)
    before, other = await exported(store, files), await exported(store, files, "other")
    assert len(before) == 3 * (1 + 1 + len(ITEMS) + 1) + 2
    counts = Counter[str]()
    await forget(OWNER, store, files, counts)
    assert counts == {"threads": 3, "files": 5, "bytes": 12}
    assert await exported(store, files) == []
    assert len(on_disk(tmp_path)) == 3, "the other user's"
    for _ in range(2):  # a second time changes nothing
        await import_lines(saved(before), store, files, Counter())
        assert await exported(store, files) == before
    assert await exported(store, files, "other") == other


@pytest.mark.anyio
async def test_an_import_takes_many_threads_in_their_order(
    store: Store, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More lines than may wait, all threads of one time; the first items take longest."""
    add = store.add_thread_item

    async def slow_at_first(thread_id: str, item: ThreadItem, context: RequestContext) -> None:
        await asyncio.sleep(0.002 * (item.id == "i0"))
        await add(thread_id, item, context)

    monkeypatch.setattr(store, "add_thread_item", slow_at_first)
    lines = []
    for n in range(WAITING * WRITERS // 5):
        lines.append({"owner": "a", "thread": thread(f"t{n}").model_dump(mode="json")})
        for i in range(5):
            item = message(f"i{i}", thread_id=f"t{n}").model_dump(mode="json")
            lines.append({"owner": "a", "thread_id": f"t{n}", "item": item})
    before = [json.dumps(line).encode() for line in lines]
    await import_lines(saved(before), store, files, Counter())
    assert await exported(store, files, "a") == before


@pytest.mark.anyio
@pytest.mark.parametrize(
    "wrong",
    [
        "{",
        "[]",
        "{}",
        '{"owner": 1}',
        '{"owner": "a"}',
        '{"owner": "a", "thread": {"id": "t"}}',
        '{"owner": "a", "thread_id": "none", "item": {"type": "end_of_turn"}}',
        json.dumps({"owner": "a", "thread_id": "none", "item": ITEMS[0].model_dump(mode="json")}),
        '{"owner": "a", "thread_id": "none", "feedback": {"i": "positive"}}',
        json.dumps({"owner": "a", "attachment": file("f").model_dump(mode="json"), "bytes": "?"}),
    ],
)
async def test_a_wrong_line_is_named(store: Store, files: Files, wrong: str) -> None:
    """One sentence with its number; the threads before it are there."""
    good = json.dumps({"owner": "a", "thread": thread("t").model_dump(mode="json")})
    with pytest.raises(DataError, match=r"^Line 2 ") as raised:
        await import_lines(saved([good.encode(), wrong.encode()]), store, files, Counter())
    assert "\n" not in str(raised.value)
    assert len(await exported(store, files, "a")) == 1


@pytest.mark.anyio
async def test_an_import_from_a_pipe_that_pauses_holds_up_nobody(
    store: Store, files: Files
) -> None:
    """What is being written has deadlines, which the event loop must go on to meet."""

    class Pipe(io.BytesIO):
        def readlines(self, size: int | None = None, /) -> list[bytes]:
            time.sleep(0.2)
            return super().readlines(size)

    work = asyncio.create_task(import_lines(Pipe(), store, files, Counter()))
    steps = 0
    while not work.done():
        await asyncio.sleep(0.01)
        steps += 1
    assert steps > 5


@pytest.mark.anyio
async def test_forget_takes_bytes_without_a_record(
    store: Store, files: Files, tmp_path: Path
) -> None:
    """And none of an owner whose name begins alike."""
    for owner in ("a" * 100, "a" * 101):
        await files.blobs.put(key_of(owner, "lost"), io.BytesIO(b"x"))
    await forget("a" * 100, store, files, Counter())
    assert len(on_disk(tmp_path)) == 1
    await forget("a" * 101, store, files, Counter())
    assert on_disk(tmp_path) == []


@pytest.mark.anyio
async def test_purge_deletes_threads_in_which_nobody_wrote_for_long(
    store: Store, files: Files, tmp_path: Path
) -> None:
    """An old thread with a new message stays, as do new ones; files go along."""
    old = NOW - timedelta(days=100)
    for owner in ("a", "b"):
        context = context_for(owner)
        for n in range(205):
            await store.save_thread(thread(f"old{n}", old), context)
        await store.add_thread_item("old7", message("i", "late", NOW), context)
        await store.add_thread_item("old8", message("i", "early", old), context)
        await store.save_thread(thread("new", NOW), context)
    await files.write(file("f", "old9"), io.BytesIO(b"x"), context_for("a"))
    await store.save_attachment(file("f", "old9"), context_for("a"))
    counts = Counter[str]()
    await purge(90 * DAY, store, files, counts)
    assert counts["threads"] == 2 * 204
    assert on_disk(tmp_path) == []
    for owner in ("a", "b"):
        page = await store.load_threads(10, None, "asc", context_for(owner))
        assert [each.id for each in page.data] == ["old7", "new"]


def test_an_import_shows_a_bar_on_a_terminal(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a file's bytes; a pipe's have no end yet, so they are counted. The last line stays."""
    settings, saved = settings_for(store_url, tmp_path), tmp_path / "export.jsonl"
    line = json.dumps({"owner": "a", "thread": thread("t").model_dump(mode="json")}) + "\n"
    saved.write_text(line * 10)
    with terminal() as lines:
        assert main(["import", str(saved)], settings) == 0
    assert re.fullmatch(r"import: 100%\|█+\| (\S+k)/\1 \[\d\d:\d\d<00:00, .+B/s\]", lines[0])
    assert lines[1:] == ["import: 10 threads"]
    reader, writer = os.pipe()
    os.write(writer, line.encode() + b"x")
    os.close(writer)
    with os.fdopen(reader) as given, terminal() as lines:
        monkeypatch.setattr(sys, "stdin", given)
        assert main(["import"], settings) == 2
    assert re.fullmatch(r"import: \d+B \[\d\d:\d\d, .+B/s\]", lines[0])
    assert lines[1:] == ["Line 2 is no line of an export."]


async def prepare(settings: Settings, threads: int) -> None:
    """Give two users data, for the commands."""
    async with open_store(settings) as store, Files.open(settings, store) as files:
        for owner in ("a", "b"):
            await fill(store, files, owner, threads)


if SHARED:  # other data ends with its process, before a command could read it

    def test_the_commands_work_from_a_shell(
        store_url: str,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Export all, forget one, import from a file and from the standard input, purge, sweep."""
        settings = settings_for(store_url, tmp_path)
        asyncio.run(prepare(settings, threads=3))
        assert main(["export", "--all"], settings) == 0
        everything, said = capsys.readouterr()
        assert said == f"export: 6 threads, 10 files, {6 * len(ITEMS)} items\n"
        assert main(["forget", "a"], settings) == 0
        assert capsys.readouterr().err == "forget: 3 threads, 5 files, 12 bytes\n"
        assert main(["export", "a"], settings) == 1, "nothing is left"
        saved = tmp_path / "export.jsonl"
        saved.write_text(everything)
        assert main(["import", str(saved)], settings) == 0
        with saved.open() as given:
            monkeypatch.setattr(sys, "stdin", given)
            assert main(["import"], settings) == 0
        capsys.readouterr()
        assert main(["export", "--all"], settings) == 0
        assert sorted(capsys.readouterr().out.splitlines()) == sorted(everything.splitlines())
        assert main(["purge", "--older-than", "99999w"], settings) == 0
        assert main(["sweep"], settings) == 0

    def test_bars_are_shown_on_a_terminal_and_the_export_elsewhere(
        store_url: str,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Users have an end; lines of one and threads to delete are counted."""
        settings = settings_for(store_url, tmp_path)
        asyncio.run(prepare(settings, threads=1))
        for command, bar in (
            (["export", "--all"], r"export: 100%\|█+\| 2/2 \[.+ users/s\]"),
            (["export", "b"], r"\d+ lines \[\d\d:\d\d, .+ lines/s\]"),
            (["purge", "--older-than", "99999w"], r"purge: 100%\|█+\| 2/2 \[.+ users/s\]"),
            (["forget", "a"], r"forget: 1 threads \[\d\d:\d\d, .+ threads/s\]"),
        ):
            with terminal() as lines:
                assert main(command, settings) == 0
            assert any(map(re.compile(bar).fullmatch, lines)), lines
            assert lines[-1].startswith(f"{command[0]}: ")
        written = capsys.readouterr().out.splitlines()
        assert {json.loads(line)["owner"] for line in written} == {"a", "b"}
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        with terminal() as lines:
            assert main(["export", "b"], settings) == 0
        assert len(lines) == 1, "no bar among the lines"


def test_a_wrong_command_says_what_is_expected(
    store_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One sentence and an exit status."""
    settings = settings_for(store_url, tmp_path)
    for wrong in (["export"], ["purge", "--older-than", "soon"], ["what"]):
        with pytest.raises(SystemExit) as raised:
            main(wrong, settings)
        assert raised.value.code == 2
    bad = tmp_path / "bad.jsonl"
    bad.write_text("no json\n")
    capsys.readouterr()
    assert main(["import", str(bad)], settings) == 2
    assert capsys.readouterr().err == "Line 1 is no line of an export.\n"
    assert main(["import", str(tmp_path / "none")], settings) == 2
    assert "No such file" in capsys.readouterr().err
    assert main(["forget", "nobody"], settings) == 1
    assert capsys.readouterr().err == "forget: nothing\n"
