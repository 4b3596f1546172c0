"""Serves `/health` (the process is up) and `/ready` (it can serve requests)."""

import logging
from dataclasses import dataclass

import psycopg
from fastapi import APIRouter, Request, Response

from dlq_pipelines.api.errors import describe_error
from dlq_pipelines.errors import DlqError
from dlq_pipelines.postgres.migrate import require_current

router = APIRouter(tags=["health"])
log = logging.getLogger("dlq.api")
# Seconds. Probes give up soon after that.
_POOL_TIMEOUT = 2.0


@dataclass(frozen=True)
class Health:
    """The process is up: `ok`."""

    status: str = "ok"


@dataclass(frozen=True)
class Readiness:
    """Whether requests can be served, and the state of the database and of its schema: `ok` or what
    is wrong.
    """

    status: str
    database: str
    schema: str


@router.head("/health", include_in_schema=False)
@router.get("/health")
def health() -> Health:
    """Report that the process is up, without using the database."""
    return Health()


@router.head("/ready", include_in_schema=False)
@router.get("/ready", responses={503: {"model": Readiness, "description": "What is wrong."}})
def ready(request: Request, response: Response) -> Readiness:
    """Report whether the database answers and has the schema of this release."""
    database = schema = "not checked"
    try:
        with request.app.state.pool.connection(timeout=_POOL_TIMEOUT) as connection:
            connection.run("session.ping")
            database = "ok"
            require_current(connection)
            schema = "ok"
    except (DlqError, psycopg.Error) as error:
        log.warning("not ready: %s", error)
        reason = describe_error(error)[1].error
        response.status_code = 503
        database, schema = (database, reason) if database == "ok" else (reason, schema)
    return Readiness("ready" if schema == "ok" else "not ready", database, schema)
