"""Flags fixes, releases their stages, and retries dead events by hand."""

from collections.abc import Iterator
from dataclasses import asdict, fields
from datetime import tzinfo
from typing import Any, Literal, TypeVar

import dagster as dg
from pydantic import Field, create_model

from dlq_pipelines.audit import AuditContext, RunOptions
from dlq_pipelines.defs.describe import describe_automation
from dlq_pipelines.defs.outbox import URGENT, Outbox
from dlq_pipelines.defs.session import Session, get_utc_now, is_run_in_progress
from dlq_pipelines.defs.tables import build_table
from dlq_pipelines.installation import (
    build_fix_terms,
    build_links,
    build_redact_errors,
    resolve_rate,
)
from dlq_pipelines.outbox.selection import FILTERS, Selection
from dlq_pipelines.retries.advance import AdvanceResult, Patience, advance_fix
from dlq_pipelines.retries.fix import Fix, StageOutcomes, WaitStep
from dlq_pipelines.retries.fixes import (
    FixFlag,
    FlagInput,
    build_flag,
    flag_fix,
    get_stage_outcomes,
    list_due_fixes,
    preview_fix,
    validate_note,
)
from dlq_pipelines.retries.recall import RecallResult, recall_fix, recall_retries
from dlq_pipelines.retries.retry import retry_selected, retry_within_lookahead
from dlq_pipelines.retries.timeline import (
    FixTimeline,
    list_timeline_rows,
    read_fix_timeline,
    render_timeline_text,
)
from dlq_pipelines.text import RedactTexts

FIX_TAG = "dlq/fix"
STATUS_TAG = "dlq/fix_status"
STAGE_TAG = "dlq/stage"
CAUSE_TAG = "dlq/cause"
# Fixes that a tick requests runs for; the next tick is 30 seconds later.
_FIXES_PER_TICK = 20
# Seconds that a step waits for an outcome that lets the next event of an aggregate follow: most
# workers look for due events every five seconds or more often.
_IDLE_SECONDS = 5.0


class SelectionConfig(dg.Config):
    """Config of a job that selects dead events; `add_filters` adds a field for each filter."""

    event_ids: list[Any] | None = Field(
        default=None, description="These events, at most 10,000 ids."
    )
    all: bool = Field(
        default=False, description="All dead events. Cannot be combined with filters."
    )

    def build_selection(self, session: Session) -> Selection:
        """Build the selection that was entered.

        Raises:
            ValueError: the filters are invalid; the message names the field.
        """
        return Selection.build(
            self.model_dump(), session.settings.zone, self.event_ids, now=session.now
        )


_C = TypeVar("_C", bound=SelectionConfig)


def add_filters(config: type[_C]) -> type[_C]:
    """Add an optional field for each filter of `Selection` to the config of a job."""
    filters: dict[str, Any] = {
        item.name: (
            item.metadata["given_as"] | None,
            Field(default=None, description=item.metadata["description"]),
        )
        for item in FILTERS
    }
    return create_model(
        config.__name__, __base__=config, __doc__=config.__doc__, __module__=__name__, **filters
    )


@add_filters
class FlagFixConfig(SelectionConfig):
    """A fix to flag. Fields that are left empty take the installation's value."""

    note: str = Field(description="What was fixed, in a sentence.")
    link: str | None = Field(default=None, description="Version or address of the change.")
    owner: str | None = Field(default=None, description="Person or team to contact.")
    deployment: int | None = Field(
        default=None,
        description="Deployment that carries it, as `dlq deployments list` lists it.",
    )
    actor: str = Field(description="Who flags the fix, for the audit log.")
    not_before: str | None = Field(
        default=None, description="Earliest start of the first stage: 2026-11-24T18:30."
    )
    expiry_days: int | None = Field(
        default=None, description="Days after which an unverified fix expires, 1 to 365."
    )
    canary: int | None = Field(default=None, description="Events in the first stage, 1 to 5,000.")
    growth: float | None = Field(
        default=None, description="Size of each stage relative to the one before, 1 to 1,000."
    )
    rate: float | None = Field(
        default=None, description="Events released per second, up to 100,000."
    )
    min_success: float | None = Field(
        default=None, description="Share of a stage that must be delivered, up to 1."
    )
    settle_seconds: int | None = Field(
        default=None, description="Seconds to wait for an outcome after the due time."
    )
    max_retries: int | None = Field(
        default=None, description="Retries after which an event that dies again is parked."
    )
    order: Literal["installation's", "aggregate", "none"] = Field(
        default="installation's",
        description="aggregate: release an event once no earlier event of its aggregate is dead or "
        "in progress. none: release events in any order.",
    )
    dry_run: bool = Field(
        default=True, description="Only preview the stages. Set to false to flag the fix."
    )

    def flag(self, session: Session) -> FixFlag:
        """Build the flag; empty fields take the installation's value.

        Raises:
            ValueError: a field is invalid; the message names it.
        """
        given = self.model_dump(include={item.name for item in fields(FlagInput)})
        if self.order == "installation's":
            del given["order"]
        return build_flag(
            self.build_selection(session),
            FlagInput(**given),
            terms=build_fix_terms(session.settings),
            zone=session.settings.zone,
            now=session.now,
        )


