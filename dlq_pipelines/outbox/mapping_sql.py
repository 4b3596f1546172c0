"""Renders a mapping as SQL for the columns that the application's table has.

The texts name operators, functions and types with `pg_catalog`, so they mean the same with any
search path: they stand in views, in the `when` of triggers and in security definer functions. No
value that a column can hold makes one of them raise. A percent sign is not doubled.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import MappingProxyType

from psycopg import sql

from dlq_pipelines.outbox.mapping_offers import Offer, list_offers
from dlq_pipelines.outbox.mapping_types import (
    CANONICAL_COLUMNS,
    AssignmentKind,
    ColumnSource,
    ColumnTest,
    ComparisonKind,
    ConstantText,
    JoinedText,
    MappedColumn,
    Mapping,
    MappingError,
    RetryAssignment,
    RowCondition,
    Scalar,
    ValueSource,
    list_column_sources,
    list_mapped_columns,
    list_required_columns,
    list_tests,
)
from dlq_pipelines.validate import INTEGER_MAX

CONDITIONS = ("dead", "delivered", "waiting", "working")

_INTEGERS = frozenset({"smallint", "integer", "bigint"})
_NUMBERS = _INTEGERS | {"numeric", "real", "double precision"}
_TEXTS = frozenset({"text", "character varying", "character", "name", '"char"'})
_TIMES = frozenset({"timestamp with time zone", "timestamp without time zone"})
_JSON = frozenset({"json", "jsonb"})
_PAYLOAD_CASTS = MappingProxyType(
    {
        "jsonb": "pg_catalog.jsonb",
        "json": "pg_catalog.json",
        "text": "pg_catalog.text",
        "character varying": "pg_catalog.varchar",
        "bytea": "pg_catalog.bytea",
    }
)
_ALIAS = re.compile(r"[a-z_][a-z0-9_]*\Z")
# Nearer to the ends than any time zone is wide: `at time zone` raises out of this range.
_FIRST_TIME = "4712-01-01 00:00:00 BC"
_LAST_TIME = "294276-01-01 00:00:00"


@dataclass(frozen=True)
class MappingSql:
    """The SQL texts of a mapping for one table.

    Attributes:
        event_id_type: the type of event ids in the ledger: bigint, uuid or text.
        payload_cast: the type that the text of a payload is cast to; None: no payload.
        offers: what is possible with this mapping, and why the rest is not.
        patterns: the regular expressions of the mapping, for a check that PostgreSQL reads them.
    """

    mapping: Mapping
    columns: MappingProxyType[str, MappedColumn] = field(repr=False)
    event_id_type: str
    payload_cast: str | None
    offers: tuple[Offer, ...]
    patterns: tuple[str, ...]

    def expression(self, name: str, alias: str = "o") -> str:
        """Return the expression of a canonical column, for rows of `alias`.

        Absent columns are a null of their type. `payload` is for views, not for triggers.
        """
        return f"({_EXPRESSIONS[name](self, _check_alias(alias))})"

    def condition(self, name: str, alias: str = "o") -> str:
        """Return a condition, `dead` for instance, for rows of `alias`. It can be null."""
        _check_alias(alias)
        if name == "waiting" and self.mapping.waiting is None:
            others = ("dead", "delivered", "working")
            return f"({' and '.join(f'{self.condition(o, alias)} is not true' for o in others)})"
        given: RowCondition | None = getattr(self.mapping, name)
        return _render_condition(given or RowCondition(), alias)

    def release_assignments(self, due_expression: str) -> str:
        """Return what a retry sets, for `update ... set`.

        Args:
            due_expression: the due time, a `timestamptz`.

        Raises:
            MappingError: the mapping has no retry.
        """
        if self.mapping.retry is None:
            raise MappingError(
                f"The mapping {self.mapping.name} has no [retry].", "Add [retry] to the mapping."
            )
        return ", ".join(
            f"{quote_identifier(assignment.column)} = "
            + _render_assignment(self, assignment, due_expression)
            for assignment in self.mapping.retry
        )

    def release_before(self) -> str:
        """Return what a retry overwrites in a row `o`: an array of texts, null without retries."""
        texts = (
            f"{_refer('o', assignment.column)}::pg_catalog.text"
            for assignment in self.mapping.retry or ()
        )
        return f"array[{', '.join(texts)}]" if self.mapping.retry else "null::pg_catalog.text[]"

    def release_unchanged(self, due_expression: str) -> str:
        """Return whether a row `o` is as a retry left it, and no worker has taken it.

        Args:
            due_expression: the due time of the retry, a `timestamptz`.
        """
        tests = [
            _render_written(self, assignment, due_expression)
            for assignment in self.mapping.retry or ()
        ]
        # A worker may write other columns than a retry does.
        others = [
            f"{self.condition(name)} is not true" for name in ("dead", "delivered", "working")
        ]
        return f"({' and '.join([*tests, *others])})" if self.mapping.retry else "(false)"

    def find_offer(self, operation: str) -> Offer:
        """Return whether an operation is possible, and why not."""
        return next(offer for offer in self.offers if offer.operation == operation)


def render_mapping(mapping: Mapping, columns: Iterable[MappedColumn]) -> MappingSql:
    """Return the SQL texts of a mapping for the columns of its table.

    Raises:
        MappingError: a column is missing, or has a type that the mapping cannot use; the message
            names the column, its type, and what would work.
    """
    facts = {column.name: column for column in columns}
    _check_columns(mapping, facts)
    _check_conditions(mapping, facts)
    rendered = MappingSql(
        mapping=mapping,
        columns=MappingProxyType(facts),
        event_id_type=_find_event_id_type(mapping, facts),
        payload_cast=_find_payload_cast(mapping, facts),
        offers=list_offers(mapping, facts),
        patterns=tuple(_list_patterns(mapping)),
    )
    for name in CANONICAL_COLUMNS:
        rendered.expression(name)
    for assignment in mapping.retry or ():
        _check_assignment(mapping, assignment, facts[assignment.column])
    return rendered


def quote_identifier(name: str) -> str:
    """Return a quoted identifier of SQL."""
    return sql.Identifier(name).as_string(None)


def quote_literal(text: str) -> str:
    """Return a literal of SQL without a type."""
    return sql.Literal(text).as_string(None).strip()


def _check_alias(alias: str) -> str:
    if not _ALIAS.match(alias):
        raise ValueError(f"not an alias: {alias!r}")
    return alias


def _refuse(mapping: Mapping, key: str, column: MappedColumn, remedy: str) -> MappingError:
    return MappingError(
        f"{mapping.name}: {key}: column {column.name!r} of {mapping.schema}.{mapping.table} has "
        f"the type {column.type}, which cannot be served.",
        remedy,
    )


# Which columns there are.


def _check_columns(mapping: Mapping, facts: dict[str, MappedColumn]) -> None:
    optional = {
        source.column
        for key in CANONICAL_COLUMNS[1:]
        for source in list_column_sources(getattr(mapping, key))
        if source.is_optional
    }
    optional -= set(list_required_columns(mapping))
    for name in list_mapped_columns(mapping):
        if name not in facts and name not in optional:
            raise MappingError(
                f"{mapping.name}: {mapping.schema}.{mapping.table} has no column {name!r}.",
                f"Columns: {', '.join(facts) or 'none'}.",
            )


def _find_event_id_type(mapping: Mapping, facts: dict[str, MappedColumn]) -> str:
    column = facts[mapping.id]
    if column.base_type in _INTEGERS:
        return "bigint"
    if column.base_type == "uuid":
        return "uuid"
    if column.base_type in {"text", "character varying"}:
        return "text"
    raise _refuse(
        mapping,
        "columns.id",
        column,
        "Map a key of type smallint, integer, bigint, uuid, text or character varying.",
    )


def _find_payload_cast(mapping: Mapping, facts: dict[str, MappedColumn]) -> str | None:
    if mapping.payload is None or mapping.payload.column not in facts:
        return None
    column = facts[mapping.payload.column]
    if column.base_type not in _PAYLOAD_CASTS:
        raise _refuse(
            mapping,
            "columns.payload",
            column,
            "Map a column of type jsonb, json, text, character varying or bytea, or remove payload "
            "from the mapping: payloads are then not shown and not exported.",
        )
    return _PAYLOAD_CASTS[column.base_type]


def _list_patterns(mapping: Mapping) -> Iterable[str]:
    for key in CANONICAL_COLUMNS[1:]:
        for source in list_column_sources(getattr(mapping, key)):
            if source.pattern is not None:
                yield source.pattern


# Canonical columns.


def _render_id(rendered: MappingSql, alias: str) -> str:
    """The key as it is, so that an index of the table finds it: no cast but varchar to text."""
    reference = _refer(alias, rendered.mapping.id)
    return f"{reference}::pg_catalog.text" if rendered.event_id_type == "text" else reference


def _render_text(key: str) -> Callable[[MappingSql, str], str]:
    def render(rendered: MappingSql, alias: str) -> str:
        source: ValueSource | None = getattr(rendered.mapping, key)
        if source is None and key == "aggregate_type" and rendered.mapping.aggregate_id:
            source = ConstantText(rendered.mapping.table)
        return _render_source(rendered, key, source, alias)

    return render


def _render_source(rendered: MappingSql, key: str, source: ValueSource | None, alias: str) -> str:
    if isinstance(source, ConstantText):
        return f"{quote_literal(source.text)}::pg_catalog.text"
    if isinstance(source, JoinedText):
        parts = ", ".join(_render_column(rendered, key, part, alias) for part in source.parts)
        joined = f"pg_catalog.concat_ws({quote_literal(source.separator)}, {parts})"
        return f"case when {joined} operator(pg_catalog.<>) '' then {joined} end"
    return _render_column(rendered, key, source, alias)


def _render_column(rendered: MappingSql, key: str, source: ColumnSource | None, alias: str) -> str:
    column = _find_column(rendered, source)
    if source is None or column is None:
        return "null::pg_catalog.text"
    text, type_ = _refer(alias, column.name), column.base_type
    if source.last_element:
        text, type_ = _render_last_element(rendered.mapping, key, column, text)
    text = _render_plain_text(rendered.mapping, key, source, column, (text, type_))
    if source.pattern is not None:
        text = f"pg_catalog.substring({text}, {quote_literal(source.pattern)})"
    return _render_decoded(text) if source.decodes_json else text


# The inside of a JSON string that PostgreSQL can decode, in any encoding and in UTF-8 alone.
_PLAIN = r'[^"\\[:cntrl:]]|\\["\\/bfnrt]'
_ASCII_STRING = rf"^(?:{_PLAIN}|\\u00(?!00)[0-7][0-9a-fA-F])*$"
_UTF8_STRING = rf"^(?:{_PLAIN}|\\u(?!0000|[dD][89a-fA-F])[0-9a-fA-F]{{4}})*$"


def _render_decoded(text: str) -> str:
    """Decode the escapes of a JSON string; what cannot be decoded stays as it is."""
    ascii_only, utf8 = quote_literal(_ASCII_STRING), quote_literal(_UTF8_STRING)
    quoted = f"""'"' operator(pg_catalog.||) {text} operator(pg_catalog.||) '"'"""
    decoded = f"({quoted})::pg_catalog.jsonb operator(pg_catalog.#>>) '{{}}'"
    return (
        f"case when pg_catalog.octet_length({text}) operator(pg_catalog.>) {_MAX_DECODED} "
        f"then {text} "
        f"when {text} operator(pg_catalog.~) {ascii_only} then {decoded} "
        f"when pg_catalog.getdatabaseencoding() operator(pg_catalog.=) 'UTF8' "
        f"and {text} operator(pg_catalog.~) {utf8} then {decoded} "
        f"else {text} end"
    )


# Far below what a string of jsonb can hold.
_MAX_DECODED = 10_000_000


def _render_last_element(
    mapping: Mapping, key: str, column: MappedColumn, text: str
) -> tuple[str, str]:
    if column.is_array:
        element = f"({text})[pg_catalog.array_upper({text}, 1)]"
        return element, column.base_type.removesuffix("[]")
    if column.base_type == "jsonb":
        return f"({text} operator(pg_catalog.->) (-1))", "jsonb"
    raise _refuse(
        mapping,
        f"columns.{key}",
        column,
        'element = "last" reads an array or a jsonb array. For a text, use a pattern.',
    )


def _render_plain_text(
    mapping: Mapping, key: str, source: ColumnSource, column: MappedColumn, value: tuple[str, str]
) -> str:
    text, type_ = value
    if source.field and type_ != "jsonb":
        raise _refuse(
            mapping,
            f"columns.{key}.field",
            column,
            "A field is read from jsonb: json and text can hold what is not readable as JSON. "
            "Use a pattern instead, or a generated jsonb column.",
        )
    if type_ == "jsonb":
        path = quote_literal(write_array(source.field))
        return f"({text} operator(pg_catalog.#>>) {path})"
    if type_ == "bytea" or type_.endswith("[]"):
        raise _refuse(
            mapping,
            f"columns.{key}",
            column,
            'Map a column of text, a number, uuid or enum; of an array, element = "last".',
        )
    return f"{text}::pg_catalog.text"


def _render_payload(rendered: MappingSql, alias: str) -> str:
    column = _find_column(rendered, rendered.mapping.payload)
    if column is None:
        return "null::pg_catalog.text"
    reference = _refer(alias, column.name)
    if column.base_type == "bytea":  # not ::text, which depends on bytea_output
        prefix = quote_literal("\\x")
        return f"{prefix} operator(pg_catalog.||) pg_catalog.encode({reference}, 'hex')"
    return f"{reference}::pg_catalog.text"


def _render_attempts(rendered: MappingSql, alias: str) -> str:
    column = _find_column(rendered, rendered.mapping.attempts)
    if column is None:
        return "null::pg_catalog.int4"
    if column.base_type not in _NUMBERS:
        raise _refuse(rendered.mapping, "columns.attempts", column, "Map a column of numbers.")
    reference = _refer(alias, column.name)
    # The nearest real to the largest integer is larger.
    number = f"{reference}::pg_catalog.float8" if column.base_type == "real" else reference
    clamped = f"greatest(least({number}, {INTEGER_MAX}), 0)"
    return f"case when {reference} is not null then {clamped} end::pg_catalog.int4"


def _render_time(key: str) -> Callable[[MappingSql, str], str]:
    def render(rendered: MappingSql, alias: str) -> str:
        column = _find_column(rendered, getattr(rendered.mapping, key))
        if column is None:
            return "null::pg_catalog.timestamptz"
        if column.base_type not in _TIMES:
            raise _refuse(
                rendered.mapping,
                f"columns.{key}",
                column,
                "Map a column of timestamp with or without time zone.",
            )
        reference = _refer(alias, column.name)
        if column.base_type == "timestamp with time zone":
            return reference
        zone = _require_time_zone(rendered.mapping, f"columns.{key}", column)
        return _render_zone(reference, zone)

    return render


def _require_time_zone(mapping: Mapping, key: str, column: MappedColumn) -> str:
    """Return the zone of timestamps; the database cannot know the zone of the application."""
    if mapping.time_zone is None:
        raise _refuse(
            mapping,
            key,
            column,
            "Write a mapping with the zone in which the application writes such timestamps: "
            '`dlq adopt TABLE --write FILE`, and in the file time_zone = "Europe/Berlin".',
        )
    return mapping.time_zone


def _render_zone(reference: str, zone: str) -> str:
    """`at time zone`, but a time that no `timestamptz` can hold is infinite."""
    return (
        f"case when {reference} operator(pg_catalog.>=) '{_LAST_TIME}' "
        f"then 'infinity'::pg_catalog.timestamptz "
        f"when {reference} operator(pg_catalog.<) '{_FIRST_TIME}' "
        f"then '-infinity'::pg_catalog.timestamptz "
        f"else pg_catalog.timezone({quote_literal(zone)}, {reference}) end"
    )


_EXPRESSIONS: dict[str, Callable[[MappingSql, str], str]] = {
    "id": _render_id,
    "aggregate_type": _render_text("aggregate_type"),
    "aggregate_id": _render_text("aggregate_id"),
    "event_type": _render_text("event_type"),
    "payload": _render_payload,
    "attempts": _render_attempts,
    "due_at": _render_time("due_at"),
    "created_at": _render_time("created_at"),
    "error": _render_text("error"),
    "died_at": _render_time("died_at"),
}


def _find_column(rendered: MappingSql, source: ColumnSource | None) -> MappedColumn | None:
    return None if source is None else rendered.columns.get(source.column)


def _refer(alias: str, column: str) -> str:
    return f"{alias}.{quote_identifier(column)}"


def write_array(values: Iterable[str]) -> str:
    """Return the text of a PostgreSQL array."""
    quoted = (value.replace("\\", "\\\\").replace('"', '\\"') for value in values)
    return "{" + ",".join(f'"{value}"' for value in quoted) + "}"


# Conditions.


def _render_condition(condition: RowCondition, alias: str) -> str:
    if condition.is_always:
        return "(true)"
    alternatives = [
        " and ".join(_render_test(test, alias) for test in alternative)
        for alternative in condition.alternatives
    ]
    if len(alternatives) == 1:
        return f"({alternatives[0]})"
    return f"({' or '.join(f'({text})' for text in alternatives)})" if alternatives else "(false)"


def _render_test(test: ColumnTest, alias: str) -> str:
    reference = _refer(alias, test.column)
    if test.kind is ComparisonKind.IS_NULL:
        return f"({reference} is {'null' if test.values[0] else 'not null'})"
    if test.kind is ComparisonKind.EQUALS and len(test.values) > 1:
        values = quote_literal(write_array(map(_write_scalar, test.values)))
        return f"({reference} operator(pg_catalog.=) any ({values}))"
    operand = (
        _refer(alias, test.other_column)
        if test.other_column is not None
        else quote_literal(_write_scalar(test.values[0]))
    )
    return f"({reference} operator(pg_catalog.{_OPERATORS[test.kind]}) {operand})"


_OPERATORS = {
    ComparisonKind.EQUALS: "=",
    ComparisonKind.AT_LEAST: ">=",
    ComparisonKind.LESS_THAN: "<",
    ComparisonKind.HAS_KEY: "?",
}


def _write_scalar(value: Scalar) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _check_conditions(mapping: Mapping, facts: dict[str, MappedColumn]) -> None:
    for name in CONDITIONS:
        for test in list_tests(getattr(mapping, name)):
            _check_test(mapping, name, test, facts)


def _check_test(
    mapping: Mapping, name: str, test: ColumnTest, facts: dict[str, MappedColumn]
) -> None:
    key, column = f"{name}.{test.column}", facts[test.column]
    if test.kind is ComparisonKind.HAS_KEY and column.base_type != "jsonb":
        raise _refuse(mapping, key, column, "has_key needs a column of type jsonb.")
    if test.kind is ComparisonKind.EQUALS:
        for value in test.values:
            _check_scalar(mapping, key, column, value)
    if test.kind in {ComparisonKind.AT_LEAST, ComparisonKind.LESS_THAN}:
        other = facts[test.other_column] if test.other_column is not None else None
        _check_comparison(mapping, key, column, other)


def _check_comparison(
    mapping: Mapping, key: str, column: MappedColumn, other: MappedColumn | None
) -> None:
    numbers = column.base_type in _NUMBERS and (other is None or other.base_type in _NUMBERS)
    times = other is not None and column.base_type == other.base_type in _TIMES
    if not numbers and not times:
        raise _refuse(
            mapping, key, column, "Compare numbers with numbers, or times of the same type."
        )


def _check_scalar(mapping: Mapping, key: str, column: MappedColumn, value: Scalar) -> None:
    """Refuse a constant that is not of the column's kind: the column would never have it."""
    if column.is_array or column.base_type in _JSON | _TIMES | {"bytea", "uuid", "date"}:
        raise _refuse(mapping, key, column, "Compare it with {null = true} or {null = false}.")
    expected = _expect_scalar(column)
    if expected is not None and type(value) is not expected:
        raise _refuse(mapping, key, column, f"Write {_SCALAR_WORDS[expected]}, not {value!r}.")
    if column.labels and value not in column.labels:
        raise MappingError(
            f"{mapping.name}: {key}: {value!r} is not a label of the enum {column.type}.",
            f"Labels: {', '.join(column.labels)}.",
        )


