"""Installs dlq-pipelines on an outbox: checks the table, migrates, and attaches to it."""

from collections.abc import Callable
from dataclasses import replace

import psycopg

from dlq_pipelines.errors import RefusedError, SchemaError
from dlq_pipelines.outbox.adopt import OutboxTableFacts, StateCount, list_state_columns
from dlq_pipelines.outbox.inspect import (
    TableFacts,
    count_states,
    find_bad_patterns,
    inspect_session,
    inspect_table,
)
from dlq_pipelines.outbox.mapping import DEFAULT_PRESET, Mapping, MappingError, load_mapping
from dlq_pipelines.outbox.mapping_types import is_time_zone
from dlq_pipelines.outbox.preflight import (
    SERVED_KINDS,
    PreflightCheck,
    build_missing_check,
    check_kind,
    check_mapping,
    check_mapping_error,
    check_owner,
    check_rights,
    check_session,
    check_states,
    check_table,
    require_no_refusal,
)
from dlq_pipelines.outbox.shape import (
    build_shape,
    find_state_column,
    list_mapped_facts,
    render_outbox,
)
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
        SchemaError: the table does not exist or cannot be served, and nothing was changed; another
            `dlq migrate` did not finish within a minute; or a lock on the table was not granted.
            Migrations that were applied before stay applied, and the next run continues after them.
    """
    migrations = load_migrations()
    if not _is_pending(connection, mapping, migrations):
        return []
    require_no_refusal(run_preflight(connection, mapping))
    shape = describe_shape(connection, mapping)
    return apply_migrations(connection, migrations, shape=shape, report=report)


def _is_pending(
    connection: Connection, mapping: Mapping | None, migrations: list[Migration]
) -> bool:
    try:
        shape = describe_shape(connection, mapping)
    except (SchemaError, MappingError):  # the checks say all that is wrong
        return True
    return bool(list_pending_migrations(connection, migrations, shape))


def run_preflight(connection: Connection, mapping: Mapping | None = None) -> list[PreflightCheck]:
    """Run every check of an installation. Changes nothing.

    Args:
        connection: in autocommit mode, of the role that migrates.
        mapping: of the outbox table; None: the reference application's.
    """
    names, session = connection.names, inspect_session(connection)
    checks = check_session(session)
    table = inspect_table(connection, names.outbox_schema, names.outbox_table)
    if table is None:
        return [*checks, build_missing_check(names.outbox_schema, names.outbox_table)]
    given = place_mapping(mapping, table)
    checks += check_table(table, given)
    if table.kind not in SERVED_KINDS:
        return checks
    return [
        *checks,
        *run_mapping_checks(connection, given, table),
        check_rights(table, session, names.dlq_schema),
        check_owner(table, given),
    ]


def run_mapping_checks(
    connection: Connection, mapping: Mapping, table: TableFacts
) -> list[PreflightCheck]:
    """Check what the mapping says of its table, and the states that the table has."""
    try:
        rendered = render_outbox(mapping, list_mapped_facts(table))
    except MappingError as error:
        return [check_mapping_error(error)]
    bad_patterns = find_bad_patterns(connection, rendered.patterns)
    return [
        *check_mapping(mapping, rendered.offers, bad_patterns),
        *check_seen_states(connection, mapping, table),
    ]


def check_seen_states(
    connection: Connection, mapping: Mapping, table: TableFacts
) -> list[PreflightCheck]:
    """Compare the states that the table has with those of the mapping; empty: no state column."""
    column = find_state_column(mapping.dead)
    if column is None or not table.rights.may_select or not table.rights.may_use_schema:
        return []
    try:
        counts = count_states(connection, column)
    except psycopg.errors.QueryCanceled:
        return [PreflightCheck("states", "ok", "not counted: the table is too large")]
    return [check_states(mapping, column, counts)]


def place_mapping(mapping: Mapping | None, table: TableFacts) -> Mapping:
    """Return a mapping, or that of the reference application, for this table."""
    return replace(mapping or load_mapping(DEFAULT_PRESET), schema=table.schema, table=table.name)


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
    return build_shape(place_mapping(mapping, table), list_mapped_facts(table))


def require_table(connection: Connection) -> TableFacts:
    """Return the facts about the outbox table.

    Raises:
        SchemaError: the table does not exist.
    """
    names = connection.names
    table = inspect_table(connection, names.outbox_schema, names.outbox_table)
    if table is None:
        missing = build_missing_check(names.outbox_schema, names.outbox_table)
        raise SchemaError(missing.found, missing.remedy)
    return table


def read_outbox_facts(
    connection: Connection,
    schema: str,
    name: str,
    *,
    state: str | None = None,
    reads_values: bool = True,
) -> OutboxTableFacts:
    """Return what a proposal of a mapping needs to know of a table. Changes nothing.

    Args:
        connection: in autocommit mode. From here on its statements name this table.
        schema: of the table.
        name: of the table.
        state: the column with the state, if a person said so.
        reads_values: whether the values of columns are read that may have the state.

    Raises:
        SchemaError: the table does not exist.
        RefusedError: it is no table of an application, but for example a view.
    """
    connection.names = replace(connection.names, outbox_schema=schema, outbox_table=name)
    table = require_table(connection)
    kind = check_kind(table)
    if kind.outcome == "refused":
        raise RefusedError(kind.found, kind.remedy)
    columns = list_mapped_facts(table)
    states = {
        column: _list_values(connection, table, column)
        for column in list_state_columns(columns, state, reads_values=reads_values)
    }
    zone = connection.fetch_one("inspect.time_zone")["time_zone"]
    return OutboxTableFacts(
        schema, name, columns, table.primary_key, states, zone if is_time_zone(zone) else "UTC"
    )


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
