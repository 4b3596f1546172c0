"""Explains a cause: what its dead events have in common that delivered events have not.

Applications often delete delivered events. If few of an event type are left, a small sample of
payloads is kept in `dlq.delivered_sample`, without what DLQ_EXPORT_REDACT_PAYLOAD hides.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo

import psycopg

from dlq_pipelines.causes.catalogue import get_cause
from dlq_pipelines.causes.separate import EventSample, Separation, find_separation
from dlq_pipelines.errors import NotFoundError, RefusedError
from dlq_pipelines.outbox.offers import require_offer
from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.text import format_count

# Events of each kind that are compared.
COMPARED_EVENTS = 2_000
# Rows of the outbox that are read in search of delivered events. A key look-up is bounded, and no
# index of the application's is needed: 50,000 rows take about 50 ms.
_SCANNED_ROWS = 50_000
# Characters of a payload that is compared. A longer one is not read.
_MAX_PAYLOAD_LENGTH = 65_536
# The sample: events of a type, types, characters of a payload, and days. At most 80 MB.
_SAMPLED_EVENTS = 200
_SAMPLED_TYPES = 50
_SAMPLED_A_RUN = 50
_MAX_SAMPLED_LENGTH = 8_000
SAMPLE_RETENTION = timedelta(days=30)

IsHiddenPath = Callable[[tuple[str, ...]], bool]
RedactPayload = Callable[[str], str | None]


@dataclass(frozen=True)
class CauseExplanation:
    """What sets the dead events of a cause apart.

    Attributes:
        cause: the cause that is explained.
        detail: the detail, if one was given.
        event_types: the types of the dead events that were compared.
        separation: the conditions, and how many events of each kind were compared.
    """

    cause: str
    detail: str | None
    event_types: tuple[str, ...]
    separation: Separation

    def __str__(self) -> str:
        """Return the best condition as a sentence, or why there is no finding."""
        found = self.separation
        if not found.dead:
            what = "the cause" if self.detail is None else f"the detail {self.detail!r}"
            return f"Nothing to compare: {what} has no dead events."
        if not found.delivered:
            return (
                f"Nothing to compare {format_count(found.dead, 'dead event')} with: no delivered "
                "event of the same types is known."
            )
        if not found.findings:
            if found.is_too_small:
                return _describe_too_few(found.dead, found.delivered)
            return describe_no_condition(found.dead, found.delivered)
        best = found.findings[0]
        return describe_condition(
            best.condition, (best.dead, found.dead), (best.delivered, found.delivered)
        )

    def describe_hidden(self) -> str:
        """Return how many paths were left out, as a sentence; empty: none."""
        hidden = self.separation.hidden
        if not hidden:
            return ""
        paths, them = ("1 path is", "it") if hidden == 1 else (f"{hidden:,} paths are", "them")
        return f"{paths} left out: DLQ_EXPORT_REDACT_PAYLOAD hides {them}."


def _describe_too_few(dead: int, delivered: int) -> str:
    """Return the sentence that no condition of so few events could be significant."""
    if dead <= delivered:
        verb = "is" if dead == 1 else "are"
        return (
            f"{format_count(dead, 'dead event')} {verb} too few to compare with {delivered:,} "
            "delivered ones."
        )
    verb = "is" if delivered == 1 else "are"
    return (
        f"{format_count(delivered, 'delivered event')} {verb} too few to compare "
        f"{dead:,} dead ones with."
    )


def describe_condition(condition: str, dead: tuple[int, int], delivered: tuple[int, int]) -> str:
    """Return a condition with how many of how many events of each kind meet it."""
    return (
        f"{condition}: {dead[0]:,} of {dead[1]:,} dead, "
        f"{delivered[0]:,} of {delivered[1]:,} delivered"
    )


def describe_no_condition(dead: int, delivered: int) -> str:
    """Return the sentence that no condition separates the compared events."""
    events = format_count(dead, "dead event")
    return f"Nothing separates {events} from {delivered:,} delivered ones."


def explain_cause(
    connection: Connection,
    cause_id: str,
    *,
    detail: str | None = None,
    died: tuple[datetime, datetime] | None = None,
    zone: tzinfo,
    is_hidden: IsHiddenPath,
) -> CauseExplanation:
    """Compare the latest 2,000 dead events of a cause with 2,000 delivered ones of the same types.

    Each type has the same share of both. An event that died before is no delivered one.

    Args:
        connection: to the outbox.
        cause_id: the cause.
        detail: compare only events whose errors name it.
        died: compare only events that died from the first time on and before the second.
        zone: the time zone of hours.
        is_hidden: whether a path of a payload must not be shown.

    Raises:
        NotFoundError: the cause or the detail does not exist.
        RefusedError: the cause is merged into another one, or the mapping has no payload.
    """
    require_offer(connection, "payloads")
    cause = get_cause(connection, cause_id)
    if detail and detail not in {known.detail for known in cause.details}:
        raise NotFoundError(
            f"Cause {cause.id} has no detail {detail!r}.",
            f"`dlq causes show {cause.id}` lists its details.",
        )
    dead = [
        EventSample(**row)
        for row in connection.run(
            "explain.dead",
            causes=[cause.id, *cause.members],
            detail=detail,
            died_from=died[0] if died else None,
            died_before=died[1] if died else None,
            limit=COMPARED_EVENTS,
            max_length=_MAX_PAYLOAD_LENGTH,
        )
    ]
    delivered = _read_delivered(connection, Counter(event.event_type for event in dead))
    types = {event.event_type for event in delivered}
    comparable = [event for event in dead if event.event_type in types] if types else dead
    return CauseExplanation(
        cause.id,
        detail,
        tuple(sorted({event.event_type for event in comparable})),
        find_separation(
            comparable,
            delivered,
            is_hidden=is_hidden,
            local_hour=lambda at: at.astimezone(zone).hour,
        ),
    )


def explain_causes(
    connection: Connection, cause_ids: Iterable[str], *, zone: tzinfo, is_hidden: IsHiddenPath
) -> list[CauseExplanation]:
    """Explain several causes; none if the mapping of the outbox has no payload.

    What takes longer than the statement timeout, such as rows of many megabytes, is left out: a
    missing explanation must not fail the classification that asks for it.

    Args:
        connection: to the outbox.
        cause_ids: the causes. One that is merged into another is left out.
        zone: the time zone of hours.
        is_hidden: whether a path of a payload must not be shown.
    """
    try:
        require_offer(connection, "payloads")
    except RefusedError:
        return []
    explained = []
    for cause_id in cause_ids:
        # It was merged into another one meanwhile, or its events take too long to read.
        with suppress(RefusedError, psycopg.errors.QueryCanceled):
            explained.append(explain_cause(connection, cause_id, zone=zone, is_hidden=is_hidden))
    return explained


def _read_delivered(connection: Connection, types: Counter[str]) -> list[EventSample]:
    """Return delivered events, of each type as large a share as among the dead ones."""
    total = types.total()
    quotas = {name: -(-COMPARED_EVENTS * count // total) for name, count in types.items()}
    found: list[EventSample] = []
    for query, bounds in (
        ("explain.delivered", {"scanned": _SCANNED_ROWS, "max_length": _MAX_PAYLOAD_LENGTH}),
        ("explain.kept", {}),
    ):
        if quotas:
            rows = connection.run(query, types=[*quotas], quotas=[*quotas.values()], **bounds)
            found += [EventSample(**row) for row in rows]
        counts = Counter(event.event_type for event in found)
        quotas = {name: quota - counts[name] for name, quota in quotas.items()}
        quotas = {name: quota for name, quota in quotas.items() if quota > 0}
    return found


def sample_delivered_events(
    connection: Connection, *, now: datetime, redact_payload: RedactPayload
) -> int:
    """Keep a sample of payloads of the event types with few delivered events in the outbox.

    Fifty events of a type a run, at most 200 of each of fifty types, of at most 8,000 characters,
    for thirty days. Whether an event was delivered is decided when the sample is read.

    Args:
        connection: in autocommit mode.
        now: the time of the sample.
        redact_payload: hides values; None: nothing of the payload is left, and it is not kept.

    Returns:
        The number of events that were added.
    """
    candidates = connection.run(
        "explain.list_candidates",
        scanned=_SCANNED_ROWS,
        enough=_SAMPLED_EVENTS,
        types=_SAMPLED_TYPES,
        limit=_SAMPLED_A_RUN,
        max_length=_MAX_SAMPLED_LENGTH,
    )
    events = [
        row | {"payload": payload}
        for row in candidates
        if (payload := redact_payload(row["payload"])) is not None
    ]
    with connection.transaction():
        connection.run("explain.keep", events=json.dumps(events), now=now)
        connection.run("explain.trim", before=now - SAMPLE_RETENTION, limit=_SAMPLED_EVENTS)
    return len(events)
