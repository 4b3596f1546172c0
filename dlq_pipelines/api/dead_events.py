"""`/api/dead-events`: which events are dead, what became of one, and how does a program bring them back?"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import Field

from dlq_pipelines.api.auth import Admin, Reader, Retrier
from dlq_pipelines.api.filters import (
    OF_NO_REASON,
    Body,
    DryRun,
    Reason,
    SelectionBody,
    SelectionQuery,
)
from dlq_pipelines.api.session import Outbox, Site
from dlq_pipelines.api.stream import ExportResponse, export_stream
from dlq_pipelines.archive.archive import discard_events
from dlq_pipelines.audit import RunOptions, run_after_permission
from dlq_pipelines.installation import build_export_options, resolve_rate
from dlq_pipelines.outbox.batches import RetryResult, build_nothing_taken_error
from dlq_pipelines.outbox.dead_events import (
    MAX_PAGE_SIZE,
    DeadEvent,
    DeadEventStats,
    StatsDimension,
    get_dead_event_stats,
    list_dead_events,
)
from dlq_pipelines.retries.history import EventHistory, get_event_history
from dlq_pipelines.retries.retry import retry_event, retry_selected
from dlq_pipelines.settings import ExportFormat
from dlq_pipelines.text import render_json
from dlq_pipelines.validate import BIGINT_MAX

router = APIRouter(prefix="/api/dead-events", tags=["dead-events"])
EventIdPath = Annotated[int, Path(ge=1, le=BIGINT_MAX, description="The event.")]
Rate = Annotated[
    float | None,
    Field(
        gt=0, le=100_000, description="Events a second that fall due; default: the installation's."
    ),
]
_MEDIA = {
    ExportFormat.JSONL: "application/x-ndjson",
    ExportFormat.CSV: "text/csv; charset=utf-8",
    ExportFormat.PARQUET: "application/vnd.apache.parquet",
}
_FILE: dict[str, Any] = {
    "description": "The file.",
    "content": {
        kind.partition(";")[0]: {"schema": {"type": "string", "format": "binary"}}
        for kind in _MEDIA.values()
    },
}


class ListQuery(SelectionQuery):
    """Filters and a page."""

    limit: int = Field(default=100, ge=1, le=MAX_PAGE_SIZE, description="How many at most.")
    offset: int = Field(
        default=0, ge=0, le=2**31 - 1, description="How many to leave out; `after` is faster."
    )
    after: str | None = Field(
        default=None, max_length=100, description="`next` of the page before."
    )


class StatsQuery(SelectionQuery):
    """Filters, and what to count by."""

    by: list[StatsDimension] = Field(
        default=list(StatsDimension),
        description="What to count by; may be said several times. By cause takes longest.",
    )


class ExportQuery(SelectionQuery):
    """Filters and a format."""

    format: Literal["jsonl", "json", "csv", "parquet"] = Field(
        default="jsonl", description="jsonl is an object a line, and json the same."
    )


class RetryOne(Body):
    """How one event is retried. All of it may be left out."""

    reason: Reason = OF_NO_REASON
    payload: str | None = Field(
        default=None,
        max_length=1_000_000,
        description="Retry it with this payload instead: JSON in a text, so that no number loses a digit on its way. "
        "The original is kept. Needs DLQ_ALLOW_EDIT=true.",
    )
    dry_run: DryRun = False


class RetryMany(SelectionBody):
    """Dead events of these ids or of a filter, and at which pace they fall due."""

    reason: Reason = OF_NO_REASON
    parked: bool = Field(
        default=False, description="Also parked ones. Those named by id are taken either way."
    )
    rate: Rate = None


class Discard(SelectionBody):
    """Dead events of these ids or of a filter, and why they are given up."""

    reason: Reason


@dataclass(frozen=True)
class DeadEventPageResponse:
    """A page of dead events, the latest death first; `next` is the `after` of the next one, null on the last."""

    events: list[DeadEvent]
    count: int
    limit: int
    offset: int
    next: str | None


@dataclass(frozen=True)
class DeadEventStatsResponse(DeadEventStats):
    """How many are dead, and the types that were asked for."""

    aggregate_type: str | None = None
    event_type: str | None = None


@dataclass(frozen=True)
class RetriedOne:
    """The event is pending again; in a dry run, it could be."""

    status: Literal["success"]
    message: str
    event_id: int
    dry_run: bool


@dataclass(frozen=True)
class ChangedMany:
    """How many events were meant, and how many of them were changed; in a dry run, would be.

    `requested` counts the ids, where ids were given; `locked` those that were passed over: others hold them, or they
    died after the count.
    """

    status: Literal["success"]
    message: str
    requested: int
    processed: int
    locked: int
    dry_run: bool


@router.get("", response_model=DeadEventPageResponse)
def list_(_: Reader, asked: Annotated[ListQuery, Query()], outbox: Outbox, site: Site) -> Response:
    """Dead events, the latest death first. Long payloads and errors are cut and say so; one event is shown whole."""
    page = list_dead_events(
        outbox,
        asked.build_selection(site.zone),
        limit=asked.limit,
        offset=asked.offset,
        after=asked.after,
    )
    return _json(
        DeadEventPageResponse(
            list(page.events), len(page.events), asked.limit, asked.offset, page.next
        )
    )


@router.get("/stats")
def stats(
    _: Reader, asked: Annotated[StatsQuery, Query()], outbox: Outbox, site: Site
) -> DeadEventStatsResponse:
    """How many events are dead, by type, cause and age: counted, not estimated."""
    selection = asked.build_selection(site.zone)
    found = get_dead_event_stats(outbox, selection, now=datetime.now(UTC), by=asked.by)
    return DeadEventStatsResponse(
        **vars(found), aggregate_type=selection.aggregate_type, event_type=selection.event_type
    )


@router.get("/export", response_class=StreamingResponse, responses={200: _FILE})
def export(
    _: Reader, asked: Annotated[ExportQuery, Query()], request: Request, site: Site
) -> ExportResponse:
    """Deaths as a file with the columns of the daily export, redacted as that is. Broken off where it is not whole."""
    format_ = ExportFormat("jsonl" if asked.format == "json" else asked.format)
    chunks = export_stream(
        request.app.state,
        asked.build_selection(site.zone),
        format=format_,
        redaction=build_export_options(site).redaction,
    )
    headers = {"Content-Disposition": f'attachment; filename="dead-events.{format_}"'}
    return ExportResponse(chunks, media_type=_MEDIA[format_], headers=headers)


@router.get("/{event_id}", response_model=EventHistory)
def show(_: Reader, event_id: EventIdPath, outbox: Outbox) -> Response:
    """An event that died, also one that was retried or archived since: its deaths, retries, fix and payload."""
    return _json(get_event_history(outbox, event_id))


@router.post("/{event_id}/retry")
def retry(
    caller: Retrier,
    event_id: EventIdPath,
    outbox: Outbox,
    site: Site,
    asked: RetryOne | None = None,
) -> RetriedOne:
    """Make a dead event pending again, due now, also a parked one."""
    how = asked or RetryOne()
    audit = caller.sign(how.reason)
    retry_event(
        outbox,
        event_id,
        audit=audit,
        options=RunOptions(dry_run=how.dry_run),
        payload=how.payload,
        allow_edit=site.allow_edit,
    )
    said = f"Event {event_id} {'would be' if how.dry_run else 'is'} pending again."
    return RetriedOne("success", said, event_id, how.dry_run)


@router.post("/retry-batch")
def retry_batch(caller: Retrier, asked: RetryMany, outbox: Outbox, site: Site) -> ChangedMany:
    """Retry dead events of these ids or of a filter, paced, without the proof that a fix gives. Others are left."""
    selection = asked.build_selection(site.zone)
    most = None if asked.parked or asked.event_ids else site.max_retries
    rate = resolve_rate(asked.rate, site)
    done = run_after_permission(
        lambda options: retry_selected(
            outbox,
            selection,
            audit=caller.sign(asked.reason),
            options=options,
            rate=rate,
            max_retries=most,
        ),
        RunOptions(dry_run=asked.dry_run),
        count=count_events,
        permit=asked.permit("retry"),
    )
    if asked.names_only and not done.events:
        raise build_nothing_taken_error(done, "dead")
    return build_change_response("Retried", done, asked)


@router.post("/discard")
def discard(caller: Admin, asked: Discard, outbox: Outbox, site: Site) -> ChangedMany:
    """Give dead events up: they go to the archive at once with the reason, and no filter brings them back."""
    selection = asked.build_selection(site.zone)
    done = run_after_permission(
        lambda options: discard_events(
            outbox, selection, audit=caller.sign(asked.reason), options=options
        ),
        RunOptions(dry_run=asked.dry_run),
        count=count_events,
        permit=asked.permit("discard"),
    )
    if asked.names_only and not done.events:
        raise build_nothing_taken_error(done, "dead")
    return build_change_response("Discarded", done, asked)


def _json(found: DeadEventPageResponse | EventHistory) -> Response:
    """The answer with payloads as they are stored: read and written again they would lose digits, or fail."""
    return Response(render_json(found), media_type="application/json")


def count_events(done: RetryResult) -> int:
    """How many a result is of."""
    return done.events


def build_change_response(did: str, done: RetryResult, asked: SelectionBody) -> ChangedMany:
    """What a program learns of a change of many."""
    said = (
        f"{done.events:,} events are meant." if asked.dry_run else f"{did} {done.events:,} events."
    )
    requested = len(set(asked.event_ids)) if asked.event_ids else done.events
    if done.locked:
        said += (
            f" Passed over: {done.locked:,} more, which others hold, or which died after the count."
        )
    return ChangedMany("success", said, requested, done.events, done.locked, asked.dry_run)
