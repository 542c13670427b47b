"""The page in a real browser, on a real app with each of the four stores."""

import json
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright

from baked import STORAGES, BakedProject
from page.browsing import CHROMIUM_FLAGS, HERE, RunningApp, Visitor, visit

pytestmark = pytest.mark.product
JS = "text/javascript"
SCRIPT = "https://cdn.platform.openai.com/deployments/chatkit/chatkit.js"
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de"
    "0000000c49444154789c63606060000000040001f61738550000000049454e44ae426082"
)
STORES = [pytest.param(name, marks=pytest.mark.xdist_group(f"page-{name}")) for name in STORAGES]
ONE = [pytest.param("memory", marks=pytest.mark.xdist_group("page-memory"))]
each_store = pytest.mark.parametrize("app", STORES, indirect=True)
one_store = pytest.mark.parametrize("app", ONE, indirect=True)


@pytest.fixture(scope="module")  # its event loop would be in the way of other files' asyncio.run
def browser() -> Iterator[Browser]:
    """Start the system's Chromium; nothing is downloaded."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("no chromium on this machine: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=CHROMIUM_FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def app(request: pytest.FixtureRequest, bake: Callable[..., BakedProject]) -> Iterator[RunningApp]:
    """Bake and run an app with one store, for all the tests of that store."""
    app = RunningApp(bake(storage_type=request.param))
    try:
        app.start()
        yield app
    finally:
        app.end(signal.SIGTERM)


@pytest.fixture
def ada(browser: Browser, app: RunningApp) -> Iterator[Visitor]:
    """Give a user with a browser."""
    with visit(browser, app, locale="de-AT", timezone_id="Europe/Lisbon") as visitor:
        yield visitor


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
        eve.faults = [fault for fault in eve.faults if "404" not in fault]


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
    ada.page.locator("input[type=file]").set_input_files(
        {"name": "dot.png", "mimeType": "image/png", "buffer": PNG}
    )
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
    """Neither the user's words, nor the model's, nor a title become elements."""
    attack = "<img src=x onerror=alert(1)><script>alert(1)</script>"
    ada.open()
    assert attack in ada.say(attack)
    ada.reload()
    expect(ada.messages).to_have_text([attack])
    expect(ada.answers).to_contain_text([attack])
    assert ada.page.locator("main img, main script").count() == 0


@each_store
def test_a_thousand_messages_are_scrolled(app: RunningApp, ada: Visitor) -> None:
    """Older messages come as one scrolls up to them, in order, and the place is kept."""
    ada.open().say("First")
    thread = ada.page.url.partition("#")[2]
    ada.page.request.post(f"{app.url}/fill/{thread}/1000", headers={"Origin": app.url})
    ada.reload()
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
    expect(ada.answers.nth(1)).to_contain_text("“Last”")
    expect(ada.answers.nth(1)).to_be_in_viewport()


@each_store
def test_the_page_outlives_its_server(
    browser: Browser, app: RunningApp, bake: Callable[..., BakedProject]
) -> None:
    """Killed in mid-answer and started again: the page says so, then goes on."""
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
            ada.faults = [fault for fault in ada.faults if "net::ERR" not in fault]
            ada.faults = [fault for fault in ada.faults if "404" not in fault]
    finally:
        own.end()


@one_store
def test_what_an_answer_offers(ada: Visitor) -> None:
    """A widget's buttons, a thumb, and the same question answered again."""
    ada.open().say("What time is it?")
    widget = ada.answers.filter(has=ada.page.locator(".widget"))
    expect(widget).to_contain_text("in UTC")
    before = widget.inner_text()
    ada.page.wait_for_timeout(1000)
    ada.button("Again").first.click()
    expect(widget).not_to_have_text(before)
    expect(ada.send).to_be_visible()
    ada.button("Close").click()
    expect(ada.button("Close")).to_have_count(0)
    ada.button("Good answer").click()
    expect(ada.button("Good answer")).to_have_attribute("aria-pressed", "true")
    ada.button("Answer again").click()
    expect(ada.button("Close")).to_be_visible()
    expect(ada.send).to_be_visible()
    expect(ada.messages).to_have_count(1)
    expect(widget).to_have_count(1)


