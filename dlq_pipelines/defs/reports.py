"""Builds each day's failure report and compares its totals with the ledger."""

import base64
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import dagster as dg
import psycopg

from dlq_pipelines.defs.describe import describe_automation, describe_check, describe_definition
from dlq_pipelines.defs.outbox import Outbox
from dlq_pipelines.defs.partitions import (
    Metadata,
    define_currency_check,
    define_daily_schedule,
    process_days,
)
from dlq_pipelines.defs.session import Session
from dlq_pipelines.defs.tables import REPORT_DAY, describe_table
from dlq_pipelines.errors import DlqError
from dlq_pipelines.installation import (
    build_alert_sender,
    build_links,
    build_report_policy,
    get_reports_uri,
)
from dlq_pipelines.reports.missing import list_days_without_report
from dlq_pipelines.text import escape_markdown

if TYPE_CHECKING:
    from dlq_pipelines.reports.report import Report

_CHECK = "report_equals_ledger"


def define_reports(outbox: Outbox) -> dg.Definitions:
    """Define the daily report, its job and its schedule."""
    report_job = dg.define_asset_job(
        outbox.build_name("build_report"),
        selection=outbox.select_days("failure_report", "report_is_current", "report_daily"),
        description=describe_definition(
            outbox,
            "Builds the **failure report** of a day, or of a range of days, and compares its "
            "totals with the ledger.",
            when="{report_daily_by}; by hand for the days that you choose.",
            changes="The pages of these days under `DLQ_REPORT_URI`, and their rows in "
            "`{schema}.report_day`.",
            rerun="Re-execute it, or launch a backfill: the pages of a past day are the same.",
        ),
        owners=outbox.owners or None,
        tags=outbox.tags,
    )
    report_schedule = define_daily_schedule(
        outbox,
        "report_daily",
        job=report_job,
        list_missing=list_days_without_report,
        description=describe_automation(
            outbox,
            "Builds the report of the day that ended at midnight, and the missing reports of the "
            "last two weeks.",
            when="{report_daily_at} in {timezone}, one run for each day.",
            changes="The pages of these days, and their rows in {schema}.report_day; with "
            "DLQ_REPORT_DIGEST, the queued digest of yesterday.",
            rerun="The next tick builds what a missed one left; backfill failure_report for older "
            "days.",
        ),
    )
    return dg.Definitions(
        assets=[_define_report_asset(outbox)],
        asset_checks=define_currency_check(
            outbox,
            "report_is_current",
            asset="failure_report",
            schedule="report_daily",
            list_missing=list_days_without_report,
        ),
        jobs=[report_job],
        schedules=report_schedule,
    )


def _define_report_asset(outbox: Outbox) -> dg.AssetsDefinition:
    @dg.asset(
        key=outbox.build_key("failure_report"),
        deps=[outbox.build_key("dead_event_causes")],
        partitions_def=outbox.days,
        backfill_policy=outbox.backfill_policy,
        group_name=outbox.group,
        owners=outbox.owners,
        kinds={"postgres", "pandas"},
        # The table lists the pages; the URI is where they are.
        metadata=describe_table(
            outbox.settings, outbox.settings.schema_name, "report_day", REPORT_DAY
        )
        | {"dagster/uri": get_reports_uri(outbox.settings)},
        # Part of the asset: an asset check with partitions of its own is a preview feature of
        # Dagster.
        check_specs=[
            dg.AssetCheckSpec(
                _CHECK,
                asset=outbox.build_key("failure_report"),
                blocking=True,
                description=describe_check(outbox, _CHECK),
            )
        ],
    )
    @outbox.fill_in
    def failure_report(
        context: dg.AssetExecutionContext,
    ) -> dg.MaterializeResult:  # type: ignore[type-arg]  # Dagster expects it without arguments
        """The failures of a day: new, regressed and escalating causes, and the outcomes of fixes.

        Every figure is as of the end of the day: later retries and archive runs do not change it.

        - **When:** {report_daily_at} for the day before, and for missed days of the last two weeks.
        - **Changes:** the day's HTML, Markdown and JSON under `DLQ_REPORT_URI`, the `index.html` of
          all days, and the day's row in `{schema}.report_day`.
        - **Rerun:** any day, or a backfill of any range in one run: the files are the same, and a
          refused day stops no other day.
        """
        # pandas and Altair take a second, which loading the definitions should not.
        from dlq_pipelines.reports.check import count_reports, find_total_differences
        from dlq_pipelines.reports.report import build_report

        with outbox.session() as session:
            connection = session.connection
            policy, target = build_report_policy(session.settings), session.reports_target

            def build(key: str) -> tuple[Metadata, list[str]]:
                report = build_report(
                    connection,
                    day=session.parse_day(key).date,
                    zone=session.settings.zone,
                    target=target,
                    policy=policy,
                    now=session.now,
                )
                context.log.info(f"{report.headline} ({report.places['html']})")
                _queue_digest(context, session, report)
                differences = find_total_differences(connection, report.figures)
                return _build_metadata(report, count_reports(connection)), differences

            return process_days(context, session, build, job="build_report", check=_CHECK)

    return failure_report


