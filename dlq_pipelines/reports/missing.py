"""Lists the days that need a report."""

from collections.abc import Sequence
from datetime import date

from dlq_pipelines.day import CATCH_UP_DAYS, Day
from dlq_pipelines.postgres.connect import Connection


def list_days_without_report(connection: Connection, days: Sequence[Day]) -> list[date]:
    """Return the days of the last two weeks that need a report and have none.

    A day needs a report if an event died on it, or if an earlier day has one.

    Args:
        connection: in autocommit mode.
        days: all days until now, in their order.
    """
    days = days[-CATCH_UP_DAYS:]
    rows = connection.run(
        "report.missing_days",
        days=[day.date for day in days],
        starts=[day.start for day in days],
        ends=[day.until for day in days],
    )
    return [row["day"] for row in rows]
