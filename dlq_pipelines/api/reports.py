"""`/api/reports`: what failed on a day, for programs?"""

from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response
from pydantic import BeforeValidator

from dlq_pipelines.api.auth import Admin, Reader
from dlq_pipelines.api.session import Outbox, Site
from dlq_pipelines.errors import NotFoundError
from dlq_pipelines.installation import build_report_policy, open_reports_target

router = APIRouter(prefix="/api/reports", tags=["reports"])


def _written_out(text: str) -> date:
    """Pydantic alone would take a number too, as seconds since 1970."""
    day = date.fromisoformat(text)
    if day.isoformat() != text:
        raise ValueError("Write a day as 2026-11-24.")
    return day


_Day = Annotated[date, BeforeValidator(_written_out)]
Day = Annotated[_Day, Path(description="Such as 2026-11-24, in DLQ_TIMEZONE.")]


@dataclass(frozen=True)
class BuiltReport:
    """A day that has a report: what its headline says, and how many deaths, causes and fixes it tells of."""

    day: date
    headline: str
    figures: dict[str, int]


@dataclass(frozen=True)
class BuiltReports:
    """The days that have a report, the last first; `next` is the `after` of the next page, null on the last."""

    reports: list[BuiltReport]
    count: int
    limit: int
    next: date | None


@router.get("")
def list_(
    _: Reader,
    outbox: Outbox,
    limit: Annotated[int, Query(ge=1, le=366, description="How many at most.")] = 31,
    after: Annotated[_Day | None, Query(description="Only days before this one.")] = None,
) -> BuiltReports:
    """The days that have a report, the last first."""
    from dlq_pipelines.reports.publish import list_reports

    found = [BuiltReport(**vars(row)) for row in list_reports(outbox, limit=limit, before=after)]
    return BuiltReports(found, len(found), limit, found[-1].day if len(found) == limit else None)


@router.get("/{day}", response_model=dict[str, Any])
def show(_: Reader, day: Day, site: Site) -> Response:
    """The report of a day as JSON: every figure of its page, as `reports/report.schema.json` describes them."""
    from dlq_pipelines.reports.publish import fetch_json_report

    twin = fetch_json_report(open_reports_target(site), day)
    if twin is None:
        raise NotFoundError(f"There is no report of {day}. POST to this address builds it.")
    return Response(twin, media_type="application/json")


@router.post("/{day}")
def build(_: Admin, day: Day, outbox: Outbox, site: Site) -> BuiltReport:
    """Build the report of a day that is over, and the list of reports. One that is there is replaced by the same."""
    from dlq_pipelines.reports.publish import list_reports
    from dlq_pipelines.reports.report import build_report

    policy, target = build_report_policy(site), open_reports_target(site)
    build_report(
        outbox, day=day, zone=site.zone, target=target, policy=policy, now=datetime.now(UTC)
    )
    (built,) = list_reports(outbox, limit=1, day=day)
    return BuiltReport(**vars(built))
