"""Databases whose Dagster records are dropped with them."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from tests.conftest import _new_database, database_url


@contextmanager
def with_dagster(server_url: str) -> Iterator[str]:
    """The URL of a new empty database; what `prepare_dagster` makes beside it goes with it."""
    with _new_database(server_url) as name:
        try:
            yield database_url(server_url, name)
        finally:
            with psycopg.connect(make_conninfo(server_url), autocommit=True) as connection:
                connection.execute(
                    sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(f"{name}_dagster"))
                )
