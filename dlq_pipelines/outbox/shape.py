"""Turns a mapping into the SQL that stands for the application's columns in `sql/outbox`."""

import json
from collections.abc import Sequence

from dlq_pipelines.outbox.inspect import TableFacts
from dlq_pipelines.outbox.mapping_sql import (
    MappingSql,
    quote_identifier,
    quote_literal,
    render_mapping,
    write_array,
)
from dlq_pipelines.outbox.mapping_types import (
    CANONICAL_COLUMNS,
    ColumnSource,
    ComparisonKind,
    MappedColumn,
    Mapping,
    RowCondition,
    list_column_sources,
)

# Columns that the reference application gets, because its table has none for the error.
ADDED_COLUMNS = {"last_error": "text", "last_error_at": "timestamp with time zone"}
_TEXTS = ("text", "character varying")
# What `dlq erase` writes to a column that may not be null.
_EMPTY_VALUES = {
    "json": "{}",
    "jsonb": "{}",
    "text": "",
    "character varying": "",
    "character": "",
    "bytea": "",
}


def list_mapped_facts(table: TableFacts) -> tuple[MappedColumn, ...]:
    """Return the columns of a table as the mapping needs them."""
    return tuple(
        MappedColumn(
            column.name,
            column.base_type if column.is_domain else column.type,
            is_enum=column.category == "enum",
            is_array=column.category == "array",
            nullable=column.nullable,
            labels=column.labels,
            is_generated=column.generated,
        )
        for column in table.columns
    )


def build_shape(mapping: Mapping, given: Sequence[MappedColumn]) -> dict[str, str]:
    """Return the variables of `sql/outbox` for a mapping and the columns of its table.

    The same before and after the error's columns were added, so that it can be compared.

    Raises:
        MappingError: the mapping does not fit the table.
    """
    added = list_added_columns(mapping)
    rendered = render_outbox(mapping, given)
    known = set(rendered.columns)
    return {
        "event_id_type": rendered.event_id_type,
        "id_column": quote_identifier(mapping.id),
        **{f"{alias}_id": rendered.expression("id", alias) for alias in ("o", "new", "old")},
        **{f"{alias}_dead": rendered.condition("dead", alias) for alias in ("o", "new", "old")},
        "o_delivered": rendered.condition("delivered", "o"),
        "o_created_at": rendered.expression("created_at", "o"),
        "new_death": _render_death(rendered),
        "outbox_columns": _render_columns(rendered, "o", known),
        "archive_columns": _render_columns(rendered, "a", known),
        "add_columns": _render_added(mapping, added),
        "added_names": quote_literal("{" + ",".join(added) + "}"),
        **_render_changes(rendered),
        "vanished": quote_literal("delivered" if mapping.deleted_is_delivered else "deleted"),
        "deletion_is_loss": "true"
        if mapping.delivered is not None and not mapping.deleted_is_delivered
        else "false",
        "offers": quote_literal(
            json.dumps({offer.operation: offer.reason for offer in rendered.offers})
        ),
    }


def build_reading_shape(mapping: Mapping, given: Sequence[MappedColumn]) -> dict[str, str]:
    """Return the variables of statements that read a table before anything is installed.

    A column that only `dlq migrate` would add is null.

    Raises:
        MappingError: the mapping does not fit the table.
    """
    rendered = render_mapping(mapping, given)
    return {
        "event_id_type": rendered.event_id_type,
        "outbox_columns": _render_columns(rendered, "o", set(rendered.columns)),
    }


def render_outbox(mapping: Mapping, given: Sequence[MappedColumn]) -> MappingSql:
    """Return the SQL texts of a mapping for the columns that its table has after the migration.

    Raises:
        MappingError: the mapping does not fit the table.
    """
    names = {column.name for column in given}
    added = (name for name in list_added_columns(mapping) if name not in names)
    return render_mapping(
        mapping, [*given, *(MappedColumn(name, ADDED_COLUMNS[name]) for name in added)]
    )


def list_added_columns(mapping: Mapping) -> list[str]:
    """Return the columns that `dlq migrate` adds to the table if it lacks them."""
    error = mapping.error
    return list(ADDED_COLUMNS) if isinstance(error, ColumnSource) and error.is_optional else []


def _render_added(mapping: Mapping, added: list[str]) -> str:
    if not added:
        return ""
    table = f"{quote_identifier(mapping.schema)}.{quote_identifier(mapping.table)}"
    columns = ", ".join(f"add column if not exists {name} {ADDED_COLUMNS[name]}" for name in added)
    return f"alter table {table} {columns};"


