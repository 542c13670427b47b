"""The page: `/`, what its script must know (`/config.json`) and its files (`/static`)."""

from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse
from starlette.staticfiles import StaticFiles

from .errors import ApiError
from .filetypes import EXTENSIONS
from .settings import Settings

FOLDER = Path(__file__).parent / "static"

router = APIRouter(include_in_schema=False)
static = StaticFiles(directory=FOLDER)


@router.api_route("/", methods=["GET", "HEAD"])
async def index(request: Request) -> FileResponse:
    """Return the page and what it may load; it holds no data, so it needs no login."""
    settings: Settings = request.app.state.settings
    script = urlsplit(settings.chatkit_script_url)
    own = f"'self' {script.scheme}://{script.netloc}" if script.netloc else "'self'"
    policy = [
        "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        f"script-src {own}; frame-src {own}; connect-src {own}; font-src 'self'",
        "style-src 'self' 'unsafe-inline'",  # the component styles its own shadow tree
        " ".join(["img-src 'self' data: blob:", f"{settings.base_url}/", *settings.image_hosts]),
    ]
    headers = {"Content-Security-Policy": "; ".join(policy)}
    return FileResponse(FOLDER / "index.html", headers=headers)


@router.get("/config.json")
async def config(request: Request, response: Response) -> dict[str, Any]:
    """Return what the page must know, all of it public."""
    settings: Settings = request.app.state.settings
    if not settings.oidc_issuer:  # set the cookie before the page sends requests in parallel
        with suppress(ApiError):  # a login of your own may refuse; the page itself is public
            await request.app.state.auth.user_of(request)
    response.headers["Cache-Control"] = "no-store"
    plain = settings.development if settings.plain_client is None else settings.plain_client
    return {
        "scriptUrl": settings.chatkit_script_url,
        "domainKey": settings.chatkit_domain_key,
        "waitSeconds": 10,  # if ChatKit is not ready by then, the page says that it is blocked
        "plainClient": plain,
        "stopByRequest": settings.on_disconnect == "finish",
        "uploadStrategy": settings.upload_strategy,
        "maxFiles": settings.max_attachments,
        "maxFileBytes": settings.max_file_bytes,
        "accept": {kind: EXTENSIONS.get(kind, []) for kind in settings.file_types},
        "models": sorted(settings.allowed_models, key=lambda name: name != settings.model),
        "tools": settings.allowed_tools,
        "dictation": bool(settings.transcribe_model),
    }
