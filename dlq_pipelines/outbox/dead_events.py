"""Lists and counts dead events, for every face.

Lists are read by keyset pagination, the latest death first, so the last page costs what the first
does. Counts are exact and read in one snapshot. They are counted on demand: total and types of a
million dead events take 45 to 57 ms, ages as long again, causes 0.6 s. Counters in the worker's
transaction would make workers wait for each other, and an update by hand would make them wrong.
"""

import base64
import binascii
import struct
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from psycopg.rows import DictRow

from dlq_pipelines.day import AFTER_ALL_TIMES, BEFORE_ALL_TIMES
from dlq_pipelines.outbox.event import OutboxEvent
from dlq_pipelines.outbox.selection import Selection, build_selection_parameters
from dlq_pipelines.paging import INVALID_CURSOR
from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.text import RawJson
from dlq_pipelines.validate import EventId, parse_event_id, validate_not_negative, validate_positive

ALL_DEAD_EVENTS = Selection(all=True)
# The most events of one page.
MAX_PAGE_SIZE = 1_000
# Rows that one statement reads in search of selected events.
_SCAN_SIZE = 5_000
# Seconds at which ages are split: an hour, a day, a week, thirty days.
AGE_BOUNDS = (3_600, 86_400, 604_800, 2_592_000)
# Types and causes that stats list, the largest first.
_MAX_COUNTS = 100
# Characters of a payload and of an error in a list. Longer than any error that `OutboxRepository`
# stores.
_MAX_TEXT_LENGTH = 66_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_CURSOR = struct.Struct(">qq")
# Time and death of the last event of a page; the time as PostgreSQL compares it.
_Key = tuple[datetime | str, int]
# Pages without an event that is still dead, although no trigger saw it, are skipped: at most so
# many in one call, until the reconciliation has corrected them.
_MAX_EMPTY_PAGES = 100
_FIRST_KEY: _Key = ("infinity", 2**63 - 1)


@dataclass(frozen=True)
class DeadEvent(OutboxEvent):
    """A dead event in a list, with texts of a bounded length.

    Attributes:
        payload: JSON, or a text; null if the column is null or not mapped.
        payload_as_text: whether `payload` is a text, at most its first 66,000 characters, because
            it is longer, no JSON, or JSON on which common parsers fail: it has more than 100 levels
            or a number of more than 1,000 digits.
        last_error_cut: whether `last_error` is the first 66,000 characters of a longer text.
        cause_id: the cause that its death is shown as; None: not classified yet.
        detail: what its error names, such as a missing key; empty if it names nothing.
    """

    payload_as_text: bool = False
    last_error_cut: bool = False
    cause_id: str | None = None
    detail: str | None = None


@dataclass(frozen=True)
class DeadEventPage:
    """A page of dead events; `next` is the `after` of the next page, None on the last one."""

    events: tuple[DeadEvent, ...]
    next: str | None


@dataclass(frozen=True)
class OtherEvent:
    """An event that is not dead.

    Attributes:
        state: `waiting for a worker`, `with a worker`, `delivered`, `archived`, `deleted`, or
            `unknown`: neither the outbox nor the archive nor the ledger has it.
    """

    event_id: EventId
    state: str


class StatsDimension(StrEnum):
    """What dead events can be counted by."""

    EVENT_TYPE = "event_type"
    AGGREGATE_TYPE = "aggregate_type"
    CAUSE = "cause"
    AGE = "age"


@dataclass(frozen=True)
class NamedCount:
    """Events of one type or cause; a `name` of None: not classified yet."""

    name: str | None
    events: int


@dataclass(frozen=True)
class AgeCount:
    """Events of one age, from `from_seconds` to below `below_seconds`; None: no upper bound."""

    from_seconds: int
    below_seconds: int | None
    events: int


@dataclass(frozen=True)
class DeadEventStats:
    """Exact counts of dead events, from one snapshot.

    Attributes:
        total: all selected events.
        by_event_type: the hundred largest counts; empty if not asked for.
        by_aggregate_type: the hundred largest counts; empty if not asked for.
        by_cause: the hundred largest counts; empty if not asked for.
        by_age: counts by the time since the last death; empty if not asked for.
    """

    total: int
    by_event_type: tuple[NamedCount, ...] = ()
    by_aggregate_type: tuple[NamedCount, ...] = ()
    by_cause: tuple[NamedCount, ...] = ()
    by_age: tuple[AgeCount, ...] = ()


