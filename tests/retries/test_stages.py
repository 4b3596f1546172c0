"""The stages of a fix, from the flag to its end."""

from dataclasses import replace
from datetime import timedelta
from zoneinfo import ZoneInfo

import pytest

from dlq_pipelines.audit import MAX_REASON_LENGTH
from dlq_pipelines.causes.classify import classify_deaths
from dlq_pipelines.causes.fingerprint import compute_cause_id
from dlq_pipelines.errors import NotFoundError, RefusedError
from dlq_pipelines.outbox.selection import Selection
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.retries.advance import (
    withdraw_fix,
)
from dlq_pipelines.retries.fix import Fix, FixStatus, RetryPolicy, WaitStep
from dlq_pipelines.retries.fixes import (
    FixFlag,
    flag_fix,
    get_fix,
    get_stage_outcomes,
    list_due_fixes,
)
from dlq_pipelines.retries.retry import (
    retry_events,
)
from tests.retries.helpers import (
    CAUSE,
    ERROR,
    POLICY,
    add_dead,
    advance,
    build_audit,
    flag_cause,
    get_cause_status,
    get_now,
    list_due,
    preview,
    run_worker,
)
from tests.rows import date_deaths, one
from tests.shapes import ShapedOutbox


def test_a_true_fix_goes_from_its_canary_to_verified(outbox: ShapedOutbox) -> None:
    """Canary, outcomes, the rest, outcomes; the cause is fixed and every event is done."""
    connection = outbox.connection
    outbox.add_dead(8)
    fix = flag_cause(connection)
    assert advance(connection, fix).released == 3
    assert outbox.count_states() == {"dead": 5, "waiting": 3}
    assert advance(connection, fix).released == 0
    outbox.run_worker(delivers=True)
    done = advance(connection, fix)
    assert (done.settled, done.released) == (3, 5)
    outbox.run_worker(delivers=True)
    done = advance(connection, fix)
    assert (done.fix.status, done.settled) == (FixStatus.VERIFIED, 5)
    assert outbox.count_states() == {"done": 8}
    assert get_cause_status(connection) == "fixed"
    assert {
        number: (stage.released, stage.delivered)
        for number, stage in get_stage_outcomes(connection, fix.id).items()
    } == {
        1: (3, 3),
        2: (5, 5),
    }
    audit = connection.execute("select kind, events, run_id from dlq.audit order by id").fetchall()
    assert [tuple(row.values()) for row in audit] == [
        ("fix.flag", 8, None),
        ("retry.stage", 3, "run-1"),
        ("retry.stage", 5, "run-1"),
        ("fix.verified", 0, "run-1"),
    ]


def test_a_false_fix_is_halted_at_its_canary(outbox: ShapedOutbox) -> None:
    """Nothing more is released, then or later; the verdict says what died; the cause is open."""
    connection = outbox.connection
    outbox.add_dead(8)
    fix = flag_cause(connection)
    advance(connection, fix)
    outbox.run_worker(delivers=False)
    done = advance(connection, fix)
    assert done.fix.status is FixStatus.HALTED
    assert "3 of 3 failed (3 died again" in (done.fix.verdict or "")
    assert advance(connection, fix).released == 0
    assert outbox.count_states() == {"dead": 8}
    assert get_cause_status(connection) == "open"
    assert list_due(connection, later=86_400) == []


def test_a_withdrawn_fix_releases_nothing_more(outbox: ShapedOutbox) -> None:
    """What is released stays with the worker; the cause is open; a second time is refused."""
    connection = outbox.connection
    outbox.add_dead(8)
    fix = flag_cause(connection)
    advance(connection, fix)
    done = withdraw_fix(connection, fix.id, audit=build_audit(reason="rolled back"))
    assert (done.status, done.verdict) == (FixStatus.WITHDRAWN, "withdrawn by bob: rolled back")
    outbox.run_worker(delivers=True)
    assert advance(connection, fix).released == 0
    assert outbox.count_states() == {"dead": 5, "done": 3}
    assert get_cause_status(connection) == "open"
    with pytest.raises(RefusedError, match=f"Fix {fix.id} is withdrawn already"):
        withdraw_fix(connection, fix.id, audit=build_audit(reason="again"))
    with pytest.raises(NotFoundError, match="no fix 99"):
        withdraw_fix(connection, 99, audit=build_audit(reason="none"))
    kinds = one(connection, "select array_agg(kind order by id) as kinds from dlq.audit")["kinds"]
    assert kinds == ["fix.flag", "retry.stage", "fix.withdrawn"]


