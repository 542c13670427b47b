"""Records to store: one of every kind, with content that is hard to store."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from chatkit.actions import ActionConfig
from chatkit.types import (
    ActiveStatus,
    Annotation,
    AssistantMessageContent,
    AssistantMessageItem,
    Attachment,
    AttachmentUploadDescriptor,
    ClientToolCallItem,
    ClosedStatus,
    CustomSummary,
    CustomTask,
    DurationSummary,
    EndOfTurnItem,
    EntitySource,
    FileAttachment,
    FileSource,
    FileTask,
    GeneratedImage,
    GeneratedImageItem,
    HiddenContextItem,
    ImageAttachment,
    ImageTask,
    InferenceOptions,
    LockedStatus,
    SDKHiddenContextItem,
    SearchTask,
    StructuredInputAnswer,
    StructuredInputFreeform,
    StructuredInputItem,
    StructuredInputMultipleChoice,
    StructuredInputMultipleChoiceOption,
    TaskItem,
    ThoughtTask,
    ThreadItem,
    ThreadMetadata,
    ThreadStatus,
    ToolChoice,
    URLSource,
    UserMessageItem,
    UserMessageTagContent,
    UserMessageTextContent,
    WidgetItem,
    Workflow,
    WorkflowItem,
)
from chatkit.widgets import Button, Card, ListView, ListViewItem, Text
from pydantic import AnyUrl

from app.context import context_for

ALICE = context_for("alice")
BOB = context_for("bob")
NOON = datetime.fromisoformat("2026-01-01T12:00:00.123456")  # naive, as the SDK's own are
INDIA = timezone(timedelta(hours=5, minutes=30))
STRANGE = 'NUL \0, emoji 👩‍👩‍👧, عربى, a\u2028b, \ufffd, "quotes", \\ back, {braces}, %s, \x7f\x1b'
BASE: dict[str, Any] = {"thread_id": "t", "created_at": NOON}


def at(seconds: float) -> datetime:
    """Return a naive time some seconds after noon."""
    return NOON + timedelta(seconds=seconds)


def thread(thread_id: str = "t", created_at: datetime = NOON, title: str = "") -> ThreadMetadata:
    """Return a thread with a title."""
    return ThreadMetadata(id=thread_id, created_at=created_at, title=title or f"About {thread_id}")


def message(
    item_id: str, text: str = "", created_at: datetime = NOON, thread_id: str = "t"
) -> AssistantMessageItem:
    """Return an assistant's message."""
    content = [AssistantMessageContent(text=text or f"Text of {item_id}")]
    return AssistantMessageItem(
        id=item_id, thread_id=thread_id, created_at=created_at, content=content
    )


def file(attachment_id: str, thread_id: str | None = None, name: str = "a.txt") -> FileAttachment:
    """Return an attachment's record."""
    return FileAttachment(id=attachment_id, name=name, mime_type="text/plain", thread_id=thread_id)


STATUSES: list[ThreadStatus] = [
    ActiveStatus(),
    LockedStatus(reason="paid plan only"),
    LockedStatus(),
    ClosedStatus(reason=STRANGE),
    ClosedStatus(),
]

ATTACHMENTS: list[Attachment] = [
    FileAttachment(
        id="f1",
        name=STRANGE,
        mime_type="text/plain",
        metadata={"size": 7, "nested": [None, {"": STRANGE}]},
        upload_descriptor=AttachmentUploadDescriptor(
            url=AnyUrl("https://files.example/f1?a=1&b=ä"), method="PUT", headers={"X-A": "1"}
        ),
    ),
    ImageAttachment(
        id="f2", name="cat.png", mime_type="image/png", preview_url=AnyUrl("data:image/png;base64,")
    ),
]

URL = URLSource(title="News", url="https://a.example/", description=STRANGE, attribution="A")
ITEMS: list[ThreadItem] = [
    UserMessageItem(
        id="i1",
        **BASE,
        content=[
            UserMessageTextContent(text=STRANGE),
            UserMessageTagContent(id="tag", text="@ada", data={"k": [1, 2.5, None]}, group="g"),
        ],
        attachments=ATTACHMENTS,
        quoted_text="as you said",
        inference_options=InferenceOptions(model="gpt", tool_choice=ToolChoice(id="search")),
    ),
    AssistantMessageItem(
        id="i2",
        **BASE,
        content=[
            AssistantMessageContent(
                text=STRANGE,
                annotations=[
                    Annotation(source=URL, index=3),
                    Annotation(source=FileSource(title="F", filename="f.txt", timestamp="now")),
                    Annotation(source=EntitySource(title="E", id="e1", data={"x": True})),
                ],
            ),
            AssistantMessageContent(text=""),
        ],
    ),
    ClientToolCallItem(
        id="i3",
        **BASE,
        status="completed",
        call_id="call_1",
        name="get_place",
        arguments={"deep": {"er": [STRANGE]}},
        output={"lat": 48.1, "tags": [], "none": None},
    ),
    WidgetItem(
        id="i4",
        **BASE,
        copy_text="copy",
        widget=Card(
            children=[
                Text(value=STRANGE, id="x"),
                Button(label="Go", onClickAction=ActionConfig(type="go", payload={"n": 1})),
            ]
        ),
    ),
    WidgetItem(
        id="i14", **BASE, widget=ListView(children=[ListViewItem(children=[Text(value="row")])])
    ),
    GeneratedImageItem(id="i5", **BASE, image=GeneratedImage(id="g", url="https://i.example/g")),
    StructuredInputItem(
        id="i6",
        **BASE,
        status="answered",
        inputs=[
            StructuredInputMultipleChoice(
                id="q1",
                question="Which?",
                options=[StructuredInputMultipleChoiceOption(value="a")],
                multiple=True,
                answer=StructuredInputAnswer(values=["a", STRANGE]),
            ),
            StructuredInputFreeform(
                id="q2", question="Why?", answer=StructuredInputAnswer(skipped=True)
            ),
        ],
    ),
    WorkflowItem(
        id="i7",
        **BASE,
        workflow=Workflow(
            type="reasoning",
            expanded=True,
            summary=DurationSummary(duration=3),
            tasks=[
                CustomTask(title="c", icon="agent", content=STRANGE, status_indicator="loading"),
                SearchTask(title_query="q", queries=["a", "b"], sources=[URL]),
                ThoughtTask(content="hm", status_indicator="complete"),
                FileTask(sources=[FileSource(title="F", filename="f")]),
                ImageTask(title="i"),
            ],
        ),
    ),
    WorkflowItem(
        id="i8",
        **BASE,
        workflow=Workflow(type="custom", tasks=[], summary=CustomSummary(title="Done")),
    ),
    TaskItem(id="i9", **BASE, task=ThoughtTask(title="t", content=STRANGE)),
    HiddenContextItem(id="i10", **BASE, content={"any": ["thing", 1, None, {"deep": STRANGE}]}),
    HiddenContextItem(id="i11", **BASE, content=None),
    SDKHiddenContextItem(id="i12", **BASE, content=STRANGE),
    EndOfTurnItem(id="i13", **BASE),
]

TIMES = [
    NOON,
    NOON.replace(microsecond=0),
    NOON.replace(tzinfo=UTC),
    NOON.replace(tzinfo=INDIA),
    NOON.replace(year=1, tzinfo=INDIA),
    NOON.replace(year=9999),
]
