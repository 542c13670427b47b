"""What the plain client takes care of: clicks, keys, files, long lists, a small screen."""

import re

import pytest
from playwright.sync_api import Browser, Route, expect

from page.browsing import ABOUT, GAP, JS, Held, RunningApp, Visitor, one_store, until, visit

pytestmark = pytest.mark.product
PRESS = """(text, event) => text.dispatchEvent(
  new KeyboardEvent("keydown", { bubbles: true, cancelable: true, ...event }))"""
TALL = '<svg xmlns="http://www.w3.org/2000/svg" width="100" height="900"/>'
PHONE = {"viewport": {"width": 390, "height": 780}}


@one_store
def test_a_double_click_is_one_click(ada: Visitor) -> None:
    """On Send it stops nothing, on Stop it sends no draft; the first line keeps its indentation."""
    ada.open_fed()
    ada.box.fill("\n    indented\n  code ")
    ada.send.dblclick()
    ada.asks("threads.create")
    (part,) = ada.page.evaluate("turn.params.input.content")
    assert part["text"] == "    indented\n  code"
    ada.feed("thread.created", thread={"id": "thr_1"})
    ada.feed("progress_update", text="Looking")
    expect(ada.status).to_have_text("Looking")
    ada.box.fill("A draft")
    ada.button("Stop").dblclick()
    expect(ada.status).to_contain_text("Stopped.")
    ada.settle()
    expect(ada.box).to_have_value("A draft")
    expect(ada.send).to_be_visible()


@one_store
def test_keys_of_an_input_method_are_its_own(ada: Visitor) -> None:
    """An Enter that accepts a word sends nothing, an Escape that drops one stops nothing."""
    ada.open_fed()
    ada.begin_fed()
    ada.box.evaluate(PRESS, {"key": "Escape", "isComposing": True})
    ada.page.evaluate("end()")
    expect(ada.send).to_be_visible()
    expect(ada.status).to_be_empty()
    ada.box.fill("にほ")
    ada.box.evaluate(PRESS, {"key": "Enter", "keyCode": 229})
    ada.box.evaluate(PRESS, {"key": "Enter", "isComposing": True})
    expect(ada.send).to_be_visible()
    ada.box.fill("שלום")
    assert ada.box.evaluate("text => getComputedStyle(text).direction") == "rtl"


@one_store
def test_an_answer_keeps_what_was_opened_and_may_refuse_to_be_stopped(ada: Visitor) -> None:
    """Opened steps stay open, no way around a fixed answer works, its last message has “Again”."""
    ada.open_fed()
    ada.begin_fed()
    ada.feed("stream_options", stream_options={"allow_cancel": False})
    flow = {"type": "workflow", "id": "w", **ABOUT}
    flow["workflow"] = {"type": "custom", "tasks": [{"title": "One"}]}
    ada.feed("thread.item.added", item=flow)
    ada.page.get_by_text("Steps").click()
    expect(ada.page.get_by_text("One")).to_be_visible()
    task = {"type": "workflow.task.added", "task_index": 1, "task": {"title": "Two"}}
    ada.feed("thread.item.updated", item_id="w", update=task)
    expect(ada.page.get_by_text("Two")).to_be_visible()
    ada.attach("dot.png")
    expect(ada.page.get_by_role("listitem").locator("img")).to_be_visible()
    expect(ada.button("Stop")).to_be_disabled()
    ada.page.keyboard.press("Escape")
    part = {"type": "output_text", "text": "An answer", "annotations": []}
    message = {"type": "assistant_message", "id": "a", "content": [part], **ABOUT}
    ada.feed("thread.item.done", item=message)
    ada.feed("thread.item.done", item={"type": "end_of_turn", "id": "e", **ABOUT})
    ada.page.evaluate("end()")
    expect(ada.page.get_by_text("An answer")).to_be_visible()
    expect(ada.status).to_be_empty()
    expect(ada.button("Answer again")).to_be_visible()


@one_store
def test_a_fault_in_an_answer_is_reported_on_the_console(ada: Visitor) -> None:
    """It looks like a lost connection, but whoever fixes the page can see what it is."""
    said: list[str] = []
    ada.page.on("console", lambda message: said.append(message.text))
    ada.open_fed()
    ada.begin_fed()
    ada.feed("thread.item.done", item={"type": "widget", "id": "w", **ABOUT})
    expect(ada.button("Reload the chat")).to_be_visible()
    assert any("plain client TypeError" in line for line in said)


@one_store
def test_a_file_that_cannot_be_sent_leaves_the_composer(ada: Visitor) -> None:
    """An expired login and a proxy's page in place of an answer are reported, and no more."""

    def with_login(route: Route) -> None:
        source = (ada.app.project.path / "app/static/page.js").read_text()
        expires = 'if (window.expired) throw new Error("Log in again."); return "";'
        route.fulfill(body=source.replace('return "";', expires), content_type=JS)

    ada.page.route("**/static/page.js", with_login)
    ada.page.route("**/files", lambda route: route.fulfill(body="<html>", content_type="text/html"))
    ada.open()
    ada.attach("dot.png")
    expect(ada.status).to_have_text("dot.png: Refused (200).")
    ada.page.evaluate("window.expired = true")
    ada.attach("dot.png")
    expect(ada.status).to_have_text("Error: Log in again.")
    expect(ada.page.get_by_text("dot.png")).to_have_count(0)
    expect(ada.send).to_be_enabled()


