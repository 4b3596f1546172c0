"""Which fixes are there, what would one release, what became of what they released, and which want a step now?"""

import json
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta, tzinfo
from typing import Any

import psycopg
from psycopg.rows import DictRow

from dlq_pipelines.audit import MAX_REASON_LENGTH, AuditContext, RunOptions
from dlq_pipelines.day import parse_time
from dlq_pipelines.errors import NotFoundError, RefusedError
from dlq_pipelines.outbox.selection import Selection, build_selection_parameters
from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.retries.fix import (
    CloseStep,
    Fix,
    FixStatus,
    FixTerms,
    ReleaseStep,
    RetryOrder,
    RetryPolicy,
    StageOutcomes,
    WaitStep,
    decide_next_step,
)
from dlq_pipelines.validate import (
    validate_aware,
    validate_not_blank,
    validate_positive,
    validate_storable,
)

_LONGEST_LINK, _LONGEST_OWNER = 2_000, 200
_SHOWN_STAGES = 20
# What a person waits for a figure that is good to know.
_PATIENCE = "5s"


@dataclass(frozen=True)
class FixFlag:
    """What somebody says to be mended; the note on it is the act's reason.

    Attributes:
        selection: the dead events that it targets.
        policy: how carefully it is tried; None: as the installation decides at its first step.
        link: the version or the address of the change.
        owner: whom to ask.
        not_before: when the first stage may begin; None: at once.
        expires_at: when the fix ends unproven; None: as the installation decides at its first step.

    Raises:
        ValueError: a text is blank or cannot be stored, or a moment has no time zone.
    """

    selection: Selection
    policy: RetryPolicy | None = None
    link: str | None = None
    owner: str | None = None
    not_before: datetime | None = None
    expires_at: datetime | None = None

    def __post_init__(self) -> None:
        for name, text, most in (
            ("link", self.link, _LONGEST_LINK),
            ("owner", self.owner, _LONGEST_OWNER),
        ):
            if text is not None:
                validate_storable(name, validate_not_blank(name, text), most=most)
        validate_aware("not_before", self.not_before)
        validate_aware("expires_at", self.expires_at)


def build_flag(
    selection: Selection,
    *,
    terms: FixTerms,
    zone: tzinfo,
    now: datetime,
    link: str | None = None,
    owner: str | None = None,
    not_before: str | None = None,
    expiry_days: int | None = None,
    canary: int | None = None,
    growth: float | None = None,
    rate: float | None = None,
    min_success: float | None = None,
    settle_seconds: int | None = None,
    max_retries: int | None = None,
    order: RetryOrder | None = None,
) -> FixFlag:
    """Build the flag of a fix from the values that a face was given; None: not given.

    Args:
        selection: the dead events that the fix targets.
        terms: the installation's values, which apply where a value is not given.
        zone: the time zone of `not_before`, if the text names none.
        now: the time of the flag, from which it expires if `not_before` is not given.
        expiry_days: 1 to 365.

    For the other arguments see `FixFlag` and `RetryPolicy`.

    Raises:
        ValueError: a value is invalid; the message names the argument.
    """
    own = terms.policy
    policy = RetryPolicy(
        canary=own.canary if canary is None else canary,
        growth=own.growth if growth is None else growth,
        rate=own.rate if rate is None else rate,
        min_success=own.min_success if min_success is None else min_success,
        settle_seconds=own.settle_seconds if settle_seconds is None else settle_seconds,
        max_retries=own.max_retries if max_retries is None else max_retries,
        order=own.order if order is None else order,
    )
    expiry = terms.expiry
    if expiry_days is not None:
        expiry = timedelta(days=validate_positive("expiry_days", expiry_days, most=365))
    start = None if not_before is None else parse_time("not_before", not_before, zone)
    return FixFlag(selection, policy, link, owner, start, (start or now) + expiry)


@dataclass(frozen=True)
class FixPreview:
    """What a fix would release.

    Attributes:
        events: dead events that it means.
        aggregates: how many aggregates they belong to.
        parked: of the events, those that it passes over because they were retried too often.
        overtaken: of the events, those that a newer event of their aggregate in the outbox table has passed; None:
            not known, because the table has no index by aggregate and is too large to count in five seconds.
        stages: how many events each stage would release if all succeed.
        seconds: how long the releases take at the policy's rate, without waiting for outcomes.
    """

    events: int
    aggregates: int
    parked: int
    overtaken: int | None
    stages: list[int]
    seconds: float

    @property
    def sizes(self) -> str:
        """The stages in words; of very many the first twenty, and how many more there are."""
        more = len(self.stages) - _SHOWN_STAGES
        said = (
            ", ".join(f"{size:,}" for size in self.stages[:_SHOWN_STAGES])
            or "none, as all are parked"
        )
        return f"{said} and {more:,} more stages" if more > 0 else said


