"""How the plain client treats its user: waiting, errors, refusals, the focus, the phone."""

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from page.browsing import GAP, RunningApp, Visitor, faults_of_axe, one_store, visit

pytestmark = pytest.mark.product
CONTRAST = """node => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d");
  const linear = (it) => (it <= 0.04 ? it / 12.92 : ((it + 0.055) / 1.055) ** 2.4);
  const light = (...layers) => {
    for (const layer of layers) [canvas.fillStyle = layer, canvas.fillRect(0, 0, 1, 1)];
    const [red, green, blue] = [...canvas.getImageData(0, 0, 1, 1).data].map((it) => it / 255);
    return 0.2126 * linear(red) + 0.7152 * linear(green) + 0.0722 * linear(blue) + 0.05;
  };
  const page = getComputedStyle(document.body).backgroundColor;
  const both = [light(page), light(page, getComputedStyle(node).borderTopColor)];
  return Math.max(...both) / Math.min(...both);
}"""
"""How much the edge of an element differs from the page (WCAG 2.2, 1.4.11: at least 3)."""
LOOKS = """status =>
  [getComputedStyle(status).color, getComputedStyle(status, "::before").content]"""


def refuse_type(page: Page, kind: str, status: int) -> None:
    """Let the server refuse one kind of request."""

    def reply(route: Route) -> None:
        if route.request.post_data_json["type"] != kind:
            return route.fallback()
        return route.fulfill(status=status, json={"error": {"message": "Slowly, please."}})

    page.route("**/chatkit", reply)


@one_store
def test_a_growing_composer_hides_nothing(ada: Visitor) -> None:
    """The log stays at its end while lines are typed, and where it is while older ones are read."""
    ada.open().say("First")
    ada.fill(30)
    log = ada.page.get_by_role("log")
    expect(ada.messages.last).to_be_in_viewport()
    before = log.bounding_box()
    ada.box.fill("\n".join("12345678"))
    ada.page.wait_for_timeout(200)
    after = log.bounding_box()
    assert before is not None
    assert after is not None
    assert after["height"] < before["height"] - 100
    assert log.evaluate(GAP) <= 1
    log.evaluate("log => log.scrollTop = 300")
    ada.page.wait_for_timeout(200)
    ada.box.fill("")
    ada.page.wait_for_timeout(200)
    assert log.evaluate("log => log.scrollTop") == 300


@one_store
def test_waiting_can_be_seen(ada: Visitor) -> None:
    """“Thinking…” stays until the answer shows something, or until the answer says what it does."""
    about = {"thread_id": "thr_1", "content": []}
    part = {"type": "output_text", "text": "", "annotations": []}
    change = {"type": "assistant_message.content_part.text_delta", "content_index": 0}
    added = {"type": "assistant_message.content_part.added", "content_index": 0, "content": part}
    ada.open_fed()
    ada.begin_fed()
    ada.feed("thread.item.added", item={"type": "assistant_message", "id": "a", **about})
    ada.feed("thread.item.updated", item_id="a", update=added)
    ada.settle()
    expect(ada.status).to_have_text("Thinking…")
    ada.feed("thread.item.updated", item_id="a", update=change | {"delta": "Half "})
    expect(ada.status).to_be_empty()
    ada.feed("progress_update", text="Looking")
    expect(ada.status).to_have_text("Looking")
    ada.feed("thread.item.updated", item_id="a", update=change | {"delta": "& whole"})
    expect(ada.status).to_be_empty()
    ada.feed("notice", level="info", message="Half of your share is used.")
    ada.feed("thread.item.updated", item_id="a", update=change | {"delta": "."})
    ada.settle()
    expect(ada.status).to_have_text("Half of your share is used.")
    ada.feed("progress_update", text="Looking again")
    ada.page.evaluate("end()")
    expect(ada.send).to_be_visible()
    expect(ada.status).to_be_empty()
    expect(ada.answers).to_contain_text("Half & whole.")


@one_store
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_an_error_does_not_look_like_a_note(browser: Browser, app: RunningApp, scheme: str) -> None:
    """It has a colour that can be read, and a sign for those who do not see the colour."""
    with visit(browser, app, color_scheme=scheme) as ada:
        ada.open().begin("Tell me much.")
        ada.page.keyboard.press("Escape")
        expect(ada.status).to_have_text("Stopped.")
        grey, nothing = ada.status.evaluate(LOOKS)
        refuse_type(ada.page, "threads.add_user_message", 429)
        ada.box.fill("Hello")
        ada.send.click()
        expect(ada.status).to_have_text("Slowly, please.")
        colour, sign = ada.status.evaluate(LOOKS)
        assert colour != grey
        assert (nothing, sign) == ("none", '"!" / "Error: "')
        faults_of_axe(ada.page)
        ada.page.unroute_all()
        ada.say("Hello")
        expect(ada.status).to_be_empty()
        assert ada.status.evaluate(LOOKS) == [grey, "none"]
        ada.forgive("429")


