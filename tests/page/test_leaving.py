"""A chat that is left while something is on its way, and what comes too late for it."""

import pytest
from playwright.sync_api import Route, expect

from page.browsing import ABOUT, ASKED, FED, JS, Held, Visitor, one_store, until

pytestmark = pytest.mark.product
TOOL = "get_time_zone: () => ({ time_zone: Intl.DateTimeFormat().resolvedOptions().timeZone })"
ANSWER = {"type": "assistant_message", "id": "a", **ABOUT}
ANSWER["content"] = [{"type": "output_text", "text": "An answer", "annotations": []}]


@one_store
def test_what_comes_too_late_for_a_chat_is_dropped(ada: Visitor) -> None:
    """Clicked twice and left for another: its messages and its lock are not the other's."""
    ada.open_among(2)
    held = Held(ada.page, "threads.get_by_id")
    ada.chat("Chat 0").dblclick()
    ada.chat("Chat 1").click()
    first, second, wanted = held.wait(3)
    wanted.continue_()
    expect(ada.messages).to_have_text(["In chat 1"])
    for late in (first, second):
        thread = late.fetch().json() | {"status": {"type": "locked", "reason": "Under review."}}
        late.fulfill(json=thread)
    ada.begin("Go on.")
    expect(ada.messages).to_have_text(["In chat 1", "Go on."])
    expect(ada.status).to_be_empty()


@one_store
def test_an_answer_that_was_left_can_be_returned_to(ada: Visitor) -> None:
    """It is waited for, can be stopped, takes no other chat's draft, and steals no focus."""
    ada.page.add_init_script(FED)
    ada.open_among(2).chat("Chat 0").click()
    expect(ada.messages).to_have_text(["In chat 0"])
    ada.box.fill("Go")
    ada.box.press("Enter")
    ada.asks("threads.add_user_message")
    ada.chat("Chat 1").click()
    expect(ada.messages).to_have_text(["In chat 1"])
    ada.box.fill("A draft")
    ada.feed("thread.item.done", item=ASKED)
    ada.chat("Chat 0").click()
    expect(ada.messages).to_have_text(["In chat 0"])
    expect(ada.status).to_have_text("Thinking…")
    expect(ada.button("Stop")).to_be_enabled()
    expect(ada.box).to_have_value("A draft")
    expect(ada.box).to_be_focused()  # the chat is open
    ada.button("Delete Chat 1").focus()
    ada.feed("thread.item.done", item=ANSWER)
    expect(ada.answers).to_contain_text("An answer")
    expect(ada.status).to_be_empty()
    ada.page.evaluate("end()")
    expect(ada.send).to_be_visible()
    ada.settle()
    expect(ada.button("Delete Chat 1")).to_be_focused()


@one_store
def test_a_new_chat_that_was_left_is_in_the_list(ada: Visitor) -> None:
    """Accepted, it appears without moving the focus to another row; refused, nothing happens."""
    ada.open_among(2)
    held = Held(ada.page, "threads.create")
    ada.box.fill("Question")
    ada.box.press("Enter")
    (refused,) = held.wait()
    ada.button("New chat").click()
    with ada.page.expect_response("**/chatkit", timeout=5000):
        refused.fulfill(status=429, json={"error": {"message": "Slowly, please."}})
    ada.settle()
    expect(ada.status).to_be_empty()
    expect(ada.box).to_have_value("Question")
    ada.box.press("Enter")
    held.wait(2)
    ada.button("New chat").click()
    ada.button("Delete Chat 0").focus()
    held.routes.pop().continue_()
    expect(ada.chat("Question")).to_be_visible()
    expect(ada.button("Delete Chat 0")).to_be_focused()
    expect(ada.messages).to_have_count(0)
    ada.forgive("429")


@one_store
def test_a_prompt_takes_neither_a_draft_nor_a_half_sent_file(ada: Visitor) -> None:
    """Both stay in the composer, for the next message."""
    uploads = Held(ada.page, url="**/files")
    ada.open()
    ada.box.fill("A draft")
    ada.attach("dot.png")
    row = ada.page.get_by_role("listitem").filter(has_text="dot.png")
    expect(row).to_be_visible()
    ada.button("What can you do?").click()
    expect(ada.messages).to_have_text(["What can you do?"])
    expect(ada.box).to_have_value("A draft")
    uploads.release()
    expect(row.locator("img")).to_be_visible()
    ada.page.keyboard.press("Escape")
    expect(ada.send).to_be_enabled()


@one_store
def test_a_message_sent_while_its_chat_loads_is_shown_once(ada: Visitor) -> None:
    """What was said before comes above it, and meanwhile nothing offers a new chat."""
    ada.open_among(1)
    held = Held(ada.page, "items.list")
    ada.chat("Chat 0").click()
    held.wait()
    expect(ada.button("What can you do?")).to_be_hidden()
    ada.begin("Go on.")
    held.release()
    expect(ada.messages).to_have_text(["In chat 0", "Go on."])


