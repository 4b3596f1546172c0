"""Serves `/api/erase`: erases payloads and errors of events."""

from dataclasses import dataclass

from fastapi import APIRouter
from pydantic import Field

from dlq_pipelines.api.auth import Admin
from dlq_pipelines.api.filters import AtMost, DryRun, GivenEventId, Reason
from dlq_pipelines.api.session import ApiSettings, Outbox
from dlq_pipelines.audit import RunOptions
from dlq_pipelines.erase import MAX_EVENTS, ErasureResult, erase_events, list_erasable_events
from dlq_pipelines.installation import build_erasure_terms
from dlq_pipelines.validate import parse_event_id

router = APIRouter(prefix="/api/erase", tags=["erase"])


class EraseBody(AtMost):
    """Events by their ids or by a text, and the reason to erase them."""

    event_ids: list[GivenEventId] | None = Field(
        default=None, min_length=1, max_length=MAX_EVENTS, description="These events."
    )
    text: str | None = Field(
        default=None,
        max_length=1_000,
        description="Every event whose payload or error contains this text, case-sensitive, of at "
        "least 4 characters.",
    )
    reason: Reason
    dry_run: DryRun = False


@dataclass(frozen=True)
class ErasureResponse(ErasureResult):
    """Result of the erasure; of a dry run, what a real run would erase."""

    dry_run: bool = False


@router.post("")
def post_erase(
    caller: Admin, body: EraseBody, outbox: Outbox, settings: ApiSettings
) -> ErasureResponse:
    """Erase payloads and errors of events from outbox, archive, ledger, fixes and alerts.

    Dead events are discarded. Events that a worker still needs keep their payload. `files` still
    have the data until their days are exported and reported again.
    """
    given = [parse_event_id(str(id_)) for id_ in body.event_ids or ()]
    ids = list_erasable_events(outbox, given, body.text)
    permit = body.permit("erase")
    if body.text is not None and not body.dry_run and permit is not None:
        permit(len(ids))
    done = erase_events(
        outbox,
        ids,
        terms=build_erasure_terms(settings),
        audit=caller.sign(body.reason),
        text=body.text,
        options=RunOptions(dry_run=body.dry_run),
    )
    return ErasureResponse(**vars(done), dry_run=body.dry_run)