class RetryStageConfig(dg.Config):
    """The fix to advance."""

    fix_id: int = Field(description="Id of the fix, as `dlq fixes list` shows it.")


def _build_step_metadata(
    result: AdvanceResult, outcomes: dict[int, StageOutcomes], redact: RedactTexts
) -> dict[str, Any]:
    """Return the progress of a fix, its next step, and the redacted errors that ended it."""
    header = (
        "stage",
        "size",
        "released",
        "delivered",
        "died again",
        "timed out",
        "deleted",
        "recalled",
        "waiting",
    )
    rows = [
        (
            number,
            stage.size,
            stage.released,
            stage.delivered,
            stage.died_again,
            stage.timed_out,
            stage.deleted,
            stage.recalled,
            stage.waiting,
        )
        for number, stage in outcomes.items()
    ]
    fix, step = result.fix, result.step
    next_step = fix.verdict or (
        step.reason if isinstance(step, WaitStep) else "another run is advancing it"
    )
    metadata = {
        "fix": fix.id,
        "status": str(fix.status),
        "released_now": result.released,
        "settled_now": result.settled,
        "recalled_now": result.recalled,
        "with_worker": result.with_worker,
        **_build_rate_metadata(result.fix),
        "next": next_step,
        "stages": build_table(header, rows),
    }
    if fix.evidence:
        errors = [
            (e["events"], e["outcome"], *map(_get_last_line, redact([e["before"], e["after"]])))
            for e in fix.evidence
        ]
        metadata["errors"] = build_table(("events", "outcome", "before", "after"), errors)
    return metadata


def _build_timeline_metadata(timeline: FixTimeline, zone: tzinfo) -> dict[str, Any]:
    """Return the chart of a fix over time, and its numbers as a table."""
    header = ("from", "released", "delivered", "died again", "timed out", "deleted", "rate")
    return {
        "timeline": dg.MetadataValue.md(f"```\n{render_timeline_text(timeline, zone)}\n```"),
        "intervals": build_table(header, list_timeline_rows(timeline, zone)),
    }


def _build_rate_metadata(fix: Fix) -> dict[str, float]:
    """Return the rate of the policy, what the worker can take of it, and the last share of it."""
    if fix.policy is None:
        return {}
    current = fix.policy.rate if fix.current_rate is None else fix.current_rate
    rates = {"rate": fix.policy.rate, "current_rate": current}
    return rates if fix.release_rate is None else {**rates, "release_rate": fix.release_rate}


@add_filters
class RetryEventsConfig(SelectionConfig):
    """Dead events to retry by hand, at a constant rate and without stages."""

    reason: str = Field(description="Reason for the audit log.")
    actor: str = Field(description="Who retries the events, for the audit log.")
    rate: float | None = Field(
        default=None,
        description="Events that fall due per second, up to 100,000. Empty: the usual rate.",
    )
    parked: bool = Field(default=False, description="Also retry parked events.")
    dry_run: bool = Field(
        default=True, description="Only count the events. Set to false to retry them."
    )


