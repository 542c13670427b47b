"""The README's table and `.env.example` name the settings that the app has."""

import re
from pathlib import Path

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from app.settings import Settings

ROOT = Path(__file__).parents[1]


def row(name: str, field: FieldInfo) -> str:
    """Return a setting's row in the table."""
    value = field.default
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if isinstance(value, list):
        value = ",".join(value)
    if isinstance(value, bool):
        value = str(value).lower()
    default = "" if value in ("", None) else f"`{value}`"
    return " ".join(f"| `{name.upper()}` | {default} | {field.description} |".split())


def test_the_readme_lists_every_setting() -> None:
    """On a failure, paste the rows that are shown."""
    wanted = [row(name, field) for name, field in Settings.model_fields.items()]
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = (" ".join(line.split()) for line in text.splitlines())
    found = [line for line in rows if re.match(r"\| `[A-Z_]+` \|", line)]
    assert found == wanted, "\n" + "\n".join(wanted)


def test_the_example_names_settings() -> None:
    """Every name in `.env.example` is a setting, or the database's password for compose."""
    text = (ROOT / ".env.example").read_text(encoding="utf-8")
    names = set(re.findall(r"^#?([A-Z_]+)=", text, re.MULTILINE)) - {"POSTGRES_PASSWORD"}
    assert names
    assert names <= {name.upper() for name in Settings.model_fields}
