"""Proposes a mapping for a table, from its columns and the states that its rows have.

A table of a known project gets that project's preset. Otherwise names, types and states decide, and
the proposal says what a person should check. It is a TOML text that loads as it is.
"""

import json
import re
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from dlq_pipelines.errors import NotFoundError, RefusedError
from dlq_pipelines.outbox.adopt_words import (
    CANONICAL_NAMES,
    DEAD_FLAGS,
    DEAD_TIMES,
    DEAD_WORDS,
    DELIVERED_FLAGS,
    DELIVERED_TIMES,
    DELIVERED_WORDS,
    INTEGER_TYPES,
    KEY_TYPES,
    MAX_ATTEMPTS,
    PENDING_WORDS,
    STATE_COLUMNS,
    TIME_TYPES,
    TYPES,
    WORKING_WORDS,
)
from dlq_pipelines.outbox.mapping import (
    list_presets,
    load_mapping,
    parse_mapping,
    read_mapping_text,
    read_preset,
)
from dlq_pipelines.outbox.mapping_offers import Offer
from dlq_pipelines.outbox.mapping_sql import render_mapping
from dlq_pipelines.outbox.mapping_types import (
    ComparisonKind,
    MappedColumn,
    Mapping,
    MappingError,
    list_mapped_columns,
    list_tests,
)


@dataclass(frozen=True)
class StateCount:
    """A value of a state column, and how many rows have it; 0: a constraint allows it."""

    value: str
    rows: int = 0


@dataclass(frozen=True)
class OutboxTableFacts:
    """What is known of a table.

    Attributes:
        key: the columns of its primary key; empty: unknown or none.
        states: the values of columns that `list_state_columns` names, by column.
        time_zone: the default zone of the database's sessions.
    """

    schema: str
    table: str
    columns: tuple[MappedColumn, ...]
    key: tuple[str, ...] = ()
    states: dict[str, tuple[StateCount, ...]] = field(default_factory=dict)
    time_zone: str = "UTC"

    @property
    def full_name(self) -> str:
        """Schema and table, as a mapping writes them."""
        return ".".join(_quote_part(part) for part in (self.schema, self.table))


@dataclass(frozen=True)
class ProposedMapping:
    """A proposal.

    Attributes:
        text: the mapping as TOML, with comments.
        mapping: the same, loaded.
        preset: the preset that fits the table; None: names and types decided.
        offers: what is possible with it, and what each absent thing costs.
        questions: what a person should check.
    """

    text: str
    mapping: Mapping
    preset: str | None
    offers: tuple[Offer, ...]
    questions: tuple[str, ...] = ()


_NOT_A_LETTER = re.compile(r"[\W_]+")


def list_state_columns(
    columns: Sequence[MappedColumn], state: str | None = None, *, reads_values: bool = True
) -> tuple[str, ...]:
    """Return the columns whose values a proposal wants to know.

    Without a column of a usual name, the state may be in any column of words.

    Args:
        columns: of the table.
        state: the column with the state, if a person said so.
        reads_values: whether columns of unusual names are wanted too.
    """
    if state is not None:
        return tuple(column.name for column in columns if column.name == state)
    found = [column for column in columns if _is_state(column)]
    named = [column for column in found if _simplify(column.name) in STATE_COLUMNS]
    words = [column for column in found if column.base_type not in INTEGER_TYPES]
    others = [column for column in words if _simplify(column.name) not in _CANONICAL]
    others.sort(key=lambda column: not column.is_enum)
    candidates = others[:_MAX_CANDIDATES] if reads_values else []
    return tuple(column.name for column in named or candidates)


_CANONICAL = {name for names in CANONICAL_NAMES.values() for name in names}
# Each is a scan of the table, of three seconds at most.
_MAX_CANDIDATES = 3
_MAX_STATES = 12


