"""Print the choices that were taken, so that a misspelt key shows, and what to do next."""

import json
import os
import sys

ANSWERS = json.loads(bytes.fromhex("{{ (cookiecutter | jsonify).encode().hex() }}"))
HERE = os.getcwd()  # noqa: PTH109 - pathlib would make every bake wait for its import

sys.stdout.reconfigure(errors="backslashreplace")
sys.stdout.write(
    f"""
Made {ANSWERS["project_name"]}
  project_slug  {ANSWERS["project_slug"]}
  storage_type  {ANSWERS["storage_type"]}
  context_type  {ANSWERS["context_type"]}

Next:
  cd "{HERE}"
  make run      then open http://127.0.0.1:8000 (without make: uv run python -m app)
  make test     (without make: uv run pytest)
"""
)
