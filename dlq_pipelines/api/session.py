"""Where does a request work? On a connection of the pool, and by the settings that the server began with."""

import time
from collections.abc import Iterator
from typing import Annotated, Any

from fastapi import Depends, Request

from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.postgres.migrate import require_current
from dlq_pipelines.settings import Settings

# A schema that was this release's is taken to be so for that long: reading which it is costs more than many requests.
_KNOWN_SECONDS = 5.0


def _connection(request: Request) -> Iterator[Connection]:
    with request.app.state.pool.connection() as connection:
        require_schema(request.app.state, connection)
        yield connection


def require_schema(state: Any, connection: Connection) -> None:
    """Refuse to work on another schema than this release's, which may be migrated while the server runs.

    Raises:
        SchemaError: it is another one. Each request looks again until it is not.
    """
    if time.monotonic() >= state.schema_known_until:
        require_current(connection)
        state.schema_known_until = time.monotonic() + _KNOWN_SECONDS


def _settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


# Given back before the answer is sent: a slow reader keeps no connection.
Outbox = Annotated[Connection, Depends(_connection, scope="function")]
Site = Annotated[Settings, Depends(_settings)]
