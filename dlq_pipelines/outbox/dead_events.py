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

from dlq_pipelines.outbox.event import OutboxEvent, Selector, not_negative, positive
from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.retries.ledger import means
from dlq_pipelines.text import Json

EVERY = Selector(every=True)
# Of a list, the most that one answer holds.
MOST = 1_000
# Rows that one statement looks through for events that a selector means.
_LOOK = 5_000
# Ages in the figures are told apart at these: an hour, a day, a week, thirty days.
AGES = (3_600, 86_400, 604_800, 2_592_000)
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
class Page:
    """Some dead events, and where the next page begins; None: this is the last."""

    events: tuple[DeadEvent, ...]
    next: str | None


class Side(StrEnum):
    """What dead events can be counted by."""

    EVENT_TYPE = "event_type"
    AGGREGATE_TYPE = "aggregate_type"
    CAUSE = "cause"
    AGE = "age"


@dataclass(frozen=True)
class Counted:
    """How many are of one type or cause; None: not classified yet."""

    name: str | None
    events: int


@dataclass(frozen=True)
class Aged:
    """How many died so many seconds ago: at least the first and less than the second; None: or longer ago."""

    from_seconds: int
    below_seconds: int | None
    events: int


@dataclass(frozen=True)
class Stats:
    """How many events are dead, exactly, as of one moment.

    Attributes:
        total: all that the selector means.
        by_event_type: the hundred largest, as `by_aggregate_type` and `by_cause`; empty where it was not asked for.
        by_age: since the last death.
    """

    total: int
    by_event_type: tuple[Counted, ...] = ()
    by_aggregate_type: tuple[Counted, ...] = ()
    by_cause: tuple[Counted, ...] = ()
    by_age: tuple[Aged, ...] = ()


def list_dead_events(
    connection: Connection,
    selector: Selector = EVERY,
    *,
    limit: int = 100,
    offset: int = 0,
    after: str | None = None,
) -> Page:
    """Dead events, the latest death first.

    Args:
        connection: in autocommit mode.
        selector: which of them.
        limit: how many at most, 1 to 1,000.
        offset: how many to leave out. Costs as much as they do; `after` costs nothing.
        after: `next` of the page before.

    Raises:
        ValueError: a figure is out of its bounds, `after` is none of a page's, or an offset was given beside it.
    """
    wanted = positive("limit", limit, most=MOST) + 1
    skipped = not_negative("offset", offset, most=2**31 - 1)
    if after is not None and skipped:
        raise ValueError("offset and after were both given: leave one of them out")
    key: tuple[Any, int] = ("infinity", 2**63 - 1) if after is None else _read(after)
    plain = _plain(selector)
    asked = _asked(connection, selector)
    with connection.transaction():
        connection.run("session.one_moment")
        ids = _find(connection, asked, key, wanted=wanted, skipped=skipped, plain=plain)
        rows = connection.run("dead_event.events", ids=ids[:limit], longest=_LONGEST).fetchall()
    events = tuple(_listed(row) for row in rows)
    return Page(events, _write(events[-1]) if len(ids) > limit else None)


def _listed(row: DictRow) -> DeadEvent:
    payload = Json(row["payload"])
    as_text = row.pop("payload_cut") or not payload.easily_read()
    return DeadEvent.from_row(row | {"payload": payload.text if as_text else payload, "payload_as_text": as_text})


def count_dead_events(connection: Connection, selector: Selector = EVERY) -> int:
    """How many events are dead that the selector means."""
    return dead_event_stats(connection, selector, now=_EPOCH, by=()).total


def dead_event_stats(
    connection: Connection, selector: Selector = EVERY, *, now: datetime, by: Collection[Side] = tuple(Side)
) -> Stats:
    """How many events are dead, counted in one snapshot.

    Args:
        connection: in autocommit mode.
        selector: which of them.
        now: the moment from which ages are counted.
        by: what to count them by. By cause takes longest: the causes are in the ledger and not in the outbox.
    """
    since = {name: now - timedelta(seconds=age) for name, age in zip(_AGES, AGES, strict=True)}
    asked = {**_asked(connection, selector), "now": now, "bounds": list(AGES), **since}
    with connection.transaction():
        connection.run("session.one_moment")
        counted = _counted(connection, asked, by) if _plain(selector) else _counted_any(connection, asked)
    total = max(side.total() for side in counted.values())  # of each that was counted it is the same
    sides = {f"by_{side}": _largest(counted[side]) for side in by if side is not Side.AGE}
    return Stats(total, **sides, by_age=_aged(counted[Side.AGE]) if Side.AGE in by else ())