def test_deaths_after_the_flag_are_never_targets(outbox: ShapedOutbox) -> None:
    """What dies again is not the fix's own prey, so a fix always ends."""
    connection = outbox.connection
    outbox.add_dead(3)
    fix = flag_cause(connection, policy=RetryPolicy(canary=3, min_success=0.3, rate=1000.0))
    outbox.add_dead(4)
    advance(connection, fix)
    outbox.run_worker(delivers=True)
    assert advance(connection, fix).fix.status is FixStatus.VERIFIED
    assert outbox.count_states() == {"done": 3, "dead": 4}


def test_a_fix_of_an_event_type_leaves_the_others(outbox: ShapedOutbox) -> None:
    """Count and release have the same filter."""
    connection = outbox.connection
    outbox.add_dead(2, event_type="a")
    outbox.add_dead(3, event_type="b")
    assert preview(connection, Selection(cause=CAUSE, event_type="b")).events == 3
    advance(connection, flag_cause(connection, event_type="b"))
    waiting = outbox.list_numbers("waiting")
    assert {outbox.read_row(number)["event_type"] for number in waiting} == {"b"}


def test_a_fix_without_events_to_release_is_rejected(outbox: ShapedOutbox) -> None:
    """Neither verified nor halted: nothing was tried."""
    connection = outbox.connection
    outbox.add_dead(1)
    fix = flag_cause(connection)
    retry_events(connection, outbox.event_ids(1), audit=build_audit(reason="by hand"))
    assert advance(connection, fix).fix.status is FixStatus.REJECTED
    assert get_cause_status(connection) == "open"


def test_a_fix_does_not_end_while_unclassified_deaths_may_match_it(outbox: ShapedOutbox) -> None:
    """Deaths that turn out to have its cause are released too; other types do not delay it."""
    connection = outbox.connection
    outbox.add_dead(3, event_type="a")
    fix = flag_cause(connection, event_type="a", policy=replace(POLICY, canary=10))
    _unclassified_before(outbox, fix, "a", "a", "b")
    wait = WaitStep("deaths from before the flag that may match it are not classified: 2")
    assert advance(connection, fix).step == wait
    outbox.run_worker(delivers=True)
    assert advance(connection, fix).step == wait
    classify_deaths(connection, zone=ZoneInfo("UTC"))
    assert advance(connection, fix).released == 2
    outbox.run_worker(delivers=True)
    assert advance(connection, fix).fix.status is FixStatus.VERIFIED


def _unclassified_before(outbox: ShapedOutbox, fix: Fix, *event_types: str) -> None:
    """Events of these types died before the fix was flagged, and nobody has classified them yet."""
    for event_type in event_types:
        outbox.add_dead(1, event_type=event_type, classified=False)
    before = fix.flagged_at - timedelta(minutes=1)
    date_deaths(outbox.connection, f"timestamptz '{before}'", where="cause_id is null")


def test_a_fix_is_due_when_a_step_would_do_something(outbox: ShapedOutbox) -> None:
    """It is due when flagged, when an outcome is not recorded, and when a retry times out."""
    connection = outbox.connection
    outbox.add_dead(8)
    fix = flag_cause(connection)

    def due(later: float = 0) -> bool:
        return list_due(connection, later=later) != []

    assert due()
    advance(connection, fix)
    assert (due(), due(later=59), due(later=61)) == (False, False, True)
    outbox.deliver([1])
    assert due()
    advance(connection, fix)
    assert not due()
    outbox.run_worker(delivers=True)
    advance(connection, fix)
    assert (outbox.count_states(), due()) == ({"done": 3, "waiting": 5}, False)
    outbox.run_worker(delivers=True)
    assert due()
    assert advance(connection, fix).fix.status is FixStatus.VERIFIED
    assert not due(later=61)


def test_locked_events_are_released_by_a_later_step(outbox: ShapedOutbox) -> None:
    """A run does not wait for them, and the fix stays due."""
    connection = outbox.connection
    outbox.add_dead(2)
    fix = flag_cause(connection)
    with outbox.database.connect() as other, other.transaction():
        outbox.lock_rows(other)
        assert advance(connection, fix).released == 0
        assert list_due(connection) == [get_fix(connection, fix.id)]
    assert advance(connection, fix).released == 2