@dataclass(frozen=True)
class FixProgress:
    """How far a fix has come.

    Attributes:
        stages: outcomes of each stage that was begun, by its number.
        next: what it would do if it were looked at now; of a fix that has ended: its verdict.
    """

    fix: Fix
    stages: dict[int, StageOutcomes]
    next: str


def validate_note(note: str) -> str:
    """The note of a fix, which becomes the reason of the act that flags it.

    Raises:
        ValueError: it is blank, too long, or cannot be stored; the message names it as people were asked for it.
    """
    return validate_storable("note", validate_not_blank("note", note), most=MAX_REASON_LENGTH)


def flag_fix(
    connection: Connection,
    flag: FixFlag,
    *,
    audit: AuditContext,
    options: RunOptions = RunOptions(),
) -> Fix:
    """State that something is mended upstream. Targets what died of it before `audit.now`; `audit.reason` is the note.

    A dry run returns the fix as it would be.

    Raises:
        NotFoundError: no such cause.
        RefusedError: an open fix targets some of the same events, the cause is merged, or nothing dead is meant.
        ValueError: it would expire before it begins.
    """
    given = {
        **flag.selection.to_columns(),
        **(asdict(flag.policy) if flag.policy else {}),
        "link": flag.link,
        "owner": flag.owner,
        "not_before": flag.not_before,
        "expires_at": flag.expires_at,
        "note": audit.reason,
        "flagged_by": audit.actor,
        "flagged_at": audit.now,
    }
    with connection.transaction(force_rollback=options.dry_run):
        try:
            fix_id = connection.fetch_one(
                "fix.place", fix=json.dumps(given, default=str), run_id=audit.run_id
            )["id"]
        except psycopg.errors.NoDataFound as error:
            raise NotFoundError(*_read_message(error)) from None
        except psycopg.errors.RaiseException as error:
            raise RefusedError(*_read_message(error)) from None
        except psycopg.errors.InvalidParameterValue as error:
            raise ValueError(" ".join(_read_message(error))) from None
        return get_fix(connection, fix_id)


def preview_fix(
    connection: Connection,
    flag: FixFlag,
    *,
    audit: AuditContext,
    default: RetryPolicy,
) -> FixPreview:
    """What flagging this fix would do. It is flagged and rolled back first, so it refuses what `flag_fix` does.

    What is counted after that may take seconds, and is counted without a lock.

    Args:
        connection: in autocommit mode.
        flag: the fix.
        audit: who asks.
        default: the installation's policy, for a flag without one.
    """
    policy = flag.policy or default
    flag_fix(connection, flag, audit=audit, options=RunOptions(dry_run=True))
    where = build_selection_parameters(connection, flag.selection, before=audit.now)
    counted = connection.fetch_one("fix.preview", max_retries=policy.max_retries, **where)
    free = counted["events"] - counted["parked"]
    return FixPreview(
        **counted,
        overtaken=_overtaken(connection, where),
        stages=policy.sizes(free),
        seconds=free / policy.rate,
    )


def get_fix(connection: Connection, fix_id: int) -> Fix:
    """The fix of that id.

    Raises:
        NotFoundError: there is none.
    """
    row = connection.run("fix.get", fix_id=validate_positive("fix_id", fix_id)).fetchone()
    if row is None:
        raise NotFoundError(f"There is no fix {fix_id}. `dlq fixes list` lists them.")
    return build_fix(row)


def get_max_retries(connection: Connection, fix_id: int | None, *, default: int) -> int:
    """After how many retries an event is parked: as the fix says, where one is meant and says it.

    Raises:
        NotFoundError: there is no such fix.
    """
    policy = get_fix(connection, fix_id).policy if fix_id is not None else None
    return policy.max_retries if policy else default


def list_fixes(
    connection: Connection, *, limit: int = 100, only_open: bool = False, after: int | None = None
) -> list[Fix]:
    """Fixes, the last flagged first.

    Args:
        connection: to the ledger.
        limit: how many at most, 1 to 1,000.
        only_open: those that have not ended.
        after: only those flagged before this one: the last one of the page before.
    """
    asked = {
        "limit": validate_positive("limit", limit, most=1000),
        "after": after and validate_positive("after", after),
    }
    return [build_fix(row) for row in connection.run("fix.list", **asked, only_open=only_open)]


