"""Compares the reports with the ledger: the totals of a day, and the days that have no report."""

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


def count_reports(connection: Connection) -> int:
    """Return the number of days that have a report."""
    return int(connection.fetch_one("report.rows")["rows"])