@add_filters
class RecallConfig(SelectionConfig):
    """Released events to recall: those of a fix, or those that people retried, by filters."""

    all: bool = Field(
        default=False,
        description="All events that people retried. Cannot be combined with filters.",
    )
    fix_id: int | None = Field(
        default=None,
        description="Events of this fix, which is paused or has ended. Excludes filters.",
    )
    reason: str = Field(description="Reason for the audit log.")
    actor: str = Field(description="Who recalls the events, for the audit log.")
    dry_run: bool = Field(
        default=True, description="Only count the events. Set to false to recall them."
    )

    def recall(self, session: Session, audit: AuditContext) -> RecallResult:
        """Recall the events of the fix, or those that the filters select.

        Raises:
            ValueError: the filters are invalid, or both a fix and filters are given.
        """
        options = RunOptions(dry_run=self.dry_run)
        given = self.model_dump(exclude={"fix_id", "reason", "actor", "dry_run"})
        if self.fix_id is None:
            selection = self.build_selection(session)
            return recall_retries(session.connection, selection, audit=audit, options=options)
        if any(value not in (None, False) for value in given.values()):
            raise ValueError("fix_id cannot be combined with filters: leave one of them empty.")
        return recall_fix(session.connection, self.fix_id, audit=audit, options=options)


def _get_last_line(error: str | None) -> str:
    """Return the line of a traceback that names the exception: two begin with the same frames."""
    return next((line for line in reversed((error or "").splitlines()) if line.strip()), "")


def _report_status(
    context: dg.OpExecutionContext,
    outbox: Outbox,
    result: AdvanceResult,
    metadata: dict[str, Any],
) -> None:
    """Tag the run with the state of the fix, and observe on the asset of causes that it ended."""
    fix = result.fix
    context.instance.add_run_tags(context.run_id, {STATUS_TAG: str(fix.status)})
    if not result.busy and fix.verdict is not None:
        context.log_event(
            dg.AssetObservation(
                outbox.build_key("dead_event_causes"),
                description=f"Fix {fix.id} is {fix.status}: {fix.verdict}",
                metadata=metadata,
            )
        )


def define_retries(outbox: Outbox) -> dg.Definitions:
    """Define the jobs of fixes and retries, and the sensor of fixes."""
    retry_stage = _define_retry_stage(outbox)
    return dg.Definitions(
        jobs=[
            _define_flag_fix(outbox),
            retry_stage,
            _define_retry_dead_events(outbox),
            _define_recall_events(outbox),
        ],
        sensors=[_define_sensor(outbox, retry_stage)],
    )


def _define_flag_fix(outbox: Outbox) -> dg.JobDefinition:
    @dg.op(name=outbox.build_name("flag_fix_op"), pool=outbox.pool)
    def flag_fix_op(context: dg.OpExecutionContext, config: FlagFixConfig) -> None:
        """Flag a fix; with `dry_run`, preview what it would release."""
        with outbox.session() as session:
            flag = config.flag(session)
            audit = AuditContext(
                config.actor, validate_note(config.note), session.now, context.run_id
            )
            if config.dry_run:
                terms = build_fix_terms(session.settings)
                would = preview_fix(
                    session.connection,
                    flag,
                    audit=audit,
                    default=terms.policy,
                )
                context.log.info(
                    f"Dry run: the fix would target {would.events:,} dead events "
                    f"in {len(would.stages)} stages."
                )
                overtaken = "unknown" if would.overtaken is None else would.overtaken
                context.add_output_metadata(
                    {**vars(would), "overtaken": overtaken, "stages": would.sizes}
                )
                return
            fix = flag_fix(session.connection, flag, audit=audit)
            session.record_success("flag_fix")
        context.log.info(f"Fix {fix.id} is flagged. The fix_flag_sensor releases its canary.")
        context.add_output_metadata({"fix": fix.id})

    @dg.job(name=outbox.build_name("flag_fix"), owners=outbox.owners or None, tags=outbox.tags)
    @outbox.fill_in
    def flag_fix_job() -> None:
        """Flags a **fix** and retries the affected events in stages.

        A fix claims that a cause, one of its details, or another selection of dead events, is
        resolved; it targets events that died before now. The `{fix_flag_sensor}` releases a canary,
        waits for the worker's outcomes, and continues with larger stages, or halts with the reason.

        - **When:** when a person launches it. `dry_run` is on by default and previews the number of
          events and the stages.
        - **Changes:** adds a row to `{schema}.fix` and an audit entry, and the cause, or its
          detail, is `fixing`. No event moves yet.
        - **Rerun:** a failed run unchanged. An open fix is not flagged again; a halted one can be
          flagged again once the cause is resolved.
        """
        flag_fix_op()

    return flag_fix_job


