"""`/api/causes`: why do events die, and what do people say of it?"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import AfterValidator, Field

from dlq_pipelines.api.auth import Admin, Caller, Reader
from dlq_pipelines.api.filters import After, Body, DryRun, Limit, Reason, validate_storable_text
from dlq_pipelines.api.session import Outbox
from dlq_pipelines.audit import RunOptions
from dlq_pipelines.causes.catalogue import (
    Cause,
    CauseChange,
    CauseDescription,
    CauseTextColumn,
    describe_cause,
    list_causes,
    merge_causes,
    mute_cause,
    set_cause_text,
    split_cause,
    undo_change,
)
from dlq_pipelines.causes.similar import MergeProposal, find_similar_causes
from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.validate import BIGINT_MAX

router = APIRouter(prefix="/api/causes", tags=["causes"])
CauseId = Annotated[
    str, AfterValidator(validate_storable_text), Path(max_length=200, description="The cause.")
]


class CauseChangeRequest(Body):
    """Why a cause is changed."""

    reason: Reason
    dry_run: DryRun = False


class Merge(CauseChangeRequest):
    """The cause that it is shown as from now on."""

    into: str = Field(max_length=200)


class Rename(CauseChangeRequest):
    """What people call it; empty: its message again."""

    name: str


class Own(CauseChangeRequest):
    """Who looks after it; empty: nobody."""

    owner: str


class Note(CauseChangeRequest):
    """What is known of it; empty: nothing."""

    text: str


class Mute(CauseChangeRequest):
    """For how many days nobody is told of it; 0 ends it."""

    days: int = Field(default=7, ge=0, le=365)


class Undo(CauseChangeRequest):
    """The number of the change to take back."""

    audit_id: int = Field(ge=1, le=BIGINT_MAX)


@dataclass(frozen=True)
class ShownCause(Cause):
    """A cause, and its state: `muted` while it is, otherwise its status."""

    state_now: Annotated[str, Field(serialization_alias="state")]


@dataclass(frozen=True)
class CauseList:
    """Causes, those with most dead events now first; `next` is the `after` of the next page, null on the last."""

    causes: list[ShownCause]
    count: int
    limit: int
    next: str | None


@dataclass(frozen=True)
class SimilarList:
    """Pairs of causes whose messages are equal but for one word."""

    pairs: list[MergeProposal]
    count: int


@router.get("")
def list_(_: Reader, outbox: Outbox, limit: Limit = 50, after: After = None) -> CauseList:
    """Causes, those with most dead events now first. One whose figures change between two pages may be missed."""
    now, causes = datetime.now(UTC), list_causes(outbox, limit=limit, after=after)
    found = [ShownCause(**vars(cause), state_now=cause.state(now)) for cause in causes]
    return CauseList(found, len(found), limit, causes[-1].cursor if len(causes) == limit else None)


@router.get("/similar")
def similar(_: Reader, outbox: Outbox) -> SimilarList:
    """Pairs of causes to merge: their messages are equal but for one word. Nothing is merged by itself."""
    found = find_similar_causes(list_causes(outbox, limit=1000))
    return SimilarList(list(found), len(found))


@router.post("/undo")
def undo_(caller: Admin, asked: Undo, outbox: Outbox) -> CauseChange:
    """Take a change back. Refused when its cause was changed again since."""
    return undo_change(
        outbox,
        asked.audit_id,
        audit=caller.sign(asked.reason),
        options=RunOptions(dry_run=asked.dry_run),
    )


@router.get("/{cause}")
def show(_: Reader, cause: CauseId, outbox: Outbox) -> CauseDescription:
    """All of a cause: what it is, what people say of it, its details, its changes and a sample."""
    return describe_cause(outbox, cause)


@router.post("/{cause}/merge")
def merge(caller: Admin, cause: CauseId, asked: Merge, outbox: Outbox) -> CauseChange:
    """Show a cause as another one. Its deaths keep it, so a split gives all of it back."""
    return merge_causes(
        outbox,
        cause,
        into=asked.into,
        audit=caller.sign(asked.reason),
        options=RunOptions(dry_run=asked.dry_run),
    )


@router.post("/{cause}/split")
def split(caller: Admin, cause: CauseId, asked: CauseChangeRequest, outbox: Outbox) -> CauseChange:
    """Show a merged cause on its own again."""
    return split_cause(
        outbox, cause, audit=caller.sign(asked.reason), options=RunOptions(dry_run=asked.dry_run)
    )


@router.post("/{cause}/rename")
def rename(caller: Admin, cause: CauseId, asked: Rename, outbox: Outbox) -> CauseChange:
    """Give a cause a name."""
    return _say(outbox, cause, "name", asked.name, asked, caller)


@router.post("/{cause}/own")
def own(caller: Admin, cause: CauseId, asked: Own, outbox: Outbox) -> CauseChange:
    """Say who looks after a cause."""
    return _say(outbox, cause, "owner", asked.owner, asked, caller)


@router.post("/{cause}/note")
def note(caller: Admin, cause: CauseId, asked: Note, outbox: Outbox) -> CauseChange:
    """Write a note on a cause."""
    return _say(outbox, cause, "note", asked.text, asked, caller)


@router.post("/{cause}/mute")
def mute(caller: Admin, cause: CauseId, asked: Mute, outbox: Outbox) -> CauseChange:
    """Tell nobody of a cause for some days. It is still counted, reported and retried."""
    audit = caller.sign(asked.reason)
    return mute_cause(
        outbox,
        cause,
        audit.now + timedelta(days=asked.days) if asked.days else None,
        audit=audit,
        options=RunOptions(dry_run=asked.dry_run),
    )


def _say(
    outbox: Connection,
    cause: str,
    column: CauseTextColumn,
    text: str,
    asked: CauseChangeRequest,
    caller: Caller,
) -> CauseChange:
    return set_cause_text(
        outbox,
        cause,
        column,
        text,
        audit=caller.sign(asked.reason),
        options=RunOptions(dry_run=asked.dry_run),
    )
