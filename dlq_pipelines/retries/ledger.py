"""Which fixes are there, what would one release, what became of what they released, and which want a step now?"""

import json
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import psycopg
from psycopg.rows import DictRow

from dlq_pipelines.causes.catalogue import merged_cause, unknown_cause
from dlq_pipelines.errors import NotFoundError, RefusedError
from dlq_pipelines.operation import LONGEST_REASON, Act
from dlq_pipelines.outbox.event import Selector, aware, positive, required, storable
from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.retries.fix import Close, Fix, FixStatus, Release, RetryPolicy, Stage, Terms, Wait, next_step

_LONGEST_LINK, _LONGEST_OWNER = 2_000, 200
_SHOWN_STAGES = 20
# What a person waits for a figure that is good to know.
_PATIENCE = "5s"


@dataclass(frozen=True)
class Flag:
    """What somebody says to be mended; the note on it is the act's reason.

    Attributes:
        selector: the dead events that it targets.
        policy: how carefully it is tried; None: as the installation decides at its first step.
        link: the version or the address of the change.
        owner: whom to ask.
        not_before: when the first stage may begin; None: at once.
        expires_at: when the fix ends unproven; None: as the installation decides at its first step.

    Raises:
        ValueError: a text is blank or cannot be stored, or a moment has no time zone.
    """

    selector: Selector
    policy: RetryPolicy | None = None
    link: str | None = None
    owner: str | None = None
    not_before: datetime | None = None
    expires_at: datetime | None = None

    def __post_init__(self) -> None:
        for name, most in (("link", _LONGEST_LINK), ("owner", _LONGEST_OWNER)):
            if (text := getattr(self, name)) is not None:
                storable(name, required(name, text), most=most)
        aware("not_before", self.not_before)
        aware("expires_at", self.expires_at)


@dataclass(frozen=True)
class Preview:
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
        said = ", ".join(f"{size:,}" for size in self.stages[:_SHOWN_STAGES]) or "none, as all are parked"
        return f"{said} and {more:,} more stages" if more > 0 else said


@dataclass(frozen=True)
class Progress:
    """How far a fix has come.

    Attributes:
        stages: outcomes of each stage that was begun, by its number.
        next: what it would do if it were looked at now; of a fix that has ended: its verdict.
    """

    fix: Fix
    stages: dict[int, Stage]
    next: str


def noted(note: str) -> str:
    """The note of a fix, which becomes the reason of the act that flags it.

    Raises:
        ValueError: it is blank, too long, or cannot be stored; the message names it as people were asked for it.
    """
    return storable("note", required("note", note), most=LONGEST_REASON)


def flag_fix(connection: Connection, flag: Flag, *, act: Act) -> Fix:
    """State that something is mended upstream. Targets what died of it before `act.now`; `act.reason` is the note.

    A dry run returns the fix as it would be.

    Raises:
        NotFoundError: no such cause.
        RefusedError: an open fix targets some of the same events, the cause is merged, or nothing dead is meant.
        ValueError: it would expire before it begins.
    """
    given = {
        **flag.selector.as_json(),
        **(vars(flag.policy) if flag.policy else {}),
        **{name: getattr(flag, name) for name in ("link", "owner", "not_before", "expires_at")},
        "note": act.reason,
        "flagged_by": act.actor,
        "flagged_at": act.now,
    }
    with connection.transaction(force_rollback=act.dry_run):
        try:
            fix_id = connection.one("fix.place", fix=json.dumps(given, default=str), run_id=act.run_id)["id"]
        except psycopg.errors.NoDataFound as error:
            raise NotFoundError(error.diag.message_primary) from None
        except psycopg.errors.RaiseException as error:
            raise RefusedError(error.diag.message_primary) from None
        except psycopg.errors.InvalidParameterValue as error:
            raise ValueError(error.diag.message_primary) from None
        return get_fix(connection, fix_id)


def preview_fix(connection: Connection, flag: Flag, *, act: Act, default: RetryPolicy) -> Preview:
    """What flagging this fix would do. It is flagged and rolled back first, so it refuses what `flag_fix` does.

    What is counted after that may take seconds, and is counted without a lock.

    Args:
        connection: in autocommit mode.
        flag: the fix.
        act: who asks.
        default: the installation's policy, for a flag without one.
    """
    policy = flag.policy or default
    flag_fix(connection, flag, act=replace(act, dry_run=True))
    where = means(connection, flag.selector, before=act.now)
    counted = connection.one("fix.preview", max_retries=policy.max_retries, **where)
    free = counted["events"] - counted["parked"]
    return Preview(
        **counted, overtaken=_overtaken(connection, where), stages=policy.sizes(free), seconds=free / policy.rate
    )


