"""`dlq fixes`: what was said to be mended, what came of it, and what waits for a person?"""

from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from dlq_pipelines.cli.filters import EventIds, GivenFilters, read_time_option, with_filters
from dlq_pipelines.cli.mutation import (
    Actor,
    DryRun,
    Reason,
    Yes,
    confirm_events,
    prepare_change,
)
from dlq_pipelines.cli.options import build_option, with_options
from dlq_pipelines.cli.output import (
    OutputFormat,
    format_local_time,
    format_seconds,
    list_columns,
    print_list,
    print_next_cursor,
    print_record,
    print_table,
    program,
    summarize_failure,
    with_output_format,
)
from dlq_pipelines.cli.retrying import Rate, print_retried, retry_many
from dlq_pipelines.cli.session import open_session
from dlq_pipelines.outbox.selection import Selection
from dlq_pipelines.text import format_count

if TYPE_CHECKING:
    # A command imports what it needs when it runs.
    from datetime import tzinfo

    from dlq_pipelines.audit import AuditContext, RunOptions
    from dlq_pipelines.retries.fix import Fix, RetryPolicy, StageOutcomes
    from dlq_pipelines.retries.fixes import FixPreview

app = typer.Typer(help="Flagged fixes.", no_args_is_help=True)
FixId = Annotated[
    int, typer.Argument(min=1, help="The fix, as `dlq fixes list` lists it.", metavar="FIX")
]
OfFix = Annotated[
    int | None, typer.Option("--fix", min=1, help="Only events that this fix released or targets.")
]
_INSTALLATIONS = "Default: the installation's."


def _figure(of: Any, what: str) -> Any:
    return Annotated[of | None, typer.Option(help=f"{what} {_INSTALLATIONS}")]


OnlyIds = Annotated[
    list[int] | None,
    typer.Option("--id", min=1, help="Only this event; may be said several times."),
]
Begins = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="When the first stage may begin; default: at once."),
]
Days = Annotated[
    int | None,
    typer.Option(min=1, max=365, help=f"Days after which it ends unproven. {_INSTALLATIONS}"),
]
# Of a policy, by the names of its figures.
_POLICY = {
    "canary": build_option("canary", _figure(int, "Events in the first stage."), None),
    "growth": build_option("growth", _figure(float, "How many times larger each stage is."), None),
    "rate": build_option("rate", Rate, None),
    "min_success": build_option(
        "min_success", _figure(float, "Share of a stage that must succeed."), None
    ),
    "settle_seconds": build_option(
        "settle_seconds", _figure(int, "How long an event may stay without outcome."), None
    ),
    "max_retries": build_option(
        "max_retries", _figure(int, "After so many retries an event is parked."), None
    ),
    "order": build_option(
        "order",
        _figure(
            Literal["aggregate", "none"],
            "aggregate: events of an aggregate go one after the other.",
        ),
        None,
    ),
}


