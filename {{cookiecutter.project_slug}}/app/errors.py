"""Errors that reach a caller: a status, a code for programs, a sentence for people."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from traceback import extract_tb

from chatkit.store import NotFoundError
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import ClientDisconnect

log = logging.getLogger("app.errors")
FOLDER = str(Path(__file__).parent)


@dataclass(eq=False)
class ApiError(Exception):
    """Answered as `{"error": {"code", "message", "request_id"}}` with its status and headers."""

    status: int
    code: str
    message: str  # shown to the user as it stands
    headers: Mapping[str, str] | None = None


BUGS = (ArithmeticError, AssertionError, AttributeError, LookupError, NameError, TypeError)
BUG = ApiError(500, "internal", "Something went wrong on our side. Tell whoever runs this app.")
AWAY = ApiError(503, "unavailable", "The service is not available now. Try again in a moment.")


def place_of(error: BaseException) -> str:
    """Return the app's file and line where an error was raised, as its text may quote the user."""
    frames = extract_tb(error.__traceback__)
    frame = [frames[-1], *(each for each in frames if each.filename.startswith(FOLDER))][-1]
    return f"{frame.filename}:{frame.lineno}"


def error_response(error: BaseException, state: dict[str, object]) -> JSONResponse:
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
            answer = ApiError(error.status_code, "http", str(error.detail), error.headers)
        case RequestValidationError():
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            answer = ApiError(400, "invalid_request", f"{place} is not valid: {first['msg']}.")
        case ValueError() if not isinstance(error, ValidationError):  # those concern stored data
            facts = {"request_id": state["request_id"], "place": place_of(error)}
            log.warning("refused", extra=facts)  # it may be our own fault
            answer = ApiError(400, "invalid", "The request has a value that cannot be accepted.")
        case _:
            facts = {"request_id": state["request_id"], "cause": type(error).__name__}
            quotes = isinstance(error, ValidationError)  # it quotes the user
            answer = BUG if isinstance(error, BUGS) else AWAY  # an engine that does not answer
            log.error(answer.code, exc_info=None if quotes else error, extra=facts)
    state["code"] = answer.code  # for the request's log line
    body = {"code": answer.code, "message": answer.message, "request_id": state["request_id"]}
    return JSONResponse({"error": body}, answer.status, answer.headers)


def add_error_handlers(app: FastAPI) -> None:
    """Answer every error of every route in one form."""

    async def handle(request: Request, error: Exception) -> JSONResponse:
        return error_response(error, request.scope["state"])

    for kind in (RequestValidationError, HTTPException):  # or the framework's own handlers answer
        app.add_exception_handler(kind, handle)
    # Starlette would answer all other errors outside RequestLog, without its headers
    app.add_middleware(ExceptionMiddleware, handlers={HTTPException: handle, Exception: handle})
