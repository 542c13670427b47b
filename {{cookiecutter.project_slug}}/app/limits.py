"""How much one user may ask for; counted in memory, so each worker counts for itself."""

import time
from contextlib import suppress
from ipaddress import IPv6Interface

from fastapi import Request
from limits import RateLimitItem, RateLimitItemPerDay, RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter

from .errors import ApiError
from .settings import Settings


class Limits:
    """Requests a minute and model tokens a day."""

    def __init__(self, settings: Settings) -> None:
        self._limiter = FixedWindowRateLimiter(MemoryStorage())
        self._requests = RateLimitItemPerMinute(settings.requests_per_minute)
        share = settings.tokens_per_day
        self._tokens = RateLimitItemPerDay(share) if share else None
        self._by_address = not settings.development  # where all callers have one

    def hit(self, user: str, request: Request) -> None:
        """Count a request; ApiError 429 with Retry-After past the limit."""
        names = [f"user {user}"]
        # a cookie costs nothing: the address counts, too, and first: a refusal adds no user's key
        if self._by_address and user.startswith("anon-") and request.client:
            names.insert(0, f"address {network_of(request.client.host)}")
        for name in names:
            if not self._limiter.hit(self._requests, name):
                self._refuse(self._requests, name, "Too many requests. Wait a moment.")

    def check_tokens(self, user: str) -> None:
        """Raise ApiError 429 when the user's tokens of the day are used up."""
        if self._tokens and not self._limiter.test(self._tokens, user):
            self._refuse(self._tokens, user, "Today's share is used up. Come back tomorrow.")

    def spend_tokens(self, user: str, tokens: int) -> None:
        """Count the tokens of an answer; the last answer of a day may go past the limit."""
        if self._tokens:
            self._limiter.hit(self._tokens, user, cost=tokens)

    def _refuse(self, item: RateLimitItem, name: str, text: str) -> None:
        seconds = self._limiter.get_window_stats(item, name).reset_time - time.time()
        raise ApiError(429, "too_many", text, {"Retry-After": str(int(seconds) + 1)})


def network_of(host: str) -> str:
    """Return an IPv6 address's /64, since one caller has all of it; any other host as it is."""
    with suppress(ValueError):
        address = IPv6Interface(f"{host}/64")
        return str(address.ipv4_mapped or address.network)
    return host
