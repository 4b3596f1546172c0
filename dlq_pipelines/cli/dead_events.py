"""`dlq dead-events`: what became of an event, and how does a person bring it back?"""

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dlq_pipelines.cli.act import Actor, DryRun, Reason, Yes, act, do_many, tell
from dlq_pipelines.cli.export import export
from dlq_pipelines.cli.filters import EventIds, Filters, filtered
from dlq_pipelines.cli.output import (
    After,
    Format,
    columns,
    duration,
    formatted,
    headline,
    local,
    program,
    show_list,
    show_one,
    show_table,
)
from dlq_pipelines.cli.retrying import Rate, nothing_done, passed_over, retry_many, tell_retried
from dlq_pipelines.cli.session import session
from dlq_pipelines.text import counted, plain_text

if TYPE_CHECKING:
    # A command imports what it needs when it runs.
    from dlq_pipelines.outbox.dead_events import Aged
    from dlq_pipelines.retries.history import Death, EventHistory, Retry

app = typer.Typer(help="Events that died.", no_args_is_help=True)
app.command("export")(export)
EventId = Annotated[int, typer.Argument(min=1, help="The event's id.", metavar="ID")]
# Characters of a payload or an error for people; `--json` has all of them.
_SHOWN = 20_000


@app.callback()
def dead_events() -> None:
    """Events that died."""


@app.command("list")
@formatted
@filtered
def list_(
    filters: Filters,
    ids: EventIds = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many at most.")] = 50,
    offset: Annotated[int, typer.Option(min=0, help="How many to leave out; --after is faster.")] = 0,
    after: After = None,
    format: Format = Format.TABLE,
) -> None:
    """List dead events, the latest death first: all, or those of a filter. In JSON, `next` is where to go on.

    Example: `dlq dead-events list --event-type order.placed --since 2026-11-24 --limit 20`
    """
    from dlq_pipelines.outbox.dead_events import DeadEvent, list_dead_events

    with session() as (connection, settings):
        selector = filters.selector(settings.zone, ids, else_every=True)
        page = list_dead_events(connection, selector, limit=limit, offset=offset, after=after)
    brief = [
        {
            "event": event.id,
            "died": event.dead_at,
            "type": event.event_type,
            "aggregate": f"{event.aggregate_type} {event.aggregate_id}",
            "attempts": event.attempts,
            "cause": event.cause_id or "not classified yet",
            "of": headline(event.last_error)[:100],
        }
        for event in page.events
    ]
    show_list(
        "events",
        [asdict(event) for event in page.events],
        format=format,
        brief=brief,
        empty="Nothing is dead." if selector.every and not offset and not after else "No dead event fits this filter.",
        header=columns(DeadEvent),
        spare=("attempts", "aggregate", "type"),
        also={"next": page.next},
    )
    if page.next and format is not Format.JSON:
        typer.echo(f"There are more: --after {page.next}", err=True)


@app.command()
@formatted
@filtered
def stats(filters: Filters, ids: EventIds = None, format: Format = Format.TABLE) -> None:
    """Count dead events by type, cause and age: all, or those of a filter.

    Example: `dlq dead-events stats --aggregate-type order`
    """
    from dlq_pipelines.outbox.dead_events import dead_event_stats

    with session() as (connection, settings):
        selector = filters.selector(settings.zone, ids, else_every=True)
        found = dead_event_stats(connection, selector, now=datetime.now(UTC))
    if format is Format.JSON:
        show_one(asdict(found), format=format)
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
    show_list("stats", rows, format=format)


@app.command("show")
@formatted
def show_(event: EventId, format: Format = Format.TABLE) -> None:
    """Show an event that died, also one that was retried or archived since: its deaths, retries, fix and payload.

    Example: `dlq dead-events show 17`
    """
    from dlq_pipelines.retries.history import event_history

    with session() as (connection, settings):
        found = event_history(connection, event)
    if format is not Format.TABLE:
        show_one(asdict(found), format=format)
        return
    show_table([{"of the event": key, "": value} for key, value in _about(found).items()])
    typer.echo()
    show_table([_death(death) for death in found.deaths], spare=("given up", "attempts"))
    typer.echo()
    show_table([_retry(retry) for retry in found.retries], empty="It was never retried.", spare=("due",))
    for retry in found.retries:
        if retry.payload_before is not None:
            _long(
                f"payload before the retry of {local(retry.retried_at, settings.zone)}", retry.payload_before.indented()
            )
    if found.event is not None:
        _long("payload", found.event.payload.indented())
    _long("last error", found.deaths[0].error or "none was stored")


