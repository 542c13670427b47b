"""What the page is served with; how it looks is for a browser."""

import re
from pathlib import Path

import pytest

from app.page import FOLDER

from .serving import serving, settings_for
from .talking import talking

pytestmark = pytest.mark.anyio


async def test_the_page_may_load_chatkit_and_nothing_else(store_url: str, tmp_path: Path) -> None:
    """No script, frame or image comes from anywhere but here, ChatKit's CDN and named hosts."""
    settings = settings_for(store_url, tmp_path, image_hosts=["https://images.example.com"])
    async with serving(settings) as app, app.caller() as caller:
        page = await caller.get("/")
    policy = page.headers["content-security-policy"]
    rules = {name: set(sources) for name, *sources in map(str.split, policy.split(";"))}
    cdn = "https://cdn.platform.openai.com"
    for name in ("default-src", "base-uri", "form-action", "frame-ancestors"):
        assert rules[name] == {"'none'"}, name
    assert rules["script-src"] == rules["frame-src"] == rules["connect-src"] == {"'self'", cdn}
    images = {"'self'", "data:", "blob:", settings.base_url, *settings.image_hosts}
    assert rules["img-src"] == images
    assert re.search(r"<script(?! type=\"module\" src=)|<style|style=| on\w+=", page.text) is None


async def test_the_page_s_files_are_asked_for_again(store_url: str, tmp_path: Path) -> None:
    """A new release shows at once, and a file that did not change is not sent twice."""
    async with talking(store_url, tmp_path) as caller:
        for path in sorted(FOLDER.iterdir()):
            first = await caller.get(f"/static/{path.name}")
            assert first.content == path.read_bytes()
            assert first.headers["cache-control"] == "no-cache"
            etag = {"If-None-Match": first.headers["etag"]}
            assert (await caller.get(f"/static/{path.name}", headers=etag)).status_code == 304
        assert (await caller.get("/static/../settings.py")).status_code == 404
        assert (await caller.get("/static/%2e%2e/settings.py")).status_code == 404


async def test_the_page_knows_the_settings_and_no_secret(store_url: str, tmp_path: Path) -> None:
    """The plain client is for development unless it is asked for; the cookie comes first."""
    async with talking(
        store_url, tmp_path, allowed_models=["small"], on_disconnect="finish"
    ) as caller:
        answer = await caller.get("/config.json")
    config = answer.json()
    assert "chat_user_" in answer.headers["set-cookie"]
    assert (config["plainClient"], config["stopByRequest"]) == (True, True)
    assert (config["models"], config["uploadStrategy"]) == (["small"], "direct")
    assert not any("key" in name.lower() for name in set(config) - {"domainKey"})
    async with talking(store_url, tmp_path, plain_client=False) as caller:
        assert (await caller.get("/config.json")).json()["plainClient"] is False
