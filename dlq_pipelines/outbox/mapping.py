"""Loads mappings: which table is the outbox, and what its columns and states mean.

A mapping is a TOML file or a preset of `outbox/presets`. Every key is checked, and an unknown key
is refused by its name. `mapping_sql` renders a mapping for the columns that a table has.
"""

import difflib
import tomllib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from dlq_pipelines.outbox.mapping_types import (
    CANONICAL_COLUMNS,
    MAX_IDENTIFIER_BYTES,
    AssignmentKind,
    ColumnSource,
    ColumnTest,
    ComparisonKind,
    ConstantText,
    JoinedText,
    Mapping,
    MappingError,
    RetryAssignment,
    RowCondition,
    Scalar,
    ValueSource,
    is_identifier,
    is_time_zone,
    split_table_name,
)
from dlq_pipelines.validate import BIGINT_MAX, is_storable

__all__ = [
    "DEFAULT_PRESET",
    "PRESET_FOLDER",
    "Mapping",
    "MappingError",
    "list_presets",
    "load_mapping",
    "parse_mapping",
    "read_preset",
]

PRESET_FOLDER = Path(__file__).parent / "presets"
DEFAULT_PRESET = "dispatchbox"

_MAX_FILE_BYTES = 1_000_000
_MAX_VALUES = 200
_TEXT_COLUMNS = frozenset({"aggregate_type", "aggregate_id", "event_type", "error"})
_CONSTANT_COLUMNS = frozenset({"aggregate_type", "event_type"})
_TOP_KEYS = ("table", "time_zone", "columns", "dead", "delivered", "waiting", "working", "retry")


def load_mapping(name_or_path: str | Path) -> Mapping:
    """Load a preset by its name, or a mapping file by its path.

    Raises:
        MappingError: there is no such preset or file, or it is not a valid mapping; the message
            names the file and the key.
    """
    return parse_mapping(read_mapping_text(name_or_path), str(name_or_path))


def read_mapping_text(name_or_path: str | Path) -> str:
    """Return the TOML text of a preset or a mapping file.

    Raises:
        MappingError: there is no such preset or file.
    """
    name = str(name_or_path)
    if name in list_presets():
        return read_preset(name)
    path = Path(name_or_path)
    if path.suffix != ".toml" and not path.exists():
        raise MappingError(
            f"{name!r} is neither a preset nor a file.",
            f"{_suggest(name, list_presets())}Presets: {', '.join(list_presets())}.",
        )
    return _read_text(path)


@lru_cache(maxsize=1)
def list_presets() -> tuple[str, ...]:
    """Return the names of all presets; the default is the first."""
    names = sorted(file.stem for file in PRESET_FOLDER.glob("*.toml"))
    return (DEFAULT_PRESET, *(name for name in names if name != DEFAULT_PRESET))


def read_preset(name: str) -> str:
    """Return the TOML text of a preset."""
    return (PRESET_FOLDER / f"{name}.toml").read_text(encoding="utf-8")


def parse_mapping(text: str, name: str) -> Mapping:
    """Return the mapping that a TOML text describes; `name` is the file that errors name.

    Raises:
        MappingError: the text is not a valid mapping.
    """
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise MappingError(
            f"{name} is not valid TOML: {error}.", "Correct the line that the message names."
        ) from None
    return _read_mapping(_Node(name, (), document))


def _suggest(name: str, known: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"Did you mean {close[0]!r}? " if close else ""


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_FILE_BYTES + 1)
        if len(content) > _MAX_FILE_BYTES:
            raise MappingError(
                f"{path} is longer than {_MAX_FILE_BYTES} bytes.", "Pass a mapping file."
            )
        return content.decode("utf-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise MappingError(
            f"The mapping {path} cannot be read: {reason}.",
            "Pass a readable file, or the name of a preset.",
        ) from None


@dataclass(frozen=True)
class _Node:
    """A value of the document, with the path of its key for errors."""

    file: str
    path: tuple[str, ...]
    value: Any

    def child(self, key: str) -> "_Node":
        return _Node(self.file, (*self.path, key), self.value[key])

    def refuse(self, problem: str, remedy: str) -> MappingError:
        key = ".".join(self.path) or "the file"
        return MappingError(f"{self.file}: {key}: {problem}.", remedy)

    def check_keys(self, allowed: tuple[str, ...]) -> dict[str, Any]:
        if not isinstance(self.value, dict):
            raise self.refuse(
                f"{_shorten(self.value)} is not a table", f"Write a table with {_join(allowed)}."
            )
        for key in self.value:
            if key not in allowed:
                raise self.refuse(
                    f"unknown key {key!r}", f"{_suggest(key, allowed)}Keys: {', '.join(allowed)}."
                )
        return self.value


