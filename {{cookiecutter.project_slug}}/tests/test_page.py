"""What the page is served with; how it looks is tested in a browser."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from app.page import FOLDER

from .serving import production, serving, settings_for
from .talking import talking

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("script", "origins"),
    [
        ({}, {"'self'", "https://cdn.platform.openai.com"}),
        ({"chatkit_script_url": "https://cdn.example/c.js"}, {"'self'", "https://cdn.example"}),
        ({"chatkit_script_url": "/static/chatkit.js"}, {"'self'"}),
    ],
)
async def test_the_page_may_load_chatkit_and_nothing_else(
    store_url: str, tmp_path: Path, script: dict[str, str], origins: set[str]
) -> None:
    """No script, frame or image comes from anywhere but here, ChatKit's CDN and named hosts."""
    changes = {"image_hosts": ["https://images.example.com"]} | script
    settings = settings_for(store_url, tmp_path, **changes)
    async with serving(settings) as app, app.caller() as caller:
        page = await caller.get("/")
    policy = page.headers["content-security-policy"]
    rules = {name: set(sources) for name, *sources in map(str.split, policy.split(";"))}
    for name in ("default-src", "base-uri", "form-action", "frame-ancestors"):
        assert rules[name] == {"'none'"}, name
    assert rules["script-src"] == rules["frame-src"] == rules["connect-src"] == origins
    images = {"'self'", "data:", "blob:", f"{settings.base_url}/", *settings.image_hosts}
    assert rules["img-src"] == images
    assert re.search(r"<script(?! type=\"module\" src=)|<style|style=| on\w+=", page.text) is None


async def test_monitors_may_send_head(store_url: str, tmp_path: Path) -> None:
    """Many programs that check whether a site is up send HEAD."""
    async with talking(store_url, tmp_path) as caller:
        for path in ("/", "/healthz", "/readyz"):
            answer = await caller.head(path)
            assert (answer.status_code, answer.text) == (200, "")


async def test_the_browser_asks_again_for_the_pages_files(store_url: str, tmp_path: Path) -> None:
    """A new release shows at once, and an unchanged file is not sent twice."""
    async with talking(store_url, tmp_path) as caller:
        for path in sorted(FOLDER.iterdir()):
            first = await caller.get(f"/static/{path.name}")
            assert first.content == path.read_bytes()
            assert first.headers["cache-control"] == "no-cache"
            etag = {"If-None-Match": first.headers["etag"]}
            assert (await caller.get(f"/static/{path.name}", headers=etag)).status_code == 304
        assert (await caller.get("/static/../settings.py")).status_code == 404
        assert (await caller.get("/static/%2e%2e/settings.py")).status_code == 404


@pytest.mark.parametrize("name", sorted(path.name for path in FOLDER.glob("*.js")))
def test_a_script_of_the_page_can_be_parsed(tmp_path: Path, name: str) -> None:
    """No other test here would notice a missing comma; without Node this one does not, either."""
    if not (node := shutil.which("node")):
        pytest.skip("node is not installed on this machine")
    module = shutil.copy(FOLDER / name, tmp_path / "module.mjs")
    done = subprocess.run([node, "--check", module], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


async def test_the_page_knows_the_settings_and_no_secret(store_url: str, tmp_path: Path) -> None:
    """All values come from the settings; the plain client is for development, or on request."""
    asked: dict[str, Any] = {
        "allow_anonymous": True,
        "on_disconnect": "finish",
        "chatkit_script_url": "https://cdn.example/c.js",
        "upload_strategy": "two_phase",
        "max_attachments": 3,
        "max_file_bytes": 4,
        "file_types": ["image/png", "application/octet-stream"],
        "model": "large",
        "allowed_models": ["small", "large"],
        "allowed_tools": ["look"],
        "transcribe_model": "ears",
    }
    async with serving(production(store_url, tmp_path, **asked)) as app, app.caller() as caller:
        answer = await caller.get("/config.json")
    assert answer.json() == {
        "scriptUrl": "https://cdn.example/c.js",
        "domainKey": "domain_pk_real",
        "waitSeconds": 10,
        "plainClient": False,
        "stopByRequest": True,
        "uploadStrategy": "two_phase",
        "maxFiles": 3,
        "maxFileBytes": 4,
        "accept": {"image/png": [".png"], "application/octet-stream": []},
        "models": ["large", "small"],
        "tools": ["look"],
        "dictation": True,
    }
    assert "chat_user" in answer.headers["set-cookie"]
    assert answer.headers["cache-control"] == "no-store"
    for plain_client, shown in ((None, True), (False, False)):
        async with talking(store_url, tmp_path, plain_client=plain_client) as caller:
            assert (await caller.get("/config.json")).json()["plainClient"] is shown


def test_files_are_fetched_from_the_apps_own_address(tmp_path: Path) -> None:
    """An image tag in a page of another origin has to find them as well."""
    for settings, address in (
        (settings_for("", tmp_path, host="::1", port=9), "http://[::1]:9"),
        (production("memory://", tmp_path, allow_anonymous=True), "https://Chat.Example.com"),
        (settings_for("", tmp_path, public_url="https://a.example/b/"), "https://a.example/b"),
    ):
        assert settings.base_url == address