def _queue_digest(context: dg.AssetExecutionContext, session: Session, report: "Report") -> None:
    """Queue the digest of yesterday once; the next `send_alerts` run sends it.

    A digest that cannot be queued does not fail the report.
    """
    today = session.now.astimezone(session.settings.zone).date()
    if not session.settings.report_digest or report.day != today - timedelta(days=1):
        return
    from dlq_pipelines.alerts.alert import queue_digest
    from dlq_pipelines.reports.digest import build_digest

    digest = build_digest(report)
    try:
        queue_digest(
            session.connection,
            report.day.isoformat(),
            summary=digest.title,
            detail=digest.text,
            now=session.now,
            routes=build_alert_sender(session.settings).routes,
            link=build_links(session.settings).link_report(report.day),
        )
    except (DlqError, psycopg.Error) as error:
        reason = str(error) if isinstance(error, DlqError) else type(error).__name__
        reason = session.settings.name_settings(reason)
        context.log.warning(f"The digest was not queued: {reason}")


def _build_metadata(report: "Report", days: int) -> Metadata:
    """Return the report's headline, figures and links, and how many days its table holds."""
    from dlq_pipelines.reports.charts import draw_days_chart
    from dlq_pipelines.reports.markdown import render_causes_markdown

    figures = report.figures
    chart = base64.b64encode(draw_days_chart(figures).encode()).decode()
    html = report.places["html"]
    links = "\n".join(
        f"- {kind}: {escape_markdown(place, 2_000)}" for kind, place in report.places.items()
    )
    address = figures.policy.links.link_report(report.day)
    return {
        "headline": dg.MetadataValue.text(report.headline),
        "deaths": dg.MetadataValue.int(figures.totals.deaths),
        "open_at_the_days_end": dg.MetadataValue.int(figures.backlog.dead_at_end),
        "dagster/row_count": dg.MetadataValue.int(days),
        "causes": dg.MetadataValue.md(
            render_causes_markdown(figures) if figures.causes else "No event died on this day."
        ),
        "chart": dg.MetadataValue.md(
            f"![deaths a day by cause](data:image/svg+xml;base64,{chart})"
        ),
        "files": dg.MetadataValue.md(links),
        "report": _build_page_link(html),
        **({"report_address": dg.MetadataValue.url(address)} if address else {}),
        "dagster/uri": dg.MetadataValue.text(html if "://" in html else Path(html).as_uri()),
    }


def _build_page_link(place: str) -> dg.MetadataValue:
    """Return a link if a browser can follow it, and otherwise the place with a copy button.

    Google's storage serves its pages to a browser after a login. A browser follows no file:// link
    from an http page, and does not know s3://.
    """
    if place.startswith("gs://"):
        return dg.MetadataValue.url(
            f"https://storage.cloud.google.com/{quote(place.removeprefix('gs://'))}"
        )
    return dg.MetadataValue.path(place)