def list_other_events(connection: Connection, ids: Collection[EventId]) -> list[OtherEvent]:
    """Return those of the named events that are not dead, and what they are instead.

    Args:
        connection: to the outbox.
        ids: at most as many as a change takes.
    """
    texts = [str(id_) for id_ in dict.fromkeys(ids)]
    return [
        OtherEvent(parse_event_id(row["event_id"]), row["state"])
        for row in connection.run("dead_event.others", event_ids=texts)
    ]


def list_dead_events(
    connection: Connection,
    selection: Selection = ALL_DEAD_EVENTS,
    *,
    limit: int = 100,
    offset: int = 0,
    after: str | None = None,
) -> DeadEventPage:
    """Return dead events, the latest death first. Their payloads keep their JSON text.

    Args:
        connection: in autocommit mode.
        selection: list only selected events.
        limit: 1 to 1,000 events.
        offset: events to skip. They cost as much as events that are listed; prefer `after`.
        after: the `next` value of the previous page.

    Raises:
        ValueError: a number is out of its bounds, the cursor is invalid, or both `offset` and
            `after` were given.
    """
    wanted = validate_positive("limit", limit, most=MAX_PAGE_SIZE) + 1
    skipped = validate_not_negative("offset", offset, most=2**31 - 1)
    if after is not None and skipped:
        raise ValueError("offset cannot be combined with after: leave one of them out")
    key = _FIRST_KEY if after is None else _decode_cursor(after)
    plain = _reads_dead_only(selection)
    parameters = _build_parameters(connection, selection)
    with connection.snapshot():
        for _ in range(_MAX_EMPTY_PAGES):
            deaths = _find_deaths(
                connection, parameters, key, wanted=wanted, skipped=skipped, plain=plain
            )
            rows = connection.run(
                "dead_event.events", deaths=deaths[:limit], longest=_MAX_TEXT_LENGTH
            ).fetchall()
            events = tuple(_build_listed_event(row) for row in rows if row["id"] is not None)
            following = _encode_cursor(rows[-1]) if len(deaths) > limit else None
            if events or following is None:
                break
            key, skipped = _decode_cursor(following), 0
    return DeadEventPage(events, following)


def _build_listed_event(row: DictRow) -> DeadEvent:
    text, is_cut = row["payload"], row.pop("payload_cut")
    payload = None if text is None else RawJson(text)
    as_text = payload is not None and (is_cut or not payload.is_portable())
    return DeadEvent.from_row(
        row | {"payload": text if as_text else payload, "payload_as_text": as_text}
    )


def count_dead_events(connection: Connection, selection: Selection = ALL_DEAD_EVENTS) -> int:
    """Return the number of selected dead events."""
    return get_dead_event_stats(connection, selection, now=_EPOCH, by=()).total


def get_dead_event_stats(
    connection: Connection,
    selection: Selection = ALL_DEAD_EVENTS,
    *,
    now: datetime,
    by: Collection[StatsDimension] = tuple(StatsDimension),
) -> DeadEventStats:
    """Count dead events in one snapshot.

    Args:
        connection: in autocommit mode.
        selection: count only selected events.
        now: the time from which ages are counted.
        by: dimensions to count by. Causes take longest, because they are in the ledger.
    """
    hour, day, week, month = (now - timedelta(seconds=age) for age in AGE_BOUNDS)
    parameters = {
        **_build_parameters(connection, selection),
        "now": now,
        "bounds": list(AGE_BOUNDS),
        "hour": hour,
        "day": day,
        "week": week,
        "month": month,
    }
    with connection.snapshot():
        counted = (
            _count_dead(connection, parameters, by)
            if _reads_dead_only(selection)
            else _count_selected(connection, parameters)
        )

    def largest(dimension: StatsDimension) -> tuple[NamedCount, ...]:
        return _list_largest(counted[dimension]) if dimension in by else ()

    return DeadEventStats(
        # Every dimension that was counted has the same total.
        total=max(counts.total() for counts in counted.values()),
        by_event_type=largest(StatsDimension.EVENT_TYPE),
        by_aggregate_type=largest(StatsDimension.AGGREGATE_TYPE),
        by_cause=largest(StatsDimension.CAUSE),
        by_age=_list_ages(counted[StatsDimension.AGE]) if StatsDimension.AGE in by else (),
    )


def _reads_dead_only(selection: Selection) -> bool:
    """Return whether the columns of `dlq.dead_now` alone select the events."""
    return selection.to_json().keys() <= {"event_type", "aggregate_type", "since", "until", "all"}


def _build_parameters(connection: Connection, selection: Selection) -> dict[str, Any]:
    return {
        **build_selection_parameters(connection, selection, before=None),
        "event_type": selection.event_type,
        "aggregate_type": selection.aggregate_type,
        "since": selection.since,
        "until": selection.until,
    }


