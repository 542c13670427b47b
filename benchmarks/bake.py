"""Baking against an empty template without hooks, side by side; we want at most 1.3 times.

`python benchmarks/bake.py` prints both medians and their ratio. Each is the whole command, as a
user waits for it: Python's start, cookiecutter's imports, files, hooks. Imports come from Python's
cache, as they do for users from the second time on; without it both take longer by the same time.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TEMPLATE = Path(__file__).parents[1]
BOUND = 1.3
ROUNDS = 15


def empty_template(folder: Path) -> Path:
    """Write a template with one question, one file and no hooks."""
    (folder / "{{cookiecutter.slug}}").mkdir(parents=True)
    (folder / "{{cookiecutter.slug}}/README.md").write_text("hello\n")
    (folder / "cookiecutter.json").write_text(json.dumps({"slug": "app"}))
    return folder


def seconds(template: Path, output: Path) -> float:
    """Return how many seconds one bake takes."""
    command = [sys.executable, "-m", "cookiecutter", str(template), "--no-input", "-f"]
    cached = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    start = time.perf_counter()
    subprocess.run([*command, "-o", str(output)], check=True, capture_output=True, env=cached)
    return time.perf_counter() - start


def main() -> None:
    """Print the medians of this template and the empty one, measured in turns, and their ratio."""
    times: tuple[list[float], list[float]] = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        templates = TEMPLATE, empty_template(folder / "empty")
        for number in range(ROUNDS + 1):
            for template, found in zip(templates, times, strict=True):
                took = seconds(template, folder / f"{number}")
                if number:  # the first one warms the disk cache
                    found.append(took)
    ours, empty = map(statistics.median, times)
    print(f"bake: {ours * 1000:.0f} ms, an empty template: {empty * 1000:.0f} ms, ", end="")
    print(f"ratio {ours / empty:.2f} (at most {BOUND})")


if __name__ == "__main__":
    main()
