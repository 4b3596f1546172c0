"""`dlq dead-events`: what became of an event, and how does a person bring it back?"""

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dlq_pipelines.cli.export import export
from dlq_pipelines.cli.filters import EventIds, GivenFilters, with_filters
from dlq_pipelines.cli.mutation import (
    Actor,
    DryRun,
    Reason,
    Yes,
    apply_to_many,
    prepare_change,
    print_change,
)
from dlq_pipelines.cli.output import (
    After,
    OutputFormat,
    format_local_time,
    format_seconds,
    list_columns,
    print_list,
    print_record,
    print_table,
    program,
    summarize_failure,
    with_output_format,
)
from dlq_pipelines.cli.retrying import (
    Rate,
    describe_skipped,
    print_nothing_done,
    print_retried,
    retry_many,
)
from dlq_pipelines.cli.session import open_session
from dlq_pipelines.outbox.selection import Selection
from dlq_pipelines.text import format_count, sanitize_text

if TYPE_CHECKING:
    # A command imports what it needs when it runs.
    from dlq_pipelines.outbox.dead_events import AgeCount
    from dlq_pipelines.retries.history import EventDeath, EventHistory, EventRetry

app = typer.Typer(help="Events that died.", no_args_is_help=True)
app.command("export")(export)
EventId = Annotated[int, typer.Argument(min=1, help="The event's id.", metavar="ID")]
# Characters of a payload or an error for people; `--json` has all of them.
_SHOWN = 20_000


@app.callback()
def dead_events() -> None:
    """Events that died."""


@app.command("list")
@with_output_format
@with_filters
def list_(
    filters: GivenFilters,
    ids: EventIds = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many at most.")] = 50,
    offset: Annotated[
        int, typer.Option(min=0, help="How many to leave out; --after is faster.")
    ] = 0,
    after: After = None,
    format: OutputFormat = OutputFormat.TABLE,
) -> None:
    """List dead events, the latest death first: all, or those of a filter. In JSON, `next` is where to go on.

    Example: `dlq dead-events list --event-type order.placed --since 2026-11-24 --limit 20`
    """
    from dlq_pipelines.outbox.dead_events import DeadEvent, list_dead_events

    with open_session() as (connection, settings):
        selection = Selection.build(filters, settings.zone, ids, default_all=True)
        page = list_dead_events(connection, selection, limit=limit, offset=offset, after=after)
    brief = [
        {
            "event": event.id,
            "died": event.dead_at,
            "type": event.event_type,
            "aggregate": f"{event.aggregate_type} {event.aggregate_id}",
            "attempts": event.attempts,
            "cause": event.cause_id or "not classified yet",
            "of": summarize_failure(event.last_error)[:100],
        }
        for event in page.events
    ]
    print_list(
        "events",
        [asdict(event) for event in page.events],
        format=format,
        brief=brief,
        empty="Nothing is dead."
        if selection.all and not offset and not after
        else "No dead event fits this filter.",
        header=list_columns(DeadEvent),
        spare=("attempts", "aggregate", "type"),
        also={"next": page.next},
    )
    if page.next and format is not OutputFormat.JSON:
        typer.echo(f"There are more: --after {page.next}", err=True)


@app.command()
@with_output_format
@with_filters
def stats(
    filters: GivenFilters, ids: EventIds = None, format: OutputFormat = OutputFormat.TABLE
) -> None:
    """Count dead events by type, cause and age: all, or those of a filter.

    Example: `dlq dead-events stats --aggregate-type order`
    """
    from dlq_pipelines.outbox.dead_events import get_dead_event_stats

    with open_session() as (connection, settings):
        selection = Selection.build(filters, settings.zone, ids, default_all=True)
        found = get_dead_event_stats(connection, selection, now=datetime.now(UTC))
    if format is OutputFormat.JSON:
        print_record(asdict(found), format=format)
        return
    sides = {
        "event type": found.by_event_type,
        "aggregate type": found.by_aggregate_type,
        "cause": found.by_cause,
    }
    rows = [{"by": "all", "of": "", "events": found.total}]
    rows += [
        {"by": side, "of": one.name or "not classified yet", "events": one.events}
        for side, counted in sides.items()
        for one in counted
    ]
    rows += [{"by": "age", "of": _age(one), "events": one.events} for one in found.by_age]
    print_list("stats", rows, format=format)


