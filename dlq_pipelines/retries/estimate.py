"""Estimates how long a fix takes, by a simulation of its order, stages and settling.

Pure: no clock, no database. Assumes a worker that delivers each event as soon as it is due, and the
sensor's interval. The look-ahead slows down no fix: it is at least 60 seconds, two ticks of the
sensor, so each refill has more than falls due until the next one.
"""

import math
from collections.abc import Iterator, Mapping

from dlq_pipelines.retries.fix import RetryPolicy

# The sensor requests a run at each tick, unless one is in progress. A run goes on for so many
# seconds while events of aggregates follow one another, if the first of them falls due soon after
# it began; the next one begins with the cycle.
TICK_SECONDS = 30.0
FOLLOWING_SECONDS, _CYCLE_SECONDS = 285.0, 300.0
_SOON = 5.0
# From the release of an event to that of its successor: measured at 50 to 100 events a second.
_SECONDS_IN_ORDER = 0.01
# Parts that are simulated; the rest is extrapolated. As many take a tenth of a second.
_MAX_PARTS = 100_000


def estimate_seconds(
    policy: RetryPolicy,
    lengths: Mapping[int, int],
    *,
    singles_first: int = 0,
) -> float:
    """Return the seconds from the first step of a fix to its end, if all events are delivered.

    Args:
        policy: the policy of the fix.
        lengths: how many aggregates have so many events; without the order of aggregates, each
            event counts as one of its own.
        singles_first: aggregates of one event that died before those of more events.
    """
    events = sum(length * aggregates for length, aggregates in lengths.items())
    if policy.order != "aggregate":
        lengths = {1: events}
    done, begun, now, longest = 0, 0.0, 0.0, max(lengths, default=0)
    for parts, (number, round_ends, stage_ends, follows) in enumerate(
        _split(policy, lengths, events), start=1
    ):
        begun, spread = now, number / policy.rate
        # Until then no event is released that another one of its aggregate follows.
        is_followed = follows and done + number > singles_first
        now += max(spread, _SECONDS_IN_ORDER) if longest > 1 else spread
        done += number
        if done < events and (stage_ends or (round_ends and spread < TICK_SECONDS)):
            now = _wait_for_run(now, begun=begun, follows=is_followed)
        if parts == _MAX_PARTS:
            now *= events / done
            break
    # The run that finds the last outcome ends the fix.
    return _wait_for_run(now, begun=begun, follows=longest > 1)


def _split(
    policy: RetryPolicy, lengths: Mapping[int, int], events: int
) -> Iterator[tuple[int, bool, bool, bool]]:
    """Split the events of a fix where one can only be released after another one has ended.

    A round releases one event of each aggregate that has any left. Yields how many events are
    released together, whether their round ends with them, whether their stage does, and whether
    events of their aggregates follow them.
    """
    room = iter(policy.sizes(events))
    left_in_stage = next(room, 0)
    left = dict(sorted(lengths.items()))
    aggregates = sum(left.values())
    for depth in range(1, max(left, default=0) + 1):
        following = aggregates - left.get(depth, 0)
        left_in_round = aggregates
        while left_in_round:
            number = min(left_in_round, left_in_stage)
            left_in_round -= number
            left_in_stage -= number
            yield number, left_in_round == 0, left_in_stage == 0, following > 0
            if left_in_stage == 0:
                left_in_stage = next(room, 0)
        aggregates = following


def _wait_for_run(now: float, *, begun: float, follows: bool) -> float:
    """Return when a run goes on after outcomes that arrive until now.

    Args:
        now: seconds since the first step.
        begun: when the events that were released together began to fall due.
        follows: events of their aggregates follow, so that a run may wait for the outcomes.
    """
    cycle = now // _CYCLE_SECONDS * _CYCLE_SECONDS
    waits = begun >= cycle or now - cycle <= _SOON
    if follows and waits and now - cycle < FOLLOWING_SECONDS:
        return now
    return math.ceil(now / TICK_SECONDS) * TICK_SECONDS