def _define_retry_stage(outbox: Outbox) -> dg.JobDefinition:
    @dg.op(name=outbox.build_name("retry_stage_op"))
    def retry_stage_op(context: dg.OpExecutionContext, config: RetryStageConfig) -> None:
        """Settle outcomes of a fix, decide its next step and release events."""
        with outbox.session() as session:
            audit = AuditContext(
                "fix_flag_sensor", "a step of the fix is due", session.now, context.run_id
            )
            result = advance_fix(
                session.connection,
                config.fix_id,
                audit=audit,
                terms=build_fix_terms(session.settings),
                patience=Patience(_IDLE_SECONDS, get_utc_now),
            )
            outcomes = get_stage_outcomes(session.connection, config.fix_id)
            redact = build_redact_errors(session.settings)
            metadata = _build_step_metadata(result, outcomes, redact)
            # Not at each step of a fix of a million events: the ledger would be read as often.
            if result.fix.verdict is not None and not result.busy:
                timeline = read_fix_timeline(session.connection, config.fix_id, until=get_utc_now())
                metadata |= _build_timeline_metadata(timeline, session.settings.zone)
            session.record_success("retry_stage")
            if (address := build_links(session.settings).link_fix(config.fix_id)) is not None:
                metadata["fix_address"] = dg.MetadataValue.url(address)
        context.add_output_metadata(metadata)
        _report_status(context, outbox, result, metadata)
        context.log.info(
            f"Another run is advancing fix {result.fix.id}."
            if result.busy
            else f"Fix {result.fix.id} is {result.fix.status}; {result.released:,} events "
            f"released, {result.recalled:,} recalled, {result.with_worker:,} are with the worker."
        )

    # A step takes seconds. The sensor requests no second run while the first is in progress, so a
    # run that hangs must end. Its op is outside the pool: the time of a run includes waiting for a
    # pool.
    @dg.job(
        name=outbox.build_name("retry_stage"),
        owners=outbox.owners or None,
        tags={**outbox.tags, **URGENT, "dagster/max_runtime": "900"},
    )
    @outbox.fill_in
    def retry_stage_job() -> None:
        """Advances a fix by a step: records outcomes, then **releases, waits, halts or verifies**.

        - **When:** the `{fix_flag_sensor}` launches it when a step of a fix is due.
        - **Changes:** `{schema}.fix`, its stages and `{schema}.retry`; released events are pending
          again and fall due at the rate of the fix, within the look-ahead. A fix that is paused or
          has ended recalls released events that no worker has taken: they are dead again. The run
          goes on for at most five minutes while the next events of aggregates can follow.
        - **Rerun:** with the same fix, at any time: each step is decided from the ledger, so no
          event is released twice.
        """
        retry_stage_op()

    return retry_stage_job


def _define_retry_dead_events(outbox: Outbox) -> dg.JobDefinition:
    @dg.op(name=outbox.build_name("retry_dead_events_op"), pool=outbox.pool)
    def retry_dead_events_op(context: dg.OpExecutionContext, config: RetryEventsConfig) -> None:
        """Retry the selected dead events; with `dry_run`, count them."""
        with outbox.session() as session:
            selection = config.build_selection(session)
            rate = resolve_rate(config.rate, session.settings)
            retried = retry_within_lookahead(
                lambda options: retry_selected(
                    session.connection,
                    selection,
                    audit=AuditContext(config.actor, config.reason, session.now, context.run_id),
                    options=options,
                    rate=rate,
                    max_retries=None if config.parked else session.settings.max_retries,
                ),
                RunOptions(dry_run=config.dry_run),
                rate=rate,
                lookahead=build_fix_terms(session.settings).lookahead,
            )
            if not config.dry_run:
                session.record_success("retry_dead_events")
        context.log.info(
            f"{'Dry run: would retry' if config.dry_run else 'Retried'} {retried.events:,} dead "
            f"events."
        )
        context.add_output_metadata(asdict(retried))

    @dg.job(
        name=outbox.build_name("retry_dead_events"), owners=outbox.owners or None, tags=outbox.tags
    )
    @outbox.fill_in
    def retry_dead_events_job() -> None:
        """Retries **dead events** by ids or filters, at a constant rate, all within the look-ahead.

        Flag a fix instead to test the change on a few events first, or to retry more.

        - **When:** when a person launches it. `dry_run` is on by default and counts the events.
        - **Changes:** each event is `pending` with no attempts and a paced `next_run_at`; adds a
          row to `{schema}.retry` for each, and an audit entry for every 5,000.
        - **Rerun:** at any time: events that are not dead are skipped, so no event is retried
          twice.
        """
        retry_dead_events_op()

    return retry_dead_events_job


