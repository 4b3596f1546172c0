"""Lists the statements that a migration would run on the application's table."""

import re
from collections.abc import Iterable, Iterator, Mapping

from dlq_pipelines.postgres.migrate import Migration
from dlq_pipelines.postgres.queries import TableNames, bind_names

_STATEMENT_END = re.compile(r";[ \t]*\n[ \t]*\n")
_COMMENT = re.compile(r"\A(?:--[^\n]*\n|\s*\n)+")


def list_table_statements(
    migrations: Iterable[Migration], names: TableNames, shape: Mapping[str, str]
) -> list[str]:
    """Return every statement of these migrations on the application's table.

    Args:
        migrations: those that are pending.
        names: the names of the tables.
        shape: the SQL that stands for the table's columns.
    """
    attachments = [migration.text for migration in migrations if migration.is_attachment]
    added = [shape["add_columns"]] if attachments and shape["add_columns"] else []
    return added + [
        statement
        for text in attachments
        for statement in _split_statements(bind_names(text, names, shape))
        if statement.startswith("create or replace trigger ")
    ]


def _split_statements(text: str) -> Iterator[str]:
    for part in _STATEMENT_END.split(f"{text}\n\n"):
        statement = _COMMENT.sub("", part).strip()
        if statement:
            yield f"{statement};"
