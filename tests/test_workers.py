"""Several workers of one app: which end, and which go on."""

import asyncio
import contextlib
import os
import signal
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest

from baked import BakedProject, Session
from users import browser, complete, processes, read_to_the_end, terminate

pytestmark = [pytest.mark.product, pytest.mark.xdist_group("rounds-sqlite")]
FORK = b"--multiprocessing-fork"


@pytest.fixture(scope="module")
def project(bake: Callable[..., BakedProject]) -> BakedProject:
    """Bake an app whose store several processes can share, and make its environment."""
    baked = bake(storage_type="sqlite", context_type="dict")
    baked.check("uv", "sync", "--quiet")
    return baked


@pytest.fixture
def command(project: BakedProject) -> tuple[str, ...]:
    """Return the command that starts the app directly, without a process in between."""
    return (f"{project.path}/.venv/bin/python", "-m", "app")


def test_three_workers_are_one_app(
    project: BakedProject, command: tuple[str, ...], bake: Callable[..., BakedProject]
) -> None:
    """Any of them remembers; SIGTERM to the first process ends all, after their last answers.

    Memory allows only one.
    """

    def talk(user: Session) -> str:
        thread_id, _ = user.say("My name is Ada.")
        return user.say("What is my name?", thread_id)[1]

    refused = bake(storage_type="memory").run(*command, WORKERS="2")
    assert refused.stdout == "WORKERS must be 1: memory lives in one process\n"
    with project.serve(*command, WORKERS="3") as session:
        assert len(processes(session, FORK)) == 3
        with ThreadPoolExecutor() as pool:
            answers = list(pool.map(talk, [Session(session.url) for _ in range(8)]))
            assert all("the first was “My name is Ada.”" in answer for answer in answers)
            last = pool.submit(Session(session.url).say, "and " * 50)  # it takes 3 s
            time.sleep(0.5)
            terminate(session)
            assert last.result()[1].endswith("”."), "it had SHUTDOWN_SECONDS to end"
    assert (project.path / ".data/chat.db").stat().st_mode & 0o077 == 0, "others can read it"


def test_a_changed_file_restarts_an_app_with_reload(
    project: BakedProject, command: tuple[str, ...]
) -> None:
    """Requests wait meanwhile, the conversation goes on, and the new code answers."""
    file = project.path / "app/offline.py"
    text = file.read_text(encoding="utf-8")
    try:
        with project.serve(*command, RELOAD="true") as session:
            thread, answer = session.say("My name is Ada.")
            file.write_text(text.replace("I am the offline", "I am the changed"), "utf-8")
            deadline = time.monotonic() + 20
            while "I am the changed" not in answer and time.monotonic() < deadline:
                answer = session.say("What is my name?", thread)[1]
            assert "I am the changed" in answer
            assert "the first was “My name is Ada.”" in answer
    finally:
        file.write_text(text, encoding="utf-8")


def set_schema(file: Path, number: int) -> int:
    """Set the schema number, which says which app can open a store; return the old one."""
    with contextlib.closing(sqlite3.connect(file)) as store:
        before = store.execute("PRAGMA user_version").fetchone()[0]
        store.execute(f"PRAGMA user_version = {number}")
    return int(before)


def test_a_worker_waits_for_a_store_that_is_away_for_a_moment(
    project: BakedProject, command: tuple[str, ...], tmp_path: Path
) -> None:
    """The other one goes on; uvicorn by itself would end it because this one cannot start."""
    file = tmp_path / "chat.db"
    with project.serve(*command, WORKERS="2", STORE_URL=f"sqlite:///{file}") as session:
        thread, _ = session.say("Hello.")
        known = set_schema(file, 99)  # a newer app's: nobody can open the store
        first, other = processes(session, FORK)
        os.kill(first, signal.SIGKILL)
        time.sleep(4)
        assert session.say("Are you there?", thread)[1]
        set_schema(file, known)
        time.sleep(2)
        assert len(now := processes(session, FORK)) == 2
        assert other in now


def test_an_app_whose_worker_cannot_start_ends_with_a_status(
    project: BakedProject, command: tuple[str, ...], tmp_path: Path
) -> None:
    """So that a process manager restarts it; the log has the reason."""
    file = tmp_path / "chat.db"

    def serve() -> None:
        with project.serve(*command, WORKERS="2", STORE_URL=f"sqlite:///{file}") as session:
            set_schema(file, 99)
            os.kill(processes(session, FORK)[0], signal.SIGKILL)
            while processes(session, b"app"):
                time.sleep(0.1)

    with pytest.raises(AssertionError, match=r"(?s)ended: True, with 1:.*has schema 99"):
        serve()


def test_workers_end_with_a_supervisor_that_was_killed(
    project: BakedProject, command: tuple[str, ...]
) -> None:
    """Otherwise they would keep the port, and no new app could start."""

    def serve() -> None:
        with project.serve(*command, WORKERS="2") as session:
            (supervisor,) = processes(session, b"app")
            os.kill(supervisor, signal.SIGKILL)
            time.sleep(1)

    with pytest.raises(AssertionError, match="ended: True, with -9"):
        serve()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_closed_terminal_ends_the_app_as_sigterm_does(
    project: BakedProject, command: tuple[str, ...], workers: str
) -> None:
    """All of its processes get the signal; what the user saw is kept."""

    async def talk(session: Session) -> tuple[httpx2.Cookies, str, str]:
        begun = asyncio.Semaphore(0)
        async with asyncio.TaskGroup() as group:  # a reader that fails ends the wait
            task = group.create_task(read_to_the_end(session, begun))
            await begun.acquire()
            os.killpg(processes(session, b"app")[0], signal.SIGHUP)
        return task.result()

    async def look(session: Session) -> None:
        async with browser(session) as user:
            user.cookies = cookies
            assert (await user.answers(thread_id))[-1].startswith(received)

    with project.serve(*command, SHUTDOWN_SECONDS="0.5", WORKERS=workers) as session:
        cookies, thread_id, received = complete(talk(session))
    assert received
    with project.serve(*command) as session:
        complete(look(session))
