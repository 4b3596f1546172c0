"""Where does a request work? On a connection of the pool, and by the settings that the server began with."""

from collections.abc import Iterator
from typing import Annotated

from fastapi import Depends, Request

from dlq_pipelines.errors import RefusedError
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


def permit(doing: str, events: int, *, at_most: int) -> None:
    """What `confirm` is to a person at a terminal.

    Args:
        doing: what is about to be done, such as "retry".
        events: to how many.
        at_most: how many the caller means.

    Raises:
        RefusedError: they are more.
    """
    if events > at_most:
        raise RefusedError(
            f"This would {doing} {events:,} events, more than at_most ({at_most:,}). Nothing was changed. Look with "
            "dry_run, then say a larger at_most or narrow it."
        )
