"""`dlq archive`: what leaves the hot table, what comes back, and what is deleted for good?"""

from dataclasses import asdict, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dlq_pipelines.cli.act import Actor, DryRun, Reason, Yes, act, confirm
from dlq_pipelines.cli.filters import EventIds, Filters, filtered
from dlq_pipelines.cli.output import Json, show
from dlq_pipelines.cli.session import session
from dlq_pipelines.errors import NotFoundError, RefusedError

if TYPE_CHECKING:
    # A command imports what it needs when it runs.
    from dlq_pipelines.operation import Act

app = typer.Typer(help="The archive of dead events.", no_args_is_help=True)
Retention = Annotated[str, typer.Option("--reason", help="Why, for whoever asks later.")]


@app.callback()
def archive() -> None:
    """The archive of dead events."""


@app.command()
def run(
    actor: Actor,
    reason: Retention = "retention",
    older_than_days: Annotated[
        int | None, typer.Option(min=0, max=36500, help="Days since death. Default: DLQ_DEAD_RETENTION_DAYS.")
    ] = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Move dead events past their retention to the archive table: of exported days, and not what an open fix targets.

    Example: `dlq archive run --dry-run`
    """
    from dlq_pipelines.archive.archive import Archived, archive_dead_events

    doing = act(actor, reason, dry_run=dry_run)
    with session() as (connection, settings):
        days = settings.dead_retention_days if older_than_days is None else older_than_days

        def move(doing: "Act") -> Archived:
            return archive_dead_events(
                connection,
                before=doing.now - timedelta(days=days),
                only_exported=settings.archive_requires_export,
                act=doing,
            )

        if not dry_run:
            confirm("archive", move(replace(doing, dry_run=True)).moved, yes=yes)
        done = move(doing)
    _tell(
        f"{'Would archive' if dry_run else 'Archived'} {done.moved:,} dead events that died more than {days} days ago; "
        f"{done.left:,} as old stay, because a fix targets them, their day is not exported, or others hold them.",
        asdict(done) | {"older_than_days": days},
        dry_run=dry_run,
        json=json,
    )


@app.command()
@filtered
def restore(
    filters: Filters,
    reason: Reason,
    actor: Actor,
    ids: EventIds = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Bring archived dead events back as dead, so that a fix can target them. Discarded ones only by their ids.

    Example: `dlq archive restore --cause v1-3f9a0c6d2b7e4a51 --reason "mended after all" --dry-run`
    """
    from dlq_pipelines.archive.restore import restore_events

    doing = act(actor, reason, dry_run=dry_run)
    with session() as (connection, settings):
        selector = filters.selector(settings.zone, ids)
        if not dry_run:
            confirm("restore", restore_events(connection, selector, act=replace(doing, dry_run=True)).events, yes=yes)
        done = restore_events(connection, selector, act=doing)
    if filters.names_only(ids) and not done.events:
        raise NotFoundError("None of these events is archived as dead. `dlq dead-events show ID` says where one is.")
    _tell(
        f"{'Would restore' if dry_run else 'Restored'} {done.events:,} dead events; {done.blocked:,} stay because the "
        f"outbox has their id, {done.discarded:,} because they were discarded.",
        asdict(done),
        dry_run=dry_run,
        json=json,
    )


@app.command()
def purge(
    actor: Actor,
    reason: Retention = "retention",
    dry_run: DryRun = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Delete archived dead events past DLQ_ARCHIVE_RETENTION_DAYS for good. Which they were stays known.

    Example: `dlq archive purge --dry-run`
    """
    from dlq_pipelines.archive.purge import count_purgeable, purge_archive

    doing = act(actor, reason, dry_run=dry_run)
    with session() as (connection, settings):
        days = settings.archive_retention_days
        if not days:
            raise RefusedError("DLQ_ARCHIVE_RETENTION_DAYS is 0, so nothing is ever purged. Nothing was changed.")
        before = doing.now - timedelta(days=days)
        if not dry_run:
            confirm("delete", count_purgeable(connection, before=before), yes=yes)
        done = purge_archive(connection, before=before, act=doing)
    _tell(
        f"{'Would delete' if dry_run else 'Deleted'} {done.events:,} events, archived more than {days} days ago.",
        asdict(done) | {"older_than_days": days},
        dry_run=dry_run,
        json=json,
    )


def _tell(sentence: str, row: dict[str, Any], *, dry_run: bool, json: bool) -> None:
    if json:
        show([row | {"dry_run": dry_run}], as_json=True, empty="")
        return
    typer.echo(sentence)
    if dry_run:
        typer.echo("Nothing was changed: this was a dry run.")
