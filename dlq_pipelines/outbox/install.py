"""Installs dlq-pipelines on an outbox: checks the table, migrates, and attaches to it."""

from collections.abc import Callable
from dataclasses import replace

from dlq_pipelines.errors import SchemaError
from dlq_pipelines.outbox.inspect import TableFacts, inspect_table
from dlq_pipelines.outbox.mapping import Mapping, load_mapping
from dlq_pipelines.outbox.shape import build_shape, list_mapped_facts
from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.postgres.migrate import (
    Migration,
    apply_migrations,
    list_pending_migrations,
    load_migrations,
)


def install_outbox(
    connection: Connection,
    mapping: Mapping | None = None,
    *,
    report: Callable[[str], None] = lambda _: None,
) -> list[Migration]:
    """Apply what is pending and return it. Everything is checked before the first change.

    Args:
        connection: in autocommit mode, with the rights of the table's owner.
        mapping: of the outbox table; None: the reference application's.
        report: called before each step with a sentence.

    Raises:
        SchemaError: the table does not exist or cannot be served; another `dlq migrate` did not
            finish within a minute; or a lock on the table was not granted. Migrations that were
            applied before stay applied, and the next run continues after them.
        MappingError: the mapping does not fit the table.
    """
    shape = describe_shape(connection, mapping)
    return apply_migrations(connection, load_migrations(), shape=shape, report=report)


def list_pending(connection: Connection, mapping: Mapping | None = None) -> list[Migration]:
    """Return what `install_outbox` would apply.

    Raises:
        SchemaError: the table does not exist, or a newer release migrated the database.
        MappingError: the mapping does not fit the table.
    """
    shape = describe_shape(connection, mapping)
    return list_pending_migrations(connection, load_migrations(), shape)


def describe_shape(connection: Connection, mapping: Mapping | None = None) -> dict[str, str]:
    """Return the SQL that stands for the table's columns.

    Raises:
        SchemaError: the table does not exist.
        MappingError: the mapping does not fit the table.
    """
    table = require_table(connection)
    given = replace(mapping or load_mapping("dispatchbox"), schema=table.schema, table=table.name)
    return build_shape(given, list_mapped_facts(table))


def require_table(connection: Connection) -> TableFacts:
    """Return the facts about the outbox table.

    Raises:
        SchemaError: the table does not exist.
    """
    names = connection.names
    table = inspect_table(connection, names.outbox_schema, names.outbox_table)
    if table is None:
        raise SchemaError(
            f"There is no outbox table {names.outbox_schema}.{names.outbox_table} in this "
            "database.",
            "Set DLQ_OUTBOX_MAPPING, or DLQ_OUTBOX_SCHEMA and DLQ_OUTBOX_TABLE, and run "
            "`dlq migrate` again.",
        )
    return table
