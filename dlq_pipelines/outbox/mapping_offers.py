"""Derives from a mapping what is possible with its table, and why the rest is not."""

from dataclasses import dataclass

from dlq_pipelines.outbox.mapping_types import (
    AssignmentKind,
    MappedColumn,
    Mapping,
    ValueSource,
    list_column_sources,
)


@dataclass(frozen=True)
class Offer:
    """An operation on the events of a table.

    Attributes:
        reason: why the operation is not offered, and what would change that; empty: it is offered.
    """

    operation: str
    reason: str = ""

    @property
    def is_offered(self) -> bool:
        """Whether the operation is possible."""
        return not self.reason


def list_offers(mapping: Mapping, facts: dict[str, MappedColumn]) -> tuple[Offer, ...]:
    """Return every operation: what a mapping cannot express narrows what is offered."""
    retry = _explain_retry(mapping)
    return (
        Offer("causes", _explain(mapping, facts, "error")),
        Offer("event_types", _explain(mapping, facts, "event_type")),
        Offer("payloads", _explain(mapping, facts, "payload")),
        Offer("attempts", _explain(mapping, facts, "attempts")),
        Offer("queue_lag", _explain(mapping, facts, "due_at")),
        Offer("regressions", _explain(mapping, facts, "created_at")),
        Offer("archive"),
        Offer("retries", retry),
        Offer("pace", retry or _explain_pace(mapping)),
        Offer("order", retry or _explain(mapping, facts, "aggregate_id")),
        Offer("edited_payloads", retry or _explain(mapping, facts, "payload")),
        Offer("fixes", retry or _explain_fixes(mapping)),
    )


_ABSENT = {
    "error": "The mapping has no error: all deaths are one cause. Map a column that holds the "
    "error text, and let the worker write it.",
    "event_type": "The mapping has no event_type: events cannot be filtered or counted by it.",
    "payload": "The mapping has no payload: it is not shown, exported or edited.",
    "attempts": "The mapping has no attempts: reports show none.",
    "due_at": "The mapping has no due_at: the queue lag is not known.",
    "created_at": "The mapping has no created_at: causes cannot be recognized as regressed, and "
    "an id that begins again is taken for the same event.",
    "aggregate_id": "The mapping has no aggregate_id: events are retried without regard to the "
    "order of an aggregate.",
}


def _explain(mapping: Mapping, facts: dict[str, MappedColumn], key: str) -> str:
    source: ValueSource | None = getattr(mapping, key)
    if source is None:
        return _ABSENT[key]
    columns = list_column_sources(source)
    if columns and not any(column.column in facts for column in columns):
        return f"{_ABSENT[key]} The table has no column {columns[0].column!r}."
    return ""


def _explain_retry(mapping: Mapping) -> str:
    if mapping.retry is None:
        return "The mapping has no [retry]: its worker cannot be made to take an event again."
    return ""


def _explain_pace(mapping: Mapping) -> str:
    """A due time paces only a worker that waits for it, so the column must be `due_at`."""
    due = mapping.due_at.column if mapping.due_at else None
    if any(a.kind is AssignmentKind.DUE and a.column == due for a in mapping.retry or ()):
        return ""
    return "A retry sets no due time that the worker waits for: released events are due at once."


def _explain_fixes(mapping: Mapping) -> str:
    if mapping.delivered is None:
        return "The mapping has no delivered: whether a retry succeeded is not known."
    return ""
