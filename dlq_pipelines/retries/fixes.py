"""Flags, previews, lists and reads fixes, and finds those that need a step."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timedelta, tzinfo
from math import inf
from typing import Any, TypeGuard

import psycopg
from psycopg.rows import DictRow

from dlq_pipelines.audit import MAX_REASON_LENGTH, AuditContext, RunOptions
from dlq_pipelines.day import AFTER_ALL_TIMES, parse_time
from dlq_pipelines.errors import NotFoundError, RefusedError
from dlq_pipelines.outbox.offers import require_offer
from dlq_pipelines.outbox.queue import measure_queue_lag
from dlq_pipelines.outbox.selection import (
    Selection,
    build_selection_parameters,
    list_event_ids,
)
from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.retries.estimate import estimate_seconds
from dlq_pipelines.retries.fix import (
    CloseStep,
    Fix,
    FixStatus,
    FixTerms,
    Pace,
    PauseStep,
    ReleaseStep,
    RetryOrder,
    RetryPolicy,
    StageOutcomes,
    WaitStep,
    decide_next_step,
)
from dlq_pipelines.retries.pace import compute_share, read_rate_state
from dlq_pipelines.text import format_count
from dlq_pipelines.validate import (
    validate_aware,
    validate_not_blank,
    validate_positive,
    validate_storable,
)

_MAX_LINK_LENGTH, _MAX_OWNER_LENGTH = 2_000, 200
_SHOWN_STAGES = 20
# What each entry of the evidence has.
_EVIDENCE = {"events": int, "outcome": str, "before": str, "after": str}
# Less than the share of any fix, and enough for the time until its next event to be finite.
_LEAST_RATE = 1e-6
# A due time written by hand may be infinite. The next one must not exceed what datetime can hold.
_LAST_DUE_TIME = AFTER_ALL_TIMES - timedelta(days=1)
# A preview does not wait longer for a figure that it can do without.
_OVERTAKEN_TIMEOUT = "5s"


@dataclass(frozen=True)
class FixFlag:
    """A fix to flag. Its note is the reason of the audit context.

    Attributes:
        selection: the dead events that the fix targets.
        policy: how carefully the fix is tested; None: the installation's at its first step.
        link: version or address of the change.
        owner: person or team to contact.
        deployment: the id of the deployment that carries the fix.
        not_before: earliest start of the first stage; None: at once.
        expires_at: when the fix expires unverified; None: the installation's at its first step.
        requires_order: the order of aggregates was asked for, and is not just the installation's.

    Raises:
        ValueError: a text is blank or not storable, or a time has no time zone.
    """

    selection: Selection
    policy: RetryPolicy | None = None
    link: str | None = None
    owner: str | None = None
    deployment: int | None = None
    not_before: datetime | None = None
    expires_at: datetime | None = None
    requires_order: bool = False

    def __post_init__(self) -> None:
        for name, text, most in (
            ("link", self.link, _MAX_LINK_LENGTH),
            ("owner", self.owner, _MAX_OWNER_LENGTH),
        ):
            if text is not None:
                validate_storable(name, validate_not_blank(name, text), most=most)
        if self.deployment is not None:
            validate_positive("deployment", self.deployment)
        validate_aware("not_before", self.not_before)
        validate_aware("expires_at", self.expires_at)


@dataclass(frozen=True)
class FlagInput:
    """Values of a fix as a face was given them; None: not given. See `FixFlag` and `RetryPolicy`.

    Attributes:
        not_before: a time as text, in the time zone of the installation if the text names none.
        expiry_days: days after which the fix expires unverified, 1 to 365.
    """

    link: str | None = None
    owner: str | None = None
    deployment: int | None = None
    not_before: str | None = None
    expiry_days: int | None = None
    canary: int | None = None
    growth: float | None = None
    rate: float | None = None
    min_success: float | None = None
    settle_seconds: int | None = None
    max_retries: int | None = None
    order: RetryOrder | None = None

    def build_policy(self, default: RetryPolicy) -> RetryPolicy:
        """Build the policy; values that were not given are those of `default`.

        Raises:
            ValueError: a value is out of its bounds; the message names it.
        """
        return RetryPolicy(
            canary=default.canary if self.canary is None else self.canary,
            growth=default.growth if self.growth is None else self.growth,
            rate=default.rate if self.rate is None else self.rate,
            min_success=default.min_success if self.min_success is None else self.min_success,
            settle_seconds=default.settle_seconds
            if self.settle_seconds is None
            else self.settle_seconds,
            max_retries=default.max_retries if self.max_retries is None else self.max_retries,
            order=default.order if self.order is None else self.order,
        )


def build_flag(
    selection: Selection, given: FlagInput, *, terms: FixTerms, zone: tzinfo, now: datetime
) -> FixFlag:
    """Build the flag of a fix from the values that a face was given.

    Args:
        selection: the dead events that the fix targets.
        given: the values.
        terms: the installation's values, for those that were not given.
        zone: the time zone of times that name none.
        now: the time of the flag, from which the fix expires unless `not_before` is given.

    Raises:
        ValueError: a value is invalid; the message names it.
    """
    expiry, start = terms.expiry, None
    if given.expiry_days is not None:
        expiry = timedelta(days=validate_positive("expiry_days", given.expiry_days, most=365))
    if given.not_before is not None:
        start = parse_time("not_before", given.not_before, zone)
    return FixFlag(
        selection=selection,
        policy=given.build_policy(terms.policy),
        link=given.link,
        owner=given.owner,
        deployment=given.deployment,
        not_before=start,
        expires_at=(start or now) + expiry,
        requires_order=given.order == "aggregate",
    )


@dataclass(frozen=True)
class FixPreview:
    """What a fix would release.

    Attributes:
        events: dead events that the fix targets.
        aggregates: aggregates of these events; an event without one counts for itself.
        parked: events among them that the fix skips, because they are parked.
        held: events among them that the fix leaves dead, because an earlier event of their
            aggregate is dead and not released; 0 without the order of aggregates.
        overtaken: events among them after which a newer event of their aggregate was delivered;
            None: unknown, because the table has no index by aggregate and is too large to count in
            five seconds.
        stages: events that each stage would release if all are delivered.
        longest: the most events of one aggregate, without parked and held ones. In the order of
            aggregates each is released once its predecessor is delivered.
        seconds: time from the first release to the end of the fix, with a worker that delivers each
            event as soon as it is due: rate, order, stages, and the sensor between them.
        deletion_is_loss: an event that the worker deletes counts as lost, because the mapping
            expects a delivered state.
    """

    events: int
    aggregates: int
    parked: int
    held: int
    longest: int
    overtaken: int | None
    stages: list[int]
    seconds: float
    deletion_is_loss: bool = False

    @property
    def sizes(self) -> str:
        """Return the stages in words, at most the first twenty."""
        more = len(self.stages) - _SHOWN_STAGES
        sizes = ", ".join(f"{size:,}" for size in self.stages[:_SHOWN_STAGES])
        shown = sizes or "none, as all are parked or held back"
        return f"{shown} and {more:,} more stages" if more > 0 else shown


@dataclass(frozen=True)
class FixProgress:
    """How far a fix has come.

    Attributes:
        stages: outcomes of each stage that began, by its number.
        next: the next step of an open fix; the verdict of one that has ended.
    """

    fix: Fix
    stages: dict[int, StageOutcomes]
    next: str


def validate_note(note: str) -> str:
    """Return the note of a fix, which becomes the reason in the audit log, if it is valid.

    Raises:
        ValueError: the note is blank, too long, or not storable; the message calls it `note`.
    """
    return validate_storable("note", validate_not_blank("note", note), most=MAX_REASON_LENGTH)


def flag_fix(
    connection: Connection,
    flag: FixFlag,
    *,
    audit: AuditContext,
    options: RunOptions = RunOptions(),
) -> Fix:
    """Flag a fix. It targets events that died before `audit.now`; `audit.reason` is its note.

    A dry run returns the fix as it would be.

    Raises:
        NotFoundError: the cause or the deployment does not exist.
        RefusedError: an open fix targets some of the same events, the cause is merged into another
            one, no dead events match, or the mapping of the outbox offers no fixes or no order.
        ValueError: the fix would expire before it begins.
    """
    if flag.requires_order:
        require_offer(connection, "order")
    given = {
        **flag.selection.to_columns(),
        **(asdict(flag.policy) if flag.policy else {}),
        "link": flag.link,
        "owner": flag.owner,
        "deployment": flag.deployment,
        "not_before": flag.not_before,
        "expires_at": flag.expires_at,
        "note": audit.reason,
        "flagged_by": audit.actor,
        "flagged_at": audit.now,
    }
    list_event_ids(connection, flag.selection)
    with connection.transaction(force_rollback=options.dry_run):
        try:
            fix_id = connection.fetch_one(
                "fix.place", fix=json.dumps(given, default=str), run_id=audit.run_id
            )["id"]
        except psycopg.errors.NoDataFound as error:
            raise NotFoundError(*_read_message(error)) from None
        except psycopg.errors.RaiseException as error:
            raise RefusedError(*_read_message(error)) from None
        return get_fix(connection, fix_id)


def preview_fix(
    connection: Connection,
    flag: FixFlag,
    *,
    audit: AuditContext,
    default: RetryPolicy,
) -> FixPreview:
    """Preview a fix. It is flagged and rolled back, so the preview refuses what `flag_fix` does.

    The counts that follow may take seconds and hold no lock.

    Args:
        connection: in autocommit mode.
        flag: the fix.
        audit: who asks for the preview.
        default: the installation's policy, for a flag without one.
    """
    policy = flag.policy or default
    flag_fix(connection, flag, audit=audit, options=RunOptions(dry_run=True))
    where = build_selection_parameters(connection, flag.selection, before=audit.now)
    counted = connection.fetch_one(
        "fix.preview",
        max_retries=policy.max_retries,
        ordered=policy.order == "aggregate",
        **where,
    )
    lengths = {int(length): count for length, count in counted.pop("lengths").items()}
    singles_first = counted.pop("singles_first")
    return FixPreview(
        **counted,
        longest=max(lengths, default=0),
        overtaken=_count_overtaken(connection, where),
        stages=policy.sizes(counted["events"] - counted["parked"] - counted["held"]),
        seconds=estimate_seconds(policy, lengths, singles_first=singles_first),
        deletion_is_loss=connection.fetch_one("fix.deletion_is_loss")["is_loss"],
    )


def get_fix(connection: Connection, fix_id: int) -> Fix:
    """Return the fix of that id.

    Raises:
        NotFoundError: the fix does not exist.
    """
    row = connection.run("fix.get", fix_id=validate_positive("fix_id", fix_id)).fetchone()
    if row is None:
        raise build_unknown_fix_error(fix_id)
    return build_fix(row)


def get_max_retries(connection: Connection, fix_id: int | None, *, default: int) -> int:
    """Return the retries after which an event is parked: those of the fix if it has a policy.

    Raises:
        NotFoundError: the fix does not exist.
    """
    policy = get_fix(connection, fix_id).policy if fix_id is not None else None
    return policy.max_retries if policy else default


def list_fixes(
    connection: Connection, *, limit: int = 100, only_open: bool = False, after: int | None = None
) -> list[Fix]:
    """Return fixes, the last flagged first.

    Args:
        connection: to the ledger.
        limit: 1 to 1,000 fixes.
        only_open: return only fixes that have not ended.
        after: the id of the last fix of the previous page.
    """
    rows = connection.run(
        "fix.list",
        limit=validate_positive("limit", limit, most=1000),
        after=after and validate_positive("after", after),
        only_open=only_open,
    )
    return [build_fix(row) for row in rows]


def list_cause_fixes(
    connection: Connection, cause_ids: Sequence[str], *, limit: int = 10
) -> list[Fix]:
    """Return the fixes that target one of these causes, the last flagged first."""
    rows = connection.run(
        "fix.list_of_causes",
        causes=list(cause_ids),
        limit=validate_positive("limit", limit, most=1000),
    )
    return [build_fix(row) for row in rows]


def list_due_fixes(
    connection: Connection, *, now: datetime, max_backlog: timedelta, limit: int = 20
) -> list[Fix]:
    """Return fixes that need a step, the one advanced longest ago first.

    While the worker is congested, fixes whose next step would release events are left out.
    """
    congested = describe_congestion(connection, now=now, max_backlog=max_backlog) is not None
    rows = connection.run("fix.due", now=now, limit=limit, congested=congested)
    return [build_fix(row) for row in rows]


def describe_congestion(
    connection: Connection, *, now: datetime, max_backlog: timedelta
) -> str | None:
    """Say why no event may be released: the queue lag exceeds `max_backlog`. None: it does not."""
    most = max_backlog.total_seconds()
    seconds, _ = measure_queue_lag(connection, now=now, most=most)
    if seconds <= most:
        return None
    return f"the worker is {seconds:.0f} s behind, at most {most:.0f} s are allowed"


def reject_fix(
    connection: Connection, fix: Fix, stages: Mapping[int, StageOutcomes]
) -> CloseStep | None:
    """Return the end of an open fix that cannot be advanced; None: it can.

    Either its row holds what no face accepts, or it cannot end before it expires. Every face that
    takes a rate refuses the latter. `dlq.flag_fix` and probes take none, so the rate and the expiry
    of the installation are known at the first step only.
    """
    defect, begun = fix.unreadable, max(stages, default=0)
    if defect is None and begun != fix.stage:
        defect = f"stage is {fix.stage}, and the last one that began is {begun}"
    if defect is not None:
        return CloseStep(FixStatus.REJECTED, f"the row of the fix cannot be used: {defect}")
    if fix.stage or fix.status is not FixStatus.ACTIVE:
        return None
    row = connection.run("fix.explain_expiry", fix_id=fix.id).fetchone()
    return CloseStep(FixStatus.REJECTED, row["reason"]) if row and row["reason"] else None


def get_stage_outcomes(connection: Connection, fix_id: int) -> dict[int, StageOutcomes]:
    """Return the outcomes of each stage of the fix, by its number."""
    return {
        row["stage"]: StageOutcomes(
            size=row["size"],
            released=row["released"],
            delivered=row["outcomes"].get("delivered", 0),
            died_again=row["outcomes"].get("died_again", 0),
            timed_out=row["outcomes"].get("timed_out", 0),
            deleted=row["outcomes"].get("deleted", 0),
            recalled=row["outcomes"].get("recalled", 0),
        )
        for row in connection.run("fix.stages", fix_id=fix_id)
    }


def get_pace(
    connection: Connection, fix_id: int, policy: RetryPolicy, terms: FixTerms, *, now: datetime
) -> Pace:
    """Return at which rate a fix releases events now, and when its next one falls due.

    It shares the worker with other fixes that release events. The next event falls due now, or at
    that rate after the last one.
    """
    row = connection.fetch_one("fix.pace", fix_id=fix_id, now=now)
    own = _read_rate(row["current_rate"]) or policy.rate
    rate = compute_share(own, row["rates"], in_force=row["in_force"])
    last: datetime | None = row["last_due_at"]
    due = now if last is None else max(now, min(last, _LAST_DUE_TIME) + timedelta(seconds=1 / rate))
    return Pace(due, terms.lookahead, rate)


def get_fix_progress(
    connection: Connection, fix_id: int, *, now: datetime, terms: FixTerms
) -> FixProgress:
    """Return how far the fix has come, and its next step. Counts recorded outcomes only.

    Raises:
        NotFoundError: the fix does not exist.
    """
    fix, outcomes = get_fix(connection, fix_id), get_stage_outcomes(connection, fix_id)
    if fix.closed_at is not None:
        return FixProgress(fix, outcomes, fix.verdict or "")
    policy, stage = fix.policy or terms.policy, outcomes.get(fix.stage, StageOutcomes())
    congested = describe_congestion(connection, now=now, max_backlog=terms.max_backlog)
    step = reject_fix(connection, fix, outcomes) or decide_next_step(
        fix,
        policy,
        stage,
        now=now,
        left=None,
        congested=congested,
        pace=get_pace(connection, fix_id, policy, terms, now=now),
    )
    match step:
        case WaitStep(reason):
            return FixProgress(fix, outcomes, f"waits: {reason}")
        case CloseStep(status, verdict):
            return FixProgress(fix, outcomes, f"will be {status}: {verdict}")
        case PauseStep(verdict):
            return FixProgress(fix, outcomes, f"will be paused: {verdict}")
        case ReleaseStep(number, _):
            room = policy.size(number) - (stage.tried if number == fix.stage else 0)
            return FixProgress(
                fix,
                outcomes,
                f"releases up to {format_count(room, 'event')} in stage {number}, or ends if none "
                "is left",
            )


def build_fix(row: DictRow) -> Fix:
    """Build a fix from a row of `dlq.fix`; one that no face accepts must not stop a list."""
    policy, unreadable = None, None
    given = {item.name: row[item.name] for item in fields(RetryPolicy)}
    if None in given.values():
        missing = [name for name, value in given.items() if value is None]
        unreadable = f"{missing[0]} is missing" if len(missing) < len(given) else None
    else:
        try:
            policy = RetryPolicy(**given)
        except ValueError as error:
            unreadable = str(error)
    evidence = row["evidence"] if isinstance(row["evidence"], list) else [None]
    return Fix(
        id=row["id"],
        selection=Selection.from_row(row),
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
        evidence=tuple(pair for pair in evidence if _is_evidence(pair)),
        closed_at=row["closed_at"],
        unreadable=unreadable or _describe_defect(row, evidence),
        current_rate=_read_rate(row["current_rate"]),
        release_rate=_read_rate(row["release_rate"]),
        deployment=row["deployment"],
    )


def _describe_defect(row: DictRow, evidence: list[Any]) -> str | None:
    """Say which column of progress holds what no step writes; None: no column does."""
    if row["stage"] < 0:
        return f"stage must not be negative, and is {row['stage']}"
    for name in ("current_rate", "release_rate"):
        if row[name] is not None and _read_rate(row[name]) is None:
            return f"{name} must be a finite number from {_LEAST_RATE:g}, not {row[name]!r}"
    if row["last_due_at"] is not None and row["last_due_at"] > _LAST_DUE_TIME:
        return "last_due_at is infinity, or after the year 9999"
    if not all(map(_is_evidence, evidence)):
        return f"evidence must be a list of objects with {', '.join(_EVIDENCE)}"
    try:
        read_rate_state(row["rate_state"], 1.0)
    except ValueError as error:
        return str(error)
    return None


def _read_rate(stored: float | None) -> float | None:
    return stored if stored is not None and _LEAST_RATE <= stored < inf else None


def _is_evidence(pair: object) -> TypeGuard[dict[str, Any]]:
    return isinstance(pair, dict) and all(
        isinstance(pair.get(name), type_) for name, type_ in _EVIDENCE.items()
    )


def build_unknown_fix_error(fix_id: int) -> NotFoundError:
    """Return the error for a fix that does not exist."""
    return NotFoundError(f"There is no fix {fix_id}.", "`dlq fixes list` lists the fixes.")


def _read_message(error: psycopg.Error) -> tuple[str, str]:
    """Return message and hint of an error that `dlq.place_fix` raised."""
    return error.diag.message_primary or "", error.diag.message_hint or ""


def _count_overtaken(connection: Connection, where: dict[str, Any]) -> int | None:
    try:
        with connection.transaction():
            connection.run("session.set_statement_timeout", timeout=_OVERTAKEN_TIMEOUT)
            return int(connection.fetch_one("fix.overtaken", **where)["events"])
    except psycopg.errors.QueryCanceled:
        return None
