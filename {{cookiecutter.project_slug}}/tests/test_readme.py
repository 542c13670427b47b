"""What README.md, AGENTS.md and `.env.example` say of settings, imports and logins is true."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from fastapi import Request
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from app import auth
from app.settings import Settings

from .serving import Words, serving, settings_for

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
    """If it fails, paste the rows that it shows."""
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


def test_imports_work_or_fail_as_agents_md_says() -> None:
    """AGENTS.md lists those that people and programs make up; a release may move the right ones."""
    text = (ROOT / "AGENTS.md").read_text(encoding="utf-8")
    wrong = re.findall(r"^\| `(from chatkit[^`]+)` \|", text, re.MULTILINE)
    right = re.findall(r"\| `(from chatkit[^`]+)` \|$", text, re.MULTILINE)
    assert (len(wrong), len(right)) == (4, 2)
    for line in right:
        exec(line, {})  # noqa: S102 - our own page
    for line in wrong:
        with pytest.raises(ImportError):
            exec(line, {})  # noqa: S102 - the same


@pytest.mark.anyio
async def test_your_own_login_names_the_user(store_url: str, tmp_path: Path) -> None:
    """The README's class replaces ours; a caller who is not signed in gets a 401."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (source,) = re.findall(r"```python\n(class Login.*?)```", text, re.DOTALL)

    async def user_of(session: str) -> str:
        return {"s1": "ada"}.get(session, "")

    names = vars(auth) | {"my_login": SimpleNamespace(user_of=user_of)}
    exec(source, names)  # noqa: S102 - our own README
    settings = settings_for(store_url, tmp_path)
    async with serving(settings, Words(3), names["Login"](settings)) as served:
        async with served.caller(Cookie="session=s1") as ada, served.caller() as nobody:
            scope = {"type": "http", "method": "GET", "headers": [(b"cookie", b"session=s1")]}
            assert await served.app.state.auth.user_of(Request(scope)) == "ada"
            assert (await ada.op("threads.list")).status_code == 200
            assert (await nobody.op("threads.list")).status_code == 401
            assert (await nobody.get("/config.json")).status_code == 200, "the page is for all"
            foreign = {"Origin": "https://evil.example"}
            answer = await ada.post("/chatkit", json={"type": "threads.list"}, headers=foreign)
            assert answer.status_code == 403
