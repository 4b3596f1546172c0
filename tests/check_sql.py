"""Checks that every SQL file and every named statement parses with PostgreSQL's own parser."""

import re
import sys

import pglast

from dlq_pipelines.outbox.mapping import load_mapping
from dlq_pipelines.outbox.mapping_types import MappedColumn
from dlq_pipelines.outbox.shape import build_shape
from dlq_pipelines.postgres.migrate import load_migrations
from dlq_pipelines.postgres.queries import (
    SQL_FOLDER,
    TableNames,
    bind_names,
    bind_shape,
    load_queries,
)

_PARAMETER = re.compile(r"%\([a-z_]+\)s")


_TIME = "timestamp with time zone"
_SHAPE = build_shape(
    load_mapping("dispatchbox"),
    [
        MappedColumn("id", "bigint"),
        MappedColumn("aggregate_type", "text"),
        MappedColumn("aggregate_id", "text"),
        MappedColumn("event_type", "text"),
        MappedColumn("payload", "jsonb"),
        MappedColumn("status", "text"),
        MappedColumn("attempts", "integer"),
        MappedColumn("next_run_at", _TIME),
        MappedColumn("created_at", _TIME),
    ],
)


def main() -> int:
    """Parse all SQL texts; print the errors and return 1 if there are any."""
    texts = {
        migration.name: bind_names(migration.text, TableNames(), _SHAPE)
        for migration in load_migrations()
    }
    for file in (*SQL_FOLDER.glob("host/*.sql"), *SQL_FOLDER.glob("demo/*.sql")):
        texts[str(file.relative_to(SQL_FOLDER))] = bind_names(
            file.read_text(encoding="utf-8"), TableNames()
        )
    for name, statement in load_queries(TableNames()).items():
        shaped = bind_shape(statement.decode(), _SHAPE)
        texts[name] = _PARAMETER.sub("$1", shaped).replace("%%", "%")
    errors = [f"{name}: {error}" for name, text in texts.items() if (error := _find_error(text))]
    print("\n".join([*errors, f"{len(texts)} SQL texts parsed, {len(errors)} with errors"]))
    return 1 if errors else 0


def _find_error(text: str) -> str | None:
    try:
        pglast.parse_sql(text)
    except pglast.parser.ParseError as error:
        return str(error)
    return None


if __name__ == "__main__":
    sys.exit(main())
