"""The app: its routes and its lifespan, and no logic."""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from agents.models.interface import Model
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.middleware.cors import CORSMiddleware
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import JSONResponse

from . import NAME, page, uploads
from .assistant import make_agent
from .attachments import Files
from .auth import Authenticator, Caller
from .checks import parse, read_json_body
from .errors import ApiError, add_error_handlers
from .events import patiently
from .limits import Limits
from .logs import OWN_TRACES, Metrics, RequestLog
from .model import make_model
from .server import AppServer
from .settings import Settings
from .store import open_store
from .streaming import EventStream

log = logging.getLogger("app.main")
router = APIRouter()


def create_app(
    settings: Settings, *, model: Model | None = None, auth: Authenticator | None = None
) -> FastAPI:
    """Return the app; `model` and `auth` replace those that the settings name."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        state = app.state
        async with AsyncExitStack() as stack:
            # the store was there when `serve` looked, but may be away for a moment
            store = await patiently(lambda: stack.enter_async_context(open_store(settings)))
            files = Files(settings, store)
            agent = make_agent(settings, model or make_model(settings))
            state.store, state.files = store, files
            state.server = AppServer(store, files, agent, settings, state.limits)
            state.metrics = Metrics(state.server.turns)
            async with asyncio.TaskGroup() as group:
                sweeper = group.create_task(files.sweep_hourly())
                try:
                    yield
                finally:  # answers end before the store closes
                    await state.server.close()
                    sweeper.cancel()

    schema = "/openapi.json" if settings.development else None
    app = FastAPI(
        title=NAME,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=schema,
        telemetry=OWN_TRACES,
    )
    app.state.settings = settings
    app.state.auth = auth or Authenticator(settings)
    app.state.limits = Limits(settings)
    for part in (router, uploads.router, page.router):
        app.include_router(part)
    app.mount("/static", page.static)
    add_error_handlers(app)
    if settings.allowed_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.allowed_origins,
            allow_methods=["GET", "POST", "PUT"],
            allow_headers=["Authorization", "Content-Type", "X-Request-ID"],
            allow_credentials=not settings.oidc_issuer,
        )
    app.add_middleware(RequestLog, settings=settings)
    return app


@router.post("/chatkit")
async def chatkit(request: Request, context: Caller) -> Response:
    """Answer one operation of the ChatKit protocol: JSON, or events for those that stream."""
    state = request.app.state
    asked = parse(await read_json_body(request, state.settings), state.settings)
    request.state.op = asked.type
    answer = await state.server.handle(asked, context)
    if isinstance(answer, bytes):
        return Response(answer, media_type="application/json")
    request.state.turn = answer
    return EventStream(answer, state.settings)


@router.post("/threads/{thread_id}/stop")
async def stop(thread_id: str, request: Request, context: Caller) -> dict[str, bool]:
    """Stop the answer in a thread: with ON_DISCONNECT=finish, closing the connection does not."""
    return {"stopped": await request.app.state.server.stop(thread_id, context)}


@router.api_route("/healthz", methods=["GET", "HEAD"], include_in_schema=False)
async def healthz() -> dict[str, str]:
    """Say that the process is alive."""
    return {"status": "ok"}


@router.api_route("/readyz", methods=["GET", "HEAD"], include_in_schema=False)
async def readyz(request: Request) -> Response:
    """Say whether the store answers: 503 if not; the log and, in development, the body say why."""
    try:
        await request.app.state.store.ping()
    except Exception as error:  # noqa: BLE001 - whatever the driver raises is the reason
        reason = {"reason": f"{type(error).__name__}: {error}"}
        log.warning("not ready", extra=reason)
        shown = reason if request.app.state.settings.development else {}
        return JSONResponse({"status": "unavailable", **shown}, 503)
    return JSONResponse({"status": "ok"})


@router.get("/metrics")
async def metrics(request: Request) -> Response:
    """Show the numbers to a caller with METRICS_TOKEN."""
    token = request.app.state.settings.metrics_token.get_secret_value()
    brought = request.headers.get("authorization", "").removeprefix("Bearer ")
    if not token:
        raise ApiError(404, "not_found", "METRICS_TOKEN is not set.")
    if not secrets.compare_digest(brought.encode(), token.encode()):
        raise ApiError(401, "login", "The token is wrong.", {"WWW-Authenticate": "Bearer"})
    text = generate_latest(request.app.state.metrics.registry)
    return Response(text, media_type=CONTENT_TYPE_LATEST)