@app.command("show")
@with_output_format
def show_(event: EventId, format: OutputFormat = OutputFormat.TABLE) -> None:
    """Show an event that died, also one that was retried or archived since: its deaths, retries, fix and payload.

    Example: `dlq dead-events show 17`
    """
    from dlq_pipelines.retries.history import get_event_history

    with open_session() as (connection, settings):
        found = get_event_history(connection, event)
    if format is not OutputFormat.TABLE:
        print_record(asdict(found), format=format)
        return
    print_table([{"of the event": key, "": value} for key, value in _about(found).items()])
    typer.echo()
    print_table([_death(death) for death in found.deaths], spare=("given up", "attempts"))
    typer.echo()
    print_table(
        [_retry(retry) for retry in found.retries], empty="It was never retried.", spare=("due",)
    )
    for retry in found.retries:
        if retry.payload_before is not None:
            _long(
                f"payload before the retry of {format_local_time(retry.retried_at, settings.zone)}",
                retry.payload_before.indented(),
            )
    if found.event is not None:
        _long("payload", found.event.payload.indented())
    _long("last error", found.deaths[0].error or "none was stored")


@app.command()
@with_output_format
def retry(
    event: EventId,
    reason: Reason,
    actor: Actor,
    payload: Annotated[
        str | None,
        typer.Option(
            metavar="JSON|@FILE",
            help="Retry it with this payload instead. Needs DLQ_ALLOW_EDIT=true.",
        ),
    ] = None,
    dry_run: DryRun = False,
    format: OutputFormat = OutputFormat.TABLE,
) -> None:
    """Make a dead event pending again, due now, also a parked one. With another payload the original is kept.

    Example: `dlq dead-events retry 17 --reason "the address was corrected by hand"`
    """
    from dlq_pipelines.retries.retry import retry_event

    audit, options = prepare_change(actor, reason, dry_run=dry_run)
    text = None if payload is None else _read_payload(payload)
    with open_session() as (connection, settings):
        retry_event(
            connection,
            event,
            audit=audit,
            options=options,
            payload=text,
            allow_edit=settings.allow_edit,
        )
    print_change(
        f"Would retry event {event}." if dry_run else f"Event {event} is pending again.",
        {"event_id": event, "events": 1},
        hint=f"What becomes of it: `{program()} dead-events show {event}`.",
        dry_run=dry_run,
        format=format,
    )


@app.command()
@with_output_format
@with_filters
def retry_batch(
    filters: GivenFilters,
    reason: Reason,
    actor: Actor,
    ids: EventIds = None,
    parked: Annotated[
        bool,
        typer.Option("--parked", help="Also parked ones. Those named by id are taken either way."),
    ] = False,
    rate: Rate = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    format: OutputFormat = OutputFormat.TABLE,
) -> None:
    """Retry dead events of these ids or of a filter, paced, without the proof that a fix gives. Others are passed over.

    Example: `dlq dead-events retry-batch 17 18 --reason "the carrier is back"`, or with a filter:
    `dlq dead-events retry-batch --event-type order.placed --since 2026-11-24 --reason "the carrier is back" --dry-run`
    """
    from dlq_pipelines.installation import resolve_rate
    from dlq_pipelines.retries.retry import retry_selected

    audit, options = prepare_change(actor, reason, dry_run=dry_run)
    with open_session() as (connection, settings):
        selection, at = Selection.build(filters, settings.zone, ids), resolve_rate(rate, settings)
        most = None if parked or ids else settings.max_retries
        done = retry_many(
            lambda options: retry_selected(
                connection, selection, audit=audit, options=options, rate=at, max_retries=most
            ),
            options,
            named=selection.names_only,
            kind="dead",
            yes=yes,
        )
    print_retried(done, ids, rate=at, dry_run=dry_run, format=format)


