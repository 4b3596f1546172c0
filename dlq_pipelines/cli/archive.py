"""`dlq archive`: what leaves the hot table, what comes back, and what is deleted for good?"""

from dataclasses import asdict
from datetime import timedelta
from typing import Annotated

import typer

from dlq_pipelines.cli.act import Actor, DryRun, Reason, Yes, act, do_many, tell
from dlq_pipelines.cli.filters import EventIds, Filters, filtered
from dlq_pipelines.cli.output import Format, formatted
from dlq_pipelines.cli.retrying import passed_over
from dlq_pipelines.cli.session import session
from dlq_pipelines.errors import RefusedError
from dlq_pipelines.text import counted

app = typer.Typer(help="The archive of dead events.", no_args_is_help=True)
Retention = Annotated[str, typer.Option("--reason", help="Why, for whoever asks later.")]


@app.callback()
def archive() -> None:
    """The archive of dead events."""


@app.command()
@formatted
def run(
    actor: Actor,
    reason: Retention = "retention",
    older_than_days: Annotated[
        int | None, typer.Option(min=0, max=36500, help="Days since death. Default: DLQ_DEAD_RETENTION_DAYS.")
    ] = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    format: Format = Format.TABLE,
) -> None:
    """Move dead events past their retention to the archive table: of exported days, and not what an open fix targets.

    Example: `dlq archive run --dry-run`
    """
    from dlq_pipelines.archive.archive import archive_dead_events

    doing = act(actor, reason, dry_run=dry_run)
    with session() as (connection, settings):
        days = settings.dead_retention_days if older_than_days is None else older_than_days
        before, exported = doing.now - timedelta(days=days), settings.archive_requires_export
        done = do_many(
            lambda act: archive_dead_events(connection, before=before, only_exported=exported, act=act),
            doing,
            verb="archive",
            events=lambda done: done.moved,
            yes=yes,
        )
    did = "Would archive" if dry_run else "Archived"
    tell(
        f"{did} {counted(done.moved, 'dead event')} that died more than {counted(days, 'day')} ago; "
        f"{done.left:,} as old stay, because a fix targets them, or their day is not exported.",
        asdict(done) | {"older_than_days": days},
        dry_run=dry_run,
        format=format,
    )


@app.command()
@formatted
@filtered
def restore(
    filters: Filters,
    reason: Reason,
    actor: Actor,
    ids: EventIds = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    format: Format = Format.TABLE,
) -> None:
    """Bring archived dead events back as dead, so that a fix can target them. Discarded ones only by their ids.

    Example: `dlq archive restore --cause v1-3f9a0c6d2b7e4a51 --reason "mended after all" --dry-run`
    """
    from dlq_pipelines.archive.restore import none_restored, restore_events

    with session() as (connection, settings):
        selector = filters.selector(settings.zone, ids)
        done = do_many(
            lambda act: restore_events(connection, selector, act=act),
            act(actor, reason, dry_run=dry_run),
            verb="restore",
            events=lambda done: done.events,
            yes=yes,
            missing=none_restored if filters.names_only(ids) else None,
        )
    did = "Would restore" if dry_run else "Restored"
    tell(
        f"{did} {counted(done.events, 'dead event')}; {done.blocked:,} stay because the outbox has their id, "
        f"{done.discarded:,} because they were discarded. {passed_over(done)}".rstrip(),
        asdict(done),
        dry_run=dry_run,
        format=format,
    )


@app.command()
@formatted
def purge(
    actor: Actor,
    reason: Retention = "retention",
    dry_run: DryRun = False,
    yes: Yes = False,
    format: Format = Format.TABLE,
) -> None:
    """Delete archived dead events past DLQ_ARCHIVE_RETENTION_DAYS for good. Which they were stays known.

    Example: `dlq archive purge --dry-run`
    """
    from dlq_pipelines.archive.purge import purge_archive

    doing = act(actor, reason, dry_run=dry_run)
    with session() as (connection, settings):
        days = settings.archive_retention_days
        if not days:
            raise RefusedError("DLQ_ARCHIVE_RETENTION_DAYS is 0, so nothing is ever purged. Nothing was changed.")
        done = do_many(
            lambda act: purge_archive(connection, before=doing.now - timedelta(days=days), act=act),
            doing,
            verb="delete",
            events=lambda done: done.events,
            yes=yes,
        )
    did = "Would delete" if dry_run else "Deleted"
    tell(
        f"{did} {counted(done.events, 'event')}, archived more than {counted(days, 'day')} ago.",
        asdict(done) | {"older_than_days": days},
        dry_run=dry_run,
        format=format,
    )
