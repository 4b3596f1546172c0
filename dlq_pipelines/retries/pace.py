"""Decides at which rate a fix releases events: what the worker can take, and a fair share of it.

Pure: no clock, no database. The rate follows outcomes by additive increase and multiplicative
decrease (AIMD), as TCP does: bad news halves it, and good news adds a tenth of the fix's own rate.
"""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from math import inf
from typing import Any

from dlq_pipelines.retries.fix import MIN_RATE

# Outcomes whose share of failures is judged.
RECENT_OUTCOMES = 100
# The interval of the sensor: growth is slower than the outcomes that could speak against it.
GROWTH_INTERVAL = timedelta(seconds=30)
# From half of its own rate, a fix is back in five steps.
_GROWTH = 0.1
# Four halvings. A fix that fails more than that is halted by its stage, not slowed down further.
_LOWEST_SHARE = 1 / 16
_TIMES = ("ignored_until", "grows_after", "halved_due_at")
_STORED = dict.fromkeys(("recent", "recent_failed", "outcomes", "failed", *_TIMES)).keys()


@dataclass(frozen=True)
class RateState:
    """The current rate of a fix, and what it was judged by.

    Attributes:
        rate: events a second, before the fix shares the worker with others.
        recent: outcomes that count now, at most `RECENT_OUTCOMES`.
        recent_failed: failures among them; a fraction where only a part of a look counts.
        outcomes: outcomes of all stages at the last look.
        failed: failures among them.
        ignored_until: until then outcomes are of events that were released at a former rate.
        grows_after: until then the rate does not grow; None: it may.
        halved_due_at: `last_due_at` when it was halved: a worker that is behind and was given
            nothing since is no further news.
    """

    rate: float
    recent: int = 0
    recent_failed: float = 0.0
    outcomes: int = 0
    failed: int = 0
    ignored_until: datetime | None = None
    grows_after: datetime | None = None
    halved_due_at: datetime | None = None


@dataclass(frozen=True)
class RateNews:
    """What a look at a fix found.

    Attributes:
        outcomes: outcomes of all its stages.
        failed: failures among them.
        is_behind: the worker is further behind than `max_backlog`.
        last_due_at: the due time of the event that it released last; None: it released none.
    """

    outcomes: int
    failed: int
    is_behind: bool = False
    last_due_at: datetime | None = None


def compute_lowest_rate(rate: float) -> float:
    """Return the rate below which a fix of this rate is not slowed down."""
    return max(MIN_RATE, rate * _LOWEST_SHARE)


def adjust_rate(
    state: RateState, news: RateNews, *, rate: float, min_success: float, now: datetime
) -> RateState:
    """Return the rate of a fix after a look at its outcomes.

    - It halves if the worker is behind, or if more than half of the failures that `min_success`
      allows are among the last hundred outcomes: more than five by default. Fewer than a hundred
      outcomes count as if the others had been delivered; the stage judges those. The outcomes of
      one look have no order: they are taken as mixed.
    - After that it stays until the last event that was released before has fallen due. Outcomes
      that the first look after that finds say nothing about the new rate either.
    - It grows by a tenth of the fix's own rate, at most every 30 seconds, if there were outcomes
      since the last look and nothing was bad.

    Args:
        state: the state after the last look.
        news: what this look found.
        rate: the fix's own rate, which is the maximum.
        min_success: share of a stage that must be delivered.
        now: the time of the look.
    """
    seen = replace(state, outcomes=news.outcomes, failed=news.failed)
    if state.ignored_until is not None:
        return seen if now < state.ignored_until else replace(seen, ignored_until=None)
    arrived = max(0, news.outcomes - state.outcomes)
    seen = _count_recent(seen, arrived, min(arrived, max(0, news.failed - state.failed)))
    is_slow = news.is_behind and news.last_due_at not in (None, state.halved_due_at)
    # Rounded: 100 * (1 - 0.9) / 2 is a little less than 5.
    if is_slow or seen.recent_failed > round(RECENT_OUTCOMES * (1 - min_success) / 2, 6):
        until = max(now + GROWTH_INTERVAL, news.last_due_at or now)
        return replace(
            seen,
            rate=max(compute_lowest_rate(rate), seen.rate / 2),
            recent=0,
            recent_failed=0.0,
            ignored_until=until,
            grows_after=until,
            halved_due_at=news.last_due_at,
        )
    if news.is_behind or not arrived or (state.grows_after is not None and now < state.grows_after):
        return seen
    grown = seen.rate + rate * _GROWTH
    return replace(
        seen,
        # Five times 0.1 is a little less than a half.
        rate=grown if grown < rate * (1 - 1e-9) else rate,
        grows_after=now + GROWTH_INTERVAL if seen.rate < rate else None,
    )


def compute_share(own: float, others: Sequence[float], *, in_force: float) -> float:
    """Return the rate at which a fix may release events while others release theirs.

    Together they are as fast as the fastest of them would be alone. Max-min fair: none gets more
    than its own rate, and what a slow one leaves is shared by the others. While others still
    release at an earlier and larger share, the fix gets what they leave, but not nothing.

    Args:
        own: the current rate of the fix.
        others: the current rates of the other fixes that release events.
        in_force: the sum of the rates at which those released their last events.
    """
    capacity = max([own, *others])
    left, share = capacity, own
    demands = sorted([own, *others])
    for number, demand in enumerate(demands):
        share = left / (len(demands) - number)
        if demand > share:
            break
        left -= demand
    else:
        share = own
    fair = min(own, share)
    return min(fair, max(compute_lowest_rate(own), capacity - in_force))


def read_rate_state(stored: object, rate: float) -> RateState:
    """Read the state that `write_rate_state` wrote; None: the fix was not judged yet.

    Raises:
        ValueError: `write_rate_state` writes no such value; it was written by hand.
    """
    if stored is None:
        return RateState(rate)
    if not isinstance(stored, dict) or not stored.keys() <= _STORED:
        raise ValueError(f"rate_state must be an object with fields among {', '.join(_STORED)}")
    values: dict[str, Any] = {
        name: _read_time(name, value) if name in _TIMES else _read_count(name, value)
        for name, value in stored.items()
    }
    return RateState(rate, **values)


def _read_time(name: str, value: object) -> datetime | None:
    if value is None:
        return None
    with suppress(ValueError, TypeError):
        time = datetime.fromisoformat(value)  # type: ignore[arg-type]
        if time.tzinfo is not None:
            return time
    raise ValueError(f"rate_state: {name} must be a time with a time zone or null, not {value!r}")


def _read_count(name: str, value: object) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < inf:
        raise ValueError(f"rate_state: {name} must be a number from 0, not {value!r}")
    return value


def write_rate_state(state: RateState) -> str:
    """Write a state as JSON. Its rate has a column of its own."""
    given = asdict(state)
    del given["rate"]
    return json.dumps(given, default=datetime.isoformat)


def _count_recent(state: RateState, arrived: int, failed: int) -> RateState:
    """Count outcomes that arrived as recent ones; the oldest make room for them."""
    if arrived >= RECENT_OUTCOMES:
        return replace(
            state, recent=RECENT_OUTCOMES, recent_failed=RECENT_OUTCOMES * failed / arrived
        )
    kept = min(state.recent, RECENT_OUTCOMES - arrived)
    share = kept / state.recent if state.recent else 0.0
    return replace(state, recent=kept + arrived, recent_failed=state.recent_failed * share + failed)
