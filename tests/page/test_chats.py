"""The page in a real browser, on a real app with each of the four stores."""

import re

import pytest
from playwright.sync_api import Browser, expect

from page.browsing import RunningApp, Visitor, each_store, faults_of_axe, one_store, visit

pytestmark = pytest.mark.product


@each_store
def test_a_first_chat_survives_a_reload_and_remembers(ada: Visitor) -> None:
    """The answer streams, a reload shows the same thread, the next turn knows the first."""
    ada.open()
    assert "“My name is Ada.”" in ada.say("My name is Ada.")
    expect(ada.chats).to_have_count(1)
    ada.reload()
    expect(ada.messages).to_have_text(["My name is Ada."])
    assert "3 messages; the first was “My name is Ada.”" in ada.say("What is my name?")
    ada.button("New chat").click()
    expect(ada.messages).to_have_count(0)
    ada.chats.get_by_role("button", name=re.compile("^My name is Ada")).first.click()
    expect(ada.messages).to_have_text(["My name is Ada.", "What is my name?"])


@each_store
def test_two_browsers_are_two_users(browser: Browser, app: RunningApp, ada: Visitor) -> None:
    """A thread's address leads nobody but its owner to it."""
    ada.open().say("My secret is 42.")
    with visit(browser, app) as eve:
        eve.open(ada.page.url.removeprefix(app.url))
        expect(eve.chats).to_have_count(0)
        expect(eve.messages).to_have_count(0)
        expect(eve.status).to_have_text("There is no such thread, message or file.")
        eve.forgive("404")


@each_store
def test_a_stopped_answer_is_kept_as_far_as_it_was_shown(ada: Visitor) -> None:
    """Stop, then reload: what was read is there, and the next message is answered at once."""
    ada.open().begin("Tell me much.")
    expect(ada.answers.last).to_contain_text("offline model")
    ada.page.keyboard.press("Escape")
    expect(ada.status).to_have_text("Stopped.")
    seen = ada.answers.last.locator(".text").inner_text()
    assert "“Tell me much.”" not in seen
    ada.reload()
    kept = ada.answers.last.locator(".text").inner_text()
    assert kept.startswith(seen)
    assert "“Tell me much.”" not in kept
    assert "Go on." in ada.say("Go on.")


@each_store
def test_a_chat_is_renamed_and_deleted(ada: Visitor) -> None:
    """Both are done by keyboard, hold after a reload, and deleting asks first."""
    ada.open().say("Hello")
    ada.page.once("dialog", lambda asked: asked.accept("Über <b>alles</b>"))
    ada.button("Rename Hello").press("Enter")
    expect(ada.chats).to_have_text([re.compile("^Über <b>alles</b>")])
    ada.reload()
    expect(ada.chats).to_have_text([re.compile("^Über <b>alles</b>")])
    ada.page.once("dialog", lambda asked: asked.dismiss())
    ada.button("Delete Über <b>alles</b>").press("Enter")
    expect(ada.chats).to_have_count(1)
    ada.page.once("dialog", lambda asked: asked.accept())
    ada.button("Delete Über <b>alles</b>").click()
    expect(ada.chats).to_have_count(0)
    expect(ada.messages).to_have_count(0)
    ada.reload()
    expect(ada.chats).to_have_count(0)


@each_store
def test_an_image_is_sent_and_seen(ada: Visitor) -> None:
    """Its preview shows before it is sent, in the message, and after a reload."""
    ada.open()
    ada.attach("dot.png")
    row = ada.page.get_by_role("listitem").filter(has_text="dot.png")
    expect(row.locator("img")).to_be_visible()
    ada.say("Look at this.")
    expect(row).to_have_count(0)
    shown = ada.messages.get_by_role("img", name="dot.png")
    expect(shown).to_have_js_property("naturalWidth", 1)
    ada.reload()
    expect(shown).to_have_js_property("naturalWidth", 1)


@each_store
def test_markup_in_a_message_stays_text(ada: Visitor) -> None:
    """Neither the user's words, nor the model's, nor a title becomes an element."""
    attack = "<img src=x onerror=alert(1)><script>alert(1)</script>"
    ada.open()
    assert attack in ada.say(attack)
    ada.reload()
    expect(ada.messages).to_have_text([attack])
    expect(ada.answers).to_contain_text([attack])
    assert ada.page.locator("main img, main script").count() == 0


@each_store
def test_a_thousand_messages_are_scrolled(ada: Visitor) -> None:
    """Older messages come as one scrolls up to them, in order, and the place is kept."""
    ada.open().say("First")
    ada.fill(1000)
    log = ada.page.get_by_role("log")
    expect(ada.messages.last).to_have_text("Message number 999")
    expect(ada.messages.last).to_be_in_viewport()
    for _ in range(60):
        log.evaluate("log => log.scrollTop = 150")
        ada.page.wait_for_timeout(30)
        if ada.answers.count():
            break
    texts = ada.messages.all_inner_texts()
    assert texts == ["First", *(f"Message number {n}" for n in range(1000))]
    expect(ada.messages.last).not_to_be_in_viewport()
    ada.box.fill("Last")
    ada.send.click()
    expect(ada.answers.nth(1)).to_contain_text("Last”")
    expect(ada.answers.nth(1)).to_be_in_viewport()


@each_store
def test_the_page_outlives_its_server(browser: Browser, app: RunningApp) -> None:
    """Killed mid-answer and started again: the page says so, then goes on."""
    own = RunningApp(app.project, {"DATA_DIR": "killed"})
    try:
        own.start()
        with visit(browser, own) as ada:
            ada.open().say("Before")
            ada.begin("Tell me more.")
            own.end()
            expect(ada.status).to_contain_text("The server cannot be reached.")
            ada.box.fill("Not lost")
            ada.send.click()
            expect(ada.status).to_contain_text("The server cannot be reached.")
            expect(ada.box).to_have_value("Not lost")
            own.start()
            if app.project.answers["storage_type"] == "memory":
                ada.reload()
                expect(ada.status).to_contain_text("There is no such thread")
            else:
                ada.button("Reload the chat").click()
                expect(ada.messages.first).to_have_text("Before")
                ada.button("New chat").click()  # the old one waits for the dead turn's lease
            ada.say("After")
            ada.forgive("net::ERR|404")
    finally:
        own.end()


@one_store
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1200])
def test_everybody_can_use_it(browser: Browser, app: RunningApp, scheme: str, width: int) -> None:
    """axe-core finds no serious fault, nothing is wider than the screen, keys are enough."""
    size = {"width": width, "height": 780}
    with visit(browser, app, color_scheme=scheme, viewport=size) as ada:
        ada.open()
        faults_of_axe(ada.page)
        ada.say("What time is it, and how long is " + "a" * 200)
        faults_of_axe(ada.page)
        assert ada.page.evaluate("document.documentElement.scrollWidth") <= width
        grey = ada.status.evaluate("status => getComputedStyle(status).color")
        assert ada.box.evaluate("text => getComputedStyle(text, '::placeholder').color") == grey
        if width < 700:
            ada.button("Chats").click()
            faults_of_axe(ada.page)
            ada.button("Chats").click()
        ada.box.focus()
        ada.page.keyboard.press("Shift+Tab")
        expect(ada.button("Attach files")).to_be_focused()
