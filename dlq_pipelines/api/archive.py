"""`/api/archive`: what leaves the hot table, what comes back, and what is deleted for good?"""

from dataclasses import dataclass
from datetime import timedelta

from fastapi import APIRouter
from pydantic import Field

from dlq_pipelines.api.auth import Admin, Retrier
from dlq_pipelines.api.filters import AtMost, DryRun, Reason, SelectionBody
from dlq_pipelines.api.session import Outbox, Site
from dlq_pipelines.archive.archive import ArchiveResult, archive_dead_events
from dlq_pipelines.archive.purge import PurgeResult, purge_archive
from dlq_pipelines.archive.restore import (
    RestoreResult,
    build_nothing_restored_error,
    restore_events,
)
from dlq_pipelines.audit import RunOptions, run_after_permission
from dlq_pipelines.errors import RefusedError

router = APIRouter(prefix="/api/archive", tags=["archive"])


class ByRetention(AtMost):
    """What is past its retention."""

    reason: Reason
    dry_run: DryRun = False


class Run(ByRetention):
    """Which dead events are old enough."""

    older_than_days: int | None = Field(
        default=None,
        ge=0,
        le=36_500,
        description="Days since death; default: DLQ_DEAD_RETENTION_DAYS.",
    )


class Restore(SelectionBody):
    """Archived dead events of these ids or of a filter."""

    reason: Reason


@dataclass(frozen=True)
class ArchivedOlder(ArchiveResult):
    """What was archived; in a dry run, would be."""

    older_than_days: int
    dry_run: bool


@dataclass(frozen=True)
class PurgedOlder(PurgeResult):
    """What was deleted; in a dry run, would be."""

    older_than_days: int
    dry_run: bool


@dataclass(frozen=True)
class RestoredEvents(RestoreResult):
    """What came back; in a dry run, would."""

    dry_run: bool


@router.post("/run")
def run(caller: Admin, asked: Run, outbox: Outbox, site: Site) -> ArchivedOlder:
    """Move dead events past their retention to the archive: of exported days, and not what an open fix targets."""
    audit = caller.sign(asked.reason)
    days = site.dead_retention_days if asked.older_than_days is None else asked.older_than_days
    before, exported = audit.now - timedelta(days=days), site.archive_requires_export
    done = run_after_permission(
        lambda options: archive_dead_events(
            outbox, before=before, only_exported=exported, audit=audit, options=options
        ),
        RunOptions(dry_run=asked.dry_run),
        count=lambda done: done.moved,
        permit=asked.permit("archive"),
    )
    return ArchivedOlder(**vars(done), older_than_days=days, dry_run=asked.dry_run)


@router.post("/restore")
def restore(caller: Retrier, asked: Restore, outbox: Outbox, site: Site) -> RestoredEvents:
    """Bring archived dead events back as dead, so that a fix can target them. Discarded ones only by their ids."""
    selection = asked.build_selection(site.zone)
    done = run_after_permission(
        lambda options: restore_events(
            outbox, selection, audit=caller.sign(asked.reason), options=options
        ),
        RunOptions(dry_run=asked.dry_run),
        count=lambda done: done.events,
        permit=asked.permit("restore"),
    )
    if asked.names_only and not done.events:
        raise build_nothing_restored_error(done)
    return RestoredEvents(**vars(done), dry_run=asked.dry_run)


@router.post("/purge")
def purge(caller: Admin, asked: ByRetention, outbox: Outbox, site: Site) -> PurgedOlder:
    """Delete archived dead events past DLQ_ARCHIVE_RETENTION_DAYS for good. Which they were stays known."""
    days = site.archive_retention_days
    if not days:
        raise RefusedError(
            "DLQ_ARCHIVE_RETENTION_DAYS is 0, so nothing is ever purged. Nothing was changed."
        )
    audit = caller.sign(asked.reason)
    done = run_after_permission(
        lambda options: purge_archive(
            outbox, before=audit.now - timedelta(days=days), audit=audit, options=options
        ),
        RunOptions(dry_run=asked.dry_run),
        count=lambda done: done.events,
        permit=asked.permit("delete"),
    )
    return PurgedOlder(**vars(done), older_than_days=days, dry_run=asked.dry_run)
