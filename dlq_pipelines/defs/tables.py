"""What does Dagster show of a table before a run has looked at it, and what of one as a run found it?

Before a run nothing is asked of a database, not even where the embedded one listens: what the settings and this release
know stands in the catalog. A run replaces the columns by those that are there, the application's own among them.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import dagster as dg

from dlq_pipelines.installation import get_database_name, get_database_server
from dlq_pipelines.settings import Settings

# Name, type, whether it may be null, and what it means.
Column = tuple[str, str, bool, str]
_EVENT: tuple[Column, ...] = (
    ("id", "bigint", False, "The event."),
    ("aggregate_type", "text", False, "What kind of thing it is about."),
    ("aggregate_id", "text", False, "Which of them."),
    ("event_type", "text", False, "What happened to it."),
    ("payload", "jsonb", False, "What the application wrote."),
    ("status", "text", False, "pending, retry, done or dead."),
    (
        "attempts",
        "integer",
        False,
        "How often the worker tried since it was written or last retried.",
    ),
    ("next_run_at", "timestamp with time zone", False, "When a worker may take it next."),
    ("created_at", "timestamp with time zone", False, "When the application wrote it."),
)
_DEAD: tuple[Column, ...] = (
    ("last_error", "text", True, "What the worker said of its last failed try."),
    ("last_error_at", "timestamp with time zone", True, "When that was."),
    ("dead_at", "timestamp with time zone", True, "When it died, while it is dead."),
)
OUTBOX = _EVENT + _DEAD
ARCHIVE = (
    *_EVENT,
    ("archived_at", "timestamp with time zone", True, "When it was archived."),
    *_DEAD,
)
CAUSE: tuple[Column, ...] = (
    ("id", "text", False, "The cause: its first fingerprint. It never changes."),
    ("exception_type", "text", False, "The class of its exception."),
    ("template", "text", False, "Its message without values."),
    ("sample", "text", False, "One of its errors."),
    ("first_seen", "timestamp with time zone", False, "Its first death."),
    ("last_seen", "timestamp with time zone", False, "Its last death."),
    ("status", "text", False, "open, fixing, fixed or regressed."),
    (
        "fixed_at",
        "timestamp with time zone",
        True,
        "Since when what is new and dies of it is a relapse.",
    ),
    ("name", "text", True, "What people call it."),
    ("owner", "text", True, "Whom to ask."),
    ("note", "text", True, "What people say of it."),
    ("muted_until", "timestamp with time zone", True, "Until when nobody is told of it."),
    ("merged_into", "text", True, "The cause that it is shown as."),
)
REPORT_DAY: tuple[Column, ...] = (
    ("day", "date", False, "The day that the report is of."),
    ("headline", "text", False, "The day in a sentence."),
    ("figures", "jsonb", False, "What the list of reports shows of it."),
    ("files", "jsonb", False, "The pages: name, bytes and SHA-256."),
    ("built_at", "timestamp with time zone", False, "When it was built last."),
)


def describe_table(
    settings: Settings, schema: str, name: str, columns: Iterable[Column]
) -> dict[str, Any]:
    """What is known of a table without a database.

    The address is the settings' database: that of the embedded one is known once it runs.
    """
    database, server = get_database_name(settings), get_database_server(settings)
    place = ".".join(part for part in (database, schema, name) if part)
    address = (
        {"dagster/uri": build_table_uri(server, database, schema, name)}
        if server and database
        else {}
    )
    found = [
        {"name": n, "type": t, "nullable": null, "description": d} for n, t, null, d in columns
    ]
    return {
        "dagster/table_name": place,
        "dagster/column_schema": build_table_schema(found),
    } | address


def build_table_uri(server: str, database: str, schema: str, name: str) -> str:
    """Where a table is; `server` is its host and port."""
    return f"postgresql://{server}/{database}#{schema}.{name}"


def build_table_schema(columns: Iterable[Mapping[str, Any]]) -> dg.TableSchema:
    """Columns, each with `name`, `type`, `nullable` and `description`."""
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
