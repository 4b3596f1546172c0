"""How is a fix flagged, and how do its stages run by themselves?"""

from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import timedelta
from typing import Any, Literal

import dagster as dg
import psycopg
from pydantic import Field, create_model

from dlq_pipelines.audit import AuditContext
from dlq_pipelines.day import parse_time
from dlq_pipelines.defs.describe import describe_automation
from dlq_pipelines.defs.health import record_success_hook
from dlq_pipelines.defs.partitions import SENSORS_START
from dlq_pipelines.defs.resources import OWNERS, POOL, OutboxResource, Session, is_run_in_progress
from dlq_pipelines.errors import DlqError
from dlq_pipelines.installation import build_fix_terms, resolve_rate
from dlq_pipelines.outbox.selection import FILTERS, Selection
from dlq_pipelines.retries.advance import AdvanceResult, advance_fix
from dlq_pipelines.retries.fix import RetryPolicy, StageOutcomes, WaitStep
from dlq_pipelines.retries.fixes import (
    FixFlag,
    flag_fix,
    get_stage_outcomes,
    list_due_fixes,
    preview_fix,
    validate_note,
)
from dlq_pipelines.retries.retry import retry_selected
from dlq_pipelines.text import escape_markdown, render_markdown_table
from dlq_pipelines.validate import validate_positive

FIX_TAG = "dlq/fix"
STAGE_TAG = "dlq/stage"
CAUSE_TAG = "dlq/cause"
_NOT_ENTERED = (None, "installation's")
# A tick does at most this much; the next one comes in half a minute.
_FIXES_A_TICK = 20


class _LaunchpadConfig(dg.Config):
    """Config of a job that selects dead events."""

    event_ids: list[int] | None = Field(default=None, description="These events, at most 10,000.")
    all: bool = Field(default=False, description="All dead events. Excludes filters.")

    def build_selection(self, session: Session) -> Selection:
        """Build the selection that was entered.

        Raises:
            ValueError: the filters cannot be used; the message names the field.
        """
        given = {item.name: getattr(self, item.name) for item in FILTERS}
        zone = session.settings.zone
        return Selection.build({**given, "all": self.all}, zone, self.event_ids)


_filter_fields: Any = {
    item.name: (
        item.metadata["given_as"] | None,
        Field(default=None, description=item.metadata["description"]),
    )
    for item in FILTERS
}
SelectionConfig: Any = create_model("SelectionConfig", __base__=_LaunchpadConfig, **_filter_fields)


class FlagFixConfig(SelectionConfig):
    """A statement that something is mended upstream. Figures left empty are the installation's."""

    note: str = Field(description="What was mended, in a sentence.")
    link: str | None = Field(default=None, description="The version or the address of the change.")
    owner: str | None = Field(default=None, description="Whom to ask.")
    actor: str = Field(description="Who says so.")
    not_before: str | None = Field(
        default=None, description="When the first stage may begin: 2026-11-24T18:30."
    )
    expiry_days: int | None = Field(
        default=None, description="Days after which it ends unproven, 1 to 365."
    )
    canary: int | None = Field(default=None, description="Events in the first stage, 1 to 5,000.")
    growth: float | None = Field(
        default=None, description="How many times larger each stage is, 1 to 1,000."
    )
    rate: float | None = Field(default=None, description="Events a second, up to 100,000.")
    min_success: float | None = Field(
        default=None, description="Share of a stage that must succeed, up to 1."
    )
    settle_seconds: int | None = Field(
        default=None, description="How long an event may stay without outcome."
    )
    max_retries: int | None = Field(
        default=None, description="An event that died again after so many is parked."
    )
    order: Literal["installation's", "aggregate", "none"] = Field(
        default="installation's",
        description="aggregate: an event goes when nothing earlier of its aggregate is dead or under way.",
    )
    dry_run: bool = Field(
        default=True, description="Only say what it would do. Set to false to flag the fix."
    )

    def flag(self, session: Session) -> FixFlag:
        """What was entered, and the installation's where nothing was.

        Raises:
            ValueError: a field cannot be used; the message names it.
        """
        terms = build_fix_terms(session.settings)
        entered = {name: getattr(self, name) for name in RetryPolicy.__dataclass_fields__}
        days = (
            terms.expiry.days
            if self.expiry_days is None
            else validate_positive("expiry_days", self.expiry_days, most=365)
        )
        begin = None
        if self.not_before is not None:
            begin = parse_time("not_before", self.not_before, session.settings.zone)
        return FixFlag(
            self.build_selection(session),
            replace(
                terms.policy,
                **{name: value for name, value in entered.items() if value not in _NOT_ENTERED},
            ),
            self.link,
            self.owner,
            begin,
            (begin or session.now) + timedelta(days=days),
        )