def _render_death(rendered: MappingSql) -> str:
    texts = ("aggregate_type", "aggregate_id", "event_type")
    values = [
        rendered.expression("created_at", "new"),
        *(f"coalesce({rendered.expression(name, 'new')}, '')" for name in texts),
        f"coalesce({rendered.expression('attempts', 'new')}, 0)",
        rendered.expression("error", "new"),
    ]
    return ",\n            ".join(values)


def _render_columns(rendered: MappingSql, alias: str, known: set[str]) -> str:
    error_at = (
        f"{alias}.last_error_at" if "last_error_at" in known else "null::pg_catalog.timestamptz"
    )
    columns = {
        **{name: rendered.expression(name, alias) for name in CANONICAL_COLUMNS},
        "error_at": error_at,
        "status": _render_status(rendered, alias),
        "dead": rendered.condition("dead", alias),
        "delivered": rendered.condition("delivered", alias),
        "waiting": rendered.condition("waiting", alias),
        "working": rendered.condition("working", alias),
    }
    if alias == "o":  # the archive releases nothing
        columns["release_before"] = rendered.release_before()
    return ",\n    ".join(f"{text} as {name}" for name, text in columns.items())


def _render_status(rendered: MappingSql, alias: str) -> str:
    """The application's own word for the state where one column has it, else ours."""
    column = find_state_column(rendered.mapping.dead)
    facts = rendered.columns.get(column) if column else None
    if facts is not None and (facts.is_enum or facts.base_type in _TEXTS):
        return f"{alias}.{quote_identifier(facts.name)}::pg_catalog.text"
    dead, delivered = (rendered.condition(name, alias) for name in ("dead", "delivered"))
    return f"case when {dead} then 'dead' when {delivered} then 'done' else 'pending' end"


def find_state_column(dead: RowCondition) -> str | None:
    """Return the column whose values make a row dead, if there is exactly one."""
    columns = {
        test.column
        for alternative in dead.alternatives
        for test in alternative
        if test.kind is ComparisonKind.EQUALS
    }
    return columns.pop() if len(columns) == 1 else None


def _render_changes(rendered: MappingSql) -> dict[str, str]:
    """What a retry and a new payload write; without either, statements that change nothing."""
    mapping, cast = rendered.mapping, rendered.payload_cast
    same = f"{quote_identifier(mapping.id)} = o.{quote_identifier(mapping.id)}"
    payload = mapping.payload
    erasures = _list_erasures(rendered)
    # The right to update a column is also the right to lock a row, so there is always one.
    written = [assignment.column for assignment in mapping.retry or ()]
    written += [] if payload is None or cast is None else [payload.column]
    return {
        "written_columns": quote_literal(write_array(dict.fromkeys(written or [mapping.id]))),
        "released_columns": quote_literal(
            write_array(assignment.column for assignment in mapping.retry or ())
        ),
        "release_unchanged": rendered.release_unchanged("given.due"),
        "can_recall": "true" if rendered.find_offer("pace").is_offered else "false",
        "can_release": "false" if mapping.retry is None else "true",
        "release": same if mapping.retry is None else rendered.release_assignments("given.due"),
        "payload_change": same
        if payload is None or cast is None
        else f"{quote_identifier(payload.column)} = new_payload::{cast}",
        "payload_type": cast or "pg_catalog.text",
        "erasure": ", ".join(
            f"{quote_identifier(name)} = {empty}" for name, empty in erasures.items()
        )
        or same,
        "is_erased": " and ".join(map(_render_is_erased, erasures.items())) or "true",
    }


def _list_erasures(rendered: MappingSql) -> dict[str, str]:
    """Return the columns that `dlq erase` empties, those of payload and error, with what they get.

    Null where the table allows it, else the empty value of the type. A column that may not be null
    and whose type has none, such as a number or an enum, holds a code and no text: it stays. So
    does a generated one, which follows from the others.
    """
    sources = [rendered.mapping.payload, *list_column_sources(rendered.mapping.error)]
    names = dict.fromkeys(source.column for source in sources if source is not None)
    columns = [rendered.columns[name] for name in names if name in rendered.columns]
    return {
        column.name: empty
        for column in columns
        if not column.is_generated and (empty := _find_empty_value(column)) is not None
    }


def _find_empty_value(column: MappedColumn) -> str | None:
    if column.nullable:
        return "null"
    empty = "{}" if column.is_array else _EMPTY_VALUES.get(column.base_type)
    return None if empty is None else quote_literal(empty)


def _render_is_erased(erasure: tuple[str, str]) -> str:
    name, empty = erasure
    column = f"o.{quote_identifier(name)}"
    if empty == "null":
        return f"{column} is null"
    # An empty bytea is written as \x.
    return f"{column}::pg_catalog.text in ({empty}, '\\x')"
