"""Nothing acknowledged is lost, and nothing half deleted, when a process or an engine is killed."""

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
@pytest.mark.parametrize(
    "rounds", [pytest.param(20, id="few"), pytest.param(100, id="many", marks=pytest.mark.full)]
)
def test_crashes_lose_nothing(bake: Callable[..., BakedProject], storage: str, rounds: int) -> None:
    """Many rounds of each kind of kill, and ten seconds without the engine, under load."""
    project = bake(storage_type=storage, context_type="dict")
    shutil.copy(CRASHES, project.path / "tests" / "test_store_crashes.py")
    kinds = "not engine" if storage == "sqlite" else "not file"  # there, the process is the engine
    kinds += " and killed" if rounds > 20 else ""  # the others have no rounds
    command = ("uv", "run", "pytest", "tests/test_store_crashes.py", "-k", kinds)
    project.check(*command, ROUNDS=str(rounds))