def _find_deaths(
    connection: Connection,
    parameters: dict[str, Any],
    key: _Key,
    *,
    wanted: int,
    skipped: int,
    plain: bool,
) -> list[int]:
    """Return the deaths of the next `wanted` events after `skipped` others.

    For a plain selection PostgreSQL skips them; otherwise they are read and dropped.
    """
    found: list[int] = []
    offset, past = (skipped, 0) if plain else (0, skipped)
    rows = min(_SCAN_SIZE, wanted + past)
    while True:
        before = {"before_time": key[0], "before_id": key[1]}
        page = connection.fetch_one(
            "dead_event.look", **parameters, **before, rows=rows, offset=offset
        )
        found += page["deaths"]
        # Skipped deaths are dropped at once, so memory stays that of a page.
        past, found = past - min(past, len(found)), found[min(past, len(found)) :]
        if len(found) >= wanted or page["rows"] < rows:
            return found[:wanted]
        key, offset, rows = _build_key(page["last_time"], page["last_id"]), 0, _SCAN_SIZE


def _count_dead(
    connection: Connection, parameters: dict[str, Any], by: Collection[StatsDimension]
) -> dict[StatsDimension, Counter[Any]]:
    """Count types and ages by the indexes of the outbox table, causes by the ledger."""
    counted: dict[StatsDimension, Counter[Any]] = {side: Counter() for side in StatsDimension}
    if not by or {StatsDimension.EVENT_TYPE, StatsDimension.AGGREGATE_TYPE} & {*by}:
        for row in connection.run("dead_event.types", **parameters):
            counted[StatsDimension.EVENT_TYPE][row["event_type"]] += row["events"]
            counted[StatsDimension.AGGREGATE_TYPE][row["aggregate_type"]] += row["events"]
    if StatsDimension.AGE in by:
        counted[StatsDimension.AGE] = Counter(
            {row["bound"]: row["events"] for row in connection.run("dead_event.ages", **parameters)}
        )
    if StatsDimension.CAUSE in by:
        rows = connection.run("dead_event.causes", **parameters)
        counted[StatsDimension.CAUSE] = Counter({row["cause_id"]: row["events"] for row in rows})
    return counted


def _count_selected(
    connection: Connection, parameters: dict[str, Any]
) -> dict[StatsDimension, Counter[Any]]:
    counted: dict[StatsDimension, Counter[Any]] = {side: Counter() for side in StatsDimension}
    columns = {
        0b0111: (StatsDimension.EVENT_TYPE, "event_type"),
        0b1011: (StatsDimension.AGGREGATE_TYPE, "aggregate_type"),
        0b1101: (StatsDimension.CAUSE, "cause_id"),
        0b1110: (StatsDimension.AGE, "bound"),
    }
    for row in connection.run("dead_event.selected", **parameters):
        side, column = columns[row["side"]]
        counted[side][row[column]] = row["events"]
    return counted


def _list_largest(counted: Counter[str | None]) -> tuple[NamedCount, ...]:
    most = sorted(counted.items(), key=lambda one: (-one[1], one[0] or ""))
    return tuple(NamedCount(name, events) for name, events in most[:_MAX_COUNTS])


def _list_ages(counted: Counter[float | None]) -> tuple[AgeCount, ...]:
    """Return the count below each bound, and that of older events."""
    return tuple(
        AgeCount(start, end, counted[end])
        for start, end in zip((0, *AGE_BOUNDS), (*AGE_BOUNDS, None), strict=True)
    )


def _build_key(at: datetime, death_id: int) -> _Key:
    """Return the key after which a page begins; an infinite time stays infinite."""
    infinite = {BEFORE_ALL_TIMES: "-infinity", AFTER_ALL_TIMES: "infinity"}
    return infinite.get(at, at), death_id


def _encode_cursor(row: DictRow) -> str:
    """Return the cursor of a listed event, its last death, as an opaque text."""
    micros = (row["dead_at"] - _EPOCH) // _MICROSECOND
    return base64.urlsafe_b64encode(_CURSOR.pack(micros, row["death_id"])).decode().rstrip("=")


def _decode_cursor(after: str) -> _Key:
    try:
        micros, death_id = _CURSOR.unpack(base64.urlsafe_b64decode(after + "=" * (-len(after) % 4)))
        return _build_key(_EPOCH + micros * _MICROSECOND, death_id)
    except (binascii.Error, struct.error, ValueError, OverflowError):
        raise ValueError(INVALID_CURSOR) from None
