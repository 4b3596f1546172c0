"""What does a caller learn when something cannot be done? One sentence under `error`, and a status of its kind.

Nothing of the server's inside: no stack trace, no connection string, no host. These are in the server's own log.
"""

import logging
import re
from collections.abc import Mapping
from typing import Any

import psycopg
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from dlq_pipelines.errors import (
    DatabaseUnavailableError,
    DlqError,
    NotFoundError,
    RefusedError,
    SchemaError,
)
from dlq_pipelines.postgres.transient import describe_transient_error
from dlq_pipelines.text import sanitize_line

log = logging.getLogger("dlq.api")
_AWAY = "The database does not answer. The server's log says why; /ready says when it is back."
_LONGEST = 2_000
# Commands that the rest of the house advises and that have a twin here, up to their other options.
_COMMAND = re.compile(
    r"`dlq (dead-events|causes|fixes|alerts) (list|show|split|withdraw|parked)(?: ([^` ]+))?[^`]*`"
)


class ErrorResponse(BaseModel):
    """Why it was not done."""

    error: str = Field(description="One sentence for people.")


class RequestError(Exception):
    """A request that is turned away before anything is asked of the database."""

    def __init__(self, status: int, reason: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(reason)
        self.status, self.headers = status, headers


RESPONSES: dict[int | str, dict[str, Any]] = {
    "4XX": {
        "model": ErrorResponse,
        "description": "400 a bad argument · 401 no known token · 403 not allowed to this token · 404 unknown, or not "
        "dead · 409 refused in the present state · 413 too large · 429 too often",
    },
    "5XX": {
        "model": ErrorResponse,
        "description": "503 the database does not answer, or not in time · 500 a defect",
    },
}


def build_error_response(
    status: int, reason: str, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """The answer. The reason may repeat what a stranger said: it is made one plain line, bounded, and storable."""
    said = (
        _COMMAND.sub(_over_http, sanitize_line(reason, _LONGEST))
        .encode("utf-8", "backslashreplace")
        .decode("utf-8")
    )
    return JSONResponse({"error": said}, status, headers)


def _over_http(command: re.Match[str]) -> str:
    """How this address does what a command at a terminal does."""
    concept, act, which = command.groups()
    match act:
        case "list":
            return f"`GET /api/{concept}`"
        case "parked":
            return f"`GET /api/{concept}/parked`"
        case "show":
            return f"`GET /api/{concept}/{which}`"
        case _:
            return f"`POST /api/{concept}/{which}/{act}`"


def install_error_handlers(app: FastAPI) -> None:
    """Let every failure of this application be answered so."""

    @app.exception_handler(RequestError)
    async def refused(_: Request, error: RequestError) -> JSONResponse:
        return build_error_response(error.status, str(error), error.headers)

    @app.exception_handler(HTTPException)
    async def by_the_framework(_: Request, error: HTTPException) -> JSONResponse:
        return build_error_response(error.status_code, str(error.detail), error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        return build_error_response(400, _complaint(error))

    @app.exception_handler(Exception)
    async def any_other(
        _: Request, __: Exception
    ) -> JSONResponse:  # uvicorn logs it with its trace
        return build_error_response(500, "This is a defect of the server. Its log says where.")

    for kind in (DlqError, ValueError, OSError, psycopg.Error):
        app.add_exception_handler(kind, _known)


async def _known(_: Request, error: Exception) -> JSONResponse:
    status, reason = describe_error(error)
    if status >= 500:  # noqa: PLR2004 - the server's own
        log.error("%s: %s", type(error).__name__, error)
    return build_error_response(status, reason)


def describe_error(error: Exception) -> tuple[int, str]:
    """The status of a failure, and what is said of it."""
    match error:
        case NotFoundError():
            return 404, str(error)
        case RefusedError():
            return 409, str(error)
        case ValueError():
            return 400, str(error)
        case SchemaError():
            return 503, str(error)
        case psycopg.Error() | DatabaseUnavailableError():
            return _of_postgres(error)
        case _:
            return 503, "The server could not do it. Its log says why."


def _of_postgres(error: Exception) -> tuple[int, str]:
    said = error.diag.message_primary if isinstance(error, psycopg.Error) else None
    if passes := describe_transient_error(error):
        return 503, passes
    match error:
        case psycopg.OperationalError() | psycopg.InterfaceError() | DatabaseUnavailableError():
            return 503, _AWAY
        case psycopg.DataError() | psycopg.IntegrityError():
            return 400, f"A value cannot be stored: {said or error}"
        case _:
            return 503, f"PostgreSQL refused: {said or type(error).__name__}"


def _complaint(error: RequestValidationError) -> str:
    """The first argument that cannot be used, and why. What was given is not repeated."""
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return f"The body is no JSON: {first['ctx']['error']}, at character {first['loc'][-1]}."
    where = ".".join(str(part) for part in first["loc"][1:]) or str(first["loc"][0])
    return f"{where}: {first['msg'].removeprefix('Value error, ')}"
