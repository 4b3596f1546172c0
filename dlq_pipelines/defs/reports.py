"""When do people get the report of a day, and is each of its figures what the ledger says?"""

import base64
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

import dagster as dg
import psycopg

from dlq_pipelines.alerts.alert import queue_digest
from dlq_pipelines.defs.causes import dead_event_causes
from dlq_pipelines.defs.describe import describe_automation, describe_check, describe_definition
from dlq_pipelines.defs.health import record_success_hook
from dlq_pipelines.defs.partitions import (
    BACKFILL,
    DAYS,
    TIMEZONE,
    Metadata,
    build_daily_schedule,
    process_days,
)
from dlq_pipelines.defs.resources import GROUP, OWNERS, OutboxResource, Session
from dlq_pipelines.defs.tables import REPORT_DAY, describe_table
from dlq_pipelines.errors import DlqError
from dlq_pipelines.installation import build_alert_sender, build_report_policy, get_reports_uri
from dlq_pipelines.reports.charts import draw_days_chart
from dlq_pipelines.reports.check import find_report_differences
from dlq_pipelines.reports.digest import build_digest
from dlq_pipelines.reports.markdown import render_causes_markdown
from dlq_pipelines.reports.report import Report, build_report
from dlq_pipelines.settings import read_settings
from dlq_pipelines.text import escape_markdown

_CHECK = "report_equals_ledger"
_settings = read_settings()


@dg.asset(
    deps=[dead_event_causes],
    partitions_def=DAYS,
    backfill_policy=BACKFILL,
    group_name=GROUP,
    owners=OWNERS,
    kinds={"postgres", "pandas"},
    freshness_policy=dg.FreshnessPolicy.cron(
        deadline_cron="0 8 * * *", lower_bound_delta=timedelta(hours=2), timezone=TIMEZONE
    ),
    # The table lists the pages, which are at the URI.
    metadata=describe_table(_settings, _settings.schema_name, "report_day", REPORT_DAY)
    | {"dagster/uri": get_reports_uri(_settings)},
    check_specs=[
        dg.AssetCheckSpec(
            _CHECK,
            asset="failure_report",
            blocking=True,
            description=describe_check(_CHECK),
        )
    ],
)
def failure_report(
    context: dg.AssetExecutionContext, outbox: OutboxResource
) -> dg.MaterializeResult:  # type: ignore[type-arg]  # Dagster wants it bare
    """What is new, what came back, what is getting worse, and whether the fixes worked: a page a **day**.

    Every figure is as of the end of its day, whatever was retried or archived since.

    - **When:** at 06:00 for the day before, and for days of the last two weeks that were missed.
    - **Changes:** the day's HTML, Markdown and JSON under `DLQ_REPORT_URI`, the `index.html` of all days, and the day's
      row in `dlq.report_day`.
    - **Rerun:** any day, or a backfill of any range in one run: it gives the same files, and a refused day stops no
      other.
    """
    with outbox.session() as session:
        policy, target = build_report_policy(session.settings), session.reports

        def build(key: str) -> tuple[Metadata, list[str]]:
            report = build_report(
                session.connection,
                day=session.day(key).date,
                zone=session.settings.zone,
                target=target,
                policy=policy,
                now=session.now,
            )
            context.log.info(f"{report.headline} ({report.places['html']})")
            _send_digest(context, session, report)
            days = session.connection.fetch_one("report.rows")["rows"]
            return _metadata(report, days), find_report_differences(
                session.connection, report.figures
            )

        return process_days(context, session, _CHECK, build)


def _send_digest(context: dg.AssetExecutionContext, session: Session, report: Report) -> None:
    """Let the channels be told of the day before, once: the next `send_alerts` run sends it. It fails no report."""
    today = session.now.astimezone(session.settings.zone).date()
    if not session.settings.report_digest or report.day != today - timedelta(days=1):
        return
    short = build_digest(report)
    try:
        routes = build_alert_sender(session.settings).routes
        day = report.day.isoformat()
        queue_digest(
            session.connection,
            day,
            summary=short.title,
            detail=short.text,
            now=session.now,
            routes=routes,
        )
    except (DlqError, psycopg.Error) as error:
        context.log.warning(
            f"The digest was not queued: {error if isinstance(error, DlqError) else type(error).__name__}"
        )


def _metadata(report: Report, days: int) -> Metadata:
    """What a person asks of a report; of its table, how many days it holds."""
    figures = report.figures
    chart = base64.b64encode(draw_days_chart(figures).encode()).decode()
    html = report.places["html"]
    links = "\n".join(
        f"- {what}: {escape_markdown(place, 2_000)}" for what, place in report.places.items()
    )
    return {
        "headline": dg.MetadataValue.text(report.headline),
        "deaths": dg.MetadataValue.int(figures.totals.deaths),
        "open_at_the_days_end": dg.MetadataValue.int(figures.backlog.open),
        "dagster/row_count": dg.MetadataValue.int(days),
        "causes": dg.MetadataValue.md(
            render_causes_markdown(figures) if figures.causes else "No event died on this day."
        ),
        "chart": dg.MetadataValue.md(
            f"![deaths a day by cause](data:image/svg+xml;base64,{chart})"
        ),
        "files": dg.MetadataValue.md(links),
        "report": _page(html),
        "dagster/uri": dg.MetadataValue.text(html if "://" in html else Path(html).as_uri()),
    }


def _page(place: str) -> dg.MetadataValue:
    """A link where a browser can follow it: that of Google's storage asks who one is.

    Else the place with a button that copies it. A browser follows no file:// from a page of http, and knows no s3://.
    """
    if place.startswith("gs://"):
        return dg.MetadataValue.url(
            f"https://storage.cloud.google.com/{quote(place.removeprefix('gs://'))}"
        )
    return dg.MetadataValue.path(place)


report_job = dg.define_asset_job(
    "build_report",
    selection=dg.AssetSelection.assets(failure_report),
    description=describe_definition(
        "Builds the **failure report** of a day, or of a range of days, and counts its figures a second time.",
        when="At 06:00, by `report_daily`; by hand for the days that you choose.",
        changes="The pages of these days under `DLQ_REPORT_URI`, and their rows in `dlq.report_day`.",
        rerun="Re-execute it, or launch a backfill: a past day gives the same pages.",
    ),
    owners=OWNERS,
    hooks={record_success_hook},
)

report_schedule = build_daily_schedule(
    report_job,
    name="report_daily",
    cron="0 6 * * *",
    missing="report.missing_days",
    description=describe_automation(
        "Builds the report of the day that ended at midnight, and those that are missing of the last two weeks.",
        when="At 06:00 in DLQ_TIMEZONE, a run a day.",
        changes="The pages of these days, and their rows in dlq.report_day; with DLQ_REPORT_DIGEST it queues the "
        "digest of yesterday.",
        rerun="The next tick makes up for a missed one; backfill failure_report for older days.",
    ),
)