@dg.op(pool=POOL)
def flag_fix_op(
    context: dg.OpExecutionContext, config: FlagFixConfig, outbox: OutboxResource
) -> None:
    """Flag a fix, or with `dry_run` say what it would release."""
    with outbox.session() as session:
        flag = config.flag(session)
        audit = AuditContext(config.actor, validate_note(config.note), session.now, context.run_id)
        if config.dry_run:
            would = preview_fix(
                session.connection,
                flag,
                audit=audit,
                default=build_fix_terms(session.settings).policy,
            )
            context.log.info(
                f"Dry run: it would mean {would.events:,} dead events, in {len(would.stages)} stages."
            )
            overtaken = "not known" if would.overtaken is None else would.overtaken
            context.add_output_metadata(
                {**vars(would), "overtaken": overtaken, "stages": would.sizes}
            )
            return
        fix = flag_fix(session.connection, flag, audit=audit)
    context.log.info(f"Fix {fix.id} is flagged. The fix_flag_sensor releases its canary.")
    context.add_output_metadata({"fix": fix.id})


@dg.job(name="flag_fix", owners=OWNERS, hooks={record_success_hook})
def flag_fix_job() -> None:
    """Flags a **fix**: somebody's statement that a cause, or another set of dead events, is mended upstream.

    The fix targets what died before now. The `fix_flag_sensor` releases a canary, waits for what the worker makes of
    it, and goes on with larger stages, or halts and says why.

    - **When:** when a person launches it. `dry_run` is on by default, and shows how many events and stages there would
      be.
    - **Changes:** adds a row to `dlq.fix` and to the audit, and the cause is `fixing`. No event moves yet.
    - **Rerun:** a failed run as it is. After one that flagged, it is refused while that fix is open; one that halted is
      flagged anew, once the cause is mended.
    """
    flag_fix_op()


class RetryStageConfig(dg.Config):
    """Which fix to take a step with."""

    fix_id: int = Field(description="The fix, as `dlq fixes list` lists it.")


@dg.op(pool=POOL)
def retry_stage_op(
    context: dg.OpExecutionContext, config: RetryStageConfig, outbox: OutboxResource
) -> None:
    """Settle, decide, and release for one fix."""
    with outbox.session() as session:
        audit = AuditContext(
            "fix_flag_sensor", "a step of the fix is due", session.now, context.run_id
        )
        done = advance_fix(
            session.connection,
            config.fix_id,
            audit=audit,
            terms=build_fix_terms(session.settings),
        )
        outcomes = get_stage_outcomes(session.connection, config.fix_id)
    context.add_output_metadata(_told(done, outcomes))
    context.log.info(
        "Another run has this fix." if done.busy else f"Fix {done.fix.id} is {done.fix.status}."
    )


def _told(done: AdvanceResult, outcomes: dict[int, StageOutcomes]) -> dict[str, Any]:
    """What a person asks of a step: how far, what next, and why it ended."""
    rows = [
        (n, s.size, s.released, s.delivered, s.died_again, s.timed_out, s.deleted, s.waiting)
        for n, s in outcomes.items()
    ]
    header = (
        "stage",
        "may release",
        "released",
        "delivered",
        "died again",
        "timed out",
        "deleted",
        "waiting",
    )
    told = {
        "fix": done.fix.id,
        "status": str(done.fix.status),
        "released_now": done.released,
        "settled_now": done.settled,
        "next": escape_markdown(
            done.fix.verdict or (done.step.reason if isinstance(done.step, WaitStep) else "busy")
        ),
        "stages": dg.MetadataValue.md(render_markdown_table(header, rows)),
    }
    if done.fix.evidence:
        shown = [(e["events"], e["outcome"], e["before"], e["after"]) for e in done.fix.evidence]
        told["errors"] = dg.MetadataValue.md(
            render_markdown_table(("events", "outcome", "before", "after"), shown)
        )
    return told


