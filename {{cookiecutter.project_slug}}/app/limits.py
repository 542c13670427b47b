"""How much one user may ask for; counted in memory, so each worker counts for itself."""

import time
from collections import Counter
from contextlib import suppress
from ipaddress import IPv6Interface

from fastapi import Request

from .errors import ApiError
from .settings import Settings


class Share:
    """What each name may use in a period. At its end all counts are dropped together."""

    def __init__(self, most: int, seconds: int, refusal: str) -> None:
        """Allow `most` to each; 0 means no limit."""
        self._most, self._seconds, self._refusal = most, seconds, refusal
        self._used, self._end = Counter[str](), 0.0

    def check(self, name: str) -> None:
        """Raise ApiError 429, with Retry-After, when all is used up."""
        if (now := time.monotonic()) >= self._end:
            self._used, self._end = Counter(), now + self._seconds
        if 0 < self._most <= self._used[name]:
            wait = str(int(self._end - now) + 1)
            raise ApiError(429, "too_many", self._refusal, {"Retry-After": wait})

    def spend(self, name: str, amount: int) -> None:
        """Count what was used; the last use may go past the limit."""
        if self._most:
            self._used[name] += amount


class Limits:
    """Requests a minute and model tokens a day."""

    def __init__(self, settings: Settings) -> None:
        text = "Today's share is used up. Come back tomorrow."
        self.tokens = Share(settings.tokens_per_day, 86_400, text)
        text = "Too many requests. Wait a moment."
        self._requests = Share(settings.requests_per_minute, 60, text)
        self._by_address = not settings.development  # in development all callers share one

    def hit(self, user: str, request: Request) -> None:
        """Count a request; ApiError 429 with Retry-After past the limit."""
        names = [f"user {user}"]
        # cookies are free, so the address counts, too, and first: a refusal adds no user's key
        if self._by_address and user.startswith("anon-") and request.client:
            names.insert(0, f"address {network_of(request.client.host)}")
        for name in names:
            self._requests.check(name)
            self._requests.spend(name, 1)


def network_of(host: str) -> str:
    """Return an IPv6 address's /64, since one caller has all of it; any other host as it is."""
    with suppress(ValueError):
        address = IPv6Interface(f"{host}/64")
        return str(address.ipv4_mapped or address.network)
    return host
