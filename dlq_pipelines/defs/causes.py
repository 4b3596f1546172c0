"""Why did events die? The observed outbox and the classification of its deaths."""

from collections.abc import Sequence
from datetime import timedelta

import dagster as dg

from dlq_pipelines.alerts.rules import Severity
from dlq_pipelines.causes.catalogue import Cause, list_causes
from dlq_pipelines.causes.similar import find_similar_causes
from dlq_pipelines.causes.update import update_causes
from dlq_pipelines.defs.describe import describe_automation, describe_check, describe_definition
from dlq_pipelines.defs.health import record_success_hook, report_check_result
from dlq_pipelines.defs.partitions import SCHEDULES_START, TIMEZONE
from dlq_pipelines.defs.resources import GROUP, OWNERS, POOL, OutboxResource, Session
from dlq_pipelines.defs.tables import CAUSE, OUTBOX, describe_table
from dlq_pipelines.retries.settle import settle_retries
from dlq_pipelines.settings import read_settings
from dlq_pipelines.text import render_markdown_table

# Rows of a table in the UI; `dlq causes` lists the rest.
_SHOWN = 20
_settings = read_settings()

outbox_event = dg.AssetSpec(
    "outbox_event",
    description=describe_definition(
        "The application's **outbox table**: what is to be delivered, what waits for its next try, and what is dead.",
        when="The application and its workers write it all the time; each run of `dead_event_causes` observes how many "
        "events are dead and how many wait.",
        changes="Nothing: it is observed, not materialized. Retries and the archive change its dead events.",
        rerun="Materialize `dead_event_causes` to observe it now.",
    ),
    group_name=GROUP,
    owners=OWNERS,
    kinds={"postgres"},
    metadata=describe_table(_settings, _settings.outbox_schema, _settings.outbox_table, OUTBOX),
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
) -> dg.MaterializeResult:  # type: ignore[type-arg]  # Dagster wants it bare
    """Gives every new death its **cause**: exception type and message template.

    Takes what is not classified yet, in batches of 5,000; also writes down what became of events that people retried.

    - **When:** every five minutes, with the job `classify_deaths`.
    - **Changes:** `dlq.death.cause_id`, `dlq.cause`, the counts in `dlq.cause_day`, and `dlq.retry.outcome`.
    - **Rerun:** at any time, also twice at once: nothing is counted twice.
    """
    with outbox.session() as session:
        _observe(context, session)
        announce = session.settings.death_webhook_url is not None
        update = update_causes(
            session.connection, now=session.now, zone=session.settings.zone, announce=announce
        )
        patience = session.settings.settle_timeout_seconds
        settled = settle_retries(session.connection, now=session.now, settle_seconds=patience)
        causes = list_causes(session.connection, limit=1000)
        table = session.table(session.settings.schema_name, "cause")
        table["dagster/row_count"] = session.connection.fetch_one("cause.rows")["rows"]
        rows = [
            (c.id, c.title[:160], c.state(session.now), c.dead, c.deaths, c.owner or "")
            for c in causes[:_SHOWN]
        ]
    return dg.MaterializeResult(
        metadata=table
        | {
            "deaths_classified": update.deaths,
            "new_causes": len(update.new_causes),
            "regressed": len(update.regressed),
            "retries_settled": settled,
            "causes": dg.MetadataValue.md(
                render_markdown_table(
                    ("cause", "what", "state", "dead now", "deaths", "owner"), rows
                )
            ),
            "may_be_one": dg.MetadataValue.md(_proposals(causes)),
        }
    )


def _proposals(causes: Sequence[Cause]) -> str:
    """Pairs that a person should look at; nothing is merged by itself."""
    alike = find_similar_causes(causes)[:_SHOWN]
    if not alike:
        return "No two causes are alike but for one word."
    rows = [
        (
            p.other.id,
            p.cause.id,
            p.differs[1] or "nothing",
            p.differs[0] or "nothing",
            p.other.deaths,
        )
        for p in alike
    ]
    return render_markdown_table(("merge", "into", "where this says", "that says", "deaths"), rows)


def _observe(context: dg.AssetExecutionContext, session: Session) -> None:
    settings, seen = session.settings, session.connection.fetch_one("outbox.observe")
    metadata = {
        name: value if isinstance(value, int) else str(value) for name, value in seen.items()
    }
    table = session.table(settings.outbox_schema, settings.outbox_table)
    table["dagster/row_count"] = session.connection.fetch_one("outbox.rows")["rows"]
    context.log_event(dg.AssetObservation(asset_key="outbox_event", metadata=table | metadata))


@dg.asset_check(asset="outbox_event", description=describe_check("backlog_is_small"))
def backlog_is_small(outbox: OutboxResource) -> dg.AssetCheckResult:
    """Count what is dead. Of the alerts, `backlog` tells of the same."""
    with outbox.session() as session:
        settings, dead = session.settings, session.connection.fetch_one("outbox.observe")["dead"]
        worst = dead > settings.backlog_error
        figures = {
            "dead": dead,
            "warn_above": settings.backlog_warn,
            "error_above": settings.backlog_error,
        }
        return report_check_result(
            session,
            "backlog_is_small",
            passed=dead <= settings.backlog_warn and not worst,
            severity=Severity.CRITICAL if worst else Severity.WARNING,
            figures=figures,
        )


@dg.asset_check(asset=dead_event_causes, description=describe_check("rollup_matches_ledger"))
def rollup_matches_ledger(outbox: OutboxResource) -> dg.AssetCheckResult:
    """Recount the rollup from the ledger."""
    with outbox.session() as session:
        counted = session.connection.fetch_one("cause.rollup_difference")
        agree = counted["ledger"] == counted["rollup"] == counted["counters"]
        return report_check_result(session, "rollup_matches_ledger", passed=agree, figures=counted)


@dg.asset_check(asset=dead_event_causes, description=describe_check("stages_match_ledger"))
def stages_match_ledger(outbox: OutboxResource) -> dg.AssetCheckResult:
    """Recount the stages of all fixes from the ledger of retries."""
    with outbox.session() as session:
        wrong = [
            f"fix {r['fix_id']} stage {r['stage']}"
            for r in session.connection.run("fix.stages_difference")
        ]
        figures: dict[str, object] = {"wrong": ", ".join(wrong) or "none"}
        return report_check_result(
            session, "stages_match_ledger", passed=not wrong, figures=figures
        )


causes_job = dg.define_asset_job(
    "classify_deaths",
    selection=dg.AssetSelection.assets(dead_event_causes)
    | dg.AssetSelection.checks(backlog_is_small),
    description=describe_definition(
        "Gives new deaths their **cause**, observes the outbox and checks its backlog and the counts.",
        when="Every five minutes, by `causes_every_five_minutes`.",
        changes="The ledger's causes and counts, and outcomes of retries; nothing of the application's.",
        rerun="Launch or re-execute it whenever you like: it takes what has no cause yet.",
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
        "Starts classify_deaths, so that new deaths have their cause within five minutes.",
        when="Every five minutes.",
        changes="dlq.death.cause_id, dlq.cause, dlq.cause_day and dlq.retry.outcome.",
        rerun="A missed tick needs nothing: the next one takes what it left.",
    ),
)
