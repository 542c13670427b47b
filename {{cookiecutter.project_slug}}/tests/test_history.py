"""What the model is given of a conversation."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from agents import ToolOutputImage, ToolOutputText
from agents.models.chatcmpl_converter import Converter as ChatCompletions
from chatkit import types as t
from chatkit.widgets import DynamicWidgetRoot

from app.assistant import Chat
from app.context import RequestContext, context_for
from app.history import REMEMBERED_CHARS, Converter, length_of, load_history, tool_memory
from app.run import _choices
from app.store import ChatStore as Store

from .model_server import wrong_chat, wrong_input
from .serving import settings_for

pytestmark = pytest.mark.anyio
ANN = context_for("ann")
THREAD = t.ThreadMetadata(id="thr_1", created_at=datetime.now(UTC))


def base(item_id: str) -> dict[str, Any]:
    """Return what every item has."""
    return {"id": item_id, "thread_id": "thr_1", "created_at": datetime.now(UTC)}


def asked(item_id: str, text: str = "question", **fields: Any) -> t.UserMessageItem:
    """Return a user's message."""
    part = t.UserMessageTextContent(text=text)
    fields = {"content": [part], "inference_options": t.InferenceOptions()} | fields
    return t.UserMessageItem(**base(item_id), **fields)


def answered(item_id: str, text: str = "answer") -> t.AssistantMessageItem:
    """Return an answer."""
    source = t.URLSource(title="T", url="https://example.com")
    part = t.AssistantMessageContent(text=text, annotations=[t.Annotation(source=source)])
    return t.AssistantMessageItem(**base(item_id), content=[part])


def called(item_id: str, status: Any = "completed") -> t.ClientToolCallItem:
    """Return a call of a tool in the page."""
    call = {"call_id": "call_1", "name": "place", "arguments": {"a": 1}, "output": {"b": 2}}
    return t.ClientToolCallItem(**base(item_id), status=status, **call)


def remembered(item_id: str) -> t.HiddenContextItem:
    """Return what is remembered of a server tool's call."""
    return t.HiddenContextItem(**base(item_id), content=tool_memory("tool", "{}", "output"))


async def content_of(attachment: Any, context: RequestContext) -> Any:
    """Return the content of a file."""
    return {"type": "input_file", "filename": attachment.id}


def converter(files: int = 10) -> Converter:
    """Return a converter that makes the model's input."""
    return Converter(ANN, content_of, files)


async def loaded(store: Store, folder: Path, items: list[Any], **changes: Any) -> list[str]:
    """Store the items and return the ids of those that are loaded."""
    await store.save_thread(THREAD, ANN)
    for item in items:
        await store.add_thread_item("thr_1", item, ANN)
    chat = Chat(thread=THREAD, store=store, request_context=ANN)
    found = await load_history(chat, settings_for("", folder, **changes))
    return [item.id for item in found]


def turns(count: int, text: str = "question") -> list[t.ThreadItem]:
    """Return this many turns of a question, a tool call and an answer."""
    kinds = (("q", lambda i: asked(i, text)), ("t", remembered), ("a", answered))
    return [make(f"{kind}{n}") for n in range(count) for kind, make in kinds]


async def test_the_newest_turns_come_whole_and_in_order(store: Store, tmp_path: Path) -> None:
    """Eight items hold two turns of three; a third does not fit and is left out as a whole."""
    ids = await loaded(store, tmp_path, turns(20), history_items=8)
    assert ids == ["q18", "t18", "a18", "q19", "t19", "a19"]


async def test_a_number_of_characters_also_ends_the_history(store: Store, tmp_path: Path) -> None:
    """A turn that would exceed the budget is left out, and so is all that is older."""
    items = [*turns(3, "x" * 2000), asked("last")]  # the text's characters count, not its JSON
    ids = await loaded(store, tmp_path, items, history_chars=2400)
    assert ids == ["q2", "t2", "a2", "last"]