_SCALAR_WORDS: dict[type, str] = {
    int: "a whole number",
    bool: "true or false",
    str: "a string in quotes",
}


def _expect_scalar(column: MappedColumn) -> type | None:
    if column.base_type in _NUMBERS:
        return int
    if column.base_type == "boolean":
        return bool
    return str if column.is_enum or column.base_type in _TEXTS else None


# Retries.


def _render_assignment(rendered: MappingSql, assignment: RetryAssignment, due: str) -> str:
    if assignment.kind is AssignmentKind.NULL:
        return "null"
    if assignment.kind is AssignmentKind.CONSTANT:
        return quote_literal(_write_scalar(assignment.value))
    if assignment.plus_days:
        days = f"pg_catalog.make_interval(days => {assignment.plus_days})"
        due = f"({due}) operator(pg_catalog.+) {days}"
    column = rendered.columns[assignment.column]
    if column.base_type == "timestamp with time zone":
        return f"({due})"
    zone = _require_time_zone(rendered.mapping, f"retry.{assignment.column}", column)
    return f"pg_catalog.timezone({quote_literal(zone)}, ({due}))"


def _render_written(rendered: MappingSql, assignment: RetryAssignment, due: str) -> str:
    """Test that a column has what a retry assigns, as its type stores it."""
    reference = _refer("o", assignment.column)
    if assignment.kind is AssignmentKind.NULL:
        return f"{reference} is null"
    value = _render_assignment(rendered, assignment, due)
    if assignment.kind is AssignmentKind.DUE:
        # With the precision of the column: `timestamp(0)` rounds to seconds.
        value = f"{value}::{rendered.columns[assignment.column].type}"
    return f"{reference} is not distinct from {value}"


def _check_assignment(mapping: Mapping, assignment: RetryAssignment, column: MappedColumn) -> None:
    key = f"retry.{assignment.column}"
    if column.is_generated:
        raise MappingError(
            f"{mapping.name}: {key}: column {column.name!r} is generated.", f"Remove {key}."
        )
    if assignment.kind is AssignmentKind.NULL and not column.nullable:
        raise MappingError(
            f"{mapping.name}: {key}: column {column.name!r} does not allow null.",
            "Set it to a constant.",
        )
    if assignment.kind is AssignmentKind.DUE and column.base_type not in _TIMES:
        raise _refuse(mapping, key, column, "A due time needs timestamp with or without time zone.")
    if assignment.kind is AssignmentKind.DUE and column.base_type != "timestamp with time zone":
        _require_time_zone(mapping, key, column)
    if assignment.kind is AssignmentKind.CONSTANT and column.base_type not in _TIMES:
        _check_scalar(mapping, key, column, assignment.value)
