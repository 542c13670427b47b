"""Defects sown one at a time: the app's own test that each one names must catch it.

Run by `make test-mutation`, which ends with the table of defects.
"""

import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from baked import STORAGES, TEMPLATE, BakedProject
from defects import DEFECTS
from defects.base import Defect

NO_DEFECT = re.compile(
    r"^E +[\w.]*(?:Syntax|Name|UnboundLocal|Attribute|Import|Undefined\w*|Response)Error",
    re.MULTILINE,
)
"""A sign that the change is broken code, which any test would catch."""


def storage_of(place: str) -> str:
    """Return the storage of the app to bake: what all have in common is sown in one app."""
    return place if place in STORAGES else "memory"


class Field:
    """A baked app in which defects are sown, and its engine."""

    def __init__(self, project: BakedProject, store_url: str) -> None:
        """Keep the app, and the engine's address if it is a server."""
        self.project, self._store_url = project, store_url

    def test(self, *nodes: str, no_bytecode: str = "") -> subprocess.CompletedProcess[str]:
        """Run some of the app's own tests until one fails."""
        return self.project.run(
            *(".venv/bin/python", "-m", "pytest", "-x", "-p", "no:cacheprovider", *nodes),
            TEST_STORE_URL=self._store_url,
            PYTHONDONTWRITEBYTECODE=no_bytecode,
        )

    def sow(self, defect: Defect) -> subprocess.CompletedProcess[str]:
        """Run the test that a defect names, with the defect in place."""
        path = self.project.path / defect.file
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace(defect.old, defect.new), encoding="utf-8")
        try:
            return self.test(defect.test, no_bytecode="1")
        finally:
            path.write_text(text, encoding="utf-8")


@contextmanager
def prepared(project: BakedProject) -> Iterator[Field]:
    """Make an app's environment, and run one engine for all of its defects."""
    project.check("uv", "sync", "--quiet")
    with project.engine() as url:
        yield Field(project, url)


@pytest.fixture(scope="module")
def field(bake: Callable[..., BakedProject]) -> Iterator[Callable[[str], Field]]:
    """Return a function that bakes and prepares the app of a place, once."""
    fields: dict[str, Field] = {}
    with ExitStack() as stack:

        def prepare(place: str) -> Field:
            if place not in fields:
                project = bake(storage_type=storage_of(place))
                fields[place] = stack.enter_context(prepared(project))
            return fields[place]

        yield prepare


def sown_in(place: str) -> list[pytest.MarkDecorator]:
    """Return the marks of a place's tests: all tests of one app run in one process."""
    return [
        pytest.mark.mutation,
        pytest.mark.product,
        pytest.mark.xdist_group(f"mutation-{place}"),
    ]


PLACES = [pytest.param(place, id=place, marks=sown_in(place)) for place in DEFECTS]
SOWN = [
    pytest.param(place, defect, id=f"{place}: {defect.name}", marks=sown_in(place))
    for place, defects in DEFECTS.items()
    for defect in defects
]


@pytest.mark.parametrize("place", DEFECTS)
def test_every_defect_has_its_place(place: str) -> None:
    """A change of the source that removes it shows in `make test-fast`."""
    app = TEMPLATE / "{{cookiecutter.project_slug}}"
    store = TEMPLATE / f"templates/store/{storage_of(place)}.py"
    for defect in DEFECTS[place]:
        path = store if defect.file == "app/store.py" else app / defect.file
        assert path.read_text(encoding="utf-8").count(defect.old) == 1, defect.name


def test_each_concurrency_test_is_shown_to_fail() -> None:
    """With a lock taken out, or whatever else keeps simultaneous calls apart."""
    file = "tests/test_store_concurrency.py"
    text = (TEMPLATE / "{{cookiecutter.project_slug}}" / file).read_text(encoding="utf-8")
    named = {defect.test for defects in DEFECTS.values() for defect in defects}
    assert {f"{file}::{name}" for name in re.findall(r"async def (test_\w+)", text)} <= named


@pytest.mark.parametrize("place", PLACES)
def test_without_a_defect_the_named_tests_pass(field: Callable[[str], Field], place: str) -> None:
    """So that it is the defect that makes them fail."""
    done = field(place).test(*sorted({defect.test for defect in DEFECTS[place]}))
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(("place", "defect"), SOWN)
def test_the_defect_is_caught(
    field: Callable[[str], Field], place: str, defect: Defect, request: pytest.FixtureRequest
) -> None:
    """The named test fails, and for no other reason than the defect."""
    start = time.monotonic()
    done = field(place).sow(defect)
    caught = done.returncode == 1 and f"FAILED {defect.test}" in done.stdout
    by = defect.test.partition("::")[2] if caught else "NOBODY"
    row = (place, defect.name, by, time.monotonic() - start)
    request.node.user_properties.append(("defect", row))
    assert caught, done.stdout
    assert not NO_DEFECT.search(done.stdout), done.stdout
