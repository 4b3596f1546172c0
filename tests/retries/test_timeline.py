"""A fix over time, as the ledger knows it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest

from dlq_pipelines.errors import NotFoundError
from dlq_pipelines.outbox.selection import Selection
from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.retries.advance import pause_fix
from dlq_pipelines.retries.fix import Fix, RetryPolicy
from dlq_pipelines.retries.fixes import FixFlag, flag_fix, get_stage_outcomes
from dlq_pipelines.retries.timeline import (
    MAX_INTERVALS,
    FixInterval,
    FixTimeline,
    read_fix_timeline,
    read_fix_timelines,
    render_timeline_text,
)
from tests.retries.helpers import advance, build_audit, flag_cause, get_now
from tests.shapes import ShapedOutbox

POLICY = RetryPolicy(canary=10, rate=1000.0, min_success=0.5, settle_seconds=60)
START = datetime(2026, 11, 24, 18, 30, tzinfo=UTC)


def read(connection: Connection, fix: Fix, *, until: datetime | None = None) -> FixTimeline:
    return read_fix_timeline(connection, fix.id, until=until or get_now())


def add_up(timeline: FixTimeline, name: str) -> int:
    return sum(getattr(interval, name) for interval in timeline.intervals)


def move(connection: Connection, fix: Fix, statement: str) -> None:
    """Set times of the retries of a fix; `n` numbers them from 0 in the order of due times."""
    connection.execute(
        f"update dlq.retry r set {statement} from"
        " (select death_id, row_number() over (order by due_at, death_id) - 1 as n"
        f" from dlq.retry where fix_id = {fix.id}) numbered"
        " where r.death_id = numbered.death_id".encode()
    )


def test_a_timeline_adds_up_to_the_stages(outbox: ShapedOutbox) -> None:
    """Of a fix whose events were delivered, died again, or have no outcome yet."""
    connection = outbox.connection
    outbox.add_dead(40)
    fix = flag_cause(connection, policy=POLICY)
    assert read(connection, fix).intervals == ()
    advance(connection, fix)
    for _ in range(2):
        taken = outbox.take(20, now=get_now() + timedelta(minutes=1))
        outbox.give_up(taken[:2])
        outbox.deliver(taken[2:])
        advance(connection, fix, later=1)
    stages = get_stage_outcomes(connection, fix.id).values()
    timeline = read(connection, fix, until=get_now() + timedelta(minutes=1))
    assert timeline.seconds == 30
    for name in ("released", "delivered", "died_again", "timed_out", "deleted"):
        assert add_up(timeline, name) == sum(getattr(stage, name) for stage in stages), name
    assert (add_up(timeline, "released"), add_up(timeline, "died_again")) == (40, 4)
    assert all(item.rate == pytest.approx(item.released / 30) for item in timeline.intervals)


def test_intervals_count_what_fell_due_and_what_was_found(outbox: ShapedOutbox) -> None:
    """Each event twice: when it fell due, and when its outcome was found; gaps are empty."""
    connection = outbox.connection
    outbox.add_dead(10)
    fix = flag_cause(connection, policy=POLICY)
    advance(connection, fix)
    now = get_now().replace(minute=0, second=0, microsecond=0)
    connection.execute("update dlq.fix set flagged_at = %s", [now])
    move(
        connection,
        fix,
        f"retried_at = '{now}', due_at = timestamptz '{now}' + n * interval '15 s',"
        f" outcome = case when n < 8 then 'delivered' else 'died_again' end,"
        f" settled_at = timestamptz '{now}' + interval '5 min'",
    )
    timeline = read(connection, fix, until=now + timedelta(hours=1))
    assert timeline.seconds == 30
    counted = [(item.released, item.delivered, item.died_again) for item in timeline.intervals]
    assert counted == [(2, 0, 0)] * 5 + [(0, 0, 0)] * 5 + [(0, 8, 2)]
    assert (timeline.start, timeline.end) == (now, now + timedelta(minutes=5, seconds=30))
    # As it was a minute after it began.
    early = read(connection, fix, until=now + timedelta(minutes=1))
    assert [(item.released, item.delivered) for item in early.intervals] == [(2, 0), (2, 0)]


@pytest.mark.parametrize(
    ("length", "seconds"),
    [
        (timedelta(minutes=23), 30),
        (timedelta(minutes=25), 60),
        (timedelta(hours=20), 1_800),
        (timedelta(days=365), 28 * 86_400),
        (timedelta(days=6_000 * 365), 73_000 * 86_400),
    ],
)
def test_a_timeline_of_any_length_has_few_intervals(
    outbox: ShapedOutbox, length: timedelta, seconds: int
) -> None:
    connection = outbox.connection
    outbox.add_dead(10)
    fix = flag_cause(connection, policy=POLICY)
    advance(connection, fix)
    # PostgreSQL 14 reads no text of more seconds than fit into four bytes.
    each = f"make_interval(secs => {length.total_seconds() / 9})"
    move(connection, fix, f"due_at = retried_at + n * {each}")
    timeline = read(connection, fix, until=get_now() + length + timedelta(minutes=1))
    assert timeline.seconds == seconds
    assert 2 <= len(timeline.intervals) <= MAX_INTERVALS
    assert add_up(timeline, "released") == 10


def test_recalled_events_were_never_released_to_a_worker(outbox: ShapedOutbox) -> None:
    """So the timeline of an earlier time is the same after the recall."""
    connection = outbox.connection
    outbox.add_dead(10)
    fix = flag_cause(connection, policy=replace(POLICY, rate=0.1))
    advance(connection, fix)
    until = get_now()
    before = read(connection, fix, until=until)
    assert add_up(before, "released") == 1
    assert pause_fix(connection, fix.id, audit=build_audit()).recalled == 9
    assert read(connection, fix, until=until) == before
    assert add_up(read(connection, fix, until=until + timedelta(days=1)), "released") == 1


def test_each_fix_has_a_timeline_of_its_own(outbox: ShapedOutbox) -> None:
    """Also one that released nothing; an unknown fix is an error."""
    connection = outbox.connection
    outbox.add_dead(9)
    fixes = [
        flag_fix(
            connection,
            FixFlag(Selection(event_ids=tuple(outbox.event_ids(*numbers))), POLICY),
            audit=build_audit(),
        )
        for numbers in ((1, 2), (3, 4, 5), (6, 7, 8, 9))
    ]
    for fix in fixes[:2]:
        advance(connection, fix)
    found = read_fix_timelines(
        connection, [fix.id for fix in fixes], until=get_now() + timedelta(minutes=1)
    )
    assert [add_up(found[fix.id], "released") for fix in fixes] == [2, 3, 0]
    with pytest.raises(NotFoundError, match="There is no fix 99"):
        read_fix_timeline(connection, 99, until=get_now())


def test_a_chart_fits_into_a_terminal_and_shows_single_events() -> None:
    intervals = [
        FixInterval(
            START + timedelta(minutes=number),
            released=40_000,
            delivered=39_999 - (number == 7),
            died_again=int(number == 7),
            rate=40_000 / 60,
        )
        for number in range(MAX_INTERVALS)
    ]
    chart = render_timeline_text(FixTimeline(60, tuple(intervals)), timezone(timedelta(hours=1)))
    lines = chart.split("\n")
    assert max(map(len, lines)) <= 80
    assert lines[1:] == [
        f"released   {'█' * 48} 1,920,000      667",
        f"delivered  {'█' * 48} 1,919,951      667",
        f"died again {' ' * 7}▁{' ' * 40}         1   0.0167",
        "1 min a column, from 2026-11-24 19:30:00+01 to 2026-11-24 20:18:00+01.",
    ]


def test_a_chart_has_rows_for_other_outcomes_if_there_are_any() -> None:
    busy = FixInterval(START, released=8, delivered=4, timed_out=3, deleted=1, rate=8 / 30)
    chart = render_timeline_text(FixTimeline(30, (busy,)), UTC)
    rows = {line[:11].strip(): line[11:12] for line in chart.split("\n")}
    assert [rows[name] for name in ("released", "delivered", "died again")] == ["█", "▄", " "]
    assert [rows[name] for name in ("timed out", "deleted")] == ["▃", "▁"]
    assert render_timeline_text(FixTimeline(30), UTC) == "No released event has fallen due yet."
