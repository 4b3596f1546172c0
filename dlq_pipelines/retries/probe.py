"""Decides when an event of a cause is released as a probe, and what follows from its outcome.

Pure. A probe is one dead event of a cause whose failures pass by themselves, such as a time-out.

| state of the cause | step |
| --- | --- |
| its last death is 5 minutes ago, and the wait since its last probe is over | release one event |
| the event was delivered | flag a fix, whose canary and stages release the others |
| the event died again, timed out, was deleted or recalled | wait twice as long as before |
| the fix was verified | begin anew with the first wait |
| the fix ended in any other way | wait as after a probe that died again |

The waits are 5, 10, 20 ... minutes, at most 6 hours. While events go on dying of a cause, it is not
probed at all: its failure has not passed.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

FIRST_WAIT = timedelta(minutes=5)
MAX_WAIT = timedelta(hours=6)
# From this try on, the wait is the longest one. Bounds the shift below.
_LAST_DOUBLING = 10


@dataclass(frozen=True)
class ProbePolicy:
    """The installation's values for probes.

    Attributes:
        enabled: probe transient causes. A cause that a person switched on or off ignores it.
        per_day: events that probes release in a day at most, of all causes together.
        settle_seconds: seconds to wait for an outcome after the due time.
        max_retries: retries after which an event is parked, and never released by a probe.
        ordered: release an event only if no earlier event of its aggregate is dead or in progress.
        max_backlog: queue lag above which no event is released: it would wait, and prove nothing.
    """

    enabled: bool = False
    per_day: int = 50
    settle_seconds: int = 900
    max_retries: int = 3
    ordered: bool = True
    max_backlog: timedelta = timedelta(minutes=5)


@dataclass(frozen=True)
class ProbeState:
    """What a decision about the probes of a cause depends on.

    Attributes:
        is_wanted: the cause is probed, not muted and not merged.
        last_death: the last death of the cause, or of a cause that is merged into it.
        tries: probes since the cause last healed.
        next_at: no event is released before; None: the cause was never probed.
        death_id: the death whose event was released and whose outcome is not judged yet.
        event_id: that event.
        outcome: its outcome, `recalled` included; None: not known yet.
        fix_id: the fix that a delivered probe flagged.
        fix_status: of that fix.
        fix_closed_at: when that fix ended; None: it is open.
    """

    cause_id: str
    is_wanted: bool
    last_death: datetime
    tries: int = 0
    next_at: datetime | None = None
    death_id: int | None = None
    event_id: str | None = None
    outcome: str | None = None
    fix_id: int | None = None
    fix_status: str | None = None
    fix_closed_at: datetime | None = None

    @property
    def due_at(self) -> datetime:
        """When the next event may be released, if no further event dies of it until then."""
        quiet_at = self.last_death + FIRST_WAIT
        return quiet_at if self.next_at is None else max(quiet_at, self.next_at)


class ProbeAction(StrEnum):
    """What a step does."""

    WAIT = "wait"
    RELEASE = "release"
    FLAG = "flag"
    RECORD = "record"


@dataclass(frozen=True)
class ProbeStep:
    """The next step of the probes of a cause, with the state that it leaves.

    Attributes:
        action: what to do; RECORD only stores the state.
        tries: probes since the cause last healed.
        next_at: no further event is released before.
    """

    action: ProbeAction
    tries: int
    next_at: datetime


def compute_wait(tries: int) -> timedelta:
    """Return the wait before the next probe after so many that found the failure still there."""
    return min(FIRST_WAIT * (1 << min(max(tries, 0), _LAST_DOUBLING)), MAX_WAIT)


def decide_probe_step(state: ProbeState, *, now: datetime, left_today: int) -> ProbeStep:
    """Decide the next step of the probes of a cause.

    Args:
        state: of the cause.
        now: the time of the decision.
        left_today: events that probes may still release today.
    """
    tries = state.tries
    if state.death_id is not None:
        if state.outcome is None:
            return ProbeStep(ProbeAction.WAIT, tries, state.due_at)
        delivered = state.outcome == "delivered"
        action = ProbeAction.FLAG if delivered and state.is_wanted else ProbeAction.RECORD
        return ProbeStep(action, tries, now + compute_wait(tries))
    if state.fix_id is not None:
        if state.fix_closed_at is None:
            return ProbeStep(ProbeAction.WAIT, tries, state.due_at)
        tries = 0 if state.fix_status == "verified" else tries
        return ProbeStep(ProbeAction.RECORD, tries, state.fix_closed_at + compute_wait(tries))
    if not state.is_wanted or now < state.due_at or left_today <= 0:
        return ProbeStep(ProbeAction.WAIT, tries, state.due_at)
    return ProbeStep(ProbeAction.RELEASE, tries + 1, now + compute_wait(tries + 1))
