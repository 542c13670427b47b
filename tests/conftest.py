"""What every test of the template may use."""

import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pytest_cookies.plugin import Cookies

from baked import BakedProject

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a script's background job
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the apps must hear Ctrl+C

sys.dont_write_bytecode = True  # a bake would copy what is written into the app's folder
CI = bool(os.environ.get("CI"))
TIMES: dict[str, dict[str, float]] = {}
DEFECTS: list[tuple[str, str, str, float]] = []


@pytest.fixture(scope="session")
def bake(
    cookies_session: Cookies, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., BakedProject]:
    """Return a function that bakes an app from answers, into a folder with a space in its name."""

    def bake_one(**answers: str) -> BakedProject:
        result = cookies_session.bake(extra_context=answers)
        if result.exception is not None:
            raise result.exception
        path = tmp_path_factory.mktemp("an app") / result.project_path.name
        shutil.move(result.project_path, path)
        return BakedProject(path, answers)

    return bake_one


@pytest.fixture
def tool() -> Callable[[str], str]:
    """Return a function that finds a program, or skips the test and says what is missing."""

    def find(name: str) -> str:
        for folder in (None, "/usr/sbin:/usr/local/sbin"):
            if found := shutil.which(name, path=folder):
                return found
        pytest.skip(f"{name} is not installed on this machine")

    return find


@pytest.fixture(scope="session")
def type_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return mypy's cache for all apps of a run, so that each worker reads the SDK once."""
    return tmp_path_factory.getbasetemp() / "mypy"


@pytest.fixture
def timed(request: pytest.FixtureRequest) -> Iterator[None]:
    """Report the time of one step of one combination: `test_step[combination]`."""
    start = time.monotonic()
    yield
    request.node.user_properties.append(("seconds", time.monotonic() - start))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Name each test's group for the scheduler: pytest 9.2 does not read where xdist 3.8 writes."""
    if not config.getoption("loadgroup", default=False):
        return
    for item in items:
        if mark := item.get_closest_marker("xdist_group"):
            item._id = item._id.parse(f"{item.nodeid}@{mark.args[0]}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """In CI nothing is skipped: whatever is missing there is a failure."""
    report = yield
    if CI and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped in CI: {report.longrepr[-1]} ({item.nodeid})"
    return report


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Collect the times of combinations and the sown defects from every worker."""
    properties: dict[str, Any] = dict(report.user_properties)
    if report.when == "teardown" and "defect" in properties:
        DEFECTS.append(properties["defect"])
    seconds = properties.get("seconds")
    if report.when == "teardown" and isinstance(seconds, float):
        step, _, rest = report.nodeid.rpartition("::")[2].partition("[")
        TIMES.setdefault(rest.partition("]")[0], {})[step.removeprefix("test_")] = seconds


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table of combinations, and that of the sown defects."""
    if TIMES:
        _print_times(terminalreporter)
    if DEFECTS:
        terminalreporter.section("sown defects: where, what, seconds, caught by")
        width = max(len(name) for _, name, _, _ in DEFECTS)
        for place, name, test, seconds in sorted(DEFECTS):
            terminalreporter.write_line(f"{place:8}  {name:{width}}  {seconds:4.1f}  {test}")


def _print_times(terminalreporter: pytest.TerminalReporter) -> None:
    steps = sorted({step for row in TIMES.values() for step in row})
    width = max(map(len, TIMES))
    terminalreporter.section("seconds for each combination")
    head = "  ".join(step[:24] for step in steps)
    terminalreporter.write_line(f"{'':{width}}  {head}  sum")
    for name, row in sorted(TIMES.items()):
        cells = "  ".join(f"{row.get(step, 0):{len(step[:24])}.1f}" for step in steps)
        terminalreporter.write_line(f"{name:{width}}  {cells}  {sum(row.values()):.1f}")


@pytest.fixture(scope="session", autouse=True)
def _no_inherited_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep a user's own cookiecutter configuration, and what it remembers, out of the tests."""
    folder = tmp_path_factory.mktemp("cookiecutter")
    config = folder / "config.yaml"
    config.write_text(f"replay_dir: '{folder}/replay'\ncookiecutters_dir: '{folder}/templates'\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COOKIECUTTER_CONFIG", str(config))
        yield
