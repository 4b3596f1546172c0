"""Loads the named statements of `sql/queries`, such as `outbox.fetch_pending`.

All SQL lives in `sql/`. Each file of `sql/queries` holds the statements of one concept: a line
`-- name: fetch_pending` begins a statement, and the comment after it says what the statement does.
Identifiers are psql variables, `:"outbox_table"`, so a statement can be pasted into
`psql -v outbox_table=...`; values are psycopg placeholders, `%(name)s`.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType

from psycopg import sql

_PACKAGE = Path(__file__).resolve().parent.parent
# In a wheel the folder is inside the package; in a checkout it is at the top level.
SQL_FOLDER = next(
    (f for f in (_PACKAGE / "sql", _PACKAGE.parent / "sql") if f.is_dir()), _PACKAGE / "sql"
)

_NAME = re.compile(r"^-- name: ([a-z_0-9]+)$", re.MULTILINE)
_IDENTIFIER = re.compile(r':"([a-z_]+)"')
_LITERAL = re.compile(r"(?<!:):'([a-z_]+)'")
_RAW = re.compile(r"(?<!:)(::)?:([a-z_]+)\b")


@dataclass(frozen=True)
class TableNames:
    """The names of the application's table and of our schema."""

    outbox_schema: str = "public"
    outbox_table: str = "outbox_event"
    dlq_schema: str = "dlq"


def bind_names(
    text: str, names: TableNames, shape: Mapping[str, str] = MappingProxyType({})
) -> str:
    """Replace the psql variables of a text.

    `:"name"` becomes an identifier, `:'name'` a literal, and `:name` the SQL that `shape` has.

    Raises:
        KeyError: a variable is neither a field of `TableNames` nor in `shape`.
    """
    values = {**asdict(names), **list_relations(names), **shape}
    text = _IDENTIFIER.sub(lambda token: sql.Identifier(values[token[1]]).as_string(None), text)
    text = _LITERAL.sub(lambda token: sql.Literal(values[token[1]]).as_string(None), text)
    return bind_shape(text, shape)


def bind_shape(text: str, shape: Mapping[str, str]) -> str:
    """Replace the variables that stand for SQL; the names are bound already or stay."""
    return _RAW.sub(
        lambda token: f"{token[1] or ''}{shape[token[2]]}" if token[2] in shape else token[0], text
    )


def list_relations(names: TableNames) -> dict[str, str]:
    """Return qualified names as texts, for statements that PostgreSQL puts together itself."""
    ours = {
        f"{name}_regclass": sql.Identifier(names.dlq_schema, name).as_string(None)
        for name in ("archived", "dead", "dead_now", "death", "fix", "retry", "wanted")
    }
    outbox = sql.Identifier(names.outbox_schema, names.outbox_table).as_string(None)
    return {**ours, "outbox_regclass": outbox}


def render_statement(names: TableNames, name: str, shape: Mapping[str, str]) -> bytes:
    """Return a statement of `sql/queries` that names columns of the application's table.

    Args:
        names: the names of the tables.
        name: `concept.statement`.
        shape: the SQL that stands for the columns.
    """
    escaped = {key: text.replace("%", "%%") for key, text in shape.items()}
    return bind_shape(load_queries(names)[name].decode(), escaped).encode()


@lru_cache(maxsize=16)
def load_queries(names: TableNames) -> Mapping[str, bytes]:
    """Return every statement of `sql/queries` by `concept.name`, bound to these tables.

    A percent sign in a name is doubled, because psycopg parses the statement for placeholders.
    """
    escaped = TableNames(
        **{field: value.replace("%", "%%") for field, value in asdict(names).items()}
    )
    queries: dict[str, bytes] = {}
    for file in sorted((SQL_FOLDER / "queries").glob("*.sql")):
        parts = _NAME.split(file.read_text(encoding="utf-8"))[1:]
        for name, text in zip(parts[::2], parts[1::2], strict=True):
            queries[f"{file.stem}.{name}"] = bind_names(text.strip(), escaped).encode()
    return MappingProxyType(queries)
