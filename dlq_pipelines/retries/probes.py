"""Releases single events of transient causes as probes, and flags a fix once one is delivered.

Each step is a transaction of its own: it takes the lock of probes, reads the state of the cause
again, decides, and writes the release or the fix, its audit entry and the new state together. So a
run that dies leaves a step done or not begun, and of two runs at once one does nothing.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from zoneinfo import ZoneInfo

from dlq_pipelines.audit import AuditContext, record_audit_entry
from dlq_pipelines.day import compute_midnight, format_time
from dlq_pipelines.errors import RefusedError
from dlq_pipelines.outbox import BATCH
from dlq_pipelines.outbox.batches import build_batch_parameters, lock_batch, release_batch
from dlq_pipelines.outbox.selection import (
    Selection,
    build_unknown_cause_error,
    list_cause_members,
)
from dlq_pipelines.postgres.conflicts import retry_after_conflict
from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.retries.fixes import FixFlag, describe_congestion, flag_fix
from dlq_pipelines.retries.probe import (
    FIRST_WAIT,
    ProbeAction,
    ProbePolicy,
    ProbeState,
    ProbeStep,
    compute_wait,
    decide_probe_step,
)
from dlq_pipelines.retries.settle import settle_outcomes
from dlq_pipelines.text import format_count
from dlq_pipelines.validate import parse_event_id

ACTOR = "probe"
"""Who releases probes and flags what they prove, in the ledger and in the audit log."""
# Causes of a run: as many as a run steps through in seconds. The next run is a minute later.
_CAUSES_PER_RUN = 20
# Events that may be released and are tried: some are locked, or wait for their aggregate.
_CANDIDATES = 100


@dataclass(frozen=True)
class ProbeRun:
    """What a run of probes did.

    Attributes:
        released: events that were released, by their causes.
        fixes: fixes that were flagged.
        healed: causes that were resolved by their probe alone: no other event was dead.
        failed: causes whose event was not delivered, or whose fix ended unverified.
        skipped: causes with no event to release, or that another run held.
    """

    released: dict[str, str]
    fixes: tuple[int, ...]
    healed: tuple[str, ...]
    failed: tuple[str, ...]
    skipped: tuple[str, ...]


@dataclass(frozen=True)
class ProbeSummary:
    """The probes of a cause, for people.

    Attributes:
        is_on: the cause is probed, by DLQ_PROBES or by a person.
        is_transient: its failures pass without a change of code or data.
        is_overridden: a person switched its probes on or off.
        tries: probes since the cause last healed.
        probed_at: the release of the last probe.
        event_id: the event that is released now; None: no event is.
        fix_id: the open fix that the last probe flagged.
        next_at: when the next event is released at the earliest, if its cause is open, not muted
            and has dead events; None: off, or something is released.
    """

    is_on: bool
    is_transient: bool
    is_overridden: bool
    tries: int
    probed_at: datetime | None
    event_id: str | None
    fix_id: int | None
    next_at: datetime | None

    def __str__(self) -> str:
        """Describe the probes in a line."""
        if not self.is_on:
            reason = "by a person" if self.is_overridden else "DLQ_PROBES"
            off = f"off ({reason})" if self.is_transient else "off: not a transient cause"
            return f"{off}, {format_count(self.tries, 'try', 'tries')}" if self.tries else off
        if self.event_id is not None:
            return f"on, try {self.tries}: event {self.event_id} is released"
        if self.next_at is None:
            return f"on, try {self.tries} was delivered: fix {self.fix_id}"
        tries = f"{format_count(self.tries, 'try', 'tries')}, " if self.tries else ""
        return f"on, {tries}the next not before {format_time(self.next_at)}"


def list_due_probes(
    connection: Connection, *, policy: ProbePolicy, zone: ZoneInfo, now: datetime
) -> list[ProbeState]:
    """Return causes whose probe needs a step, the one that waits longest first.

    None if the mapping of the outbox offers no fixes. While the worker is congested or the bound of
    the day is reached, causes whose next step would release an event are left out.
    """
    offers = connection.fetch_one("outbox.offers")["offers"]
    if offers["retries"] or offers["fixes"]:
        return []
    may_release = _count_left(connection, policy, zone, now=now) > 0
    found = _fetch_due(connection, policy, now=now, may_release=may_release)
    if any(state.death_id is None and state.fix_id is None for state in found) and (
        describe_congestion(connection, now=now, max_backlog=policy.max_backlog)
    ):
        return [state for state in found if state.death_id is not None or state.fix_id is not None]
    return found


def run_probes(
    connection: Connection, *, policy: ProbePolicy, zone: ZoneInfo, audit: AuditContext
) -> ProbeRun:
    """Take the due step of each cause: judge an outcome, flag a fix, or release an event.

    Args:
        connection: in autocommit mode.
        policy: of the installation.
        zone: the time zone of the day that bounds the releases.
        audit: the time and the run; actor and reason are those of the probes.
    """
    due = list_due_probes(connection, policy=policy, zone=zone, now=audit.now)
    if any(state.death_id is not None and state.outcome is None for state in due):
        settle_outcomes(connection, now=audit.now, settle_seconds=policy.settle_seconds)
    run = _Run(connection, policy, zone, audit)
    for state in due:
        run.step(state.cause_id)
    return ProbeRun(
        run.released, tuple(run.fixes), tuple(run.healed), tuple(run.failed), tuple(run.skipped)
    )


def describe_probes(connection: Connection, cause_id: str, *, policy: ProbePolicy) -> ProbeSummary:
    """Return the state of the probes of a cause.

    Raises:
        NotFoundError: the cause does not exist.
    """
    row = connection.run("probe.get", cause_id=cause_id, enabled=policy.enabled).fetchone()
    if row is None:
        raise build_unknown_cause_error(cause_id)
    quiet_at = row.pop("last_death") + FIRST_WAIT
    waits = row["is_on"] and row["event_id"] is None and row["fix_id"] is None
    next_at = max(quiet_at, row["next_at"] or quiet_at) if waits else None
    return ProbeSummary(**row | {"next_at": next_at})


@dataclass(frozen=True)
class _StepResult:
    """What a step did: it released an event, flagged a fix, or learned that a probe ended well."""

    event_id: str | None = None
    fix_id: int | None = None
    ended_well: bool | None = None


class _Run:
    """Steps through the probes of causes, and collects what the steps did."""

    def __init__(
        self, connection: Connection, policy: ProbePolicy, zone: ZoneInfo, audit: AuditContext
    ) -> None:
        self.released: dict[str, str] = {}
        self.fixes: list[int] = []
        self.healed: list[str] = []
        self.failed: list[str] = []
        self.skipped: list[str] = []
        self._connection = connection
        self._policy = policy
        self._zone = zone
        self._audit = audit

    def step(self, cause_id: str) -> None:
        """Take the due step of a cause, unless another run does or did."""

        def work() -> _StepResult | None:
            with self._connection.transaction():
                return self._decide_and_write(cause_id)

        done = retry_after_conflict(work)
        if done is None:
            self.skipped.append(cause_id)
        elif done.event_id is not None:
            self.released[cause_id] = done.event_id
        elif done.fix_id is not None:
            self.fixes.append(done.fix_id)
        else:
            (self.healed if done.ended_well else self.failed).append(cause_id)

    def _decide_and_write(self, cause_id: str) -> _StepResult | None:
        """Return what the step did; None: nothing."""
        if not self._connection.fetch_one("probe.try_lock")["is_locked"]:
            return None
        now = self._audit.now
        left = _count_left(self._connection, self._policy, self._zone, now=now)
        # What another run stepped meanwhile is no longer due.
        due = _fetch_due(
            self._connection, self._policy, now=now, may_release=left > 0, cause_id=cause_id
        )
        if not due:
            return None
        state = due[0]
        step = decide_probe_step(state, now=now, left_today=left)
        match step.action:
            case ProbeAction.RELEASE:
                return self._release(state, step)
            case ProbeAction.FLAG:
                return self._flag(state, step)
            case ProbeAction.RECORD:
                self._record(state, step)
                ended_well = state.outcome == "delivered" or state.fix_status == "verified"
                return _StepResult(ended_well=ended_well)
            case _:
                return None

    def _release(self, state: ProbeState, step: ProbeStep) -> _StepResult | None:
        """Release one event, or record that no event may be released, and wait."""
        connection, policy = self._connection, self._policy
        rows = connection.run(
            "probe.pick",
            cause_id=state.cause_id,
            causes=list_cause_members(connection, state.cause_id),
            max_retries=policy.max_retries,
            rows=BATCH,
            limit=_CANDIDATES,
        ).fetchall()
        event_of = {row["death_id"]: parse_event_id(row["event_id"]) for row in rows}
        limits = {"room": 1, "ordered": policy.ordered}
        taken = None
        if event_of:
            selection = Selection(event_ids=tuple(event_of.values()))
            parameters = build_batch_parameters(
                connection, selection, max_retries=policy.max_retries
            )
            batch = lock_batch(connection, {**parameters, **limits})
            taken = next((death for death in event_of if batch.deaths == f"{{{death}}}"), None)
        if taken is None:
            later = self._audit.now + compute_wait(state.tries)
            self._record(state, replace(step, tries=state.tries, next_at=later))
            return None
        event_id = event_of[taken]
        parameters = build_batch_parameters(
            connection, Selection(event_ids=(event_id,)), max_retries=policy.max_retries
        )
        audit = self._sign(f"probe {step.tries} of cause {state.cause_id}")
        released = release_batch(connection, {**parameters, **limits}, audit=audit)
        if not released.taken:
            return None
        record_audit_entry(
            connection,
            "probe.release",
            {"cause": state.cause_id, "event": str(event_id), "probe": step.tries},
            audit=audit,
            events=1,
        )
        self._record(state, step, death_id=taken)
        return _StepResult(event_id=str(event_id))

    def _flag(self, state: ProbeState, step: ProbeStep) -> _StepResult:
        """Flag a fix of the cause, or record why no fix is flagged."""
        dead = self._connection.run(
            "probe.has_dead",
            causes=list_cause_members(self._connection, state.cause_id),
        ).fetchone()
        if dead is None:
            self._record(state, replace(step, tries=0))
            return _StepResult(ended_well=True)
        audit = self._sign(
            f"event {state.event_id} was delivered by probe {state.tries} of cause {state.cause_id}"
        )
        try:
            fix = flag_fix(self._connection, FixFlag(Selection(cause=state.cause_id)), audit=audit)
        except RefusedError:
            # An open fix targets some of the events: its outcomes decide.
            self._record(state, step)
            return _StepResult(ended_well=True)
        self._record(state, step, fix_id=fix.id)
        return _StepResult(fix_id=fix.id)

    def _record(
        self,
        state: ProbeState,
        step: ProbeStep,
        *,
        death_id: int | None = None,
        fix_id: int | None = None,
    ) -> None:
        self._connection.run(
            "probe.record",
            cause_id=state.cause_id,
            tries=step.tries,
            death_id=death_id,
            fix_id=fix_id,
            next_at=step.next_at,
            now=self._audit.now,
        )

    def _sign(self, reason: str) -> AuditContext:
        return replace(self._audit, actor=ACTOR, reason=reason)


def _count_left(
    connection: Connection, policy: ProbePolicy, zone: ZoneInfo, *, now: datetime
) -> int:
    """Return how many events probes may still release today."""
    since = compute_midnight(now.astimezone(zone).date(), zone)
    row = connection.fetch_one("probe.count_released", since=since)
    return max(0, policy.per_day - int(row["events"]))


def _fetch_due(
    connection: Connection,
    policy: ProbePolicy,
    *,
    now: datetime,
    may_release: bool,
    cause_id: str | None = None,
) -> list[ProbeState]:
    rows = connection.run(
        "probe.due",
        cause_id=cause_id,
        now=now,
        quiet_since=now - FIRST_WAIT,
        enabled=policy.enabled,
        may_release=may_release,
        settle_seconds=policy.settle_seconds,
        limit=_CAUSES_PER_RUN,
    )
    return [ProbeState(**row) for row in rows]
