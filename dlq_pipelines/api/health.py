"""Is the process up, and can it do its work?"""

import logging
from dataclasses import dataclass

import psycopg
from fastapi import APIRouter, Request, Response

from dlq_pipelines.api.errors import describe_error
from dlq_pipelines.errors import DlqError
from dlq_pipelines.postgres.migrate import require_current

router = APIRouter(tags=["health"])
log = logging.getLogger("dlq.api")
# A probe that waits longer is counted as failed by who sent it.
_PATIENCE = 2.0


@dataclass(frozen=True)
class Health:
    """The process answers."""

    status: str = "up"


@dataclass(frozen=True)
class Readiness:
    """Whether requests can be served, and of each thing that they need, `ok` or what is wrong with it."""

    status: str
    database: str
    schema: str


@router.head("/health", include_in_schema=False)
@router.get("/health")
def health() -> Health:
    """The process is up. Asks nothing of the database."""
    return Health()


@router.head("/ready", include_in_schema=False)
@router.get("/ready", responses={503: {"model": Readiness, "description": "What is wrong."}})
def ready(request: Request, response: Response) -> Readiness:
    """The database answers and has this release's schema."""
    database = schema = "not asked"
    try:
        with request.app.state.pool.connection(timeout=_PATIENCE) as connection:
            connection.run("session.ping")
            database = "ok"
            require_current(connection)
            schema = "ok"
    except (DlqError, psycopg.Error) as error:
        log.warning("not ready: %s", error)
        _, reason = describe_error(error)
        response.status_code = 503
        database, schema = (database, reason) if database == "ok" else (reason, schema)
    return Readiness("ready" if schema == "ok" else "not ready", database, schema)
