"""`dlq archive`: move dead events to the archive, restore them, delete them by retention."""

from dataclasses import asdict
from datetime import timedelta
from functools import partial
from typing import Annotated

import typer

from dlq_pipelines.cli.filters import EventIds, GivenFilters, build_selection, with_filters
from dlq_pipelines.cli.mutation import (
    REASON_HELP,
    Actor,
    DryRun,
    Reason,
    Yes,
    apply_to_many,
    prepare_change,
    print_change,
)
from dlq_pipelines.cli.output import OutputFormat, with_output_format
from dlq_pipelines.cli.retrying import describe_skipped
from dlq_pipelines.cli.session import open_session
from dlq_pipelines.errors import RefusedError
from dlq_pipelines.text import format_count

app = typer.Typer(
    name="archive",
    help="The archive of dead events.\n\nExample: `dlq archive run --dry-run`",
    no_args_is_help=True,
)
RetentionReason = Annotated[str, typer.Option("--reason", help=REASON_HELP)]


@app.command("run")
@with_output_format
def archive_dead_events_command(
    actor: Actor,
    reason: RetentionReason = "retention",
    older_than_days: Annotated[
        int | None,
        typer.Option(
            min=0, max=36500, help="Minimum days since death. Default: DLQ_DEAD_RETENTION_DAYS."
        ),
    ] = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    format: OutputFormat = OutputFormat.TABLE,
) -> None:
    """Move dead events past their retention to the archive.

    Events that an open fix targets stay, and events of days that are not exported.

    Example: `dlq archive run --dry-run`
    """
    from dlq_pipelines.archive.archive import archive_dead_events

    audit, options = prepare_change(actor, reason, dry_run=dry_run)
    with open_session() as (connection, settings):
        days = settings.dead_retention_days if older_than_days is None else older_than_days
        before, exported = audit.now - timedelta(days=days), settings.archive_requires_export
        done = apply_to_many(
            lambda options: archive_dead_events(
                connection, before=before, only_exported=exported, audit=audit, options=options
            ),
            options,
            verb="archive",
            count=lambda done: done.moved,
            yes=yes,
        )
    did = "Would archive" if dry_run else "Archived"
    print_change(
        f"{did} {format_count(done.moved, 'dead event')} that died more than "
        f"{format_count(days, 'day')} ago.{_describe_left(done.left, dry_run=dry_run)}",
        asdict(done) | {"older_than_days": days},
        dry_run=dry_run,
        format=format,
    )


def _describe_left(left: int, *, dry_run: bool) -> str:
    if not left:
        return ""
    stay = "would stay" if dry_run else "stay" if left > 1 else "stays"
    return (
        f" {format_count(left, 'event')} as old {stay}, for one of these reasons: an open fix"
        " targets it, its day is not exported, or a row of the application refers to it."
    )


@app.command("restore")
@with_output_format
@partial(with_filters, everything="All archived events")
def restore_events_command(
    filters: GivenFilters,
    reason: Reason,
    actor: Actor,
    ids: EventIds = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    format: OutputFormat = OutputFormat.TABLE,
) -> None:
    """Restore archived events to the outbox as dead.

    A fix can target them again. Discarded events are restored only by their ids, erased ones never.

    Example: `dlq archive restore --cause v2-3f9a0c6d2b7e4a51 --reason "fixed late" --dry-run`
    """
    from dlq_pipelines.archive.restore import build_nothing_restored_error, restore_events

    audit, options = prepare_change(actor, reason, dry_run=dry_run)
    with open_session() as (connection, settings):
        selection = build_selection(connection, filters, settings, ids)
        done = apply_to_many(
            lambda options: restore_events(connection, selection, audit=audit, options=options),
            options,
            verb="restore",
            count=lambda done: done.events,
            yes=yes,
            missing=build_nothing_restored_error if selection.names_only else None,
        )
    did = "Would restore" if dry_run else "Restored"
    print_change(
        f"{did} {format_count(done.events, 'dead event')}; {done.blocked:,} stay because the "
        f"outbox has their id, {done.discarded:,} because they were discarded, {done.erased:,} "
        "because they were erased. "
        f"{describe_skipped(done)}".rstrip(),
        asdict(done),
        dry_run=dry_run,
        format=format,
    )


@app.command("purge")
@with_output_format
def purge_archive_command(
    actor: Actor,
    reason: RetentionReason = "retention",
    dry_run: DryRun = False,
    yes: Yes = False,
    format: OutputFormat = OutputFormat.TABLE,
) -> None:
    """Delete archived events past their retention for good.

    The retention is DLQ_ARCHIVE_RETENTION_DAYS. The ids of deleted events stay known.

    Example: `dlq archive purge --dry-run`
    """
    from dlq_pipelines.archive.purge import purge_archive

    audit, options = prepare_change(actor, reason, dry_run=dry_run)
    with open_session() as (connection, settings):
        days = settings.archive_retention_days
        if not days:
            raise RefusedError(
                "DLQ_ARCHIVE_RETENTION_DAYS is 0, so nothing is ever purged. Nothing was changed.",
                "Set it to the days that archived events are kept.",
            )
        done = apply_to_many(
            lambda options: purge_archive(
                connection, before=audit.now - timedelta(days=days), audit=audit, options=options
            ),
            options,
            verb="delete",
            count=lambda done: done.events,
            yes=yes,
        )
    did = "Would delete" if dry_run else "Deleted"
    print_change(
        f"{did} {format_count(done.events, 'event')} that were archived more than "
        f"{format_count(days, 'day')} ago.",
        asdict(done) | {"older_than_days": days},
        dry_run=dry_run,
        format=format,
    )
