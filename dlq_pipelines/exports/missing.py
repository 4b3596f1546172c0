"""Lists the days that need an export."""

from collections.abc import Sequence
from datetime import date

from dlq_pipelines.day import CATCH_UP_DAYS, Day
from dlq_pipelines.postgres.connect import Connection


def list_days_without_export(connection: Connection, days: Sequence[Day]) -> list[date]:
    """Return the days that need an export and have no verified one that holds all of their deaths.

    The last two weeks need one if an event died on them, or if an earlier day was exported. An
    older day needs another one if a death of it was recorded since, or if `DLQ_TIMEZONE` was
    changed, so that the day has other bounds.

    Args:
        connection: in autocommit mode.
        days: all days until now, in their order.
    """
    rows = connection.run(
        "export.missing_days",
        days=[day.date for day in days],
        starts=[day.start for day in days],
        ends=[day.until for day in days],
        recent=[place >= len(days) - CATCH_UP_DAYS for place in range(len(days))],
    )
    return [row["day"] for row in rows]
