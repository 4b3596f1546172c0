"""`dlq dead-events`: list, show, export, retry and discard events that died."""

from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dlq_pipelines.cli.export import export_deaths_command
from dlq_pipelines.cli.filters import EventIds, GivenFilters, build_selection, with_filters
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
    Limit,
    OutputFormat,
    format_local_time,
    list_columns,
    print_list,
    print_page,
    print_record,
    print_table,
    summarize_failure,
    with_output_format,
)
from dlq_pipelines.cli.retrying import (
    Rate,
    describe_others,
    describe_skipped,
    print_nothing_done,
    print_recalled,
    print_retried,
    retry_many,
)
from dlq_pipelines.cli.session import open_session
from dlq_pipelines.text import (
    RawJson,
    format_aggregate,
    format_count,
    format_seconds,
    sanitize_line,
    sanitize_text,
)
from dlq_pipelines.validate import parse_event_id

if TYPE_CHECKING:
    # A command imports what it needs when it runs.
    from dlq_pipelines.outbox.dead_events import AgeCount
    from dlq_pipelines.retries.history import EventDeath, EventHistory, EventRetry

app = typer.Typer(
    name="dead-events",
    help="Events that died.\n\nExample: `dlq dead-events list --limit 5`",
    no_args_is_help=True,
)
app.command("export")(export_deaths_command)
EventId = Annotated[str, typer.Argument(help="The event's id.", metavar="ID")]
# Characters of a payload or an error in the terminal; `--json` prints all of them.
_MAX_SHOWN = 20_000
_UNCLASSIFIED = "not classified yet"


@app.command("list")
@with_output_format
@with_filters
def list_dead_events_command(
    filters: GivenFilters,
    ids: EventIds = None,
    limit: Limit = 50,
    offset: Annotated[
        int, typer.Option(min=0, help="Number of events to skip; --after is faster.")
    ] = 0,
    after: After = None,
    format: OutputFormat = OutputFormat.TABLE,
) -> None:
    """List dead events, the latest death first.

    Example: `dlq dead-events list --event-type order.placed --since 2026-11-24 --limit 20`
    """
    from dlq_pipelines.outbox.dead_events import DeadEvent, list_dead_events

    with open_session() as (connection, settings):
        selection = build_selection(connection, filters, settings, ids, default_all=True)
        page = list_dead_events(connection, selection, limit=limit, offset=offset, after=after)
    brief = [
        {
            "event": event.id,
            "died": event.dead_at,
            "type": event.event_type,
            "aggregate": format_aggregate(event.aggregate_type, event.aggregate_id),
            "attempts": event.attempts,
            "cause": event.cause_id or _UNCLASSIFIED,
            "detail": event.detail or "",
            "error": summarize_failure(event.last_error)[:100],
        }
        for event in page.events
    ]
    print_page(
        "events",
        [asdict(event) for event in page.events],
        cursor=page.next,
        format=format,
        brief=brief,
        empty="There are no dead events."
        if selection.all and not offset and not after
        else "No dead events match this filter.",
        header=list_columns(DeadEvent),
        optional=("attempts", "detail", "aggregate", "type"),
    )


@app.command("stats")
@with_output_format
@with_filters
def count_dead_events_command(
    filters: GivenFilters, ids: EventIds = None, format: OutputFormat = OutputFormat.TABLE
) -> None:
    """Count dead events by type, cause and age.

    Example: `dlq dead-events stats --aggregate-type order`
    """
    from dlq_pipelines.causes.catalogue import get_causes
    from dlq_pipelines.outbox.dead_events import get_dead_event_stats

    with open_session() as (connection, settings):
        selection = build_selection(connection, filters, settings, ids, default_all=True)
        found = get_dead_event_stats(connection, selection, now=datetime.now(UTC))
        causes = get_causes(connection, [count.name for count in found.by_cause if count.name])
    if format is OutputFormat.JSON:
        print_record(asdict(found), format=format)
        return
    groups = {
        "event type": found.by_event_type,
        "aggregate type": found.by_aggregate_type,
        "cause": found.by_cause,
    }
    titles = {cause.id: sanitize_line(cause.title, 100) for cause in causes.values()}
    rows: list[dict[str, Any]] = [{"by": "all", "value": "", "events": found.total, "title": ""}]
    rows += [
        {
            "by": group,
            "value": count.name or _UNCLASSIFIED,
            "events": count.events,
            "title": titles.get(count.name or "", "") if group == "cause" else "",
        }
        for group, counts in groups.items()
        for count in counts
    ]
    rows += [
        {"by": "age", "value": _format_age(count), "events": count.events, "title": ""}
        for count in found.by_age
    ]
    print_list("stats", rows, format=format, optional=("title",))