@one_store
def test_all_that_the_protocol_may_send_is_shown(ada: Visitor) -> None:
    """Steps, sources, images, notices, the browser's tools, an error with a second try."""
    about = {"thread_id": "thr_1", "created_at": "2026-01-01T00:00:00"}
    user = {"type": "user_message", "id": "u", "content": [], "attachments": [], **about}
    source = {"source": {"type": "url", "title": "A book", "url": "https://x.example"}}
    part = {"type": "output_text", "text": "", "annotations": []}
    answer = {"type": "assistant_message", "id": "a", "content": [part], **about}
    whole = part | {"text": "Half & whole", "annotations": [source]}
    flow = {"type": "custom", "tasks": [], "summary": {"title": "Thinking"}, "expanded": True}
    delta = {"type": "assistant_message.content_part.text_delta", "content_index": 0}
    stream = [
        {"type": "thread.created", "thread": {"id": "thr_1"}},
        {"type": "stream_options", "stream_options": {"allow_cancel": True}},
        {"type": "thread.item.done", "item": user},
        {"type": "progress_update", "text": "Looking"},
        {"type": "thread.item.added", "item": {"type": "workflow", "id": "w", "workflow": flow}},
        update("w", type="workflow.task.added", task_index=0, task={"title": "First step"}),
        {"type": "thread.item.added", "item": answer},
        update("a", **delta, delta="Half "),
        update("a", **delta, delta="& whole"),
        {
            "type": "thread.item.done",
            "item": answer | {"content": [whole]},
        },
        {"type": "thread.item.done", "item": {"type": "end_of_turn", "id": "e"}},
        {"type": "notice", "level": "info", "message": "Half of your share is used."},
        {
            "type": "thread.item.done",
            "item": {
                "type": "client_tool_call",
                "id": "t",
                "status": "pending",
                "name": "get_time_zone",
                "arguments": {},
            },
        },
    ]
    broken = [{"type": "error", "code": "custom", "message": "Too long.", "allow_retry": True}]
    answers = {
        "threads.list": {"data": [], "has_more": False},
        "threads.create": stream,
        "threads.add_client_tool_output": broken,
        "threads.retry_after_item": [{"type": "thread.item.done", "item": answer | {"id": "b"}}],
    }
    asked: list[dict[str, Any]] = []

    def reply(route: Route) -> None:
        asked.append(route.request.post_data_json)
        said = answers[asked[-1]["type"]]
        if isinstance(said, dict):
            route.fulfill(json=said)
        else:
            body = "".join(f": beat\n\ndata: {json.dumps(event)}\n\n" for event in said)
            route.fulfill(body=body, content_type="text/event-stream")

    ada.page.route("**/chatkit", reply)
    ada.open()
    ada.box.fill("Go")
    ada.send.click()
    expect(ada.status).to_contain_text("Too long.")
    expect(ada.page.get_by_text("Thinking")).to_be_visible()
    ada.page.get_by_text("Thinking").click()
    expect(ada.page.get_by_text("First step")).to_be_visible()
    expect(ada.page.get_by_text("Half & whole")).to_be_visible()
    expect(ada.page.get_by_text("Source: A book")).to_be_visible()
    assert asked[-1]["params"]["result"] == {"time_zone": "Europe/Lisbon"}
    ada.status.get_by_role("button", name="Try again").click()
    expect(ada.status).to_be_empty()
    assert asked[-1]["params"] == {"thread_id": "thr_1", "item_id": "u"}
    expect(ada.page.get_by_text("Half & whole")).to_have_count(0)


def update(item_id: str, **change: object) -> dict[str, object]:
    """Return the event of a change to an item."""
    return {"type": "thread.item.updated", "item_id": item_id, "update": change}


@one_store
def test_a_locked_chat_is_read_only(ada: Visitor) -> None:
    """It says why, and takes nothing; the next one does."""
    ada.open().say("Hello")

    def lock(route: Route) -> None:
        if route.request.post_data_json["type"] != "threads.get_by_id":
            return route.fallback()
        thread = route.fetch().json() | {"status": {"type": "locked", "reason": "Under review."}}
        return route.fulfill(json=thread)

    ada.page.route("**/chatkit", lock)
    ada.page.reload()
    expect(ada.status).to_have_text("Under review.")
    expect(ada.box).to_be_disabled()
    expect(ada.send).to_be_disabled()
    ada.button("New chat").click()
    expect(ada.box).to_be_enabled()


@one_store
def test_with_finish_stop_is_a_request_of_its_own(ada: Visitor) -> None:
    """ON_DISCONNECT=finish lets an answer outlive its connection, so Stop has to say more."""
    change_config(ada.page, stopByRequest=True)
    ada.open().begin("Tell me much.")
    with ada.page.expect_response("**/threads/*/stop") as stopped:
        ada.button("Stop").click()
    assert stopped.value.ok


