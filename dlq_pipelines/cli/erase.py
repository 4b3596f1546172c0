"""`dlq erase`: erase payloads and errors of events, and every copy in the database."""

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated

import typer

from dlq_pipelines.cli.mutation import (
    NOTHING_CHANGED,
    Actor,
    DryRun,
    Reason,
    Yes,
    confirm_events,
    prepare_change,
)
from dlq_pipelines.cli.output import OutputFormat, list_columns, print_list, with_output_format
from dlq_pipelines.cli.progress import show_progress
from dlq_pipelines.cli.session import open_session
from dlq_pipelines.text import format_count
from dlq_pipelines.validate import parse_event_id

if TYPE_CHECKING:
    # A command imports what it needs when it runs.
    from dlq_pipelines.erase import ErasureResult

app = typer.Typer()


@app.command("erase")
@with_output_format
def erase_events_command(
    reason: Reason,
    actor: Actor,
    event: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="This event; repeatable.")
    ] = None,
    text: Annotated[
        str | None,
        typer.Option(
            help="Every event whose payload or error contains this text, case-sensitive, of 4 to "
            "1,000 characters. Reads the whole outbox, archive and ledger."
        ),
    ] = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    format: OutputFormat = OutputFormat.TABLE,
) -> None:
    """Erase payloads and errors of events from outbox, archive, ledger, fixes and alerts.

    Dead events are discarded. Events that a worker still needs keep their payload: run it again
    once they are delivered or dead. Lists the files of exports and reports that still have the
    data; days that are exported and reported again have none.

    Example: `dlq erase --event 17 --reason "request of the customer" --dry-run`
    """
    from dlq_pipelines.erase import ErasedEvent, erase_events, list_erasable_events
    from dlq_pipelines.installation import build_erasure_terms

    audit, options = prepare_change(actor, reason, dry_run=dry_run)
    with open_session() as (connection, settings):
        ids = list_erasable_events(connection, [parse_event_id(id_) for id_ in event or ()], text)
        if not dry_run:
            confirm_events("erase", len(ids), yes=yes)
        with show_progress("Erase", "event", total=len(ids)) as report:
            done = erase_events(
                connection,
                ids,
                terms=build_erasure_terms(settings),
                audit=audit,
                text=text,
                options=replace(options, progress=report),
            )
    found = asdict(done)
    print_list(
        "events",
        found.pop("events"),
        format=format,
        brief=[
            {
                "event": erased.event_id,
                "emptied rows": erased.rows,
                "kept rows": erased.kept,
                "erased deaths": erased.deaths,
            }
            for erased in done.events
        ],
        empty="No payload and no error contains this text.",
        header=list_columns(ErasedEvent),
        added=found | {"dry_run": dry_run},
    )
    if format is OutputFormat.TABLE:
        _print_rest(done, dry_run=dry_run)
        if dry_run:
            typer.echo(NOTHING_CHANGED)


def _print_rest(done: "ErasureResult", *, dry_run: bool) -> None:
    """Print what is left to do by hand."""
    kept = sum(1 for erased in done.events if erased.kept)
    if kept:
        typer.echo(
            f"{format_count(kept, 'event keeps', 'events keep')} the payload, because a worker "
            "still needs it or a row refers to the event. Run the command again later."
        )
    if done.files:
        typer.echo("Files that still have erased data; export and report these days again:")
        for file in done.files:
            typer.echo(f"  {file}")
    for left in done.left:
        found = "is now" if dry_run else "is left"
        typer.echo(f"The text {found} in {left.place}: {format_count(left.rows, 'row')}.")
