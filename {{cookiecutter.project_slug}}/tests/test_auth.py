"""Who is calling, by cookie, and what production asks for. Tokens: `test_tokens.py`."""

from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI, HTTPException, Request, Response
from pydantic import ValidationError

from app.auth import Authenticator
from app.errors import add_error_handlers
from app.limits import network_of

from .engine import SHARED
from .serving import SECRET, Words, production, serving, settings_for, thread_of
from .talking import talking

pytestmark = pytest.mark.anyio


async def test_two_browsers_are_two_users_and_a_restart_loses_none(
    store_url: str, tmp_path: Path
) -> None:
    """The cookie's key is kept in the data folder."""
    async with serving(settings_for(store_url, tmp_path), Words(3)) as served:
        async with served.caller() as one, served.caller() as two:
            thread_id = thread_of(await one.say("hello"))
            assert (await two.op("threads.list")).json()["data"] == []
            ((name, cookie),) = one.cookies.items()
            line = (await two.op("threads.list")).request.headers["cookie"]
            assert cookie not in line
    async with serving(settings_for(store_url, tmp_path), Words(3)) as served:
        async with served.caller(Cookie=f"{name}={cookie}") as again:
            answer = await again.op("threads.get_by_id", thread_id=thread_id)
            assert answer.status_code == (200 if SHARED else 404)  # memory forgets
            assert "set-cookie" not in answer.headers
            renewed = (await again.get("/config.json")).headers["set-cookie"]
            assert renewed.startswith(f"{name}={cookie}; Path=/; Max-Age=31536000;")  # a year


async def test_a_forged_cookie_is_a_new_user(store_url: str, tmp_path: Path) -> None:
    """The signature decides; HttpOnly and SameSite keep scripts and foreign pages out."""
    async with talking(store_url, tmp_path) as caller:
        caller.headers["Cookie"] = f'{caller.served.app.state.auth._cookie}="admin".AAAA'
        answer = await caller.op("threads.list")
        assert "HttpOnly; SameSite=Lax" in answer.headers["set-cookie"]


async def test_another_host_of_the_domain_cannot_choose_the_user(
    store_url: str, tmp_path: Path
) -> None:
    """Browsers guard the name `__Host-…`, but not one that begins with a space of some kind."""
    auth = Authenticator(production(store_url, tmp_path, allow_anonymous=True))

    def asked(cookie: bytes) -> Request:
        return Request({"type": "http", "method": "POST", "headers": [(b"cookie", cookie)]})

    user = await auth.user_of(first := asked(b""))
    cookie = first.state.set_cookie.partition(";")[0].encode()
    for before, known in ((b"", True), (b"a=1; ", True), (b"\xa0", False), (b"\x85", False)):
        assert (await auth.user_of(asked(before + cookie)) == user) is known, before


async def test_two_apps_on_one_host_keep_their_own_users(tmp_path: Path) -> None:
    """Below two paths of it, say: the browser sends both apps' cookies to either."""
    kept: dict[str, str] = {}

    async def visit(key: str) -> str:
        settings = production("memory://", tmp_path, allow_anonymous=True, secret_key=key)
        line = "; ".join(map("=".join, kept.items())).encode()
        scope = {"type": "http", "method": "GET", "headers": [(b"cookie", line)]}
        user = await Authenticator(settings).user_of(request := Request(scope))
        name, _, value = request.state.set_cookie.partition(";")[0].partition("=")
        kept[name] = value
        return user

    one, two = await visit(SECRET), await visit(SECRET[::-1])
    assert [await visit(SECRET), await visit(SECRET[::-1])] == [one, two]


async def test_a_foreign_page_cannot_use_the_cookie(store_url: str, tmp_path: Path) -> None:
    """The origin must be the app's own or a named one."""
    async with talking(store_url, tmp_path, allowed_origins="https://shop.example") as caller:
        for origin, status in (
            ("https://evil.example", 403),
            ("null", 403),
            ("https://shop.example", 200),
            (caller.served.url, 200),
        ):
            answer = await caller.post(
                "/chatkit", json={"type": "threads.list", "params": {}}, headers={"Origin": origin}
            )
            assert answer.status_code == status, origin
            named = origin if origin == "https://shop.example" else None
            assert answer.headers.get("access-control-allow-origin") == named


