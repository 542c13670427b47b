"""CONTRIBUTING.md promises: a storage type is one file and three lines."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cookiecutter.main import cookiecutter

from baked import TEMPLATE, BakedProject, copy_template


@pytest.mark.product
def test_a_storage_type_is_one_file_and_three_lines(tmp_path: Path) -> None:
    """A toy storage bakes, and passes the whole contract, which comes with its app."""
    workshop = tmp_path / "workshop"
    copy_template(workshop)
    memory = (workshop / "templates/store/memory.py").read_text(encoding="utf-8")
    toy = memory.replace("MemoryStore", "ToyStore")
    (workshop / "templates/store/toy.py").write_text(toy, encoding="utf-8")

    questions = json.loads((workshop / "cookiecutter.json").read_text(encoding="utf-8"))
    questions["storage_type"].append("toy")
    questions["__prompts__"]["storage_type"]["toy"] = "toy: to show how"
    (workshop / "cookiecutter.json").write_text(json.dumps(questions), encoding="utf-8")
    hook = workshop / "hooks/pre_gen_project.py"
    text = hook.read_text(encoding="utf-8")
    hook.write_text(text.replace('"redis", "postgres"),', '"redis", "postgres", "toy"),'), "utf-8")

    made = cookiecutter(
        str(workshop),
        no_input=True,
        extra_context={"storage_type": "toy"},
        output_dir=str(tmp_path / "out"),
    )
    project = BakedProject(Path(made), {"storage_type": "toy"})
    assert " passed" in project.check("uv", "run", "pytest", *project.contract)


def test_what_a_machine_lacks_skips_a_test_and_in_ci_fails_it(tmp_path: Path) -> None:
    """Both name the reason."""
    (tmp_path / "test_it.py").write_text("import pytest\ndef test_it(): pytest.skip('no nginx')\n")
    command = [sys.executable, "-m", "pytest", "-rs", "-p", "conftest", "--rootdir", tmp_path]
    for ci, said in (("", "1 skipped"), ("true", "1 failed")):
        environment = os.environ | {"CI": ci, "PYTHONPATH": str(TEMPLATE / "tests")}
        done = subprocess.run(
            [*command, tmp_path], env=environment, capture_output=True, text=True, check=False
        )
        assert said in done.stdout
        assert "no nginx" in done.stdout


def test_the_map_names_what_is_there(bake: Callable[..., BakedProject]) -> None:
    """No module of the app is missing from its map, no test file from ours."""
    project = bake(storage_type="postgres")
    agents = (project.path / "AGENTS.md").read_text(encoding="utf-8")
    for path in project.path.glob("app/*.py"):
        if path.name not in ("__init__.py", "__main__.py"):
            assert f"`app/{path.name}`" in agents, path.name
    contributing = (TEMPLATE / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for path in TEMPLATE.glob("tests/test_*.py"):
        assert f"`{path.name}`" in contributing or f"`tests/{path.name}`" in contributing, path.name
