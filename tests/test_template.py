"""The template as it stands, unrendered: it parses, lints and can be checked out anywhere."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from cookiecutter.main import cookiecutter

from baked import STORAGES, TEMPLATE, BakedProject, parse, tracked

APP = TEMPLATE / "{{cookiecutter.project_slug}}"
BIN = Path(sys.executable).parent
WINDOWS_REFUSES = re.compile(
    r'[<>:"|?*\\\x00-\x1f]|[. ]$|^(con|prn|aux|nul|com\d|lpt\d)(\.|$)', re.IGNORECASE
)


def lint(name: str, *arguments: str) -> None:
    """Run one of the template's linters; what it reports is the failure."""
    done = subprocess.run(
        [BIN / name, *arguments],
        cwd=TEMPLATE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def test_every_file_parses_unrendered() -> None:
    """Python, TOML, YAML and JSON; Jinja in them is a comment or inside a string."""
    for path in tracked():
        parse(path)


def test_jinja_in_python_is_a_comment_or_stands_in_a_string() -> None:
    """Only strings and `# jinja:` lines contain an expression or a statement."""
    for path in [*APP.rglob("*.py"), *(TEMPLATE / "templates").rglob("*.py")]:
        text = path.read_text(encoding="utf-8")
        strings = [n.value for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Constant)]
        inside = sum(str(value).count("{{") for value in strings)
        assert text.count("{{") <= inside + text.count("{{{{"), path
        assert "{%" not in text, path


def test_every_file_lints_and_is_formatted_unrendered() -> None:
    """With ruff; a `# jinja:` line looks like dead code, and may bring a module's docstring."""
    lint("ruff", "check", "--no-cache", "--ignore", "ERA001,D100", ".")
    lint("ruff", "format", "--no-cache", "--check", ".")


def test_yaml_is_tidy() -> None:
    """The template's own and the apps'."""
    lint("yamllint", "--strict", ".")


def test_no_blank_line_follows_a_jinja_line() -> None:
    """Jinja swallows the blank lines after a line statement: put them before it."""
    wrong = re.compile(r"^[ \t]*# jinja:.*\n[ \t]*\n", re.MULTILINE)
    for path in tracked():
        if path.suffix in (".py", ".toml", ".yaml", ".yml", ".md", "") and APP in path.parents:
            found = wrong.search(path.read_text(encoding="utf-8"))
            assert found is None, f"{path}: {found and found[0]!r}"


def test_workflows_are_sound() -> None:
    """Zizmor finds nothing, the schema fits, and permissions are minimal."""
    workflows = [path for path in tracked() if "workflows" in path.parts]
    assert len(workflows) == 2
    lint("zizmor", "--offline", "--quiet", ".github", str(APP / ".github"))
    lint("check-jsonschema", "--builtin-schema", "vendor.github-workflows", *map(str, workflows))
    for path in workflows:
        assert yaml.safe_load(path.read_text())["permissions"] == {"contents": "read"}
        for action in re.findall(r"uses: (.*)", path.read_text()):
            assert re.fullmatch(r"[\w-]+/[\w-]+@v\d+", action)


@pytest.mark.parametrize("storage", STORAGES)
def test_deployment_files_are_sound(bake: Callable[..., BakedProject], storage: str) -> None:
    """Hadolint and compose-lint find nothing; the image has no development wheels."""
    project = bake(storage_type=storage)
    lint("hadolint", str(project.path / "Dockerfile"))
    lint("compose-lint", "--fail-on", "high", str(project.path / "compose.yaml"))
    services = yaml.safe_load((project.path / "compose.yaml").read_text())["services"]
    assert set(services) == {"app"} | ({storage} & {"redis", "postgres"})
    dockerfile = (project.path / "Dockerfile").read_text()
    assert "uv sync --no-dev" in dockerfile
    assert re.search(r"^USER \d+$", dockerfile, re.MULTILINE)
    assert re.search(r'^CMD \["python", "-m", "app"\]$', dockerfile, re.MULTILINE)


def test_names_can_be_checked_out_everywhere() -> None:
    """No name that Windows refuses, no two that differ only in case, no symbolic links."""
    paths = tracked()
    for path in paths:
        assert not path.is_symlink(), path
        for part in path.relative_to(TEMPLATE).parts:
            assert not WINDOWS_REFUSES.search(part), path
    assert len({str(path).lower() for path in paths}) == len(paths)


def test_line_endings_are_fixed() -> None:
    """`.gitattributes` says LF, and every text file has it."""
    for root in (TEMPLATE, APP):
        assert "* text=auto eol=lf" in (root / ".gitattributes").read_text()
    for path in tracked():
        if path.suffix != ".png":
            assert b"\r" not in path.read_bytes(), path


