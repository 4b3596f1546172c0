"""Serves `/api/dead-events`: lists dead events, shows their history, exports, retries and discards
them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import Field

from dlq_pipelines.api.auth import Admin, Reader, Retrier
from dlq_pipelines.api.filters import (
    DEFAULT_REASON,
    Body,
    DryRun,
    Reason,
    SelectionBody,
    SelectionQuery,
)
from dlq_pipelines.api.session import ApiSettings, Outbox
from dlq_pipelines.api.stream import ExportResponse, export_stream
from dlq_pipelines.archive.archive import discard_events
from dlq_pipelines.audit import RunOptions, run_after_permission
from dlq_pipelines.installation import build_export_options, build_fix_terms, resolve_rate
from dlq_pipelines.outbox.batches import RetryResult, build_nothing_taken_error
from dlq_pipelines.outbox.dead_events import (
    MAX_PAGE_SIZE,
    DeadEvent,
    DeadEventStats,
    OtherEvent,
    StatsDimension,
    get_dead_event_stats,
    list_dead_events,
    list_other_events,
)
from dlq_pipelines.retries.fix import MAX_RATE, MIN_RATE, Fix
from dlq_pipelines.retries.history import (
    EventDeath,
    EventHistory,
    EventRetry,
    get_event_history,
)
from dlq_pipelines.retries.recall import RecallResult, recall_retries
from dlq_pipelines.retries.retry import retry_event, retry_selected, retry_within_lookahead
from dlq_pipelines.settings import ExportFormat
from dlq_pipelines.text import render_json
from dlq_pipelines.validate import EventId, parse_event_id

router = APIRouter(prefix="/api/dead-events", tags=["dead-events"])
EventIdPath = Annotated[str, Path(min_length=1, max_length=10_000, description="Id of the event.")]
Rate = Annotated[
    float | None,
    Field(
        ge=MIN_RATE,
        le=MAX_RATE,
        description="Events per second that fall due; default: DLQ_RETRY_RATE.",
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

    limit: int = Field(
        default=100, ge=1, le=MAX_PAGE_SIZE, description="Maximum number of results."
    )
    offset: int = Field(
        default=0, ge=0, le=2**31 - 1, description="Number of events to skip; `after` is faster."
    )
    after: str | None = Field(
        default=None, max_length=100, description="`next` of the previous page."
    )


class StatsQuery(SelectionQuery):
    """Filters and dimensions."""

    by: list[StatsDimension] = Field(
        default=list(StatsDimension),
        description="Dimensions to count by; repeatable. Causes take longest.",
    )


class ExportQuery(SelectionQuery):
    """Filters and a format."""

    format: Literal["jsonl", "json", "csv", "parquet"] = Field(
        default="jsonl", description="jsonl has one object per line; json is the same."
    )


class RetryOneBody(Body):
    """How one event is retried; all fields are optional."""

    reason: Reason = DEFAULT_REASON
    payload: str | None = Field(
        default=None,
        max_length=1_000_000,
        description="Replace the payload: as text, so that no number of JSON loses a digit. "
        "The ledger keeps the original. Requires DLQ_ALLOW_EDIT=true.",
    )
    dry_run: DryRun = False


class RetryManyBody(SelectionBody):
    """Dead events by their ids or by filters, and the rate at which they fall due."""

    reason: Reason = DEFAULT_REASON
    parked: bool = Field(
        default=False, description="Retry parked events too. Events named by id are always retried."
    )
    rate: Rate = None


class RecallBody(SelectionBody):
    """Events that people retried, by their ids or by filters, and the reason to recall them."""

    all: bool = Field(
        default=False, description="All events that people retried. Excludes filters."
    )
    reason: Reason


class DiscardBody(SelectionBody):
    """Dead events by their ids or by filters, and the reason to discard them."""

    reason: Reason


@dataclass(frozen=True)
class DeadEventPageResponse:
    """A page of dead events, the latest death first; `next` is the `after` of the next page, null
    on the last.
    """

    events: list[DeadEvent]
    count: int
    limit: int
    offset: int
    next: str | None


@dataclass(frozen=True)
class EventHistoryResponse:
    """An event that ever died: its row, and its deaths, retries and fix.

    `place` is where the event is: `outbox`, `archive`, `purged` (deleted from the archive by
    retention) or `gone` (in neither table); then the fields of its row are null. `payload_as_text`
    is true if the payload is no JSON: `payload` is then its text. Deaths and retries are at most
    the last hundred, the latest first.
    """

    id: EventId
    aggregate_type: str | None
    aggregate_id: str | None
    event_type: str | None
    payload: Any
    payload_as_text: bool
    status: str | None
    attempts: int | None
    next_run_at: datetime | None
    created_at: datetime | None
    last_error: str | None
    last_error_at: datetime | None
    dead_at: datetime | None
    place: str
    deaths: tuple[EventDeath, ...]
    retries: tuple[EventRetry, ...]
    fix: Fix | None

    @classmethod
    def build(cls, found: EventHistory) -> Self:
        """Build from the history of an event."""
        return cls(**found.to_record())


@dataclass(frozen=True)
class DeadEventStatsResponse(DeadEventStats):
    """Numbers of dead events, with the types that were filtered by."""

    aggregate_type: str | None = None
    event_type: str | None = None


@dataclass(frozen=True)
class RetryOneResponse:
    """The event is pending again; in a dry run, it would be."""

    status: Literal["success"]
    message: str
    event_id: EventId
    dry_run: bool


@dataclass(frozen=True)
class RecallResponse(RecallResult):
    """Events that are dead again, and released events that stay with the worker."""

    dry_run: bool


@dataclass(frozen=True)
class ChangeResponse:
    """Numbers of events of a change; of a dry run, of a real run.

    `requested` is the number of ids, if ids were given. `locked` is the number of events that were
    skipped: locked by other transactions, or died after the count. `parked` is the number of parked
    events that a retry skipped, and `others` has the named events that it skipped, and what they
    are instead of dead.
    """

    status: Literal["success"]
    message: str
    requested: int
    processed: int
    locked: int
    dry_run: bool
    parked: int = 0
    others: list[OtherEvent] = field(default_factory=list)


@router.get("", response_model=DeadEventPageResponse)
def get_dead_events(
    _: Reader, query: Annotated[ListQuery, Query()], outbox: Outbox, settings: ApiSettings
) -> Response:
    """List dead events, the latest death first.

    Long payloads and errors are cut and marked; `GET /api/dead-events/{event_id}` returns them
    whole.
    """
    page = list_dead_events(
        outbox,
        query.build_selection(settings.zone),
        limit=query.limit,
        offset=query.offset,
        after=query.after,
    )
    return _json(
        DeadEventPageResponse(
            list(page.events), len(page.events), query.limit, query.offset, page.next
        )
    )


@router.get("/stats")
def get_stats(
    _: Reader, query: Annotated[StatsQuery, Query()], outbox: Outbox, settings: ApiSettings
) -> DeadEventStatsResponse:
    """Count dead events by type, cause and age, exactly."""
    selection = query.build_selection(settings.zone)
    found = get_dead_event_stats(outbox, selection, now=datetime.now(UTC), by=query.by)
    return DeadEventStatsResponse(
        **vars(found), aggregate_type=selection.aggregate_type, event_type=selection.event_type
    )


@router.get("/export", response_class=StreamingResponse, responses={200: _FILE})
def get_export(
    _: Reader, query: Annotated[ExportQuery, Query()], request: Request, settings: ApiSettings
) -> ExportResponse:
    """Export deaths as a file with the columns and the redaction of the daily export.

    The connection breaks if the file is incomplete.
    """
    format_ = ExportFormat("jsonl" if query.format == "json" else query.format)
    chunks = export_stream(
        request.app.state,
        query.build_selection(settings.zone),
        format=format_,
        redaction=build_export_options(settings).redaction,
    )
    headers = {"Content-Disposition": f'attachment; filename="dead-events.{format_}"'}
    return ExportResponse(chunks, media_type=_MEDIA[format_], headers=headers)


@router.get("/{event_id}", response_model=EventHistoryResponse)
def get_event(_: Reader, event_id: EventIdPath, outbox: Outbox) -> Response:
    """Return an event that ever died, with its deaths, retries and fix."""
    found = get_event_history(outbox, parse_event_id(event_id))
    return _json(EventHistoryResponse.build(found))


@router.post("/{event_id}/retry")
def post_retry(
    caller: Retrier,
    event_id: EventIdPath,
    outbox: Outbox,
    settings: ApiSettings,
    body: RetryOneBody | None = None,
) -> RetryOneResponse:
    """Retry a dead event, due now. A parked event is retried too."""
    body = body or RetryOneBody()
    audit = caller.sign(body.reason)
    retry_event(
        outbox,
        parse_event_id(event_id),
        audit=audit,
        options=RunOptions(dry_run=body.dry_run),
        payload=body.payload,
        allow_edit=settings.allow_edit,
    )
    message = f"Event {event_id} {'would be' if body.dry_run else 'is'} pending again."
    return RetryOneResponse("success", message, parse_event_id(event_id), body.dry_run)


@router.post("/retry-batch")
def post_retry_batch(
    caller: Retrier, body: RetryManyBody, outbox: Outbox, settings: ApiSettings
) -> ChangeResponse:
    """Retry dead events at a rate, without the verification of a fix.

    Events that are not dead are skipped, with the reason. All must fall due within
    DLQ_LOOKAHEAD_SECONDS.
    """
    selection = body.build_selection(settings.zone)
    most = None if body.parked or body.event_ids else settings.max_retries
    rate = resolve_rate(body.rate, settings)
    return change_events(
        lambda options: retry_within_lookahead(
            lambda options: retry_selected(
                outbox,
                selection,
                audit=caller.sign(body.reason),
                options=options,
                rate=rate,
                max_retries=most,
            ),
            options,
            rate=rate,
            lookahead=build_fix_terms(settings).lookahead,
        ),
        body,
        verb="retry",
        done="Retried",
        others=list_other_events(outbox, selection.event_ids or ()),
    )


@router.post("/recall")
def post_recall(
    caller: Retrier, body: RecallBody, outbox: Outbox, settings: ApiSettings
) -> RecallResponse:
    """Recall events that people retried and no worker has taken: they are dead again.

    `POST /api/fixes/{fix_id}/pause` recalls what a fix released.
    """
    done = recall_retries(
        outbox,
        body.build_selection(settings.zone),
        audit=caller.sign(body.reason),
        options=RunOptions(dry_run=body.dry_run),
    )
    return RecallResponse(**vars(done), dry_run=body.dry_run)


@router.post("/discard")
def post_discard(
    caller: Admin, body: DiscardBody, outbox: Outbox, settings: ApiSettings
) -> ChangeResponse:
    """Discard dead events: archive them at once with a reason. Only their ids restore them."""
    selection = body.build_selection(settings.zone)
    return change_events(
        lambda options: discard_events(
            outbox, selection, audit=caller.sign(body.reason), options=options
        ),
        body,
        verb="discard",
        done="Discarded",
        others=list_other_events(outbox, selection.event_ids or ()),
    )


def _json(found: DeadEventPageResponse | EventHistoryResponse) -> Response:
    """Return JSON with payloads as they are stored: parsing them can lose digits or fail."""
    return Response(render_json(found), media_type="application/json")


def change_events(
    change: Callable[[RunOptions], RetryResult],
    body: SelectionBody,
    *,
    verb: str,
    done: str,
    kind: str = "dead",
    others: Sequence[OtherEvent] = (),
) -> ChangeResponse:
    """Change many events, at most `body.at_most`, and return the response.

    Args:
        change: makes the change, or counts it in a dry run.
        body: of the request.
        verb: names the change, such as "retry".
        done: its past participle, such as "Retried".
        kind: the kind of events, for the error that none was changed.
        others: those of the named events that are not dead.

    Raises:
        NotFoundError: none of the named events could be changed, as for a single event: a success
            with 0 events would hide wrong ids.
        RefusedError: the events are more than `body.at_most`.
    """
    result = run_after_permission(
        change,
        RunOptions(dry_run=body.dry_run),
        count=lambda result: result.events,
        permit=body.permit(verb),
    )
    if body.names_only and not result.events:
        raise build_nothing_taken_error(result, kind, others)
    message = f"{'Would be ' + done.lower() if body.dry_run else done}: {result.events:,} events."
    if result.locked:
        message += (
            f" Skipped: {result.locked:,}, locked by other transactions or died after the count."
        )
    if result.parked:
        message += f" Skipped: {result.parked:,} parked; `parked: true` includes them."
    if others:
        message += f" Skipped: {len(others):,} that are not dead."
    return ChangeResponse(
        status="success",
        message=message,
        requested=len(set(body.event_ids)) if body.event_ids else result.events,
        processed=result.events,
        locked=result.locked,
        dry_run=body.dry_run,
        parked=result.parked,
        others=list(others),
    )
