"""Print the choices that were taken, so that a misspelt key shows, and what to do next."""

import json
import pathlib
import sys

ANSWERS = json.loads(bytes.fromhex("{{ (cookiecutter | jsonify).encode().hex() }}"))

sys.stdout.reconfigure(errors="backslashreplace")
sys.stdout.write(
    f"""
Made {ANSWERS["project_name"]}
  project_slug  {ANSWERS["project_slug"]}
  storage_type  {ANSWERS["storage_type"]}
  context_type  {ANSWERS["context_type"]}

Next:
  cd "{pathlib.Path.cwd()}"
  make run      then open http://127.0.0.1:8000 (without make: uv run python -m app)
  make test     (without make: uv run pytest)
"""
)