async def test_the_newest_turn_is_there_however_long_it_is(store: Store, tmp_path: Path) -> None:
    """A question is answered even if its tools have returned more than the budget."""
    items = [*turns(1), asked("q", "x" * 900), *[answered(f"y{n}", "y" * 900) for n in range(3)]]
    ids = await loaded(store, tmp_path, items, history_chars=1000)
    assert ids == ["q", "y0", "y1", "y2"]


async def test_the_newest_turn_begins_with_its_question_however_many_items_follow(
    store: Store, tmp_path: Path
) -> None:
    """Even if its tools were called more often than the budget has items."""
    items = [*turns(5), asked("q"), *[remembered(f"r{n:02}") for n in range(25)]]
    ids = await loaded(store, tmp_path, items, history_items=10)
    assert ids == ["q", *[f"r{n:02}" for n in range(25)]]


async def test_a_call_without_its_result_is_left_out() -> None:
    """Whether the page never answered or the user went on with something else."""
    items: list[t.ThreadItem] = [asked("q"), called("c1", "pending"), asked("q2"), called("c2")]
    given: list[Any] = await converter().convert(items)
    assert [item.get("call_id") for item in given] == [None, "c2", "c2"]


@pytest.mark.parametrize("arguments", ['{"a": 1}', '{"a": ', "null", "[1]", "free text"])
async def test_arguments_that_are_no_object_are_replayed_in_one(arguments: str) -> None:
    """Servers refuse every later turn that contains such a call."""
    content = tool_memory("look", arguments, "no")
    hidden = t.HiddenContextItem(**base("h"), content=content)
    given: list[Any] = await converter().convert([asked("q"), hidden])
    expected = {"a": 1} if arguments == '{"a": 1}' else {"input": arguments}
    assert json.loads(given[1]["arguments"]) == expected


def test_only_the_text_of_a_tools_output_is_remembered() -> None:
    """Not the bytes of a file, nor the repr of the SDK's classes."""
    image = ToolOutputImage(image_url="data:image/png;base64," + "A" * 100)
    output = [ToolOutputText(text="hi"), image]
    remembered = tool_memory("look", "{}", output)["output"]
    assert remembered == "hi\n(a file, shown to you at that time)"
    assert tool_memory("look", "{}", ["a", 1])["output"] == "['a', 1]"


async def test_a_threads_greeting_is_given(store: Store, tmp_path: Path) -> None:
    """What a team put before the user's first message, as long as the whole thread is given."""
    turn = [asked("u1"), answered("a1")]
    assert await loaded(store, tmp_path, [answered("hello"), *turn]) == ["hello", "u1", "a1"]
    assert await loaded(store, tmp_path, [asked("u2")], history_items=2) == ["u2"]


TAG = t.UserMessageTagContent(id="o1", text="Order 1", data={"total": 3}, group="order")
WIDGET = DynamicWidgetRoot.model_validate({"type": "Card", "children": []})
TASK = t.CustomTask(title="Looked", content="everywhere")
EVERY_KIND: list[t.ThreadItem] = [
    asked("u1", content=[t.UserMessageTextContent(text="look at "), TAG], quoted_text="the quote"),
    remembered("h1"),
    remembered("h2"),
    t.HiddenContextItem(**base("h3"), content="plain"),
    t.HiddenContextItem(**base("h4"), content={"any": ["value"]}),
    t.SDKHiddenContextItem(**base("h5"), content="stopped"),
    called("c1", "pending"),
    called("c2"),
    called("c3"),
    t.WidgetItem(**base("w1"), widget=WIDGET),
    t.WorkflowItem(**base("w2"), workflow=t.Workflow(type="custom", tasks=[TASK])),
    t.TaskItem(**base("t1"), task=TASK),
    t.GeneratedImageItem(**base("g1"), image=t.GeneratedImage(id="i", url="/files/x")),
    t.StructuredInputItem(
        **base("s1"), inputs=[t.StructuredInputFreeform(id="f", question="Why?")]
    ),
    t.EndOfTurnItem(**base("e1")),
    answered("a1"),
    answered("a2", ""),
    asked("u2", "and then?"),
]


