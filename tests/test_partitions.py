"""The PostgreSQL store in tables partitioned by owner, made as its README says."""

from collections.abc import Callable

import pytest

from baked import BakedProject

pytestmark = [pytest.mark.product, pytest.mark.xdist_group("postgres-dict")]
PARTITIONED = """
import re

from app import store

TABLE = r"(CREATE TABLE (chatkit\\.(?:thread|item|attachment|lease)) \\(.*?\\));"
PARTS = "".join(
    rf" CREATE TABLE \\2_{n} PARTITION OF \\2 FOR VALUES WITH (MODULUS 4, REMAINDER {n});"
    for n in range(4)
)
made = rf"\\1 PARTITION BY HASH (owner);{PARTS}"
step, found = re.subn(TABLE, made, store.MIGRATIONS[0], flags=re.DOTALL)
assert found == 4
store.MIGRATIONS = (step,)
"""


def test_the_contract_holds_in_partitions_by_owner(bake: Callable[..., BakedProject]) -> None:
    """Every key and foreign key includes the owner; otherwise PostgreSQL refuses the tables."""
    project = bake(storage_type="postgres", context_type="dict")
    (project.path / "tests" / "__init__.py").write_text(PARTITIONED)  # for its processes as well
    said = project.check("uv", "run", "pytest", *project.contract)
    assert "passed" in said.splitlines()[-1]
