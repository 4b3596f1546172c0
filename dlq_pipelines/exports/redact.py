"""What of a payload or of an error text must not leave with an export or a report, and how is it hidden?

Rules for payloads are separated by `;` or line ends, each an action and a path:

    drop $.card.cvc                    the member is not there
    mask $..email                      "***" stands in its place
    hash $.items[*]['customer id']     HMAC-SHA256 of it: equal values stay equal, without the key none is guessed

A path begins with `$`, the payload. `.name` or `['any name']` is a member, `[0]` an element, `.*` or `[*]` each member
and element, and two dots before a name mean it at any depth. Of rules that meet in one value the strictest counts: drop
before mask before hash. A path that is not there hides nothing.

Only what is hidden is cut out of the text: every other character stays, numbers of any length with it. A payload that
cannot be read as JSON is masked as a whole. Patterns for errors are regular expressions of RE2, which takes time in
proportion to the text whatever the pattern; each match becomes `[redacted]`.
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
    r"""(?P<deep>\.(?=\.))? (?: \.(?P<name>[^\W\d][\w-]*) | \.(?P<all>\*) | \[\*(?P<each>\]) | \[(?P<index>\d{1,9})\]
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
    """What is done with a value, the strictest last."""

    HASH = 1
    MASK = 2
    DROP = 3


@dataclass(frozen=True)
class PathStep:
    """To a member by its name, an element by its number, or (None) to each of them; at any depth if deep."""

    key: str | int | None
    deep: bool = False


@dataclass(frozen=True)
class RedactionRule:
    """What is done with the values that a path leads to."""

    action: RedactionAction
    path: tuple[PathStep, ...]
    text: str


# Where the reading of a payload is in the rules: (rule, steps taken) of each that may still match below.
_State = frozenset[tuple[int, int]]


@dataclass(frozen=True)
class Redaction:
    """What to hide.

    Attributes:
        rules: of payloads.
        patterns: of errors and templates.
        key: of the rules that hash.
    """

    rules: tuple[RedactionRule, ...] = ()
    patterns: tuple[str, ...] = ()
    key: bytes = field(default=b"", repr=False)

    def describe(self) -> dict[str, list[str]]:
        """The rules as they were written, for the manifest; never the key."""
        return {"payload": [rule.text for rule in self.rules], "errors": list(self.patterns)}

    def batch(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """A batch of deaths without what is to be hidden."""
        if self.rules:
            shown = [
                None if text is None else self.payload(text)
                for text in batch.column("payload").to_pylist()
            ]
            batch = _replaced(batch, "payload", pa.array(shown, pa.string()))
        for name in ("error", "template") if self.patterns else ():
            batch = _replaced(batch, name, self._errors(batch.column(name)))
        return batch

    def payload(self, text: str) -> str | None:
        """A payload, as JSON text, without what the rules hide; None where they drop all of it."""
        try:
            edits = list(_Reading(text, self.rules, self._hidden).edits())
        except _UnreadableError:
            return MASK
        parts, copied = [], 0
        for begin, end, instead in edits:
            parts += [text[copied:begin], instead]
            copied = end
        return "".join([*parts, text[copied:]]) or None

    def _hidden(self, action: RedactionAction, value: str) -> str:
        """What stands in the place of a value: a string is hashed by what it says, anything else as it is written."""
        if action is RedactionAction.MASK:
            return MASK
        said = _content(value) if value.startswith('"') else value
        return f'"{hmac.digest(self.key, said.encode(errors="surrogatepass"), "sha256").hex()}"'

    def errors(self, texts: Sequence[str]) -> list[str]:
        """Errors or templates without what the patterns match."""
        return [str(text) for text in self._errors(pa.array(texts, pa.string())).to_pylist()]

    def _errors(self, column: pa.Array) -> pa.Array:
        for pattern in self.patterns:
            column = pc.replace_substring_regex(column, pattern, REDACTED)
        return column


def parse_redaction(payload: str, errors: str, key: bytes | None) -> Redaction:
    """Read the rules of `DLQ_EXPORT_REDACT_PAYLOAD` and the patterns of `DLQ_EXPORT_REDACT_ERRORS`.

    Raises:
        DlqError: one of them cannot be understood, or hashes without a key. The message names the variable.
    """
    try:
        rules = tuple(_rules(payload))
    except ValueError as error:
        raise DlqError(f"DLQ_EXPORT_REDACT_PAYLOAD: {error}") from None
    if key is None and any(rule.action is RedactionAction.HASH for rule in rules):
        raise DlqError(
            "DLQ_EXPORT_HASH_KEY: a rule of DLQ_EXPORT_REDACT_PAYLOAD hashes, so it must be set to a key."
        )
    patterns = tuple(line.strip() for line in errors.splitlines() if line.strip())
    for pattern in patterns:
        _require_usable(pattern)
    return Redaction(rules, patterns, key or b"")


def _rules(text: str) -> Iterator[RedactionRule]:
    at = len(text) - len(text.lstrip())
    while at < len(text):
        begin = _RULE.match(text, at)
        if begin is None or begin["action"].upper() not in RedactionAction.__members__:
            raise ValueError(
                f"a rule is drop, mask or hash and a path that begins with $, not {text[at:][:60]!r}."
            )
        path, end = _path(text, begin.end())
        closed = _RULE_END.match(text, end)
        if closed is None:
            raise ValueError(
                f"{text[at:end]!r} is followed by {text[end:][:20]!r}, which is no step of a path."
            )
        yield RedactionRule(
            RedactionAction[begin["action"].upper()], path, " ".join(text[at:end].split())
        )
        at = closed.end()


def _path(text: str, at: int) -> tuple[tuple[PathStep, ...], int]:
    steps = []
    while found := _SEGMENT.match(text, at):
        if found["deep"] and text[found.start() + 1] != ".":
            break
        steps.append(PathStep(_key(found), deep=bool(found["deep"])))
        at = found.end()
    return tuple(steps), at


def _key(found: re.Match[str]) -> str | int | None:
    if found["all"] or found["each"]:
        return None
    if found["index"]:
        return int(found["index"])
    if found["name"]:
        return str(found["name"])
    return re.sub(
        r"\\(.)", r"\1", found["single"] if found["single"] is not None else found["double"]
    )


def _require_usable(pattern: str) -> None:
    try:
        empty = pc.match_substring_regex(pa.array([""]), pattern)[0].as_py()
    except pa.ArrowInvalid as error:
        reason = str(error).removeprefix("Invalid regular expression: ")
        raise DlqError(
            f"DLQ_EXPORT_REDACT_ERRORS: {pattern!r} is no pattern that RE2 reads: {reason}."
        ) from None
    if empty:
        raise DlqError(
            f"DLQ_EXPORT_REDACT_ERRORS: {pattern!r} matches nothing at all, so it would match everywhere."
        )


def _replaced(batch: pa.RecordBatch, name: str, column: pa.Array) -> pa.RecordBatch:
    return batch.set_column(batch.schema.get_field_index(name), batch.schema.field(name), column)


class _UnreadableError(Exception):
    """The text is no JSON."""


@dataclass
class _Container:
    """An object or array that is being read.

    Attributes:
        state: where the rules are inside of it.
        index: of the element at hand; -1 before the first.
        head: where the member at hand begins, with its name.
        comma: where the comma before it stands.
        kept: whether an earlier member stays.
        cut: where the first of the dropped members begins, if none before it stays.
    """

    is_object: bool
    state: _State
    index: int = -1
    head: int = 0
    comma: int = 0
    kept: bool = False
    cut: int | None = None


class _Reading:
    """One pass over a payload's text, without recursion: any depth, in time proportional to its length."""

    def __init__(
        self,
        text: str,
        rules: tuple[RedactionRule, ...],
        hidden: Callable[[RedactionAction, str], str],
    ) -> None:
        self._text, self._rules, self._hidden = text, rules, hidden
        self._at = 0
        self._open: list[_Container] = []

    def edits(self) -> Iterator[tuple[int, int, str]]:
        """What is cut out and what stands there instead: begin, end, text; in order, none within another."""
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
                if not self._closes():
                    state, action = self._member()
                    continue
            else:
                yield from self._value(action)
            while self._open and self._closes():
                yield from self._close()
            if not self._open:
                return self._require_end()
            yield from self._next_member()
            state, action = self._member()

    def _value(self, action: RedactionAction | None) -> Iterator[tuple[int, int, str]]:
        """Pass over a value; hide it if that is asked for."""
        begin, self._at = self._at, self._end_of_value()
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
                self._hidden(RedactionAction(action or 0), self._text[begin : self._at]),
            )
        self._skip_space()

    def _closes(self) -> bool:
        return self._text[self._at : self._at + 1] == ("}" if self._open[-1].is_object else "]")

    def _close(self) -> Iterator[tuple[int, int, str]]:
        """Leave a container, which is a member that stays of the one around it."""
        if (cut := self._open.pop().cut) is not None:
            yield cut, self._at, ""
        if self._open:
            self._open[-1].kept = True
        self._at += 1
        self._skip_space()

    def _next_member(self) -> Iterator[tuple[int, int, str]]:
        """Pass over the comma; what was dropped before the first that stays goes with it."""
        container = self._open[-1]
        if self._text[self._at : self._at + 1] != ",":
            raise _UnreadableError
        container.comma = self._at
        self._at += 1
        self._skip_space()
        if container.cut is not None:
            yield container.cut, self._at, ""
            container.cut = None

    def _member(self) -> tuple[_State, RedactionAction | None]:
        """Read a member's name; where the rules are at its value, and what they want done with it."""
        container = self._open[-1]
        container.head = self._at
        container.index += 1
        key: str | int = container.index
        if container.is_object:
            name = _STRING.match(self._text, self._at)
            if name is None:
                raise _UnreadableError
            key = _content(name[0])
            self._at = name.end()
            self._skip_space()
            if self._text[self._at : self._at + 1] != ":":
                raise _UnreadableError
            self._at += 1
            self._skip_space()
        return self._step(container.state, key)

    def _step(self, state: _State, key: str | int) -> tuple[_State, RedactionAction | None]:
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

    def _end_of_value(self) -> int:
        """Where the value ends that begins here, whatever is in it."""
        if self._text[self._at : self._at + 1] not in ("{", "["):
            scalar = _SCALAR.match(self._text, self._at)
            if scalar is None:
                raise _UnreadableError
            return scalar.end()
        depth = 0
        for found in _BRACKET.finditer(self._text, self._at):
            if found[0] == '"':  # a string that does not end
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


def _content(literal: str) -> str:
    try:
        return str(json.loads(literal)) if "\\" in literal else literal[1:-1]
    except ValueError:
        raise _UnreadableError from None
