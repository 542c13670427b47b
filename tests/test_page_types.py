"""The page's modules against the types that `@openai/chatkit` publishes."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from baked import TEMPLATE
from kitchen import BLOCK, apply

pytestmark = pytest.mark.product
HERE = Path(__file__).parent / "page_types"
APP = TEMPLATE / "{{cookiecutter.project_slug}}"
RECIPES = {
    title: "".join(block[0] for block in BLOCK.finditer(text) if "app/static/" in block[2])
    for title, text in (
        part.split("\n", 1)
        for part in (APP / "docs" / "recipes.md").read_text(encoding="utf-8").split("\n## ")[1:]
    )
}
"""What each recipe changes in the page."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the compiler and the types beside a copy of the page's modules."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not installed on this machine")
    folder = tmp_path_factory.mktemp("types")
    shutil.copytree(APP / "app" / "static", folder / "app" / "static")
    for name in ("package.json", "tsconfig.json"):
        shutil.copy(HERE / name, folder)
    command = [npm, "install", "--no-audit", "--no-fund", "--no-package-lock"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def check(folder: Path) -> str:
    """Return what the compiler finds wrong."""
    command = [folder / "node_modules" / ".bin" / "tsc"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return done.stdout


def test_the_page_fits_the_published_types(folder: Path) -> None:
    """Every option, event and method that the page uses is one that the component has."""
    assert check(folder) == ""


@pytest.fixture
def page(folder: Path) -> Iterator[Path]:
    """Yield the page's module, which a test may change."""
    page = folder / "app" / "static" / "page.js"
    right = page.read_text(encoding="utf-8")
    yield page
    page.write_text(right, encoding="utf-8")


def test_a_wrong_option_would_be_seen(folder: Path, page: Path) -> None:
    """The check is not blind: it reports a misspelt option and an old upload field."""
    text = page.read_text(encoding="utf-8")
    wrong = text.replace("showRename", "rename").replace("uploadUrl:", "upload_url:")
    page.write_text(wrong, encoding="utf-8")
    said = check(folder)
    assert "'rename'" in said
    assert "'upload_url'" in said


def test_some_recipes_change_the_page() -> None:
    """The search for them, used below, has not gone blind."""
    assert len(list(filter(None, RECIPES.values()))) >= 2


@pytest.mark.parametrize("title", [title for title, code in RECIPES.items() if code])
def test_a_recipe_s_page_fits_the_published_types(folder: Path, page: Path, title: str) -> None:
    """What a recipe adds to the page is checked like the page itself."""
    before = page.read_text(encoding="utf-8")
    apply(RECIPES[title], folder)
    assert page.read_text(encoding="utf-8") != before
    assert check(folder) == ""