def _shorten(value: object) -> str:
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # nested too deep, or a number of too many digits
        return "the value"
    return text if len(text) <= 80 else f"{text[:77]}..."  # noqa: PLR2004 - one line of a message


def _join(words: tuple[str, ...]) -> str:
    return " or ".join(words)


def _read_mapping(root: _Node) -> Mapping:
    values = root.check_keys(_TOP_KEYS)
    for key in ("table", "columns", "dead"):
        if key not in values:
            raise root.refuse(f"the key {key!r} is missing", _MISSING[key])
    schema, table = _read_table(root.child("table"))
    optional: dict[str, Any] = _read_delivered(root)
    for key in ("waiting", "working"):
        if key in values:
            optional[key] = _read_condition(root.child(key))
    if "time_zone" in values:
        optional["time_zone"] = _read_time_zone(root.child("time_zone"))
    if "retry" in values:
        optional["retry"] = _read_retry(root.child("retry"))
    mapping = Mapping(
        name=root.file,
        schema=schema,
        table=table,
        dead=_read_condition(root.child("dead")),
        **_read_columns(root.child("columns")),
        **optional,
    )
    if mapping.delivered is not None and _overlap(mapping.dead, mapping.delivered):
        raise root.child("delivered").refuse(
            "a row that is dead would be delivered too", "Let a row meet one of the two conditions."
        )
    if mapping.retry is not None:
        _check_retry(root.child("retry"), mapping)
    return mapping


def _overlap(one: RowCondition, other: RowCondition) -> bool:
    """Whether a row surely can meet both: they share an alternative, or a value of a column."""
    return any(
        mine == theirs
        or (
            len(mine) == len(theirs) == 1
            and mine[0].kind is theirs[0].kind is ComparisonKind.EQUALS
            and mine[0].column == theirs[0].column
            and not set(mine[0].values).isdisjoint(theirs[0].values)
        )
        for mine in one.alternatives
        for theirs in other.alternatives
    )


_MISSING = {
    "table": 'Add table = "public.outbox_event".',
    "columns": 'Add [columns] with at least id = "id".',
    "dead": 'Add [dead], such as status = "dead", or dead = "always".',
}


def _read_table(node: _Node) -> tuple[str, str]:
    try:
        return split_table_name(_read_string(node))
    except MappingError as error:
        raise node.refuse(error.message.rstrip("."), error.hint) from None


def _read_string(node: _Node) -> str:
    if not isinstance(node.value, str):
        raise node.refuse(f"{_shorten(node.value)} is not a string", "Write it in quotes.")
    if not node.value or not is_storable(node.value):
        raise node.refuse("the string is empty or contains NUL", "Write a text.")
    return node.value


def _read_identifier(node: _Node) -> str:
    name = _read_string(node)
    if not is_identifier(name):
        raise node.refuse(
            f"{_shorten(name)} is longer than the {MAX_IDENTIFIER_BYTES} bytes of an identifier",
            "Write the name of a column.",
        )
    return name


def _read_time_zone(node: _Node) -> str:
    name = _read_string(node)
    if is_time_zone(name):
        return name
    raise node.refuse(
        f"{_shorten(name)} is not a time zone", "Write a name such as UTC or Europe/Berlin."
    )


def _read_columns(node: _Node) -> dict[str, Any]:
    values = node.check_keys(CANONICAL_COLUMNS)
    if "id" not in values:
        raise node.refuse("the key 'id' is missing", 'Add id = "id", the key column.')
    columns: dict[str, Any] = {"id": _read_identifier(node.child("id"))}
    for key in values:
        if key != "id":
            columns[key] = _read_source(node.child(key), key)
    return columns


def _read_source(node: _Node, key: str) -> ValueSource:
    if isinstance(node.value, str):
        return ColumnSource(_read_identifier(node))
    allowed: tuple[str, ...] = ("column", "optional")
    if key in _TEXT_COLUMNS:
        allowed += ("element", "field", "pattern", "decode", "join", "separator")
    if key in _CONSTANT_COLUMNS:
        allowed += ("text",)
    values = node.check_keys(allowed)
    if "text" in values:
        _check_alone(node, ("text",))
        return ConstantText(_read_string(node.child("text")))
    if "join" in values:
        _check_alone(node, ("join", "separator"))
        return _read_join(node)
    return _read_column_source(node)


def _check_alone(node: _Node, allowed: tuple[str, ...]) -> None:
    for key in node.value:
        if key not in allowed:
            raise node.refuse(f"{key!r} cannot be combined with {allowed[0]!r}", f"Remove {key!r}.")


