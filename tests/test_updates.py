"""Updates by cruft: a user's edit survives, the update is in, what cruft hides is found."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from baked import TEMPLATE, BakedProject, copy_template

pytestmark = [pytest.mark.product, pytest.mark.xdist_group("updates")]
GIT = {
    "GIT_AUTHOR_NAME": "Ada", "GIT_AUTHOR_EMAIL": "ada@example.com", "GIT_COMMITTER_NAME": "Ada",
    "GIT_COMMITTER_EMAIL": "ada@example.com", "GIT_CONFIG_GLOBAL": os.devnull,
}  # fmt: skip
NOW, THEN = '"""Your assistant', '"""The old assistant'
DROPPED = "app/dropped.py"


def run(folder: Path, *command: str) -> str:
    """Run a command that must succeed."""
    done = subprocess.run(
        command, cwd=folder, env=os.environ | GIT, stdin=subprocess.DEVNULL, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout}"
    return done.stdout


def cruft(folder: Path, *arguments: str) -> str:
    """Run cruft as a user would."""
    return run(folder, str(Path(sys.executable).with_name("cruft")), *arguments)


def commit(folder: Path, message: str) -> None:
    """Commit everything."""
    run(folder, "git", "add", "--all")
    run(folder, "git", "commit", "--quiet", "--message", message)


@pytest.fixture
def history(tmp_path: Path) -> Path:
    """Return a repository with an older version of the template, tagged v0.0.9."""
    folder = tmp_path / "chatkit-template"
    copy_template(folder)
    app = folder / "{{cookiecutter.project_slug}}"
    (app / DROPPED).write_text('"""What the next version drops."""\n')
    replace(app / "app/assistant.py", NOW, THEN)
    replace(
        folder / "cookiecutter.json", '"__template_version": "', '"__template_version": "0.0.9-'
    )
    run(folder, "git", "init", "--quiet", "--initial-branch=main")
    commit(folder, "0.0.9")
    run(folder, "git", "tag", "v0.0.9")
    return folder


def replace(path: Path, old: str, new: str) -> None:
    """Edit a file; the text to replace must be there."""
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def release(history: Path) -> None:
    """Commit today's template on top."""
    (history / "{{cookiecutter.project_slug}}" / DROPPED).unlink()
    copy_template(history)
    commit(history, "today")


@pytest.fixture
def app(history: Path, tmp_path: Path) -> Path:
    """Return an app that was made with cruft from the older version and committed."""
    answers = json.dumps({"storage_type": "sqlite"})
    cruft(tmp_path, "create", str(history), "--no-input", "--extra-context", answers)
    folder = tmp_path / "chatkit-app"
    run(folder, "git", "init", "--quiet")
    commit(folder, "baked")
    return folder


def update(app: Path) -> None:
    """Run the README's command."""
    readme = (TEMPLATE / "README.md").read_text(encoding="utf-8")
    (line,) = [line for line in readme.splitlines() if line.startswith("uvx cruft update")]
    cruft(app, *line.split()[2:])


def test_a_users_edit_survives_and_the_update_is_in(history: Path, app: Path) -> None:
    """And the app's own tests pass afterwards."""
    replace(app / "app/assistant.py", "TOOLS: list", "MINE = 'kept'\nTOOLS: list")
    commit(app, "mine")
    release(history)
    update(app)
    text = (app / "app/assistant.py").read_text(encoding="utf-8")
    assert "MINE = 'kept'" in text
    assert NOW in text
    assert not (app / DROPPED).exists()
    assert "0.0.9" not in (app / "pyproject.toml").read_text(encoding="utf-8")
    run(app, "git", "diff", "--check")
    tests = ("tests/test_readme.py", "tests/test_turns.py", "tests/test_assistant.py")
    assert " passed" in BakedProject(app).check("uv", "run", "pytest", *tests)


def test_a_conflict_is_found_by_the_readmes_check(history: Path, app: Path) -> None:
    """Both changed a line: cruft says success, `git diff --check` or a .rej file does not."""
    replace(app / "app/assistant.py", THEN, '"""My assistant')
    commit(app, "mine")
    release(history)
    update(app)
    check = subprocess.run(["git", "diff", "--check"], cwd=app, capture_output=True, check=False)
    assert check.returncode != 0 or list(app.rglob("*.rej"))


def test_a_dropped_file_that_was_edited_stays_and_the_readme_says_so(
    history: Path, app: Path
) -> None:
    """Cruft keeps it and says nothing."""
    (app / DROPPED).write_text('"""My own words."""\n')
    commit(app, "mine")
    release(history)
    update(app)
    assert (app / DROPPED).exists()
    assert "stays without a warning" in (TEMPLATE / "README.md").read_text(encoding="utf-8")


def test_an_app_made_without_cruft_can_be_linked(history: Path, tmp_path: Path) -> None:
    """With `cruft link` and the version that its pyproject.toml names."""
    command = [str(Path(sys.executable).with_name("cookiecutter")), str(history), "--no-input"]
    run(tmp_path, *command, "storage_type=sqlite")
    app = tmp_path / "chatkit-app"
    assert "0.0.9" in (app / "pyproject.toml").read_text(encoding="utf-8").splitlines()[0]
    run(app, "git", "init", "--quiet")
    commit(app, "baked")
    answers = json.dumps({"storage_type": "sqlite"})
    link = ("link", str(history), "--checkout", "v0.0.9", "--no-input", "--extra-context", answers)
    cruft(app, *link)
    commit(app, "linked")
    release(history)
    # what was linked is a tag; an update has to follow the main branch
    cruft(app, "update", "--skip-apply-ask", "--refresh-private-variables", "--checkout", "main")
    assert NOW in (app / "app/assistant.py").read_text(encoding="utf-8")