def propose_mapping(
    facts: OutboxTableFacts,
    *,
    state: str | None = None,
    dead_values: Sequence[str | int] = (),
    delivered_values: Sequence[str | int] = (),
) -> ProposedMapping:
    """Propose a mapping for a table.

    Args:
        facts: what is known of the table.
        state: the column with the state, if a person said so.
        dead_values: values of the state column that mean dead, if a person said so.
        delivered_values: the same for delivered.

    Raises:
        RefusedError: nothing in the table is ever dead, or which rows are dead is not known; the
            message has the reason.
        NotFoundError: the table has no column `state`.
        ValueError: a value means both.
    """
    for value in dead_values:
        if value in delivered_values:
            raise ValueError(f"{value!r} cannot mean both dead and delivered.")
    if state is not None:
        _require_state(facts, state)
    elif not dead_values and not delivered_values:
        preset = find_preset(facts)
        if preset is not None:
            return _propose_preset(facts, preset)
    return _Proposal(facts, state, dead_values, delivered_values).build()


def _require_state(facts: OutboxTableFacts, state: str) -> None:
    column = next((column for column in facts.columns if column.name == state), None)
    if column is None:
        names = ", ".join(column.name for column in facts.columns)
        raise NotFoundError(f"{facts.full_name} has no column {state!r}.", f"Its columns: {names}.")
    if not _is_state(column) and column.base_type != "boolean":
        raise RefusedError(
            f"{state} of {facts.full_name} has type {column.type}.",
            "Name a column of text, an enum, integers or booleans.",
        )


def use_mapping(facts: OutboxTableFacts, name_or_path: str) -> ProposedMapping:
    """Return a preset or a mapping file as it is for a table, whatever table it names.

    Raises:
        MappingError: there is no such preset or file, or it does not fit the table.
    """
    if name_or_path in list_presets():
        return _propose_preset(facts, name_or_path)
    text = read_mapping_text(name_or_path)
    mapping = parse_mapping(text, name_or_path).with_table(facts.full_name)
    return ProposedMapping(text, mapping, None, render_mapping(mapping, facts.columns).offers)


def find_preset(facts: OutboxTableFacts) -> str | None:
    """Return the preset that fits a table by its name and columns, or by many columns alone."""
    found: list[tuple[bool, int, str]] = []
    for preset in list_presets():
        mapping = load_mapping(preset)
        columns = len(list_mapped_columns(mapping))
        is_named = mapping.table == facts.table
        if (is_named or columns >= _ENOUGH_COLUMNS) and _fits(mapping, facts):
            found.append((is_named, columns, preset))
    return max(found)[2] if found else None


# So many columns with the same names are not the same by chance.
_ENOUGH_COLUMNS = 9


def _fits(mapping: Mapping, facts: OutboxTableFacts) -> bool:
    try:
        render_mapping(mapping, facts.columns)
    except MappingError:
        return False
    known = list_known_values(mapping)
    seen = {name: {s.value for s in states if s.rows} for name, states in facts.states.items()}
    return all(not seen.get(name) or seen[name] & values for name, values in known.items())


def list_known_values(mapping: Mapping) -> dict[str, set[str]]:
    """Return the values that a mapping names for each column of its conditions."""
    known: dict[str, set[str]] = {}
    for condition in (mapping.dead, mapping.delivered, mapping.waiting, mapping.working):
        for test in list_tests(condition):
            if test.kind is ComparisonKind.EQUALS:
                known.setdefault(test.column, set()).update(map(str, test.values))
    for assignment in mapping.retry or ():
        if assignment.column in known:
            known[assignment.column].add(str(assignment.value))
    return known


def _propose_preset(facts: OutboxTableFacts, preset: str) -> ProposedMapping:
    line = f"table = {_quote(facts.full_name)}"
    text = re.sub(r"(?m)^table = .*$", lambda _: line, read_preset(preset), count=1)
    return _finish(facts, text, preset, ())


def _finish(
    facts: OutboxTableFacts, text: str, preset: str | None, questions: tuple[str, ...]
) -> ProposedMapping:
    mapping = parse_mapping(text, preset or f"mapping of {facts.full_name}")
    offers = render_mapping(mapping, facts.columns).offers
    return ProposedMapping(text, mapping, preset, offers, questions)


