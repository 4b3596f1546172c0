"""Installs dlq-pipelines on an outbox: checks the table, migrates, and attaches to it."""

from collections.abc import Callable
from dataclasses import replace

import psycopg

from dlq_pipelines.errors import SchemaError
from dlq_pipelines.outbox.adopt import OutboxTableFacts, StateCount, list_state_columns
from dlq_pipelines.outbox.inspect import TableFacts, count_states, inspect_table
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


def read_outbox_facts(connection: Connection, schema: str, name: str) -> OutboxTableFacts:
    """Return what a proposal of a mapping needs to know of a table. Changes nothing.

    Args:
        connection: in autocommit mode. From here on its statements name this table.
        schema: of the table.
        name: of the table.

    Raises:
        SchemaError: the table does not exist.
    """
    connection.names = replace(connection.names, outbox_schema=schema, outbox_table=name)
    table = require_table(connection)
    columns = list_mapped_facts(table)
    states = {
        column: _list_values(connection, table, column) for column in list_state_columns(columns)
    }
    return OutboxTableFacts(schema, name, columns, table.primary_key, states)


def _list_values(connection: Connection, table: TableFacts, column: str) -> tuple[StateCount, ...]:
    """Return the values that a column has, and its default: the state of a new event."""
    try:
        found = count_states(connection, column).states
    except psycopg.errors.QueryCanceled:
        found = ()
    values = {value: rows for value, rows in found if value is not None}
    facts = table.find_column(column)
    if facts is not None and facts.default_text is not None:
        values.setdefault(facts.default_text, 0)
    return tuple(StateCount(value, rows) for value, rows in values.items())
