"""What the Redis store promises besides the contract, and the contract on three primaries."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from baked import BakedProject

pytestmark = [pytest.mark.product, pytest.mark.xdist_group("redis-dict")]
CLUSTER = Path(__file__).with_name("cluster.py")
ALONE = [Path(__file__).with_name(f"redis_{which}.py") for which in ("alone", "lost", "owners")]


@pytest.mark.parametrize(
    "tests",
    [
        pytest.param(["tests/test_store_isolation.py"], id="isolation"),
        pytest.param([], id="whole-contract", marks=pytest.mark.full),
    ],
)
def test_contract_holds_on_a_cluster(bake: Callable[..., BakedProject], tests: list[str]) -> None:
    """Keys of one owner share a slot, the list of owners has slots of its own."""
    project = bake(storage_type="redis", context_type="dict")
    chosen = tests or project.contract
    project.check("uv", "run", "python", str(CLUSTER), "pytest", *chosen)


def test_redis_keeps_its_own_promises(bake: Callable[..., BakedProject]) -> None:
    """The list of owners, hostile names, unseen restarts, unfit servers, a cluster's changes."""
    project = bake(storage_type="redis", context_type="dict")
    for source in (CLUSTER, *ALONE):
        shutil.copy(source, project.path / "tests")
    tests = [f"tests/{source.name}" for source in ALONE]
    project.check("uv", "run", "pytest", "-n", "2", *tests)  # they mostly wait