@pytest.mark.parametrize(("issuer", "credentials"), [("", "true"), ("https://login.example", None)])
async def test_a_named_page_may_send_what_the_page_sends(
    store_url: str, tmp_path: Path, issuer: str, credentials: str | None
) -> None:
    """A browser asks first. Cookies are allowed only where they are the login."""
    named = {"oidc_issuer": issuer, "allowed_origins": "https://shop.example"}
    asked = {"Origin": "https://shop.example", "Access-Control-Request-Method": "PUT"}
    asked["Access-Control-Request-Headers"] = "Authorization, Content-Type, X-Request-ID"
    async with talking(store_url, tmp_path, **named) as caller:
        answer = await caller.options("/chatkit", headers=asked)
    assert answer.status_code == 200
    assert answer.headers.get("access-control-allow-credentials") == credentials


@pytest.mark.parametrize(
    ("changes", "setting"),
    [
        ({"secret_key": ""}, "SECRET_KEY"),
        ({"secret_key": "changeme" * 8}, "SECRET_KEY"),
        ({"secret_key": "0123456789abcdef"}, "SECRET_KEY"),
        ({"allow_anonymous": False}, "OIDC_ISSUER"),
        ({"oidc_issuer": "https://login.example"}, "OIDC_AUDIENCE"),
        ({"chatkit_domain_key": "domain_pk_localhost_dev"}, "CHATKIT_DOMAIN_KEY"),
        ({"allowed_hosts": ""}, "ALLOWED_HOSTS"),
        ({"store_url": ""}, "STORE_URL"),
        ({"metrics_token": "guess"}, "METRICS_TOKEN"),
        ({"oidc_issuer": "http://login.example", "oidc_audience": "chat"}, "OIDC_ISSUER"),
        ({"public_url": "http://chat.example.com"}, "PUBLIC_URL"),
    ],
)
def test_production_refuses_to_start_half_set_up(
    tmp_path: Path, changes: dict[str, Any], setting: str
) -> None:
    """The error names the setting."""
    base: dict[str, Any] = {"allow_anonymous": True, "store_url": "memory://", "folder": tmp_path}
    with pytest.raises(ValidationError, match=setting):
        production(**base | changes)


async def test_production_keeps_the_reason_of_a_red_readyz_to_its_log(
    store_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Anybody may ask, and the reason may name machines."""

    async def away() -> None:
        raise ConnectionRefusedError("db.internal")

    async with serving(production(store_url, tmp_path, allow_anonymous=True)) as served:
        monkeypatch.setattr(served.app.state.store, "ping", away)
        async with served.caller() as caller:
            answer = await caller.get("/readyz")
    assert (answer.status_code, answer.json()) == (503, {"status": "unavailable"})
    assert "db.internal" in str([vars(record) for record in caplog.records])


async def test_an_anonymous_user_counts_by_address_too(store_url: str, tmp_path: Path) -> None:
    """A new cookie costs nothing, so it brings no new allowance."""
    settings = production(store_url, tmp_path, allow_anonymous=True, requests_per_minute=3)
    async with serving(settings, Words(3)) as served:
        statuses = []
        for _ in range(5):
            async with served.caller(Host="chat.example.COM:443") as caller:
                answer = await caller.op("threads.list")
                statuses.append(answer.status_code)
                cookie = answer.headers.get("set-cookie", "")
                assert answer.status_code == 429 or cookie.startswith("__Host-chat_user_")
                assert answer.status_code == 429 or cookie.endswith("; Secure")
                assert (await caller.get("/openapi.json")).status_code == 404
    assert statuses == [200, 200, 200, 429, 429]


async def test_users_of_your_own_login_do_not_count_by_address(
    store_url: str, tmp_path: Path
) -> None:
    """A whole office may share one."""

    class Login(Authenticator):
        async def user_of(self, request: Request) -> str:
            return request.headers["x-user"]

    settings = production(store_url, tmp_path, allow_anonymous=True, requests_per_minute=3)
    async with serving(settings, Words(3), Login(settings)) as served:
        for number in range(5):
            async with served.caller(**{"x-user": f"user{number}"}) as caller:
                assert (await caller.op("threads.list")).status_code == 200


@pytest.mark.parametrize(
    ("host", "counted"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("testclient", "testclient"),
    ],
)
def test_a_whole_network_of_ipv6_is_one_address(host: str, counted: str) -> None:
    """One caller has 2**64 of them."""
    assert network_of(host) == counted


async def test_a_refusal_by_a_middleware_has_the_apps_form() -> None:
    """A team's own login may be a middleware."""
    app = FastAPI()

    @app.middleware("http")
    async def refuse(request: Request, _: object) -> Response:
        request.state.request_id = "req-1"  # as the app's outermost layer does
        raise HTTPException(403, "Not here.")

    add_error_handlers(app)
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app)) as caller:
        answer = await caller.get("http://localhost/")
    assert (answer.status_code, answer.json()["error"]["message"]) == (403, "Not here.")
