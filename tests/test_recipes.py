"""Every recipe of a generated app, applied to a fresh one and run over HTTP."""

import base64
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from baked import BakedProject, Session, message
from kitchen import Call, Kitchen, ModelServer, Raw, recipes

pytestmark = [pytest.mark.product, pytest.mark.xdist_group("recipes")]


@pytest.fixture(scope="session")
def fresh(bake: Callable[..., BakedProject]) -> BakedProject:
    """Return an app with its environment; each recipe gets a copy."""
    project = bake()
    project.check("uv", "sync", "--quiet")
    return project


@pytest.fixture
def kitchen(fresh: BakedProject, tmp_path: Path) -> Kitchen:
    """Return a kitchen in which to try recipes."""
    return Kitchen(fresh, tmp_path)


def ask(user: Session, text: str) -> tuple[str, list[dict[str, Any]]]:
    """Send a first message; return the thread's id and the events."""
    events = user.events("threads.create", input=message(text))
    return events[0]["thread"]["id"], events


def items(user: Session, thread: str) -> list[dict[str, Any]]:
    """Return what is stored, oldest first."""
    found: list[dict[str, Any]] = json.loads(
        user.post("items.list", thread_id=thread, limit=100, order="asc")
    )["data"]
    return found


def given(model: ModelServer) -> str:
    """Return what the model was given last."""
    return json.dumps(model.given[-1]["input"], ensure_ascii=False)


def test_routes_of_your_own(kitchen: Kitchen) -> None:
    """A program asks and is answered; the list has the conversation; a stranger's is empty."""
    with kitchen.cook("Routes of your own", "Noted.") as (user, _):
        asked = json.loads(user.send("/notes", b'{"text": "milk"}'))
        assert asked["answer"] == "Noted."
        assert items(user, asked["thread_id"])[0]["content"][0]["text"] == "milk"
        assert json.loads(user.get("/notes")) == [{"id": asked["thread_id"], "title": "milk"}]
        assert json.loads(Session(user.url).get("/notes")) == []
        with pytest.raises(OSError, match="400"):
            user.send("/notes", b'{"text": 5}')
        with pytest.raises(OSError, match="413"):
            user.send("/notes", b'{"text": "%b"}' % (b"x" * 17_000))


FORM = b"""--x\r
Content-Disposition: form-data; name="file"; filename="a.csv"\r
\r
1
2
\r
--x--\r
"""


def test_a_tool_that_reads_the_users_files(kitchen: Kitchen) -> None:
    """It counts the rows of the conversation's file, and is told which file does not exist."""
    script = (Call("count_rows", '{"name": "a.csv"}'), Call("count_rows", '{"name": "b.csv"}'))
    with kitchen.cook("A tool that reads the user's files", *script, "Two.") as (user, model):
        sent = json.loads(user.send("/files", FORM, "multipart/form-data; boundary=x"))
        user.events("threads.create", input=message("count") | {"attachments": [sent["id"]]})
        assert "2 rows" in given(model)
        assert "There is no file 'b.csv'" in given(model)


def test_a_button_that_the_assistant_answers(kitchen: Kitchen) -> None:
    """The model is told the choice and answers; what was not offered is refused."""
    script = (Call("show_offers"), "Choose.", "The museum it is.")
    with kitchen.cook("A button that the assistant answers", *script) as (user, model):
        thread, _ = ask(user, "what can I do?")
        widget = items(user, thread)[1]
        click = {"thread_id": thread, "item_id": widget["id"]}
        action = widget["widget"]["children"][1]["onClickAction"]
        said = user.events("threads.custom_action", **click, action=action)[-1]
        assert said["item"]["content"][0]["text"] == "The museum it is."
        assert "The user chose: Museum." in given(model)
        forged = {"type": "offer.chosen", "payload": {"offer": "Moon"}}
        refused = user.events("threads.custom_action", **click, action=forged)[-1]
        assert refused["type"] == "error"
        assert len(model.given) == 3