@one_store
def test_a_tool_and_a_widget_answer_in_their_own_chat(ada: Visitor) -> None:
    """The browser's answer goes to the chat that asked, even if another one is open."""

    def slow_tool(route: Route) -> None:
        source = (ada.app.project.path / "app/static/page.js").read_text()
        assert TOOL in source
        slow = "get_time_zone: () => new Promise((done) => (window.done = done))"
        route.fulfill(body=source.replace(TOOL, slow), content_type=JS)

    ada.page.route("**/static/page.js", slow_tool)
    ada.page.add_init_script(FED)
    ada.open_among(1)
    held = Held(ada.page, "threads.sync_custom_action")
    ada.begin_fed()
    action = {"type": "close", "payload": {}, "streaming": False}
    widget = {"type": "Button", "label": "Close", "onClickAction": action}
    widget = {"type": "widget", "id": "w", "widget": widget, **ABOUT}
    ada.feed("thread.item.done", item=widget)
    tool = {"type": "client_tool_call", "id": "t", "status": "pending", **ABOUT}
    tool |= {"name": "get_time_zone", "arguments": {}}
    ada.page.evaluate("end()")
    expect(ada.send).to_be_visible()
    ada.button("Close").click()
    (closed,) = held.wait()
    ada.box.fill("More")
    ada.send.click()
    ada.asks("threads.add_user_message")
    ada.feed("thread.item.done", item=tool)
    ada.page.evaluate("end()")
    until(ada.page, lambda: ada.page.evaluate("Boolean(window.done)"))
    ada.chat("Chat 0").click()
    expect(ada.messages).to_have_text(["In chat 0"])
    closed.fulfill(json={"updated_item": widget})
    ada.page.evaluate("done({time_zone: 'UTC'})")
    ada.asks("threads.add_client_tool_output")
    params = ada.page.evaluate("turn.params")
    assert params == {"thread_id": "thr_1", "result": {"time_zone": "UTC"}}
    ada.feed("thread.item.done", item=ANSWER)
    ada.page.evaluate("end()")
    ada.settle()
    expect(ada.answers).to_have_count(0)


@one_store
def test_a_stopped_retry_shows_the_old_answer_again(ada: Visitor) -> None:
    """The server keeps it unless something came in its place, and so does the page."""
    ada.open_fed()
    ada.begin_fed()
    ada.feed("thread.item.done", item=ANSWER)
    ada.feed("thread.item.done", item={"type": "end_of_turn", "id": "e", **ABOUT})
    ada.page.evaluate("end()")
    ada.button("Answer again").click()
    ada.asks("threads.retry_after_item")
    thought = {"type": "workflow", "id": "w", **ABOUT}
    thought["workflow"] = {"type": "reasoning", "tasks": [{"type": "thought", "content": "Hm."}]}
    ada.feed("thread.item.added", item=thought)
    expect(ada.page.get_by_text("Steps")).to_be_visible()
    expect(ada.page.get_by_text("An answer")).to_have_count(0)
    ada.page.keyboard.press("Escape")
    expect(ada.status).to_have_text("Stopped.")
    expect(ada.page.get_by_text("An answer")).to_be_visible()
    expect(ada.page.get_by_text("Steps")).to_have_count(0)


@one_store
def test_a_stop_before_the_first_word_offers_to_look(ada: Visitor) -> None:
    """Whether the server has the message is not known: the chat can be loaded again."""
    ada.open_among(1).chat("Chat 0").click()
    expect(ada.messages).to_have_text(["In chat 0"])
    held = Held(ada.page, "threads.add_user_message")
    ada.box.fill("Question")
    ada.box.press("Enter")
    held.wait()
    ada.button("Stop").click()
    expect(ada.status).to_have_text("Stopped. Reload the chat")
    expect(ada.box).to_have_value("Question")
    held.release()
    ada.button("Reload the chat").click()
    expect(ada.status).to_have_text("There is no answer yet. Try again")
    expect(ada.messages.first).to_have_text("In chat 0")


@one_store
def test_a_message_without_an_answer_may_get_one_later(ada: Visitor) -> None:
    """What failed an hour ago is tried again by a button; an answered chat offers none."""
    ada.open_among(1).chat("Chat 0").click()
    ada.status.get_by_role("button", name="Try again").click()
    expect(ada.answers).to_contain_text("“In chat 0”")
    expect(ada.send).to_be_visible()
    ada.reload()
    expect(ada.box).to_be_focused()
    expect(ada.answers).to_contain_text("“In chat 0”")
    expect(ada.status).to_be_empty()


@one_store
def test_another_chat_in_the_address_is_opened(ada: Visitor) -> None:
    """A bookmark to the same page changes only the address, and still opens its chat."""
    ada.open_among(2).chat("Chat 0").click()
    expect(ada.messages).to_have_text(["In chat 0"])
    first = ada.page.url.partition("#")[2]
    ada.chat("Chat 1").click()
    expect(ada.messages).to_have_text(["In chat 1"])
    ada.page.evaluate("id => { location.hash = id }", first)
    expect(ada.messages).to_have_text(["In chat 0"])


@one_store
def test_an_answer_without_a_word_is_not_shown(ada: Visitor) -> None:
    """Nor are its buttons, before a word has come and after a stop: a reload shows none either."""
    ada.open_fed()
    ada.begin_fed()
    empty = {"type": "output_text", "text": "", "annotations": []}
    ada.feed("thread.item.added", item=ANSWER | {"content": [empty]})
    ada.settle()
    expect(ada.answers).to_be_hidden()
    ada.page.keyboard.press("Escape")
    expect(ada.status).to_contain_text("Stopped.")
    expect(ada.button("Good answer")).to_be_hidden()
    ada.box.fill("Go on")
    ada.send.click()
    ada.asks("threads.add_user_message")
    ada.feed("thread.item.done", item=ANSWER | {"id": "b"})
    ada.page.evaluate("end()")
    expect(ada.button("Good answer")).to_be_visible()
