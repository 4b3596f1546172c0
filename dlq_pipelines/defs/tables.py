"""Describes tables to Dagster's catalog: before any run by the settings, after a run as found.

Loading the definitions asks no database anything, not even where the embedded server listens. A
run replaces the columns by those that the table has, the application's own among them.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import dagster as dg

from dlq_pipelines.installation import get_database_name, get_database_server
from dlq_pipelines.settings import Settings

# Name, type, whether it may be null, and description.
Column = tuple[str, str, bool, str]
_TIME = "timestamp with time zone"
_EVENT: tuple[Column, ...] = (
    ("id", "bigint", False, "Key of the event."),
    ("aggregate_type", "text", False, "Type of the aggregate that the event is about."),
    ("aggregate_id", "text", False, "Key of that aggregate."),
    ("event_type", "text", False, "What happened to the aggregate."),
    ("payload", "jsonb", False, "Content that the application wrote."),
    ("status", "text", False, "pending, retry, done or dead."),
    ("attempts", "integer", False, "Attempts since the event was written or last retried."),
    ("next_run_at", _TIME, False, "Due time: when a worker may take the event next."),
    ("created_at", _TIME, False, "When the application wrote the event."),
)
_ERROR: tuple[Column, ...] = (
    ("last_error", "text", True, "Error of the last failed attempt."),
    ("last_error_at", _TIME, True, "When that attempt failed."),
)
OUTBOX = _EVENT + _ERROR
ARCHIVE: tuple[Column, ...] = (
    # No constraint of the application applies to what it has archived.
    *((name, type_, True, description) for name, type_, _, description in OUTBOX),
    ("dlq_death_id", "bigint", False, "Death after which the event was archived."),
    ("dlq_archived_at", _TIME, False, "When the event was archived."),
)
CAUSE: tuple[Column, ...] = (
    ("id", "text", False, "First fingerprint of the cause; it never changes."),
    ("exception_type", "text", False, "Class of the exception."),
    ("template", "text", False, "Message without its values."),
    ("first_seen", _TIME, False, "First death of the cause."),
    ("last_seen", _TIME, False, "Last death of the cause."),
    ("status", "text", False, "open, fixing, fixed or regressed."),
    ("fixed_at", _TIME, True, "An event that is written later and dies is a regression."),
    ("name", "text", True, "Name that a person gave to the cause."),
    ("owner", "text", True, "Person or team that is responsible."),
    ("note", "text", True, "Comment of a person."),
    ("muted_until", _TIME, True, "The cause raises no alert until this time."),
    ("probe", "text", True, "on or off: overrides DLQ_PROBES for the cause."),
    ("is_transient", "boolean", False, "Such failures pass without a change."),
    ("merged_into", "text", True, "Cause under which this one is shown."),
)
REPORT_DAY: tuple[Column, ...] = (
    ("day", "date", False, "Day of the report."),
    ("headline", "text", False, "Summary of the day in a sentence."),
    ("figures", "jsonb", False, "Figures that the list of reports shows."),
    ("files", "jsonb", False, "Name, size in bytes and SHA-256 of each file."),
    ("built_at", _TIME, False, "When the report was last built."),
    ("deleted_at", _TIME, True, "When the retention deleted its files."),
)


def describe_table(
    settings: Settings, schema: str, name: str, columns: Iterable[Column]
) -> dict[str, Any]:
    """Return a table's metadata without asking a database.

    The address is that of the settings' database. The address of the embedded one is known only
    while its server runs.
    """
    database, server = get_database_name(settings), get_database_server(settings)
    place = ".".join(part for part in (database, schema, name) if part)
    address = (
        {"dagster/uri": build_table_uri(server, database, schema, name)}
        if server and database
        else {}
    )
    known = [
        {
            "name": column,
            "type": type_,
            "nullable": nullable,
            "description": settings.name_settings(description),
        }
        for column, type_, nullable, description in columns
    ]
    return {
        "dagster/table_name": place,
        "dagster/column_schema": build_table_schema(known),
    } | address


def build_table_uri(server: str, database: str, schema: str, name: str) -> str:
    """Return the address of a table; `server` is host and port."""
    return f"postgresql://{server}/{database}#{schema}.{name}"


def build_table_schema(columns: Iterable[Mapping[str, Any]]) -> dg.TableSchema:
    """Return columns as Dagster shows them; each has name, type, nullable and description."""
    return dg.TableSchema(
        [
            dg.TableColumn(
                name=column["name"],
                type=column["type"],
                description=column["description"] or None,
                constraints=dg.TableColumnConstraints(nullable=column["nullable"]),
            )
            for column in columns
        ]
    )


def build_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> dg.TableMetadataValue:
    """Return rows as a table of the UI. Numbers stay numbers; other values are shown as text."""
    return dg.MetadataValue.table(
        [
            dg.TableRecord(
                {
                    name: value if isinstance(value, bool | int | float) else str(value)
                    for name, value in zip(header, row, strict=True)
                }
            )
            for row in rows
        ],
        schema=dg.TableSchema([dg.TableColumn(name) for name in header]),
    )


def build_lineage(sources: Mapping[str, tuple[dg.AssetKey, str]]) -> dg.TableColumnLineage:
    """Return from which asset and column each column is."""
    return dg.TableColumnLineage(
        {
            column: [dg.TableColumnDep(asset_key=key, column_name=source)]
            for column, (key, source) in sources.items()
        }
    )
