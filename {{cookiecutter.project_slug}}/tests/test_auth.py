"""Who is calling: cookies in development, verified tokens in production."""

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from pydantic import ValidationError

from app.context import RequestContext, owner_of
from app.limits import network_of
from app.settings import Settings

from .engine import SHARED
from .serving import Words, serving, settings_for, thread_of

pytestmark = pytest.mark.anyio
SECRET = "0123456789abcdef0123456789abcdef"


class Issuer:
    """A login service on loopback: discovery, keys, and tokens of any shape."""

    def __init__(self) -> None:
        """Start with one key."""
        self.keys: dict[str, rsa.RSAPrivateKey] = {}
        self.fetches = 0
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.fetches += 1
                body = json.dumps(issuer.document(self.path)).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Keep the tests quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.add_key("k1")
        Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        """End it, and its thread."""
        self.server.shutdown()
        self.server.server_close()

    def add_key(self, kid: str) -> None:
        """Make a new signing key."""
        self.keys[kid] = rsa.generate_private_key(public_exponent=65537, key_size=2048)

    def document(self, path: str) -> dict[str, Any]:
        """Return the discovery document or the public keys."""
        if path.endswith("openid-configuration"):
            return {"jwks_uri": f"{self.url}/keys"}
        algorithm = jwt.algorithms.RSAAlgorithm
        keys = [
            json.loads(algorithm.to_jwk(key.public_key())) | {"kid": kid, "use": "sig"}
            for kid, key in self.keys.items()
        ]
        return {"keys": keys}

    def token(self, kid: str = "k1", **changes: Any) -> str:
        """Return a token; a claim set to None is left out."""
        claims = {"iss": self.url, "aud": "chat", "sub": "ada", "exp": time.time() + 60} | changes
        claims = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode(claims, self.keys[kid], "RS256", {"kid": kid})


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    """Return a login service that ends with the test."""
    service = Issuer()
    yield service
    service.stop()


def production(store_url: str, folder: Path, **changes: Any) -> Settings:
    """Return the settings of a production app."""
    base: dict[str, Any] = {
        "environment": "production",
        "secret_key": SECRET,
        "chatkit_domain_key": "domain_pk_real",
        "allowed_hosts": "Chat.Example.com",
    }
    return settings_for(store_url, folder, **(base | changes))


async def test_two_browsers_are_two_users_and_a_restart_loses_none(
    store_url: str, tmp_path: Path
) -> None:
    """The cookie's key is kept in the data folder."""
    async with serving(settings_for(store_url, tmp_path), Words(3)) as served:
        async with served.caller() as one, served.caller() as two:
            thread_id = thread_of(await one.say("hello"))
            assert (await two.op("threads.list")).json()["data"] == []
            cookie = one.cookies["chat_user"]
            line = (await two.op("threads.list")).request.headers["cookie"]
            assert cookie not in line
    async with serving(settings_for(store_url, tmp_path), Words(3)) as served:
        async with served.caller(Cookie=f"chat_user={cookie}") as again:
            answer = await again.op("threads.get_by_id", thread_id=thread_id)
            assert answer.status_code == (200 if SHARED else 404)  # memory forgets
            assert "set-cookie" not in answer.headers


async def test_a_forged_cookie_is_a_new_user(store_url: str, tmp_path: Path) -> None:
    """The signature decides; HttpOnly and SameSite keep scripts and foreign pages out."""
    async with serving(settings_for(store_url, tmp_path), Words(3)) as served:
        async with served.caller(Cookie='chat_user="admin".AAAA') as caller:
            answer = await caller.op("threads.list")
            assert "HttpOnly; SameSite=Lax" in answer.headers["set-cookie"]


async def test_a_foreign_page_cannot_use_the_cookie(store_url: str, tmp_path: Path) -> None:
    """The origin must be the app's own or a named one."""
    settings = settings_for(store_url, tmp_path, allowed_origins="https://shop.example")
    async with serving(settings, Words(3)) as served, served.caller() as caller:
        for origin, status in (
            ("https://evil.example", 403),
            ("null", 403),
            ("https://shop.example", 200),
            (served.url, 200),
        ):
            answer = await caller.post(
                "/chatkit", json={"type": "threads.list", "params": {}}, headers={"Origin": origin}
            )
            assert answer.status_code == status, origin


async def test_a_token_names_its_user(store_url: str, tmp_path: Path, issuer: Issuer) -> None:
    """The owner is issuer and subject; two subjects do not meet."""
    settings = production(store_url, tmp_path, oidc_issuer=issuer.url, oidc_audience="chat")
    async with serving(settings, Words(3)) as served:
        ada, bob = (
            served.caller(Authorization=f"Bearer {issuer.token(sub=sub)}") for sub in ("ada", "bob")
        )
        thread_id = thread_of(await ada.say("hello"))
        owners = [owner async for owner in served.app.state.store.owners()]
        assert owners == [f"{issuer.url}|ada"]
        assert (await bob.op("threads.get_by_id", thread_id=thread_id)).status_code == 404
        await ada.aclose()
        await bob.aclose()


