"""What a team does first leaves all green: move the app, drop the example, own by organisation."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from baked import BakedProject
from test_contexts import give_to_organisations


def drop_the_example(project: BakedProject) -> None:
    """Delete the clock with its tool and its tests, as AGENTS.md says, and nothing else."""
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
    path.write_text("".join(kept).replace("[current_time]", "[]"), encoding="utf-8")


@pytest.mark.product
def test_a_first_day_leaves_all_green(bake: Callable[..., BakedProject], type_cache: Path) -> None:
    """Its tests name no example, no user for an owner, and no folder."""
    made = bake(context_type="pydantic")
    made.check("uv", "sync", "--quiet")
    project = BakedProject(made.path.rename(made.path.with_name("moved")), made.answers)
    give_to_organisations(project)
    drop_the_example(project)
    project.check("make", "format")
    project.check("make", "check", MYPY_CACHE_DIR=str(type_cache))
    project.check("make", "test", PYTEST_XDIST_AUTO_NUM_WORKERS="0")
