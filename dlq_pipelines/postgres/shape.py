"""Holds the SQL that stands for the columns of the application's table in `sql/outbox`."""

from collections.abc import Mapping
from types import MappingProxyType


def _list_columns(alias: str) -> str:
    columns = {
        "id": "id",
        "aggregate_type": "aggregate_type",
        "aggregate_id": "aggregate_id",
        "event_type": "event_type",
        "payload": "payload::text",
        "status": "status",
        "attempts": "attempts",
        "due_at": "next_run_at",
        "created_at": "created_at",
        "error": "last_error",
        "error_at": "last_error_at",
    }
    listed = [f"{alias}.{source} as {name}" for name, source in columns.items()]
    states = {
        "dead": f"{alias}.status operator(pg_catalog.=) 'dead'",
        "delivered": f"{alias}.status operator(pg_catalog.=) 'done'",
        "waiting": f"{alias}.status operator(pg_catalog.=) any ('{{pending,retry}}')",
    }
    return ",\n    ".join([*listed, *(f"{text} as {name}" for name, text in states.items())])


# The reference table, sql/host/outbox_event.sql.
REFERENCE_SHAPE: Mapping[str, str] = MappingProxyType(
    {
        "event_id_type": "bigint",
        "id_column": "id",
        "o_id": "o.id",
        "o_created_at": "o.created_at",
        "o_dead": "o.status operator(pg_catalog.=) 'dead'",
        "new_id": "new.id",
        "new_dead": "new.status operator(pg_catalog.=) 'dead'",
        "old_id": "old.id",
        "old_dead": "old.status operator(pg_catalog.=) 'dead'",
        "new_death": "new.created_at,\n            "
        "coalesce(new.aggregate_type::pg_catalog.text, ''),\n            "
        "coalesce(new.aggregate_id::pg_catalog.text, ''),\n            "
        "coalesce(new.event_type::pg_catalog.text, ''),\n            "
        "coalesce(new.attempts, 0),\n            new.last_error",
        "outbox_columns": _list_columns("o"),
        "archive_columns": _list_columns("a"),
        "release": "status = 'pending', attempts = 0, next_run_at = given.due",
        "payload_column": "payload",
        "payload_type": "jsonb",
    }
)