def means(connection: Connection, selector: Selector, *, before: datetime | None) -> dict[str, Any]:
    """The values by which statements find what a selector means: the selector, and what an index can be asked for.

    Before that moment, of which the selector knows nothing; None: at any time.

    Raises:
        NotFoundError: it names a cause that does not exist.
        RefusedError: it names a cause that is merged into another.
    """
    ids = selector.event_ids
    until = "infinity" if before is None else before.isoformat()
    return {
        "selector": json.dumps({**selector.as_json(), "flagged_at": until}),
        "causes": None if selector.cause_id is None else cause_members(connection, selector.cause_id),
        "event_ids": None if ids is None else list(ids),
    }


def get_fix(connection: Connection, fix_id: int) -> Fix:
    """The fix of that id.

    Raises:
        NotFoundError: there is none.
    """
    row = connection.run("fix.get", fix_id=positive("fix_id", fix_id)).fetchone()
    if row is None:
        raise NotFoundError(f"There is no fix {fix_id}. `dlq fixes list` lists them.")
    return fix_from_row(row)


def parked_after(connection: Connection, fix_id: int | None, *, default: int) -> int:
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
    asked = {"limit": positive("limit", limit, most=1000), "after": after and positive("after", after)}
    return [fix_from_row(row) for row in connection.run("fix.list", **asked, only_open=only_open)]


def fixes_due(connection: Connection, *, now: datetime, max_backlog: timedelta, limit: int = 20) -> list[Fix]:
    """Open fixes for which there is something to do, those that were not looked at for longest first.

    While the worker is congested, a fix without anything outstanding is not among them: it would begin a stage.
    """
    congested = congestion(connection, now=now, max_backlog=max_backlog) is not None
    return [fix_from_row(row) for row in connection.run("fix.due", now=now, limit=limit, congested=congested)]


def congestion(connection: Connection, *, now: datetime, max_backlog: timedelta) -> str | None:
    """Why no stage should begin now: the worker is behind by more than that. None if it is not."""
    seconds = connection.one("fix.backlog", now=now)["seconds"]
    if seconds is None or seconds <= max_backlog.total_seconds():
        return None
    return f"the worker is {seconds:.0f} s behind, at most {max_backlog.total_seconds():.0f} s are allowed"


def stages(connection: Connection, fix_id: int) -> dict[int, Stage]:
    """Outcomes of each stage of the fix, by its number."""
    return {row.pop("stage"): Stage(**row) for row in connection.run("fix.stages", fix_id=fix_id)}


def fix_progress(connection: Connection, fix_id: int, *, now: datetime, terms: Terms) -> Progress:
    """How far the fix has come, and what it waits for. Reads only, so outcomes not settled yet are not in it.

    Raises:
        NotFoundError: there is no such fix.
    """
    fix, outcomes = get_fix(connection, fix_id), stages(connection, fix_id)
    if fix.closed_at is not None:
        return Progress(fix, outcomes, fix.verdict or "")
    policy, stage = fix.policy or terms.policy, outcomes.get(fix.stage, Stage())
    congested = congestion(connection, now=now, max_backlog=terms.max_backlog)
    match next_step(fix, policy, stage, now=now, left=None, congested=congested):
        case Wait(reason):
            return Progress(fix, outcomes, f"waits: {reason}")
        case Close(status, verdict):
            return Progress(fix, outcomes, f"will be {status}: {verdict}")
        case Release(number, _):
            room = policy.size(number) - (stage.released if number == fix.stage else 0)
            return Progress(fix, outcomes, f"releases up to {room:,} events in stage {number}, or ends if none is left")


def fix_from_row(row: DictRow) -> Fix:
    """Build from a row of `dlq.fix`."""
    ids = row["event_ids"]
    policy = {name: row[name] for name in RetryPolicy.__dataclass_fields__}
    plain = ("id", "note", "link", "owner", "flagged_by", "flagged_at", "not_before", "expires_at", "stage", "verdict")
    return Fix(
        selector=Selector(
            event_ids=None if ids is None else tuple(ids),
            **{name: row[name] for name in Selector.__dataclass_fields__ if name != "event_ids"},
        ),
        policy=None if row["canary"] is None else RetryPolicy(**policy),
        status=FixStatus(row["status"]),
        evidence=tuple(row["evidence"]),
        closed_at=row["closed_at"],
        **{name: row[name] for name in plain},
    )


def cause_members(connection: Connection, cause_id: str) -> list[str]:
    """The cause and what is merged into it: what a selector of that cause means.

    Raises:
        NotFoundError: there is no such cause, as after a slip of the pen.
        RefusedError: it is merged into another, which the message names.
    """
    merged = {row["id"]: row for row in connection.run("fix.members", cause_id=cause_id)}
    if cause_id not in merged:
        raise unknown_cause(cause_id)
    if merged[cause_id]["merged_into"] is not None:
        raise merged_cause(merged[cause_id])
    return list(merged)


def _overtaken(connection: Connection, where: dict[str, Any]) -> int | None:
    try:
        with connection.transaction():
            connection.run("session.hurry", timeout=_PATIENCE)
            return int(connection.one("fix.overtaken", **where)["events"])
    except psycopg.errors.QueryCanceled:
        return None
