"""Serves `/api/fixes`: flags, lists and steers fixes, and releases parked events."""

from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query
from pydantic import Field

from dlq_pipelines.api.auth import Reader, Retrier
from dlq_pipelines.api.dead_events import ChangeResponse, Rate, RecallResponse, change_events
from dlq_pipelines.api.filters import ChangeBody, Limit, Reason, SelectionBody, SelectionQuery
from dlq_pipelines.api.session import ApiSettings, Outbox
from dlq_pipelines.installation import build_fix_terms, resolve_rate
from dlq_pipelines.outbox.dead_events import list_other_events
from dlq_pipelines.retries.advance import pause_fix, resume_fix, withdraw_fix
from dlq_pipelines.retries.fix import Fix, StageOutcomes, StoppedFix
from dlq_pipelines.retries.fixes import (
    FixPreview,
    FlagInput,
    build_flag,
    flag_fix,
    get_fix_progress,
    get_max_retries,
    list_fixes,
    preview_fix,
    validate_note,
)
from dlq_pipelines.retries.parked import ParkedEvent, list_parked_events, release_parked
from dlq_pipelines.retries.recall import recall_fix
from dlq_pipelines.retries.retry import retry_within_lookahead
from dlq_pipelines.retries.timeline import FixTimeline, read_fix_timeline
from dlq_pipelines.validate import BIGINT_MAX

router = APIRouter(prefix="/api/fixes", tags=["fixes"])
FixId = Annotated[int, Path(ge=1, le=BIGINT_MAX, description="Id of the fix.")]
OfFix = Annotated[
    int | None,
    Field(ge=1, le=BIGINT_MAX, description="Events that this fix released or targets."),
]


class FlagFixBody(SelectionBody):
    """What is resolved, and how carefully the fix is verified.

    Omitted figures are those of the installation.
    """

    note: str = Field(
        min_length=1, max_length=10_000, description="What was resolved, in one sentence."
    )
    link: str | None = Field(
        default=None, max_length=2_000, description="Version or URL of the change."
    )
    owner: str | None = Field(
        default=None, max_length=200, description="The person or team to ask."
    )
    deployment: int | None = Field(
        default=None,
        ge=1,
        le=BIGINT_MAX,
        description="Id of the deployment that carries the fix.",
    )
    not_before: str | None = Field(
        default=None, description="Earliest time of the first stage; default: now."
    )
    expiry_days: int | None = Field(
        default=None, ge=1, le=365, description="Days until the fix expires."
    )
    canary: int | None = Field(default=None, description="Events of the first stage.")
    growth: float | None = Field(default=None, description="Factor by which each stage grows.")
    rate: Rate = None
    min_success: float | None = Field(
        default=None, description="Share of a stage that must be delivered."
    )
    settle_seconds: int | None = Field(
        default=None, description="Seconds to wait for an outcome after the due time."
    )
    max_retries: int | None = Field(
        default=None, description="Number of retries after which an event is parked."
    )
    order: Literal["aggregate", "none"] | None = Field(
        default=None,
        description="aggregate: release the events of an aggregate one after the other.",
    )
    dry_run: bool = Field(default=True, description="Return a preview; false flags the fix.")


class FixChangeRequest(ChangeBody):
    """Why a fix is changed."""


class ParkedQuery(SelectionQuery):
    """Filters and a page."""

    fix: OfFix = None
    limit: int = Field(default=50, ge=1, le=1_000, description="Maximum number of results.")
    after: int = Field(default=0, ge=0, le=BIGINT_MAX, description="`next` of the previous page.")


class ReleaseParkedBody(SelectionBody):
    """Parked events by their ids, by a fix or by filters."""

    all: bool = Field(default=False, description="All parked events. Excludes filters.")
    reason: Reason
    fix: OfFix = None
    rate: Rate = None


@dataclass(frozen=True)
class FlagFixResponse:
    """What the fix would release, and the fix unless this was a dry run."""

    dry_run: bool
    preview: FixPreview
    fix: Fix | None


@dataclass(frozen=True)
class FixList:
    """Fixes, the latest first; `next` is the `after` of the next page, null on the last."""

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
    """A fix, its stages, and its next step; of a fix that has ended, its verdict."""

    fix: Fix
    stages: list[NumberedStage]
    next: str


@dataclass(frozen=True)
class ParkedPage:
    """Parked events in the order of their ids; `next` is the `after` of the next page, null on the
    last.
    """

    events: list[ParkedEvent]
    count: int
    limit: int
    next: int | None


@router.get("")
def get_fixes(
    _: Reader,
    outbox: Outbox,
    limit: Limit = 50,
    open_: Annotated[bool, Query(alias="open", description="Open fixes only.")] = False,
    after: Annotated[
        int | None, Query(ge=1, le=BIGINT_MAX, description="`next` of the previous page.")
    ] = None,
) -> FixList:
    """List fixes, the latest first."""
    found = list_fixes(outbox, limit=limit, only_open=open_, after=after)
    return FixList(found, len(found), limit, found[-1].id if len(found) == limit else None)


