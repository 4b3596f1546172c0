"""Is what a report says what the ledger says?

Each figure is counted a second time by statements that share nothing with those that made the report: they let
PostgreSQL say when the day begins and ends, count rows instead of reading rollups and sums, and follow events forward
from their deaths where the report counts back from now.
"""

from collections import Counter
from collections.abc import Iterator
from datetime import UTC
from typing import Any

from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.reports.figures import ALL, OTHER, ReportFigures
from dlq_pipelines.text import sanitize_line


def find_report_differences(connection: Connection, figures: ReportFigures) -> list[str]:
    """Where the report and the ledger differ, in words; nothing if they agree.

    Args:
        connection: in autocommit mode and outside a transaction: all is counted in one snapshot.
        figures: of the report, just built: a death that is recorded late makes a difference.
    """
    with connection.transaction():
        connection.run("report.snapshot")
        connection.run("report.memory")
        return [
            f"{figures.window.day}: the report says {said} {what}, the ledger {found}"
            for what, said, found in _compared(connection, figures)
            if said != found
        ]


def _compared(connection: Connection, figures: ReportFigures) -> Iterator[tuple[str, Any, Any]]:
    """What is compared, the report's figure, the ledger's."""
    day = {"day": figures.window.day, "zone": figures.window.zone.key}
    yield from _totals(connection, figures, day)
    yield from _causes(connection, figures, day)
    yield from _series(connection, figures, day)
    yield from _types(connection, figures, day)
    yield from _backlog(connection, figures, day)
    yield from _fixes(connection, figures, day)


def _totals(
    connection: Connection, figures: ReportFigures, day: dict[str, Any]
) -> Iterator[tuple[str, Any, Any]]:
    found = connection.fetch_one("report_check.totals", **day)
    for name, value in found.items():
        yield f"{name} of the day", getattr(figures.totals, name), value


def _causes(
    connection: Connection, figures: ReportFigures, day: dict[str, Any]
) -> Iterator[tuple[str, Any, Any]]:
    listed = {cause.cause_id: cause for cause in figures.causes}
    counted = {
        row.pop("cause_id") or "": row for row in connection.run("report_check.causes", **day)
    }
    hidden = sum(row["deaths"] for cause, row in counted.items() if cause not in listed)
    yield "deaths of causes that are not listed", figures.hidden_deaths, hidden
    for cause_id, cause in listed.items():
        row = counted.get(cause_id, {})
        said = (
            cause.deaths,
            cause.aggregates,
            cause.kinds,
            cause.last_seen,
            cause.attempts[0],
            cause.attempts[2],
        )
        names = ("deaths", "aggregates", "event_types", "last_seen", "fewest", "most")
        yield (
            f"{', '.join(names)} of {cause_id or 'no cause'}",
            said,
            tuple(row.get(name) for name in names),
        )


def _series(
    connection: Connection, figures: ReportFigures, day: dict[str, Any]
) -> Iterator[tuple[str, Any, Any]]:
    # In UTC: two hours that a clock shows alike are equal in its own zone.
    found = {
        row["hour"].astimezone(UTC): row["deaths"]
        for row in connection.run("report_check.hours", **day)
    }
    hours = figures.hours.to_dict("records")
    said = {hour["hour"].astimezone(UTC): hour["deaths"] for hour in hours if hour["deaths"]}
    yield "deaths by hour", said, found
    before = {row["day"]: row["deaths"] for row in connection.run("report_check.days", **day)}
    told = figures.days[ALL].iloc[:-1]
    yield "deaths of the days before", {one: int(n) for one, n in told.items() if n}, before


def _types(
    connection: Connection, figures: ReportFigures, day: dict[str, Any]
) -> Iterator[tuple[str, Any, Any]]:
    """Each cell of the heat map and each type that a cause names; types that are shown alike are added up."""
    found: Counter[tuple[str, str]] = Counter()
    for row in connection.run("report_check.event_types", **day):
        found[row["cause_id"] or "", sanitize_line(row["event_type"][:200], 80)] += row["deaths"]
    table = figures.matrix
    yield "deaths of the heat map", int(table.to_numpy().sum()), found.total()
    rows, columns = [str(name) for name in table.index], [str(name) for name in table.columns]
    cells = {
        (row, name): int(table.at[row, name])  # type: ignore[arg-type]
        for row in rows
        for name in columns
        if OTHER not in {row, name}
    }
    said = {cell: deaths for cell, deaths in cells.items() if deaths}
    yield (
        "deaths by cause and event type",
        said,
        {cell: found[cell] for cell in cells if cell in found},
    )
    named: Counter[tuple[str, str]] = Counter()
    for cause in figures.causes:
        named.update({(cause.cause_id, name): 0 for name, _ in cause.event_types})
        for name, deaths in cause.event_types:
            named[cause.cause_id, name] += deaths
    yield "deaths of the types that causes name", dict(named), {cell: found[cell] for cell in named}


def _backlog(
    connection: Connection, figures: ReportFigures, day: dict[str, Any]
) -> Iterator[tuple[str, Any, Any]]:
    backlog, policy = figures.backlog, figures.policy
    found = connection.fetch_one("report_check.open", max_retries=policy.max_retries, **day)
    for name, value in found.items():
        yield f"{name} of what is dead", getattr(backlog, name), value
    for name, value in connection.fetch_one("report_check.flows", **day).items():
        yield name, getattr(backlog, name), value
    retention = {"dead": policy.dead_retention_days, "archived": policy.archive_retention_days}
    ahead = connection.fetch_one("report_check.ahead", **retention, **day)
    yield "events that the archive takes within a week", figures.ahead.archived, ahead["archived"]
    if figures.ahead.purged is not None:
        yield "events that the purge deletes within a week", figures.ahead.purged, ahead["purged"]


def _fixes(
    connection: Connection, figures: ReportFigures, day: dict[str, Any]
) -> Iterator[tuple[str, Any, Any]]:
    found = {row.pop("fix_id"): row for row in connection.run("report_check.fixes", **day)}
    yield "fixes", figures.fixes_found, len(found)
    for fix in figures.fixes:
        row = found.get(fix.id, {})
        said = (fix.ended, fix.released, fix.delivered, fix.died_again)
        names = ("ended", "released", "delivered", "died_again")
        yield f"{', '.join(names)} of fix {fix.id}", said, tuple(row.get(name) for name in names)
