"""Answers are data: kept intact wherever they are shown, or refused in one line; never executed."""

import ast
import html
import json
import os
import re
import string
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from cookiecutter.exceptions import FailedHookException, OutputDirExistsException
from cookiecutter.main import cookiecutter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from baked import CONTEXTS, STORAGES, TEMPLATE, BakedProject
from names import CANARY, HOSTILE, REFUSED, RENDERED_BY_COOKIECUTTER, WRONG_SLUGS

SLUG = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


def run_cookiecutter(output: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a user does, with a home of its own."""
    home = output.parent / "home"
    home.mkdir(exist_ok=True)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("COOKIECUTTER")}
    return subprocess.run(
        [sys.executable, "-m", "cookiecutter", str(TEMPLATE), "-o", str(output), *arguments],
        cwd=output.parent,
        env=environment | {"HOME": str(home), "USERPROFILE": str(home), "PYTHONUTF8": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )


def replay_file(folder: Path, **changed: object) -> Path:
    """Write a replay file as cookiecutter would, except for the answers that are changed."""
    own = json.loads((TEMPLATE / "cookiecutter.json").read_text(encoding="utf-8"))
    kept = ("_copy_without_render", "_jinja2_env_vars", "__template_version")
    answers = {"project_name": "X", "project_slug": "x", "storage_type": "memory"}
    answers |= {"context_type": "dict", "__dev": "", **{key: own[key] for key in kept}, **changed}
    name = str(answers["project_name"])
    answers.setdefault("__name_escaped", name.replace("\\", "\\\\").replace('"', '\\"'))
    path = folder / "answers.json"
    path.write_text(json.dumps({"cookiecutter": answers}))
    return path


def replay(file: Path, output: Path) -> Path:
    """Bake from a replay file."""
    made = cookiecutter(str(TEMPLATE), replay=str(file), output_dir=str(output))
    return Path(made)


def assert_shows(project: Path, name: str) -> None:
    """Check that the name appears, letter by letter, wherever the app shows it."""
    about = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert about["description"] == name
    assert SLUG.fullmatch(about["name"])
    assert len(project.name) <= 63
    assert about["name"] == project.name.removesuffix("-app") + "-app"
    module = ast.parse((project / "app/__init__.py").read_text(encoding="utf-8"))
    assert ast.literal_eval(module.body[-1].value) == name
    page = (project / "app/static/index.html").read_text(encoding="utf-8")
    shown = dict(re.findall(r"<(title|h1)>(.*?)</", page))
    assert {tag: html.unescape(text) for tag, text in shown.items()} == {"title": name, "h1": name}
    assert "<" not in "".join(shown.values()), "an element"
    readme = (project / "README.md").read_text(encoding="utf-8")
    assert readme.splitlines()[0] == f"# {name}"
    for path in project.rglob("*.py"):
        ast.parse(path.read_text(encoding="utf-8"))


def assert_refused(file: Path, output: Path, capfd: pytest.CaptureFixture[str], key: str) -> str:
    """Check that baking prints our one line and leaves no file; return the line."""
    with pytest.raises(FailedHookException):
        replay(file, output)
    line = next(line for line in capfd.readouterr().err.splitlines() if line)
    assert line.startswith(f"ERROR: {key}")
    left = [p for p in output.parent.rglob("*") if p.is_file()]
    assert left == [file]
    return line


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """Return an empty folder to bake into."""
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def type_answers(monkeypatch: pytest.MonkeyPatch, output: Path, *typed: str) -> Path:
    """Bake as a user who types these answers and accepts the defaults for the rest."""
    answers = iter([*typed, "", "", "", ""])
    monkeypatch.setattr("builtins.input", lambda *_: next(answers))
    return Path(cookiecutter(str(TEMPLATE), output_dir=str(output)))


@pytest.mark.parametrize("name", HOSTILE + RENDERED_BY_COOKIECUTTER)
def test_a_typed_name_is_kept_intact(
    monkeypatch: pytest.MonkeyPatch, output: Path, name: str
) -> None:
    """README, page, pyproject.toml and OpenAPI's title have exactly what was typed."""
    assert_shows(type_answers(monkeypatch, output, name), name.strip())
    assert not list(output.parent.rglob(CANARY))
    assert not Path(CANARY).exists()


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_on_the_command_line_is_kept_intact(
    bake: Callable[..., BakedProject], name: str
) -> None:
    """The same for `project_name=...`, except for Jinja's braces: cookiecutter renders those."""
    project = bake(project_name=name)
    assert_shows(project.path, name)
    ruff = str(Path(sys.executable).with_name("ruff"))
    project.check(ruff, "check", "app/__init__.py")
    project.check(ruff, "format", "--check", "app/__init__.py")
    assert not list(project.path.parent.rglob(CANARY))
    assert not Path(CANARY).exists()


@pytest.mark.parametrize("name", REFUSED)
def test_a_name_with_control_characters_is_refused(
    output: Path, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    """One line names the key, before anything is written."""
    replay = replay_file(output.parent, project_name=name)
    assert_refused(replay, output, capfd, "project_name")


NAMES = st.text(st.characters(exclude_categories=("Cs",)), max_size=200) | st.text(
    st.sampled_from(string.punctuation + "\\'\" {}%#\n\té🚀")
)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(name=NAMES, typed=st.booleans())
def test_any_name_is_kept_or_refused(
    tmp_path_factory: pytest.TempPathFactory, name: str, *, typed: bool
) -> None:
    """Any text, typed or replayed: the app shows it letter by letter, or pre_gen refuses it."""
    output = tmp_path_factory.mktemp("any")
    try:
        if typed:
            with pytest.MonkeyPatch.context() as patch:
                made = type_answers(patch, output, name)
            name = name.strip() or "ChatKit App"
        else:
            made = replay(replay_file(output, project_name=name), output)
    except FailedHookException:
        control = any(ord(c) < 32 or 126 < ord(c) < 160 for c in name)
        control |= bool(re.search("[\u2028-\u202e\u2066-\u2069]", name))
        assert control or not name.strip(), ascii(name)
        return
    assert_shows(made, name)


@pytest.mark.parametrize("slug", WRONG_SLUGS)
def test_a_wrong_slug_is_refused_with_one_that_passes(
    output: Path, capfd: pytest.CaptureFixture[str], slug: str
) -> None:
    """The line names the rule and a slug that passes, which it does."""
    file = replay_file(output.parent, project_slug=slug)
    line = assert_refused(file, output, capfd, "project_slug")
    offered = re.search(r"try '([^']*)' \(lower-case letters", line)
    assert offered is not None
    assert SLUG.fullmatch(offered[1])
    assert len(offered[1]) <= 63
    replay(replay_file(output.parent, project_slug=offered[1]), output)


def test_a_bake_over_an_app_keeps_a_teams_own_files(output: Path) -> None:
    """Cookiecutter empties a folder that it copies as a whole, so we have it copy none."""
    assert run_cookiecutter(output, "--no-input").returncode == 0
    folders = [path for path in (output / "chatkit-app").rglob("*") if path.is_dir()]
    for folder in folders:
        (folder / "own.md").touch()
    assert run_cookiecutter(output, "--no-input", "--overwrite-if-exists").returncode == 0
    assert [folder for folder in folders if not (folder / "own.md").exists()] == []
    assert len(folders) > 4


def test_a_slug_that_is_the_folder_above_is_refused(output: Path) -> None:
    """That folder exists: nothing in it is touched."""
    with pytest.raises(OutputDirExistsException):
        replay(replay_file(output.parent, project_slug=".."), output)


def test_the_refusal_is_the_first_line(output: Path) -> None:
    """It comes before the traceback with which cookiecutter ends when a hook fails."""
    done = run_cookiecutter(output, "--no-input", "project_slug=a/b")
    assert done.returncode != 0
    assert done.stderr.startswith("ERROR: project_slug 'a/b' cannot be used: try 'a-b' (")
    assert [path for path in output.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    ("key", "value"), [("storage_type", "mongo"), ("context_type", "list"), ("__dev", "../x.py")]
)
def test_a_wrong_replay_file_is_refused(
    output: Path, capfd: pytest.CaptureFixture[str], key: str, value: str
) -> None:
    """A replay file skips cookiecutter's own checks, so pre_gen names the choices."""
    file = replay_file(output.parent, **{key: value})
    line = assert_refused(file, output, capfd, key if key != "__dev" else "the replay file")
    for choice in {"storage_type": STORAGES, "context_type": CONTEXTS}.get(key, ()):
        assert choice in line


def test_a_wrong_choice_names_the_choices(output: Path) -> None:
    """On the command line cookiecutter itself lists them."""
    done = run_cookiecutter(output, "--no-input", "storage_type=mongo")
    assert done.returncode != 0
    assert all(choice in done.stderr for choice in STORAGES)
    assert list(output.iterdir()) == []


def test_a_misspelt_key_shows(output: Path) -> None:
    """Cookiecutter silently drops unknown keys; the choices printed at the end show it."""
    done = run_cookiecutter(output, "--no-input", "storage_typ=redis")
    assert re.search(r"storage_type +memory", done.stdout)


def test_the_next_steps_are_printed(output: Path) -> None:
    """The last lines say where the app is and how to run it."""
    done = run_cookiecutter(output, "--no-input")
    assert f'cd "{output / "chatkit-app"}"' in done.stdout
    assert "make run" in done.stdout
    assert "uv run python -m app" in done.stdout


def test_an_existing_folder_is_left_alone(output: Path) -> None:
    """Cookiecutter itself refuses it; nothing is overwritten."""
    (output / "chatkit-app").mkdir()
    (output / "chatkit-app/README.md").write_text("mine")
    done = run_cookiecutter(output, "--no-input")
    assert "already exists" in done.stdout
    assert (output / "chatkit-app/README.md").read_text() == "mine"
    assert len(list((output / "chatkit-app").iterdir())) == 1


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("🚀", "chatkit-app"),
        ("2 fast", "app-2-fast"),
        ("x" * 200, "x" * 63),
        ("1" * 200, "app-" + "1" * 59),
        ("a" * 62 + " b", "a" * 62),
        ("Con", "app-con"),
        ("Größe & Co. KG", "grosse-co-kg"),
    ],
)
def test_the_default_slug_is_always_a_good_one(
    bake: Callable[..., BakedProject], name: str, slug: str
) -> None:
    """Whatever the name."""
    assert bake(project_name=name).path.name == slug


def test_the_questions_are_four_and_labelled() -> None:
    """Every question has a label, every choice says what it means."""
    asked = json.loads((TEMPLATE / "cookiecutter.json").read_text(encoding="utf-8"))
    questions = [key for key in asked if not key.startswith("_")]
    assert questions == ["project_name", "project_slug", "storage_type", "context_type"]
    assert list(asked["__prompts__"]) == questions
    for key in ("storage_type", "context_type"):
        assert set(asked["__prompts__"][key]) == {"__prompt__", *asked[key]}
