"""Counts every figure of a report a second time, and compares it with the report.

The statements of recount.sql share nothing with those that made the report: PostgreSQL computes
when the day begins and ends, rows are counted where the report reads rollups and sums, and events
are followed forward from their deaths where the report counts back from now.
"""

import re
from collections import Counter
from collections.abc import Iterator
from datetime import UTC
from pathlib import Path
from typing import Any

from psycopg.rows import DictRow

from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.postgres.queries import bind_names
from dlq_pipelines.reports.figures import ALL, OTHER, ReportFigures
from dlq_pipelines.text import sanitize_line

_PARTS = re.split(
    r"^-- name: ([a-z_]+)$",
    Path(__file__).with_name("recount.sql").read_text(encoding="utf-8"),
    flags=re.MULTILINE,
)[1:]
_STATEMENTS = dict(zip(_PARTS[::2], _PARTS[1::2], strict=True))


def find_report_differences(connection: Connection, figures: ReportFigures) -> list[str]:
    """Return a sentence for each figure of the report that differs from the ledger.

    Args:
        connection: in autocommit mode and outside a transaction: all is counted in one snapshot.
        figures: of the report, just built: a death that is recorded later makes a difference.
    """
    with connection.snapshot():
        connection.run("report.memory")
        return [
            f"{figures.window.day}: the report has {reported} {what}, the ledger {found}"
            for what, reported, found in _compare_figures(connection, figures)
            if reported != found
        ]


def _run(connection: Connection, name: str, **values: Any) -> list[DictRow]:
    statement = bind_names(_STATEMENTS[name], connection.names)
    return connection.execute(statement.encode(), values).fetchall()


def _fetch_one(connection: Connection, name: str, **values: Any) -> DictRow:
    (row,) = _run(connection, name, **values)
    return row


def _compare_figures(
    connection: Connection, figures: ReportFigures
) -> Iterator[tuple[str, Any, Any]]:
    """Yield the name of each figure, the report's value and the ledger's."""
    day = {"day": figures.window.day, "zone": figures.window.zone.key}
    yield from _compare_totals(connection, figures, day)
    yield from _compare_causes(connection, figures, day)
    yield from _compare_series(connection, figures, day)
    yield from _compare_types(connection, figures, day)
    yield from _compare_backlog(connection, figures, day)
    yield from _compare_fixes(connection, figures, day)


def _compare_totals(
    connection: Connection, figures: ReportFigures, day: dict[str, Any]
) -> Iterator[tuple[str, Any, Any]]:
    found = _fetch_one(connection, "totals", **day)
    for name, value in found.items():
        yield f"{name} of the day", getattr(figures.totals, name), value


def _compare_causes(
    connection: Connection, figures: ReportFigures, day: dict[str, Any]
) -> Iterator[tuple[str, Any, Any]]:
    listed = {cause.cause_id: cause for cause in figures.causes}
    counted = {row.pop("cause_id") or "": row for row in _run(connection, "causes", **day)}
    hidden = sum(row["deaths"] for cause, row in counted.items() if cause not in listed)
    yield "deaths of causes that are not listed", figures.hidden_deaths, hidden
    for cause_id, cause in listed.items():
        row = counted.get(cause_id, {})
        reported = (
            cause.deaths,
            cause.aggregates,
            cause.event_type_count,
            cause.last_seen,
            cause.attempts[0],
            cause.attempts[2],
        )
        names = ("deaths", "aggregates", "event_types", "last_seen", "fewest", "most")
        yield (
            f"{', '.join(names)} of {cause_id or 'no cause'}",
            reported,
            tuple(row.get(name) for name in names),
        )


def _compare_series(
    connection: Connection, figures: ReportFigures, day: dict[str, Any]
) -> Iterator[tuple[str, Any, Any]]:
    # In UTC: two hours that a clock shows alike are equal in its own zone.
    found = {row["hour"].astimezone(UTC): row["deaths"] for row in _run(connection, "hours", **day)}
    hours = figures.hours.to_dict("records")
    reported = {hour["hour"].astimezone(UTC): hour["deaths"] for hour in hours if hour["deaths"]}
    yield "deaths by hour", reported, found
    before = {row["day"]: row["deaths"] for row in _run(connection, "days", **day)}
    earlier = figures.days[ALL].iloc[:-1]
    yield (
        "deaths of the days before",
        {day_before: int(n) for day_before, n in earlier.items() if n},
        before,
    )


def _compare_types(
    connection: Connection, figures: ReportFigures, day: dict[str, Any]
) -> Iterator[tuple[str, Any, Any]]:
    """Compare the heat map's cells and each cause's types; types that look alike are summed."""
    found: Counter[tuple[str, str]] = Counter()
    for row in _run(connection, "event_types", **day):
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
    reported = {cell: deaths for cell, deaths in cells.items() if deaths}
    yield (
        "deaths by cause and event type",
        reported,
        {cell: found[cell] for cell in cells if cell in found},
    )
    named: Counter[tuple[str, str]] = Counter()
    for cause in figures.causes:
        named.update({(cause.cause_id, name): 0 for name, _ in cause.event_types})
        for name, deaths in cause.event_types:
            named[cause.cause_id, name] += deaths
    yield "deaths of the types that causes name", dict(named), {cell: found[cell] for cell in named}


def _compare_backlog(
    connection: Connection, figures: ReportFigures, day: dict[str, Any]
) -> Iterator[tuple[str, Any, Any]]:
    backlog, policy = figures.backlog, figures.policy
    found = _fetch_one(connection, "open", max_retries=policy.max_retries, **day)
    for name, value in found.items():
        yield f"{name} of what is dead", getattr(backlog, name), value
    for name, value in _fetch_one(connection, "flows", **day).items():
        yield name, getattr(backlog, name), value
    retention = {"dead": policy.dead_retention_days, "archived": policy.archive_retention_days}
    ahead = _fetch_one(connection, "ahead", **retention, **day)
    yield (
        "events that the archive takes within a week",
        figures.upcoming.archived,
        ahead["archived"],
    )
    if figures.upcoming.purged is not None:
        yield (
            "events that the purge deletes within a week",
            figures.upcoming.purged,
            ahead["purged"],
        )


def _compare_fixes(
    connection: Connection, figures: ReportFigures, day: dict[str, Any]
) -> Iterator[tuple[str, Any, Any]]:
    found = {row.pop("fix_id"): row for row in _run(connection, "fixes", **day)}
    yield "fixes", figures.fixes_found, len(found)
    (healed,) = _run(connection, "healed", **day)
    yield "events that probes healed", figures.healed.events if figures.healed else 0, healed["n"]
    for fix in figures.fixes:
        row = found.get(fix.id, {})
        reported = (fix.ended, fix.released, fix.delivered, fix.died_again)
        names = ("ended", "released", "delivered", "died_again")
        yield (
            f"{', '.join(names)} of fix {fix.id}",
            reported,
            tuple(row.get(name) for name in names),
        )
