"""Moving from one storage to another: what one app exports, the next imports unchanged."""

import base64
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from baked import BakedProject

pytestmark = [pytest.mark.product, pytest.mark.xdist_group("move")]
THREADS = 1000
OWNERS = ("ada", "https://login.example/|bob", "null \0 byte")


def export_of(threads: int) -> list[dict[str, object]]:
    """Return an export's lines: messages, a hidden tool call, feedback, a file in every tenth."""
    lines: list[dict[str, object]] = []
    for n in range(threads):
        owner, thread_id = OWNERS[n % len(OWNERS)], f"thr_{n:05}"
        inside = {"owner": owner, "thread_id": thread_id}
        base = {"thread_id": thread_id, "created_at": f"2026-01-01T12:00:{n % 7:02}"}
        thread = {"id": thread_id, "title": f"Über {n} 👋", "created_at": base["created_at"]}
        said = {"type": "input_text", "text": f"Nul \0 und {n}"}
        user = {"type": "user_message", "content": [said], "attachments": []}
        answer = {"type": "assistant_message", "content": [{"text": "Ja. " * 50}]}
        tool = {"type": "hidden_context_item", "content": {"type": "tool_call", "n": n}}
        lines.append({"owner": owner, "thread": thread})
        if n % 10 == 0:
            file = {"type": "file", "id": f"atc_{n}", "name": "a.txt", "mime_type": "text/plain"}
            file |= {"thread_id": thread_id, "metadata": {"size": 3}}
            data = base64.b64encode(b"%03d" % n).decode()
            lines.append(inside | {"attachment": file, "bytes": data})
        for number, item in enumerate([user, tool, answer] * 2):
            whole = item | base | {"id": f"msg_{number}", "inference_options": {}}
            lines.append(inside | {"item": whole})
        if n % 3 == 0:
            lines.append(inside | {"feedback": {"msg_2": "negative"}})
    return lines


def by_owner(export: Path) -> dict[str, list[str]]:
    """Return the lines of each owner, in their order: stores list owners in any order."""
    found: dict[str, list[str]] = {}
    for line in export.read_text().splitlines():
        found.setdefault(json.loads(line)["owner"], []).append(line)
    return found


def test_a_thousand_threads_move_from_store_to_store(
    bake: Callable[..., BakedProject], tmp_path: Path
) -> None:
    """From a file to SQLite, PostgreSQL and Redis: each app exports what the last one did."""
    given = tmp_path / "given.jsonl"
    given.write_text("".join(json.dumps(line) + "\n" for line in export_of(THREADS)))
    exports = []
    for storage in ("sqlite", "postgres", "redis"):
        project = bake(storage_type=storage, context_type="dict")
        project.check("uv", "sync", "--quiet")
        said = project.check("uv", "run", "python", "-m", "app", "import", str(given))
        assert f"import: {THREADS:,} threads" in said
        given = tmp_path / f"{storage}.jsonl"
        project.check("sh", "-c", f'uv run python -m app export --all > "{given}"')
        exports.append(by_owner(given))
    assert set(exports[0]) == set(OWNERS)
    assert sum(map(len, exports[0].values())) == len(export_of(THREADS))
    assert exports[0] == exports[1] == exports[2]
