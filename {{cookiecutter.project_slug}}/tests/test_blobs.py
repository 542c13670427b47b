"""Where the bytes of files are stored: a folder, memory, a bucket."""

import asyncio
import io
import os
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import obstore.store
import pytest

from app.blobs import CHUNK, Blobs, Cloud, Folder, key_of, open_blobs, owner_in
from app.filetypes import look
from app.store import StoreError

from .sending import announced, on_disk, picture, sent
from .serving import Words
from .talking import delayed, talking

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["", "memory://"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    """Each place for bytes; obstore's own memory stands in for a bucket."""
    return open_blobs(request.param, tmp_path)


async def test_bytes_come_back_from_every_place(blobs: Blobs, tmp_path: Path) -> None:
    """Written, replaced, listed, deleted; deleting twice is no error."""
    key, long = key_of("a/b\0c", "atc_1"), key_of("o" * 300, "../x", ".preview")
    for name, data in ((key, b"old"), (key, b"new"), (long, b"x" * 6_000_000)):
        await blobs.put(name, io.BytesIO(data))
    assert [chunk async for chunk in blobs.read(key)] == [b"new"]
    assert sum([len(chunk) async for chunk in blobs.read(long)]) == 6_000_000
    assert {k async for k in blobs.keys("attachments", time.time() + 60)} == {key, long}
    assert [k async for k in blobs.keys(key_of("a/b\0c"), time.time() + 60)] == [key]
    assert [k async for k in blobs.keys("attachments", time.time() - 60)] == []
    for _ in range(2):
        await blobs.delete(key)
    await blobs.delete(long)
    (tmp_path / "the place itself stays").touch()
    with pytest.raises(FileNotFoundError):
        await anext(blobs.read(key))


def test_a_key_names_its_owner_and_stays_a_plain_path() -> None:
    """Whatever the owner's name and the id contain."""
    for owner in ("alice", "a/../b", "\0", "ü|sub", "\ud800", "o" * 300):
        key = key_of(owner, "../atc\n", ".preview")
        assert owner_in(key) == owner_in(f"{key}.0f") == owner  # also while it is being written
        assert set(key) <= set("attachments/0123456789abcdef.preview")
        assert all(len(name) < 250 for name in key.split("/"))
    for foreign in ("README", "lost+found/00", "2024/report.pdf", "2024/01/12345678.pdf"):
        assert not owner_in(f"attachments/{foreign}"), "sweep would delete it"


async def test_a_write_that_fails_leaves_no_file(tmp_path: Path) -> None:
    """Its reader breaks off in the middle."""

    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise OSError("the disk is gone")

    with pytest.raises(OSError, match="gone"):
        await Folder(tmp_path / "files").put(key_of("a", "b"), Broken())
    assert on_disk(tmp_path) == []


async def test_only_one_of_two_uploads_at_once_is_kept(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the record could describe one file over the bytes of the other."""
    async with talking(store_url, tmp_path) as caller:
        delayed(monkeypatch, caller.served.app.state.files.blobs, "put", 0.1)
        _, url = await announced(caller, "a.txt", 5)
        tries = [caller.put(url, content=data) for data in (b"first", b"other")]
        assert sorted([each.status_code for each in await asyncio.gather(*tries)]) == [200, 409]


async def test_files_url_names_the_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder in DATA_DIR if it is empty, another folder, or memory."""
    monkeypatch.setenv("MEMORY_READ_TIMEOUT", "30s")
    memory = open_blobs("memory://", tmp_path)
    assert os.environ["MEMORY_READ_TIMEOUT"] == "30s", "a longer timeout that is set stays"
    assert isinstance(memory, Cloud)
    assert isinstance(memory._bucket, obstore.store.MemoryStore)
    own, other = tmp_path / "own", tmp_path / "other"
    for url, folder in (("", own), (f"file://{other}", other)):
        await open_blobs(url, own).put(key_of("a", "b"), io.BytesIO(b"x"))
        assert (folder / key_of("a", "b")).read_bytes() == b"x"


async def test_disk_and_pictures_are_off_the_event_loop(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers go on while a file is written or decoded."""
    threads: dict[str, int] = {}

    def noting(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*args: Any) -> Any:
            threads[name] = threading.get_ident()
            return work(*args)

        return noted

    monkeypatch.setattr("app.blobs.os.fsync", noting("disk", os.fsync))
    monkeypatch.setattr("app.attachments.look", noting("picture", look))
    async with talking(store_url, tmp_path) as caller:
        await sent(caller, picture(), "a.png")
    assert threads.keys() == {"disk", "picture"}
    assert threading.get_ident() not in threads.values()


async def test_only_the_part_of_a_long_text_that_is_given_is_read(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bucket would charge for the rest in each turn; and the file is closed at once."""
    size, closed = 0, 0

    async def counted(place: Folder, key: str, read: Any = Folder.read) -> AsyncIterator[bytes]:
        nonlocal size, closed
        try:
            async with aclosing(read(place, key)) as chunks:
                async for chunk in chunks:
                    size += len(chunk)
                    yield chunk
        finally:
            closed += 1

    monkeypatch.setattr(Folder, "read", counted)
    model = Words(3, 0)
    async with talking(store_url, tmp_path, model, max_text_chars=5) as caller:
        file = await sent(caller, b"beginning" * 200_000, "a.txt")
        await caller.say("read", attachments=[file["id"]])
        assert "begin\n(cut after 5 characters)" in model.given[0][-1]["content"]
        assert size <= CHUNK
        context = await caller.served.first_user()
        record = await caller.served.store.load_attachment(file["id"], context)
        await caller.served.app.state.files.read(record, context, most=1)
        assert closed == 2


def test_a_bucket_without_its_client_is_reported_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error says what to install."""
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(StoreError, match=r"^FILES_URL=s3://bucket needs obstore.*$"):
        open_blobs("s3://bucket", tmp_path)
