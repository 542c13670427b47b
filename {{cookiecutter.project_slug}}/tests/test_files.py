"""Files over real HTTP: who gets them, what the model is given, when they are deleted."""

import asyncio
import base64
import io
import json
import time
from pathlib import Path

import pytest
from PIL import Image

from app.context import context_for
from app.filetypes import PREVIEW_SIDE
from app.links import Links
from app.settings import Settings

from .sending import PDF, address, archive, on_disk, path_of, picture, send, sent, tried
from .serving import Words, thread_of
from .talking import talking

pytestmark = pytest.mark.anyio


async def test_an_image_is_shown_and_reaches_the_model(store_url: str, tmp_path: Path) -> None:
    """It is previewed at a new address in every answer, and given to the model as a picture."""
    model = Words(3, 0)
    async with talking(store_url, tmp_path, model) as caller:
        attachment = await sent(caller, picture(), "red.png", "image/png")
        assert (attachment["type"], attachment["mime_type"]) == ("image", "image/png")
        events = await caller.say("look", attachments=[attachment["id"]])
        shown = next(e["item"]["attachments"] for e in events if e["type"] == "thread.item.done")
        listed = (await caller.items(thread_of(events)))[0]["attachments"]
        async with caller.served.caller() as image_tag:
            for each in (attachment, *shown, *listed):
                assert "metadata" not in each
                preview = await image_tag.get(path_of(each["preview_url"]))
                assert preview.status_code == 200
                assert preview.headers["content-type"] == "image/jpeg"
                assert preview.headers["content-disposition"].startswith("inline")
                assert preview.headers["cross-origin-resource-policy"] == "cross-origin"
        parts = json.dumps(model.given)
        assert '"input_image"' in parts
        assert f"data:image/jpeg;base64,{base64.b64encode(preview.content).decode()}" in parts


async def test_a_download_is_not_a_page(store_url: str, tmp_path: Path) -> None:
    """HTML comes back as plain text, to be saved, and may do nothing."""
    async with talking(store_url, tmp_path) as caller:
        page = b"<html><script>alert(1)</script></html>"
        attachment = await sent(caller, page, "page.html", "text/html")
        answer = await caller.get(await address(caller, attachment["id"]))
        assert answer.content == page
        assert answer.headers["content-type"].startswith("text/plain")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-disposition"].startswith("attachment;")
        assert "sandbox" in answer.headers["content-security-policy"]
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert answer.headers["cache-control"].startswith("private")
        on_disk(tmp_path)[0].unlink()
        assert (await caller.get(await address(caller, attachment["id"]))).status_code == 404


async def test_only_addresses_are_signed(store_url: str, tmp_path: Path) -> None:
    """The addresses of images, in widgets too; what somebody wrote stays as it is."""
    async with talking(store_url, tmp_path) as caller:
        links, context = caller.served.app.state.files.links, context_for("a")
        signed = json.loads(links.sign(b'{"src":"preview:atc_1"}', context))["src"]
        assert links.opened(signed.partition("token=")[2], "preview", "atc_1") == context
        for text in (b'{"text":"preview:atc_1"}', json.dumps({"t": '"src":"preview:a"'}).encode()):
            assert links.sign(text, context) == text


def test_a_page_of_made_up_images_holds_nobody_up(tmp_path: Path) -> None:
    """A user's tags may name as many as they like; what is past a page's images stays unsigned."""
    links = Links(Settings(_env_file=None, data_dir=tmp_path))
    page = b"[%b]" % b",".join([b'{"src":"preview:a"}'] * 150_000)
    start = time.process_time()
    assert links.sign(page, context_for("a")).count(b"token=") == 2000
    assert time.process_time() - start < 1  # signing them all takes 5 s


