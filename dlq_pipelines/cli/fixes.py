"""`dlq fixes`: flag fixes, follow and control them, and release parked events."""

from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from dlq_pipelines.cli.filters import EventIds, GivenFilters, build_selection, with_filters
from dlq_pipelines.cli.mutation import (
    NOTHING_CHANGED,
    REASON_HELP,
    Actor,
    DryRun,
    Reason,
    Yes,
    confirm_events,
    prepare_change,
)
from dlq_pipelines.cli.options import build_option, with_options
from dlq_pipelines.cli.output import (
    Limit,
    OutputFormat,
    format_local_time,
    list_columns,
    print_page,
    print_record,
    print_table,
    summarize_failure,
    with_output_format,
)
from dlq_pipelines.cli.retrying import (
    Rate,
    describe_recall,
    print_recalled,
    print_retried,
    retry_many,
)
from dlq_pipelines.cli.session import open_session
from dlq_pipelines.text import format_aggregate, format_count, format_seconds

if TYPE_CHECKING:
    # A command imports what it needs when it runs.
    from datetime import tzinfo

    from dlq_pipelines.audit import AuditContext, RunOptions
    from dlq_pipelines.retries.advance import AdvanceResult
    from dlq_pipelines.retries.fix import Fix, RetryPolicy, StageOutcomes
    from dlq_pipelines.retries.fixes import FixPreview
    from dlq_pipelines.retries.parked import ParkedEvent

app = typer.Typer(
    name="fixes",
    help="Fixes and the events that they retry.\n\nExample: `dlq fixes list --open`",
    no_args_is_help=True,
)
FixId = Annotated[
    int, typer.Argument(min=1, help="The fix, as `dlq fixes list` lists it.", metavar="FIX")
]
FixOption = Annotated[
    int | None, typer.Option("--fix", min=1, help="Events that this fix released or targets.")
]
IdOption = Annotated[
    list[str] | None, typer.Option("--id", help="Events with this id (repeatable).")
]
_NO_VERDICT = "not decided yet"
_INVALID = "its row cannot be used, see `dlq fixes show`"
# Seconds that `advance` waits for an outcome that lets the next event of an aggregate follow.
_IDLE_SECONDS = 1.0
# Seconds after which it ends although outcomes arrive: a person waits for it.
_TOTAL_SECONDS = 25.0


def _build_flag_option(
    name: str, value_type: Any, description: str, default: str = "", **given: Any
) -> Any:
    help_text = f"{description} Default: {default}." if default else description
    return build_option(
        name, Annotated[value_type | None, typer.Option(help=help_text, **given)], None
    )


# Options by the names of `FlagInput`.
_FLAG_OPTIONS = (
    _build_flag_option("link", str, "Version or address of the change."),
    _build_flag_option("owner", str, "Who answers questions about it."),
    _build_flag_option(
        "deployment",
        int,
        "The deployment that carries it, as `dlq deployments list` lists it.",
        min=1,
        metavar="ID",
    ),
    _build_flag_option(
        "not_before", str, "Earliest start of the first stage.", "now", metavar="TIME"
    ),
    _build_flag_option(
        "expiry_days",
        int,
        "Days after which it ends unverified.",
        "DLQ_FIX_EXPIRY_DAYS",
        min=1,
        max=365,
    ),
    _build_flag_option("canary", int, "Events in the first stage.", "DLQ_CANARY"),
    _build_flag_option("growth", float, "Growth factor from stage to stage.", "DLQ_GROWTH"),
    build_option("rate", Rate, None),
    _build_flag_option(
        "min_success", float, "Share of a stage that must succeed.", "DLQ_MIN_SUCCESS"
    ),
    _build_flag_option(
        "settle_seconds",
        int,
        "Seconds to wait for an outcome after the due time.",
        "DLQ_SETTLE_TIMEOUT_SECONDS",
    ),
    _build_flag_option(
        "max_retries", int, "Retries after which an event is parked.", "DLQ_MAX_RETRIES"
    ),
    _build_flag_option(
        "order",
        Literal["aggregate", "none"],
        "aggregate: release events of an aggregate one after the other.",
        "DLQ_RETRY_ORDER",
    ),
)