def list_due_fixes(
    connection: Connection, *, now: datetime, max_backlog: timedelta, limit: int = 20
) -> list[Fix]:
    """Open fixes for which there is something to do, those that were not looked at for longest first.

    While the worker is congested, a fix without anything outstanding is not among them: it would begin a stage.
    """
    congested = describe_congestion(connection, now=now, max_backlog=max_backlog) is not None
    return [
        build_fix(row)
        for row in connection.run("fix.due", now=now, limit=limit, congested=congested)
    ]


def describe_congestion(
    connection: Connection, *, now: datetime, max_backlog: timedelta
) -> str | None:
    """Why no stage should begin now: the worker is behind by more than that. None if it is not."""
    seconds = connection.fetch_one("fix.backlog", now=now)["seconds"]
    if seconds is None or seconds <= max_backlog.total_seconds():
        return None
    return f"the worker is {seconds:.0f} s behind, at most {max_backlog.total_seconds():.0f} s are allowed"


def get_stage_outcomes(connection: Connection, fix_id: int) -> dict[int, StageOutcomes]:
    """Outcomes of each stage of the fix, by its number."""
    return {
        row["stage"]: StageOutcomes(
            size=row["size"],
            released=row["released"],
            delivered=row["outcomes"].get("delivered", 0),
            died_again=row["outcomes"].get("died_again", 0),
            timed_out=row["outcomes"].get("timed_out", 0),
            deleted=row["outcomes"].get("deleted", 0),
        )
        for row in connection.run("fix.stages", fix_id=fix_id)
    }


def get_fix_progress(
    connection: Connection, fix_id: int, *, now: datetime, terms: FixTerms
) -> FixProgress:
    """How far the fix has come, and what it waits for. Reads only, so outcomes not settled yet are not in it.

    Raises:
        NotFoundError: there is no such fix.
    """
    fix, outcomes = get_fix(connection, fix_id), get_stage_outcomes(connection, fix_id)
    if fix.closed_at is not None:
        return FixProgress(fix, outcomes, fix.verdict or "")
    policy, stage = fix.policy or terms.policy, outcomes.get(fix.stage, StageOutcomes())
    congested = describe_congestion(connection, now=now, max_backlog=terms.max_backlog)
    match decide_next_step(fix, policy, stage, now=now, left=None, congested=congested):
        case WaitStep(reason):
            return FixProgress(fix, outcomes, f"waits: {reason}")
        case CloseStep(status, verdict):
            return FixProgress(fix, outcomes, f"will be {status}: {verdict}")
        case ReleaseStep(number, _):
            room = policy.size(number) - (stage.released if number == fix.stage else 0)
            return FixProgress(
                fix,
                outcomes,
                f"releases up to {room:,} events in stage {number}, or ends if none is left",
            )


def build_fix(row: DictRow) -> Fix:
    """Build a fix from a row of `dlq.fix`."""
    policy = None
    if row["canary"] is not None:
        policy = RetryPolicy(
            canary=row["canary"],
            growth=row["growth"],
            rate=row["rate"],
            min_success=row["min_success"],
            settle_seconds=row["settle_seconds"],
            max_retries=row["max_retries"],
            order=row["order"],
        )
    return Fix(
        id=row["id"],
        selection=Selection(
            cause=row["cause_id"],
            event_type=row["event_type"],
            aggregate_type=row["aggregate_type"],
            error_contains=row["error_contains"],
            attempts=row["attempts"],
            since=row["since"],
            until=row["until"],
            event_ids=None if row["event_ids"] is None else tuple(row["event_ids"]),
            all=row["all"],
        ),
        note=row["note"],
        link=row["link"],
        owner=row["owner"],
        flagged_by=row["flagged_by"],
        flagged_at=row["flagged_at"],
        not_before=row["not_before"],
        expires_at=row["expires_at"],
        policy=policy,
        stage=row["stage"],
        status=FixStatus(row["status"]),
        verdict=row["verdict"],
        evidence=tuple(row["evidence"]),
        closed_at=row["closed_at"],
    )


def _read_message(error: psycopg.Error) -> tuple[str, str]:
    """Return message and hint of an error that `dlq.place_fix` raised."""
    return error.diag.message_primary or "", error.diag.message_hint or ""


def _overtaken(connection: Connection, where: dict[str, Any]) -> int | None:
    try:
        with connection.transaction():
            connection.run("session.hurry", timeout=_PATIENCE)
            return int(connection.fetch_one("fix.overtaken", **where)["events"])
    except psycopg.errors.QueryCanceled:
        return None
