"""The official component: what it is given, and what takes its place if it cannot start."""

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Browser, Route, expect

from page.browsing import (
    HERE,
    JS,
    PNG,
    SCRIPT,
    RunningApp,
    Visitor,
    change_config,
    faults_of_axe,
    one_store,
    open_official,
    until,
    visit,
)

pytestmark = pytest.mark.product


@one_store
def test_the_client_says_what_it_is_and_production_goes_without(ada: Visitor) -> None:
    """It calls itself a development client; switched off, its address leads to ChatKit alone."""
    ada.open()
    expect(ada.page.get_by_text("A plain client for development")).to_be_visible()
    change_config(ada.page, plainClient=False)
    ada.page.reload()
    expect(ada.status).to_contain_text("ChatKit did not start")
    expect(ada.page.get_by_role("link")).to_have_count(0)
    ada.forgive(SCRIPT)


@one_store
@pytest.mark.parametrize("show", [open_official, Visitor.open])
def test_a_long_name_makes_no_page_wider_than_a_phone(
    browser: Browser, app: RunningApp, show: Callable[[Visitor], object]
) -> None:
    """It is cut, and what is below it keeps the width of the screen."""
    with visit(browser, app, viewport={"width": 360, "height": 640}) as ada:
        show(ada)
        name = ada.page.get_by_role("heading", level=1)
        name.evaluate("name => name.textContent = 'A company and its project'.repeat(3)")
        assert ada.page.evaluate("document.documentElement.scrollWidth") == 360


@one_store
def test_a_blocked_component_leads_to_the_plain_client(ada: Visitor) -> None:
    """The page says in one line what may be wrong, and a first chat works all the same."""
    ada.page.goto(ada.app.url)
    expect(ada.status).to_contain_text("no network, a blocked CDN or a wrong CHATKIT_DOMAIN_KEY")
    faults_of_axe(ada.page)
    ada.page.get_by_role("link", name="Open the plain client").click()
    assert "Hello" in ada.say("Hello")
    ada.forgive(SCRIPT)


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
    """A stand-in for the component records its options and holds a conversation with them."""
    page = ada.page
    page.emulate_media(color_scheme="dark")
    chatkit = open_official(ada)
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
    page.evaluate("void (Intl.DateTimeFormat = () => { throw new Error('denied') })")
    failed = page.evaluate("recorded[0].onClientTool({name: 'get_time_zone', params: {}})")
    assert failed == {"error": "Error: denied"}
    file = f"new File([new Uint8Array({list(PNG)})], 'dot.png', {{type: 'image/png'}})"
    made = chatkit.evaluate(f"chatkit => chatkit.upload({file})")
    assert made["type"] == "image"

    with page.expect_console_message() as logged:
        chatkit.evaluate("c => c.emit('chatkit.error', {error: new TypeError('a secret')})")
    expect(ada.status).to_contain_text("Something went wrong")
    expect(ada.status).not_to_contain_text("secret")
    assert re.fullmatch(r"chatkit.error TypeError [0-9a-f]{16}", logged.value.text)


@one_store
def test_a_thread_that_is_gone_is_not_restored(ada: Visitor) -> None:
    """The component would show an error; the page starts a new chat instead."""
    open_official(ada, "/#thr_gone")
    assert ada.page.evaluate("recorded[0].initialThread") is None
    ada.forgive("404")


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
def test_a_server_that_cannot_give_its_settings_is_named(ada: Visitor) -> None:
    """A proxy's error page is no reason to blame the network between the user and ChatKit."""
    ada.page.route("**/config.json", lambda route: route.fulfill(status=503, body="<h1>503</h1>"))
    ada.page.goto(ada.app.url)
    expect(ada.status).to_have_text("The server cannot be reached. Reload the page in a moment.")
    ada.forgive("503")


@one_store
def test_a_failure_forgets_no_bookmark(ada: Visitor) -> None:
    """Only a thread that is gone is not opened: a busy server may have it in a moment."""
    ada.page.route("**/chatkit", lambda route: route.fulfill(status=503, json={}))
    open_official(ada, "/#thr_kept")
    assert ada.page.evaluate("recorded[0].initialThread") == "thr_kept"
    ada.forgive("503")


@one_store
def test_with_finish_only_a_stopped_answer_is_stopped(ada: Visitor) -> None:
    """A cancelled upload or list is a closed connection and no more."""
    stops: list[str] = []
    change_config(ada.page, stopByRequest=True)
    ada.page.route("**/stop", lambda route: (stops.append(route.request.url), route.fulfill())[1])
    open_official(ada, "/#thr_1")
    ada.page.route("**/chatkit", lambda _: None)
    ada.page.route("**/files", lambda _: None)
    ada.page.evaluate(
        """async () => {
            const { url, uploadStrategy, fetch } = recorded[0].api;
            const cancel = async (where, body) => {
                const control = new AbortController();
                const asked = fetch(where, { method: "POST", body, signal: control.signal });
                await new Promise((done) => setTimeout(done));
                control.abort();
                await asked.catch(() => {});
            };
            await cancel(uploadStrategy.uploadUrl, new FormData());
            await cancel(url, '{"type":"threads.list"}');
            await cancel(url, '{"type":"threads.add_user_message"}');
        }"""
    )
    until(ada.page, lambda: stops)
    assert stops == [f"{ada.app.url}/threads/thr_1/stop"]
    ada.forgive("404")
