"""Reads the history of one event: its deaths, its retries, and where it is now."""

from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from dlq_pipelines.errors import NotFoundError
from dlq_pipelines.outbox.event import OutboxEvent
from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.retries.fix import Fix
from dlq_pipelines.retries.fixes import build_fix
from dlq_pipelines.text import RawJson, is_json
from dlq_pipelines.validate import EventId, validate_event_id

# Deaths and retries of an event that are read, the latest ones.
_MAX_ROWS = 100


@dataclass(frozen=True)
class EventDeath:
    """One death of the event.

    Attributes:
        attempts: the worker's attempts before the death.
        cause_id: the cause that the death is shown as; None: not classified yet.
        detail: what the error names, such as a missing key; empty if it names nothing.
        discarded_at: when a person discarded the event; `discarded_by` and `discard_reason` say who
            and why.
    """

    id: int
    died_at: datetime
    attempts: int
    cause_id: str | None
    detail: str | None
    error: str | None
    discarded_at: datetime | None
    discarded_by: str | None
    discard_reason: str | None


@dataclass(frozen=True)
class EventRetry:
    """One retry of the event.

    Attributes:
        death_id: the death after which the event was retried.
        fix_id: the fix that released the event in `stage`; None: a person retried it.
        payload_before: the payload that a person replaced, not parsed; None: it was not replaced.
        outcome: delivered, died_again, timed_out, deleted or recalled; None: not known yet.
        recalled_by: who recalled the event, and `recall_reason` why.
    """

    death_id: int
    fix_id: int | None
    stage: int | None
    actor: str
    reason: str
    retried_at: datetime
    due_at: datetime
    payload_before: Any
    outcome: str | None
    settled_at: datetime | None
    recalled_by: str | None
    recall_reason: str | None


@dataclass(frozen=True)
class EventHistory:
    """The history of an event that died.

    Attributes:
        place: where the event is: `outbox`, `archive`, `purged` (deleted from the archive by
            retention) or `gone` (in neither table).
        event: the event as it is there; None: the event is in neither table. Its payload is a
            `RawJson`, or a text if it is no JSON, as `payload_before` is.
        deaths: at most the last hundred, the latest first.
        retries: at most the last hundred, the latest first.
        fix: an open fix that targets the event, or the last fix that released it.
    """

    event_id: EventId
    place: str
    event: OutboxEvent | None
    deaths: tuple[EventDeath, ...]
    retries: tuple[EventRetry, ...]
    fix: Fix | None

    def to_record(self) -> dict[str, Any]:
        """Return the event's fields and those of its history on one level."""
        event: dict[str, Any] = dict.fromkeys(item.name for item in fields(OutboxEvent))
        if self.event is not None:
            event |= vars(self.event)
        return event | {
            "id": self.event_id,
            "payload_as_text": isinstance(event["payload"], str),
            "place": self.place,
            "deaths": self.deaths,
            "retries": self.retries,
            "fix": self.fix,
        }


def get_event_history(connection: Connection, event_id: EventId) -> EventHistory:
    """Return the history of an event, read in one snapshot. Payloads are of the class `RawJson`.

    Args:
        connection: in autocommit mode.
        event_id: the event.

    Raises:
        NotFoundError: the event does not exist, or it has never died.
    """
    id_ = validate_event_id("event_id", event_id)
    with connection.snapshot():
        known = connection.run("retry.identify", event_id=id_).fetchone()
        if known is None:
            raise NotFoundError(
                f"Event {event_id} has never died.",
                "`dlq dead-events list` lists the dead events.",
            )
        identity = {"event_id": id_, "created_at": known["created_at"]}
        parameters = identity | {"limit": _MAX_ROWS}
        place = connection.fetch_one("retry.place", **identity)["place"]
        deaths = tuple(EventDeath(**row) for row in connection.run("retry.deaths_of", **parameters))
        retries = tuple(
            EventRetry(**row | {"payload_before": _build_payload(row["payload_before"])})
            for row in connection.run("retry.retries_of", **parameters)
        )
        row = connection.run("retry.event", **identity).fetchone()
        fix = connection.run("retry.fix_of", **identity).fetchone()
    event = OutboxEvent.from_row(row | {"payload": _build_payload(row["payload"])}) if row else None
    return EventHistory(event_id, place, event, deaths, retries, build_fix(fix) if fix else None)


def _build_payload(text: str | None) -> RawJson | str | None:
    """Keep JSON as it is written; a text that is no JSON becomes a string of JSON."""
    return RawJson(text) if text is not None and is_json(text) else text