@one_store
def test_a_file_is_removed_before_it_is_sent(ada: Visitor) -> None:
    """What was taken out of the composer is not in the message, and a refused file says why."""
    ada.open()
    picker = ada.page.locator("input[type=file]")
    for name in ("kept.png", "removed.png"):
        picker.set_input_files({"name": name, "mimeType": "image/png", "buffer": PNG})
        expect(ada.button(f"Remove {name}")).to_be_visible()
        expect(ada.send).to_be_enabled()
    with ada.page.expect_request(lambda request: "attachments.delete" in (request.post_data or "")):
        ada.button("Remove removed.png").click()
    picker.set_input_files({"name": "empty.png", "mimeType": "image/png", "buffer": b""})
    expect(ada.status).to_contain_text("empty")
    ada.say("One is left.")
    expect(ada.messages.get_by_role("img")).to_have_count(1)
    ada.faults = [fault for fault in ada.faults if "400" not in fault]


@one_store
def test_a_refusal_is_shown_in_the_server_s_words(ada: Visitor) -> None:
    """What was typed stays, and nothing is sent twice."""
    ada.open()
    ada.page.route(
        "**/chatkit",
        lambda route: route.fulfill(status=429, json={"error": {"message": "Slowly, please."}}),
    )
    ada.box.fill("Hello")
    ada.send.click()
    expect(ada.status).to_have_text("Slowly, please.")
    expect(ada.box).to_have_value("Hello")
    ada.faults = [fault for fault in ada.faults if "429" not in fault]


@one_store
def test_the_client_says_what_it_is_and_production_goes_without(ada: Visitor) -> None:
    """It calls itself a development client; switched off, its address leads to ChatKit alone."""
    ada.open()
    expect(ada.page.get_by_text("A plain client for development")).to_be_visible()
    change_config(ada.page, plainClient=False)
    ada.page.reload()
    expect(ada.status).to_contain_text("ChatKit did not start")
    expect(ada.page.get_by_role("link")).to_have_count(0)
    ada.faults = [fault for fault in ada.faults if SCRIPT not in fault]


@one_store
def test_a_blocked_component_leads_to_the_plain_client(ada: Visitor) -> None:
    """The page says in one line what may be wrong, and a first chat works all the same."""
    ada.page.goto(ada.app.url)
    expect(ada.status).to_contain_text("no network, a blocked CDN or a wrong CHATKIT_DOMAIN_KEY")
    faults_of_axe(ada.page)
    ada.page.get_by_role("link", name="Open the plain client").click()
    assert "Hello" in ada.say("Hello")
    ada.faults = [fault for fault in ada.faults if SCRIPT not in fault]


@one_store
def test_a_component_that_is_not_ready_in_time_is_given_up(ada: Visitor) -> None:
    """A wrong key leaves a blank frame and no event: only time tells."""
    stand_in = (HERE / "chatkit.js").read_text().replace('this.emit("chatkit.ready")', "")
    ada.page.route(SCRIPT, lambda route: route.fulfill(body=stand_in, content_type=JS))
    change_config(ada.page, waitSeconds=0.3)
    ada.page.goto(ada.app.url)
    expect(ada.status).to_contain_text("ChatKit did not start")
    ada.page.evaluate("""document.querySelector("openai-chatkit").emit("chatkit.ready")""")
    expect(ada.status).to_be_hidden()


@one_store
def test_the_official_component_gets_all_it_needs(ada: Visitor) -> None:
    """A stand-in for the component notes its options and holds a conversation with them."""
    page = ada.page
    page.emulate_media(color_scheme="dark")
    official(page)
    page.goto(ada.app.url)
    chatkit = page.locator("openai-chatkit")
    expect(chatkit).to_have_text("What can I help with today?")
    options = page.evaluate("JSON.parse(JSON.stringify(recorded.at(-1)))")
    assert options["api"] == {
        "url": f"{ada.app.url}/chatkit",
        "domainKey": "domain_pk_localhost_dev",
        "uploadStrategy": {"type": "direct", "uploadUrl": f"{ada.app.url}/files"},
    }
    assert options["history"] == {"enabled": True, "showDelete": True, "showRename": True}
    assert options["threadItemActions"] == {"feedback": True, "retry": True}
    assert options["composer"]["attachments"]["enabled"]
    assert options["composer"]["attachments"]["accept"]["image/jpeg"] == [".jpg", ".jpeg"]
    assert (options["theme"], options["locale"]) == ({"colorScheme": "dark"}, "de-AT")
    assert len(options["startScreen"]["prompts"]) == 3
    assert options["initialThread"] is None

    with page.expect_request("**/chatkit") as sent:
        said = chatkit.evaluate("chatkit => chatkit.sendUserMessage({text: 'Hello, chat'})")
    assert "“Hello, chat”" in said
    assert re.fullmatch(r"[0-9a-f]{16}", sent.value.headers["x-request-id"])
    assert sent.value.headers["accept-language"] == "de-AT"
    page.emulate_media(color_scheme="light")
    expect(chatkit).to_have_attribute("data-scheme", "light")

    thread = page.url.partition("#")[2]
    assert thread.startswith("thr_")
    page.reload()
    expect(chatkit).to_have_text("What can I help with today?")
    assert page.evaluate("recorded[0].initialThread") == thread
    found = page.evaluate("recorded[0].entities.onTagSearch('hello')")
    assert [(entity["id"], entity["title"]) for entity in found] == [(thread, "Hello, chat")]
    answer = page.evaluate("recorded[0].onClientTool({name: 'get_time_zone', params: {}})")
    assert set(answer) == {"time_zone"}
    assert "error" in page.evaluate("recorded[0].onClientTool({name: 'rm', params: {}})")
    file = f"new File([new Uint8Array({list(PNG)})], 'dot.png', {{type: 'image/png'}})"
    made = chatkit.evaluate(f"chatkit => chatkit.upload({file})")
    assert made["type"] == "image"

    chatkit.evaluate("c => c.emit('chatkit.error', {error: new TypeError('a secret')})")
    expect(ada.status).to_contain_text("Something went wrong")
    expect(ada.status).not_to_contain_text("secret")


