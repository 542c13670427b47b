"""Errors that reach a caller: a status, a code for programs, a sentence for people."""

import logging
from traceback import extract_tb

from chatkit.store import NotFoundError
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

log = logging.getLogger("app.errors")


class ApiError(Exception):
    """Answered as `{"error": {"code", "message", "request_id"}}` with its status and headers."""

    def __init__(
        self, status: int, code: str, message: str, headers: dict[str, str] | None = None
    ) -> None:
        """Keep what the answer needs; `message` is shown to the user as it stands."""
        super().__init__(message)
        self.status, self.code, self.message, self.headers = status, code, message, headers


def place_of(error: Exception) -> str:
    """Return the file and the line where an error was raised; its text may quote the user."""
    frame = extract_tb(error.__traceback__)[-1]
    return f"{frame.filename}:{frame.lineno}"


def error_response(error: Exception, request_id: str) -> JSONResponse:
    """Return the response to an error: what is foreign and what is unknown are the same 404."""
    match error:
        case ApiError():
            answer = error
        case NotFoundError():
            answer = ApiError(404, "not_found", "There is no such thread, message or file.")
        case ClientDisconnect():
            answer = ApiError(400, "cut_off", "The request was cut off.")
        case NotImplementedError():
            answer = ApiError(501, "not_offered", "This app does not offer that.")
        case HTTPException():
            headers = dict(error.headers or {})
            answer = ApiError(error.status_code, "http", str(error.detail), headers)
        case RequestValidationError():
            answer = ApiError(400, "invalid_request", "A parameter of the address is missing.")
        case ValueError() if not isinstance(error, ValidationError):  # which is of stored data
            facts = {"request_id": request_id, "place": place_of(error)}
            log.warning("refused", extra=facts)  # as it may be a fault of ours
            answer = ApiError(400, "invalid", "The request holds a value that cannot be taken.")
        case _:
            facts = {"request_id": request_id, "cause": type(error).__name__}
            quotes = isinstance(error, ValidationError)  # it quotes the user
            log.error("unavailable", exc_info=None if quotes else error, extra=facts)
            answer = ApiError(
                503, "unavailable", "The service is not available just now. Try again in a moment."
            )
    body = {"code": answer.code, "message": answer.message, "request_id": request_id}
    return JSONResponse({"error": body}, answer.status, answer.headers)


class CatchAll:
    """Answers unforeseen errors; Starlette would do it outside RequestLog, without its headers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on; an error after the response has begun ends the connection."""
        try:
            await self._app(scope, receive, send)
        except Exception as error:
            if scope["type"] != "http":  # the app failed to start
                raise
            answer = error_response(error, scope.get("state", {}).get("request_id", ""))
            await answer(scope, receive, send)


def add_error_handlers(app: FastAPI) -> None:
    """Answer every error of every route in one form."""

    async def handle(request: Request, error: Exception) -> JSONResponse:
        return error_response(error, getattr(request.state, "request_id", ""))

    for kind in (RequestValidationError, HTTPException):  # else the framework's own handlers answer
        app.add_exception_handler(kind, handle)
    app.add_middleware(CatchAll)