@router.post("")
def post_fix(
    caller: Retrier, body: FlagFixBody, outbox: Outbox, settings: ApiSettings
) -> FlagFixResponse:
    """Flag a fix: dead events of its cause are retried in stages while they succeed.

    A dry run by default; pass `"dry_run": false` to flag the fix.
    """
    audit, terms = caller.sign(validate_note(body.note)), build_fix_terms(settings)
    flag = build_flag(
        body.build_selection(settings.zone),
        FlagInput(**body.model_dump(include={item.name for item in fields(FlagInput)})),
        terms=terms,
        zone=settings.zone,
        now=audit.now,
    )
    would = preview_fix(outbox, flag, audit=audit, default=terms.policy)
    if body.dry_run:
        return FlagFixResponse(dry_run=True, preview=would, fix=None)
    if permit := body.permit("release"):
        permit(would.events)
    return FlagFixResponse(
        dry_run=False,
        preview=would,
        fix=flag_fix(outbox, flag, audit=audit),
    )


@router.get("/parked")
def get_parked(
    _: Reader, query: Annotated[ParkedQuery, Query()], outbox: Outbox, settings: ApiSettings
) -> ParkedPage:
    """List parked events, which only a person releases."""
    found = list_parked_events(
        outbox,
        max_retries=get_max_retries(outbox, query.fix, default=settings.max_retries),
        selection=query.build_selection(settings.zone),
        fix_id=query.fix,
        after=query.after,
        limit=query.limit,
    )
    return ParkedPage(
        found, len(found), query.limit, found[-1].death_id if len(found) == query.limit else None
    )


@router.post("/release-parked")
def post_release_parked(
    caller: Retrier, body: ReleaseParkedBody, outbox: Outbox, settings: ApiSettings
) -> ChangeResponse:
    """Retry parked events by their ids, by a fix or by filters.

    Events that are not parked are skipped, with the reason if they are not dead.
    """
    selection = body.build_selection(settings.zone, default_all=body.fix is not None)
    most = get_max_retries(outbox, body.fix, default=settings.max_retries)
    rate = resolve_rate(body.rate, settings)
    return change_events(
        lambda options: retry_within_lookahead(
            lambda options: release_parked(
                outbox,
                selection,
                max_retries=most,
                fix_id=body.fix,
                audit=caller.sign(body.reason),
                options=options,
                rate=rate,
            ),
            options,
            rate=rate,
            lookahead=build_fix_terms(settings).lookahead,
        ),
        body,
        verb="retry",
        done="Retried",
        others=list_other_events(outbox, selection.event_ids or ()),
        kind="parked",
    )


@router.get("/{fix_id}")
def get_fix(_: Reader, fix_id: FixId, outbox: Outbox, settings: ApiSettings) -> FixProgressResponse:
    """Return a fix, its stages with their outcomes, and its next step or its verdict."""
    found = get_fix_progress(outbox, fix_id, now=datetime.now(UTC), terms=build_fix_terms(settings))
    stages = [NumberedStage(**vars(stage), stage=number) for number, stage in found.stages.items()]
    return FixProgressResponse(found.fix, stages, found.next)


@router.get("/{fix_id}/timeline")
def get_timeline(_: Reader, fix_id: FixId, outbox: Outbox) -> FixTimeline:
    """Return what a fix released and what became of it over time, in equal intervals.

    It ends with the last event that fell due, or the last outcome.
    """
    return read_fix_timeline(outbox, fix_id, until=datetime.now(UTC))


@router.post("/{fix_id}/pause")
def post_pause(
    caller: Retrier, fix_id: FixId, body: FixChangeRequest, outbox: Outbox
) -> StoppedFix:
    """Pause a fix: no further event is released. What no worker has taken is recalled."""
    return pause_fix(outbox, fix_id, **body.sign(caller))


@router.post("/{fix_id}/resume")
def post_resume(caller: Retrier, fix_id: FixId, body: FixChangeRequest, outbox: Outbox) -> Fix:
    """Resume a paused fix where it stopped."""
    return resume_fix(outbox, fix_id, **body.sign(caller))


@router.post("/{fix_id}/withdraw")
def post_withdraw(
    caller: Retrier, fix_id: FixId, body: FixChangeRequest, outbox: Outbox
) -> StoppedFix:
    """Withdraw a fix: no further event is released. What no worker has taken is recalled."""
    return withdraw_fix(outbox, fix_id, **body.sign(caller))


@router.post("/{fix_id}/recall")
def post_fix_recall(
    caller: Retrier, fix_id: FixId, body: FixChangeRequest, outbox: Outbox
) -> RecallResponse:
    """Recall released events of a fix that is paused or has ended.

    Pause, withdraw and a halt do this by themselves; this completes what was interrupted.
    """
    done = recall_fix(outbox, fix_id, **body.sign(caller))
    return RecallResponse(**vars(done), dry_run=body.dry_run)
