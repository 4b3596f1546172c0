"""Defines which dead events a command selects. Each filter is declared here once."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime, tzinfo
from typing import TYPE_CHECKING, Any, Self

from dlq_pipelines.day import convert_to_zone, format_time, parse_past_time
from dlq_pipelines.errors import NotFoundError, RefusedError
from dlq_pipelines.outbox.payload_filter import parse_payload_filter
from dlq_pipelines.validate import (
    INTEGER_MAX,
    EventId,
    parse_event_id,
    validate_aware,
    validate_event_ids,
    validate_not_blank,
    validate_not_negative,
    validate_storable,
)

if TYPE_CHECKING:  # the command line declares its filters before it needs a database
    from dlq_pipelines.postgres.connect import Connection

_MAX_TEXT_LENGTH = 1_000
_MAX_IDS = 10_000
_LISTED_IDS = 10
_TIME = "TIME"
# Columns of dlq.fix whose names differ from those of their filters.
_COLUMNS = {"cause": "cause_id"}


def _filter(description: str, label: str, given_as: type, metavar: str | None = None) -> Any:
    """Declare a filter.

    Args:
        description: its help in every face.
        label: names the filter in a sentence, such as `cause v2-...`.
        given_as: the type that a face accepts; a time is given as text.
        metavar: names its value in the help of the command line; a time is `_TIME`.
    """
    return field(
        default=None,
        metadata={
            "description": description,
            "label": label,
            "given_as": given_as,
            "metavar": metavar,
            "is_time": metavar == _TIME,
        },
    )


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Dead events that match every filter given here. A filter that is None matches all of them.

    Attributes:
        cause: events of this cause, or of a cause that is merged into it.
        detail: events whose error names this detail, such as a missing key, as stored in the
            ledger; of the cause if one is given.
        event_type: events of this type.
        aggregate_type: events of this type of aggregate.
        aggregate_id: events of the aggregate with this id.
        error_contains: events whose error contains this text, case-sensitive, at most 1,000
            characters.
        where: events whose payload matches this jsonpath predicate of PostgreSQL, at most 1,000
            characters. `build` accepts the short form `PATH=VALUE` too. It reads the payload of
            each event that the other filters select.
        attempts: events that died after exactly this many attempts.
        since: events that died at or after this time.
        until: events that died before this time.
        event_ids: these events, at most 10,000.
        all: all dead events. Explicit, because an empty filter may be a forgotten one.

    Raises:
        ValueError: there is neither a filter nor `all`, or there are both; a text is blank or too
            long; a time has no time zone; `since` is not before `until`.
    """

    cause: str | None = _filter(
        "Events of this cause, as `dlq causes list` lists it.", "cause", str, "CAUSE"
    )
    detail: str | None = _filter(
        "Events whose error names this detail, as `dlq causes show` lists it.", "detail", str
    )
    event_type: str | None = _filter("Events of this type.", "event type", str)
    aggregate_type: str | None = _filter("Events of this type of aggregate.", "aggregate type", str)
    aggregate_id: str | None = _filter(
        "Events of the aggregate with this id.", "aggregate id", str, "ID"
    )
    error_contains: str | None = _filter(
        "Events whose error contains this text, case-sensitive.", "error with", str, "TEXT"
    )
    where: str | None = _filter(
        "Events whose payload has this value, such as '$.acquirer=northbank', or matches this "
        "jsonpath predicate, such as '$.amount > 1000 && exists($.card)'.",
        "where",
        str,
        "PATH=VALUE",
    )
    attempts: int | None = _filter(
        "Events that died after exactly this many attempts.", "attempts", int
    )
    since: datetime | None = _filter(
        "Events that died at or after this time, such as 2h, yesterday, 2026-11-24 or "
        "2026-11-24T18:30. Times without an offset are in the time zone of the outbox.",
        "dead since",
        str,
        _TIME,
    )
    until: datetime | None = _filter(
        "Events that died before this time, given in the same way.", "dead before", str, _TIME
    )
    event_ids: tuple[EventId, ...] | None = None
    all: bool = False

    def __post_init__(self) -> None:
        given = self.to_json()
        filtered = bool(given.keys() - {"all"})
        if self.all and filtered:
            raise ValueError("all cannot be combined with filters: leave one of them out")
        if not self.all and not filtered:
            raise ValueError(
                "no filter was given: pass a cause, a type, ids, a text or times, or all"
            )
        for item in FILTERS:
            if item.name in given:
                _validate_value(item.name, getattr(self, item.name))
        ids = self.event_ids
        if ids is not None and len(validate_event_ids("event_ids", ids)) > _MAX_IDS:
            raise ValueError(f"event_ids must hold at most {_MAX_IDS} ids")
        if self.since is not None and self.until is not None and self.since >= self.until:
            raise ValueError("since must be before until")

    @classmethod
    def build(
        cls,
        given: Mapping[str, Any],
        zone: tzinfo,
        event_ids: Sequence[EventId] | None = None,
        *,
        now: datetime,
        default_all: bool = False,
    ) -> Self:
        """Build a selection from the values that a face was given.

        Args:
            given: the value of each filter by its name, times as text; None where it was not given.
                May hold `all`.
            zone: the time zone of times that name none.
            now: the present time, for times such as `2h` and `yesterday`.
            event_ids: select these events only, a number as a number or a text; empty or None: not
                asked for.
            default_all: select all dead events if nothing was given, for commands that change
                nothing or narrow the selection by themselves.

        Raises:
            ValueError: see the class, or a time cannot be parsed.
        """
        filters = {item.name: given.get(item.name) for item in FILTERS}
        for item in FILTERS:
            if item.metadata["is_time"] and (text := filters[item.name]) is not None:
                filters[item.name] = parse_past_time(item.name, text, zone, now=now)
        if (where := filters["where"]) is not None and where.strip():
            filters["where"] = parse_payload_filter(where)
        if event_ids:
            filters["event_ids"] = tuple(parse_event_id(str(id_)) for id_ in event_ids)
        nothing_given = not any(value is not None for value in filters.values())
        return cls(**filters, all=bool(given.get("all")) or (default_all and nothing_given))

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """Return the selection of a row of `dlq.fix`, without validation.

        A row that was written by hand may have what no face accepts. It must not stop a list. Ids
        that are null are left out, and nested lists are flattened, as `dlq.selects` does.
        """
        selection = object.__new__(cls)
        for item in fields(cls):
            object.__setattr__(selection, item.name, row[_COLUMNS.get(item.name, item.name)])
        if selection.event_ids is not None:
            object.__setattr__(selection, "event_ids", tuple(_flatten_ids(selection.event_ids)))
        return selection

    @property
    def names_only(self) -> bool:
        """Whether it names events by their ids and has no other filter."""
        return self.to_json().keys() == {"event_ids"}

    def __str__(self) -> str:
        """Describe the selection in words, with its texts and times as they were given."""
        return self.describe()

    def describe(self, zone: tzinfo | None = None) -> str:
        """Describe the selection in words, with times in a time zone; None: as they were given."""
        if self.all:
            return "all dead events"
        parts = [
            f"{item.metadata['label']} {_format_value(value, zone)}"
            for item in FILTERS
            if (value := getattr(self, item.name)) is not None
        ]
        if self.event_ids is not None:
            parts.append(f"events {_format_ids(self.event_ids)}")
        return ", ".join(parts)

    def to_json(self) -> dict[str, Any]:
        """Return the filters that were given, as JSON holds them."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return {
            name: value.isoformat() if isinstance(value, datetime) else value
            for name, value in (values | {"all": self.all or None}).items()
            if value is not None
        }

    def to_columns(self) -> dict[str, Any]:
        """Return the filters that were given by their columns in `dlq.fix`."""
        return {_COLUMNS.get(name, name): value for name, value in self.to_json().items()}


# The filters that each face declares. Ids and `all` look different in each face.
FILTERS = tuple(item for item in fields(Selection) if "description" in item.metadata)


def _validate_value(name: str, value: str | int | datetime) -> None:
    match value:
        case str():
            validate_storable(name, validate_not_blank(name, value), most=_MAX_TEXT_LENGTH)
        case datetime():
            validate_aware(name, value)
        case _:
            validate_not_negative(name, value, most=INTEGER_MAX)


def _flatten_ids(ids: Sequence[Any]) -> Iterator[int]:
    for value in ids:
        if isinstance(value, list):
            yield from _flatten_ids(value)
        elif value is not None:
            yield value


def _format_value(value: str | int | datetime, zone: tzinfo | None) -> str:
    if not isinstance(value, datetime):
        return str(value)
    return format_time(value if zone is None else convert_to_zone(value, zone))


def _format_ids(ids: Sequence[EventId]) -> str:
    more = len(ids) - _LISTED_IDS
    return ", ".join(map(str, ids[:_LISTED_IDS])) + (f" and {more:,} more" if more > 0 else "")


def build_selection_parameters(
    connection: "Connection", selection: Selection, *, before: datetime | None
) -> dict[str, Any]:
    """Return the parameters by which a statement finds the selected events.

    Args:
        connection: to the ledger.
        selection: the events.
        before: select deaths before this time; None: at any time.

    Raises:
        NotFoundError: the cause does not exist.
        RefusedError: the cause is merged into another one.
        ValueError: an id has not the type of the keys of this outbox, or `where` is no predicate.
    """
    cause = selection.cause
    if selection.where is not None:
        _validate_where(connection, selection.where)
    ids = list_event_ids(connection, selection)
    flagged_at = None if before is None else before.isoformat()
    return {
        # The row of dlq.fix that dlq.selects() compares a death with.
        "selection": json.dumps({**selection.to_columns(), "flagged_at": flagged_at}),
        # What an index can be asked for.
        "causes": None if cause is None else list_cause_members(connection, cause),
        "detail": selection.detail,
        "event_ids": ids,
    }


def list_event_ids(connection: "Connection", selection: Selection) -> list[str] | None:
    """Return the selected ids as texts; None if the selection names none.

    Raises:
        ValueError: an id has not the type of the keys of this outbox.
    """
    if selection.event_ids is None:
        return None
    ids = [str(id_) for id_ in selection.event_ids]
    connection.run("dead_event.check_ids", event_ids=ids)
    return ids


def _validate_where(connection: "Connection", where: str) -> None:
    from dlq_pipelines.outbox.offers import require_offer

    require_offer(connection, "payloads")
    connection.run("dead_event.check_where", where=where)


def list_cause_members(connection: "Connection", cause: str) -> list[str]:
    """Return the ids of the cause and of the causes that are merged into it.

    Raises:
        NotFoundError: the cause does not exist.
        RefusedError: the cause is merged into another one, which the message names.
    """
    merged_into = {
        row["id"]: row["merged_into"] for row in connection.run("fix.members", cause_id=cause)
    }
    if cause not in merged_into:
        raise build_unknown_cause_error(cause)
    if merged_into[cause] is not None:
        raise build_merged_cause_error(cause, merged_into[cause])
    return list(merged_into)


def build_unknown_cause_error(cause: str) -> NotFoundError:
    """Return the error for a cause that does not exist."""
    return NotFoundError(f"There is no cause {cause!r}.", "`dlq causes list` lists the causes.")


def build_merged_cause_error(cause: str, merged_into: str) -> RefusedError:
    """Return the error for a cause that is merged into another one."""
    return RefusedError(
        f"Cause {cause} is merged into {merged_into}.",
        f"Use {merged_into}, or run `dlq causes split {cause}` to show it on its own.",
    )
