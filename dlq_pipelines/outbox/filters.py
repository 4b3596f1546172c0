"""Which dead events does somebody mean, in the words of a command line or of a request?

The filters of every face are declared here, once: the command line makes options of these fields, the HTTP API
parameters and bodies. What they mean is a `Selector`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import tzinfo
from typing import Any

from dlq_pipelines.day import moment
from dlq_pipelines.outbox.event import Selector


def _filter(about: str, **more: str) -> Any:
    return field(default=None, metadata={"help": about, **more})


@dataclass(frozen=True, kw_only=True)
class Filters:
    """Dead events for which all of these hold; one that is None says nothing.

    `metadata` of a field: `help` for people, `query` where a request calls it by another name, `metavar` for the
    command line.
    """

    cause: str | None = _filter("Of this cause, as `dlq causes list` lists it.", metavar="CAUSE")
    event_type: str | None = _filter("Of this event type.")
    aggregate_type: str | None = _filter("Of this type of aggregate.")
    error_contains: str | None = _filter(
        "With this text in the error, letter by letter.", metavar="TEXT", query="error"
    )
    attempts: int | None = _filter("Dead after exactly so many attempts.")
    since: str | None = _filter("Dead since 2026-11-24 or 2026-11-24T18:30, in DLQ_TIMEZONE.", metavar="TIME")
    until: str | None = _filter("Dead before that time.", metavar="TIME")
    every: bool = field(default=False, metadata={"help": "All of them. Only without a filter.", "query": "all"})

    def names_only(self, ids: Sequence[int] | None) -> bool:
        """Whether events were named by their ids and nothing else was said of them."""
        return bool(ids) and self == Filters()

    def selector(self, zone: tzinfo, ids: Sequence[int] | None = None, *, else_every: bool = False) -> Selector:
        """What was asked for.

        Args:
            zone: of the times that name none.
            ids: only these events; none: ids are not asked for.
            else_every: without any filter all are meant, for what changes nothing or narrows it itself.

        Raises:
            ValueError: nothing was asked for, or all and something narrower; a text or a time cannot be used.
        """
        asked = replace(self, every=True) if else_every and not ids and self == Filters() else self
        since, until = (
            None if text is None else moment(name, text, zone)
            for name, text in (("since", asked.since), ("until", asked.until))
        )
        return Selector(
            cause_id=asked.cause,
            event_type=asked.event_type,
            aggregate_type=asked.aggregate_type,
            event_ids=tuple(ids) if ids else None,
            attempts=asked.attempts,
            error_contains=asked.error_contains,
            died_since=since,
            died_until=until,
            every=asked.every,
        )
