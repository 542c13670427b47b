"""Applies an app's recipe to a copy of the app, as a reader would, and runs it."""

import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from baked import TEMPLATE, BakedProject, Session

sys.path.insert(0, str(TEMPLATE / "{{cookiecutter.project_slug}}" / "tests"))
from model_server import KEY, Call, ModelServer, Raw, model_server

__all__ = ["KEY", "Call", "Kitchen", "ModelServer", "Raw", "model_server", "recipes"]
BLOCK = re.compile(r'```(\w+) title="([^"]+)"\n(.*?)```\n', re.DOTALL)


def recipes(project: BakedProject) -> dict[str, str]:
    """Return the text of each recipe under its title."""
    text = (project.path / "docs" / "recipes.md").read_text(encoding="utf-8")
    return dict(part.split("\n", 1) for part in text.split("\n## ")[1:])


def apply(text: str, folder: Path) -> list[str]:
    """Do what a reader would: make the new files, change the others; return the files' names."""
    names = []
    for kind, name, body in BLOCK.findall(text):
        path = folder / name
        names.append(name)
        if kind != "diff":
            assert not path.exists(), name
            path.write_text(body, encoding="utf-8")
            continue
        for hunk in body.removeprefix("@@\n").split("@@\n"):
            lines = hunk.splitlines(keepends=True)
            before = "".join(line[1:] for line in lines if line[0] != "+")
            after = "".join(line[1:] for line in lines if line[0] != "-")
            old = path.read_text(encoding="utf-8")
            assert old.count(before) == 1, f"not exactly once in {name}:\n{before}"
            path.write_text(old.replace(before, after), encoding="utf-8")
    assert names, "a recipe without code"
    return names


class Kitchen:
    """Runs the app with one recipe, its model a server on loopback."""

    def __init__(self, fresh: BakedProject, folder: Path) -> None:
        """Cook in this folder."""
        self._fresh, self._folder = fresh, folder

    @contextmanager
    def cook(self, title: str, *script: Any) -> Iterator[tuple[Session, ModelServer]]:
        """Apply a recipe, check its code like the app's own, and serve."""
        path = self._folder / "app with a recipe"
        shutil.copytree(self._fresh.path, path, ignore=shutil.ignore_patterns(".venv"))
        names = apply(recipes(self._fresh)[title], path)
        project = BakedProject(path)
        python = str(self._fresh.path / ".venv" / "bin" / "python")
        code = [name for name in names if name.endswith(".py")]
        project.check(python, "-m", "ruff", "check", *code)
        project.check(python, "-m", "ruff", "format", "--check", *code)
        cache = str(self._fresh.path / ".mypy_cache")
        project.check(python, "-m", "mypy", *code, MYPY_CACHE_DIR=cache)
        with model_server(*script) as model:
            known = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": model.url}
            known["MAX_BODY_BYTES"] = "16384"  # so small that a refused body has already arrived
            known["PATH"] = str(self._folder)  # for a recipe that starts a program
            with project.serve(python, "-m", "app", **known) as user:
                yield user, model
