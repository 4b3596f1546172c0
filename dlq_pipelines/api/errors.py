"""Turns exceptions into responses: a status, and `error`, `hint` and `code` in the body.

A response never holds a stack trace, a connection string or a host name. Those are in the log of
the server.
"""

import logging
from collections.abc import Mapping
from typing import Any

import psycopg
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from dlq_pipelines.api.describe import translate_commands
from dlq_pipelines.errors import (
    DatabaseUnavailableError,
    DlqError,
    NotFoundError,
    RefusedError,
    SchemaError,
)
from dlq_pipelines.postgres.transient import describe_transient_error
from dlq_pipelines.text import sanitize_line
from dlq_pipelines.validate import describe_invalid_value

log = logging.getLogger("dlq.api")
_MAX_LENGTH = 2_000
_SERVER_ERROR = 500
# Codes of responses that no DlqError causes, by their status.
_CODES = {
    400: "invalid_argument",
    401: "unauthenticated",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    408: "timeout",
    409: "refused",
    413: "too_large",
    421: "unknown_host",
    429: "too_many_requests",
    500: "internal",
    503: "unavailable",
}


class ErrorResponse(BaseModel):
    """Why a request failed."""

    error: str = Field(description="What is wrong, and why.")
    hint: str = Field(default="", description="What to do next.")
    code: str = Field(description="The kind of error, for programs.")


class RequestError(Exception):
    """A request that is rejected before it reaches the database."""

    def __init__(self, status: int, error: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(error)
        self.status, self.headers = status, headers


RESPONSES: dict[int | str, dict[str, Any]] = {
    "4XX": {
        "model": ErrorResponse,
        "description": "400 invalid argument · 401 unknown token · 403 the token lacks the scope · "
        "404 unknown, or not dead · 409 refused in the present state · 413 too large · "
        "429 too many requests",
    },
    "5XX": {
        "model": ErrorResponse,
        "description": "503 the database does not answer, or not in time · 500 a defect",
    },
}


def build_error_response(
    status: int, error: str, headers: Mapping[str, str] | None = None, *, hint: str = ""
) -> JSONResponse:
    """Build the response to a request that failed."""
    return JSONResponse(_build_body(status, error, hint).model_dump(), status, headers)


def accepts_html(accept: str) -> bool:
    """Return whether the header `Accept` is that of a browser that opens a page."""
    return any(part.partition(";")[0].strip() == "text/html" for part in accept.split(","))


def _build_body(status: int, error: str, hint: str = "", code: str = "") -> ErrorResponse:
    code = code or _CODES.get(status, "failed")
    texts = (_sanitize(translate_commands(text)) for text in (error, hint))
    return ErrorResponse(error=next(texts), hint=next(texts), code=code)


def _sanitize(text: str) -> str:
    """Make untrusted text one storable line of bounded length."""
    line = sanitize_line(text, _MAX_LENGTH)
    return line.encode("utf-8", "backslashreplace").decode("utf-8")


def install_error_handlers(app: FastAPI) -> None:
    """Make the application answer every exception with an `ErrorResponse`."""

    @app.exception_handler(RequestError)
    async def answer_request_error(_: Request, error: RequestError) -> JSONResponse:
        return build_error_response(error.status, str(error), error.headers)

    @app.exception_handler(HTTPException)
    async def answer_http_exception(_: Request, error: HTTPException) -> JSONResponse:
        return build_error_response(error.status_code, str(error.detail), error.headers)

    @app.exception_handler(RequestValidationError)
    async def answer_invalid_request(_: Request, error: RequestValidationError) -> JSONResponse:
        return build_error_response(400, _describe_invalid_argument(error))

    @app.exception_handler(Exception)
    async def answer_defect(_: Request, __: Exception) -> JSONResponse:  # uvicorn logs the trace
        return build_error_response(500, "The server has a defect.", hint="See the server's log.")

    for kind in (DlqError, ValueError, OSError, psycopg.Error):
        app.add_exception_handler(kind, _answer_error)


async def _answer_error(_: Request, error: Exception) -> JSONResponse:
    status, body = describe_error(error)
    if status >= _SERVER_ERROR:
        log.error("%s: %s", type(error).__name__, error)
    return JSONResponse(body.model_dump(), status)


def describe_error(error: Exception) -> tuple[int, ErrorResponse]:
    """Return the status and the body of the response to an exception."""
    match error:
        case DatabaseUnavailableError() | psycopg.Error():
            return _describe_database_error(error)
        case NotFoundError():
            return 404, _build_body(404, error.message, error.hint, error.code)
        case RefusedError():
            return 409, _build_body(409, error.message, error.hint, error.code)
        case SchemaError():
            return 503, _build_body(503, error.message, error.hint, error.code)
        case ValueError():
            return 400, _build_body(400, str(error))
        case _:  # can name a folder or a bucket
            return 503, _build_body(503, "The request failed.", "See the server's log.")


def _describe_database_error(error: Exception) -> tuple[int, ErrorResponse]:
    message = error.diag.message_primary if isinstance(error, psycopg.Error) else None
    if transient := describe_transient_error(error):
        return 503, _build_body(503, transient, code="transient")
    match error:
        case psycopg.OperationalError() | psycopg.InterfaceError() | DatabaseUnavailableError():
            hint = "The server's log shows why; /ready shows when the database is back."
            code = DatabaseUnavailableError.code
            return 503, _build_body(503, "The database does not answer.", hint, code)
        case psycopg.errors.InvalidParameterValue() if message and error.diag.message_hint:
            return 400, _build_body(400, message, error.diag.message_hint)
        case psycopg.DataError() | psycopg.IntegrityError():
            return 400, _build_body(400, f"A value cannot be stored: {message or error}")
        case _:
            return 503, _build_body(503, f"PostgreSQL refused: {message or type(error).__name__}")


_ID_TYPES = ("constrained-int", "constrained-str")


def _describe_invalid_argument(error: RequestValidationError) -> str:
    """Name the first invalid argument, with its value and what is expected."""
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        position = first["loc"][-1]
        return f"The body is not JSON: {first['ctx']['error']}, at character {position}."
    # An id may be of two types, and pydantic says which one it tried first.
    parts = [part for part in first["loc"][1:] if part not in _ID_TYPES]
    where = ", ".join(f"item {part + 1}" if isinstance(part, int) else str(part) for part in parts)
    if len(parts) < len(first["loc"]) - 1:
        return f"{where}: pass the id of an event, a whole number or a text."
    return describe_invalid_value(where or f"The {first['loc'][0]}", first)