def _read_join(node: _Node) -> JoinedText:
    parts = node.child("join")
    if not isinstance(parts.value, list) or not 0 < len(parts.value) <= _MAX_VALUES:
        raise parts.refuse("not a list of columns", 'Write join = ["type", "message"].')
    nodes = [_Node(node.file, (*parts.path, str(at)), v) for at, v in enumerate(parts.value)]
    sources = []
    for part in nodes:
        if isinstance(part.value, str):
            sources.append(ColumnSource(_read_identifier(part)))
        else:
            part.check_keys(("column", "element", "field", "pattern", "decode", "optional"))
            sources.append(_read_column_source(part))
    if "separator" in node.value:
        return JoinedText(tuple(sources), _read_string(node.child("separator")))
    return JoinedText(tuple(sources))


def _read_column_source(node: _Node) -> ColumnSource:
    values = node.value
    if "column" not in values:
        raise node.refuse("the key 'column' is missing", 'Write {column = "name"}.')
    if "separator" in values:
        raise node.refuse("'separator' is a key of 'join'", "Remove 'separator'.")
    if values.get("element", "last") != "last":
        raise node.child("element").refuse(
            f"{_shorten(values['element'])} is not supported", 'Write element = "last".'
        )
    if "decode" in values and (values["decode"] != "json" or "pattern" not in values):
        raise node.child("decode").refuse(
            f"{_shorten(values['decode'])} is not supported",
            'Write decode = "json" for what a pattern finds inside of a JSON string.',
        )
    return ColumnSource(
        column=_read_identifier(node.child("column")),
        last_element="element" in values,
        field=_read_field(node.child("field")) if "field" in values else (),
        pattern=_read_string(node.child("pattern")) if "pattern" in values else None,
        decodes_json="decode" in values,
        is_optional="optional" in values and _read_bool(node.child("optional")),
    )


def _read_field(node: _Node) -> tuple[str, ...]:
    if not isinstance(node.value, list):
        return (_read_string(node),)
    if not 0 < len(node.value) <= _MAX_VALUES:
        raise node.refuse("the path is empty or too long", 'Write field = ["headers", "error"].')
    return tuple(_read_string(_Node(node.file, node.path, value)) for value in node.value)


def _read_bool(node: _Node) -> bool:
    if not isinstance(node.value, bool):
        raise node.refuse(f"{_shorten(node.value)} is not true or false", "Write true or false.")
    return node.value


def _read_delivered(root: _Node) -> dict[str, Any]:
    if "delivered" not in root.value:
        return {}
    node = root.child("delivered")
    parts = node.value if isinstance(node.value, list) else [node.value]
    rest = [part for part in parts if part != "deleted"]
    found: dict[str, Any] = {"deleted_is_delivered": len(rest) < len(parts)}
    if rest:
        given = rest if isinstance(node.value, list) else rest[0]
        found["delivered"] = _read_condition(_Node(node.file, node.path, given))
    elif found["deleted_is_delivered"]:
        found["delivered"] = RowCondition()
    else:
        raise node.refuse("the list is empty", "Write a condition, or remove the key.")
    return found


def _read_condition(node: _Node) -> RowCondition:
    if node.value == "always":
        return RowCondition(((),))
    if isinstance(node.value, list):
        if not 0 < len(node.value) <= _MAX_VALUES:
            raise node.refuse("the list is empty or too long", "Write a list of conditions.")
        return RowCondition(
            tuple(
                _read_alternative(_Node(node.file, (*node.path, str(at)), value))
                for at, value in enumerate(node.value)
            )
        )
    if isinstance(node.value, str):
        words = "'always' or 'deleted'" if node.path == ("delivered",) else "'always'"
        raise node.refuse(f"{_shorten(node.value)} is not {words}", "Write a condition.")
    return RowCondition((_read_alternative(node),))


def _read_alternative(node: _Node) -> tuple[ColumnTest, ...]:
    if not isinstance(node.value, dict) or not node.value:
        raise node.refuse(
            f"{_shorten(node.value)} is not a condition", 'Write columns, such as status = "dead".'
        )
    return tuple(_read_test(node.child(key), key) for key in node.value)


def _read_test(node: _Node, column: str) -> ColumnTest:
    _read_identifier(_Node(node.file, node.path, column))
    if isinstance(node.value, list):
        if not 0 < len(node.value) <= _MAX_VALUES:
            raise node.refuse("the list of values is empty or too long", "Write the values.")
        values = tuple(_read_scalar(_Node(node.file, node.path, v)) for v in node.value)
        return ColumnTest(column, ComparisonKind.EQUALS, values)
    if not isinstance(node.value, dict):
        return ColumnTest(column, ComparisonKind.EQUALS, (_read_scalar(node),))
    node.check_keys(("null", "at_least", "less_than", "has_key"))
    if len(node.value) != 1:
        raise node.refuse("exactly one comparison is expected", "Write {null = true}.")
    return _read_comparison(node, column)