def _define_recall_events(outbox: Outbox) -> dg.JobDefinition:
    @dg.op(name=outbox.build_name("recall_events_op"), pool=outbox.pool)
    def recall_events_op(context: dg.OpExecutionContext, config: RecallConfig) -> None:
        """Recall released events that no worker has taken; with `dry_run`, count them."""
        with outbox.session() as session:
            audit = AuditContext(config.actor, config.reason, session.now, context.run_id)
            done = config.recall(session, audit)
            if not config.dry_run:
                session.record_success("recall_events")
        context.log.info(
            f"{'Dry run: would recall' if config.dry_run else 'Recalled'} {done.recalled:,} "
            f"events; {done.with_worker:,} are with the worker."
        )
        context.add_output_metadata(asdict(done))

    @dg.job(name=outbox.build_name("recall_events"), owners=outbox.owners or None, tags=outbox.tags)
    @outbox.fill_in
    def recall_events_job() -> None:
        """Recalls **released events** that fall due later and that no worker has taken.

        Pausing, withdrawing or halting a fix does this by itself; this job is for events that
        people retried, and for a recall that was interrupted.

        - **When:** when a person launches it. `dry_run` is on by default and counts the events.
        - **Changes:** each event is dead again, of the same death; its row moves from
          `{schema}.retry` to `{schema}.recalled`, with an audit entry for every 5,000.
        - **Rerun:** at any time: what a worker has taken stays with the worker.
        """
        recall_events_op()

    return recall_events_job


def _define_sensor(outbox: Outbox, retry_stage_job: dg.JobDefinition) -> dg.SensorDefinition:
    @dg.sensor(
        name=outbox.build_name("fix_flag_sensor"),
        job=retry_stage_job,
        minimum_interval_seconds=30,
        default_status=outbox.sensor_status,
        owners=outbox.owners,
        description=describe_automation(
            outbox,
            "Requests a run of {retry_stage} for each fix with a due step, such as a new fix, a "
            "stage with outcomes or a recall that was interrupted, unless a run of that fix is in "
            "progress.",
            when="Every 30 seconds, for at most 20 fixes.",
            changes="Nothing: the sensor reads, and the runs that it requests write.",
            rerun="The next tick reads the database again, without a cursor, so a missed tick or a "
            "failed run loses no fix.",
        ),
    )
    def fix_flag_sensor(
        context: dg.SensorEvaluationContext,
    ) -> Iterator[dg.RunRequest | dg.SkipReason]:
        """Request a run for each fix with a due step and no run in progress."""
        with outbox.session() as session:
            now = session.now
            due = list_due_fixes(
                session.connection,
                now=now,
                max_backlog=build_fix_terms(session.settings).max_backlog,
                limit=_FIXES_PER_TICK,
            )
        idle = [
            fix
            for fix in due
            if not is_run_in_progress(
                context, job=retry_stage_job.name, outbox=outbox.name, tags={FIX_TAG: str(fix.id)}
            )
        ]
        if not idle:
            yield dg.SkipReason(
                f"{len(due)} fixes have a due step; a run of each is in progress."
                if due
                else "No step of a fix is due."
            )
        for fix in idle:
            # A run key is used once, even if its run fails. The time makes the key new at each
            # tick.
            yield dg.RunRequest(
                run_key=f"fix {fix.id} stage {fix.stage} {now:%Y-%m-%dT%H:%M:%S}",
                run_config=outbox.build_run_config(
                    "retry_stage_op", RetryStageConfig(fix_id=fix.id)
                ),
                tags={
                    **outbox.tags,
                    FIX_TAG: str(fix.id),
                    STAGE_TAG: str(fix.stage),
                    CAUSE_TAG: fix.selection.cause or "several",
                },
            )

    return fix_flag_sensor