def test_a_halted_fix_shows_errors_before_and_after(outbox: ShapedOutbox) -> None:
    """Those of most events first, and what had no outcome as such."""
    connection = outbox.connection
    outbox.add_dead(4)
    fix = flag_cause(connection, policy=replace(POLICY, canary=4))
    advance(connection, fix)
    for event, error in ((1, "KeyError: 'a'"), (2, "KeyError: 'b'"), (3, ERROR)):
        outbox.give_up([event], error)
    done = advance(connection, fix, later=120)
    assert done.fix.status is FixStatus.HALTED
    shown = [(e["events"], e["outcome"], e["before"], e["after"]) for e in done.fix.evidence]
    assert shown[0] == (2, "died_again", ERROR, "KeyError: 'b'")
    assert sorted(shown[1:]) == [(1, "died_again", ERROR, ERROR), (1, "timed_out", ERROR, "")]


def _end(connection: Connection, database: Database, fix: Fix, status: FixStatus) -> None:
    """Let the fix end like that."""
    if status is FixStatus.WITHDRAWN:
        withdraw_fix(connection, fix.id, audit=build_audit())
        return
    if status is FixStatus.REJECTED:
        connection.execute("update outbox_event set status = 'done' where status = 'dead'")
    advance(connection, fix)
    run_worker(database, delivers=status is FixStatus.VERIFIED)
    assert (
        advance(connection, fix, later=15 * 86_400 * (status is FixStatus.EXPIRED)).fix.status
        is status
    )


def _cause_state(connection: Connection) -> tuple[object, ...]:
    return tuple(
        one(connection, f"select status, fixed_at from dlq.cause where id = '{CAUSE}'").values()
    )


@pytest.mark.parametrize("known", ["fixed", "regressed"])
@pytest.mark.parametrize(
    "ends",
    [
        FixStatus.VERIFIED,
        FixStatus.HALTED,
        FixStatus.WITHDRAWN,
        FixStatus.REJECTED,
        FixStatus.EXPIRED,
    ],
)
def test_the_end_of_a_fix_of_a_whole_cause_sets_the_state_of_the_cause(
    connection: Connection, database: Database, known: str, ends: FixStatus
) -> None:
    """Any other end restores the earlier state, and a fix of a part of a cause never sets it."""
    add_dead(connection, 2, event_type="a")
    before = (known, get_now() - timedelta(days=1))
    connection.execute("update dlq.cause set status = %s, fixed_at = %s", before)
    part = flag_cause(connection, event_type="a")
    assert _cause_state(connection) == before
    _end(connection, database, part, ends)
    assert _cause_state(connection) == before
    add_dead(connection, 2, event_type="b")
    whole = flag_cause(connection)
    assert _cause_state(connection) == ("fixing", None)
    _end(connection, database, whole, ends)
    shown = {FixStatus.VERIFIED: ("fixed", whole.flagged_at), FixStatus.HALTED: ("open", None)}
    assert _cause_state(connection) == shown.get(ends, before)


def test_the_fix_advanced_longest_ago_comes_first(connection: Connection) -> None:
    """Fixes that wait for others do not keep the rest from their turn."""
    for error in ("A: x", "B: x", "C: x"):
        add_dead(connection, 1, error=error)
        flag_fix(
            connection,
            FixFlag(Selection(cause=compute_cause_id(error)), POLICY),
            audit=build_audit(),
        )
    connection.execute("update dlq.fix set stepped_at = now() where id = 1")
    due = list_due_fixes(connection, now=get_now(), max_backlog=timedelta(days=30), limit=2)
    assert [fix.id for fix in due] == [2, 3]


def test_a_fix_with_the_longest_note_advances(connection: Connection) -> None:
    """Its stages sign with the note behind their number, as far as the audit keeps a reason."""
    add_dead(connection, 1)
    fix = flag_fix(
        connection,
        FixFlag(Selection(cause=CAUSE), POLICY),
        audit=build_audit("ann", "n" * MAX_REASON_LENGTH),
    )
    assert advance(connection, fix).released == 1
    signed = one(connection, "select reason from dlq.audit where kind = 'retry.stage'")["reason"]
    assert signed == f"fix {fix.id}, stage 1: {'n' * MAX_REASON_LENGTH}"[:MAX_REASON_LENGTH]
