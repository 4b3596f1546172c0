"""Why did events die? The observed outbox and the classification of its deaths."""

from collections.abc import Sequence
from datetime import timedelta

import dagster as dg

from dlq_pipelines.causes.catalogue import Cause, list_causes, mark_relapses
from dlq_pipelines.causes.classify import classify_deaths
from dlq_pipelines.causes.counts import tend_counts
from dlq_pipelines.causes.similar import similar_causes
from dlq_pipelines.defs.health import checked, job_success
from dlq_pipelines.defs.partitions import SCHEDULES_START, TIMEZONE
from dlq_pipelines.defs.resources import GROUP, OWNERS, POOL, OutboxResource, Session
from dlq_pipelines.retries.settle import settle_retries
from dlq_pipelines.text import markdown_table

# Rows of a table in the UI; `dlq causes` lists the rest.
_SHOWN = 20

outbox_event = dg.AssetSpec(
    "outbox_event",
    description=(
        "The application's outbox table. Written by the application and its workers, never by a materialization; "
        "every run of `dead_event_causes` observes how many events are dead and how many wait."
    ),
    group_name=GROUP,
    owners=OWNERS,
    kinds={"postgres"},
)


@dg.asset(
    deps=[outbox_event],
    group_name=GROUP,
    owners=OWNERS,
    kinds={"postgres", "python"},
    pool=POOL,
    freshness_policy=dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=1), warn_window=timedelta(minutes=15)),
)
def dead_event_causes(context: dg.AssetExecutionContext, outbox: OutboxResource) -> dg.MaterializeResult:  # type: ignore[type-arg]  # Dagster wants it bare
    """Gives every new death its **cause**: exception type and message template.

    Runs every five minutes, takes what is not classified yet, in batches of 5,000. Also writes down what became of
    events that people retried. Changes `dlq.death.cause_id`, `dlq.cause`, `dlq.cause_day` and `dlq.retry.outcome`.
    Safe to run again at any time, and twice at once: nothing is counted twice.
    """
    with outbox.session() as session:
        _observe(context, session)
        announce = session.settings.death_webhook_url is not None
        found = classify_deaths(session.connection, zone=session.settings.zone, announce=announce)
        tend_counts(session.connection, now=session.now)
        regressed = mark_relapses(session.connection, now=session.now)
        patience = session.settings.settle_timeout_seconds
        settled = settle_retries(session.connection, now=session.now, settle_seconds=patience)
        causes = list_causes(session.connection, limit=1000)
        table = session.table(session.settings.schema_name, "cause")
        table["dagster/row_count"] = session.connection.one("cause.rows")["rows"]
        rows = [(c.id, c.title[:160], c.state(session.now), c.dead, c.deaths, c.owner or "") for c in causes[:_SHOWN]]
    return dg.MaterializeResult(
        metadata=table
        | {
            "deaths_classified": found.deaths,
            "new_causes": len(found.new_causes),
            "regressed": len(regressed),
            "retries_settled": settled,
            "causes": dg.MetadataValue.md(
                markdown_table(("cause", "what", "state", "dead now", "deaths", "owner"), rows)
            ),
            "may_be_one": dg.MetadataValue.md(_proposals(causes)),
        }
    )


def _proposals(causes: Sequence[Cause]) -> str:
    """Pairs that a person should look at; nothing is merged by itself."""
    alike = similar_causes(causes)[:_SHOWN]
    if not alike:
        return "No two causes are alike but for one word."
    rows = [
        (p.other.id, p.cause.id, p.differs[1] or "nothing", p.differs[0] or "nothing", p.other.deaths) for p in alike
    ]
    return markdown_table(("merge", "into", "where this says", "that says", "deaths"), rows)


def _observe(context: dg.AssetExecutionContext, session: Session) -> None:
    settings, seen = session.settings, session.connection.one("outbox.observe")
    metadata = {name: value if isinstance(value, int) else str(value) for name, value in seen.items()}
    table = session.table(settings.outbox_schema, settings.outbox_table)
    table["dagster/row_count"] = session.connection.one("outbox.rows")["rows"]
    context.log_event(dg.AssetObservation(asset_key="outbox_event", metadata=table | metadata))


@dg.asset_check(
    asset="outbox_event",
    description="No more events are dead than `DLQ_BACKLOG_WARN`; more than `DLQ_BACKLOG_ERROR` are an error.",
)
def backlog_is_small(outbox: OutboxResource) -> dg.AssetCheckResult:
    """Count what is dead. Of the alerts, `backlog` tells of the same."""
    with outbox.session() as session:
        seen, settings = session.connection.one("outbox.observe"), session.settings
    dead, worst = seen["dead"], seen["dead"] > settings.backlog_error
    return dg.AssetCheckResult(
        passed=dead <= settings.backlog_warn and not worst,
        severity=dg.AssetCheckSeverity.ERROR if worst else dg.AssetCheckSeverity.WARN,
        metadata={"dead": dead, "warn_above": settings.backlog_warn, "error_above": settings.backlog_error},
    )


@dg.asset_check(asset=dead_event_causes, description="Every classified death is counted once in the daily rollup.")
def rollup_matches_ledger(outbox: OutboxResource) -> dg.AssetCheckResult:
    """Recount the rollup from the ledger."""
    with outbox.session() as session:
        counted = session.connection.one("cause.rollup_difference")
        agree = counted["ledger"] == counted["rollup"] == counted["counters"]
        return checked(session, "rollup_matches_ledger", passed=agree, figures=counted)


@dg.asset_check(asset=dead_event_causes, description="The counted outcomes of every stage are those of its retries.")
def stages_match_ledger(outbox: OutboxResource) -> dg.AssetCheckResult:
    """Recount the stages of all fixes from the ledger of retries."""
    with outbox.session() as session:
        wrong = [f"fix {r['fix_id']} stage {r['stage']}" for r in session.connection.run("fix.stages_difference")]
        figures: dict[str, object] = {"wrong": ", ".join(wrong) or "none"}
        return checked(session, "stages_match_ledger", passed=not wrong, figures=figures)


causes_job = dg.define_asset_job(
    "classify_deaths",
    selection=dg.AssetSelection.assets(dead_event_causes) | dg.AssetSelection.checks(backlog_is_small),
    description="Classifies new deaths and observes the outbox.",
    hooks={job_success},
)

causes_schedule = dg.ScheduleDefinition(
    name="causes_every_five_minutes",
    job=causes_job,
    cron_schedule="*/5 * * * *",
    execution_timezone=TIMEZONE,
    default_status=SCHEDULES_START,
    description="New deaths have their cause within five minutes.",
)
