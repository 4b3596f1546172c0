"""Brings causes up to date with the ledger: classifies deaths, marks what regressed."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from dlq_pipelines.causes.catalogue import mark_regressed_causes, mark_regressed_details
from dlq_pipelines.causes.classify import DetailKey, classify_deaths
from dlq_pipelines.causes.counts import refresh_shown_causes
from dlq_pipelines.postgres.connect import Connection


@dataclass(frozen=True)
class CauseUpdate:
    """What an update of causes did.

    Attributes:
        deaths: the number of deaths that were given their cause.
        new_causes: the ids of causes never seen before.
        new_details: details never seen before, of causes that were.
        regressed: the ids of fixed causes that an event died of again.
        regressed_details: fixed details that an event died of again.
    """

    deaths: int
    new_causes: tuple[str, ...]
    new_details: tuple[DetailKey, ...]
    regressed: tuple[str, ...]
    regressed_details: tuple[DetailKey, ...]


def update_causes(
    connection: Connection,
    *,
    now: datetime,
    zone: ZoneInfo,
    announce: bool = False,
    progress: Callable[[int], None] = lambda _: None,
) -> CauseUpdate:
    """Classify unclassified deaths, choose the causes that metrics show, mark regressed ones.

    Repeatable: classified deaths are not counted again.

    Args:
        connection: in autocommit mode.
        now: the time of the update.
        zone: the time zone of a day in the rollup.
        announce: queue each death for the webhook of deaths.
        progress: called after each batch with the number of deaths classified so far.

    Raises:
        RefusedError: the catalogue is of another version of the fingerprint and not reindexed.
    """
    classified = classify_deaths(connection, zone=zone, announce=announce, progress=progress)
    refresh_shown_causes(connection, now=now)
    return CauseUpdate(
        classified.deaths,
        classified.new_causes,
        classified.new_details,
        mark_regressed_causes(connection, now=now),
        mark_regressed_details(connection, now=now),
    )


def has_unclassified_deaths(connection: Connection) -> bool:
    """Return whether a death waits for its cause."""
    return bool(connection.fetch_one("cause.has_unclassified")["found"])
