"""Looks at an outbox that is not installed yet: why its events died. Writes nothing.

All statements run in one read-only transaction. Without a ledger only the last error of an event is
known, and only of events that are in the table.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta, tzinfo
from shlex import quote
from types import MappingProxyType
from typing import Any

import psycopg
from psycopg.rows import DictRow

from dlq_pipelines.causes.explain import CauseExplanation, IsHiddenPath
from dlq_pipelines.causes.fingerprint import CauseKey, compute_cause_key, compute_fingerprint
from dlq_pipelines.causes.separate import EventSample, find_separation
from dlq_pipelines.causes.title import build_title
from dlq_pipelines.causes.transient import is_transient
from dlq_pipelines.day import convert_to_zone
from dlq_pipelines.errors import DlqError, NotFoundError, RefusedError, SchemaError
from dlq_pipelines.outbox.adopt import (
    OutboxTableFacts,
    ProposedMapping,
    StateCount,
    list_known_values,
    propose_mapping,
    use_mapping,
)
from dlq_pipelines.outbox.install import read_outbox_facts, require_table
from dlq_pipelines.outbox.mapping import load_mapping
from dlq_pipelines.outbox.mapping_types import split_table_name
from dlq_pipelines.outbox.shape import (
    build_reading_shape,
    find_state_column,
    list_mapped_facts,
)
from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.postgres.queries import render_statement
from dlq_pipelines.text import RedactTexts

# Rows that are looked at, from the end of the key. Three scans of a million take 6 s.
SCANNED_ROWS = 1_000_000
# Dead events that are classified: 2 s with their scan, if their errors are short.
CLASSIFIED_EVENTS = 50_000
DAYS = 14
_STATEMENT_TIMEOUT = "60s"
# Tables of a database that are looked at.
_MAX_TABLES = 12
# And those whose values are read if none has a state: three columns of three seconds each.
_MAX_READ = 3
_FETCHED = 500
_HALF = 10_000
_MAX_PAYLOAD_LENGTH = 65_536
# Causes that are explained, dead events of each that are compared, the types of these that are
# looked at, and delivered events that all of them are compared with. Payloads of 4,000 events of
# 2 kB are 8 MB; the types of an application may be any number.
_EXPLAINED, _COMPARED, _TYPES = 5, 500, 20
_MOST_DELIVERED = 4_000


@dataclass(frozen=True)
class TrialTable:
    """The table to look at.

    Attributes:
        name: as `schema.table` or `table`; None: that of `mapping`, or the table that looks like an
            outbox.
        dead_values: values of its state column that mean dead, if a person said so.
        delivered_values: the same for delivered.
        state: its column with the state, if a person said so.
        mapping: a preset or a mapping file, which says all of that; None: one is proposed.
    """

    name: str | None = None
    dead_values: tuple[str | int, ...] = ()
    delivered_values: tuple[str | int, ...] = ()
    state: str | None = None
    mapping: str | None = None


@dataclass(frozen=True)
class TrialCause:
    """A cause of dead events.

    Attributes:
        id: the id that the ledger would give it.
        title: exception type and message, with the detail that most of its errors name.
        is_transient: such failures pass without a change of code or data.
        dead: dead events of it.
        event_types: of these events, the most frequent first.
        last_death: of the last one; None: the table has no time.
        days: deaths on each of the last days, the last day last.
        explanation: what sets its events apart, in a sentence; empty: it was not looked for.
        where: the filter that selects events by it; None: there is no such filter.
    """

    id: str
    title: str
    is_transient: bool
    dead: int
    event_types: tuple[str, ...]
    last_death: datetime | None
    days: tuple[int, ...]
    explanation: str = ""
    where: str | None = None


@dataclass(frozen=True)
class Trial:
    """What a table says of its dead events.

    Attributes:
        table: schema and table.
        mapping: how its columns were understood.
        others: tables that look like an outbox too, if none was named.
        events: rows that were looked at.
        is_complete: these are all rows of the table.
        dead: dead events among them.
        delivered: delivered events among them.
        both: events that are dead and delivered by the mapping, which is wrong then.
        hides_rows: row level security hides rows of the table from the role.
        absent_states: values that a person said mean dead or delivered, and that no row has.
        unmapped_states: values of the state column that the mapping does not name, with the number
            of rows: each may mean that the worker gave up.
        classified: dead events that were classified, the last ones.
        without_error: events among these whose error has no text.
        days: the days of `TrialCause.days`.
        causes: the one with most dead events first.
    """

    table: str
    mapping: ProposedMapping
    others: tuple[str, ...]
    events: int
    is_complete: bool
    dead: int
    delivered: int
    both: int
    hides_rows: bool
    absent_states: tuple[str, ...]
    unmapped_states: tuple[StateCount, ...]
    classified: int
    without_error: int
    days: tuple[date, ...]
    causes: tuple[TrialCause, ...]


@dataclass
class _Group:
    """The dead events of one cause while they are read."""

    sample: str
    dead: int = 0
    details: Counter[str] = field(default_factory=Counter)
    types: Counter[str] = field(default_factory=Counter)
    days: Counter[date] = field(default_factory=Counter)
    ids: list[str] = field(default_factory=list)
    last_death: datetime | None = None


def try_outbox(
    connection: Connection,
    table: TrialTable,
    *,
    now: datetime,
    zone: tzinfo,
    is_hidden: IsHiddenPath,
    redact: RedactTexts = list,
) -> Trial:
    """Classify the dead events of a table, and find what sets those of its main causes apart.

    Args:
        connection: in autocommit mode, of a role that may read the table.
        table: the table.
        now: the time of the look.
        zone: the time zone of days.
        is_hidden: whether a path of a payload must not be shown.
        redact: hides parts of the titles.

    Raises:
        NotFoundError: the table does not exist, or no table looks like an outbox.
        RefusedError: several tables do, nothing in the table is ever dead, or the role may not read
            it.
        MappingError: there is no such mapping, or it does not fit the table.
    """
    with _explain_missing_rights(), connection.snapshot():
        connection.run("session.set_statement_timeout", timeout=_STATEMENT_TIMEOUT)
        name = _find_name(table)
        proposed = (
            _find_outbox(connection, table) if name is None else _propose(connection, *name, table)
        )
        connection.run("session.set_statement_timeout", timeout=_STATEMENT_TIMEOUT)
        return _Trial(connection, proposed, table).read(
            now=now, zone=zone, is_hidden=is_hidden, redact=redact
        )


def _find_name(given: TrialTable) -> tuple[str, str] | None:
    """Return schema and table, if they are given."""
    if given.name is not None:
        return split_table_name(given.name)
    if given.mapping is not None:
        mapping = load_mapping(given.mapping)
        return mapping.schema, mapping.table
    return None


@contextmanager
def _explain_missing_rights() -> Iterator[None]:
    try:
        yield
    except psycopg.errors.InsufficientPrivilege as error:
        raise RefusedError(
            f"{error.diag.message_primary}.", "Use a role that may read the table."
        ) from None


@dataclass(frozen=True)
class _Proposed:
    """A table and the mapping that is proposed for it."""

    facts: OutboxTableFacts
    mapping: ProposedMapping
    others: tuple[str, ...] = ()


def _propose(
    connection: Connection,
    schema: str,
    name: str,
    given: TrialTable,
    *,
    reads_values: bool = True,
) -> _Proposed:
    try:
        facts = read_outbox_facts(
            connection, schema, name, state=given.state, reads_values=reads_values
        )
    except SchemaError as error:
        raise NotFoundError(error.message, "Pass another --table schema.table.") from None
    if given.mapping is not None:
        return _Proposed(facts, use_mapping(facts, given.mapping))
    proposed = propose_mapping(
        facts,
        state=given.state,
        dead_values=given.dead_values,
        delivered_values=given.delivered_values,
    )
    return _Proposed(facts, proposed)


def _propose_each(
    connection: Connection, tables: Sequence[DictRow], given: TrialTable, *, reads_values: bool
) -> tuple[list[_Proposed], list[DlqError]]:
    """Return what is proposed for some tables, and why nothing is for the others."""
    found: list[_Proposed] = []
    refused: list[DlqError] = []
    for row in tables:
        try:
            with connection.transaction():
                found.append(
                    _propose(
                        connection, row["schema"], row["table"], given, reads_values=reads_values
                    )
                )
        except DlqError as error:
            refused.append(error)
    return found, refused


def _find_outbox(connection: Connection, given: TrialTable) -> _Proposed:
    """Return the only table that looks like an outbox."""
    tables = connection.run(
        "trial.tables", dlq_schema=connection.names.dlq_schema, limit=_MAX_TABLES
    ).fetchall()
    found, refused = _propose_each(connection, tables, given, reads_values=False)
    if not found:  # the state may be in a column of an unusual name
        found, refused = _propose_each(connection, tables[:_MAX_READ], given, reads_values=True)
    filled = list(filter(_has_rows, found)) or found
    known = [proposed for proposed in filled if proposed.mapping.preset] or filled
    if not known and len(refused) == 1:
        raise refused[0]
    if not known:
        raise NotFoundError(
            " ".join(["No table of this database looks like an outbox.", *map(str, refused[:1])]),
            "Name the table: --table schema.table. Tables that the role may not read are left out.",
        )
    names = [proposed.facts.full_name for proposed in known]
    if len(known) > 1:
        raise RefusedError(
            f"Several tables look like an outbox: {', '.join(names)}.",
            f"Name one of them, such as `dlq try --table {quote(names[0])}`.",
        )
    facts = known[0].facts
    connection.names = replace(
        connection.names, outbox_schema=facts.schema, outbox_table=facts.table
    )
    others = [proposed.facts.full_name for proposed in found if proposed is not known[0]]
    return replace(known[0], others=tuple(others))


def _has_rows(proposed: _Proposed) -> bool:
    """Return whether a table has rows, as far as its states were counted."""
    counted = proposed.facts.states.values()
    return not counted or any(state.rows for states in counted for state in states)


class _Trial:
    """Reads a table in the transaction of its connection."""

    def __init__(self, connection: Connection, proposed: _Proposed, given: TrialTable) -> None:
        self._connection, self._proposed = connection, proposed.mapping
        self._facts, self._given, self._others = proposed.facts, given, proposed.others
        table = require_table(connection)
        self._hides_rows = table.row_security.applies
        self._shape = MappingProxyType(
            build_reading_shape(proposed.mapping.mapping, list_mapped_facts(table))
        )

    def read(
        self, *, now: datetime, zone: tzinfo, is_hidden: IsHiddenPath, redact: RedactTexts
    ) -> Trial:
        """Read everything."""
        counted = self._run("trial.count", scanned=SCANNED_ROWS).fetchall()[0]
        groups, classified, without_error = self._group_dead_events(zone)
        ranked = sorted(groups.items(), key=lambda item: (-item[1].dead, item[0].id))
        today = convert_to_zone(now, zone).date()
        days = tuple(today - timedelta(days=ago) for ago in reversed(range(DAYS)))
        explained = self._explain(dict(ranked[:_EXPLAINED]), zone, is_hidden)
        return Trial(
            table=self._facts.full_name,
            mapping=self._proposed,
            others=self._others,
            events=counted["events"],
            is_complete=counted["events"] < SCANNED_ROWS,
            dead=counted["dead"],
            delivered=counted["delivered"],
            both=counted["both"],
            hides_rows=self._hides_rows,
            absent_states=tuple(self._list_absent_states()),
            unmapped_states=tuple(self._list_unmapped_states()),
            classified=classified,
            without_error=without_error,
            days=days,
            causes=tuple(
                _build_cause(key, group, days, explained.get(key), redact) for key, group in ranked
            ),
        )

    def _run(self, name: str, **values: Any) -> psycopg.Cursor[DictRow]:
        statement = render_statement(self._connection.names, name, self._shape)
        return self._connection.execute(statement, values)

    def _list_absent_states(self) -> Iterator[str]:
        """Yield the states that a person named and that no row has, such as a misspelled one."""
        column = find_state_column(self._proposed.mapping.dead)
        counted = self._facts.states.get(column or "", ())
        if counted:  # empty: the states could not be counted in time
            seen = {state.value for state in counted if state.rows}
            for value in (*self._given.dead_values, *self._given.delivered_values):
                if str(value) not in seen:
                    yield str(value)

    def _list_unmapped_states(self) -> Iterator[StateCount]:
        """Yield the states of rows that no condition of the mapping names."""
        mapping = self._proposed.mapping
        column = find_state_column(mapping.dead)
        if column is not None:
            known = list_known_values(mapping).get(column, set())
            for state in self._facts.states.get(column, ()):
                if state.rows and state.value not in known:
                    yield state

    def _stream(self, name: str, **values: Any) -> Iterator[DictRow]:
        """Yield rows without holding all of them: errors of 50,000 events can be a gigabyte."""
        statement = render_statement(self._connection.names, name, self._shape)
        with self._connection.cursor(name="dlq_trial") as cursor:
            cursor.itersize = _FETCHED
            cursor.execute(statement, values)
            yield from cursor

    def _group_dead_events(self, zone: tzinfo) -> tuple[dict[CauseKey, _Group], int, int]:
        """Return the dead events by cause, their number, and how many have no error text."""
        groups: dict[CauseKey, _Group] = {}
        classified = without_error = 0
        for row in self._stream(
            "trial.dead", scanned=SCANNED_ROWS, limit=CLASSIFIED_EVENTS, half=_HALF
        ):
            classified += 1
            text = row["error"] or ""
            without_error += not text.strip()
            key = compute_cause_key(text)
            group = groups.setdefault(key._replace(detail=""), _Group(text))
            group.dead += 1
            group.details[key.detail] += bool(key.detail)
            group.types[row["event_type"]] += 1
            if len(group.ids) < _COMPARED:
                group.ids.append(row["event_id"])
            if (at := row["died_at"]) is not None:
                group.days[convert_to_zone(at, zone).date()] += 1
                group.last_death = at if group.last_death is None else max(group.last_death, at)
        return groups, classified, without_error

    def _explain(
        self, groups: dict[CauseKey, _Group], zone: tzinfo, is_hidden: IsHiddenPath
    ) -> dict[CauseKey, CauseExplanation]:
        """Explain causes; none if the mapping has no payload."""
        if self._proposed.mapping.payload is None or not groups:
            return {}
        types = {name for group in groups.values() for name, _ in group.types.most_common(_TYPES)}
        delivered: defaultdict[str, list[str]] = defaultdict(list)
        for row in self._run(
            "trial.delivered",
            scanned=SCANNED_ROWS,
            types=sorted(types),
            # At least ten of each: fewer separate nothing.
            limit=max(_MOST_DELIVERED // len(types), 10),
        ):
            delivered[row["event_type"]].append(row["event_id"])
        dead = [id_ for group in groups.values() for id_ in group.ids]
        samples = self._read_samples([*(id_ for ids in delivered.values() for id_ in ids), *dead])
        return {
            key: self._explain_group(key, group, delivered, samples, zone, is_hidden)
            for key, group in groups.items()
        }

    def _read_samples(self, ids: list[str]) -> dict[str, EventSample]:
        rows = self._run("trial.payloads", ids=ids, max_length=_MAX_PAYLOAD_LENGTH)
        return {row.pop("event_id"): EventSample(**row) for row in rows}

    def _explain_group(
        self,
        key: CauseKey,
        group: _Group,
        delivered: dict[str, list[str]],
        samples: dict[str, EventSample],
        zone: tzinfo,
        is_hidden: IsHiddenPath,
    ) -> CauseExplanation:
        types = [name for name in group.types if delivered.get(name)] or list(group.types)
        dead = [samples[id_] for id_ in group.ids if id_ in samples]
        return CauseExplanation(
            key.id,
            None,
            tuple(sorted(types)),
            find_separation(
                [sample for sample in dead if sample.event_type in types],
                [
                    samples[id_]
                    for name in types
                    for id_ in delivered.get(name, ())
                    if id_ in samples
                ],
                is_hidden=is_hidden,
                local_hour=lambda at: convert_to_zone(at, zone).hour,
            ),
        )


def _build_cause(
    key: CauseKey,
    group: _Group,
    days: Sequence[date],
    explained: CauseExplanation | None,
    redact: RedactTexts,
) -> TrialCause:
    found = compute_fingerprint(group.sample)
    details = [(name, count) for name, count in group.details.most_common(1) if name]
    title = build_title(found.exception_type, found.template, details, deaths=group.dead)
    findings = explained.separation.findings if explained else ()
    return TrialCause(
        id=key.id,
        title=redact([title])[0],
        is_transient=is_transient(found),
        dead=group.dead,
        event_types=tuple(name for name, _ in group.types.most_common()),
        last_death=group.last_death,
        days=tuple(group.days[day] for day in days),
        explanation=str(explained) if explained else "",
        where=findings[0].where if findings else None,
    )