async def test_every_kind_of_item_is_taken_by_both_apis() -> None:
    """No item breaks a turn: calls have results and their own ids, answers are plain text."""
    items = await converter().convert(EVERY_KIND)
    messages: list[Any] = list(ChatCompletions.items_to_messages(items))
    assert wrong_input(json.loads(json.dumps(items))) is None
    assert wrong_chat(json.loads(json.dumps(messages))) is None
    text = json.dumps(items)
    for part in ("Order 1", "the quote", "plain", "any", "stopped", "Looked", "Why?", "and then?"):
        assert part in text, part
    assert {"role": "assistant", "content": "answer"} in items


async def test_new_files_are_sent_and_old_ones_described() -> None:
    """The content of the newest files, the names of the older ones."""

    def file(name: str) -> t.UserMessageItem:
        known = {"id": name, "name": f"{name}.png", "mime_type": "image/png"}
        return asked(f"u-{name}", attachments=[t.FileAttachment(**known)])

    (item,) = await converter(2).convert([file("old"), file("new"), file("newest")])
    content: Any = item.get("content")
    assert content[1]["text"] == "(file 'old.png', image/png)"
    assert [content[n]["filename"] for n in (3, 5)] == ["new", "newest"]
    again = str(await converter(2).convert([file("old"), file("old")]))
    assert again.count("input_file") == 1
    silent = file("new").model_copy(update={"content": [t.UserMessageTextContent(text="")]})
    (item,) = await converter(2).convert([silent])
    content = item.get("content")
    assert [part["type"] for part in content] == ["input_file"]
    assert "input_file" not in str(await converter(0).convert([file("old"), file("new")]))


async def test_the_newest_pdfs_are_sent_up_to_a_size() -> None:
    """They go to the model as a whole, in every turn."""
    name = {"name": "a.pdf", "mime_type": "application/pdf", "metadata": {"size": 20 << 20}}
    text = t.FileAttachment(id="text", name="a.txt", mime_type="text/plain")
    files = [text, *(t.FileAttachment(id=f"f{n}", **name) for n in range(3))]
    items: list[t.ThreadItem] = [asked(f"u{file.id}", attachments=[file]) for file in files]
    given = str(await converter().convert(items))
    sent = [f"'filename': '{file.id}'" in given for file in files]
    assert sent == [True, False, False, True]


def test_an_image_takes_no_room_of_the_history() -> None:
    """A sentence tells the model that there was one, however long its address is.

    A quote counts as much as the text beside it.
    """
    image = t.GeneratedImage(id="i", url="data:image/png;base64," + "A" * 100_000)
    assert length_of(t.GeneratedImageItem(**base("i"), image=image)) == 0
    assert length_of(asked("q", "four", quoted_text="and eight")) == 13


async def test_only_the_beginning_of_a_long_output_is_remembered() -> None:
    """No call can fill the whole budget of the turns to come, not even one of the page's."""
    output = tool_memory("tool", "{}", "x" * 10**6)["output"]
    assert output == "x" * REMEMBERED_CHARS + "… (cut)"
    long = called("c").model_copy(update={"output": "x" * 10**6})
    given: list[Any] = await converter().convert([long])
    assert len(given[1]["output"]) == len(output)


async def test_your_own_converter_may_give_messages_as_strings() -> None:
    """The API allows it; two in a row still become one."""

    class Plain(Converter):
        async def user_message_to_input(self, item: Any, is_last_message: bool = True) -> Any:
            return {"role": "user", "content": f"asked {item.id}"}

    (given,) = await Plain(ANN, content_of, 0).convert([asked("u1"), asked("u2")])
    assert given.get("content") == "asked u1\nasked u2"


def test_a_hidden_note_after_a_message_keeps_its_choices() -> None:
    """Only what the page sent since then, such as a tool's output, ends the choice of a tool."""
    chosen = t.InferenceOptions(tool_choice=t.ToolChoice(id="look"))
    message = asked("u1", inference_options=chosen)
    assert _choices([message, remembered("h1")]) == chosen
    assert _choices([message, called("c1")]).tool_choice is None
