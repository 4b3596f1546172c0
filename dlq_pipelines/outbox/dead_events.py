"""Which events are dead now, and how many, of what? Every face's list and figures are these.

A list is read by key, the latest death first, so its last page costs what its first one does. Figures are counted, not
estimated: all of them in one snapshot.
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

from dlq_pipelines.outbox.event import OutboxEvent
from dlq_pipelines.outbox.selection import Selection, build_selection_parameters
from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.text import RawJson
from dlq_pipelines.validate import validate_not_negative, validate_positive

ALL_DEAD_EVENTS = Selection(all=True)
# Of a list, the most that one answer holds.
MAX_PAGE_SIZE = 1_000
# Rows that one statement looks through for events that a selection means.
_LOOK = 5_000
# Ages in the figures are told apart at these: an hour, a day, a week, thirty days.
AGE_BOUNDS = (3_600, 86_400, 604_800, 2_592_000)
_AGES = ("hour", "day", "week", "month")
# Of types and causes, so many are told, the largest first.
_TOLD = 100
# Characters of a payload and of an error in a list: what a worker of ours stores of an error is never cut.
_LONGEST = 66_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_KEY = struct.Struct(">qq")


@dataclass(frozen=True)
class DeadEvent(OutboxEvent):
    """A dead event in a list, of a bounded length.

    Attributes:
        payload: unread JSON; None where the column is null.
        payload_as_text: its payload is the text of that JSON, of which at most the first 66,000 characters: whole it is
            longer, has more than 100 levels or a number of more than 1,000 digits, at which readers fail.
        last_error_cut: `last_error` is the first 66,000 characters of a longer text.
        cause_id: the cause that its death is shown as; None: not classified yet.
    """

    payload_as_text: bool = False
    last_error_cut: bool = False
    cause_id: str | None = None


@dataclass(frozen=True)
class DeadEventPage:
    """Some dead events, and where the next page begins; None: this is the last."""

    events: tuple[DeadEvent, ...]
    next: str | None


class StatsDimension(StrEnum):
    """What dead events can be counted by."""

    EVENT_TYPE = "event_type"
    AGGREGATE_TYPE = "aggregate_type"
    CAUSE = "cause"
    AGE = "age"


@dataclass(frozen=True)
class NamedCount:
    """How many are of one type or cause; None: not classified yet."""

    name: str | None
    events: int


@dataclass(frozen=True)
class AgeCount:
    """How many died so many seconds ago: at least the first and less than the second; None: or longer ago."""

    from_seconds: int
    below_seconds: int | None
    events: int


@dataclass(frozen=True)
class DeadEventStats:
    """How many events are dead, exactly, as of one moment.

    Attributes:
        total: all that the selection means.
        by_event_type: the hundred largest, as `by_aggregate_type` and `by_cause`; empty where it was not asked for.
        by_age: since the last death.
    """

    total: int
    by_event_type: tuple[NamedCount, ...] = ()
    by_aggregate_type: tuple[NamedCount, ...] = ()
    by_cause: tuple[NamedCount, ...] = ()
    by_age: tuple[AgeCount, ...] = ()


def list_dead_events(
    connection: Connection,
    selection: Selection = ALL_DEAD_EVENTS,
    *,
    limit: int = 100,
    offset: int = 0,
    after: str | None = None,
) -> DeadEventPage:
    """Dead events, the latest death first.

    Args:
        connection: in autocommit mode.
        selection: which of them.
        limit: how many at most, 1 to 1,000.
        offset: how many to leave out. Costs as much as they do; `after` costs nothing.
        after: `next` of the page before.

    Raises:
        ValueError: a figure is out of its bounds, `after` is none of a page's, or an offset was given beside it.
    """
    wanted = validate_positive("limit", limit, most=MAX_PAGE_SIZE) + 1
    skipped = validate_not_negative("offset", offset, most=2**31 - 1)
    if after is not None and skipped:
        raise ValueError("offset and after were both given: leave one of them out")
    key: tuple[Any, int] = ("infinity", 2**63 - 1) if after is None else _read(after)
    plain = _reads_outbox_only(selection)
    asked = _build_parameters(connection, selection)
    with connection.transaction():
        connection.run("session.one_moment")
        ids = _find(connection, asked, key, wanted=wanted, skipped=skipped, plain=plain)
        rows = connection.run("dead_event.events", ids=ids[:limit], longest=_LONGEST).fetchall()
    events = tuple(_listed(row) for row in rows)
    return DeadEventPage(events, _write(events[-1]) if len(ids) > limit else None)


def _listed(row: DictRow) -> DeadEvent:
    payload = RawJson(row["payload"])
    as_text = row.pop("payload_cut") or not payload.is_portable()
    return DeadEvent.from_row(
        row | {"payload": payload.text if as_text else payload, "payload_as_text": as_text}
    )


def count_dead_events(connection: Connection, selection: Selection = ALL_DEAD_EVENTS) -> int:
    """How many events are dead that the selection means."""
    return get_dead_event_stats(connection, selection, now=_EPOCH, by=()).total


def get_dead_event_stats(
    connection: Connection,
    selection: Selection = ALL_DEAD_EVENTS,
    *,
    now: datetime,
    by: Collection[StatsDimension] = tuple(StatsDimension),
) -> DeadEventStats:
    """How many events are dead, counted in one snapshot.

    Args:
        connection: in autocommit mode.
        selection: which of them.
        now: the moment from which ages are counted.
        by: what to count them by. By cause takes longest: the causes are in the ledger and not in the outbox.
    """
    since = {
        name: now - timedelta(seconds=age) for name, age in zip(_AGES, AGE_BOUNDS, strict=True)
    }
    asked = {
        **_build_parameters(connection, selection),
        "now": now,
        "bounds": list(AGE_BOUNDS),
        **since,
    }
    with connection.transaction():
        connection.run("session.one_moment")
        counted = (
            _counted(connection, asked, by)
            if _reads_outbox_only(selection)
            else _counted_any(connection, asked)
        )
    total = max(
        side.total() for side in counted.values()
    )  # of each that was counted it is the same
    sides = {f"by_{side}": _largest(counted[side]) for side in by if side is not StatsDimension.AGE}
    return DeadEventStats(
        total,
        **sides,
        by_age=_aged(counted[StatsDimension.AGE]) if StatsDimension.AGE in by else (),
    )


def _reads_outbox_only(selection: Selection) -> bool:
    """Whether types and times alone select the events, which the outbox table itself has."""
    return selection.to_json().keys() <= {"event_type", "aggregate_type", "since", "until", "all"}


def _build_parameters(connection: Connection, selection: Selection) -> dict[str, Any]:
    return {
        **build_selection_parameters(connection, selection, before=None),
        "event_type": selection.event_type,
        "aggregate_type": selection.aggregate_type,
        "since": selection.since,
        "until": selection.until,
    }


def _find(
    connection: Connection,
    asked: dict[str, Any],
    key: tuple[Any, int],
    *,
    wanted: int,
    skipped: int,
    plain: bool,
) -> list[int]:
    """The ids of the next `wanted` events after so many others. Of a plain selection, PostgreSQL leaves these out."""
    found: list[int] = []
    offset, past = (skipped, 0) if plain else (0, skipped)
    rows = min(_LOOK, wanted + past)
    while True:
        before = {"before_time": key[0], "before_id": key[1]}
        page = connection.fetch_one("dead_event.look", **asked, **before, rows=rows, offset=offset)
        found += page["ids"]
        # What is left out is forgotten at once, so memory stays that of a page.
        past, found = past - min(past, len(found)), found[min(past, len(found)) :]
        if len(found) >= wanted or page["rows"] < rows:
            return found[:wanted]
        key, offset, rows = (page["last_time"], page["last_id"]), 0, _LOOK


def _counted(
    connection: Connection, asked: dict[str, Any], by: Collection[StatsDimension]
) -> dict[StatsDimension, Counter[Any]]:
    """By types and ages from the indexes of the outbox table, by cause from the ledger: what is asked for."""
    counted: dict[StatsDimension, Counter[Any]] = {side: Counter() for side in StatsDimension}
    if not by or {StatsDimension.EVENT_TYPE, StatsDimension.AGGREGATE_TYPE} & {*by}:
        for row in connection.run("dead_event.types", **asked):
            counted[StatsDimension.EVENT_TYPE][row["event_type"]] += row["events"]
            counted[StatsDimension.AGGREGATE_TYPE][row["aggregate_type"]] += row["events"]
    if StatsDimension.AGE in by:
        counted[StatsDimension.AGE] = Counter(
            {row["bound"]: row["events"] for row in connection.run("dead_event.ages", **asked)}
        )
    if StatsDimension.CAUSE in by:
        rows = connection.run("dead_event.causes", **asked)
        counted[StatsDimension.CAUSE] = Counter({row["cause_id"]: row["events"] for row in rows})
    return counted


def _counted_any(
    connection: Connection, asked: dict[str, Any]
) -> dict[StatsDimension, Counter[Any]]:
    counted: dict[StatsDimension, Counter[Any]] = {side: Counter() for side in StatsDimension}
    columns = {
        0b0111: (StatsDimension.EVENT_TYPE, "event_type"),
        0b1011: (StatsDimension.AGGREGATE_TYPE, "aggregate_type"),
        0b1101: (StatsDimension.CAUSE, "cause_id"),
        0b1110: (StatsDimension.AGE, "bound"),
    }
    for row in connection.run("dead_event.selected", **asked):
        side, column = columns[row["side"]]
        counted[side][row[column]] = row["events"]
    return counted


def _largest(counted: Counter[str | None]) -> tuple[NamedCount, ...]:
    most = sorted(counted.items(), key=lambda one: (-one[1], one[0] or ""))
    return tuple(NamedCount(name, events) for name, events in most[:_TOLD])


def _aged(counted: Counter[float | None]) -> tuple[AgeCount, ...]:
    """Below each bound, and without one: older than all of them."""
    return tuple(
        AgeCount(start, end, counted[end])
        for start, end in zip((0, *AGE_BOUNDS), (*AGE_BOUNDS, None), strict=True)
    )


def _write(event: DeadEvent) -> str:
    """The key of an event as an opaque text."""
    assert event.dead_at is not None  # noqa: S101 - it is dead
    micros = (event.dead_at - _EPOCH) // timedelta(microseconds=1)
    return base64.urlsafe_b64encode(_KEY.pack(micros, event.id)).decode().rstrip("=")


def _read(after: str) -> tuple[datetime, int]:
    try:
        micros, event_id = _KEY.unpack(base64.urlsafe_b64decode(after + "=" * (-len(after) % 4)))
        return _EPOCH + timedelta(microseconds=micros), event_id
    except (binascii.Error, struct.error, ValueError, OverflowError):
        raise ValueError(
            "after is none that a page gave as its `next`: take it from there, or leave it out"
        ) from None
