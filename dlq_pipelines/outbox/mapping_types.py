"""Defines the mapping: which columns and states of an application's table mean what."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import ClassVar
from zoneinfo import ZoneInfo

from dlq_pipelines.errors import DlqError
from dlq_pipelines.validate import is_storable

# PostgreSQL's NAMEDATALEN - 1.
MAX_IDENTIFIER_BYTES = 63

# A value of a state, or what a retry sets.
Scalar = str | int | bool


class MappingError(DlqError):
    """A mapping that cannot be read, or that does not fit its table."""

    code: ClassVar[str] = "mapping_invalid"


@dataclass(frozen=True)
class ColumnSource:
    """A value that is read from one column.

    Attributes:
        column: the column of the application's table.
        last_element: read the last element of the array, or of the JSON array.
        field: the path of a field of the JSON value; empty: the value itself.
        pattern: a regular expression of PostgreSQL; the value is what its first group matches.
        decodes_json: the match is the inside of a JSON string, whose escapes are decoded.
        is_optional: the value is null if the table does not have the column.
    """

    column: str
    last_element: bool = False
    field: tuple[str, ...] = ()
    pattern: str | None = None
    decodes_json: bool = False
    is_optional: bool = False


@dataclass(frozen=True)
class ConstantText:
    """A value that is the same for every row."""

    text: str


@dataclass(frozen=True)
class JoinedText:
    """Several values that are joined by a separator; nulls are left out."""

    parts: tuple[ColumnSource, ...]
    separator: str = ": "


ValueSource = ColumnSource | ConstantText | JoinedText


class ComparisonKind(StrEnum):
    """A comparison of a column."""

    EQUALS = "equals"
    IS_NULL = "null"
    AT_LEAST = "at_least"
    LESS_THAN = "less_than"
    HAS_KEY = "has_key"


@dataclass(frozen=True)
class ColumnTest:
    """One comparison of a column.

    Attributes:
        values: `equals`: one of them; `null`: whether the column is null; `has_key`: the key of the
            JSON object; otherwise the number to compare with, or nothing.
        other_column: the column to compare with, for `at_least` and `less_than`.
    """

    column: str
    kind: ComparisonKind
    values: tuple[Scalar, ...] = ()
    other_column: str | None = None


@dataclass(frozen=True)
class RowCondition:
    """A condition of a row: one of the alternatives holds, and of it every test.

    No alternative never holds; an alternative without tests always holds.
    """

    alternatives: tuple[tuple[ColumnTest, ...], ...] = ()

    @property
    def is_always(self) -> bool:
        """Whether every row meets the condition."""
        return () in self.alternatives


class AssignmentKind(StrEnum):
    """What a retry sets a column to."""

    CONSTANT = "constant"
    NULL = "null"
    DUE = "due"


@dataclass(frozen=True)
class RetryAssignment:
    """A column that a retry sets.

    Attributes:
        value: the constant.
        plus_days: days that are added to the due time.
    """

    column: str
    kind: AssignmentKind
    value: Scalar = ""
    plus_days: int = 0


@dataclass(frozen=True)
class Mapping:
    """Which columns and states of an application's table mean what.

    Attributes:
        name: the preset or the file.
        schema: the schema of the table.
        table: the table.
        id: the key column.
        time_zone: the zone of timestamps without a time zone; None: the mapping names none, and
            such timestamps are refused, because a wrong zone makes every due time wrong by hours.
        dead: when a row is a dead event.
        delivered: when a row is delivered; None: unknown.
        deleted_is_delivered: whether a deleted row counts as delivered.
        waiting: when the worker will take a row; None: neither dead, delivered nor working.
        working: when the worker holds a row; None: not visible in the table.
        retry: what a retry sets; None: a retry is not possible.
    """

    name: str
    schema: str
    table: str
    id: str
    dead: RowCondition
    aggregate_type: ValueSource | None = None
    aggregate_id: ValueSource | None = None
    event_type: ValueSource | None = None
    payload: ColumnSource | None = None
    attempts: ColumnSource | None = None
    due_at: ColumnSource | None = None
    created_at: ColumnSource | None = None
    error: ValueSource | None = None
    died_at: ColumnSource | None = None
    time_zone: str | None = None
    delivered: RowCondition | None = None
    deleted_is_delivered: bool = False
    waiting: RowCondition | None = None
    working: RowCondition | None = None
    retry: tuple[RetryAssignment, ...] | None = None

    def with_table(self, table: str) -> "Mapping":
        """Return the same mapping for another table, given as `schema.table` or `table`."""
        schema, name = split_table_name(table)
        return replace(self, schema=schema, table=name)

    def with_time_zone(self, time_zone: str) -> "Mapping":
        """Return the same mapping for timestamps of another time zone."""
        if not is_time_zone(time_zone):
            raise MappingError(
                f"{time_zone!r} is not a time zone.", "Pass a name such as UTC or Europe/Berlin."
            )
        return replace(self, time_zone=time_zone)


@dataclass(frozen=True)
class MappedColumn:
    """A column of the application's table.

    Attributes:
        type: the type as `pg_catalog.format_type` writes it; of a domain, its base type.
        labels: the labels of an enum type; empty: unknown.
        is_generated: whether the column is a generated column.
    """

    name: str
    type: str
    is_enum: bool = False
    is_array: bool = False
    nullable: bool = True
    labels: tuple[str, ...] = ()
    is_generated: bool = False

    @property
    def base_type(self) -> str:
        """The type without length, precision or scale."""
        return _MODIFIER.sub("", self.type)


_MODIFIER = re.compile(r"\(\d+(?:,-?\d+)?\)")

# Keys of `[columns]`, in the order of the canonical view.
CANONICAL_COLUMNS = (
    "id",
    "aggregate_type",
    "aggregate_id",
    "event_type",
    "payload",
    "attempts",
    "due_at",
    "created_at",
    "error",
    "died_at",
)


def list_mapped_columns(mapping: Mapping) -> tuple[str, ...]:
    """Return every column of the table that a mapping names."""
    sources = (
        source
        for key in CANONICAL_COLUMNS[1:]
        for source in list_column_sources(getattr(mapping, key))
    )
    names = [*list_required_columns(mapping), *(source.column for source in sources)]
    return tuple(dict.fromkeys(names))


def list_required_columns(mapping: Mapping) -> tuple[str, ...]:
    """Return the key and the columns of conditions and of a retry: none of them is optional."""
    names = [mapping.id]
    for condition in (mapping.dead, mapping.delivered, mapping.waiting, mapping.working):
        for test in list_tests(condition):
            names += [test.column, *filter(None, [test.other_column])]
    names += (assignment.column for assignment in mapping.retry or ())
    return tuple(dict.fromkeys(names))


def list_column_sources(source: ValueSource | None) -> tuple[ColumnSource, ...]:
    """Return the columns that a value is read from."""
    if isinstance(source, ColumnSource):
        return (source,)
    return source.parts if isinstance(source, JoinedText) else ()


def list_tests(condition: RowCondition | None) -> Iterator[ColumnTest]:
    """Yield every test of a condition."""
    for alternative in condition.alternatives if condition else ():
        yield from alternative


def split_table_name(text: str) -> tuple[str, str]:
    """Return schema and table of `schema.table` or `table`; the default schema is public.

    A part that contains a dot is quoted as in SQL: `public."outbox.event"`.

    Raises:
        MappingError: the text is not a table name.
    """
    parts = [_unquote(part) for part in _TABLE_PART.findall(text)] if _TABLE.match(text) else []
    if not parts or not all(is_identifier(part) for part in parts):
        raise MappingError(
            f"{text!r} is not a table name.", "Write schema.table, such as public.outbox_event."
        )
    return ("public", parts[0]) if len(parts) == 1 else (parts[0], parts[1])


_PART = r'"(?:[^"\x00]|"")+"|[^".\x00]+'
_TABLE_PART = re.compile(_PART)
_TABLE = re.compile(rf"(?:{_PART})(?:\.(?:{_PART}))?\Z")


def _unquote(part: str) -> str:
    return part[1:-1].replace('""', '"') if part.startswith('"') else part


def is_identifier(name: str) -> bool:
    """Return whether PostgreSQL takes the name as it is, without truncating it."""
    return 0 < len(name.encode("utf-8", "replace")) <= MAX_IDENTIFIER_BYTES and is_storable(name)


def is_time_zone(name: str) -> bool:
    """Return whether there is a time zone of this name."""
    try:
        ZoneInfo(name)
    except (OSError, ValueError, KeyError):  # ZoneInfoNotFoundError is a KeyError
        return False
    return True