def _quote(text: str) -> str:
    """Return a TOML string."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _quote_key(text: str) -> str:
    return text if re.fullmatch(r"[A-Za-z0-9_-]+", text) else _quote(text)


def _quote_part(name: str) -> str:
    return name if re.fullmatch(r'[^".]+', name) else '"' + name.replace('"', '""') + '"'


def _comment(text: str) -> str:
    """Return a comment of TOML, in lines of at most 100 characters."""
    clean = re.sub(r"[\x00-\x1f\x7f]", " ", text)
    return textwrap.fill(clean, 98, initial_indent="# ", subsequent_indent="# ")


def _simplify(name: str) -> str:
    """Return a name without case, underscores and other marks: `Status_Name` is statusname."""
    return _NOT_A_LETTER.sub("", name).casefold()


def _is_state(column: MappedColumn) -> bool:
    return not column.is_array and (column.is_enum or column.base_type in _STATE_TYPES)


_STATE_TYPES = frozenset({"text", "character varying", "character"}) | INTEGER_TYPES


class _Proposal:
    """Collects the lines of a mapping, section by section."""

    def __init__(
        self,
        facts: OutboxTableFacts,
        state: str | None,
        dead_values: Sequence[str | int],
        delivered_values: Sequence[str | int],
    ) -> None:
        self.facts = facts
        self.dead_values, self.delivered_values = tuple(dead_values), tuple(delivered_values)
        self.questions: list[str] = []
        self.columns = self._map_columns()
        # A flag is named as a state is.
        self.flag = state if state and self._is_flag(state) else None
        self.state = None if self.flag else state or self._find_state()
        self.values = self._count_values(self.state)
        self.retry: dict[str, str] = {}
        self.dead_by = ""

    def _is_flag(self, name: str) -> bool:
        return any(c.name == name and c.base_type == "boolean" for c in self.facts.columns)

    def build(self) -> ProposedMapping:
        if self.state is None and self.flag is None and self.dead_values:
            raise self._refuse()
        dead = self._find_dead()
        if dead is None:
            raise self._refuse()
        delivered = self._find_delivered()
        rest = [dead, delivered, self._find_working(), self._write_retry()]
        written = list(filter(None, rest))
        # A key without a table stands before the first table.
        keys = [text for text in written if not text.startswith("[")]
        tables = [text for text in written if text.startswith("[")]
        head = "\n".join([self._write_head(), *keys])
        text = "\n\n".join([head, self._write_columns(), *tables]) + "\n"
        proposed = _finish(self.facts, text, None, tuple(self.questions))
        reasons = [offer.reason for offer in proposed.offers if not offer.is_offered]
        costs = [_comment(reason) for reason in dict.fromkeys(reasons)]
        lines = ["# What this mapping does not offer:", *costs] if costs else []
        lines += (
            ["# Check:", *(_comment(f"- {q}") for q in self.questions)] if self.questions else []
        )
        head = f"{chr(10).join(lines)}\n\n" if lines else ""
        return replace(proposed, text=head + proposed.text)

    # Columns.

    def _map_columns(self) -> dict[str, MappedColumn]:
        found = {"id": self._find_key()}
        for key, names in CANONICAL_NAMES.items():
            column = self._find_column(names, partial(_can_hold, key), found)
            if column is not None:
                found[key] = column
        died = self._find_column(DEAD_TIMES, _is_time, found)
        return found | ({"died_at": died} if died is not None else {})

    def _find_key(self) -> MappedColumn:
        by_name = {c.name: c for c in self.facts.columns if c.base_type in KEY_TYPES}
        key = [by_name[name] for name in self.facts.key if name in by_name]
        if len(key) == 1 and len(self.facts.key) == 1:
            return key[0]
        candidates = key or list(by_name.values())
        for column in candidates:
            if _simplify(column.name) in {"id", "eventid", "messageid", "jobid", "uuid", "guid"}:
                return column
        raise RefusedError(
            f"{self.facts.full_name} has no key that can be served.",
            "Add a primary key of one column of type bigint, integer, uuid or text.",
        )

    def _find_column(
        self,
        names: Sequence[str],
        suits: Callable[[MappedColumn], bool],
        taken: dict[str, MappedColumn] | None = None,
    ) -> MappedColumn | None:
        used = {column.name for column in (taken or {}).values()}
        for name in names:
            for column in self.facts.columns:
                if _simplify(column.name) == name and column.name not in used and suits(column):
                    return column
        return None

    def _find_state(self) -> str | None:
        column = self._find_column(STATE_COLUMNS, _is_state)
        return column.name if column else self._find_state_by_values()

    def _find_state_by_values(self) -> str | None:
        """Return a column of an unusual name whose values are states: a dead one and another one.

        With values that a person named, a column that has one of them.
        """
        named = {str(value) for value in (*self.dead_values, *self.delivered_values)}
        if not named and (
            _DEAD_TABLE.search(self.facts.table)
            or "died_at" in self.columns
            or self._find_column(DEAD_FLAGS, lambda c: c.base_type == "boolean")
        ):
            return None
        others = {*DELIVERED_WORDS, *PENDING_WORDS, *WORKING_WORDS}
        for column in list_state_columns(self.facts.columns):
            values = set(self._count_values(column))
            words = {_simplify(value) for value in values}
            if named & values if named else words & set(DEAD_WORDS) and words & others:
                self.questions.append(f"{column}: is this the state of an event?")
                return column
        return None

    def _count_values(self, column: str | None) -> dict[str, int]:
        """Return the rows of each value of a column; 0 of those that its type alone allows."""
        labels = next((c.labels for c in self.facts.columns if c.name == column), ())
        counted = {s.value: s.rows for s in self.facts.states.get(column or "", ())}
        return dict.fromkeys(labels, 0) | counted

    def _write_head(self) -> str:
        lines = [
            _comment(f"Proposed for {self.facts.full_name}, from names, types and states."),
            f"table = {_quote(self.facts.full_name)}",
        ]
        if any(c.base_type == "timestamp without time zone" for c in self.columns.values()):
            lines.append(
                f"time_zone = {_quote(self.facts.time_zone)}"
                "  # timestamps without time zone: where they are written"
            )
            self.questions.append("time_zone: in which zone does the application write timestamps?")
        return "\n".join(lines)

    def _write_columns(self) -> str:
        lines = ["[columns]"]
        for key, column in self.columns.items():
            value = _quote(column.name)
            if column.is_array or _simplify(column.name) == "errors":
                value = f'{{ column = {value}, element = "last" }}'
            lines.append(f"{key} = {value}")
        return "\n".join(lines)

    # States.

    def _find_dead(self) -> str | None:
        finders = {
            "named flag": self._find_named_flag,
            "state": self._find_dead_state,
            "table": self._find_dead_table,
            "time": self._find_dead_time,
            "flag": self._find_dead_flag,
            "attempts": self._find_used_up,
        }
        for self.dead_by, find in finders.items():
            found = find()
            if found is not None:
                return found
        return None

    def _find_dead_state(self) -> str | None:
        if self.state is None:
            return None
        values = self.dead_values or self._pick_states(DEAD_WORDS, is_dead=True)
        if not values:
            return None
        self._set_pending_state()
        return _write_condition("dead", self.state, values)

    def _pick_states(self, words: Sequence[str], *, is_dead: bool) -> tuple[str, ...]:
        """Return the known values that are such words; of a free text, guesses in its style."""
        if self._state_column().base_type in INTEGER_TYPES:
            return ()
        known = sorted(
            (words.index(_simplify(value)), value)
            for value in self.values
            if _simplify(value) in words
        )
        if known and is_dead:  # failed is not dead where there is a state dead
            best = known[0][0]
            if not _is_certain(best):
                self.questions.append(
                    f"{self.state}: does {known[0][1]} mean that the worker gave up, or does it "
                    "try again?"
                )
            return tuple(value for rank, value in known if _is_certain(rank) == _is_certain(best))
        if known or self._state_column().is_enum or not is_dead:
            return tuple(value for _, value in known)
        guesses = tuple(_restyle(word, self.values) for word in ("dead", "failed"))
        self.questions.append(
            f"{self.state}: no row is dead yet. Does {' or '.join(guesses)} mean that its worker "
            "gave up?"
        )
        return guesses

    def _state_column(self) -> MappedColumn:
        return next(c for c in self.facts.columns if c.name == self.state)

    def _set_pending_state(self) -> None:
        if self.state is None:
            return
        words = {_simplify(value): value for value in self.values}
        found = next((words[word] for word in PENDING_WORDS if word in words), None)
        if found is not None:
            self.retry[self.state] = _quote(found)
        elif self._state_column().base_type in INTEGER_TYPES:
            self._set_pending_number()
        elif self.values and not self._state_column().is_enum:
            self.retry[self.state] = _quote(_restyle("pending", self.values))
            self.questions.append(f"{self.state}: is {self.retry[self.state]} a waiting event?")
        else:
            self.questions.append(f"{self.state}: which state does a waiting event have?")

    def _set_pending_number(self) -> None:
        """The lowest number that is not negative: states are numbered from the first."""
        numbers = [int(v) for v in self.values if re.fullmatch(r"-?\d{1,18}", v)]
        ended = (*self.dead_values, *self.delivered_values)
        waiting = [n for n in sorted(numbers) if n >= 0 and n not in ended]
        if self.state is not None and waiting:
            self.retry[self.state] = str(waiting[0])
            self.questions.append(f"{self.state}: is {waiting[0]} the state of a waiting event?")

    def _find_dead_table(self) -> str | None:
        if not _DEAD_TABLE.search(self.facts.table) or self.state is not None:
            return None
        self.questions.append("Is every row of this table a dead event?")
        return 'dead = "always"'

    def _find_dead_time(self) -> str | None:
        column = self.columns.get("died_at")
        if column is None or not column.nullable:
            return None
        self.retry[column.name] = "{ null = true }"
        return _write_section("dead", column.name, "{ null = false }")

    def _find_named_flag(self) -> str | None:
        if self.flag is None:
            return None
        is_dead = {str(value).casefold() for value in self.dead_values} & {"false", "f", "0"}
        self.retry[self.flag] = "true" if is_dead else "false"
        return _write_section("dead", self.flag, "false" if is_dead else "true")

    def _find_dead_flag(self) -> str | None:
        column = self._find_column(DEAD_FLAGS, lambda c: c.base_type == "boolean")
        if column is None:
            return None
        self.retry[column.name] = "false"
        return _write_section("dead", column.name, "true")

    def _find_used_up(self) -> str | None:
        attempts = self.columns.get("attempts")
        most = self._find_column(MAX_ATTEMPTS, lambda c: c.base_type in INTEGER_TYPES)
        if attempts is None or most is None:
            return None
        self.questions.append("Is an event dead while its worker makes the last attempt?")
        return _write_section("dead", attempts.name, f"{{ at_least = {_quote(most.name)} }}")

    def _find_delivered(self) -> str | None:
        if self.state is not None:
            found = self._pick_states(DELIVERED_WORDS, is_dead=False)
            values = self.delivered_values or found
            if values:
                return _write_condition("delivered", self.state, values)
        column = self._find_column(DELIVERED_TIMES, lambda c: _is_time(c) and c.nullable)
        if column is not None:
            return _write_section("delivered", column.name, "{ null = false }")
        column = self._find_column(DELIVERED_FLAGS, lambda c: c.base_type == "boolean")
        if column is not None:
            return _write_section("delivered", column.name, "true")
        return self._guess_delivered()

    def _guess_delivered(self) -> str | None:
        if self.state is None or self._state_column().base_type in INTEGER_TYPES:
            self.questions.append("delivered: how does a delivered row look, or is it deleted?")
            return None
        if self._state_column().is_enum:
            self.questions.append("delivered: are delivered rows deleted?")
            return 'delivered = "deleted"'
        guesses = tuple(_restyle(word, self.values) for word in DELIVERED_WORDS[:8])
        self.questions.append(f"delivered: which value of {self.state} does a delivered row have?")
        return _write_condition("delivered", self.state, guesses)

    def _find_working(self) -> str | None:
        if self.state is None:
            return None
        values = self._pick_states(WORKING_WORDS, is_dead=False)
        return _write_condition("working", self.state, values) if values else None

    def _write_retry(self) -> str | None:
        """Set what makes the row waiting, no attempts, due now, and held by no worker."""
        if self.dead_by == "table" or (self.dead_by == "state" and self.state not in self.retry):
            return None
        if "attempts" in self.columns:
            self.retry[self.columns["attempts"].name] = "0"
        if "due_at" in self.columns:
            self.retry[self.columns["due_at"].name] = "{ due = true }"
        for column in self.facts.columns:
            is_lock = _simplify(column.name) in _LOCKS
            if (is_lock or column == self.columns.get("died_at")) and column.nullable:
                self.retry[column.name] = "{ null = true }"
        lines = [f"{_quote_key(name)} = {value}" for name, value in self.retry.items()]
        return "\n".join(["[retry]", *lines])

    def _describe_candidates(self) -> str:
        """Return the values of columns that may have a state: of few words, each in many rows."""
        found = []
        for column in list_state_columns(self.facts.columns):
            values = self._count_values(column)
            rows = sum(values.values())
            if 1 < len(values) <= _MAX_STATES and (not rows or rows >= 2 * len(values)):
                shown = ", ".join(f"{value} ({count:,})" for value, count in values.items())
                found.append(f"{column}: {shown}.")
        return " ".join(found)

    def _refuse(self) -> RefusedError:
        """Say why nothing in the table is ever dead, as far as its columns show."""
        name = self.facts.full_name
        if self.state is None and (self.dead_values or self.delivered_values):
            return RefusedError(
                f"Which column of {name} has the state of an event is not known.",
                "Name it: --state COLUMN.",
            )
        if self.state is not None:
            seen = ", ".join(f"{value} ({rows})" for value, rows in self.values.items()) or "none"
            return RefusedError(
                f"{name}: which value of {self.state} means dead is not known. Values: {seen}.",
                "Pass the values that mean dead (--dead), another column (--state), or write the "
                "mapping by hand.",
            )
        if seen := self._describe_candidates():
            return RefusedError(
                f"Which column of {name} has the state of an event is not known. {seen}",
                "Name it with the value that means dead: --state COLUMN --dead VALUE.",
            )
        done = self._find_column(DELIVERED_TIMES, lambda c: _is_time(c) and c.nullable)
        reason = (
            f"A row waits or is delivered, by {done.name}"
            if done is not None
            else "A row waits until it is delivered and deleted"
        )
        return RefusedError(
            f"Nothing in {name} is ever dead. {reason}: no column distinguishes an event whose "
            "worker gave up from one that waits.",
            "If a column has a state, name it and its value: --state COLUMN --dead VALUE. "
            "Otherwise let the worker store that it gave up, in a column such as status or "
            "dead_at, and adopt the table again.",
        )


_DEAD_TABLE = re.compile(r"dead_?letter|failed|dlq|poison", re.IGNORECASE)
_LOCKS = frozenset({"lockedby", "lockedat", "lockeduntil", "claimedby", "claimedat", "workerid"})


def _can_hold(key: str, column: MappedColumn) -> bool:
    if column.is_array:
        return key == "error" and column.base_type in {"text[]", "jsonb[]", "character varying[]"}
    return column.base_type in TYPES[key] or (column.is_enum and key.endswith("_type"))


def _is_time(column: MappedColumn) -> bool:
    return column.base_type in TIME_TYPES


def _is_certain(rank: int) -> bool:
    """Words before `failed` are certain; where one of them occurs, `failed` is something else."""
    return rank < DEAD_WORDS.index("failed")


def _restyle(word: str, values: Sequence[str] | dict[str, int]) -> str:
    """Return the word in the case in which the known values are written."""
    if any(value.islower() for value in values):
        return word
    return word.capitalize() if any(value.istitle() for value in values) else word.upper()


def _write_section(name: str, column: str, value: str) -> str:
    return f"[{name}]\n{_quote_key(column)} = {value}"


def _write_condition(name: str, column: str, values: Sequence[str | int]) -> str:
    written = [str(value) if isinstance(value, int) else _quote(value) for value in values]
    if len(written) == 1:
        return _write_section(name, column, written[0])
    line = f"[{', '.join(written)}]"
    if len(column) + len(line) > _MAX_LIST:
        line = "\n".join(["[", *(f"    {value}," for value in written), "]"])
    return _write_section(name, column, line)


# A longer list has a line for each value.
_MAX_LIST = 90
