"""Observes the outbox and classifies its deaths by cause."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta

import dagster as dg

from dlq_pipelines.alerts.rules import Severity
from dlq_pipelines.causes.catalogue import Cause, list_causes, redact_causes
from dlq_pipelines.causes.counts import count_causes, count_classified_deaths
from dlq_pipelines.causes.similar import find_similar_causes, find_similar_groups
from dlq_pipelines.causes.update import update_causes
from dlq_pipelines.defs.describe import describe_automation, describe_check, describe_definition
from dlq_pipelines.defs.health import record_success_hook, report_check_result
from dlq_pipelines.defs.partitions import SCHEDULES_START, TIMEZONE
from dlq_pipelines.defs.resources import GROUP, OWNERS, POOL, OutboxResource, Session
from dlq_pipelines.defs.tables import CAUSE, OUTBOX, describe_table
from dlq_pipelines.installation import build_redact_errors
from dlq_pipelines.outbox.reconcile import read_outbox_state
from dlq_pipelines.retries.settle import list_inconsistent_stages, settle_retries
from dlq_pipelines.settings import read_settings
from dlq_pipelines.text import escape_markdown, render_markdown_table

# Rows of a table in the UI; `dlq causes list` has the others.
_SHOWN_ROWS = 20
_settings = read_settings()

# Without a freshness policy: Dagster judges freshness by materializations, and this asset is only
# observed. `dead_event_causes` observes it and has a policy.
outbox_event = dg.AssetSpec(
    "outbox_event",
    description=describe_definition(
        "The application's **outbox table**: events to deliver, events that wait for their next "
        "attempt, and dead events.",
        when="The application and its workers write to it all the time. Each run of "
        "`dead_event_causes` observes how many events are dead and how many wait.",
        changes="Nothing: Dagster observes the table. Retries and the archive change its dead "
        "events.",
        rerun="Materialize `dead_event_causes` to observe it now.",
    ),
    group_name=GROUP,
    owners=OWNERS,
    kinds={"postgres"},
    metadata=describe_table(
        _settings, _settings.names.outbox_schema, _settings.names.outbox_table, OUTBOX
    ),
)


@dg.asset(
    deps=[outbox_event],
    group_name=GROUP,
    owners=OWNERS,
    kinds={"postgres", "python"},
    pool=POOL,
    freshness_policy=dg.FreshnessPolicy.time_window(
        fail_window=timedelta(hours=1), warn_window=timedelta(minutes=15)
    ),
    metadata=describe_table(_settings, _settings.schema_name, "cause", CAUSE),
)
def dead_event_causes(
    context: dg.AssetExecutionContext, outbox: OutboxResource
) -> dg.MaterializeResult:  # type: ignore[type-arg]  # Dagster expects it without arguments
    """Assigns a **cause** to every new death: exception type and message template.

    Classifies deaths in batches of 5,000, with the **detail** that each error names, and records
    the outcomes of events that were retried by hand.

    - **When:** every five minutes, with the job `classify_deaths`.
    - **Changes:** `dlq.death.cause_id` and `.detail`, `dlq.cause`, `dlq.cause_detail`, the counts
      in `dlq.cause_day`, and `dlq.retry.outcome`.
    - **Rerun:** at any time, even twice at once: no death is counted twice.
    """
    with outbox.session() as session:
        connection, settings = session.connection, session.settings
        _observe_outbox(context, session)
        update = update_causes(
            connection,
            now=session.now,
            zone=settings.zone,
            announce=settings.death_webhook_url is not None,
        )
        settled = settle_retries(
            connection, now=session.now, settle_seconds=settings.settle_timeout_seconds
        )
        causes = redact_causes(list_causes(connection, limit=1000), build_redact_errors(settings))
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
    header = ("cause", "title", "state", "dead now", "deaths", "owner")
    detail_header = ("cause", "detail", "state", "dead now", "deaths", "first seen (UTC)")
    return dg.MaterializeResult(
        metadata=table
        | {
            "deaths_classified": update.deaths,
            "new_causes": len(update.new_causes),
            "new_details": len(update.new_details),
            "regressed": len(update.regressed),
            "regressed_details": len(update.regressed_details),
            "retries_settled": settled,
            "causes": dg.MetadataValue.md(render_markdown_table(header, rows)),
            "details": dg.MetadataValue.md(render_markdown_table(detail_header, details)),
            "similar_causes": dg.MetadataValue.md(_render_similar_causes(causes)),
        }
    )


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


def _observe_outbox(context: dg.AssetExecutionContext, session: Session) -> None:
    settings, state = session.settings, read_outbox_state(session.connection)
    metadata = session.describe_table(settings.names.outbox_schema, settings.names.outbox_table) | {
        "dagster/row_count": state.rows,
        "dead": state.dead,
        "oldest_dead_at": str(state.oldest_dead_at),
        "waiting": state.waiting,
        "oldest_due_at": str(state.oldest_due_at),
    }
    context.log_event(dg.AssetObservation(asset_key="outbox_event", metadata=metadata))


@dg.asset_check(asset="outbox_event", description=describe_check("backlog_is_small"))
def backlog_is_small(outbox: OutboxResource) -> dg.AssetCheckResult:
    """Count the dead events. The alert rule `backlog` covers them, so this check has no alert."""
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


@dg.asset_check(asset=dead_event_causes, description=describe_check("rollup_matches_ledger"))
def rollup_matches_ledger(outbox: OutboxResource) -> dg.AssetCheckResult:
    """Compare the daily rollup and the counters with the ledger."""
    with outbox.session() as session:
        counts = count_classified_deaths(session.connection)
        return report_check_result(
            session, "rollup_matches_ledger", passed=counts.agree, figures=asdict(counts)
        )


@dg.asset_check(asset=dead_event_causes, description=describe_check("stages_match_ledger"))
def stages_match_ledger(outbox: OutboxResource) -> dg.AssetCheckResult:
    """Compare the counted outcomes of every stage with the ledger of retries."""
    with outbox.session() as session:
        stages = list_inconsistent_stages(session.connection)
        wrong = ", ".join(f"fix {fix} stage {stage}" for fix, stage in stages)
        return report_check_result(
            session, "stages_match_ledger", passed=not wrong, figures={"wrong": wrong or "none"}
        )


causes_job = dg.define_asset_job(
    "classify_deaths",
    selection=dg.AssetSelection.assets(dead_event_causes)
    | dg.AssetSelection.checks(backlog_is_small),
    description=describe_definition(
        "Assigns **causes** to new deaths, observes the outbox, and checks its backlog and the "
        "counts.",
        when="Every five minutes, by `causes_every_five_minutes`.",
        changes="The ledger's causes and counts, and outcomes of retries. No table of the "
        "application.",
        rerun="Launch or re-execute it at any time: it classifies the deaths that have no cause.",
    ),
    owners=OWNERS,
    hooks={record_success_hook},
)

causes_schedule = dg.ScheduleDefinition(
    name="causes_every_five_minutes",
    job=causes_job,
    cron_schedule="*/5 * * * *",
    execution_timezone=TIMEZONE,
    default_status=SCHEDULES_START,
    owners=OWNERS,
    description=describe_automation(
        "Starts classify_deaths, so that new deaths have a cause within five minutes.",
        when="Every five minutes.",
        changes="dlq.death.cause_id and detail, dlq.cause, dlq.cause_detail, dlq.cause_day and "
        "dlq.retry.outcome.",
        rerun="Not needed after a missed tick: the next one classifies those deaths.",
    ),
)