@one_store
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_edges_that_mean_something_can_be_seen(
    browser: Browser, app: RunningApp, scheme: str
) -> None:
    """Where to write, also while the focus is elsewhere, and which thumb was pressed."""
    with visit(browser, app, color_scheme=scheme) as ada:
        ada.open().say("Hello")
        ada.button("Good answer").click()
        expect(ada.button("Good answer")).to_have_attribute("aria-pressed", "true")
        assert ada.button("Bad answer").evaluate(CONTRAST) < 1.1
        assert ada.button("Good answer").evaluate(CONTRAST) >= 3
        assert ada.page.locator("#composer").evaluate(CONTRAST) >= 3


@one_store
def test_letters_have_the_size_that_the_user_has_set(ada: Visitor) -> None:
    """The one in the browser's settings, which is not its zoom."""
    browser = ada.page.context.new_cdp_session(ada.page)
    browser.send("Page.setFontSizes", {"fontSizes": {"standard": 24}})
    assert ada.open().box.evaluate("box => getComputedStyle(box).fontSize") == "24px"


@one_store
def test_what_is_offered_after_a_failure_helps(ada: Visitor) -> None:
    """Refused text stays, to be changed; a chat whose answer was lost can be loaded again."""
    ada.open().say("Hello")
    long = "x" * 33_000
    ada.box.fill(long)
    ada.box.press("Enter")
    expect(ada.status).to_have_text("A message may have at most 32,000 characters and 200 parts.")
    expect(ada.status.get_by_role("button")).to_have_count(0)
    expect(ada.box).to_have_value(long)
    expect(ada.box).to_be_focused()
    refuse_type(ada.page, "threads.retry_after_item", 429)
    ada.button("Answer again").click()
    expect(ada.status).to_have_text("Slowly, please.")
    expect(ada.answers.filter(has_text="“Hello”")).to_be_visible()
    ada.page.route("**/chatkit", lambda route: route.abort())
    ada.box.fill("Hello?")
    ada.box.press("Enter")
    expect(ada.status).to_have_text("The server cannot be reached. Reload the chat")
    ada.page.unroute_all()
    ada.button("Reload the chat").click()
    expect(ada.status).to_be_empty()
    expect(ada.box).to_have_value("Hello?")
    ada.forgive("413|429|net::ERR")


@one_store
def test_the_focus_is_never_lost(ada: Visitor) -> None:
    """It stays on a button that is rebuilt; if there is none, it goes to the messages."""
    ada.open()
    log = ada.page.get_by_role("log")
    ada.button("What time is it?").press("Enter")
    expect(log).to_be_focused()
    expect(ada.button("Close")).to_be_visible()
    expect(ada.send).to_be_visible()
    widget = ada.page.locator(".widget")
    before = widget.inner_text()
    ada.page.wait_for_timeout(1000)
    again = widget.get_by_role("button", name="Again")
    again.press("Enter")
    expect(widget).not_to_have_text(before, use_inner_text=True)
    expect(again).to_be_focused()
    expect(ada.send).to_be_visible()
    ada.button("Close").press("Enter")
    expect(ada.button("Close")).to_have_count(0)
    expect(log).to_be_focused()
    ada.button("Answer again").press("Enter")
    expect(ada.button("Close")).to_be_visible()
    expect(ada.send).to_be_visible()
    expect(log).to_be_focused()
    ada.page.once("dialog", lambda asked: asked.accept("The clock"))
    ada.button("Rename What time is it in UTC?").press("Enter")
    expect(ada.button("Rename The clock")).to_be_focused()


@one_store
def test_the_drawer_of_a_phone_says_whether_it_is_open(browser: Browser, app: RunningApp) -> None:
    """Escape closes it and stops no answer; the focus is on its button again."""
    with visit(browser, app, viewport={"width": 390, "height": 780}) as ada:
        ada.open().begin("Tell me much.")
        menu = ada.button("Chats")
        expect(menu).to_have_attribute("aria-expanded", "false")
        menu.click()
        expect(menu).to_have_attribute("aria-expanded", "true")
        ada.button("New chat").focus()
        ada.page.keyboard.press("Escape")
        expect(menu).to_have_attribute("aria-expanded", "false")
        expect(menu).to_be_focused()
        expect(ada.button("New chat")).to_be_hidden()
        expect(ada.send).to_be_visible()
        expect(ada.answers.last).to_contain_text("“Tell me much.”")
        menu.click()
        ada.button("New chat").click()
        expect(menu).to_have_attribute("aria-expanded", "false")
        expect(ada.box).to_be_focused()


@one_store
def test_a_refused_file_says_which_are_accepted(ada: Visitor) -> None:
    """The server names the type that it found, the page those in its settings."""
    ada.open()
    file = {"name": "a.bin", "mimeType": "application/octet-stream", "buffer": b"\x00\x01\xff"}
    ada.page.locator("input[type=file]").set_input_files(file)
    expect(ada.status).to_contain_text("a.bin: ")
    expect(ada.status).to_contain_text("octet-stream) are not accepted. These are: .png,")
    ada.forgive("415")
