"""`/api/fixes`: what was said to be mended, what came of it, and what waits for a person?"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query
from pydantic import Field

from dlq_pipelines.api.auth import Reader, Retrier
from dlq_pipelines.api.dead_events import ChangedMany, Rate, build_change_response, count_events
from dlq_pipelines.api.filters import Body, DryRun, Limit, Reason, SelectionBody, SelectionQuery
from dlq_pipelines.api.session import Outbox, Site
from dlq_pipelines.audit import RunOptions, run_after_permission
from dlq_pipelines.day import parse_time
from dlq_pipelines.installation import build_fix_terms, resolve_rate
from dlq_pipelines.outbox.batches import build_nothing_taken_error
from dlq_pipelines.retries.advance import pause_fix, resume_fix, withdraw_fix
from dlq_pipelines.retries.fix import Fix, RetryPolicy, StageOutcomes
from dlq_pipelines.retries.fixes import (
    FixFlag,
    FixPreview,
    flag_fix,
    get_fix_progress,
    get_max_retries,
    list_fixes,
    preview_fix,
    validate_note,
)
from dlq_pipelines.retries.parked import ParkedEvent, list_parked_events, release_parked
from dlq_pipelines.validate import BIGINT_MAX

router = APIRouter(prefix="/api/fixes", tags=["fixes"])
FixId = Annotated[int, Path(ge=1, le=BIGINT_MAX, description="The fix.")]
OfFix = Annotated[
    int | None,
    Field(ge=1, le=BIGINT_MAX, description="Only events that this fix released or targets."),
]
_FIGURES = tuple(RetryPolicy.__dataclass_fields__)


class Flagging(SelectionBody):
    """What is mended, and how carefully it is tried; figures left out are the installation's."""

    note: str = Field(
        min_length=1, max_length=10_000, description="What was mended, in a sentence."
    )
    link: str | None = Field(
        default=None, max_length=2_000, description="The version or the address of the change."
    )
    owner: str | None = Field(default=None, max_length=200, description="Whom to ask.")
    not_before: str | None = Field(
        default=None, description="When the first stage may begin; default: at once."
    )
    expiry_days: int | None = Field(
        default=None, ge=1, le=365, description="Days after which it ends unproven."
    )
    canary: int | None = Field(default=None, description="Events in the first stage.")
    growth: float | None = Field(default=None, description="How many times larger each stage is.")
    rate: Rate = None
    min_success: float | None = Field(
        default=None, description="Share of a stage that must succeed."
    )
    settle_seconds: int | None = Field(
        default=None, description="How long an event may stay without outcome."
    )
    max_retries: int | None = Field(
        default=None, description="After so many retries an event is parked."
    )
    order: Literal["aggregate", "none"] | None = Field(
        default=None, description="aggregate: events of an aggregate go one after the other."
    )
    dry_run: bool = Field(
        default=True, description="Only say what it would do. Flagged where this is false."
    )


class FixChangeRequest(Body):
    """Why a fix is changed."""

    reason: Reason
    dry_run: DryRun = False


class ParkedQuery(SelectionQuery):
    """Filters and a page."""

    fix: OfFix = None
    limit: int = Field(default=50, ge=1, le=1_000, description="How many at most.")
    after: int = Field(default=0, ge=0, le=BIGINT_MAX, description="Only events with a larger id.")


class ReleaseParked(SelectionBody):
    """Parked events of these ids, of a fix or of a filter."""

    reason: Reason
    fix: OfFix = None
    rate: Rate = None


@dataclass(frozen=True)
class Flagged:
    """What the fix would release, and, where it was no dry run, the fix."""

    dry_run: bool
    preview: FixPreview
    fix: Fix | None


@dataclass(frozen=True)
class FixList:
    """Fixes, the last flagged first; `next` is the `after` of the next page, null on the last."""

    fixes: list[Fix]
    count: int
    limit: int
    next: int | None


@dataclass(frozen=True)
class NumberedStage(StageOutcomes):
    """Outcomes of a stage."""

    stage: int = 0


@dataclass(frozen=True)
class FixProgressResponse:
    """A fix, its stages, and what it would do if it were looked at now; of one that has ended: its verdict."""

    fix: Fix
    stages: list[NumberedStage]
    next: str


@dataclass(frozen=True)
class ParkedPage:
    """Parked events in the order of their ids; `next` is the `after` of the next page, null on the last."""

    events: list[ParkedEvent]
    count: int
    limit: int
    next: int | None


