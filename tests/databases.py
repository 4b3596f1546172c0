"""Context managers for databases and servers that are removed at the end."""

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
    """Yield the URL of a new empty database; drop it and the database that Dagster gets."""
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
    """Yield an empty folder and an embedded server whose home is in it; remove its data too."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            with start_server(folder / "home") as server:
                yield folder, server
        finally:
            remove_data(folder / "home")
