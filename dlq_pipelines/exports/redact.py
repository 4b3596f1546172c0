"""Hides values of payloads and parts of error texts in exports and reports.

Rules for payloads are separated by `;` or line ends. Each has an action and a path:

    drop $.card.cvc                    removes the member
    mask $..email                      replaces the value with "***"
    hash $.items[*]['customer id']     replaces the value with its HMAC-SHA256: equal values stay
                                       equal, and cannot be guessed without the key

A path begins with `$`, the payload. `.name` or `['any name']` is a member, `[0]` an element, `.*`
or `[*]` each member and element. Two dots before a name find it at any depth. If several rules
match a value, the strictest applies: drop, then mask, then hash. A path without a match hides
nothing.

Every other character of the payload stays, including numbers of any length. A payload that is not
valid JSON is masked as a whole. Patterns for errors are RE2 regular expressions, which take time
linear in the text; each match becomes `[redacted]`.
"""

import hmac
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

import pyarrow as pa
import pyarrow.compute as pc

from dlq_pipelines.errors import DlqError

MASK = '"***"'
REDACTED = "[redacted]"

_RULE = re.compile(r"[ \t]*(?P<action>\w+)[ \t]+\$")
_SEGMENT = re.compile(
    r"""(?P<deep>\.(?=\.))?
    (?: \.(?P<name>[^\W\d][\w-]*) | \.(?P<all>\*) | \[\*(?P<each>\]) | \[(?P<index>\d{1,9})\]
    | \[ (?: '(?P<single>(?:[^'\\]|\\.)*)' | "(?P<double>(?:[^"\\]|\\.)*)" ) \] )""",
    re.VERBOSE,
)
_RULE_END = re.compile(r"[ \t]*(?:[;\r\n]\s*|\Z)")
_SPACE = re.compile(r"[ \t\r\n]*+")
_STRING = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_SCALAR = re.compile(
    _STRING.pattern + r"|-?\d++(?:\.\d++)?(?:[eE][+-]?\d++)?|true|false|null", re.DOTALL
)
_BRACKET = re.compile(_STRING.pattern + r'|[\[\]{}"]', re.DOTALL)


class RedactionAction(IntEnum):
    """An action on a value, the strictest last."""

    HASH = 1
    MASK = 2
    DROP = 3


@dataclass(frozen=True)
class PathStep:
    """A step to a member by name, an element by index, or each (None); at any depth if deep."""

    key: str | int | None
    deep: bool = False


@dataclass(frozen=True)
class RedactionRule:
    """An action on the values that a path matches."""

    action: RedactionAction
    path: tuple[PathStep, ...]
    text: str


# The rules that may still match below a place in the payload: (rule, number of steps matched).
_State = frozenset[tuple[int, int]]