@router.get("")
def list_(
    _: Reader,
    outbox: Outbox,
    limit: Limit = 50,
    open_: Annotated[
        bool, Query(alias="open", description="Only those that have not ended.")
    ] = False,
    after: Annotated[
        int | None, Query(ge=1, le=BIGINT_MAX, description="Only those flagged before this one.")
    ] = None,
) -> FixList:
    """Fixes, the last flagged first."""
    found = list_fixes(outbox, limit=limit, only_open=open_, after=after)
    return FixList(found, len(found), limit, found[-1].id if len(found) == limit else None)


@router.post("")
def flag(caller: Retrier, asked: Flagging, outbox: Outbox, site: Site) -> Flagged:
    """Say that something is mended upstream: what died of it so far is retried in stages, as long as they succeed.

    A preview by default; flagged with `"dry_run": false`.
    """
    audit, terms = caller.sign(validate_note(asked.note)), build_fix_terms(site)
    figures = {name: value for name in _FIGURES if (value := getattr(asked, name)) is not None}
    policy = replace(terms.policy, **figures)
    begins = (
        None if asked.not_before is None else parse_time("not_before", asked.not_before, site.zone)
    )
    expires = (begins or audit.now) + timedelta(days=asked.expiry_days or terms.expiry.days)
    flagging = FixFlag(
        asked.build_selection(site.zone), policy, asked.link, asked.owner, begins, expires
    )
    would = preview_fix(outbox, flagging, audit=audit, default=policy)
    if asked.dry_run:
        return Flagged(dry_run=True, preview=would, fix=None)
    if permit := asked.permit("release"):
        permit(would.events)
    return Flagged(
        dry_run=False,
        preview=would,
        fix=flag_fix(outbox, flagging, audit=audit),
    )


@router.get("/parked")
def parked(
    _: Reader, asked: Annotated[ParkedQuery, Query()], outbox: Outbox, site: Site
) -> ParkedPage:
    """Events that died again after so many retries that only a person releases them."""
    found = list_parked_events(
        outbox,
        max_retries=get_max_retries(outbox, asked.fix, default=site.max_retries),
        selection=asked.build_selection(site.zone),
        fix_id=asked.fix,
        after=asked.after,
        limit=asked.limit,
    )
    return ParkedPage(
        found, len(found), asked.limit, found[-1].event_id if len(found) == asked.limit else None
    )


@router.post("/release-parked")
def release(caller: Retrier, asked: ReleaseParked, outbox: Outbox, site: Site) -> ChangedMany:
    """Retry parked events: those of these ids, of a fix, or of a filter. Others are passed over."""
    selection = asked.build_selection(site.zone, default_all=asked.fix is not None)
    most, rate = (
        get_max_retries(outbox, asked.fix, default=site.max_retries),
        resolve_rate(asked.rate, site),
    )
    done = run_after_permission(
        lambda options: release_parked(
            outbox,
            selection,
            max_retries=most,
            fix_id=asked.fix,
            audit=caller.sign(asked.reason),
            options=options,
            rate=rate,
        ),
        RunOptions(dry_run=asked.dry_run),
        count=count_events,
        permit=asked.permit("retry"),
    )
    if asked.names_only and not done.events:
        raise build_nothing_taken_error(done, "parked")
    return build_change_response("Retried", done, asked)


@router.get("/{fix_id}")
def show(_: Reader, fix_id: FixId, outbox: Outbox, site: Site) -> FixProgressResponse:
    """All of a fix: what it means, its stages with their outcomes, and what comes next or why it ended."""
    found = get_fix_progress(outbox, fix_id, now=datetime.now(UTC), terms=build_fix_terms(site))
    stages = [NumberedStage(**vars(stage), stage=number) for number, stage in found.stages.items()]
    return FixProgressResponse(found.fix, stages, found.next)


@router.post("/{fix_id}/pause")
def pause(caller: Retrier, fix_id: FixId, asked: FixChangeRequest, outbox: Outbox) -> Fix:
    """Let nothing follow until the fix is resumed. What it has released stays with the worker."""
    return pause_fix(
        outbox, fix_id, audit=caller.sign(asked.reason), options=RunOptions(dry_run=asked.dry_run)
    )


@router.post("/{fix_id}/resume")
def resume(caller: Retrier, fix_id: FixId, asked: FixChangeRequest, outbox: Outbox) -> Fix:
    """Let a paused fix go on where it stopped."""
    return resume_fix(
        outbox, fix_id, audit=caller.sign(asked.reason), options=RunOptions(dry_run=asked.dry_run)
    )


@router.post("/{fix_id}/withdraw")
def withdraw(caller: Retrier, fix_id: FixId, asked: FixChangeRequest, outbox: Outbox) -> Fix:
    """End a fix whose claim is taken back. What it has released stays with the worker; nothing else follows."""
    return withdraw_fix(
        outbox, fix_id, audit=caller.sign(asked.reason), options=RunOptions(dry_run=asked.dry_run)
    )
