"""Limits how many types and causes the metrics show by name; no counter ever decreases.

Classification counts deaths under the names that are shown. The first 50 types keep their labels
for good. The shown causes change with what dies. Everything else counts as `other`. Deaths never
move between series, because `rate()` would see a burst; a sum over causes can count a death twice.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from dlq_pipelines.postgres.connect import Connection

# Event types, and aggregate types, with a series of their own: names in code, few and stable.
LABELS = 50
CAUSES_SHOWN = 50
_RECENT = timedelta(days=30)
# The alert rules compare with two weeks; a day more keeps their first hour whole.
_HOURS_KEPT = timedelta(days=15)


def refresh_shown_causes(connection: Connection, *, now: datetime) -> None:
    """Choose the causes that metrics show by deaths in 30 days; delete hours after 15 days."""
    connection.run("cause.choose_shown", since=(now - _RECENT).date(), causes_shown=CAUSES_SHOWN)
    connection.run("cause.delete_hours", until=now - _HOURS_KEPT)


@dataclass(frozen=True)
class DeathCounts:
    """Classified deaths, counted in places that must agree.

    Attributes:
        ledger: deaths in the ledger, and those that it has deleted.
        rollup: deaths in the daily rollup.
        counters: deaths in the counters of the metrics.
        ledger_details: of `ledger`, those that name a detail.
        details: deaths in the details of causes.
    """

    ledger: int
    rollup: int
    counters: int
    ledger_details: int
    details: int

    @property
    def agree(self) -> bool:
        """Whether all deaths, and those that name a detail, are equal everywhere."""
        return self.ledger == self.rollup == self.counters and self.ledger_details == self.details


def count_classified_deaths(connection: Connection) -> DeathCounts:
    """Count the classified deaths in each place, in one snapshot."""
    return DeathCounts(**connection.fetch_one("cause.rollup_difference"))


def count_causes(connection: Connection) -> int:
    """Return the number of causes, with those that are merged into another."""
    return int(connection.fetch_one("cause.rows")["rows"])
