"""Serves `/api/archive`: archives, restores and purges dead events."""

from dataclasses import dataclass
from datetime import timedelta

from fastapi import APIRouter
from pydantic import Field

from dlq_pipelines.api.auth import Admin, Retrier
from dlq_pipelines.api.filters import AtMost, DryRun, Reason, SelectionBody
from dlq_pipelines.api.session import ApiSettings, Outbox
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


class PurgeBody(AtMost):
    """Why events past the retention are purged."""

    reason: Reason
    dry_run: DryRun = False


class ArchiveBody(PurgeBody):
    """Which dead events are old enough."""

    older_than_days: int | None = Field(
        default=None,
        ge=0,
        le=36_500,
        description="Days since death; default: DLQ_DEAD_RETENTION_DAYS.",
    )


class RestoreBody(SelectionBody):
    """Archived events by their ids or by filters."""

    all: bool = Field(default=False, description="All archived events. Excludes filters.")
    reason: Reason


@dataclass(frozen=True)
class ArchiveResponse(ArchiveResult):
    """Result of the archive run; of a dry run, what a real run would do."""

    older_than_days: int
    dry_run: bool


@dataclass(frozen=True)
class PurgeResponse(PurgeResult):
    """Result of the purge; of a dry run, what a real run would do."""

    older_than_days: int
    dry_run: bool


@dataclass(frozen=True)
class RestoreResponse(RestoreResult):
    """Result of the restore; of a dry run, what a real run would do."""

    dry_run: bool = False


@router.post("/run")
def post_run(
    caller: Admin, body: ArchiveBody, outbox: Outbox, settings: ApiSettings
) -> ArchiveResponse:
    """Archive dead events past the retention whose day is exported and that no open fix targets."""
    audit = caller.sign(body.reason)
    days = settings.dead_retention_days if body.older_than_days is None else body.older_than_days
    before, exported = audit.now - timedelta(days=days), settings.archive_requires_export
    done = run_after_permission(
        lambda options: archive_dead_events(
            outbox, before=before, only_exported=exported, audit=audit, options=options
        ),
        RunOptions(dry_run=body.dry_run),
        count=lambda done: done.moved,
        permit=body.permit("archive"),
    )
    return ArchiveResponse(**vars(done), older_than_days=days, dry_run=body.dry_run)


@router.post("/restore")
def post_restore(
    caller: Retrier, body: RestoreBody, outbox: Outbox, settings: ApiSettings
) -> RestoreResponse:
    """Restore archived events as dead, so that a fix can target them.

    Discarded events are restored by their ids only.
    """
    selection = body.build_selection(settings.zone)
    done = run_after_permission(
        lambda options: restore_events(
            outbox, selection, audit=caller.sign(body.reason), options=options
        ),
        RunOptions(dry_run=body.dry_run),
        count=lambda done: done.events,
        permit=body.permit("restore"),
    )
    if body.names_only and not done.events:
        raise build_nothing_restored_error(done)
    return RestoreResponse(**vars(done), dry_run=body.dry_run)


@router.post("/purge")
def post_purge(
    caller: Admin, body: PurgeBody, outbox: Outbox, settings: ApiSettings
) -> PurgeResponse:
    """Delete archived events past DLQ_ARCHIVE_RETENTION_DAYS. Their ids stay recorded."""
    days = settings.archive_retention_days
    if not days:
        raise RefusedError(
            "DLQ_ARCHIVE_RETENTION_DAYS is 0, which disables the purge. Nothing was changed."
        )
    audit = caller.sign(body.reason)
    done = run_after_permission(
        lambda options: purge_archive(
            outbox, before=audit.now - timedelta(days=days), audit=audit, options=options
        ),
        RunOptions(dry_run=body.dry_run),
        count=lambda done: done.events,
        permit=body.permit("delete"),
    )
    return PurgeResponse(**vars(done), older_than_days=days, dry_run=body.dry_run)
