"""All benchmarks, one after another; `make bench` and `make bench-full` run it.

Arguments go on to stores.py.
"""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def main() -> int:
    """Run them; return the highest exit code."""
    worst = 0
    for script, arguments in (
        ("stores.py", ["--json", str(HERE / "stores.json"), *sys.argv[1:]]),
        ("server.py", ["--json", str(HERE / "server.json")]),
        ("bake.py", []),
    ):
        print(f"\n## {script}\n", flush=True)
        command = [sys.executable, str(HERE / script), *arguments]
        worst = max(worst, subprocess.run(command, check=False).returncode)
    return worst


if __name__ == "__main__":
    sys.exit(main())
