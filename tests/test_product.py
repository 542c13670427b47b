"""The full product: each storage with each context, baked once and put to work."""

import ast
import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from baked import CONTEXTS, STORAGES, BakedProject, parse

pytestmark = pytest.mark.product
COMBINATIONS = [(storage, context) for storage in STORAGES for context in CONTEXTS]
DATA = ["app/data.py", *(f"tests/{name}.py" for name in ("filling", "terminal"))]
DATA += ["tests/test_commands.py", "tests/test_data.py"]
LONGEST_MODULE = 300
LONGEST_STORE = 654  # the class itself is under 300
LONGEST_APP = 4258
LONGEST_ASSISTANT = 80
LONGEST_CLIENT = 400


@pytest.fixture(
    scope="session",
    params=[
        pytest.param(pair, id="-".join(pair), marks=pytest.mark.xdist_group("-".join(pair)))
        for pair in COMBINATIONS
    ],
)
def project(request: pytest.FixtureRequest, bake: Callable[..., BakedProject]) -> BakedProject:
    """Bake one combination for all the tests in this file."""
    storage, context = request.param
    return bake(storage_type=storage, context_type=context)


def test_files(project: BakedProject) -> None:
    """The files are exactly those in `files.txt`: nothing lost, nothing left over."""
    listed = (Path(__file__).parent / "files.txt").read_text().split()
    only_some = {"dev.py": ("redis", "postgres"), "tests/test_store_inside.py": ("sqlite",)}
    only_some |= dict.fromkeys(DATA, STORAGES[1:])
    storage = project.answers["storage_type"]
    wanted = {name for name in listed if storage in only_some.get(name, STORAGES)}
    assert project.files() == wanted


def test_no_trace_of_jinja(project: BakedProject) -> None:
    """No Jinja statement, expression or comment is left, nor a line that one left blank."""
    for name in project.files():
        text = (project.path / name).read_text(encoding="utf-8", errors="replace")
        if not name.startswith(".github/workflows/"):
            assert "{{" not in text or name.startswith("app/static/"), name
            assert "{%" not in text, name
        assert "cookiecutter." not in text, name
        assert "# jinja:" not in text, name
        assert text.endswith("\n") or not text, name
        if name.endswith(".py"):
            assert "\n\n\n\n" not in text, name


def test_data_files_parse(project: BakedProject) -> None:
    """Every Python, TOML, YAML and JSON file parses, and the project has its name."""
    for name in project.files():
        parse(project.path / name)
    about = tomllib.loads((project.path / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert (about["name"], about["description"]) == ("chatkit-app", "ChatKit App")


def test_size(project: BakedProject) -> None:
    """Modules are short enough to read; what is longer than we want cannot grow unnoticed."""
    lines = {
        path.relative_to(project.path).as_posix(): path.read_text(encoding="utf-8").count("\n")
        for path in project.path.glob("app/*.py")
    }
    assert lines["app/assistant.py"] < LONGEST_ASSISTANT
    assert sum(lines.values()) < LONGEST_APP
    assert lines.pop("app/store.py") < LONGEST_STORE
    store = ast.parse((project.path / "app/store.py").read_text(encoding="utf-8"))
    classes = [node for node in store.body if isinstance(node, ast.ClassDef)]
    lines |= {node.name: (node.end_lineno or 0) - node.lineno + 1 for node in classes}
    assert {name: n for name, n in lines.items() if n >= LONGEST_MODULE} == {}
    client = (project.path / "app/static/client.js").read_text(encoding="utf-8")
    assert client.count("\n") < LONGEST_CLIENT


@pytest.mark.usefixtures("timed")
def test_own_tests(project: BakedProject) -> None:
    """Its own `make test` passes in an environment made from its own pyproject.toml."""
    # the template's tests run side by side already
    said = project.check("make", "test", PYTEST_XDIST_AUTO_NUM_WORKERS="0")
    last = said.strip().splitlines()[-1]
    assert re.search(r"\d+ passed", last), said
    assert "skipped" not in last, said


@pytest.mark.usefixtures("timed")
def test_own_checks(project: BakedProject, type_cache: Path) -> None:
    """Its own `make check` passes: lint, format, strict types."""
    project.check("make", "check", MYPY_CACHE_DIR=str(type_cache))


@pytest.mark.parametrize(
    "storage",
    [pytest.param(name, marks=pytest.mark.xdist_group("oldest")) for name in STORAGES[2:]],
)
def test_the_oldest_versions_that_its_bounds_allow_pass_its_checks(
    bake: Callable[..., BakedProject], type_cache: Path, storage: str
) -> None:
    """The two storages with a driver have all the dependencies there are."""
    project = bake(storage_type=storage, context_type="dict")
    cache = str(type_cache.with_name("oldest"))
    project.check("make", "check", UV_RESOLUTION="lowest-direct", MYPY_CACHE_DIR=cache)


@pytest.mark.usefixtures("timed")
def test_conversation(project: BakedProject) -> None:
    """Started by its README's command, it remembers the first turn in the second, and ends well."""
    with project.serve("make", "run") as user:
        thread, first = user.say("My name is Ada.")
        assert "1 message;" in first
        _, second = user.say("What is my name?", thread)
        assert "3 messages; the first was “My name is Ada.”" in second
        assert "ChatKit App" in user.get("/")
        assert json.loads(user.get("/openapi.json"))["info"]["title"] == "ChatKit App"
