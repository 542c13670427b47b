"""Nothing that was acknowledged is lost when a process or an engine is killed."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from baked import BakedProject

pytestmark = pytest.mark.product
CRASHES = Path(__file__).with_name("crashes.py")


@pytest.mark.parametrize(
    "storage",
    [
        pytest.param(name, marks=pytest.mark.xdist_group(f"{name}-dict"))
        for name in ("sqlite", "redis", "postgres")
    ],
)
def test_twenty_crashes_lose_nothing(bake: Callable[..., BakedProject], storage: str) -> None:
    """Twenty rounds of each kind of kill, and ten seconds without the engine under load."""
    project = bake(storage_type=storage, context_type="dict")
    shutil.copy(CRASHES, project.path / "tests" / "test_store_crashes.py")
    others = "not engine" if storage == "sqlite" else "not file"  # there the process is the engine
    project.check("uv", "run", "pytest", "tests/test_store_crashes.py", "-k", others, timeout=600)
