"""The commands that look after users' data, as they are typed."""

import asyncio
import json
import os
import re
import sys
from pathlib import Path
from shutil import rmtree

import pytest

from app import data
from app.__main__ import days, parse
from app.attachments import Files
from app.settings import Settings
from app.store import open_store

from .engine import SHARED
from .filling import fill
from .serving import settings_for
from .terminal import terminal
from .values import ITEMS, thread


def main(arguments: list[str], settings: Settings) -> int:
    """Run a command as it is typed; return its exit status."""
    return data.main(parse(arguments), settings)


async def prepare(settings: Settings, threads: int) -> None:
    """Give two users data, for the commands."""
    async with open_store(settings) as store:
        files = Files(settings, store)
        for owner in ("a", "b"):
            await fill(store, files, owner, threads)


def test_an_import_shows_a_bar_on_a_terminal(store_url: str, tmp_path: Path) -> None:
    """Of a file's bytes; a pipe's, whose end is unknown, are counted. The last line stays."""
    settings, saved = settings_for(store_url, tmp_path), tmp_path / "export.jsonl"
    line = json.dumps({"owner": "a", "thread": thread("t").model_dump(mode="json")}) + "\n"
    saved.write_text(line * 10)
    with terminal() as lines:
        assert main(["import", str(saved)], settings) == 0
    assert re.fullmatch(r"import: 100%\|█+\| (\S+k)/\1 \[\d\d:\d\d<00:00, .+B/s\]", lines[0])
    assert lines[1:] == ["import: 10 threads"]
    (reader, writer), own = os.pipe(), os.dup(0)
    os.write(writer, line.encode() + b"x")
    os.close(writer)
    os.dup2(reader, 0)
    with terminal() as lines:
        assert main(["import", "-"], settings) == 2
    os.dup2(own, 0)
    os.close(own)
    os.close(reader)
    assert re.fullmatch(r"import: [\d.]+B \[\d\d:\d\d, .+B/s\]", lines[0])
    assert lines[1:] == ["Line 2 cannot be imported: Expecting value: line 1 column 1 (char 0)"]


if SHARED:  # other data ends with its process, before a command could read it

    def test_the_commands_work_from_a_shell(
        store_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Export all, forget one, import it twice, purge, sweep."""
        settings = settings_for(store_url, tmp_path)
        asyncio.run(prepare(settings, threads=3))
        assert main(["export", "--all"], settings) == 0
        everything, said = capsys.readouterr()
        assert said == f"export: 6 threads, 10 files, {6 * len(ITEMS)} items\n"
        assert main(["forget", "a"], settings) == 0
        assert capsys.readouterr().err == "forget: 3 threads, 5 files, 17 bytes\n"
        assert main(["export", "a"], settings) == 1, "nothing is left"
        assert capsys.readouterr().err == "export: nothing\n"
        saved = tmp_path / "export.jsonl"
        saved.write_text(everything)
        for _ in range(2):
            assert main(["import", str(saved)], settings) == 0
            assert capsys.readouterr().err == said.replace("export", "import")
        assert main(["export", "--all"], settings) == 0
        assert sorted(capsys.readouterr().out.splitlines()) == sorted(everything.splitlines())
        assert main(["purge", "--older-than", "99999d"], settings) == 0
        assert main(["sweep"], settings) == 0
        assert capsys.readouterr().err == "purge: nothing\nsweep: 0 records, 0 objects\n"

    def test_bars_are_shown_on_a_terminal_and_the_export_elsewhere(
        store_url: str,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """The number of users is known; lines and threads to delete are counted as they come."""
        settings = settings_for(store_url, tmp_path)
        asyncio.run(prepare(settings, threads=1))
        for command, bar in (
            (["export", "--all"], r"export: \d+ lines \[\d\d:\d\d, .+ lines/s\]"),
            (["purge", "--older-than", "99999d"], r"purge: 100%\|█+\| 2/2 \[.+ users/s\]"),
            (["forget", "a"], r"forget: 1 threads \[\d\d:\d\d, .+ threads/s\]"),
        ):
            with terminal() as lines:
                assert main(command, settings) == 0
            assert any(map(re.compile(bar).fullmatch, lines)), lines
            assert lines[-1].startswith(f"{command[0]}: ")
        written = capsys.readouterr().out.splitlines()
        each = len(ITEMS) + 5  # the thread, its file and feedback, two files in no thread
        owners = [json.loads(line)["owner"] for line in written]
        assert owners == ["a"] * each + ["b"] * each
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        with terminal() as lines:
            assert main(["export", "b"], settings) == 0
        assert lines == [f"export: 1 threads, 3 files, {len(ITEMS)} items"], "no bar among them"
        rmtree(settings.data_dir / "files")
        with terminal() as lines:
            assert main(["export", "b"], settings) == 0
        missing = [f"{name}: its bytes are not in FILES_URL" for name in ("f0", "f-alone")]
        assert lines[:2] == missing

    def test_an_export_whose_reader_has_seen_enough_ends_quietly(
        store_url: str,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """As with `| head -1`; what is still to be written is dropped."""
        settings = settings_for(store_url, tmp_path)
        asyncio.run(prepare(settings, threads=1))
        reader, writer = os.pipe()
        os.close(reader)
        with os.fdopen(writer, "w") as pipe, monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", pipe)
            assert main(["export", "--all"], settings) == 1
        assert capsys.readouterr().err == ""


def test_an_age_is_in_days() -> None:
    """It is parsed to seconds; one in the future would delete everything."""
    assert days("90d") == 7_776_000
    for wrong in ("-1d", "soon", "1h"):
        with pytest.raises(ValueError, match=r"^$"):
            days(wrong)


def test_a_wrong_command_says_what_is_expected(
    store_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One sentence and an exit status."""
    settings = settings_for(store_url, tmp_path)
    for wrong in (["export"], ["import"], ["purge"], ["purge", "--older-than", "soon"], ["what"]):
        with pytest.raises(SystemExit) as raised:
            main(wrong, settings)
        assert raised.value.code == 2
    bad = tmp_path / "bad.jsonl"
    bad.write_text("no json\n")
    capsys.readouterr()
    assert main(["import", str(bad)], settings) == 2
    assert capsys.readouterr().err.startswith("Line 1 cannot be imported: ")
    assert main(["import", str(tmp_path / "none")], settings) == 2
    assert "No such file" in capsys.readouterr().err
    assert main(["forget", "nobody"], settings) == 1
    assert capsys.readouterr().err == "forget: nothing\n"