@app.command()
@with_output_format
@with_filters
def discard(
    filters: GivenFilters,
    reason: Reason,
    actor: Actor,
    ids: EventIds = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    format: OutputFormat = OutputFormat.TABLE,
) -> None:
    """Give dead events up: they go to the archive at once with the reason, and no filter brings them back.

    Example: `dlq dead-events discard 17 --reason "a test order"`
    """
    from dlq_pipelines.archive.archive import discard_events
    from dlq_pipelines.outbox.batches import build_nothing_taken_error

    audit, options = prepare_change(actor, reason, dry_run=dry_run)
    with open_session() as (connection, settings):
        selection = Selection.build(filters, settings.zone, ids)
        done = apply_to_many(
            lambda options: discard_events(connection, selection, audit=audit, options=options),
            options,
            verb="discard",
            count=lambda done: done.events,
            yes=yes,
            missing=(lambda done: build_nothing_taken_error(done, "dead"))
            if selection.names_only
            else None,
        )
    if not done.events and format is OutputFormat.TABLE:
        typer.echo(print_nothing_done(done))
        return
    did = "Would discard" if dry_run else "Discarded"
    print_change(
        f"{did} {format_count(done.events, 'dead event')}. {describe_skipped(done)}".rstrip(),
        asdict(done),
        hint=f"Back by its id: `{program()} archive restore ID --reason ...`.",
        dry_run=dry_run,
        format=format,
    )


def _age(aged: "AgeCount") -> str:
    if aged.below_seconds is None:
        return f"{format_seconds(aged.from_seconds)} and older"
    return f"{format_seconds(aged.from_seconds) if aged.from_seconds else '0 s'} to {format_seconds(aged.below_seconds)}"


def _about(found: "EventHistory") -> dict[str, Any]:
    event, fix = found.event, found.fix
    about: dict[str, Any] = {"event": found.event_id, "place": found.place}
    if event is not None:
        about |= {
            "type": event.event_type,
            "aggregate": f"{event.aggregate_type} {event.aggregate_id}",
            "status": event.status,
            "attempts": event.attempts,
            "written": event.created_at,
        }
    if fix is not None:
        about["fix"] = f"{fix.id}, {fix.status}: {fix.note}"
    return about


def _death(death: "EventDeath") -> dict[str, Any]:
    discarded = f"by {death.discarded_by}: {death.discard_reason}" if death.discarded_at else ""
    return {
        "died": death.died_at,
        "attempts": death.attempts,
        "cause": death.cause_id or "not classified yet",
        "of": summarize_failure(death.error),
        "given up": discarded,
    }


def _retry(retry: "EventRetry") -> dict[str, Any]:
    return {
        "retried": retry.retried_at,
        "due": retry.due_at,
        "by": retry.actor,
        "fix": "" if retry.fix_id is None else f"{retry.fix_id}, stage {retry.stage}",
        "outcome": retry.outcome or "not known yet",
        "why": retry.reason,
    }


def _long(title: str, text: str) -> None:
    """A text of anybody's in its lines, of a very long one the beginning."""
    cut = f"\n... {len(text) - _SHOWN:,} characters more, with --json" if len(text) > _SHOWN else ""
    typer.echo(f"\n{title}:\n{sanitize_text(text[:_SHOWN])}{cut}")


def _read_payload(given: str) -> str:
    """The JSON text that was given itself, or the file that it stands in.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is no text in UTF-8.
    """
    return Path(given[1:]).read_text(encoding="utf-8") if given.startswith("@") else given