def test_a_tool_in_the_users_browser(kitchen: Kitchen) -> None:
    """The call is the newest item and pending; its result goes to the model."""
    script = (Call("get_selection"), "You selected a chapter.")
    with kitchen.cook("A tool in the user's browser", *script) as (user, model):
        thread, events = ask(user, "what did I select?")
        call = items(user, thread)[-1]
        assert (call["type"], call["status"]) == ("client_tool_call", "pending")
        assert events[-1]["item"]["name"] == "get_selection"
        result = {"text": "chapter one"}
        events = user.events("threads.add_client_tool_output", thread_id=thread, result=result)
        assert events[-1]["item"]["content"][0]["text"] == "You selected a chapter."
        assert "chapter one" in given(model)


def test_a_call_that_the_page_never_answers(kitchen: Kitchen) -> None:
    """The user goes on instead, and so does the conversation."""
    with kitchen.cook("A tool in the user's browser", Call("get_selection")) as (user, model):
        thread, _ = ask(user, "what did I select?")
        assert user.say("never mind", thread)[1] == "answer 2"
        assert "get_selection" not in given(model)


def test_something_that_happens_on_the_page(kitchen: Kitchen) -> None:
    """The page is told what to do; nothing of it is in the thread."""
    call = Call("name_window", '{"title": "Chapter one"}')
    with kitchen.cook("Something that happens on the page", call, "Done.") as (user, _):
        thread, events = ask(user, "name it")
        (effect,) = [event for event in events if event["type"] == "client_effect"]
        assert (effect["name"], effect["data"]) == ("name_window", {"title": "Chapter one"})
        assert [item["type"] for item in items(user, thread)[1:]] == ["assistant_message"]


def test_progress_as_a_workflow(kitchen: Kitchen) -> None:
    """The steps appear one by one and are stored once each."""
    script = (Call("research", '{"question": "why?"}'), "It is 42.")
    with kitchen.cook("Progress as a workflow", *script) as (user, _):
        thread, events = ask(user, "research it")
        kinds = [event["update"]["type"] for event in events if "update" in event]
        assert kinds[:2] == ["workflow.task.updated", "workflow.task.added"]
        workflow = items(user, thread)[1]["workflow"]
        assert [task["title"] for task in workflow["tasks"]] == ["Planned", "Read"]
        assert workflow["summary"]["title"] == "Researched one page"


def test_answers_with_sources(kitchen: Kitchen) -> None:
    """The mark in the text has become a link in the same place."""
    call = Call("search_handbook", '{"words": "leave"}')
    answer = "You have 30 days [[leave]]. Enjoy [[made_up]]."
    with kitchen.cook("Answers with sources", call, answer) as (user, model):
        thread, _ = ask(user, "how much leave?")
        part = items(user, thread)[-1]["content"][0]
        assert part["text"] == "You have 30 days. Enjoy."
        (annotation,) = part["annotations"]
        assert annotation["source"]["url"] == "https://example.com/leave"
        assert annotation["index"] == len("You have 30 days")
        assert "30 days a year" in given(model)


def test_questions_with_choices(kitchen: Kitchen) -> None:
    """The questions are pending, then answered, and the model reads the answers."""
    with kitchen.cook("Questions with choices", Call("ask_about_trip"), "Off you go.") as pair:
        user, model = pair
        thread, _ = ask(user, "plan a trip")
        item = items(user, thread)[-1]
        assert (item["type"], item["status"]) == ("structured_input", "pending")
        answers = {"month": {"values": ["June"]}, "place": {"values": ["Lisbon"]}}
        events = user.events(
            "threads.add_structured_input",
            thread_id=thread,
            item_id=item["id"],
            input={"answers": answers},
        )
        assert events[-1]["item"]["content"][0]["text"] == "Off you go."
        assert items(user, thread)[1]["status"] == "answered"
        assert "In which month?: June" in given(model)
        assert "Where to?: Lisbon" in given(model)


