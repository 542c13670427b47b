"""What a team does first keeps all checks green: move it, add a tool, set an owner and defaults."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from baked import BakedProject
from test_contexts import give_to_organisations


def put_in_a_tool(project: BakedProject) -> None:
    """Delete the clock as AGENTS.md says; add a tool of OpenAI's that only one API has.

    Add another word for the offline model, with a number among the call's arguments.
    """
    agents = project.path / "AGENTS.md"
    assert "Delete it with its tool and `tests/test_clock.py`" in agents.read_text(encoding="utf-8")
    for name in ("app/clock.py", "tests/test_clock.py"):
        (project.path / name).unlink()
    path = project.path / "app/assistant.py"
    text, found = re.subn(
        r"@function_tool\nasync def current_time.*(?=TOOLS: list)",
        "",
        path.read_text(encoding="utf-8"),
        flags=re.DOTALL,
    )
    assert found == 1
    kept = [line for line in text.splitlines(keepends=True) if "clock" not in line]
    text = "".join(kept).replace("[current_time]", "[WebSearchTool()]")
    text = text.replace("from agents import ", "from agents import WebSearchTool, ")
    path.write_text(text, encoding="utf-8")
    path = project.path / "app/offline.py"
    text = path.read_text(encoding="utf-8")
    changed = text.replace('"UTC"})}', '"UTC"}), "order": ("find", {"n": 7})}')
    assert changed != text
    path.write_text(changed, encoding="utf-8")


DEFAULTS = {
    "model": ("gpt-5-mini", "our-model"),
    "model_api": ("responses", "chat_completions"),
    "title_model": ("", "our-small-model"),
    "on_disconnect": ("cancel", "finish"),
}


def choose_defaults(project: BakedProject) -> None:
    """Write the team's own defaults into the settings, and into the README's table."""
    path, readme = project.path / "app/settings.py", project.path / "README.md"
    code, table = path.read_text(encoding="utf-8"), readme.read_text(encoding="utf-8")
    for name, (old, new) in DEFAULTS.items():
        code, found = re.subn(rf'(    {name}: [^=]*= Field\(\s*)"{old}"', rf'\1"{new}"', code)
        assert found == 1, name
        row = f"| `{name.upper()}` | " + (f"`{old}` " if old else "") + "|"
        assert row in table, name
        table = table.replace(row, f"| `{name.upper()}` | `{new}` |")
    path.write_text(code, encoding="utf-8")
    readme.write_text(table, encoding="utf-8")


@pytest.mark.product
def test_a_first_day_leaves_all_green(bake: Callable[..., BakedProject], type_cache: Path) -> None:
    """Tests need neither the example, users as owners, our defaults, nor the original folder."""
    made = bake(context_type="pydantic")
    made.check("uv", "sync", "--quiet")
    project = BakedProject(made.path.rename(made.path.with_name("moved")), made.answers)
    give_to_organisations(project)
    put_in_a_tool(project)
    choose_defaults(project)
    project.check("make", "format")
    project.check("make", "check", MYPY_CACHE_DIR=str(type_cache))
    project.check("make", "test", PYTEST_XDIST_AUTO_NUM_WORKERS="0")