async def test_a_bad_token_is_refused(store_url: str, tmp_path: Path, issuer: Issuer) -> None:
    """Expiry, audience, issuer, subject, signature and algorithm are all checked."""
    settings = production(store_url, tmp_path, oidc_issuer=issuer.url, oidc_audience="chat")
    other = Issuer()
    none = jwt.encode({"sub": "ada"}, "", "none")
    secret = jwt.encode({"iss": issuer.url, "aud": "chat", "sub": "ada"}, SECRET, "HS256")
    bad = {
        "garbage": "abc",
        "expired": issuer.token(exp=time.time() - 60),
        "no expiry": issuer.token(exp=None),
        "another audience": issuer.token(aud="shop"),
        "another issuer": issuer.token(iss=other.url),
        "no subject": issuer.token(sub=None),
        "another signer": other.token(),
        "no signature": none,
        "a shared secret": secret,
    }
    async with serving(settings, Words(3)) as served:
        for name, token in bad.items():
            async with served.caller(Authorization=f"Bearer {token}") as caller:
                answer = await caller.op("threads.list")
                assert answer.status_code == 401, name
                assert "Bearer" in answer.headers["www-authenticate"]
    other.stop()


async def test_unknown_keys_are_fetched_rarely(
    store_url: str, tmp_path: Path, issuer: Issuer
) -> None:
    """A flood of tokens with made-up key ids does not become a flood of fetches."""
    settings = production(store_url, tmp_path, oidc_issuer=issuer.url, oidc_audience="chat")
    issuer.add_key("made-up")
    async with serving(settings, Words(3)) as served:
        good = issuer.token()
        async with served.caller(Authorization=f"Bearer {good}") as caller:
            assert (await caller.op("threads.list")).status_code == 200
        fetched = issuer.fetches
        tokens = [jwt.encode({}, issuer.keys["k1"], "RS256", {"kid": f"x{n}"}) for n in range(20)]
        callers = [served.caller(Authorization=f"Bearer {token}") for token in tokens]
        answers = await asyncio.gather(*(caller.op("threads.list") for caller in callers))
        assert {answer.status_code for answer in answers} == {401}
        assert issuer.fetches - fetched <= 2
        for caller in callers:
            await caller.aclose()


async def test_a_silent_issuer_holds_nobody_up_for_long(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One caller waits for it; the others are answered at once, for some seconds."""
    monkeypatch.setattr("app.auth.FETCH_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        settings = production(store_url, tmp_path, oidc_issuer=address, oidc_audience="chat")
        token = jwt.encode({}, SECRET, "HS256", {"kid": "x"})
        async with serving(settings, Words(3)) as served:
            async with served.caller(Authorization=f"Bearer {token}") as caller:
                begun = time.monotonic()
                answers = await asyncio.gather(*(caller.op("threads.list") for _ in range(10)))
    assert {answer.status_code for answer in answers} == {503}
    assert time.monotonic() - begun < 1.5


@pytest.mark.parametrize(
    ("changes", "setting"),
    [
        ({"secret_key": ""}, "SECRET_KEY"),
        ({"secret_key": "changeme" * 8}, "SECRET_KEY"),
        ({"allow_anonymous": False}, "OIDC_ISSUER"),
        ({"oidc_issuer": "https://login.example"}, "OIDC_AUDIENCE"),
        ({"chatkit_domain_key": "domain_pk_localhost_dev"}, "CHATKIT_DOMAIN_KEY"),
        ({"allowed_hosts": ""}, "ALLOWED_HOSTS"),
        ({"store_url": ""}, "STORE_URL"),
    ],
)
def test_production_refuses_to_start_half_set_up(
    tmp_path: Path, changes: dict[str, Any], setting: str
) -> None:
    """The message names the setting."""
    base: dict[str, Any] = {"allow_anonymous": True, "store_url": "memory://", "folder": tmp_path}
    with pytest.raises(ValidationError, match=setting):
        production(**base | changes)


def test_production_names_all_that_is_missing_at_once(tmp_path: Path) -> None:
    """Nobody starts it five times to learn of five settings."""
    with pytest.raises(ValidationError) as refused:
        settings_for("", tmp_path, environment="production")
    names = ("STORE_URL", "SECRET_KEY", "OIDC_ISSUER", "CHATKIT_DOMAIN_KEY", "ALLOWED_HOSTS")
    assert all(name in str(refused.value) for name in names)


async def test_production_keeps_the_reason_of_a_red_readyz_to_its_log(
    store_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It may name machines; anybody may ask."""

    async def away() -> None:
        raise ConnectionRefusedError("db.internal")

    async with serving(production(store_url, tmp_path, allow_anonymous=True)) as served:
        monkeypatch.setattr(served.app.state.store, "ping", away)
        async with served.caller() as caller:
            answer = await caller.get("/readyz")
    assert (answer.status_code, answer.json()) == (503, {"status": "unavailable"})
    assert "db.internal" in str([vars(record) for record in caplog.records])


async def test_an_anonymous_user_counts_by_address_too(store_url: str, tmp_path: Path) -> None:
    """A new cookie costs nothing, so it gives no new share."""
    settings = production(store_url, tmp_path, allow_anonymous=True, requests_per_minute=3)
    async with serving(settings, Words(3)) as served:
        statuses = []
        for _ in range(5):
            async with served.caller() as caller:
                statuses.append((await caller.op("threads.list")).status_code)
    assert statuses == [200, 200, 200, 429, 429]


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


def test_the_owner_of_a_context_is_its_user() -> None:
    """One function decides whose data it is."""
    assert owner_of(RequestContext(user_id="ada")) == "ada"
