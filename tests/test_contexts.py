"""The three contexts: what each is, and that `owner_of` alone says whose data it is."""

import re
import runpy
import shutil
import sys
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from baked import CONTEXTS, TEMPLATE, BakedProject

ORGANISATION = Path(__file__).with_name("organisation.py")
STEPS = [
    (
        "give `RequestContext` a field `org_id`",
        "app/context.py",
        r"\n    user_id: str\n",
        r"\g<0>    org_id: str\n",
    ),
    (
        "fill it where `app/auth.py` makes the context",
        "app/auth.py",
        r"RequestContext\(user_id=user",
        r'\g<0>, org_id=request.headers.get("x-org", "of " + user)',
    ),
    (
        "return it from `owner_of`",
        "app/context.py",
        r"(return context\W+)user_id",
        r"\1org_id",
    ),
    (
        "`context_for` must set it, too",
        "app/context.py",
        r"RequestContext\(user_id=owner",
        'RequestContext(user_id="", org_id=owner',
    ),
]
"""What the app's README says, and how to do it: the file, what to find, what to put there."""


def context(kind: str) -> Any:
    """Return the context class of one kind."""
    return runpy.run_path(str(TEMPLATE / f"templates/context/{kind}.py"))["RequestContext"]


def test_the_dict_is_a_plain_one() -> None:
    """Only type checkers check it."""
    assert type(context("dict")(user_id="a")) is dict


def test_the_dataclass_is_frozen_and_light() -> None:
    """No field can be set, and none added: it has no `__dict__`."""
    made = context("dataclass")(user_id="a")
    with pytest.raises(FrozenInstanceError):
        made.user_id = "b"
    assert not hasattr(made, "__dict__")


def test_the_model_is_validated_and_frozen() -> None:
    """An extra field, a field of the wrong type and a change are refused."""
    model = context("pydantic")
    for fields in ({"user_id": "a", "org_id": "b"}, {"user_id": 5}, {}):
        with pytest.raises(ValidationError):
            model(**fields)
    made = model(user_id="a")
    with pytest.raises(ValidationError, match="frozen"):
        made.user_id = "b"


def test_nothing_else_reads_the_users_id() -> None:
    """It is set where the caller is known; in every store `owner_of` says whose data it is."""
    app = TEMPLATE / "{{cookiecutter.project_slug}}" / "app"
    for path in [*app.glob("*.py"), *(TEMPLATE / "templates/store").glob("*.py")]:
        assert path.name == "auth.py" or "user_id" not in path.read_text(encoding="utf-8"), path


def give_to_organisations(project: BakedProject) -> None:
    """Do what the README says."""
    readme = " ".join((project.path / "README.md").read_text(encoding="utf-8").split())
    for said, file, old, new in STEPS:
        assert said in readme
        path = project.path / file
        text, found = re.subn(old, new, path.read_text(encoding="utf-8"))
        assert found == 1, said
        path.write_text(text, encoding="utf-8")


@pytest.mark.product
@pytest.mark.parametrize("kind", CONTEXTS)
def test_an_organisation_may_own_the_data(bake: Callable[..., BakedProject], kind: str) -> None:
    """The README's steps are all it takes."""
    project = bake(context_type=kind)
    give_to_organisations(project)
    shutil.copy(ORGANISATION, project.path / "tests/test_organisation.py")
    project.check(sys.executable, "-m", "pytest", "tests/test_organisation.py")
