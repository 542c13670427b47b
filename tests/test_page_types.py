"""The page's modules against the types that `@openai/chatkit` publishes."""

import shutil
import subprocess
from pathlib import Path

import pytest

from baked import TEMPLATE

pytestmark = pytest.mark.product
HERE = Path(__file__).parent / "page_types"
SOURCE = TEMPLATE / "{{cookiecutter.project_slug}}" / "app" / "static"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the compiler and the types beside a copy of the page's modules."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not installed on this machine")
    folder = tmp_path_factory.mktemp("types")
    shutil.copytree(SOURCE, folder / "static")
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


def test_a_wrong_option_would_be_seen(folder: Path) -> None:
    """The check is not blind: a misspelt option and an old upload field are faults."""
    page = folder / "static" / "page.js"
    right = page.read_text(encoding="utf-8")
    wrong = right.replace("showRename", "rename").replace("uploadUrl:", "upload_url:")
    page.write_text(wrong, encoding="utf-8")
    try:
        said = check(folder)
    finally:
        page.write_text(right, encoding="utf-8")
    assert "'rename'" in said
    assert "'upload_url'" in said
