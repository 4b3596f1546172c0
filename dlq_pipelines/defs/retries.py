"""How is a fix flagged, and how do its stages run by themselves?"""

from collections.abc import Iterator

import dagster as dg
import psycopg
from pydantic import Field

from dlq_pipelines.defs.partitions import SENSORS_START
from dlq_pipelines.defs.resources import POOL, OutboxResource, Session
from dlq_pipelines.errors import DlqError
from dlq_pipelines.retries.fix import Fix, RetryPolicy
from dlq_pipelines.retries.ledger import count_targets, fixes_due, flag_fix, stages
from dlq_pipelines.retries.retry import advance_fix, retry_events
from dlq_pipelines.text import markdown_table, markdown_text

FIX_TAG = "dlq/fix"
STAGE_TAG = "dlq/stage"
CAUSE_TAG = "dlq/cause"
# A tick does at most this much; the next one comes in half a minute.
_FIXES_A_TICK = 20
_UNFINISHED = [
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


class FlagFixConfig(dg.Config):
    """A statement that a cause is mended upstream."""

    cause_id: str = Field(description="The cause, as dead_event_causes lists it, such as v1-3f9a0c6d2b7e4a51.")
    event_type: str | None = Field(default=None, description="Only events of this type. Empty: all of the cause.")
    note: str = Field(description="What was mended: a version, a link, a sentence.")
    actor: str = Field(description="Who says so.")
    dry_run: bool = Field(default=True, description="Only count the events. Set to false to flag the fix.")


@dg.op(pool=POOL)
def flag_fix_op(context: dg.OpExecutionContext, config: FlagFixConfig, outbox: OutboxResource) -> None:
    """Flag a fix, or with `dry_run` count what it would target."""
    with outbox.session() as session:
        if config.dry_run:
            count = count_targets(
                session.connection, cause_id=config.cause_id, event_type=config.event_type, now=session.now
            )
            context.log.info(f"Dry run: a fix for {config.cause_id} would target {count} dead events.")
            context.add_output_metadata({"would_target": count})
            return
        fix = flag_fix(
            session.connection,
            cause_id=config.cause_id,
            event_type=config.event_type,
            note=config.note,
            actor=config.actor,
            now=session.now,
            policy=policy_of(session),
            run_id=context.run_id,
        )
    context.log.info(f"Fix {fix.id} is flagged. The fix_flag_sensor releases its canary of {fix.policy.canary}.")
    context.add_output_metadata({"fix": fix.id})


def policy_of(session: Session) -> RetryPolicy:
    """The settings' defaults for a fix."""
    settings = session.settings
    return RetryPolicy(settings.canary, settings.retry_rate, settings.min_success, settings.settle_timeout_seconds)


@dg.job(name="flag_fix")
def flag_fix_job() -> None:
    """Flags a **fix**: somebody's statement that a cause is mended upstream.

    The fix targets the dead events of the cause that died before now. Once the `fix_flag_sensor` runs, it releases a
    canary, waits for what the worker makes of it, and releases the rest or halts. `dry_run` is on by default.
    """
    flag_fix_op()


class RetryStageConfig(dg.Config):
    """Which fix to take a step with."""

    fix_id: int = Field(ge=1, description="The fix, as `dlq fixes list` lists it.")


@dg.op(pool=POOL)
def retry_stage_op(context: dg.OpExecutionContext, config: RetryStageConfig, outbox: OutboxResource) -> None:
    """Settle, decide, and release for one fix."""
    with outbox.session() as session:
        done = advance_fix(
            session.connection, config.fix_id, now=session.now, actor="fix_flag_sensor", run_id=context.run_id
        )
        outcomes = stages(session.connection, config.fix_id)
    fix = done.fix
    rows = [(n, s.released, s.done, s.dead, s.unsettled, s.gone, s.waiting) for n, s in sorted(outcomes.items())]
    header = ("stage", "released", "done", "dead again", "unsettled", "gone", "waiting")
    context.add_output_metadata(
        {
            "fix": fix.id,
            "status": str(fix.status),
            "verdict": markdown_text(fix.verdict or "not decided yet"),
            "released_now": done.released,
            "settled_now": done.settled,
            "stages": dg.MetadataValue.md(markdown_table(header, rows)),
        }
    )
    context.log.info(f"Fix {fix.id} is {fix.status}: {done.step}" if not done.busy else "Another run has this fix.")


@dg.job(name="retry_stage")
def retry_stage_job() -> None:
    """Takes the next step of one fix: writes down outcomes, then **releases, waits, halts or verifies**.

    The `fix_flag_sensor` launches it. Running it again does nothing twice: what to do is decided on the ledger.
    """
    retry_stage_op()


class RetryEventsConfig(dg.Config):
    """Dead events to retry by hand."""

    event_ids: list[int] = Field(description="At most 1,000 event ids.", min_length=1, max_length=1000)
    reason: str = Field(min_length=1, description="Why, for the audit.")
    actor: str = Field(min_length=1, description="Who asks for it, for the audit.")
    rate: float = Field(default=50.0, gt=0, le=100_000, description="Events a second at which they fall due.")
    dry_run: bool = Field(default=True, description="Only count the events. Set to false to retry them.")


@dg.op(pool=POOL)
def retry_dead_events_op(context: dg.OpExecutionContext, config: RetryEventsConfig, outbox: OutboxResource) -> None:
    """Retry the named events that are dead."""
    with outbox.session() as session:
        retried = retry_events(
            session.connection,
            config.event_ids,
            now=session.now,
            rate=config.rate,
            actor=config.actor,
            reason=config.reason,
            run_id=context.run_id,
            dry_run=config.dry_run,
        )
    context.log.info(f"{'Would retry' if config.dry_run else 'Retried'} {retried.events} dead events.")
    context.add_output_metadata({"events": retried.events, "asked_for": len(config.event_ids)})


@dg.job(name="retry_dead_events")
def retry_dead_events_job() -> None:
    """Makes **named dead events** pending again, paced, with an audit row. `dry_run` is on by default.

    Events that are not dead are passed over, so running it again retries nothing twice.
    """
    retry_dead_events_op()


@dg.sensor(
    job=retry_stage_job,
    minimum_interval_seconds=30,
    default_status=SENSORS_START,
    description=(
        "Looks for fixes with something to do: a new flag, or a stage with outcomes. Requests one `retry_stage` run "
        "a fix. Reads only; without a cursor, so nothing that commits late is missed."
    ),
)
def fix_flag_sensor(
    context: dg.SensorEvaluationContext, outbox: OutboxResource
) -> Iterator[dg.RunRequest | dg.SkipReason]:
    """Request a run for each fix that wants a step and has none under way."""
    try:
        with outbox.session() as session:
            now = session.now
            due = fixes_due(session.connection, now=now, limit=_FIXES_A_TICK)
    except (dg.Failure, DlqError, psycopg.Error) as error:
        yield dg.SkipReason(error.description or "" if isinstance(error, dg.Failure) else type(error).__name__)
        return
    idle = [fix for fix in due if not _has_run(context, fix)]
    if not idle:
        yield dg.SkipReason(f"{len(due)} fixes want a step; each has a run already." if due else "No fix wants a step.")
    for fix in idle:
        # The time makes the key new each tick: a key is for ever, and the key of a failed run would lose the fix.
        yield dg.RunRequest(
            run_key=f"fix {fix.id} stage {fix.stage} {now:%Y-%m-%dT%H:%M:%S}",
            run_config=dg.RunConfig(ops={"retry_stage_op": RetryStageConfig(fix_id=fix.id)}),
            tags={FIX_TAG: str(fix.id), STAGE_TAG: str(fix.stage), CAUSE_TAG: fix.cause_id},
        )


def _has_run(context: dg.SensorEvaluationContext, fix: Fix) -> bool:
    unfinished = dg.RunsFilter(tags={FIX_TAG: str(fix.id)}, statuses=_UNFINISHED)
    return bool(context.instance.get_run_records(unfinished, limit=1))