def _read_comparison(node: _Node, column: str) -> ColumnTest:
    (key,) = node.value
    given = node.child(key)
    if key == "null":
        return ColumnTest(column, ComparisonKind.IS_NULL, (_read_bool(given),))
    if key == "has_key":
        return ColumnTest(column, ComparisonKind.HAS_KEY, (_read_string(given),))
    if isinstance(given.value, str):
        return ColumnTest(column, ComparisonKind(key), other_column=_read_identifier(given))
    value = _read_scalar(given)
    if isinstance(value, bool):
        raise given.refuse("true and false cannot be compared", "Write a number or a column.")
    return ColumnTest(column, ComparisonKind(key), (value,))


def _read_scalar(node: _Node) -> Scalar:
    value = node.value
    if isinstance(value, str) and not is_storable(value):
        raise node.refuse("the string contains NUL", "Write a text.")
    if isinstance(value, bool | str):
        return value
    if isinstance(value, int) and -BIGINT_MAX <= value <= BIGINT_MAX:
        return value
    raise node.refuse(
        f"{_shorten(value)} is not a string, a whole number, true or false", "Write such a value."
    )


def _read_retry(node: _Node) -> tuple[RetryAssignment, ...]:
    if not isinstance(node.value, dict) or not node.value:
        raise node.refuse(
            f"{_shorten(node.value)} sets nothing",
            'Write columns, such as status = "pending", or remove [retry]: no retries are offered.',
        )
    return tuple(_read_assignment(node.child(key), key) for key in node.value)


def _read_assignment(node: _Node, column: str) -> RetryAssignment:
    _read_identifier(_Node(node.file, node.path, column))
    if not isinstance(node.value, dict):
        return RetryAssignment(column, AssignmentKind.CONSTANT, _read_scalar(node))
    values = node.check_keys(("null", "due", "plus_days"))
    if values.get("null") is True and len(values) == 1:
        return RetryAssignment(column, AssignmentKind.NULL)
    if values.get("due") is True and "null" not in values:
        days = values.get("plus_days", 0)
        if isinstance(days, bool) or not isinstance(days, int) or not 0 <= days <= 36500:  # noqa: PLR2004 - a century
            raise node.refuse("plus_days is not a number of days", "Write 0 to 36500.")
        return RetryAssignment(column, AssignmentKind.DUE, plus_days=days)
    raise node.refuse(
        f"{_shorten(node.value)} is not supported",
        "Write a constant, {null = true} or {due = true}.",
    )


def _check_retry(node: _Node, mapping: Mapping) -> None:
    """Refuse a retry after which the row is dead as before, or which moves its key."""
    assignments = {assignment.column: assignment for assignment in mapping.retry or ()}
    if mapping.id in assignments:
        raise node.refuse(f"{mapping.id!r} is the key", f"Remove {mapping.id!r}.")
    for alternative in mapping.dead.alternatives:
        if not any(_contradicts(assignments, test) for test in alternative):
            columns = ", ".join(sorted({test.column for test in alternative})) or "always"
            raise node.refuse(
                f"the row would still be dead after a retry, by [dead] {columns}",
                "Set a column of [dead] to another value.",
            )


def _contradicts(assignments: dict[str, RetryAssignment], test: ColumnTest) -> bool:
    """Return whether a test cannot hold any more once the assignments are made."""
    assignment = assignments.get(test.column)
    if assignment is None:
        return test.other_column in assignments
    is_null = assignment.kind is AssignmentKind.NULL
    if test.kind is ComparisonKind.IS_NULL:
        return is_null is not test.values[0]
    if is_null or assignment.kind is AssignmentKind.DUE or test.kind is ComparisonKind.HAS_KEY:
        return is_null or test.kind is not ComparisonKind.HAS_KEY
    if test.kind is ComparisonKind.EQUALS:
        return assignment.value not in test.values
    return _contradicts_number(assignment.value, test)


def _contradicts_number(value: Scalar, test: ColumnTest) -> bool:
    """A comparison with another column is taken on trust: its value is not known here."""
    if test.other_column is not None:
        return True
    limit = test.values[0]
    if not isinstance(value, int) or not isinstance(limit, int):
        return value != limit
    return value < limit if test.kind is ComparisonKind.AT_LEAST else value >= limit
