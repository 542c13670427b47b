"""Who is calling, by token: what is checked, and what happens when the issuer fails."""

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from fastapi import Request

from app.logs import JSON_LINE

from .serving import SECRET, Served, Words, production, serving, thread_of

pytestmark = pytest.mark.anyio


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
        """Stop the server and its thread."""
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

    def token(self, kid: str = "k1", *, named: bool = True, **changes: Any) -> str:
        """Return a token; a claim set to None is left out."""
        claims = {"iss": self.url, "aud": "chat", "sub": "ada", "exp": time.time() + 60} | changes
        claims = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode(claims, self.keys[kid], "RS256", {"kid": kid} if named else None)


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    """Return a login service that ends with the test."""
    service = Issuer()
    yield service
    service.stop()


@pytest.fixture
async def served(store_url: str, tmp_path: Path, issuer: Issuer) -> AsyncIterator[Served]:
    """Serve a production app that trusts this login service."""
    settings = production(store_url, tmp_path, oidc_issuer=issuer.url, oidc_audience="chat")
    async with serving(settings, Words(3)) as app:
        yield app


async def test_a_token_names_its_user(served: Served, issuer: Issuer) -> None:
    """The user is issuer and subject; two subjects are two users."""
    logins = [f"Bearer {issuer.token(sub=sub)}" for sub in ("ada", "bob")]
    ada, bob = (served.caller(Authorization=login) for login in logins)
    thread_id = thread_of(await ada.say("hello"))
    headers = [(b"authorization", logins[0].encode())]
    user = await served.app.state.auth.user_of(Request({"type": "http", "headers": headers}))
    assert user == f"{issuer.url}|ada"
    assert (await bob.op("threads.get_by_id", thread_id=thread_id)).status_code == 404
    await ada.aclose()
    await bob.aclose()


async def test_a_bad_token_is_refused(served: Served, issuer: Issuer) -> None:
    """Expiry, audience, issuer, subject, signature and algorithm are all checked."""
    other = Issuer()
    claims = {"iss": issuer.url, "aud": "chat", "sub": "ada", "exp": time.time() + 60}
    none = jwt.encode(claims, "", "none", {"kid": "k1"})
    secret = jwt.encode(claims, SECRET, "HS256", {"kid": "k1"})
    bad = {
        "garbage": "abc",
        "expired": issuer.token(exp=time.time() - 60),
        "no expiry": issuer.token(exp=None),
        "another audience": issuer.token(aud="shop"),
        "another issuer": issuer.token(iss=other.url),
        "no subject": issuer.token(sub=None),
        "an empty subject": issuer.token(sub=""),
        "another signer": other.token(),
        "no signature": none,
        "a shared secret": secret,
    }
    for name, token in bad.items():
        async with served.caller(Authorization=f"Bearer {token}") as caller:
            answer = await caller.op("threads.list")
            assert answer.status_code == 401, name
            assert "Bearer" in answer.headers["www-authenticate"]
    async with served.caller(Authorization=f"Basic {issuer.token()}") as caller:
        assert (await caller.op("threads.list")).status_code == 401
    other.stop()


@pytest.mark.parametrize(("keys", "status"), [(1, 200), (2, 401)])
async def test_a_token_need_not_name_the_only_key(
    served: Served, issuer: Issuer, keys: int, status: int
) -> None:
    """The specification asks for the name where there are several."""
    for number in range(1, keys):
        issuer.add_key(f"another{number}")
    async with served.caller(Authorization=f"Bearer {issuer.token(named=False)}") as caller:
        assert (await caller.op("threads.list")).status_code == status


async def test_unknown_keys_are_fetched_rarely(served: Served, issuer: Issuer) -> None:
    """A flood of made-up key ids is no flood of fetches; half a minute later a new key works."""
    issuer.add_key("made-up")
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
    issuer.add_key("new")
    served.app.state.auth._keys._last_successful_fetch -= 31
    async with served.caller(Authorization=f"Bearer {issuer.token('new')}") as caller:
        assert (await caller.op("threads.list")).status_code == 200


async def test_a_silent_issuer_holds_nobody_up_for_long(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One caller waits for it; for some seconds the others are answered at once.

    Meanwhile files are served, although worker threads read them as well.
    """
    monkeypatch.setattr("app.auth.FETCH_SECONDS", 1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        settings = production(store_url, tmp_path, oidc_issuer=address, oidc_audience="chat")
        token = jwt.encode({}, SECRET, "HS256", {"kid": "x"})
        async with serving(settings, Words(3)) as served:
            async with served.caller(Authorization=f"Bearer {token}") as caller:
                begun = time.monotonic()
                waiting = [asyncio.create_task(caller.op("threads.list")) for _ in range(60)]
                await asyncio.sleep(0.1)
                assert (await caller.get("/static/page.js")).status_code == 200
                assert not any(each.done() for each in waiting)
                answers = await asyncio.gather(*waiting)
    assert {answer.status_code for answer in answers} == {503}
    assert time.monotonic() - begun < 5  # eight at a time would take 8 s


async def test_a_failing_issuer_locks_out_nobody_whose_key_is_known(
    served: Served, issuer: Issuer
) -> None:
    """Its keys stay valid for some hours; a token with an unknown key gets a 503."""
    async with served.caller(Authorization=f"Bearer {issuer.token()}") as caller:
        assert (await caller.op("threads.list")).status_code == 200
        issuer.stop()
        cached = served.app.state.auth._keys.jwk_set_cache.jwk_set_with_timestamp
        cached.timestamp -= 3 * 3600
        assert (await caller.op("threads.list")).status_code == 200
        issuer.add_key("new")
        login = {"Authorization": f"Bearer {issuer.token('new')}"}
        body = {"type": "threads.list", "params": {}}
        answer = await caller.post("/chatkit", json=body, headers=login)
        assert answer.status_code == 503


@pytest.mark.parametrize(
    ("discovery", "keys"),
    [
        (["no"], None),
        ({"jwks_uri": "file:///etc/passwd"}, None),
        (None, ["no"]),
        (None, {"keys": []}),
        (None, 7),
    ],
)
async def test_an_issuer_without_keys_is_not_the_callers_fault(
    served: Served,
    issuer: Issuer,
    monkeypatch: pytest.MonkeyPatch,
    discovery: object,
    keys: object,
) -> None:
    """They may try again: 503, whatever came instead of the keys."""
    token, real = issuer.token(), issuer.document
    monkeypatch.setattr(
        issuer,
        "document",
        lambda path: (discovery if path.endswith("configuration") else keys) or real(path),
    )
    async with served.caller(Authorization=f"Bearer {token}") as caller:
        answer = await caller.op("threads.list")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "login_unavailable")


async def test_a_stranger_cannot_write_long_lines_into_the_log(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    """The beginning of a path or of a key's name is enough."""
    caplog.set_level("INFO", "app")
    token = jwt.encode({}, SECRET, "HS256", {"kid": "k" * 5000})
    async with served.caller(Authorization=f"Bearer {token}") as caller:
        for path in ("/config.json", f"/files/{'p' * 5000}/url"):
            await caller.get(path)
    lines = [JSON_LINE.format(record) for record in caplog.records if "app." in record.name]
    assert [line.count("token refused") for line in lines] == [0, 1, 0]
    assert max(map(len, lines)) < 600