def _plain(selector: Selector) -> bool:
    """Whether it asks for types and times alone, which the events themselves know."""
    types = {name: value for name, value in vars(selector).items() if name not in _OF_THE_EVENT}
    return not any(types.values()) and selector.attempts is None


_OF_THE_EVENT = ("event_type", "aggregate_type", "died_since", "died_until", "every")


def _asked(connection: Connection, selector: Selector) -> dict[str, Any]:
    folded = {name: getattr(selector, name) for name in _OF_THE_EVENT if name != "every"}
    return {**means(connection, selector, before=None), **folded}


def _find(  # noqa: PLR0913 - keyword-only past the key
    connection: Connection, asked: dict[str, Any], key: tuple[Any, int], *, wanted: int, skipped: int, plain: bool
) -> list[int]:
    """The ids of the next `wanted` events after so many others. Of a plain selector, PostgreSQL leaves these out."""
    found: list[int] = []
    offset, past = (skipped, 0) if plain else (0, skipped)
    rows = min(_LOOK, wanted + past)
    while True:
        before = {"before_time": key[0], "before_id": key[1]}
        page = connection.one("dead_event.look", **asked, **before, rows=rows, offset=offset)
        found += page["ids"]
        # What is left out is forgotten at once, so memory stays that of a page.
        past, found = past - min(past, len(found)), found[min(past, len(found)) :]
        if len(found) >= wanted or page["rows"] < rows:
            return found[:wanted]
        key, offset, rows = (page["last_time"], page["last_id"]), 0, _LOOK


def _counted(connection: Connection, asked: dict[str, Any], by: Collection[Side]) -> dict[Side, Counter[Any]]:
    """By types and ages from the indexes of the outbox table, by cause from the ledger: what is asked for."""
    counted: dict[Side, Counter[Any]] = {side: Counter() for side in Side}
    if not by or {Side.EVENT_TYPE, Side.AGGREGATE_TYPE} & {*by}:
        for row in connection.run("dead_event.types", **asked):
            counted[Side.EVENT_TYPE][row["event_type"]] += row["events"]
            counted[Side.AGGREGATE_TYPE][row["aggregate_type"]] += row["events"]
    if Side.AGE in by:
        counted[Side.AGE] = Counter({row["bound"]: row["events"] for row in connection.run("dead_event.ages", **asked)})
    if Side.CAUSE in by:
        rows = connection.run("dead_event.causes", **asked)
        counted[Side.CAUSE] = Counter({row["cause_id"]: row["events"] for row in rows})
    return counted


def _counted_any(connection: Connection, asked: dict[str, Any]) -> dict[Side, Counter[Any]]:
    counted: dict[Side, Counter[Any]] = {side: Counter() for side in Side}
    columns = {
        0b0111: (Side.EVENT_TYPE, "event_type"),
        0b1011: (Side.AGGREGATE_TYPE, "aggregate_type"),
        0b1101: (Side.CAUSE, "cause_id"),
        0b1110: (Side.AGE, "bound"),
    }
    for row in connection.run("dead_event.selected", **asked):
        side, column = columns[row["side"]]
        counted[side][row[column]] = row["events"]
    return counted


def _largest(counted: Counter[str | None]) -> tuple[Counted, ...]:
    most = sorted(counted.items(), key=lambda one: (-one[1], one[0] or ""))
    return tuple(Counted(name, events) for name, events in most[:_TOLD])


def _aged(counted: Counter[float | None]) -> tuple[Aged, ...]:
    """Below each bound, and without one: older than all of them."""
    return tuple(Aged(start, end, counted[end]) for start, end in zip((0, *AGES), (*AGES, None), strict=True))


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
        raise ValueError("after is none that a page gave as its `next`: take it from there, or leave it out") from None