@app.command()
@formatted
def retry(
    event: EventId,
    reason: Reason,
    actor: Actor,
    payload: Annotated[
        str | None,
        typer.Option(metavar="JSON|@FILE", help="Retry it with this payload instead. Needs DLQ_ALLOW_EDIT=true."),
    ] = None,
    dry_run: DryRun = False,
    format: Format = Format.TABLE,
) -> None:
    """Make a dead event pending again, due now, also a parked one. With another payload the original is kept.

    Example: `dlq dead-events retry 17 --reason "the address was corrected by hand"`
    """
    from dlq_pipelines.retries.retry import retry_event

    doing = act(actor, reason, dry_run=dry_run)
    text = None if payload is None else _read_payload(payload)
    with session() as (connection, settings):
        retry_event(connection, event, act=doing, payload=text, allow_edit=settings.allow_edit)
    tell(
        f"Would retry event {event}." if dry_run else f"Event {event} is pending again.",
        {"event_id": event, "events": 1},
        hint=f"What becomes of it: `{program()} dead-events show {event}`.",
        dry_run=dry_run,
        format=format,
    )


@app.command()
@formatted
@filtered
def retry_batch(
    filters: Filters,
    reason: Reason,
    actor: Actor,
    ids: EventIds = None,
    parked: Annotated[
        bool, typer.Option("--parked", help="Also parked ones. Those named by id are taken either way.")
    ] = False,
    rate: Rate = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    format: Format = Format.TABLE,
) -> None:
    """Retry dead events of these ids or of a filter, paced, without the proof that a fix gives. Others are passed over.

    Example: `dlq dead-events retry-batch 17 18 --reason "the carrier is back"`, or with a filter:
    `dlq dead-events retry-batch --event-type order.placed --since 2026-11-24 --reason "the carrier is back" --dry-run`
    """
    from dlq_pipelines.installation import pace
    from dlq_pipelines.retries.retry import retry_selected

    doing = act(actor, reason, dry_run=dry_run)
    with session() as (connection, settings):
        selector, at = filters.selector(settings.zone, ids), pace(rate, settings)
        most = None if parked or ids else settings.max_retries
        done = retry_many(
            lambda act: retry_selected(connection, selector, act=act, rate=at, max_retries=most),
            doing,
            named=filters.names_only(ids),
            kind="dead",
            yes=yes,
        )
    tell_retried(done, ids, rate=at, dry_run=dry_run, format=format)


@app.command()
@formatted
@filtered
def discard(
    filters: Filters,
    reason: Reason,
    actor: Actor,
    ids: EventIds = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    format: Format = Format.TABLE,
) -> None:
    """Give dead events up: they go to the archive at once with the reason, and no filter brings them back.

    Example: `dlq dead-events discard 17 --reason "a test order"`
    """
    from dlq_pipelines.archive.archive import discard_events
    from dlq_pipelines.retries.page import none_taken

    with session() as (connection, settings):
        selector = filters.selector(settings.zone, ids)
        done = do_many(
            lambda act: discard_events(connection, selector, act=act),
            act(actor, reason, dry_run=dry_run),
            verb="discard",
            events=lambda done: done.events,
            yes=yes,
            missing=(lambda done: none_taken(done, "dead")) if filters.names_only(ids) else None,
        )
    if not done.events and format is Format.TABLE:
        typer.echo(nothing_done(done))
        return
    did = "Would discard" if dry_run else "Discarded"
    tell(
        f"{did} {counted(done.events, 'dead event')}. {passed_over(done)}".rstrip(),
        asdict(done),
        hint=f"Back by its id: `{program()} archive restore ID --reason ...`.",
        dry_run=dry_run,
        format=format,
    )


def _age(aged: "Aged") -> str:
    if aged.below_seconds is None:
        return f"{duration(aged.from_seconds)} and older"
    return f"{duration(aged.from_seconds) if aged.from_seconds else '0 s'} to {duration(aged.below_seconds)}"


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


def _death(death: "Death") -> dict[str, Any]:
    discarded = f"by {death.discarded_by}: {death.discard_reason}" if death.discarded_at else ""
    return {
        "died": death.died_at,
        "attempts": death.attempts,
        "cause": death.cause_id or "not classified yet",
        "of": headline(death.error),
        "given up": discarded,
    }


def _retry(retry: "Retry") -> dict[str, Any]:
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
    typer.echo(f"\n{title}:\n{plain_text(text[:_SHOWN])}{cut}")


def _read_payload(given: str) -> str:
    """The JSON text that was given itself, or the file that it stands in.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is no text in UTF-8.
    """
    return Path(given[1:]).read_text(encoding="utf-8") if given.startswith("@") else given