@app.command("show")
@with_output_format
def show_event_command(event: EventId, format: OutputFormat = OutputFormat.TABLE) -> None:
    """Show the history of an event that died.

    Prints its deaths, retries, fix and payload, even if it has left the outbox.

    Example: `dlq dead-events show 17`
    """
    from dlq_pipelines.retries.history import get_event_history

    with open_session() as (connection, settings):
        found = get_event_history(connection, parse_event_id(event))
    if format is not OutputFormat.TABLE:
        print_record(found.to_record(), format=format)
        return
    print_table([{"field": key, "value": value} for key, value in _summarize_event(found).items()])
    typer.echo()
    print_table(
        [_summarize_death(death) for death in found.deaths],
        optional=("discarded", "attempts", "detail"),
    )
    typer.echo()
    print_table(
        [_summarize_retry(retry) for retry in found.retries],
        empty="It was never retried.",
        optional=("due", "actor"),
    )
    for retry in found.retries:
        if retry.payload_before is not None:
            _print_long_text(
                f"payload before the retry of {format_local_time(retry.retried_at, settings.zone)}",
                _indent_payload(retry.payload_before),
            )
    if found.event is not None and found.event.payload is not None:
        _print_long_text("payload", _indent_payload(found.event.payload))
    _print_long_text("last error", found.deaths[0].error or "none was stored")


@app.command("retry")
@with_output_format
def retry_event_command(
    event: EventId,
    reason: Reason,
    actor: Actor,
    payload: Annotated[
        str | None,
        typer.Option(
            metavar="JSON|@FILE",
            help="Retry with this payload. Requires DLQ_ALLOW_EDIT=true.",
        ),
    ] = None,
    dry_run: DryRun = False,
    format: OutputFormat = OutputFormat.TABLE,
) -> None:
    """Retry a dead event now, even a parked one. The original payload is kept.

    Example: `dlq dead-events retry 17 --reason "address corrected by hand"`
    """
    from dlq_pipelines.retries.retry import retry_event

    audit, options = prepare_change(actor, reason, dry_run=dry_run)
    text = None if payload is None else _read_payload(payload)
    with open_session() as (connection, settings):
        retry_event(
            connection,
            parse_event_id(event),
            audit=audit,
            options=options,
            payload=text,
            allow_edit=settings.allow_edit,
        )
    print_change(
        f"Would retry event {event}." if dry_run else f"Event {event} is pending again.",
        {"event_id": parse_event_id(event), "events": 1},
        hint=f"See its outcome: `dlq dead-events show {event}`.",
        dry_run=dry_run,
        format=format,
    )


@app.command("retry-batch")
@with_output_format
@with_filters
def retry_events_command(
    filters: GivenFilters,
    reason: Reason,
    actor: Actor,
    ids: EventIds = None,
    parked: Annotated[
        bool,
        typer.Option("--parked", help="Include parked events. Ids always include them."),
    ] = False,
    rate: Rate = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    format: OutputFormat = OutputFormat.TABLE,
) -> None:
    """Retry dead events by ids or by a filter.

    They fall due at a rate, without the verification of a fix, all within DLQ_LOOKAHEAD_SECONDS:
    for more events, flag a fix. Events that are not dead are skipped, with the reason.

    Example: `dlq dead-events retry-batch 17 18 --reason "carrier is back"`, or with a filter:
    `dlq dead-events retry-batch --detail postcode --reason "carrier is back" --dry-run`
    """
    from dlq_pipelines.installation import resolve_rate
    from dlq_pipelines.outbox.dead_events import list_other_events
    from dlq_pipelines.retries.retry import retry_selected

    audit, options = prepare_change(actor, reason, dry_run=dry_run)
    with open_session() as (connection, settings):
        selection = build_selection(connection, filters, settings, ids)
        events_per_second = resolve_rate(rate, settings)
        max_retries = None if parked or ids else settings.max_retries
        others = list_other_events(connection, selection.event_ids or ())
        done = retry_many(
            lambda options: retry_selected(
                connection,
                selection,
                audit=audit,
                options=options,
                rate=events_per_second,
                max_retries=max_retries,
            ),
            options,
            pace=(events_per_second, timedelta(seconds=settings.lookahead_seconds)),
            by_ids=selection.names_only,
            kind="dead",
            yes=yes,
            others=others,
        )
    print_retried(done, ids, others, rate=events_per_second, dry_run=dry_run, format=format)


