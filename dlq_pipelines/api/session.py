"""Where does a request work? On a connection of the pool, and by the settings that the server began with."""

from collections.abc import Iterator
from typing import Annotated

from fastapi import Depends, Request

from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.settings import Settings


def _connection(request: Request) -> Iterator[Connection]:
    with request.app.state.pool.connection() as connection:
        yield connection


def _settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


# Given back before the answer is sent: a slow reader keeps no connection.
Outbox = Annotated[Connection, Depends(_connection, scope="function")]
Site = Annotated[Settings, Depends(_settings)]