# The sensor asks for no second run of a fix while it takes the first one to be under way. A step takes seconds.
@dg.job(
    name="retry_stage",
    owners=OWNERS,
    hooks={record_success_hook},
    tags={"dagster/max_runtime": "900"},
)
def retry_stage_job() -> None:
    """Takes the next step of one fix: writes down outcomes, then **releases, waits, halts or verifies**.

    - **When:** the `fix_flag_sensor` launches it when a fix has something to do.
    - **Changes:** `dlq.fix`, its stages and `dlq.retry`; events that it releases are pending again and fall due at the
      pace of the fix.
    - **Rerun:** with the same fix, at any time: what to do is decided on the ledger, so nothing is done twice.
    """
    retry_stage_op()


class RetryEventsConfig(SelectionConfig):
    """Dead events to retry by hand, all at one pace and without the proof that a fix gives."""

    reason: str = Field(description="Why, for the audit.")
    actor: str = Field(description="Who asks for it, for the audit.")
    rate: float | None = Field(
        default=None,
        description="Events a second at which they fall due, up to 100,000. Empty: DLQ_RETRY_RATE.",
    )
    parked: bool = Field(
        default=False, description="Also those that died again after too many retries."
    )
    dry_run: bool = Field(
        default=True, description="Only count the events. Set to false to retry them."
    )


@dg.op(pool=POOL)
def retry_dead_events_op(
    context: dg.OpExecutionContext, config: RetryEventsConfig, outbox: OutboxResource
) -> None:
    """Retry the dead events that are meant."""
    with outbox.session() as session:
        retried = retry_selected(
            session.connection,
            config.build_selection(session),
            audit=AuditContext(config.actor, config.reason, session.now, context.run_id),
            rate=resolve_rate(config.rate, session.settings),
            max_retries=None if config.parked else session.settings.max_retries,
        )
    context.log.info(
        f"{'Would retry' if config.dry_run else 'Retried'} {retried.events:,} dead events."
    )
    context.add_output_metadata(asdict(retried))


@dg.job(name="retry_dead_events", owners=OWNERS, hooks={record_success_hook})
def retry_dead_events_job() -> None:
    """Makes **dead events** pending again, by ids or by a filter, at one pace.

    To have a repair proven on a few events first, flag a fix instead.

    - **When:** when a person launches it. `dry_run` is on by default, and counts the events.
    - **Changes:** each event is `pending` with no attempts and a paced `next_run_at`; a row in `dlq.retry` each, and
      one in the audit for 5,000 of them.
    - **Rerun:** at any time: events that are not dead are passed over, so none is retried twice.
    """
    retry_dead_events_op()


@dg.sensor(
    job=retry_stage_job,
    minimum_interval_seconds=30,
    default_status=SENSORS_START,
    owners=OWNERS,
    description=describe_automation(
        "Looks for fixes with something to do, a new flag or a stage with outcomes, and requests a run of "
        "retry_stage for each that has none under way.",
        when="Every 30 seconds, for at most 20 fixes.",
        changes="Nothing: it reads, and the run that it requests writes.",
        rerun="The next tick asks the database anew, without a cursor, so a missed tick or a failed run loses no fix.",
    ),
)
def fix_flag_sensor(
    context: dg.SensorEvaluationContext, outbox: OutboxResource
) -> Iterator[dg.RunRequest | dg.SkipReason]:
    """Request a run for each fix that wants a step and has none under way."""
    try:
        with outbox.session() as session:
            now = session.now
            behind = build_fix_terms(session.settings).max_backlog
            due = list_due_fixes(
                session.connection, now=now, max_backlog=behind, limit=_FIXES_A_TICK
            )
    except (dg.Failure, DlqError, psycopg.Error) as error:
        yield dg.SkipReason(
            error.description or "" if isinstance(error, dg.Failure) else type(error).__name__
        )
        return
    idle = [
        fix
        for fix in due
        if not is_run_in_progress(context, job=retry_stage_job.name, tags={FIX_TAG: str(fix.id)})
    ]
    if not idle:
        yield dg.SkipReason(
            f"{len(due)} fixes want a step; each has a run already."
            if due
            else "No fix wants a step."
        )
    for fix in idle:
        # The time makes the key new each tick: a key is for ever, and the key of a failed run would lose the fix.
        yield dg.RunRequest(
            run_key=f"fix {fix.id} stage {fix.stage} {now:%Y-%m-%dT%H:%M:%S}",
            run_config=dg.RunConfig(ops={"retry_stage_op": RetryStageConfig(fix_id=fix.id)}),
            tags={
                FIX_TAG: str(fix.id),
                STAGE_TAG: str(fix.stage),
                CAUSE_TAG: fix.selection.cause or "several",
            },
        )
