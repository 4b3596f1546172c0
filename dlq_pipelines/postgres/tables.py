"""Reads the columns of a table from PostgreSQL's catalog."""

from typing import Any

from dlq_pipelines.postgres.connect import Connection


def read_table_columns(connection: Connection, schema: str, name: str) -> list[dict[str, Any]]:
    """Return a table's columns in their order: `name`, `type`, `nullable` and `description`."""
    columns: list[dict[str, Any]] = connection.fetch_one(
        "session.table", schema=schema, table=name
    )["columns"]
    return columns
