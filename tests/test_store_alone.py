"""The store in somebody else's app: two files and a dependency, as the app's README says."""

import json
import re
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from baked import STORAGES, BakedProject

pytestmark = pytest.mark.product
TALK = """
import asyncio, json, sys
from chatkit.server import StreamingResult
from server import RequestContext, open_server

MESSAGE = {"content": [{"type": "input_text", "text": "Hi"}], "attachments": []}
MESSAGE["inference_options"] = {}

async def talk(url):
    async with open_server(url) as server:
        async def ask(user, kind, **params):
            request = json.dumps({"type": kind, "params": params}).encode()
            result = await server.process(request, RequestContext(user_id=user))
            if not isinstance(result, StreamingResult):
                return json.loads(result.json)
            return [json.loads(event.removeprefix(b"data: ")) async for event in result]

        thread = (await ask("ada", "threads.create", input=MESSAGE))[0]["thread"]["id"]
        await ask("ada", "threads.add_user_message", thread_id=thread, input=MESSAGE)
        items = (await ask("ada", "items.list", thread_id=thread, order="asc"))["data"]
        foreign = (await ask("bob", "items.list", thread_id=thread, order="asc"))["data"]
        print(json.dumps([[item["content"][0]["text"] for item in items], foreign]))

asyncio.run(talk(*sys.argv[1:]))
"""


@pytest.mark.parametrize("storage", STORAGES)
def test_two_files_and_a_dependency_are_a_store(
    bake: Callable[..., BakedProject], tmp_path: Path, storage: str
) -> None:
    """In an empty project the README's server answers, and keeps what was said for its owner."""
    app, other = bake(storage_type=storage), BakedProject(tmp_path)
    app.check("uv", "sync", "--quiet")
    readme = (app.path / "README.md").read_text(encoding="utf-8")
    section = readme.partition("## Take the store into another app")[2].partition("\n## ")[0]
    about = tomllib.loads((app.path / "pyproject.toml").read_text(encoding="utf-8"))
    named = re.findall(r"`([\w\[\]-]+)`", section.partition("```")[0])
    bounds = about["project"]["dependencies"]
    needed = [each for each in bounds if re.match(r"[\w\[\]-]+", each)[0] in named]

    (other.path / "app").mkdir()
    for name in ("store.py", "context.py"):
        shutil.copy(app.path / "app" / name, other.path / "app")
    (server,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    (other.path / "server.py").write_text(server, encoding="utf-8")
    (other.path / "talk.py").write_text(TALK, encoding="utf-8")
    other.check(str(app.path / ".venv/bin/python"), "-m", "mypy", "--strict", "-p", "app")
    python = str(other.path / ".venv/bin/python")
    other.check("uv", "venv", "--quiet", "--python", str(app.path / ".venv/bin/python"))
    other.check("uv", "pip", "install", "--quiet", "--python", python, *needed)
    with app.engine() as engine:
        url = engine or {"memory": "memory://"}.get(storage, f"sqlite:///{tmp_path / 'chat.db'}")
        said, foreign = json.loads(other.check(python, "talk.py", url))
    assert said == ["Hi", "Hello!"] * 2
    assert foreign == []
