"""What the PostgreSQL store promises besides the contract, and the contract behind PgBouncer."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from baked import BakedProject

pytestmark = [pytest.mark.product, pytest.mark.xdist_group("postgres-dict")]
ALONE = [Path(__file__).with_name(f"postgres_{which}.py") for which in ("alone", "inside", "lost")]
BOUNCER = Path(__file__).with_name("pgbouncer.py")
NO_CACHE = """
from app.store import PostgresStore

opened = PostgresStore.open.__func__.__wrapped__
opened.__kwdefaults__["statement_cache_size"] = 0  # STORE_STATEMENT_CACHE_SIZE=0
"""


def test_the_contract_holds_behind_pgbouncer(
    bake: Callable[..., BakedProject], tool: Callable[[str], str]
) -> None:
    """The whole suite passes where every transaction may be on another connection."""
    tool("pgbouncer")
    project = bake(storage_type="postgres", context_type="dict")
    (project.path / "tests" / "__init__.py").write_text(NO_CACHE)  # for its processes as well
    command = ("uv", "run", "python", str(BOUNCER), "pytest")
    said = project.check(*command, *project.contract)
    assert "passed" in said.splitlines()[-1]


def test_postgres_keeps_its_own_promises(bake: Callable[..., BakedProject]) -> None:
    """Servers that are unfit, silent or old, and calls that wait for them."""
    project = bake(storage_type="postgres", context_type="dict")
    for source in ALONE:
        shutil.copy(source, project.path / "tests")
    tests = [f"tests/{source.name}" for source in ALONE]
    project.check("uv", "run", "pytest", "-n", "2", *tests)  # they mostly wait
