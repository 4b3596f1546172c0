"""Serves `/api/causes`: lists, describes and edits causes."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query
from pydantic import AfterValidator, Field

from dlq_pipelines.api.auth import Admin, Reader
from dlq_pipelines.api.filters import After, ChangeBody, Limit, validate_storable_text
from dlq_pipelines.api.session import ApiSettings, Outbox
from dlq_pipelines.causes.catalogue import (
    Cause,
    CauseChange,
    CauseDescription,
    CauseFilter,
    ProbeMode,
    describe_cause,
    list_causes,
    merge_causes,
    mute_cause,
    set_cause_probe,
    set_cause_text,
    split_cause,
    undo_change,
)
from dlq_pipelines.causes.explain import CauseExplanation, explain_cause
from dlq_pipelines.causes.recent import RecentDeaths, list_recent_causes
from dlq_pipelines.causes.search import build_cause_filter, search_causes
from dlq_pipelines.causes.similar import (
    MergeGroup,
    MergeProposal,
    find_similar_causes,
    find_similar_groups,
)
from dlq_pipelines.causes.states import ListedCauseState
from dlq_pipelines.day import parse_past_time
from dlq_pipelines.installation import build_hides_path, build_redact_errors
from dlq_pipelines.validate import BIGINT_MAX

router = APIRouter(prefix="/api/causes", tags=["causes"])
CauseId = Annotated[
    str,
    AfterValidator(validate_storable_text),
    Path(max_length=200, description="Id of the cause."),
]


class CauseChangeRequest(ChangeBody):
    """Why a cause is changed."""


class MergeBody(CauseChangeRequest):
    """The cause to merge into, and further causes that become part of it in the same change."""

    into: str = Field(max_length=200)
    also: list[Annotated[str, Field(max_length=200)]] = Field(default=[], max_length=1000)


class RenameBody(CauseChangeRequest):
    """The name; empty to remove it."""

    name: str


class OwnBody(CauseChangeRequest):
    """The owner; empty to remove it."""

    owner: str


class NoteBody(CauseChangeRequest):
    """The note; empty to remove it."""

    text: str


class MuteBody(CauseChangeRequest):
    """Number of days without alerts; 0 ends the mute."""

    days: int = Field(default=7, ge=0, le=365)


class ProbeBody(CauseChangeRequest):
    """Whether events are released as probes; `default` follows DLQ_PROBES."""

    mode: ProbeMode


class UndoBody(CauseChangeRequest):
    """The change to undo."""

    audit_id: int = Field(ge=1, le=BIGINT_MAX)


@dataclass(frozen=True)
class ShownCause(Cause):
    """A cause and its state: `muted` while it is muted, otherwise its status."""

    state_now: Annotated[str, Field(serialization_alias="state")]


@dataclass(frozen=True)
class CauseList:
    """Causes, those with most dead events first; `next` is the `after` of the next page, null on
    the last.
    """

    causes: list[ShownCause]
    count: int
    limit: int
    next: str | None


@dataclass(frozen=True)
class SimilarList:
    """Pairs of causes whose messages differ in one word, and groups of more than five of them."""

    pairs: list[MergeProposal]
    groups: list[MergeGroup]
    count: int


def build_listed_filter(
    outbox: Outbox,
    settings: ApiSettings,
    state: Annotated[
        ListedCauseState | None, Query(description="Only causes in this state.")
    ] = None,
    owner: Annotated[
        str | None, Query(max_length=200, description="Only causes of this owner, in any case.")
    ] = None,
    since: Annotated[
        str | None,
        Query(
            max_length=100,
            description="With the state new or rose: from this time until now: 2h, today or an "
            "ISO time. Default: 24h.",
        ),
    ] = None,
    event_type: Annotated[
        str | None,
        Query(max_length=1000, description="Only causes that events of this type died of."),
    ] = None,
) -> CauseFilter:
    """Build the filter of a list of causes; a dependency."""
    return build_cause_filter(
        outbox,
        state=state,
        owner=owner,
        since=since,
        event_type=event_type,
        now=datetime.now(UTC),
        zone=settings.zone,
    )


@router.get("")
def get_causes(
    _: Reader,
    outbox: Outbox,
    wanted: Annotated[CauseFilter, Depends(build_listed_filter)],
    text: Annotated[
        str | None,
        Query(max_length=1000, description="Only causes whose title contains it, in any case."),
    ] = None,
    limit: Limit = 50,
    after: After = None,
) -> CauseList:
    """List causes, those with most dead events first.

    A cause whose figures change between two pages can be missing. With `text` a page looks at 2,000
    causes at most, so it can be short although others follow.
    """
    page = search_causes(outbox, wanted, text=text or None, limit=limit, after=after)
    found = [ShownCause(**vars(cause), state_now=cause.state(wanted.now)) for cause in page.causes]
    return CauseList(found, len(found), limit, page.next)


@router.get("/recent")
def get_recent_causes(
    _: Reader,
    outbox: Outbox,
    settings: ApiSettings,
    since: Annotated[
        str,
        Query(max_length=100, description="From this time until now: 2h, today or an ISO time."),
    ] = "12h",
) -> RecentDeaths:
    """List causes with deaths since a time: new, regressed and rising ones first."""
    now = datetime.now(UTC)
    at = parse_past_time("since", since, settings.zone, now=now)
    return list_recent_causes(outbox, since=at, now=now, zone=settings.zone)


@router.get("/similar")
def get_similar_causes(_: Reader, outbox: Outbox) -> SimilarList:
    """Propose causes to merge, whose messages differ in one word. Nothing is merged by itself."""
    causes = list_causes(outbox, limit=1000)
    found = find_similar_causes(causes)
    return SimilarList(found, find_similar_groups(causes), len(found))


@router.post("/undo")
def post_undo(caller: Admin, body: UndoBody, outbox: Outbox) -> CauseChange:
    """Undo a change. It is refused if the cause was changed again since."""
    return undo_change(outbox, body.audit_id, **body.sign(caller))


@router.get("/{cause}/explanation")
def get_cause_explanation(
    _: Reader,
    cause: CauseId,
    outbox: Outbox,
    settings: ApiSettings,
    detail: Annotated[
        str | None, Query(max_length=1_000, description="Only events whose error names it.")
    ] = None,
) -> CauseExplanation:
    """Return what sets the dead events of a cause apart from delivered ones.

    Paths that DLQ_EXPORT_REDACT_PAYLOAD hides are left out.
    """
    return explain_cause(
        outbox, cause, detail=detail, zone=settings.zone, is_hidden=build_hides_path(settings)
    )


@router.get("/{cause}")
def get_cause(_: Reader, cause: CauseId, outbox: Outbox, settings: ApiSettings) -> CauseDescription:
    """Return a cause with its details, its changes and a sample.

    DLQ_EXPORT_REDACT_ERRORS applies to the sample.
    """
    return describe_cause(outbox, cause, redact=build_redact_errors(settings))


@router.post("/{cause}/merge")
def post_merge(caller: Admin, cause: CauseId, body: MergeBody, outbox: Outbox) -> CauseChange:
    """Merge a cause into another one. Its deaths keep their cause, so a split restores it."""
    return merge_causes(outbox, cause, into=body.into, also=body.also, **body.sign(caller))


@router.post("/{cause}/split")
def post_split(
    caller: Admin, cause: CauseId, body: CauseChangeRequest, outbox: Outbox
) -> CauseChange:
    """Split a merged cause from the other one."""
    return split_cause(outbox, cause, **body.sign(caller))


@router.post("/{cause}/rename")
def post_rename(caller: Admin, cause: CauseId, body: RenameBody, outbox: Outbox) -> CauseChange:
    """Name a cause."""
    return set_cause_text(outbox, cause, "name", body.name, **body.sign(caller))


@router.post("/{cause}/own")
def post_own(caller: Admin, cause: CauseId, body: OwnBody, outbox: Outbox) -> CauseChange:
    """Set the owner of a cause."""
    return set_cause_text(outbox, cause, "owner", body.owner, **body.sign(caller))


@router.post("/{cause}/note")
def post_note(caller: Admin, cause: CauseId, body: NoteBody, outbox: Outbox) -> CauseChange:
    """Set the note of a cause."""
    return set_cause_text(outbox, cause, "note", body.text, **body.sign(caller))


@router.post("/{cause}/mute")
def post_mute(caller: Admin, cause: CauseId, body: MuteBody, outbox: Outbox) -> CauseChange:
    """Mute the alerts of a cause for some days. Counts, reports and retries continue."""
    change = body.sign(caller)
    until = change["audit"].now + timedelta(days=body.days) if body.days else None
    return mute_cause(outbox, cause, until, **change)


@router.post("/{cause}/probe")
def post_probe(caller: Admin, cause: CauseId, body: ProbeBody, outbox: Outbox) -> CauseChange:
    """Switch the probes of a cause on or off, whatever DLQ_PROBES says."""
    return set_cause_probe(outbox, cause, body.mode, **body.sign(caller))