@one_store
def test_a_thread_that_is_gone_is_not_restored(ada: Visitor) -> None:
    """The component would show an error; the page starts a new chat instead."""
    official(ada.page)
    ada.page.goto(f"{ada.app.url}/#thr_gone")
    expect(ada.page.locator("openai-chatkit")).to_have_text("What can I help with today?")
    assert ada.page.evaluate("recorded[0].initialThread") is None
    ada.faults = [fault for fault in ada.faults if "404" not in fault]


@one_store
def test_a_bearer_token_goes_to_the_app_and_nowhere_else(ada: Visitor) -> None:
    """A team's `token()` is asked before each request; foreign addresses never see its answer."""

    def with_token(route: Route) -> None:
        source = (ada.app.project.path / "app/static/page.js").read_text()
        route.fulfill(body=source.replace('return "";', 'return "abc";'), content_type=JS)

    ada.page.route("**/static/page.js", with_token)
    with ada.page.expect_request("**/chatkit") as own:
        ada.open()
    assert own.value.headers["authorization"] == "Bearer abc"
    headers = ada.page.evaluate(
        """async () => {
            const page = await import(new URL("static/page.js", document.baseURI));
            return [...(await page.headersFor("https://files.example/x", {a: "b"})).keys()];
        }"""
    )
    assert headers == ["a"]


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
        if width < 700:
            ada.button("Chats").click()
            faults_of_axe(ada.page)
            ada.button("Chats").click()
        ada.box.focus()
        ada.page.keyboard.press("Shift+Tab")
        expect(ada.button("Attach files")).to_be_focused()


def test_a_hostile_name_is_text_in_the_page(bake: Callable[..., BakedProject]) -> None:
    """The app's name is its title and heading, whatever it is made of."""
    name = """</title><img src=x onerror=alert(1)> & "Söhne's" 🚀"""
    project = bake(project_name=name, project_slug="hostile")

    class Reader(HTMLParser):
        """Notes each tag with the text that follows it."""

        def __init__(self) -> None:
            super().__init__()
            self.found: list[list[str]] = [["", ""]]

        def handle_starttag(self, tag: str, attrs: object) -> None:
            self.found.append([tag, ""])

        def handle_data(self, data: str) -> None:
            self.found[-1][1] += data

    reader = Reader()
    reader.feed((project.path / "app/static/index.html").read_text(encoding="utf-8"))
    texts = {tag: text.strip() for tag, text in reader.found}
    assert (texts["title"], texts["h1"]) == (name, name)
    assert "img" not in texts


def change_config(page: Page, **changes: object) -> None:
    """Let the page read other values from /config.json than the server gave."""

    def change(route: Route) -> None:
        route.fulfill(json=route.fetch().json() | changes)

    page.route("**/config.json", change)


def official(page: Page) -> None:
    """Give the stand-in where the component would come from its CDN."""
    page.route(SCRIPT, lambda route: route.fulfill(path=HERE / "chatkit.js", content_type=JS))


def faults_of_axe(page: Page) -> None:
    """Assert that axe-core finds nothing serious."""
    found = Axe().run(page).response["violations"]
    serious = [fault for fault in found if fault["impact"] in ("serious", "critical")]
    assert [(fault["id"], fault["nodes"][0]["html"]) for fault in serious] == []