async def test_an_address_is_for_one_file_one_purpose_and_a_while(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With any part changed, or too late: 404."""
    async with talking(store_url, tmp_path, file_link_seconds=100) as caller:
        one = await sent(caller, picture(), "a.png")
        two = await sent(caller, picture(), "b.png")
        url = await address(caller, one["id"])
        token = url.partition("token=")[2]
        for wrong in (
            url.replace(one["id"], two["id"]),
            url.replace("/file?", "/preview?"),
            url[:-1],
            f"/files/{one['id']}/file?token=",
            f"/files/{one['id']}/file?token=%ff{token}",
        ):
            assert (await caller.get(wrong)).status_code == 404, wrong
        put = url.replace("/file?", "/upload?")
        assert (await caller.put(put, content=b"x")).status_code == 404
        async with caller.served.caller() as anybody:
            assert (await anybody.get(url)).status_code == 200, "an image tag has no login"
        later = time.time() + 2 * 100
        monkeypatch.setattr("app.links.time.time", lambda: later)
        assert (await caller.get(url)).status_code == 404


async def test_a_foreign_file_is_an_unknown_file(store_url: str, tmp_path: Path) -> None:
    """Asking for it, using it and deleting it get the same bytes, and change nothing."""
    same = {"x-request-id": "same"}
    async with talking(store_url, tmp_path) as alice:
        theirs = (await sent(alice, picture(), "a.png"))["id"]
        async with alice.served.caller(**same) as bob:
            answers = []
            for each in (theirs, "atc_none"):
                asked = (
                    await bob.get(f"/files/{each}/url"),
                    await bob.op("attachments.delete", attachment_id=each),
                    await bob.ask("look", attachments=[each]),
                )
                answers.append([(answer.status_code, answer.content) for answer in asked])
            assert answers[0] == answers[1]
            assert [status for status, _ in answers[0]] == [404, 200, 404]
            assert (await bob.op("threads.list")).json()["data"] == []
        assert (await alice.get(await address(alice, theirs))).status_code == 200


async def test_a_file_of_one_thread_is_refused_in_another(store_url: str, tmp_path: Path) -> None:
    """It may be sent again in its own thread; a refusal leaves no empty thread behind."""
    async with talking(store_url, tmp_path) as caller:
        attachment = (await sent(caller, b"hello", "a.txt"))["id"]
        thread = thread_of(await caller.say("read", attachments=[attachment]))
        assert await tried(caller, attachment) == (409, "file_used")
        assert len((await caller.op("threads.list")).json()["data"]) == 1
        other = thread_of(await caller.say("hello"))
        refused = await caller.ask("read", other, attachments=[attachment])
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "file_used")
        another = (await sent(caller, b"more", "b.txt"))["id"]
        await caller.say("again", thread, attachments=[attachment, another])


async def test_all_files_of_a_user_have_a_quota(store_url: str, tmp_path: Path) -> None:
    """Parallel and announced uploads count too; deleted files no longer do."""
    async with talking(store_url, tmp_path, max_user_file_bytes=1000) as caller:
        await caller.op("threads.list")  # get the cookie before the parallel uploads
        answers = await asyncio.gather(*(send(caller, b"x" * 300, "a.txt") for _ in range(5)))
        assert sorted(a.status_code for a in answers) == [200, 200, 200, 413, 413]
        params = {"name": "b.txt", "size": 300, "mime_type": "text/plain"}
        assert (await caller.op("attachments.create", **params)).status_code == 413
        kept = next(a for a in answers if a.status_code == 200).json()["id"]
        await caller.op("attachments.delete", attachment_id=kept)
        assert (await caller.op("attachments.create", **params)).status_code == 200
        assert (await send(caller, b"x" * 300, "c.txt")).status_code == 413


async def test_a_deleted_thread_takes_its_files_along(store_url: str, tmp_path: Path) -> None:
    """Bytes and previews; other files stay."""
    async with talking(store_url, tmp_path) as caller:
        attachment = await sent(caller, picture(), "a.png")
        thread = thread_of(await caller.say("look", attachments=[attachment["id"]]))
        assert len(on_disk(tmp_path)) == 2
        other = await sent(caller, b"stay", "b.txt")
        assert (await caller.op("threads.delete", thread_id=thread)).status_code == 200
        assert (await caller.get(f"/files/{attachment['id']}/url")).status_code == 404
        assert len(on_disk(tmp_path)) == 1
        assert (await caller.get(await address(caller, other["id"]))).content == b"stay"


async def test_the_model_is_given_what_it_can_read(store_url: str, tmp_path: Path) -> None:
    """A PDF as a whole, text up to the limit, anything else as a description."""
    kinds = ["application/pdf", "text/plain", "application/octet-stream"]
    model = Words(3, 0)
    async with talking(store_url, tmp_path, model, file_types=kinds, max_text_chars=5) as caller:
        ids = [
            (await sent(caller, PDF, "a.pdf"))["id"],
            (await sent(caller, "\ufeffgrüße, alle".encode(), "b.txt"))["id"],
            (await sent(caller, archive(), "c.zip"))["id"],
        ]
        await caller.say("read", attachments=ids)
        pdf, text, other = model.given[0][-1]["content"][-3:]
        assert pdf["type"] == "input_file"
        assert pdf["file_data"] == f"data:application/pdf;base64,{base64.b64encode(PDF).decode()}"
        assert text["text"] == 'The file "b.txt":\ngrüße\n(cut after 5 characters)'
        assert "application/octet-stream" in other["text"]


async def test_a_file_that_is_gone_does_not_break_the_thread(
    store_url: str, tmp_path: Path
) -> None:
    """The model is told; the conversation goes on."""
    model = Words(3, 0)
    async with talking(store_url, tmp_path, model) as caller:
        attachment = (await sent(caller, picture(), "a.png"))["id"]
        thread = thread_of(await caller.say("look", attachments=[attachment]))
        await caller.op("attachments.delete", attachment_id=attachment)
        await caller.say("and now", thread)
        assert "no longer there" in json.dumps(model.given[-1])


async def test_a_file_that_cannot_be_read_does_not_break_the_thread(
    store_url: str, tmp_path: Path
) -> None:
    """A disk may lose one for good: the model is told, and each turn tries again."""
    model = Words(3, 0)
    async with talking(store_url, tmp_path, model) as caller:
        attachment = (await sent(caller, b"hello", "a.txt", "text/plain"))["id"]
        (path,) = on_disk(tmp_path)
        path.unlink()
        path.mkdir()  # no user, not even root, can read it
        thread = thread_of(await caller.say("read", attachments=[attachment]))
        await caller.say("and now", thread)
        assert "cannot be read just now" in json.dumps(model.given[-1])
        path.rmdir()
        path.write_bytes(b"hello")
        await caller.say("again", thread)
        assert "hello" in json.dumps(model.given[-1])


async def test_a_preview_is_upright_bounded_and_says_no_place(
    store_url: str, tmp_path: Path
) -> None:
    """It is turned as EXIF says and then has no EXIF; transparent areas become white."""
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    exif.get_ifd(0x8825)[1] = "N"  # GPS
    async with talking(store_url, tmp_path) as caller:
        data = picture("JPEG", (4000, 2000), exif=exif.tobytes())
        attachment = await sent(caller, data, "photo.jpg")
        preview = await caller.get(path_of(attachment["preview_url"]))
        with Image.open(io.BytesIO(preview.content)) as shown:
            assert shown.size == (PREVIEW_SIDE // 2, PREVIEW_SIDE)
            assert not shown.getexif()
        clear = io.BytesIO()
        Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(clear, "PNG")
        attachment = await sent(caller, clear.getvalue(), "clear.png")
        preview = await caller.get(path_of(attachment["preview_url"]))
        with Image.open(io.BytesIO(preview.content)) as shown:
            assert shown.getpixel((4, 4)) == (255, 255, 255)
