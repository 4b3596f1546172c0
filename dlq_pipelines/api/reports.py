"""Serves `/api/reports`: the daily reports as JSON."""

from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response
from pydantic import BeforeValidator

from dlq_pipelines.api.auth import Admin, Reader
from dlq_pipelines.api.session import ApiSettings, Outbox
from dlq_pipelines.errors import NotFoundError
from dlq_pipelines.installation import build_report_policy, open_reports_target

router = APIRouter(prefix="/api/reports", tags=["reports"])


def _parse_day(text: str) -> date:
    """Parse an ISO date. Pydantic alone would accept a number of seconds too."""
    try:
        day = date.fromisoformat(text)
    except ValueError:
        day = None
    if day is None or day.isoformat() != text:
        raise ValueError(f"{text[:60]!r} is not a day. Write it as 2026-11-24.")
    return day


_Day = Annotated[date, BeforeValidator(_parse_day)]
ReportDay = Annotated[_Day, Path(description="A day of DLQ_TIMEZONE, such as 2026-11-24.")]


@dataclass(frozen=True)
class BuiltReport:
    """A day with a report: its headline, and its numbers of deaths, causes and fixes."""

    day: date
    headline: str
    figures: dict[str, int]


@dataclass(frozen=True)
class BuiltReports:
    """Days with a report, the latest first; `next` is the `after` of the next page, null on the
    last.
    """

    reports: list[BuiltReport]
    count: int
    limit: int
    next: date | None


@router.get("")
def get_reports(
    _: Reader,
    outbox: Outbox,
    limit: Annotated[int, Query(ge=1, le=366, description="Maximum number of results.")] = 31,
    after: Annotated[_Day | None, Query(description="`next` of the previous page.")] = None,
) -> BuiltReports:
    """List the days that have a report, the latest first."""
    from dlq_pipelines.reports.publish import list_reports

    found = [BuiltReport(**vars(row)) for row in list_reports(outbox, limit=limit, before=after)]
    return BuiltReports(found, len(found), limit, found[-1].day if len(found) == limit else None)


@router.get("/{day}", response_model=dict[str, Any])
def get_report(_: Reader, day: ReportDay, settings: ApiSettings) -> Response:
    """Return the report of a day as JSON, as `reports/report.schema.json` describes it."""
    from dlq_pipelines.reports.publish import fetch_json_report

    report = fetch_json_report(open_reports_target(settings), day)
    if report is None:
        raise NotFoundError(f"There is no report of {day}.", f"POST /api/reports/{day} builds it.")
    return Response(report, media_type="application/json")


@router.post("/{day}")
def post_report(_: Admin, day: ReportDay, outbox: Outbox, settings: ApiSettings) -> BuiltReport:
    """Build the report of a past day and the list of reports.

    Building it again gives the same report.
    """
    from dlq_pipelines.reports.publish import list_reports
    from dlq_pipelines.reports.report import build_report

    policy, target = build_report_policy(settings), open_reports_target(settings)
    build_report(
        outbox, day=day, zone=settings.zone, target=target, policy=policy, now=datetime.now(UTC)
    )
    (built,) = list_reports(outbox, limit=1, day=day)
    return BuiltReport(**vars(built))
