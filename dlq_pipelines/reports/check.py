"""Compares the reports with the ledger: the totals of a day, and the days that have no report."""

from collections.abc import Sequence
from datetime import date

from dlq_pipelines.day import CATCH_UP_DAYS, Day
from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.reports.figures import ReportFigures


def find_total_differences(connection: Connection, figures: ReportFigures) -> list[str]:
    """Return a sentence for each total of the report that the ledger does not have.

    A death that is recorded after the report was built makes a difference.

    Args:
        connection: to the ledger.
        figures: of the report.
    """
    day, totals = figures.window.day, figures.totals
    ledger = connection.fetch_one("report_check.totals", day=day, zone=figures.window.zone.key)
    return [
        f"{day}: the report has {reported} {name}, the ledger {ledger[name]}"
        for name, reported in (
            ("deaths", totals.deaths),
            ("events", totals.events),
            ("unclassified", totals.unclassified),
            ("causes", totals.causes),
        )
        if reported != ledger[name]
    ]


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


def count_reports(connection: Connection) -> int:
    """Return the number of days that have a report."""
    return int(connection.fetch_one("report.rows")["rows"])