@one_store
def test_a_page_of_history_that_failed_is_asked_for_again(ada: Visitor) -> None:
    """One lost request does not hide all that was said before."""
    ada.open_among(1).chat("Chat 0").click()
    expect(ada.messages).to_have_text(["In chat 0"])
    ada.fill(60)
    expect(ada.messages.last).to_be_in_viewport()
    log = ada.page.get_by_role("log")
    ada.page.route("**/chatkit", lambda route: route.abort(), times=1)
    log.evaluate("log => log.scrollTop = 100")
    expect(ada.status).to_contain_text("The server cannot be reached.")
    log.evaluate("log => log.scrollTop = 50")
    expect(ada.messages.first).to_have_text("In chat 0")
    ada.forgive("net::ERR")


@one_store
def test_older_chats_stay_in_the_list(ada: Visitor) -> None:
    """Asked for twice, they come once; and one that is opened does not hide the others."""
    ada.open_among(60)
    ada.button("Older chats").dblclick()
    expect(ada.chats).to_have_count(60)
    ada.chat("Chat 3").click()
    expect(ada.chat("Chat 3")).to_have_attribute("aria-current", "true")
    expect(ada.chats).to_have_count(60)


@one_store
def test_a_chat_that_ends_in_an_image_opens_at_its_end(ada: Visitor) -> None:
    """An image has no height until it has loaded."""
    ada.open_among(1).chat("Chat 0").click()
    expect(ada.messages).to_have_text(["In chat 0"])
    ada.fill(20)

    def with_image(route: Route) -> None:
        if route.request.post_data_json["type"] != "items.list":
            return route.fallback()
        page = route.fetch().json()
        image = {"type": "image", "id": "atc_1", "name": "Tall", "preview_url": "/tall.svg"}
        page["data"][0]["attachments"] = [image]
        return route.fulfill(json=page)

    ada.page.route("**/chatkit", with_image)
    tall = {"body": TALL, "content_type": "image/svg+xml"}
    ada.page.route("**/tall.svg", lambda route: route.fulfill(**tall))
    ada.reload()
    expect(ada.messages).to_have_count(21)
    expect(ada.messages.get_by_role("img")).to_have_js_property("naturalHeight", 900)
    until(ada.page, lambda: ada.page.get_by_role("log").evaluate(GAP) <= 1)


@one_store
def test_a_second_failure_keeps_the_focus(ada: Visitor) -> None:
    """Whoever presses “Try again” in vain goes on from the messages, not from the page's top."""
    ada.open_among(1)
    ada.page.route("**/chatkit", lambda route: route.abort())
    ada.chat("Chat 0").click()
    ada.button("Try again").press("Enter")
    expect(ada.page.get_by_role("log")).to_be_focused()
    expect(ada.button("Try again")).to_be_visible()
    ada.forgive("net::ERR")


@one_store
def test_a_phones_list_of_chats_hides_no_error(browser: Browser, app: RunningApp) -> None:
    """It is shown below the list; and the messages behind the list do not load page after page."""
    with visit(browser, app, **PHONE) as ada:
        ada.open_among(1)
        ada.button("Chats").click()
        ada.page.route("**/chatkit", lambda route: route.abort(), times=1)
        ada.page.once("dialog", lambda asked: asked.accept("Another title"))
        ada.button("Rename Chat 0").press("Enter")
        expect(ada.status).to_have_text("The server cannot be reached.")
        expect(ada.status).to_be_visible()
        ada.chat("Chat 0").click()
        expect(ada.messages).to_have_text(["In chat 0"])
        ada.fill(120)
        expect(ada.page.locator("article")).to_have_count(50)
        asked = Held(ada.page, "items.list")
        ada.button("Chats").click()
        ada.chat("Chat 0").click()
        asked.wait()
        ada.button("Chats").click()
        with ada.page.expect_response("**/chatkit"):
            asked.release()
        expect(ada.page.locator("article")).to_have_count(50)
        ada.settle()
        assert len(asked.routes) == 1
        ada.forgive("net::ERR")


@one_store
def test_many_files_leave_room_on_a_phone(browser: Browser, app: RunningApp) -> None:
    """Ten long names push neither Send nor the messages off the screen."""
    with visit(browser, app, **PHONE) as ada:
        ada.page.route("**/files", lambda route: route.fulfill(json={"id": "atc_1"}))
        ada.open()
        ada.attach(*(f"{n}{'name' * 30}.png" for n in range(10)))
        expect(ada.button(re.compile("^Remove"))).to_have_count(10)
        expect(ada.send).to_be_in_viewport(ratio=1)
        expect(ada.button("What can you do?")).to_be_in_viewport(ratio=1)
