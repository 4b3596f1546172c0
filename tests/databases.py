"""Databases and servers that leave nothing behind."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from dlq_pipelines.postgres.embedded import EmbeddedServer, start_server
from tests.conftest import _new_database, database_url
from tests.memory import remove_data


@contextmanager
def with_dagster(server_url: str) -> Iterator[str]:
    """The URL of a new empty database; what `prepare_dagster` makes beside it goes with it."""
    with _new_database(server_url) as name:
        try:
            yield database_url(server_url, name)
        finally:
            with psycopg.connect(make_conninfo(server_url), autocommit=True) as connection:
                connection.execute(
                    sql.SQL("drop database if exists {} with (force)").format(
                        sql.Identifier(f"{name}_dagster")
                    )
                )


@contextmanager
def scratch_server() -> Iterator[tuple[Path, EmbeddedServer]]:
    """An empty folder, and an embedded server with its home there; the data goes too, which for root lie elsewhere."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            with start_server(folder / "home") as server:
                yield folder, server
        finally:
            remove_data(folder / "home")
