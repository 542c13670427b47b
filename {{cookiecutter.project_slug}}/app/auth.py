"""Who is calling: a signed cookie in development and for anonymous apps, else a bearer token.

A team with a login of its own overrides `Authenticator.user_of`, as the README shows: it gets the
request and returns the user's id, or raises `ApiError(401, ...)`.
"""

import logging
import re
import secrets
import time
from contextlib import suppress
from hashlib import sha256
from typing import Annotated, Any
from urllib.parse import urlsplit

import anyio
import httpx2
import jwt
from fastapi import Depends, Request
from itsdangerous import BadSignature, URLSafeSerializer

from .context import RequestContext, owner_of
from .errors import ApiError
from .settings import Settings

log = logging.getLogger("app.auth")
COOKIE_SECONDS = 365 * 86_400
ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA"]
FETCH_SECONDS = 5.0
RETRY_SECONDS = 10.0
"""After a failure, the issuer is left alone for this long."""
LANGUAGE = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8}){0,3}")
KEYS_SECONDS = 6 * 3600
"""Keys are good this long, even if the issuer fails. A new one is fetched with its first token."""


class Authenticator:
    """Says who a request is from."""

    def __init__(self, settings: Settings) -> None:
        self._settings, key = settings, settings.signing_key()
        self._cookie = f"chat_user_{sha256(key.encode()).hexdigest()[:8]}"  # apps may share a host
        if not settings.development:
            self._cookie = f"__Host-{self._cookie}"  # no other host can set it
        self._cookies = URLSafeSerializer(key, salt="user")
        if settings.oidc_issuer:
            discovery = f"{settings.oidc_issuer.rstrip('/')}/.well-known/openid-configuration"
            self._keys = _Keys(discovery, lifespan=KEYS_SECONDS)  # fetched with the first token
        # a silent issuer must not occupy all threads: files need them, too
        self._checking = anyio.CapacityLimiter(8)

    async def user_of(self, request: Request) -> str:
        """Return the caller's id: the token's issuer and subject, or the cookie's user.

        Raises:
            ApiError: 401 without a valid token, 403 for a page of another origin.
        """
        if self._settings.oidc_issuer:
            return await self._token_user(request)
        self.check_origin(request)
        user, line = "", "; ".join(request.headers.getlist("cookie"))
        # not `request.cookies`: other hosts can set "\xa0__Host-…", and Starlette strips the \xa0
        brought = dict(each.strip(" ").partition("=")[::2] for each in line.split(";"))
        with suppress(BadSignature):
            user = str(self._cookies.loads(brought.get(self._cookie, "")))
            if request.method != "GET":
                return user
        user = user or f"anon-{secrets.token_hex(12)}"  # the page's first request renews it
        secure = "" if self._settings.development else "; Secure"  # production is behind HTTPS
        rules = f"Path=/; Max-Age={COOKIE_SECONDS}; HttpOnly; SameSite=Lax{secure}"
        request.state.set_cookie = f"{self._cookie}={self._cookies.dumps(user)!s}; {rules}"
        return user

    def check_origin(self, request: Request) -> None:
        """Refuse a foreign page that sends this user's cookie along."""
        origin = request.headers.get("origin")
        if request.method in ("GET", "HEAD") or origin is None:
            return
        own = urlsplit(origin).netloc == request.headers.get("host")
        if not own and origin not in self._settings.allowed_origins:
            raise ApiError(403, "origin", "This page may not call the app: see ALLOWED_ORIGINS.")

    async def _token_user(self, request: Request) -> str:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise ApiError(401, "login", "Please sign in.", {"WWW-Authenticate": "Bearer"})
        try:
            claims = await anyio.to_thread.run_sync(self._verify, token, limiter=self._checking)
        except jwt.PyJWKClientConnectionError as error:
            log.warning("no keys to check tokens with", extra={"reason": str(error)})
            text = "The sign-in service does not answer. Try again in a moment."
            raise ApiError(503, "login_unavailable", text) from error
        except jwt.PyJWTError as error:
            log.warning("token refused", extra={"reason": f"{error!r:.100}"})
            challenge = {"WWW-Authenticate": 'Bearer error="invalid_token"'}
            raise ApiError(401, "login", "Please sign in again.", challenge) from error
        request.state.claims = claims  # for your own fields in the context
        return f"{claims['iss']}|{claims['sub']}"

    def _verify(self, token: str) -> dict[str, Any]:
        """Verify a token in a worker thread; PyJWKClient caches keys and throttles unknown ids."""
        claims: dict[str, Any] = jwt.decode(
            token,
            self._keys.get_signing_key_from_jwt(token),
            algorithms=ALGORITHMS,
            audience=self._settings.oidc_audience,
            issuer=self._settings.oidc_issuer,
            leeway=30,
            options={"require": ["exp", "iss", "aud", "sub"]},
        )
        if not claims["sub"]:  # all such tokens would be one user
            raise jwt.InvalidTokenError("the subject is empty")
        return claims


class _Keys(jwt.PyJWKClient):
    """The issuer's keys."""

    _retry_at = 0.0

    def fetch_data(self) -> jwt.PyJWKSet:
        """Ask where the keys are (OpenID Connect Discovery 1.0, section 4), then fetch them.

        Callers wait here in line, so for RETRY_SECONDS after a failure the rest fail at once.
        """
        if time.monotonic() < self._retry_at:
            raise jwt.PyJWKClientConnectionError(f"no keys at {self.uri} a moment ago")
        try:
            answer = httpx2.get(self.uri, timeout=FETCH_SECONDS).raise_for_status()
            # not with PyJWT's own request, which would also read files
            answer = httpx2.get(answer.json()["jwks_uri"], timeout=FETCH_SECONDS).raise_for_status()
            return jwt.PyJWKSet.from_dict(answer.json())
        except Exception as error:  # whatever is there instead of keys
            self._retry_at = time.monotonic() + RETRY_SECONDS
            raise jwt.PyJWKClientConnectionError(f"no keys at {self.uri}: {error}") from error

    @staticmethod
    def match_kid(signing_keys: list[jwt.PyJWK], kid: str | None) -> jwt.PyJWK | None:
        """Find a token's key; it need not name an only one (OpenID Connect Core 1.0, 10.1)."""
        fit = [key for key in signing_keys if kid in (None, key.key_id)]
        return fit[0] if fit and (kid or len(fit) == 1) else None


async def context_of(request: Request) -> RequestContext:
    """Return the request's context and count the request; every route with data depends on it."""
    user = await request.app.state.auth.user_of(request)
    request.state.user = user
    request.app.state.limits.hit(user, request)
    first = request.headers.get("accept-language", "").split(",")[0].split(";")[0].strip()
    locale = first if LANGUAGE.fullmatch(first) else "en"
    context = RequestContext(user_id=user, locale=locale, request_id=request.state.request_id)
    if not owner_of(context):  # all callers without one would share their data
        raise ApiError(403, "no_owner", "You belong to no organisation here.")
    return context


Caller = Annotated[RequestContext, Depends(context_of)]