@dataclass(frozen=True)
class Redaction:
    """Rules and patterns that hide values.

    Attributes:
        rules: for payloads.
        patterns: for errors, templates and details.
        key: for rules that hash.
    """

    rules: tuple[RedactionRule, ...] = ()
    patterns: tuple[str, ...] = ()
    key: bytes = field(default=b"", repr=False)

    def describe(self) -> dict[str, list[str]]:
        """Return the rules as they were written, for the manifest; never the key."""
        return {"payload": [rule.text for rule in self.rules], "errors": list(self.patterns)}

    def redact_batch(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Hide values in a batch of deaths."""
        if self.rules:
            payloads = [
                None if text is None else self.redact_payload(text)
                for text in batch.column("payload").to_pylist()
            ]
            batch = _replace_column(batch, "payload", pa.array(payloads, pa.string()))
        for name in ("error", "template", "detail") if self.patterns else ():
            batch = _replace_column(batch, name, self._redact_errors(batch.column(name)))
        return batch

    def redact_payload(self, text: str) -> str | None:
        """Hide values in a payload, as JSON text; return None if the rules drop all of it."""
        try:
            edits = list(_PayloadScanner(text, self.rules, self._replace_value).find_edits())
        except _UnreadableError:
            return MASK
        parts, copied = [], 0
        for begin, end, replacement in edits:
            parts += [text[copied:begin], replacement]
            copied = end
        return "".join([*parts, text[copied:]]) or None

    def hides(self, path: Sequence[str]) -> bool:
        """Return whether a rule matches a path, or a place around it.

        Args:
            path: names of members from the payload inwards; `[*]` stands for any element.
        """
        return any(_matches(rule.path, path) for rule in self.rules)

    def _replace_value(self, action: RedactionAction, value: str) -> str:
        """Return the replacement of a value. The hash of a string is that of its decoded text."""
        if action is RedactionAction.MASK:
            return MASK
        hashed = _decode_string(value) if value.startswith('"') else value
        return f'"{hmac.digest(self.key, hashed.encode(errors="surrogatepass"), "sha256").hex()}"'

    def redact_errors(self, texts: Sequence[str]) -> list[str]:
        """Hide what the patterns match in errors, templates or details."""
        redacted = self._redact_errors(pa.array(texts, pa.string()))
        return [str(text) for text in redacted.to_pylist()]

    def _redact_errors(self, column: pa.Array) -> pa.Array:
        for pattern in self.patterns:
            column = pc.replace_substring_regex(column, pattern, REDACTED)
        return column


def _matches(steps: Sequence[PathStep], path: Sequence[str]) -> bool:
    """Return whether the steps of a rule match a beginning of the path."""
    if not steps:
        return True
    if not path:
        return False
    step = steps[0]
    matches = (
        step.key is None or step.key == path[0] or (isinstance(step.key, int) and path[0] == "[*]")
    )
    return (matches and _matches(steps[1:], path[1:])) or (step.deep and _matches(steps, path[1:]))


def parse_redaction(payload: str, errors: str, key: bytes | None) -> Redaction:
    """Parse the rules of `DLQ_EXPORT_REDACT_PAYLOAD` and patterns of `DLQ_EXPORT_REDACT_ERRORS`.

    Raises:
        DlqError: a rule or a pattern is invalid, or a rule hashes and there is no key. The message
            names the variable.
    """
    try:
        rules = tuple(_parse_rules(payload))
    except ValueError as error:
        raise DlqError(
            f"DLQ_EXPORT_REDACT_PAYLOAD: {error}", "Write rules such as `mask $..email`."
        ) from None
    if key is None and any(rule.action is RedactionAction.HASH for rule in rules):
        raise DlqError(
            "DLQ_EXPORT_HASH_KEY is required because a rule uses `hash`.",
            "Set it to a secret of at least 16 characters, or use `mask`.",
        )
    patterns = tuple(line.strip() for line in errors.splitlines() if line.strip())
    for pattern in patterns:
        _require_valid_pattern(pattern)
    return Redaction(rules, patterns, key or b"")


def _parse_rules(text: str) -> Iterator[RedactionRule]:
    at = len(text) - len(text.lstrip())
    while at < len(text):
        begin = _RULE.match(text, at)
        if begin is None or begin["action"].upper() not in RedactionAction.__members__:
            raise ValueError(
                "a rule is drop, mask or hash and a path that begins with $, "
                f"not {text[at:][:60]!r}."
            )
        path, end = _parse_path(text, begin.end())
        closed = _RULE_END.match(text, end)
        if closed is None:
            raise ValueError(
                f"{text[at:end]!r} is followed by {text[end:][:20]!r}, not by a step of a path."
            )
        yield RedactionRule(
            RedactionAction[begin["action"].upper()], path, " ".join(text[at:end].split())
        )
        at = closed.end()


def _parse_path(text: str, at: int) -> tuple[tuple[PathStep, ...], int]:
    steps = []
    while found := _SEGMENT.match(text, at):
        if found["deep"] and text[found.start() + 1] != ".":
            break
        steps.append(PathStep(_parse_key(found), deep=bool(found["deep"])))
        at = found.end()
    return tuple(steps), at


def _parse_key(found: re.Match[str]) -> str | int | None:
    if found["all"] or found["each"]:
        return None
    if found["index"]:
        return int(found["index"])
    if found["name"]:
        return str(found["name"])
    return re.sub(
        r"\\(.)", r"\1", found["single"] if found["single"] is not None else found["double"]
    )


def _require_valid_pattern(pattern: str) -> None:
    try:
        empty = pc.match_substring_regex(pa.array([""]), pattern)[0].as_py()
    except pa.ArrowInvalid as error:
        reason = str(error).removeprefix("Invalid regular expression: ")
        raise DlqError(
            f"DLQ_EXPORT_REDACT_ERRORS: {pattern!r} is not a valid RE2 pattern: {reason}."
        ) from None
    if empty:
        raise DlqError(
            f"DLQ_EXPORT_REDACT_ERRORS: {pattern!r} matches the empty text, hence everywhere.",
            "Require at least one character, such as `a+` instead of `a*`.",
        )


def _replace_column(batch: pa.RecordBatch, name: str, column: pa.Array) -> pa.RecordBatch:
    return batch.set_column(batch.schema.get_field_index(name), batch.schema.field(name), column)


class _UnreadableError(Exception):
    """The text is not valid JSON."""


@dataclass
class _Container:
    """An open object or array.

    Attributes:
        state: the rules that may match inside it.
        index: the index of the current element; -1 before the first.
        head: the offset of the current member, with its name.
        comma: the offset of the comma before the current member.
        kept: whether an earlier member stays.
        cut: the offset of the first dropped member if no member before it stays.
    """

    is_object: bool
    state: _State
    index: int = -1
    head: int = 0
    comma: int = 0
    kept: bool = False
    cut: int | None = None


class _PayloadScanner:
    """Scans a payload once, without recursion: any depth, in time linear in its length."""

    def __init__(
        self,
        text: str,
        rules: tuple[RedactionRule, ...],
        replace_value: Callable[[RedactionAction, str], str],
    ) -> None:
        self._text, self._rules, self._replace_value = text, rules, replace_value
        self._at = 0
        self._open: list[_Container] = []

    def find_edits(self) -> Iterator[tuple[int, int, str]]:
        """Yield begin, end and replacement of each hidden part, in order and disjoint."""
        self._skip_space()
        state: _State = frozenset(
            (number, 0) for number, rule in enumerate(self._rules) if rule.path
        )
        action = max((rule.action for rule in self._rules if not rule.path), default=None)
        while True:
            if action is None and state and self._text[self._at : self._at + 1] in ("{", "["):
                self._open.append(_Container(self._text[self._at] == "{", state))
                self._at += 1
                self._skip_space()
                if not self._at_end_of_container():
                    state, action = self._read_member()
                    continue
            else:
                yield from self._apply_action(action)
            while self._open and self._at_end_of_container():
                yield from self._close_container()
            if not self._open:
                return self._require_end()
            yield from self._skip_comma()
            state, action = self._read_member()

    def _apply_action(self, action: RedactionAction | None) -> Iterator[tuple[int, int, str]]:
        """Skip a value, and apply the action to it."""
        begin, self._at = self._at, self._find_end_of_value()
        container = self._open[-1] if self._open else None
        if action is RedactionAction.DROP and container is None:
            yield begin, len(self._text), ""
        elif action is RedactionAction.DROP and container is not None:
            if container.kept:
                yield container.comma, self._at, ""
            elif container.cut is None:
                container.cut = container.head
        elif container is not None:
            container.kept = True
        if action in {RedactionAction.MASK, RedactionAction.HASH}:
            yield (
                begin,
                self._at,
                self._replace_value(RedactionAction(action or 0), self._text[begin : self._at]),
            )
        self._skip_space()

    def _at_end_of_container(self) -> bool:
        return self._text[self._at : self._at + 1] == ("}" if self._open[-1].is_object else "]")

    def _close_container(self) -> Iterator[tuple[int, int, str]]:
        """Leave a container, which stays in the container around it."""
        if (cut := self._open.pop().cut) is not None:
            yield cut, self._at, ""
        if self._open:
            self._open[-1].kept = True
        self._at += 1
        self._skip_space()

    def _skip_comma(self) -> Iterator[tuple[int, int, str]]:
        """Skip the comma; it is dropped with the members before the first that stays."""
        container = self._open[-1]
        if self._text[self._at : self._at + 1] != ",":
            raise _UnreadableError
        container.comma = self._at
        self._at += 1
        self._skip_space()
        if container.cut is not None:
            yield container.cut, self._at, ""
            container.cut = None

    def _read_member(self) -> tuple[_State, RedactionAction | None]:
        """Read a member's name; return the rules that may match below it, and its action."""
        container = self._open[-1]
        container.head = self._at
        container.index += 1
        key: str | int = container.index
        if container.is_object:
            name = _STRING.match(self._text, self._at)
            if name is None:
                raise _UnreadableError
            key = _decode_string(name[0])
            self._at = name.end()
            self._skip_space()
            if self._text[self._at : self._at + 1] != ":":
                raise _UnreadableError
            self._at += 1
            self._skip_space()
        return self._match_step(container.state, key)

    def _match_step(self, state: _State, key: str | int) -> tuple[_State, RedactionAction | None]:
        below: set[tuple[int, int]] = set()
        actions: list[RedactionAction] = []
        for number, taken in state:
            rule = self._rules[number]
            step = rule.path[taken]
            if step.deep:
                below.add((number, taken))
            if step.key is not None and step.key != key:
                continue
            if taken + 1 == len(rule.path):
                actions.append(rule.action)
            else:
                below.add((number, taken + 1))
        return frozenset(below), max(actions, default=None)

    def _find_end_of_value(self) -> int:
        """Return the offset of the end of the value that begins here."""
        if self._text[self._at : self._at + 1] not in ("{", "["):
            scalar = _SCALAR.match(self._text, self._at)
            if scalar is None:
                raise _UnreadableError
            return scalar.end()
        depth = 0
        for found in _BRACKET.finditer(self._text, self._at):
            if found[0] == '"':  # an unterminated string
                break
            depth += _DEPTH.get(found[0], 0)
            if not depth:
                return found.end()
        raise _UnreadableError

    def _skip_space(self) -> None:
        space = _SPACE.match(self._text, self._at)
        self._at = space.end() if space else self._at

    def _require_end(self) -> None:
        if self._at != len(self._text):
            raise _UnreadableError


_DEPTH = {"{": 1, "[": 1, "}": -1, "]": -1}


def _decode_string(literal: str) -> str:
    try:
        return str(json.loads(literal)) if "\\" in literal else literal[1:-1]
    except ValueError:
        raise _UnreadableError from None