def test_nothing_names_a_registry() -> None:
    """No committed file names a package registry's host, and no lock file is shipped."""
    hosts = "|".join(re.escape(".".join(pair)) for pair in (("pypi", "org"), ("npmjs", "org")))
    for path in tracked():
        assert path.name not in ("uv.lock", "package-lock.json"), path
        if path.suffix != ".png":
            assert not re.search(hosts, path.read_text(encoding="utf-8")), path


def test_versions_agree() -> None:
    """All three places name one version, and each release in the changelog says how to upgrade."""
    version = json.loads((TEMPLATE / "cookiecutter.json").read_text())["__template_version"]
    assert tomllib.loads((TEMPLATE / "pyproject.toml").read_text())["project"]["version"] == version
    releases = re.split(r"^## ", (TEMPLATE / "CHANGELOG.md").read_text(), flags=re.MULTILINE)[1:]
    assert releases[0].startswith(version)
    assert all("Upgrading: " in release for release in releases)


def test_stores_share_their_head() -> None:
    """The helpers between the markers are the same in all four, letter by letter."""
    heads = set()
    for storage in STORAGES:
        text = (TEMPLATE / f"templates/store/{storage}.py").read_text(encoding="utf-8")
        _, _, rest = text.partition("# --- the same in every store: values ---")
        heads.add(rest.partition("# --- end ---")[0])
    assert len(heads) == 1
    assert heads != {""}


def test_stores_promise_the_same_in_the_same_words() -> None:
    """A method's docstring is the same in all four, except for what is specific to an engine."""
    words: dict[str, set[str | None]] = {}
    for storage in STORAGES:
        tree = ast.parse((TEMPLATE / f"templates/store/{storage}.py").read_text(encoding="utf-8"))
        for method in ast.walk(tree):
            if isinstance(method, ast.AsyncFunctionDef) and not method.name.startswith("_"):
                words.setdefault(method.name, set()).add(ast.get_docstring(method))
    different = {name for name, texts in words.items() if len(texts) > 1}
    assert different == {"open", "ping", "owners"}


@pytest.mark.parametrize("storage", STORAGES)
def test_without_hooks_the_bytes_are_the_same(tmp_path: Path, storage: str) -> None:
    """Hooks refuse and print; they change nothing, so `--accept-hooks no` gives the same app."""
    apps = []
    for accept in (True, False):
        made = cookiecutter(
            str(TEMPLATE),
            no_input=True,
            extra_context={"storage_type": storage},
            accept_hooks=accept,
            output_dir=str(tmp_path / str(accept)),
        )
        root = Path(made)
        apps.append({p.relative_to(root): p.read_bytes() for p in root.rglob("*") if p.is_file()})
    assert apps[0] == apps[1]


def test_hooks_need_nothing_but_python() -> None:
    """The standard library alone: they run under cookiecutter's own Python."""
    for path in (TEMPLATE / "hooks").glob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text())))
        names = {name.name for n in nodes if isinstance(n, ast.Import) for name in n.names}
        names |= {str(n.module).partition(".")[0] for n in nodes if isinstance(n, ast.ImportFrom)}
        assert names <= set(sys.stdlib_module_names)


def test_public_functions_say_what_they_do() -> None:
    """Docstrings are complete wherever others read the code."""
    readers = [p for p in tracked() if p.suffix == ".py" and "tests" not in p.parts]
    readers = [p for p in readers if "engine" not in p.parts and "# jinja" not in p.read_text()[:7]]
    lint(
        "ruff",
        "check",
        "--no-cache",
        "--select",
        "D1,D419",
        "--ignore",
        "D105,D107",
        *map(str, readers),
    )


def test_commits_are_checked_by_local_hooks_alone() -> None:
    """Nothing is cloned: pre-commit and what its hooks run come from the group `dev`."""
    for root in (TEMPLATE, APP):
        tools = {"pre-commit"}
        for repository in yaml.safe_load((root / ".pre-commit-config.yaml").read_text())["repos"]:
            assert repository["repo"] == "local"
            for hook in repository["hooks"]:
                assert hook["entry"].startswith(("uv run ", "make ")), hook
                tools |= set(re.findall(r"^uv run (?:python -m )?([\w-]+)", hook["entry"]))
        groups = tomllib.loads((root / "pyproject.toml").read_text())["dependency-groups"]
        assert tools <= {str(each).partition(">=")[0] for each in groups["dev"]}


def test_the_templates_environment_has_what_the_apps_need() -> None:
    """The group `apps` has all apps' dependencies and engines: the benchmarks run in our .venv."""
    ours = tomllib.loads((TEMPLATE / "pyproject.toml").read_text())["dependency-groups"]
    theirs = tomllib.loads((APP / "pyproject.toml").read_text())
    wanted = set(theirs["project"]["dependencies"]) | set(theirs["dependency-groups"]["dev"])
    assert set(theirs["project"]["dependencies"]) <= set(ours["apps"])
    assert set(ours["apps"]) <= wanted