@app.command("recall")
@with_output_format
@partial(with_filters, everything="All events that people retried")
def recall_events_command(
    filters: GivenFilters,
    reason: Reason,
    actor: Actor,
    ids: EventIds = None,
    dry_run: DryRun = False,
    format: OutputFormat = OutputFormat.TABLE,
) -> None:
    """Recall events that people retried and no worker has taken.

    They are dead again. Events that a worker has taken, or that are due, stay with the worker. What
    a fix released is recalled when the fix is paused or withdrawn. Repeatable.

    Example: `dlq dead-events recall --event-type order.placed --reason "carrier is down again"`, or
    everything: `dlq dead-events recall --all --reason "carrier is down again" --dry-run`
    """
    from dlq_pipelines.retries.recall import recall_retries

    audit, options = prepare_change(actor, reason, dry_run=dry_run)
    with open_session() as (connection, settings):
        selection = build_selection(connection, filters, settings, ids)
        done = recall_retries(connection, selection, audit=audit, options=options)
    hint = "See an event: `dlq dead-events show ID`."
    print_recalled(done, hint=hint, dry_run=dry_run, format=format)


@app.command("discard")
@with_output_format
@with_filters
def discard_events_command(
    filters: GivenFilters,
    reason: Reason,
    actor: Actor,
    ids: EventIds = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    format: OutputFormat = OutputFormat.TABLE,
) -> None:
    """Archive dead events now, with a reason.

    A discarded event is retried only after a person has restored it by its id.

    Example: `dlq dead-events discard 17 --reason "a test order"`
    """
    from dlq_pipelines.archive.archive import discard_events
    from dlq_pipelines.outbox.batches import build_nothing_taken_error
    from dlq_pipelines.outbox.dead_events import list_other_events

    audit, options = prepare_change(actor, reason, dry_run=dry_run)
    with open_session() as (connection, settings):
        selection = build_selection(connection, filters, settings, ids)
        others = list_other_events(connection, selection.event_ids or ())
        done = apply_to_many(
            lambda options: discard_events(connection, selection, audit=audit, options=options),
            options,
            verb="discard",
            count=lambda done: done.events,
            yes=yes,
            missing=(lambda done: build_nothing_taken_error(done, "dead", others))
            if selection.names_only
            else None,
        )
    if not done.events and format is OutputFormat.TABLE:
        print_nothing_done(done)
        return
    did = "Would discard" if dry_run else "Discarded"
    lines = [f"{did} {format_count(done.events, 'dead event')}.", *describe_others(others)]
    print_change(
        "\n".join(filter(None, [*lines, describe_skipped(done)])),
        {
            "events": done.events,
            "batches": done.batches,
            "locked": done.locked,
            "others": [asdict(other) for other in others],
        },
        hint="To restore one: `dlq archive restore ID --reason ...`.",
        dry_run=dry_run,
        format=format,
    )


def _format_age(count: "AgeCount") -> str:
    start = format_seconds(count.from_seconds) if count.from_seconds else "0 s"
    if count.below_seconds is None:
        return f"{start} and older"
    return f"{start} to {format_seconds(count.below_seconds)}"


def _summarize_event(found: "EventHistory") -> dict[str, Any]:
    event, fix = found.event, found.fix
    summary: dict[str, Any] = {"event": found.event_id, "place": found.place}
    if event is not None:
        summary |= {
            "type": event.event_type,
            "aggregate": format_aggregate(event.aggregate_type, event.aggregate_id),
            "status": event.status,
            "attempts": event.attempts,
            "written": event.created_at,
        }
    if fix is not None:
        summary["fix"] = f"{fix.id}, {fix.status}: {fix.note}"
    return summary


def _indent_payload(payload: RawJson | str) -> str:
    return payload.indented() if isinstance(payload, RawJson) else payload


def _summarize_death(death: "EventDeath") -> dict[str, Any]:
    discarded = f"by {death.discarded_by}: {death.discard_reason}" if death.discarded_at else ""
    return {
        "died": death.died_at,
        "attempts": death.attempts,
        "cause": death.cause_id or _UNCLASSIFIED,
        "detail": death.detail or "",
        "error": summarize_failure(death.error),
        "discarded": discarded,
    }


def _summarize_retry(retry: "EventRetry") -> dict[str, Any]:
    recalled = f" by {retry.recalled_by}: {retry.recall_reason}" if retry.recalled_by else ""
    return {
        "retried": retry.retried_at,
        "due": retry.due_at,
        "actor": retry.actor,
        "fix": "" if retry.fix_id is None else f"{retry.fix_id}, stage {retry.stage}",
        "outcome": (retry.outcome or "not known yet") + recalled,
        "reason": retry.reason,
    }


def _print_long_text(title: str, text: str) -> None:
    """Print a hostile text with its line breaks, at most `_MAX_SHOWN` characters of it."""
    cut = len(text) - _MAX_SHOWN
    rest = f"\n... {cut:,} more characters; --json prints all of them" if cut > 0 else ""
    typer.echo(f"\n{title}:\n{sanitize_text(text[:_MAX_SHOWN])}{rest}")


def _read_payload(argument: str) -> str:
    """Return the JSON text of an argument, or of the file that `@FILE` names.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is not UTF-8 text.
    """
    return Path(argument[1:]).read_text(encoding="utf-8") if argument.startswith("@") else argument
