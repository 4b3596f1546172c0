"""The day's failures, for people."""

import base64

import dagster as dg

from dlq_pipelines.defs.causes import dead_event_causes
from dlq_pipelines.defs.partitions import BACKFILL, DAYS, SCHEDULES_START
from dlq_pipelines.defs.resources import GROUP, OWNERS, OutboxResource
from dlq_pipelines.reports.report import Report, build_report, report_markdown


@dg.asset(
    deps=[dead_event_causes],
    partitions_def=DAYS,
    backfill_policy=BACKFILL,
    group_name=GROUP,
    owners=OWNERS,
    kinds={"postgres", "pandas"},
)
def failure_report(context: dg.AssetExecutionContext, outbox: OutboxResource) -> dg.MaterializeResult:  # type: ignore[type-arg]  # Dagster wants it bare
    """The **failure causes of a day** as one self-contained HTML page in the report folder.

    Runs at 06:00 for the day before. Changes nothing in the database. Every figure is as of the end of its day, so a
    past day can be rebuilt at any time and gives the same page.
    """
    with outbox.session() as session:
        for key in context.partition_keys:
            report = build_report(
                session.connection,
                day=session.day(key).date,
                zone=session.settings.zone,
                folder=session.reports,
            )
            context.log.info(f"{report.headline} ({report.path})")
            context.add_asset_metadata(_metadata(report), partition_key=key)
    return dg.MaterializeResult()


def _metadata(report: Report) -> dict[str, dg.MetadataValue]:
    chart = base64.b64encode(report.chart_svg.encode()).decode()
    path = report.path.resolve()
    return {
        "headline": dg.MetadataValue.text(report.headline),
        "deaths": dg.MetadataValue.int(report.deaths),
        "dagster/row_count": dg.MetadataValue.int(report.deaths),
        "causes": dg.MetadataValue.md(report_markdown(report)),
        "chart": dg.MetadataValue.md(f"![deaths a day by cause](data:image/svg+xml;base64,{chart})"),
        "report": dg.MetadataValue.path(path),
        "dagster/uri": dg.MetadataValue.text(path.as_uri()),
    }


report_job = dg.define_asset_job(
    "build_report",
    selection=dg.AssetSelection.assets(failure_report),
    description="Builds the failure report of a day, or of a range of days in one run.",
)

report_schedule = dg.build_schedule_from_partitioned_job(
    report_job,
    name="report_daily",
    hour_of_day=6,
    minute_of_hour=0,
    default_status=SCHEDULES_START,
    description="The report of the day that ended at midnight is there in the morning.",
)
