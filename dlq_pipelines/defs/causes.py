"""Observes the outbox and classifies its deaths by cause."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import Any

import dagster as dg

from dlq_pipelines.alerts.rules import Severity
from dlq_pipelines.causes.catalogue import (
    Cause,
    get_causes,
    list_causes,
    redact_causes,
)
from dlq_pipelines.causes.counts import count_causes, count_classified_deaths
from dlq_pipelines.causes.explain import explain_causes
from dlq_pipelines.causes.similar import find_similar_causes, find_similar_groups
from dlq_pipelines.causes.update import has_unclassified_deaths, update_causes
from dlq_pipelines.defs.describe import describe_automation, describe_check, describe_definition
from dlq_pipelines.defs.health import report_check_result
from dlq_pipelines.defs.outbox import Outbox
from dlq_pipelines.defs.schedules import define_schedule
from dlq_pipelines.defs.sensors import request_run
from dlq_pipelines.defs.session import Session
from dlq_pipelines.defs.tables import CAUSE, OUTBOX, build_lineage, build_table, describe_table
from dlq_pipelines.installation import build_hides_path, build_redact_errors
from dlq_pipelines.outbox.reconcile import read_outbox_state
from dlq_pipelines.retries.settle import (
    has_unsettled_retries,
    list_inconsistent_stages,
    settle_retries,
)
from dlq_pipelines.text import escape_markdown, render_markdown_table

# Rows of a table in the UI; `dlq causes list` has the others.
_SHOWN_ROWS = 20
# New causes of a run that are explained: each takes half a second.
_EXPLAINED = 5
_DATA_VERSION = dg.DataVersion("ledger")
# Time after its due time at which a retry's outcome is looked up. Most workers need a few seconds.
_SETTLE_AFTER = timedelta(minutes=5)
# The schedules without which there is no such check.
_SCHEDULES = {"export_is_current": "export_daily", "report_is_current": "report_daily"}
# The checks that `check_outbox` runs, by asset. The reconciliation reads the whole table, so it
# runs with the archive only.
_HOURLY_CHECKS = {
    "outbox_event": ["backlog_is_small"],
    "dead_event_causes": ["rollup_matches_ledger", "stages_match_ledger"],
    "dead_event_export": ["export_is_current"],
    "failure_report": ["report_is_current"],
    "dead_event_archive": ["archive_has_every_column", "nothing_stays_too_long"],
}


def _render_similar_causes(causes: Sequence[Cause]) -> str:
    """List pairs and groups that a person may merge. No causes are merged automatically."""
    pairs = find_similar_causes(causes)[:_SHOWN_ROWS]
    groups = [
        f"{escape_markdown(group.describe_difference())}; the largest is {group.cause.id}."
        for group in find_similar_groups(causes)[:_SHOWN_ROWS]
    ]
    if not pairs:
        return "\n\n".join(groups) or "No two causes differ in a single word."
    rows = [
        (
            pair.other.id,
            pair.cause.id,
            pair.differs[1] or "nothing",
            pair.differs[0] or "nothing",
            pair.other.deaths,
        )
        for pair in pairs
    ]
    header = ("merge", "into", "first error", "second error", "deaths")
    return "\n\n".join([render_markdown_table(header, rows), *groups])


def _observe_outbox(context: dg.AssetExecutionContext, outbox: Outbox, session: Session) -> None:
    settings, state = session.settings, read_outbox_state(session.connection)
    metadata = session.describe_table(settings.names.outbox_schema, settings.names.outbox_table) | {
        "dagster/row_count": state.rows,
        "dead": state.dead,
        "oldest_dead_at": str(state.oldest_dead_at),
        "waiting": state.waiting,
        "oldest_due_at": str(state.oldest_due_at),
    }
    context.log_event(dg.AssetObservation(outbox.build_key("outbox_event"), metadata=metadata))


def define_causes(outbox: Outbox) -> dg.Definitions:
    """Define the outbox, its causes, their checks, and what classifies deaths and checks."""
    classify_job, check_job = _define_jobs(outbox)
    schedule = define_schedule(
        outbox,
        "check_hourly",
        job=check_job,
        run_config=None,
        description=describe_automation(
            outbox,
            "Starts {check_outbox}, so that a wrong count or a missing day is seen within an hour.",
            when="{check_hourly_at}.",
            changes="The results of the checks, and what {classify_deaths} changes.",
            rerun="Not needed after a missed tick: the next one runs all of these checks.",
        ),
    )
    return dg.Definitions(
        assets=[_build_outbox_spec(outbox), _define_causes_asset(outbox)],
        asset_checks=_define_checks(outbox),
        jobs=[classify_job, check_job],
        schedules=schedule,
        sensors=[_define_sensor(outbox, classify_job)],
    )


def _build_outbox_spec(outbox: Outbox) -> dg.AssetSpec:
    settings = outbox.settings
    # Without a freshness policy: Dagster judges freshness by materializations, and this asset is
    # only observed. `dead_event_causes` observes it and has a policy.
    return dg.AssetSpec(
        outbox.build_key("outbox_event"),
        description=describe_definition(
            outbox,
            "The application's outbox table: events to deliver, events that wait for their next "
            "attempt, and dead events.",
            when="The application and its workers write to it all the time. Each run of "
            "`dead_event_causes` observes how many events are dead and how many wait.",
            changes="Nothing: Dagster observes the table. Retries and the archive change its dead "
            "events.",
            rerun="Materialize `dead_event_causes` to observe it now.",
        ),
        group_name=outbox.group,
        owners=outbox.owners,
        kinds={"postgres"},
        metadata=describe_table(
            settings, settings.names.outbox_schema, settings.names.outbox_table, OUTBOX
        ),
    )


def _define_causes_asset(outbox: Outbox) -> dg.AssetsDefinition:
    @dg.asset(
        key=outbox.build_key("dead_event_causes"),
        deps=[outbox.build_key("outbox_event")],
        group_name=outbox.group,
        owners=outbox.owners,
        kinds={"postgres", "python"},
        pool=outbox.pool,
        freshness_policy=dg.FreshnessPolicy.time_window(
            fail_window=timedelta(hours=4), warn_window=timedelta(hours=2)
        ),
        metadata=describe_table(outbox.settings, outbox.settings.schema_name, "cause", CAUSE)
        | {
            "dagster/column_lineage": build_lineage(
                {
                    column: (outbox.build_key("outbox_event"), "last_error")
                    for column in ("id", "exception_type", "template")
                }
            )
        },
    )
    @outbox.fill_in
    def dead_event_causes(
        context: dg.AssetExecutionContext,
    ) -> dg.MaterializeResult:  # type: ignore[type-arg]  # Dagster expects it without arguments
        """Assigns a cause to every new death: exception type and message template.

        Classifies deaths in batches of 5,000, with the **detail** that each error names, and
        records the outcomes of events that were retried by hand.

        - **When:** within a minute of a death, with the job `{classify_deaths}`, and every hour.
        - **Changes:** `{schema}.death.cause_id` and `.detail`, `{schema}.cause`,
          `{schema}.cause_detail`, the counts in `{schema}.cause_day`, and `{schema}.retry.outcome`.
        - **Rerun:** at any time, even twice at once: no death is counted twice.
        """
        with outbox.session() as session:
            connection, settings = session.connection, session.settings
            _observe_outbox(context, outbox, session)
            update = update_causes(
                connection,
                now=session.now,
                zone=settings.zone,
                announce=settings.death_webhook_url is not None,
            )
            settled = settle_retries(
                connection, now=session.now, settle_seconds=settings.settle_timeout_seconds
            )
            causes = redact_causes(
                list_causes(connection, limit=1000), build_redact_errors(settings)
            )
            table = session.describe_table(settings.schema_name, "cause")
            table["dagster/row_count"] = count_causes(connection)
            rows = [
                (c.id, c.title[:160], c.state(session.now), c.dead, c.deaths, c.owner or "")
                for c in causes[:_SHOWN_ROWS]
            ]
            details = [
                (c.id, d.detail, d.status, d.dead, d.deaths, f"{d.first_seen:%Y-%m-%d %H:%M}")
                for c in causes[:_SHOWN_ROWS]
                for d in c.details
            ]
            explained = explain_causes(
                connection,
                update.new_causes[:_EXPLAINED],
                zone=settings.zone,
                is_hidden=build_hides_path(settings),
            )
            beginnings = {
                cause.id: cause.beginning
                for cause in get_causes(connection, update.new_causes[:_EXPLAINED]).values()
            }
            session.record_success("classify_deaths")
            if context.run.job_name == outbox.build_name("check_outbox"):
                session.record_success("check_outbox")
        header = ("cause", "title", "state", "dead now", "deaths", "owner")
        detail_header = ("cause", "detail", "state", "dead now", "deaths", "first seen (UTC)")
        return dg.MaterializeResult(
            # The same at each run: exports and reports of past days do not become stale.
            data_version=_DATA_VERSION,
            metadata=table
            | {
                "deaths_classified": update.deaths,
                "new_causes": len(update.new_causes),
                "new_details": len(update.new_details),
                "regressed": len(update.regressed),
                "regressed_details": len(update.regressed_details),
                "retries_settled": settled,
                "new_causes_explained": build_table(
                    ("cause", "began", "what sets its events apart"),
                    [
                        (found.cause, beginnings.get(found.cause, ""), str(found))
                        for found in explained
                    ],
                ),
                "causes": build_table(header, rows),
                "details": build_table(detail_header, details),
                "similar_causes": dg.MetadataValue.md(_render_similar_causes(causes)),
            },
        )

    return dead_event_causes


def _define_checks(outbox: Outbox) -> list[dg.AssetChecksDefinition]:
    @dg.asset_check(
        asset=outbox.build_key("outbox_event"),
        description=describe_check(outbox, "backlog_is_small"),
    )
    def backlog_is_small() -> dg.AssetCheckResult:
        """Count the dead events. The alert rule `backlog` reports them."""
        with outbox.session() as session:
            settings = session.settings
            dead = read_outbox_state(session.connection).dead
            is_error = dead > settings.backlog_error
            figures = {
                "dead": dead,
                "warn_above": settings.backlog_warn,
                "error_above": settings.backlog_error,
            }
            return report_check_result(
                session,
                "backlog_is_small",
                passed=dead <= settings.backlog_warn and not is_error,
                severity=Severity.CRITICAL if is_error else Severity.WARNING,
                figures=figures,
            )

    @dg.asset_check(
        asset=outbox.build_key("dead_event_causes"),
        description=describe_check(outbox, "rollup_matches_ledger"),
    )
    def rollup_matches_ledger() -> dg.AssetCheckResult:
        """Compare the daily rollup and the counters with the ledger."""
        with outbox.session() as session:
            counts = count_classified_deaths(session.connection)
            return report_check_result(
                session, "rollup_matches_ledger", passed=counts.agree, figures=asdict(counts)
            )

    @dg.asset_check(
        asset=outbox.build_key("dead_event_causes"),
        description=describe_check(outbox, "stages_match_ledger"),
    )
    def stages_match_ledger() -> dg.AssetCheckResult:
        """Compare the counted outcomes of every stage with the ledger of retries."""
        with outbox.session() as session:
            stages = list_inconsistent_stages(session.connection)
            wrong = ", ".join(f"fix {fix} stage {stage}" for fix, stage in stages)
            return report_check_result(
                session, "stages_match_ledger", passed=not wrong, figures={"wrong": wrong or "none"}
            )

    return [backlog_is_small, rollup_matches_ledger, stages_match_ledger]


def _define_jobs(outbox: Outbox) -> tuple[Any, Any]:
    classify_job = dg.define_asset_job(
        outbox.build_name("classify_deaths"),
        selection=outbox.select("dead_event_causes").without_checks(),
        description=describe_definition(
            outbox,
            "Assigns **causes** to new deaths, observes the outbox, and records outcomes of "
            "retries.",
            when="Within a minute of a death, by `{new_death_sensor}`.",
            changes="The ledger's causes and counts, and outcomes of retries. No table of the "
            "application.",
            rerun="Launch or re-execute it at any time: it classifies the deaths that have no "
            "cause.",
        ),
        owners=outbox.owners or None,
        tags=outbox.tags,
    )
    checks = [
        dg.AssetCheckKey(outbox.build_key(asset), check)
        for asset, names in _HOURLY_CHECKS.items()
        for check in names
        if _SCHEDULES.get(check, "check_hourly") in {"check_hourly", *outbox.crons}
    ]
    check_job = dg.define_asset_job(
        outbox.build_name("check_outbox"),
        selection=outbox.select("dead_event_causes").without_checks()
        | dg.AssetSelection.checks(*checks),
        description=describe_definition(
            outbox,
            "**Checks** the backlog, the counts, the columns of the archive, and that the last day "
            "has its export and its report.",
            when="{check_hourly_by}.",
            changes="The results of the checks, and what `{classify_deaths}` changes.",
            rerun="Launch it at any time: it checks the present state.",
        ),
        owners=outbox.owners or None,
        tags=outbox.tags,
    )
    return classify_job, check_job


def _define_sensor(outbox: Outbox, classify_job: Any) -> dg.SensorDefinition:
    @dg.sensor(
        name=outbox.build_name("new_death_sensor"),
        job=classify_job,
        minimum_interval_seconds=60,
        default_status=outbox.sensor_status,
        owners=outbox.owners,
        description=describe_automation(
            outbox,
            "Requests a run of {classify_deaths} when a death has no cause or a retry has no "
            "outcome.",
            when="Every minute; an idle outbox starts no run.",
            changes="Nothing: the sensor reads two indexes, and the run that it requests writes.",
            rerun="The next tick reads the database again, so a missed tick loses no death.",
        ),
    )
    def new_death_sensor(
        context: dg.SensorEvaluationContext,
    ) -> Iterator[dg.RunRequest | dg.SkipReason]:
        """Request a run when there is something to classify and no run is in progress."""
        with outbox.session() as session:
            now = session.now
            has_work = has_unclassified_deaths(session.connection) or has_unsettled_retries(
                session.connection, due_before=now - _SETTLE_AFTER
            )
        yield request_run(
            context,
            outbox,
            "classify_deaths",
            now=now,
            has_work=has_work,
            idle="Every death has a cause, and every retry that was due an outcome.",
        )

    return new_death_sensor