def test_mentions(kitchen: Kitchen) -> None:
    """The route finds people, and the model is told what the app knows, not what the page sent."""
    with kitchen.cook("@-mentions") as (user, model):
        (found,) = json.loads(user.get("/people?q=ada"))
        tag = {"type": "input_tag", "id": found["id"], "text": found["title"]}
        tag |= {"data": {"topic": "forged"}, "group": found["group"]}
        user.events("threads.create", input=message("", content=[tag]))
        assert "Ada Lovelace works on mathematics." in given(model)
        assert "forged" not in given(model)


def test_a_guard_on_what_users_send(kitchen: Kitchen) -> None:
    """The user sees why; the model was not called; the next message is answered."""
    with kitchen.cook("A guard on what users send") as (user, model):
        thread, events = ask(user, "my card is 4111 1111 1111 1111")
        assert events[-1]["type"] == "error"
        assert events[-1]["message"].startswith("Please do not send card numbers")
        assert model.given == []
        assert user.say("hello", thread)[1] == "answer 1"
        assert "4111" not in given(model)


PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


SHOP = """#!/bin/sh
exec "{python}" -c '
from mcp.server.mcpserver import MCPServer

shop = MCPServer("shop")
shop.add_tool(lambda article: f"{{article}}: 7", name="in_stock", description="Count.")
shop.run()'
"""


def test_tools_of_an_mcp_server(kitchen: Kitchen, fresh: BakedProject, tmp_path: Path) -> None:
    """A separate process answers the model."""
    program = tmp_path / "shop-mcp"
    program.write_text(SHOP.format(python=fresh.path / ".venv" / "bin" / "python"))
    program.chmod(0o755)
    script = (Call("in_stock", '{"article": "chair"}'), "Seven.")
    with kitchen.cook("Tools of an MCP server", *script) as (user, model):
        _, events = ask(user, "how many chairs?")
        assert events[-1]["item"]["content"][0]["text"] == "Seven."
        assert "chair: 7" in given(model)


def test_generated_images(kitchen: Kitchen) -> None:
    """The image has an address that works, and is deleted with its thread."""
    call = {"type": "image_generation_call", "id": "ig_1", "status": "completed"}
    call["result"] = base64.b64encode(PIXEL).decode()
    with kitchen.cook("Generated images", Raw(call)) as (user, _):
        thread, _ = ask(user, "draw a dot")
        image = items(user, thread)[1]["image"]
        assert image["url"].startswith(f"{user.url}/files/")
        assert user.fetch(image["url"])
        user.post("threads.delete", thread_id=thread)
        with pytest.raises(OSError, match="404"):
            user.fetch(image["url"])


def test_a_tool_that_asks_for_approval(kitchen: Kitchen) -> None:
    """Nothing is sent before the click; a second click does nothing; the model is told."""
    call = Call("send_mail", '{"to": "ada@example.com", "text": "Hello"}')
    with kitchen.cook("A tool that asks for approval", call, "Look at it.") as (user, model):
        thread, _ = ask(user, "write to Ada")
        widget = items(user, thread)[1]
        action = widget["widget"]["confirm"]["action"]
        click = {"thread_id": thread, "item_id": widget["id"], "action": action}
        assert user.events("threads.custom_action", **click)[-1]["type"] == "thread.item.replaced"
        assert items(user, thread)[1]["widget"]["status"]["text"] == "Sent"
        again = user.events("threads.custom_action", **click)[-1]
        assert (again["type"], again["message"]) == ("error", "This email was already answered.")
        user.say("did it go?", thread)
        assert "Sent by the user: the email to ada@example.com." in given(model)


def test_every_recipe_is_tried(fresh: BakedProject) -> None:
    """A recipe without a test would rot."""
    names = {re.sub(r"\W+", "_", title.lower().replace("'", "")) for title in recipes(fresh)}
    assert {f"test_{name.strip('_')}" for name in names} <= set(globals())