def with_policy(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of a policy; it gets those that were said, as its argument `figures`."""

    def gather(given: dict[str, Any]) -> dict[str, Any]:
        said = {name: given.pop(one.name) for name, one in _POLICY.items()}
        return {"figures": {name: value for name, value in said.items() if value is not None}}

    return with_options(command, {"figures": list(_POLICY.values())}, gather)


@app.callback()
def fixes() -> None:
    """Flagged fixes."""


@app.command()
@with_output_format
@with_filters
@with_policy
def flag(
    *,
    filters: GivenFilters,
    note: Annotated[str, typer.Option(help="What was mended, in a sentence.")],
    actor: Actor,
    ids: OnlyIds = None,
    link: Annotated[
        str | None, typer.Option(help="The version or the address of the change.")
    ] = None,
    owner: Annotated[str | None, typer.Option(help="Whom to ask.")] = None,
    not_before: Begins = None,
    expiry_days: Days = None,
    figures: dict[str, Any],
    dry_run: DryRun = False,
    yes: Yes = False,
    format: OutputFormat = OutputFormat.TABLE,
) -> None:
    """Say that something is mended upstream: what died of it so far is retried in stages, as long as they succeed.

    Example: `dlq fixes flag --cause v1-3f9a0c6d2b7e4a51 --note "mended in v42" --dry-run`, then the same without
    `--dry-run`.
    """
    from dlq_pipelines.installation import build_fix_terms
    from dlq_pipelines.retries.fixes import FixFlag, flag_fix, preview_fix

    audit, _ = prepare_change(actor, note, dry_run=dry_run, called="note")
    with open_session() as (connection, settings):
        terms = build_fix_terms(settings)
        policy = replace(terms.policy, **figures)
        begins = read_time_option("--not-before", not_before, settings.zone)
        expires = (begins or audit.now) + timedelta(days=expiry_days or terms.expiry.days)
        flagging = FixFlag(
            Selection.build(filters, settings.zone, ids), policy, link, owner, begins, expires
        )
        would = preview_fix(connection, flagging, audit=audit, default=policy)
        if not dry_run:
            confirm_events("release", would.events, yes=yes)
        fix = None if dry_run else flag_fix(connection, flagging, audit=audit)
    if format is OutputFormat.JSON:
        print_record({"dry_run": dry_run, "preview": would, "fix": fix}, format=format)
    elif fix is None:
        _show_preview(would, policy, format=format)
    else:
        hint = (
            f"Fix {fix.id} is flagged. It means {format_count(would.events, 'dead event')}, in stages of {would.sizes}; "
            f"the fix_flag_sensor releases the first. To follow it: `{program()} fixes show {fix.id}`."
        )
        _say(fix, hint, format=format)


@app.command("list")
@with_output_format
def list_(
    only_open: Annotated[
        bool, typer.Option("--open", help="Only those that have not ended.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many at most.")] = 50,
    after: Annotated[
        int | None, typer.Option(min=1, help="Only those flagged before this one.")
    ] = None,
    format: OutputFormat = OutputFormat.TABLE,
) -> None:
    """List fixes, the last flagged first.

    Example: `dlq fixes list --open`
    """
    from dlq_pipelines.retries.fix import Fix
    from dlq_pipelines.retries.fixes import list_fixes

    with open_session() as (connection, settings):
        found = list_fixes(connection, limit=limit, only_open=only_open, after=after)
    brief = [
        {
            "fix": fix.id,
            "state": fix.status.value,
            "stage": fix.stage,
            "means": _means(fix, settings.zone),
            "flagged": fix.flagged_at,
            "by": fix.flagged_by,
            "verdict": fix.verdict or "not decided yet",
        }
        for fix in found
    ]
    empty = "No fix is open." if only_open else "No fix was ever flagged."
    more = found[-1].id if len(found) == limit else None
    print_list(
        "fixes",
        [asdict(fix) for fix in found],
        format=format,
        brief=brief,
        empty=empty,
        header=list_columns(Fix),
        spare=("by", "flagged", "stage"),
        also={"next": more},
    )
    print_next_cursor(more, format=format)


@app.command("show")
@with_output_format
def show_(fix: FixId, format: OutputFormat = OutputFormat.TABLE) -> None:
    """Show all of a fix: what it means, its stages with their outcomes, and what comes next or why it ended.

    Example: `dlq fixes show 1`
    """
    from dlq_pipelines.installation import build_fix_terms
    from dlq_pipelines.retries.fixes import get_fix_progress

    with open_session() as (connection, settings):
        found = get_fix_progress(
            connection, fix, now=datetime.now(UTC), terms=build_fix_terms(settings)
        )
    stages = [_stage(number, stage) for number, stage in found.stages.items()]
    if format is OutputFormat.JSON:
        print_record({"fix": found.fix, "stages": stages, "next": found.next}, format=format)
        return
    if format is OutputFormat.CSV:
        print_record(asdict(found.fix) | {"stages": stages, "next": found.next}, format=format)
        return
    about = _about(found.fix, settings.zone) | {
        "next" if found.fix.closed_at is None else "verdict": found.next
    }
    print_table([{"of the fix": key, "": value} for key, value in about.items() if value])
    typer.echo()
    print_table(stages, empty="No stage was begun yet.")
    if found.fix.evidence:
        typer.echo()
        print_table([_evidence(pair) for pair in found.fix.evidence])


@app.command()
@with_output_format
def pause(
    fix: FixId,
    reason: Reason,
    actor: Actor,
    dry_run: DryRun = False,
    format: OutputFormat = OutputFormat.TABLE,
) -> None:
    """Let nothing follow until the fix is resumed. What it has released stays with the worker.

    Example: `dlq fixes pause 1 --reason "the carrier asked us to wait"`
    """
    from dlq_pipelines.retries.advance import pause_fix

    hint = f"Fix {fix} is paused. To go on: `{program()} fixes resume {fix} --reason ...`."
    _change(
        pause_fix,
        fix,
        hint,
        prepared=prepare_change(actor, reason, dry_run=dry_run),
        format=format,
    )


@app.command()
@with_output_format
def resume(
    fix: FixId,
    reason: Reason,
    actor: Actor,
    dry_run: DryRun = False,
    format: OutputFormat = OutputFormat.TABLE,
) -> None:
    """Let a paused fix go on where it stopped.

    Example: `dlq fixes resume 2 --reason "the carrier is ready"`
    """
    from dlq_pipelines.retries.advance import resume_fix

    hint = f"Fix {fix} goes on with the next tick of the fix_flag_sensor. See `{program()} fixes show {fix}`."
    _change(
        resume_fix,
        fix,
        hint,
        prepared=prepare_change(actor, reason, dry_run=dry_run),
        format=format,
    )


@app.command()
@with_output_format
def withdraw(
    fix: FixId,
    reason: Reason,
    actor: Actor,
    dry_run: DryRun = False,
    format: OutputFormat = OutputFormat.TABLE,
) -> None:
    """End a fix whose claim is taken back. What it has released stays with the worker; nothing else follows.

    Example: `dlq fixes withdraw 1 --reason "rolled back upstream"`
    """
    from dlq_pipelines.retries.advance import withdraw_fix

    hint = (
        f"Fix {fix} is withdrawn. Once it is mended for good: `{program()} fixes flag --note ...`."
    )
    _change(
        withdraw_fix,
        fix,
        hint,
        prepared=prepare_change(actor, reason, dry_run=dry_run),
        format=format,
    )


@app.command()
@with_output_format
@with_filters
def parked(
    filters: GivenFilters,
    fix: OfFix = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many at most.")] = 50,
    after: Annotated[
        int, typer.Option(min=0, help="Only events with a larger id: for the next page.")
    ] = 0,
    format: OutputFormat = OutputFormat.TABLE,
) -> None:
    """List events that died again after so many retries that only a person releases them.

    Example: `dlq fixes parked --event-type order.placed`
    """
    from dlq_pipelines.retries.fixes import get_max_retries
    from dlq_pipelines.retries.parked import ParkedEvent, list_parked_events

    with open_session() as (connection, settings):
        selection = Selection.build(filters, settings.zone, default_all=True)
        found = list_parked_events(
            connection,
            max_retries=get_max_retries(connection, fix, default=settings.max_retries),
            selection=selection,
            fix_id=fix,
            after=after,
            limit=limit,
        )
    brief = [
        {
            "event": event.event_id,
            "type": event.event_type,
            "aggregate": f"{event.aggregate_type} {event.aggregate_id}",
            "cause": event.cause_id or "not classified yet",
            "retries": event.retries,
            "last death": event.died_at,
        }
        for event in found
    ]
    more = found[-1].event_id if len(found) == limit else None
    print_list(
        "events",
        [asdict(event) for event in found],
        format=format,
        brief=brief,
        empty="No event is parked."
        if selection.all and not (fix or after)
        else "No parked event fits this filter.",
        header=list_columns(ParkedEvent),
        spare=("aggregate", "type"),
        also={"next": more},
    )
    print_next_cursor(more, format=format)


@app.command()
@with_output_format
@with_filters
def release_parked(
    filters: GivenFilters,
    reason: Reason,
    actor: Actor,
    ids: EventIds = None,
    fix: OfFix = None,
    rate: Rate = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    format: OutputFormat = OutputFormat.TABLE,
) -> None:
    """Retry parked events: those of these ids, of a fix, or of a filter. Others are passed over.

    Example: `dlq fixes release-parked --fix 1 --reason "the address was corrected by hand"`, or with ids:
    `dlq fixes release-parked 23 24 --reason "the address was corrected by hand" --dry-run`
    """
    from dlq_pipelines.installation import resolve_rate
    from dlq_pipelines.retries.fixes import get_max_retries
    from dlq_pipelines.retries.parked import release_parked as release

    audit, options = prepare_change(actor, reason, dry_run=dry_run)
    with open_session() as (connection, settings):
        selection = Selection.build(filters, settings.zone, ids, default_all=fix is not None)
        most, at = (
            get_max_retries(connection, fix, default=settings.max_retries),
            resolve_rate(rate, settings),
        )
        done = retry_many(
            lambda options: release(
                connection,
                selection,
                max_retries=most,
                fix_id=fix,
                audit=audit,
                options=options,
                rate=at,
            ),
            options,
            named=selection.names_only,
            kind="parked",
            yes=yes,
        )
    print_retried(done, ids, rate=at, dry_run=dry_run, format=format)


def _change(
    change: Callable[..., "Fix"],
    fix_id: int,
    hint: str,
    *,
    prepared: "tuple[AuditContext, RunOptions]",
    format: OutputFormat,
) -> None:
    """Do it, and say what the fix is then."""
    audit, options = prepared
    with open_session() as (connection, _):
        fix = change(connection, fix_id, audit=audit, options=options)
    _say(
        fix, "Nothing was changed: this was a dry run." if options.dry_run else hint, format=format
    )


def _say(fix: "Fix", hint: str, *, format: OutputFormat) -> None:
    if format is not OutputFormat.TABLE:
        print_record(asdict(fix), format=format)
        return
    print_table(
        [{"fix": fix.id, "state": fix.status.value, "verdict": fix.verdict or "not decided yet"}]
    )
    typer.echo(hint)


def _show_preview(would: "FixPreview", policy: "RetryPolicy", *, format: OutputFormat) -> None:
    if format is not OutputFormat.TABLE:
        print_record(asdict(would), format=format)
        return
    figures = {
        "events": f"{would.events:,}",
        "aggregates": f"{would.aggregates:,}",
        "parked": f"{would.parked:,}",
        "overtaken": "not known" if would.overtaken is None else f"{would.overtaken:,}",
        "stages": would.sizes,
        "time": f"{format_seconds(would.seconds)} at {policy.rate:g} a second, and what the worker needs",
    }
    print_table([{"it would mean": name, "": value} for name, value in figures.items()])
    typer.echo("Nothing was changed: this was a dry run.")


def _stage(number: int, stage: "StageOutcomes") -> dict[str, Any]:
    return {"stage": number, **asdict(stage), "waiting": stage.waiting}


def _evidence(pair: dict[str, Any]) -> dict[str, Any]:
    """An old error and beside it what came of the retry."""
    new = summarize_failure(pair["after"]) if pair["outcome"] == "died_again" else pair["outcome"]
    return {
        "events": pair["events"],
        "old error": summarize_failure(pair["before"]),
        "new error": new,
    }


def _means(fix: "Fix", zone: "tzinfo") -> str:
    """Which events, with times as filters of this installation read them."""
    asked = fix.selection
    since, until = (at and at.astimezone(zone) for at in (asked.since, asked.until))
    return str(replace(asked, since=since, until=until))


def _about(fix: "Fix", zone: "tzinfo") -> dict[str, Any]:
    """What people ask of a fix, in their words."""
    policy = fix.policy
    return {
        "fix": fix.id,
        "state": fix.status.value,
        "means": f"{_means(fix, zone)}, dead before {format_local_time(fix.flagged_at, zone)}",
        "note": fix.note,
        "link": fix.link,
        "owner": fix.owner,
        "flagged by": fix.flagged_by,
        "flagged": fix.flagged_at,
        "not before": fix.not_before,
        "expires": fix.expires_at,
        "ended": fix.closed_at,
        "policy": policy
        and f"{policy.canary:,} events, then {policy.growth:g} times as many, {policy.rate:g} a second; "
        f"{policy.min_success:.0%} must succeed within {format_seconds(policy.settle_seconds)}; "
        f"parked after {policy.max_retries} retries; order: {policy.order}",
    }
