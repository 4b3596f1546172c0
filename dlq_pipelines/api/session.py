"""Gives each request a connection of the pool and the settings of the server."""

import time
from collections.abc import Iterator
from typing import Annotated, Any

from fastapi import Depends, Request

from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.postgres.migrate import require_current
from dlq_pipelines.settings import Settings

# Seconds that a successful check is trusted: a check costs more than many requests.
_CHECK_SECONDS = 5.0


def _borrow_connection(request: Request) -> Iterator[Connection]:
    with request.app.state.pool.connection() as connection:
        require_schema(request.app.state, connection)
        yield connection


def require_schema(state: Any, connection: Connection) -> None:
    """Check that the database has the schema of this release; it can be migrated while the server
    runs.

    Raises:
        SchemaError: it has another schema. Each request checks again until it has the right one.
    """
    if time.monotonic() >= state.schema_checked_until:
        require_current(connection)
        state.schema_checked_until = time.monotonic() + _CHECK_SECONDS


def _get_settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


# The connection returns to the pool before the response is sent, so that a slow reader holds none.
Outbox = Annotated[Connection, Depends(_borrow_connection, scope="function")]
ApiSettings = Annotated[Settings, Depends(_get_settings)]