def with_flag_input(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of `FlagInput` to a command, which receives them as `flag_input`."""

    def gather(given: dict[str, Any]) -> dict[str, Any]:
        return {"flag_input": {option.name: given.pop(option.name) for option in _FLAG_OPTIONS}}

    return with_options(command, {"flag_input": _FLAG_OPTIONS}, gather)


@app.command("flag")
@with_output_format
@with_filters
@with_flag_input
def flag_fix_command(
    *,
    filters: GivenFilters,
    note: Annotated[str, typer.Option(help="What was fixed, in one sentence.")],
    actor: Actor,
    ids: IdOption = None,
    flag_input: dict[str, Any],
    dry_run: DryRun = False,
    yes: Yes = False,
    format: OutputFormat = OutputFormat.TABLE,
) -> None:
    """Flag a fix once a cause is resolved.

    Its dead events are retried in growing stages. A stage starts only if the stage before it
    succeeded. Otherwise the fix halts.

    Example: `dlq fixes flag --cause v2-3f9a0c6d2b7e4a51 --note "fixed in v42" --dry-run`, then the
    same without `--dry-run`; for one detail of a cause, add `--detail postcode`.
    """
    from dlq_pipelines.installation import build_fix_terms
    from dlq_pipelines.retries import fixes

    audit, _ = prepare_change(actor, fixes.validate_note(note), dry_run=dry_run)
    with open_session() as (connection, settings):
        terms = build_fix_terms(settings)
        flag = fixes.build_flag(
            build_selection(connection, filters, settings, ids),
            fixes.FlagInput(**flag_input),
            terms=terms,
            zone=settings.zone,
            now=audit.now,
        )
        preview = fixes.preview_fix(connection, flag, audit=audit, default=terms.policy)
        if not dry_run:
            confirm_events("release", preview.events, yes=yes)
        fix = None if dry_run else fixes.flag_fix(connection, flag, audit=audit)
    if format is OutputFormat.JSON:
        print_record({"dry_run": dry_run, "preview": preview, "fix": fix}, format=format)
    elif fix is None:
        _print_preview(preview, flag.policy or terms.policy, format=format)
    else:
        _print_fix(fix, _describe_flagged_fix(fix, preview), format=format)


@app.command("list")
@with_output_format
def list_fixes_command(
    only_open: Annotated[
        bool, typer.Option("--open", help="Only fixes that have not ended.")
    ] = False,
    limit: Limit = 50,
    after: Annotated[
        int | None, typer.Option(min=1, help="Only fixes flagged before this one.")
    ] = None,
    format: OutputFormat = OutputFormat.TABLE,
) -> None:
    """List fixes, the latest first.

    Example: `dlq fixes list --open`
    """
    from dlq_pipelines.retries.fix import Fix
    from dlq_pipelines.retries.fixes import list_fixes

    with open_session() as (connection, settings):
        found = list_fixes(connection, limit=limit, only_open=only_open, after=after)
    brief = [
        {
            "fix": fix.id,
            "status": fix.status.value,
            "stage": fix.stage,
            "selection": _format_selection(fix, settings.zone),
            "flagged": fix.flagged_at,
            "actor": fix.flagged_by,
            "verdict": fix.verdict or (fix.unreadable and _INVALID) or _NO_VERDICT,
        }
        for fix in found
    ]
    print_page(
        "fixes",
        [asdict(fix) for fix in found],
        cursor=found[-1].id if len(found) == limit else None,
        format=format,
        brief=brief,
        empty="No fix is open." if only_open else "No fix was ever flagged.",
        header=list_columns(Fix),
        optional=("actor", "flagged", "stage"),
    )


@app.command("show")
@with_output_format
def show_fix_command(fix: FixId, format: OutputFormat = OutputFormat.TABLE) -> None:
    """Show a fix with its stages, its outcomes, and a chart of both over time.

    Example: `dlq fixes show 1`
    """
    from dlq_pipelines.deployments import get_deployment
    from dlq_pipelines.installation import build_fix_terms
    from dlq_pipelines.retries.fixes import get_fix_progress
    from dlq_pipelines.retries.timeline import read_fix_timeline, render_timeline_text

    with open_session() as (connection, settings):
        now = datetime.now(UTC)
        found = get_fix_progress(connection, fix, now=now, terms=build_fix_terms(settings))
        timeline = read_fix_timeline(connection, fix, until=now)
        deployment = found.fix.deployment and get_deployment(connection, found.fix.deployment)
    stages = [_summarize_stage(number, stage) for number, stage in found.stages.items()]
    progress = {"stages": stages, "next": found.next, "timeline": timeline}
    if format is OutputFormat.JSON:
        print_record({"fix": found.fix, **progress}, format=format)
        return
    if format is OutputFormat.CSV:
        print_record(asdict(found.fix) | progress, format=format)
        return
    summary = _summarize_fix(found.fix, settings.zone) | {
        "deployment": deployment and str(deployment),
        "next" if found.fix.closed_at is None else "verdict": found.next,
    }
    print_table([{"field": key, "value": value} for key, value in summary.items() if value])
    typer.echo()
    print_table(stages, empty="No stage has started yet.")
    if stages:
        typer.echo()
        typer.echo(render_timeline_text(timeline, settings.zone))
    if found.fix.evidence:
        typer.echo()
        print_table([_summarize_evidence(pair) for pair in found.fix.evidence])


@app.command("advance")
@with_output_format
def advance_fix_command(
    fix: FixId,
    actor: Actor,
    reason: Annotated[str, typer.Option(help=REASON_HELP)] = "advanced by hand",
    dry_run: DryRun = False,
    format: OutputFormat = OutputFormat.TABLE,
) -> None:
    """Advance a fix by one step now.

    Records outcomes, then releases events, waits, or ends the fix. Goes on while outcomes arrive
    that let the next event of an aggregate follow, for at most 25 seconds. The fix_flag_sensor does
    the same every 30 seconds. Repeatable.

    Example: `dlq fixes advance 1 --dry-run`
    """
    from dlq_pipelines.installation import build_fix_terms
    from dlq_pipelines.retries.advance import Patience, advance_fix_on_request

    audit, options = prepare_change(actor, reason, dry_run=dry_run)
    with open_session() as (connection, settings):
        result = advance_fix_on_request(
            connection,
            fix,
            audit=audit,
            options=options,
            terms=build_fix_terms(settings),
            patience=Patience(_IDLE_SECONDS, lambda: datetime.now(UTC), total=_TOTAL_SECONDS),
        )
    row = {
        "fix": result.fix.id,
        "status": result.fix.status.value,
        "verdict": result.fix.verdict,
        "released": result.released,
        "settled": result.settled,
        "recalled": result.recalled,
        "with_worker": result.with_worker,
        "step": _describe_step(result),
    }
    if format is not OutputFormat.TABLE:
        print_record(row | {"dry_run": dry_run}, format=format)
        return
    print_table([row | {"verdict": result.fix.verdict or _NO_VERDICT}])
    typer.echo(NOTHING_CHANGED if dry_run else f"To follow it: `dlq fixes show {fix}`.")


@app.command("pause")
@with_output_format
def pause_fix_command(
    fix: FixId,
    reason: Reason,
    actor: Actor,
    dry_run: DryRun = False,
    format: OutputFormat = OutputFormat.TABLE,
) -> None:
    """Pause a fix: no further events are released.

    Released events that no worker has taken are recalled: they are dead again.

    Example: `dlq fixes pause 1 --reason "carrier asked us to wait"`
    """
    from dlq_pipelines.retries.advance import pause_fix

    hint = f"To resume it: `dlq fixes resume {fix} --reason ...`."
    prepared = prepare_change(actor, reason, dry_run=dry_run)
    _change_fix(pause_fix, fix, hint, prepared=prepared, format=format)


@app.command("resume")
@with_output_format
def resume_fix_command(
    fix: FixId,
    reason: Reason,
    actor: Actor,
    dry_run: DryRun = False,
    format: OutputFormat = OutputFormat.TABLE,
) -> None:
    """Resume a paused fix where it stopped.

    Example: `dlq fixes resume 2 --reason "carrier is ready"`
    """
    from dlq_pipelines.retries.advance import resume_fix

    hint = (
        f"Fix {fix} continues with the next tick of the fix_flag_sensor. "
        f"To follow it: `dlq fixes show {fix}`."
    )
    prepared = prepare_change(actor, reason, dry_run=dry_run)
    _change_fix(resume_fix, fix, hint, prepared=prepared, format=format)


@app.command("withdraw")
@with_output_format
def withdraw_fix_command(
    fix: FixId,
    reason: Reason,
    actor: Actor,
    dry_run: DryRun = False,
    format: OutputFormat = OutputFormat.TABLE,
) -> None:
    """Withdraw a fix.

    The fix ends, and no further events are released. Released events that no worker has taken are
    recalled: they are dead again.

    Example: `dlq fixes withdraw 1 --reason "rolled back upstream"`
    """
    from dlq_pipelines.retries.advance import withdraw_fix

    hint = "Once the cause is resolved: `dlq fixes flag --note ...`."
    prepared = prepare_change(actor, reason, dry_run=dry_run)
    _change_fix(withdraw_fix, fix, hint, prepared=prepared, format=format)


@app.command("recall")
@with_output_format
def recall_fix_command(
    fix: FixId,
    reason: Reason,
    actor: Actor,
    dry_run: DryRun = False,
    format: OutputFormat = OutputFormat.TABLE,
) -> None:
    """Recall released events of a fix that is paused or has ended.

    Pause, withdraw and a halt do this by themselves. Repeatable: it completes a recall that was
    interrupted. Events that a worker has taken, or that are due, stay with the worker.

    Example: `dlq fixes recall 2 --reason "rolled back upstream" --dry-run`
    """
    from dlq_pipelines.retries.recall import recall_fix

    audit, options = prepare_change(actor, reason, dry_run=dry_run)
    with open_session() as (connection, _):
        done = recall_fix(connection, fix, audit=audit, options=options)
    print_recalled(
        done, hint=f"See the fix: `dlq fixes show {fix}`.", dry_run=dry_run, format=format
    )


@app.command("parked")
@with_output_format
@partial(with_filters, everything="All parked events")
def list_parked_events_command(
    filters: GivenFilters,
    fix: FixOption = None,
    limit: Limit = 50,
    after: Annotated[
        int, typer.Option(min=0, help="Only events with a larger id, for the next page.")
    ] = 0,
    format: OutputFormat = OutputFormat.TABLE,
) -> None:
    """List parked events.

    They died again after the maximum of retries. Only a person releases them.

    Example: `dlq fixes parked --event-type order.placed`
    """
    from dlq_pipelines.retries.fixes import get_max_retries
    from dlq_pipelines.retries.parked import ParkedEvent, list_parked_events

    with open_session() as (connection, settings):
        selection = build_selection(connection, filters, settings, default_all=True)
        found = list_parked_events(
            connection,
            max_retries=get_max_retries(connection, fix, default=settings.max_retries),
            selection=selection,
            fix_id=fix,
            after=after,
            limit=limit,
        )
    print_page(
        "events",
        [asdict(event) for event in found],
        cursor=found[-1].death_id if len(found) == limit else None,
        format=format,
        brief=[_summarize_parked_event(event) for event in found],
        empty="No event is parked."
        if selection.all and not (fix or after)
        else "No parked events match this filter.",
        header=list_columns(ParkedEvent),
        optional=("aggregate", "type"),
    )


@app.command("release-parked")
@with_output_format
@partial(with_filters, everything="All parked events")
def release_parked_command(
    filters: GivenFilters,
    reason: Reason,
    actor: Actor,
    ids: EventIds = None,
    fix: FixOption = None,
    rate: Rate = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    format: OutputFormat = OutputFormat.TABLE,
) -> None:
    """Retry parked events by ids, by a fix, or by a filter.

    Events that are not parked are skipped, with the reason if they are not dead.

    Example: `dlq fixes release-parked --fix 1 --reason "address corrected by hand"`, or with ids:
    `dlq fixes release-parked 23 24 --reason "address corrected by hand" --dry-run`
    """
    from dlq_pipelines.installation import resolve_rate
    from dlq_pipelines.outbox.dead_events import list_other_events
    from dlq_pipelines.retries.fixes import get_max_retries
    from dlq_pipelines.retries.parked import release_parked

    audit, options = prepare_change(actor, reason, dry_run=dry_run)
    with open_session() as (connection, settings):
        selection = build_selection(connection, filters, settings, ids, default_all=fix is not None)
        max_retries = get_max_retries(connection, fix, default=settings.max_retries)
        events_per_second = resolve_rate(rate, settings)
        others = list_other_events(connection, selection.event_ids or ())
        done = retry_many(
            lambda options: release_parked(
                connection,
                selection,
                max_retries=max_retries,
                fix_id=fix,
                audit=audit,
                options=options,
                rate=events_per_second,
            ),
            options,
            pace=(events_per_second, timedelta(seconds=settings.lookahead_seconds)),
            by_ids=selection.names_only,
            kind="parked",
            yes=yes,
            others=others,
        )
    print_retried(done, ids, others, rate=events_per_second, dry_run=dry_run, format=format)


def _describe_flagged_fix(fix: "Fix", preview: "FixPreview") -> str:
    return (
        f"Fix {fix.id} is flagged. It targets {format_count(preview.events, 'dead event')}, "
        f"in stages of {preview.sizes}. The fix_flag_sensor releases the first stage. "
        f"To follow it: `dlq fixes show {fix.id}`."
    )


def _summarize_parked_event(event: "ParkedEvent") -> dict[str, Any]:
    return {
        "event": event.event_id,
        "type": event.event_type,
        "aggregate": format_aggregate(event.aggregate_type, event.aggregate_id),
        "cause": event.cause_id or "not classified yet",
        "detail": event.detail or "",
        "retries": event.retries,
        "last death": event.died_at,
    }


def _change_fix(
    change: Callable[..., "Fix"],
    fix_id: int,
    hint: str,
    *,
    prepared: "tuple[AuditContext, RunOptions]",
    format: OutputFormat,
) -> None:
    """Change a fix and print its new state."""
    from dlq_pipelines.retries.fix import StoppedFix

    audit, options = prepared
    with open_session() as (connection, _):
        fix = change(connection, fix_id, audit=audit, options=options)
    if isinstance(fix, StoppedFix):
        verb = "would be" if options.dry_run else "is"
        sentence = f"Fix {fix.id} {verb} {fix.status}; {describe_recall(fix)}."
        hint = f"{sentence}\n{NOTHING_CHANGED if options.dry_run else hint}"
    elif options.dry_run:
        hint = NOTHING_CHANGED
    _print_fix(fix, hint, format=format)


def _print_fix(fix: "Fix", hint: str, *, format: OutputFormat) -> None:
    if format is not OutputFormat.TABLE:
        print_record(asdict(fix), format=format)
        return
    print_table(
        [{"fix": fix.id, "status": fix.status.value, "verdict": fix.verdict or _NO_VERDICT}]
    )
    typer.echo(hint)


def _print_preview(preview: "FixPreview", policy: "RetryPolicy", *, format: OutputFormat) -> None:
    if format is not OutputFormat.TABLE:
        print_record(asdict(preview), format=format)
        return
    from dlq_pipelines.retries.estimate import TICK_SECONDS

    figures = {
        "events": f"{preview.events:,}",
        "aggregates": f"{preview.aggregates:,}",
        "parked": f"{preview.parked:,}",
        "overtaken": "not known" if preview.overtaken is None else f"{preview.overtaken:,}",
        "stages": preview.sizes,
        "time": f"begins within {TICK_SECONDS:g} s, then {format_seconds(preview.seconds)} at "
        f"{policy.rate:g} per second, if the worker delivers each event as soon as it is due",
    }
    if preview.held:
        figures["held back"] = (
            f"{preview.held:,}: an earlier event of the same aggregate is dead, and this fix does "
            "not release it"
        )
    if policy.order == "aggregate" and preview.longest > 1:
        figures["time"] += (
            f"; {preview.longest:,} events of one aggregate follow one another, each as soon as "
            "the one before it is delivered"
        )
    if preview.deletion_is_loss:
        figures["a deleted event"] = (
            "counts as lost; if the worker deletes what it has delivered, map `delivered` to "
            "deleted first"
        )
    print_table([{"would release": name, "value": value} for name, value in figures.items()])
    typer.echo(NOTHING_CHANGED)


def _describe_step(result: "AdvanceResult") -> str:
    """Return the step at which the advance stopped, as a sentence."""
    from dlq_pipelines.retries.fix import PauseStep, WaitStep

    if result.busy:
        return "skipped: another run is advancing this fix"
    if isinstance(result.step, WaitStep):
        waits = f"waits: {result.step.reason}"
        return f"{waits}; {describe_recall(result)}" if result.recalled else waits
    if isinstance(result.step, PauseStep):
        return f"paused: {result.step.verdict}"
    ended = f"{'ended' if result.step else 'has already ended'}: {result.fix.status.value}"
    return f"{ended}; {describe_recall(result)}" if result.recalled else ended


def _summarize_stage(number: int, stage: "StageOutcomes") -> dict[str, Any]:
    return {"stage": number, **asdict(stage), "waiting": stage.waiting}


def _summarize_evidence(pair: dict[str, Any]) -> dict[str, Any]:
    """Return an old error and the outcome of its retry."""
    new = summarize_failure(pair["after"]) if pair["outcome"] == "died_again" else pair["outcome"]
    return {
        "events": pair["events"],
        "old error": summarize_failure(pair["before"]),
        "new error": new,
    }


def _format_selection(fix: "Fix", zone: "tzinfo") -> str:
    """Return the selection of a fix, with times in the zone of the filters."""
    return fix.selection.describe(zone)


def _summarize_fix(fix: "Fix", zone: "tzinfo") -> dict[str, Any]:
    policy = fix.policy
    selection = _format_selection(fix, zone)
    return {
        "fix": fix.id,
        "status": fix.status.value,
        "selection": f"{selection}, dead before {format_local_time(fix.flagged_at, zone)}",
        "note": fix.note,
        "link": fix.link,
        "owner": fix.owner,
        "actor": fix.flagged_by,
        "flagged": fix.flagged_at,
        "not before": fix.not_before,
        "expires": fix.expires_at,
        "ended": fix.closed_at,
        "policy": f"cannot be used: {fix.unreadable}"
        if fix.unreadable
        else policy
        and f"{policy.canary:,} events, then {policy.growth:g} times as many per stage, "
        f"{policy.rate:g} per second; {policy.min_success:.0%} must succeed within "
        f"{format_seconds(policy.settle_seconds)}; parked after {policy.max_retries} retries; "
        f"order: {policy.order}",
        "rate": policy and _describe_rate(fix, policy),
    }


def _describe_rate(fix: "Fix", policy: "RetryPolicy") -> str:
    """Return the rate now and that of the policy, and its share if other fixes release events."""
    current = policy.rate if fix.current_rate is None else fix.current_rate
    text = f"{current:g} of {policy.rate:g} per second"
    if fix.release_rate is None or fix.release_rate >= current:
        return text
    return f"{text}; the last events were released at {fix.release_rate:g}"
