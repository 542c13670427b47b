"""One log line per request, metrics for Prometheus, and the headers of every response."""

import logging
import os
import re
import secrets
import time
from importlib import import_module

from fastapi import FastAPI
from fastapi.telemetry import TelemetryConfig
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .errors import ApiError, error_response
from .settings import Settings
from .streaming import Turns

log = logging.getLogger("app.request")
LOOPBACK = {"localhost", "127.0.0.1", "[::1]"}
PROBES = ("/healthz", "/readyz", "/metrics")
SECURITY = {
    "Cache-Control": "no-cache",  # a browser asks each time, so that a new release shows at once
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}
"""For every response that does not set its own, as the page does."""

JSON_LINE = JsonFormatter(
    ["levelname", "name", "message"],
    timestamp="time",
    rename_fields={"levelname": "level", "name": "logger", "exc_info": "error"},
    reserved_attrs=[*RESERVED_ATTRS, "color_message"],  # uvicorn's
)
"""A record as a line of JSON; `extra` becomes separate fields, never part of the message."""


def set_up_logging(level: str) -> None:
    """Send every record to stderr as a line of JSON."""
    handler = logging.StreamHandler()
    handler.setFormatter(JSON_LINE)
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(True)
    for name in ("httpx2", "openai.agents"):
        logging.getLogger(name).setLevel(logging.WARNING)


def set_up_tracing(app: FastAPI) -> FastAPI:
    """Trace with OpenTelemetry if its variables (OTEL_*) are set; it reads them by itself."""
    if not any(name.startswith("OTEL_") for name in os.environ):
        return app
    try:
        fastapi = import_module("opentelemetry.instrumentation.fastapi").FastAPIInstrumentor
        drivers = import_module("opentelemetry.instrumentation.auto_instrumentation")
    except ImportError:
        log.warning("OTEL_* is set, but OpenTelemetry is not installed: uv sync --extra otel")
        return app
    drivers.initialize()
    # no span with a file's address, which opens the file, nor one for each piece of an answer
    quiet = "healthz,readyz,metrics,files/"
    fastapi.instrument_app(app, excluded_urls=quiet, exclude_spans=["send", "receive"])
    return app


OWN_TRACES: TelemetryConfig = {
    "exclude": lambda scope: scope["path"].startswith("/files/"),  # the address opens the file
    "logs": False,  # errors quote the user
    "operation_spans": False,
}
"""What FastAPI reports by itself where a team has set up OpenTelemetry in code."""


class Metrics:
    """The app's numbers, in a registry of its own."""

    def __init__(self, turns: Turns) -> None:
        self.registry = own = CollectorRegistry()
        self.requests = Counter("chat_requests", "Requests.", ["op", "status"], registry=own)
        self.turns = Counter("chat_turns", "Answers.", ["outcome"], registry=own)
        self.first_event = Histogram("chat_first_event_seconds", "First event.", registry=own)
        active = Gauge("chat_active_streams", "Answers under way.", registry=own)
        active.set_function(lambda: len(turns.running))
        turns.on_end = lambda turn: self.turns.labels(turn.outcome).inc()


class RequestLog:
    """Wraps the app: request id, hosts, headers, and one log line for each request."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._hosts = LOOPBACK | {host.lower() for host in settings.allowed_hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request and write its line when the answer has ended."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        headers, started, status = Headers(scope=scope), time.monotonic(), 500
        request_id = headers.get("x-request-id", "")
        if not re.fullmatch(r"[\w.-]{1,64}", request_id, re.ASCII):
            request_id = secrets.token_hex(8)
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        answer = self._app
        host = re.sub(r":\d+$", "", headers.get("host", "")).lower()
        if host not in self._hosts and scope["path"] not in PROBES:  # DNS rebinding brings it here
            refusal = ApiError(400, "host", "This host is not served: see ALLOWED_HOSTS.")
            answer = error_response(refusal, state)

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                state["began"] = time.monotonic() - started
                sent = MutableHeaders(scope=message)
                sent["X-Request-ID"] = request_id
                for name, value in SECURITY.items():
                    sent.setdefault(name, value)
                if cookie := state.get("set_cookie"):
                    sent.append("Set-Cookie", cookie)
            await send(message)

        try:
            await answer(scope, receive, send_with_headers)
        except Exception as error:  # the answer had begun: all that is left is to log it
            status = error_response(error.__cause__ or error, state).status_code
            raise
        finally:
            self._write(scope, status, round((time.monotonic() - started) * 1000, 1))

    def _write(self, scope: Scope, status: int, ms: float) -> None:
        """Write the line: who, what, how long; never what was said."""
        state, path = scope["state"], scope["path"][:200]  # a stranger's may be 64 KB long
        fields = {name: state.get(name, "") for name in ("request_id", "op", "user", "code")}
        fields |= {"method": scope["method"], "path": path, "status": status, "ms": ms}
        if turn := state.get("turn"):
            fields |= {"thread_id": turn.thread_id, "events": turn.events, "outcome": turn.outcome}
            fields["first_event_ms"] = round(state["began"] * 1000, 1)  # headers wait for it
            scope["app"].state.metrics.first_event.observe(state["began"])
        name = path.split("/")[1] if "endpoint" in scope else ""  # one label for all unknown paths
        scope["app"].state.metrics.requests.labels(fields["op"] or name, status).inc()
        log.log(logging.DEBUG if path in PROBES else logging.INFO, "request", extra=fields)
