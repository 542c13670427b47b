"""Print the choices that were made, so that a misspelt key shows, and what to do next."""

import os
import sys

NAME = "{{ cookiecutter.__name_escaped }}"  # pre_gen has checked everything shown here
HERE = os.getcwd()  # noqa: PTH109 - pathlib would make every bake wait for its import

sys.stdout.reconfigure(errors="backslashreplace")
sys.stdout.write(
    f"""
Made {NAME}
  project_slug  {{ cookiecutter.project_slug }}
  storage_type  {{ cookiecutter.storage_type }}
  context_type  {{ cookiecutter.context_type }}

Next:
  cd "{HERE}"
  make run      then open http://127.0.0.1:8000 (without make: uv run python -m app)
  make test     (without make: uv run pytest)
"""
)
