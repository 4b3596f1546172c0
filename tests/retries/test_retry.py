"""Fixes and retries on a real outbox: what is released, what the worker makes of it, and what is written down."""

import itertools
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pytest

from dlq_pipelines import OutboxRepository
from dlq_pipelines.archive.archive import archive_dead_events, discard_events
from dlq_pipelines.archive.restore import restore_events
from dlq_pipelines.audit import MAX_REASON_LENGTH, AuditContext, RunOptions
from dlq_pipelines.causes.classify import classify_deaths
from dlq_pipelines.causes.fingerprint import compute_cause_key
from dlq_pipelines.errors import NotFoundError, RefusedError
from dlq_pipelines.outbox.batches import FIRST_CURSOR, RetryResult, build_batch_parameters
from dlq_pipelines.outbox.selection import Selection, build_selection_parameters
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.retries.advance import (
    AdvanceResult,
    advance_fix,
    build_target_parameters,
    pause_fix,
    resume_fix,
    withdraw_fix,
)
from dlq_pipelines.retries.fix import Fix, FixStatus, FixTerms, RetryPolicy, WaitStep
from dlq_pipelines.retries.fixes import (
    FixFlag,
    FixPreview,
    flag_fix,
    get_fix,
    get_stage_outcomes,
    list_due_fixes,
    list_fixes,
    preview_fix,
)
from dlq_pipelines.retries.parked import release_parked
from dlq_pipelines.retries.retry import (
    retry_event,
    retry_events,
    retry_selected,
    retry_with_payload,
)
from dlq_pipelines.retries.settle import settle_outcomes, settle_retries
from tests.rows import add_events, kill, one, park

ERROR = "TimeoutError: no answer"
CAUSE = compute_cause_key(ERROR)
# As an application does that tidies its own table.
ARCHIVED_AS_DONE = """
    with moved as (delete from outbox_event returning *)
    insert into outbox_event_archive
    select id, aggregate_type, aggregate_id, event_type, payload, 'done', attempts, next_run_at, created_at from moved
"""
POLICY = RetryPolicy(canary=3, rate=1000.0, min_success=0.9, settle_seconds=60)
TERMS = FixTerms(max_backlog=timedelta(hours=1))


def _now() -> datetime:
    return datetime.now(UTC)


def _act(actor: str = "bob", reason: str = "asked") -> AuditContext:
    return AuditContext(actor, reason, _now())


def _dead(
    connection: Connection, count: int, *, error: str = ERROR, event_type: str = "order.placed"
) -> None:
    """Classified dead events."""
    add_events(connection, count, event_type=event_type)
    kill(connection, error, attempts=5, where="status = 'pending'")
    classify_deaths(connection, zone=ZoneInfo("UTC"))


def _flag(
    connection: Connection, *, policy: RetryPolicy = POLICY, event_type: str | None = None
) -> Fix:
    flag = FixFlag(Selection(cause=CAUSE, event_type=event_type), policy)
    return flag_fix(connection, flag, audit=_act("ann", "mended"))


def _advance(connection: Connection, fix: Fix, *, later: float = 0) -> AdvanceResult:
    audit = AuditContext("sensor", "a step is due", _now() + timedelta(seconds=later), "run-1")
    return advance_fix(connection, fix.id, audit=audit, terms=TERMS)


def _due(connection: Connection, *, later: float = 0) -> list[Fix]:
    now = _now() + timedelta(seconds=later)
    return list_due_fixes(connection, now=now, max_backlog=timedelta(days=30))


def _preview(
    connection: Connection, selection: Selection, policy: RetryPolicy = POLICY
) -> FixPreview:
    return preview_fix(connection, FixFlag(selection), audit=_act(), default=policy)


def _work(database: Database, *, delivers: bool) -> int:
    """A worker that takes all that is due, or will be in a second, and delivers it or lets it die."""
    with (
        OutboxRepository(database.url, max_attempts=1) as repository,
        database.connect() as connection,
    ):
        connection.execute("update outbox_event set next_run_at = now() where status = 'pending'")
        events = repository.fetch_pending(1000)
        for event in events:
            if delivers:
                repository.mark_success(event.id)
            else:
                repository.mark_retry(event.id, ERROR)
    return len(events)


def _counts(connection: Connection) -> dict[str, int]:
    rows = connection.execute(
        "select status, count(*) as n from outbox_event group by 1"
    ).fetchall()
    return {row["status"]: row["n"] for row in rows}


def _cause_status(connection: Connection) -> str:
    return str(one(connection, f"select status from dlq.cause where id = '{CAUSE}'")["status"])


def _wait_until_blocked(own: Connection, *, by: Connection) -> None:
    """Until what another thread does on `own` waits for a lock."""
    while not one(by, f"select cardinality(pg_blocking_pids({own.info.backend_pid})) as n")["n"]:
        time.sleep(0.01)


def test_flagging_writes_the_fix_the_cause_and_the_audit(connection: Connection) -> None:
    """In one transaction, and nothing of the outbox."""
    _dead(connection, 2)
    fix = _flag(connection)
    assert get_fix(connection, fix.id) == fix == list_fixes(connection)[0]
    assert (fix.status, fix.stage, fix.policy) == (FixStatus.ACTIVE, 0, POLICY)
    assert _cause_status(connection) == "fixing"
    audit = one(connection, "select kind, actor, reason, filter, events from dlq.audit")
    assert audit == {
        "kind": "fix.flag",
        "actor": "ann",
        "reason": "mended",
        "filter": {"fix": fix.id},
        "events": 2,
    }
    assert _counts(connection) == {"dead": 2}


def test_what_cannot_be_flagged_is_said_and_changes_nothing(connection: Connection) -> None:
    """An unknown cause, a second fix for one, a cause of which nothing is dead."""
    with pytest.raises(NotFoundError, match="no cause"):
        _flag(connection)
    _dead(connection, 1)
    with pytest.raises(RefusedError, match="No dead event"):
        _flag(connection, event_type="never.seen")
    first = _flag(connection)
    with pytest.raises(RefusedError, match=f"Fix {first.id} is open"):
        _flag(connection)
    assert one(connection, "select count(*) as n from dlq.audit")["n"] == 1


def test_of_two_flags_at_once_one_wins(connection: Connection, database: Database) -> None:
    """The other is refused and names it."""
    _dead(connection, 1)

    def flag(_: int) -> object:
        with database.connect() as own:
            try:
                return _flag(own)
            except RefusedError as error:
                return error

    with ThreadPoolExecutor(4) as pool:
        said = list(pool.map(flag, range(4)))
    assert sum(isinstance(answer, Fix) for answer in said) == 1
    assert one(connection, "select count(*) as n from dlq.fix")["n"] == 1


def test_a_true_fix_goes_from_its_canary_to_verified(
    connection: Connection, database: Database
) -> None:
    """Canary, outcomes, the rest, outcomes; the cause is fixed and every event is done."""
    _dead(connection, 8)
    fix = _flag(connection)
    assert _advance(connection, fix).released == 3
    assert _counts(connection) == {"dead": 5, "pending": 3}
    assert _advance(connection, fix).released == 0
    _work(database, delivers=True)
    done = _advance(connection, fix)
    assert (done.settled, done.released) == (3, 5)
    _work(database, delivers=True)
    done = _advance(connection, fix)
    assert (done.fix.status, done.settled) == (FixStatus.VERIFIED, 5)
    assert _counts(connection) == {"done": 8}
    assert _cause_status(connection) == "fixed"
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


def test_a_false_fix_is_halted_at_its_canary(connection: Connection, database: Database) -> None:
    """Nothing more is released, then or later; the verdict says what died; the cause is open."""
    _dead(connection, 8)
    fix = _flag(connection)
    _advance(connection, fix)
    _work(database, delivers=False)
    done = _advance(connection, fix)
    assert done.fix.status is FixStatus.HALTED
    assert "3 of 3 failed (3 died again" in (done.fix.verdict or "")
    assert _advance(connection, fix).released == 0
    assert _counts(connection) == {"dead": 8}
    assert _cause_status(connection) == "open"
    assert _due(connection, later=86_400) == []


def test_a_withdrawn_fix_releases_nothing_more(connection: Connection, database: Database) -> None:
    """What is released stays with the worker; the cause is open; a second time is refused."""
    _dead(connection, 8)
    fix = _flag(connection)
    _advance(connection, fix)
    done = withdraw_fix(connection, fix.id, audit=_act(reason="rolled back"))
    assert (done.status, done.verdict) == (FixStatus.WITHDRAWN, "withdrawn by bob: rolled back")
    _work(database, delivers=True)
    assert _advance(connection, fix).released == 0
    assert _counts(connection) == {"dead": 5, "done": 3}
    assert _cause_status(connection) == "open"
    with pytest.raises(RefusedError, match=f"Fix {fix.id} is withdrawn already"):
        withdraw_fix(connection, fix.id, audit=_act(reason="again"))
    with pytest.raises(NotFoundError, match="no fix 99"):
        withdraw_fix(connection, 99, audit=_act(reason="none"))
    kinds = one(connection, "select array_agg(kind order by id) as kinds from dlq.audit")["kinds"]
    assert kinds == ["fix.flag", "retry.stage", "fix.withdrawn"]


def test_deaths_after_the_flag_are_never_targets(
    connection: Connection, database: Database
) -> None:
    """What dies again is not the fix's own prey, so a fix always ends."""
    _dead(connection, 3)
    fix = _flag(connection, policy=RetryPolicy(canary=3, min_success=0.3, rate=1000.0))
    _dead(connection, 4)
    _advance(connection, fix)
    _work(database, delivers=True)
    assert _advance(connection, fix).fix.status is FixStatus.VERIFIED
    assert _counts(connection) == {"done": 3, "dead": 4}


def test_a_fix_of_an_event_type_leaves_the_others(connection: Connection) -> None:
    """Count and release have the same filter."""
    _dead(connection, 2, event_type="a")
    _dead(connection, 3, event_type="b")
    assert _preview(connection, Selection(cause=CAUSE, event_type="b")).events == 3
    _advance(connection, _flag(connection, event_type="b"))
    assert one(
        connection,
        "select array_agg(distinct event_type) as t from outbox_event where status = 'pending'",
    ) == {"t": ["b"]}


def test_nothing_left_to_prove_it_on_rejects_the_fix(connection: Connection) -> None:
    """Neither verified nor halted: nothing was tried."""
    _dead(connection, 1)
    fix = _flag(connection)
    retry_events(connection, [1], audit=_act(reason="by hand"))
    assert _advance(connection, fix).fix.status is FixStatus.REJECTED
    assert _cause_status(connection) == "open"


def test_a_fix_does_not_end_while_deaths_that_it_may_mean_have_no_cause(
    connection: Connection, database: Database
) -> None:
    """Neither verified nor rejected; what turns out to be of its cause is tried too; another type is not waited for."""
    _dead(connection, 3, event_type="a")
    fix = _flag(connection, event_type="a", policy=replace(POLICY, canary=10))
    _unclassified_before(connection, fix, "a", "a", "b")
    wait = WaitStep("deaths from before the flag that may match it are not classified: 2")
    assert _advance(connection, fix).step == wait
    _work(database, delivers=True)
    assert _advance(connection, fix).step == wait
    classify_deaths(connection, zone=ZoneInfo("UTC"))
    assert _advance(connection, fix).released == 2
    _work(database, delivers=True)
    assert _advance(connection, fix).fix.status is FixStatus.VERIFIED


def _unclassified_before(connection: Connection, fix: Fix, *event_types: str) -> None:
    """Events of these types died before the fix was flagged, and nobody has classified them yet."""
    for number, event_type in enumerate(event_types):
        connection.execute(
            "insert into outbox_event (aggregate_type, aggregate_id, event_type, payload, status, last_error, dead_at)"
            " values ('order', %s, %s, '{}', 'dead', %s, %s)",
            [f"late {number}", event_type, ERROR, fix.flagged_at - timedelta(minutes=1)],
        )


def test_released_events_start_anew_and_fall_due_at_the_rate(connection: Connection) -> None:
    """Attempts 0, no time of death, n / rate apart, oldest death first; the error stays to be read."""
    _dead(connection, 4)
    _advance(connection, _flag(connection, policy=RetryPolicy(canary=4, rate=2.0)))
    rows = connection.execute(
        "select id, attempts, dead_at, last_error, next_run_at - min(next_run_at) over () as after"
        " from outbox_event order by next_run_at"
    ).fetchall()
    assert [(row["id"], row["after"].total_seconds()) for row in rows] == [
        (1, 0),
        (2, 0.5),
        (3, 1),
        (4, 1.5),
    ]
    assert {(row["attempts"], row["dead_at"], row["last_error"]) for row in rows} == {
        (0, None, ERROR)
    }


def test_runs_at_once_release_nothing_twice(connection: Connection, database: Database) -> None:
    """One works, the others see that it does and leave."""
    _dead(connection, 40)
    fix = _flag(connection, policy=RetryPolicy(canary=20, rate=1000.0))

    def advance(_: int) -> AdvanceResult:
        with database.connect() as own:
            return _advance(own, fix)

    with ThreadPoolExecutor(6) as pool:
        done = list(pool.map(advance, range(6)))
    assert sum(one.released for one in done) == 20
    assert _counts(connection) == {"dead": 20, "pending": 20}
    assert one(
        connection, "select count(*) as n, count(distinct event_id) as d from dlq.retry"
    ) == {"n": 20, "d": 20}


@pytest.mark.parametrize("table", ["dlq.retry", "dlq.audit"])
def test_a_release_that_fails_midway_leaves_nothing_of_itself(
    connection: Connection, database: Database, table: str
) -> None:
    """Whichever of its writes fails; the next run does the whole of it."""
    _dead(connection, 5)
    fix = _flag(connection)
    connection.execute(
        "create function die() returns trigger language plpgsql as"
        " $$ begin perform pg_terminate_backend(pg_backend_pid()); return new; end $$;"
        f"create trigger die before insert on {table} for each row execute function die()".encode()
    )
    with database.connect() as own, pytest.raises(psycopg.OperationalError):
        _advance(own, fix)
    assert _counts(connection) == {"dead": 5}
    assert one(connection, "select count(*) as n from dlq.retry")["n"] == 0
    connection.execute(f"drop trigger die on {table}".encode())
    assert _advance(connection, fix).released == 3


@pytest.mark.parametrize(
    ("happens", "outcome"),
    [
        ("update outbox_event set status = 'done'", "delivered"),
        ("update outbox_event set status = 'dead'", "died_again"),
        ("delete from outbox_event", "deleted"),
        (ARCHIVED_AS_DONE, "delivered"),
        ("select 1", "timed_out"),
    ],
    ids=["delivered", "died again", "deleted", "archived as done", "nothing in time"],
)
def test_an_outcome_is_what_became_of_the_event(
    connection: Connection, happens: str, outcome: str
) -> None:
    """Before the time-out an event that has done nothing has no outcome."""
    _dead(connection, 1)
    fix = _flag(connection)
    _advance(connection, fix)
    connection.execute(happens.encode())
    early = settle_outcomes(connection, now=_now(), settle_seconds=60, fix_id=fix.id)
    late = settle_outcomes(
        connection, now=_now() + timedelta(seconds=120), settle_seconds=60, fix_id=fix.id
    )
    assert (early, late) == ((0, 1) if outcome == "timed_out" else (1, 0))
    assert one(connection, "select outcome from dlq.retry") == {"outcome": outcome}


def test_an_outcome_in_time_or_none_is_final(connection: Connection, database: Database) -> None:
    """Delivered too late, an event is done and proves nothing."""
    _dead(connection, 1)
    fix = _flag(connection)
    _advance(connection, fix)
    assert _advance(connection, fix, later=120).fix.status is FixStatus.HALTED
    _work(database, delivers=True)
    assert settle_outcomes(connection, now=_now() + timedelta(days=1), settle_seconds=60) == 0
    assert one(connection, "select outcome from dlq.retry") == {"outcome": "timed_out"}
    assert _counts(connection) == {"done": 1}


def test_what_is_delivered_late_and_then_deleted_is_not_missing(connection: Connection) -> None:
    """Its outcome stays; one that was never seen to be delivered is missed."""
    _dead(connection, 2)
    retry_events(connection, [1, 2], audit=_act())
    assert settle_retries(connection, now=_now() + timedelta(seconds=120), settle_seconds=60) == 2
    connection.execute("update outbox_event set status = 'done' where id = 1")
    assert settle_retries(connection, now=_now() + timedelta(days=1), settle_seconds=60) == 0
    connection.execute("delete from outbox_event")
    assert one(connection, "select array_agg(outcome) as o from dlq.retry") == {
        "o": ["timed_out"] * 2
    }
    assert connection.fetch_one("archive.unaccounted") == {
        "missing": 1,
        "doubled": 0,
        "examples": [2],
    }


def test_each_retry_of_an_event_has_an_outcome_of_its_own(
    connection: Connection, database: Database
) -> None:
    """Retried, dead again, retried, delivered, and only then looked at."""
    _dead(connection, 1)
    for delivers in (False, True):
        retry_events(connection, [1], audit=_act(reason="asked"))
        _work(database, delivers=delivers)
    assert settle_outcomes(connection, now=_now(), settle_seconds=60) == 2
    assert one(connection, "select array_agg(outcome order by death_id) as o from dlq.retry") == {
        "o": ["died_again", "delivered"]
    }


def test_what_an_ended_fix_has_released_is_settled_with_the_retries_of_people(
    connection: Connection, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of an active fix are its own business."""
    _dead(connection, 8)
    fix = _flag(connection)
    _advance(connection, fix)
    retry_events(connection, [8], audit=_act(reason="asked"))
    _work(database, delivers=True)
    assert settle_outcomes(connection, now=_now(), settle_seconds=60) == 1
    assert one(connection, "select event_id from dlq.retry where outcome = 'delivered'") == {
        "event_id": 8
    }
    withdraw_fix(connection, fix.id, audit=_act(reason="rolled back"))
    monkeypatch.setattr("dlq_pipelines.retries.settle.BATCH", 2)
    assert settle_retries(connection, now=_now(), settle_seconds=60) == 3
    assert get_stage_outcomes(connection, fix.id)[1].delivered == 3


def test_outcomes_behind_a_page_without_any_are_written_down(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the worker has not come to stands at the head of what is outstanding, and stays."""
    _dead(connection, 5)
    retry_events(connection, range(1, 6), audit=_act(), rate=100_000)
    connection.execute("update outbox_event set status = 'done' where id = 5")
    monkeypatch.setattr("dlq_pipelines.retries.settle.BATCH", 2)
    assert settle_retries(connection, now=_now(), settle_seconds=60) == 1
    assert one(connection, "select event_id from dlq.retry where outcome = 'delivered'") == {
        "event_id": 5
    }


def test_a_page_of_outcomes_costs_the_same_however_much_is_outstanding(
    connection: Connection,
) -> None:
    """In pages of the database that are looked at: the ledger is read neither to find them nor to write them."""
    costs = []
    for more in (4_000, 16_000):
        connection.execute(
            "insert into outbox_event (aggregate_type, aggregate_id, event_type, payload, status, last_error)"
            " select 'order', n::text, 'e', '{}', 'dead', 'x' from generate_series(1, %s) n",
            [more],
        )
        retry_selected(
            connection, Selection(all=True), audit=_act(), rate=100_000, max_retries=None
        )
        connection.execute("update outbox_event set status = 'done' where status = 'pending'")
        connection.execute("vacuum analyze")
        with connection.transaction(force_rollback=True):
            costs.append(_pages(connection, "retry.settle", **_outstanding(), fix_id=None))
    assert costs[1] < 1.5 * costs[0], costs


def test_a_storm_that_the_planner_has_not_heard_of_costs_no_more(connection: Connection) -> None:
    """What it takes for a handful, an index of the dead or of the outstanding, is read whole for no event."""
    _dead(connection, 4_000)
    retry_selected(connection, Selection(all=True), audit=_act(), rate=None, max_retries=None)
    connection.execute("update outbox_event set status = 'done'")
    settle_retries(connection, now=_now(), settle_seconds=60)
    connection.execute("vacuum analyze")
    costs = {}
    for heard in (False, True):
        connection.execute(
            "insert into outbox_event (aggregate_type, aggregate_id, event_type, payload, status, last_error)"
            " select 'order', n::text, 'e', '{}', 'dead', 'x' from generate_series(1, 2000) n"
        )
        for statement, asked in (
            ("retry.take", _free(connection)),
            ("retry.settle", {**_outstanding(), "fix_id": None}),
        ):
            if heard:
                connection.execute("vacuum analyze")
            costs[statement, heard] = _pages(connection, statement, **{**asked, "rows": 5_000})
            connection.execute("update outbox_event set status = 'done' where status = 'pending'")
    assert one(connection, "select count(*) from dlq.retry where outcome = 'delivered'") == {
        "count": 8_000
    }
    for statement in ("retry.take", "retry.settle"):
        assert costs[statement, False] < 1.5 * costs[statement, True], costs


def _free(connection: Connection) -> dict[str, Any]:
    """All that is dead, released at once."""
    who = {
        "actor": "ann",
        "reason": "asked",
        "now": _now(),
        "due": _now(),
        "seconds_each": 0.0,
        "release": True,
    }
    return {**build_batch_parameters(connection, Selection(all=True)), **who, "ordered": True}


def test_a_fix_is_not_held_while_its_outcomes_are_written_down(
    connection: Connection, database: Database
) -> None:
    """They may be millions; a person who withdraws it does not wait for them."""
    _dead(connection, 3)
    fix = _flag(connection)
    _advance(connection, fix)
    _work(database, delivers=True)
    with ThreadPoolExecutor(1) as pool, database.connect() as own:
        with connection.transaction():
            connection.execute("select from dlq.fix_stage for update")
            advancing = pool.submit(_advance, own, fix)
            _wait_until_blocked(own, by=connection)
            connection.execute("select from dlq.fix for update nowait")
        assert advancing.result().settled == 3


def test_a_fix_is_due_when_a_step_would_do_something(
    connection: Connection, database: Database
) -> None:
    """Flagged; an outcome that nobody has written down; the time-out of what has none; not in between."""
    _dead(connection, 8)
    fix = _flag(connection)

    def due(later: float = 0) -> bool:
        return _due(connection, later=later) != []

    assert due()
    _advance(connection, fix)
    assert (due(), due(later=59), due(later=61)) == (False, False, True)
    connection.execute("update outbox_event set status = 'done' where id = 1")
    assert due()
    _advance(connection, fix)
    assert not due()
    _work(database, delivers=True)
    _advance(connection, fix)
    assert (_counts(connection), due()) == ({"done": 3, "pending": 5}, False)
    _work(database, delivers=True)
    assert due()
    assert _advance(connection, fix).fix.status is FixStatus.VERIFIED
    assert not due(later=61)


def test_events_that_others_hold_are_released_by_a_later_step(
    connection: Connection, database: Database
) -> None:
    """A run does not wait for them, and the fix stays due."""
    _dead(connection, 2)
    fix = _flag(connection)
    with database.connect() as other, other.transaction():
        other.execute("select from outbox_event for update")
        assert _advance(connection, fix).released == 0
        assert _due(connection) == [get_fix(connection, fix.id)]
    assert _advance(connection, fix).released == 2


def test_a_stage_of_many_events_is_released_in_batches_at_one_pace(
    connection: Connection, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of one moment; at its end the run still sees the one that somebody held at its beginning."""
    monkeypatch.setattr("dlq_pipelines.retries.fix.BATCH", 10)
    _dead(connection, 30)
    connection.execute("update outbox_event set dead_at = '2026-11-20 12:00Z'")
    connection.execute("update dlq.death set died_at = '2026-11-20 12:00Z'")
    fix = _flag(connection, policy=RetryPolicy(canary=40, rate=1.0))
    with database.connect() as other, other.transaction():
        other.execute("select from outbox_event where id = 4 for update")
        done = _advance(connection, fix)
    assert (done.released, done.step) == (29, WaitStep("other transactions hold 1 event"))
    rows = connection.execute(
        "select event_id, due_at - retried_at as after from dlq.retry order by due_at"
    ).fetchall()
    assert [row["event_id"] for row in rows] == [n for n in range(1, 31) if n != 4]
    assert [row["after"] for row in rows] == [timedelta(seconds=n) for n in range(29)]
    audit = (
        "select array_agg(events order by id) as events from dlq.audit where kind = 'retry.stage'"
    )
    assert one(connection, audit) == {"events": [10, 10, 9]}
    assert _advance(connection, fix).released == 1
    last = one(
        connection, "select max(due_at) - min(due_at) as after from dlq.retry where event_id <> 4"
    )["after"]
    late = one(connection, "select max(due_at) - min(due_at) as after from dlq.retry")["after"]
    assert late == last + timedelta(seconds=1)


def test_an_event_that_is_changed_while_it_is_looked_at_waits_for_the_next_run(
    connection: Connection, database: Database
) -> None:
    """As if somebody still held it: it stays dead, whole, and without a row in the ledger."""
    _dead(connection, 3)
    fix = _flag(connection)
    assert fix.policy is not None
    walk = {"after_time": FIRST_CURSOR[0], "after_id": 0, "rows": 5000, "room": 5000, "stage": 1}
    sign = {
        "release": True,
        "due": _now(),
        "seconds_each": 0.1,
        "now": _now(),
        "actor": "a",
        "reason": "r",
    }
    text = connection.render_query(
        "retry.take", **build_target_parameters(connection, fix, fix.policy), **walk, **sign
    )
    slow = text.replace(
        "    from page\n    cross join", "    from page cross join pg_sleep(1)\n    cross join"
    )
    assert slow != text
    with database.connect() as other, ThreadPoolExecutor() as pool:
        page = pool.submit(lambda: connection.execute(slow.encode()).fetchone())
        while not one(
            other, "select count(*) as n from pg_stat_activity where wait_event = 'PgSleep'"
        )["n"]:
            time.sleep(0.01)
        other.execute("update outbox_event set payload = '{}' where id = 2")
        found = page.result()
    assert found is not None
    assert (found["free"], found["taken"]) == (3, 2)
    assert one(
        connection, "select array_agg(event_id order by event_id) as ids from dlq.retry"
    ) == {"ids": [1, 3]}
    assert _counts(connection) == {"dead": 1, "pending": 2}
    assert _advance(connection, fix).released == 1


def test_a_run_that_passed_nothing_does_not_look_again(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six events in pages of two: three that release, and one that finds the end."""
    monkeypatch.setattr("dlq_pipelines.retries.fix.BATCH", 2)
    monkeypatch.setattr("dlq_pipelines.outbox.batches.BATCH", 2)
    _dead(connection, 6)
    fix = _flag(connection, policy=replace(POLICY, canary=10))
    asked: list[str] = []
    run = connection.run
    connection.run = lambda name, /, **values: (asked.append(name), run(name, **values))[1]  # type: ignore[method-assign]
    assert _advance(connection, fix).released == 6
    assert asked.count("retry.take") == 4


def _doomed(database: Database, killer: Connection, after: int) -> Connection:
    """A connection whose server process is gone once it has run that many statements."""
    own = database.open()
    run, count = own.run, itertools.count(1)

    def counted(name: str, /, **values: object) -> psycopg.Cursor[dict[str, object]]:
        cursor = run(name, **values)
        if next(count) == after:
            killer.execute("select pg_terminate_backend(%s, 5000)", [own.info.backend_pid])
        return cursor

    own.run = counted  # type: ignore[method-assign, assignment]
    return own


def test_a_run_that_is_killed_after_any_statement_is_taken_up_by_the_next(
    connection: Connection, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the canary, in the rest, in the verdict: events, ledger and audit agree, and nothing is done twice."""
    monkeypatch.setattr("dlq_pipelines.retries.fix.BATCH", 2)  # several releases a stage
    books = """
        select (select count(*) from outbox_event where status <> 'dead') as events,
            (select count(*) from dlq.retry) as ledger,
            (select coalesce(sum(events), 0)::int from dlq.audit where kind = 'retry.stage') as audit
    """
    for after in itertools.count(1):
        _dead(connection, 5)
        fix, kills = _flag(connection, policy=RetryPolicy(canary=2, rate=1000.0)), 0
        for _ in ("the canary", "the rest", "the verdict"):
            with _doomed(database, connection, after) as own:
                try:
                    _advance(own, fix)
                except psycopg.OperationalError:
                    kills += 1
            assert len(set(one(connection, books).values())) == 1
            _advance(connection, fix)
            _work(database, delivers=True)
        released = {
            number: (stage.released, stage.delivered)
            for number, stage in get_stage_outcomes(connection, fix.id).items()
        }
        assert (get_fix(connection, fix.id).status, released) == (
            FixStatus.VERIFIED,
            {1: (2, 2), 2: (3, 3)},
        )
        assert (
            one(connection, "select count(*) as n from dlq.audit where kind = 'fix.verified'")["n"]
            == after
        )
        if not kills:
            break
    assert after > 15


@pytest.mark.parametrize("blank", ["actor", "reason"])
def test_nobody_acts_without_a_name_and_a_reason(connection: Connection, blank: str) -> None:
    """The argument is named and nothing is changed."""
    _dead(connection, 1)
    said = {"actor": "ann", "reason": "mended", "now": _now(), blank: " "}
    with pytest.raises(ValueError, match=blank):
        retry_events(connection, [1], audit=AuditContext(**said))
    assert one(connection, "select count(*) as n from dlq.audit")["n"] == 0


def test_retrying_by_hand_passes_over_what_is_not_dead(connection: Connection) -> None:
    """And a second time retries nothing; the audit says who, why and which."""
    _dead(connection, 3)
    add_events(connection, 1)
    retried = retry_events(
        connection, [1, 3, 4, 99, 3], audit=AuditContext("bob", "asked", _now(), "run-2")
    )
    assert (retried.events, retried.batches) == (2, 1)
    assert retry_events(connection, [1, 3], audit=_act(reason="asked")).events == 0
    assert _counts(connection) == {"dead": 1, "pending": 3}
    audit = one(connection, "select kind, actor, reason, filter, events, run_id from dlq.audit")
    shown = {"event_ids": [1, 3, 4, 99], "more": 0}
    assert audit == {
        "kind": "retry.selected", "actor": "bob", "reason": "asked", "filter": shown, "events": 2, "run_id": "run-2",
    }  # fmt: skip


def test_a_dry_run_counts_and_changes_nothing(connection: Connection) -> None:
    """The same events as the real one."""
    _dead(connection, 3)
    assert (
        retry_events(connection, [1, 2, 99], audit=_act(), options=RunOptions(dry_run=True)).events
        == 2
    )
    assert _counts(connection) == {"dead": 3}
    assert one(connection, "select count(*) as n from dlq.audit")["n"] == 0
    assert retry_events(connection, [1, 2, 99], audit=_act()).events == 2


def test_a_dry_run_of_what_is_done_to_a_fix_says_what_would_be_and_changes_nothing(
    connection: Connection, database: Database
) -> None:
    """Flagged, stepped, paused, resumed, withdrawn."""
    _dead(connection, 8)
    dry: Any = {"audit": _act(), "options": RunOptions(dry_run=True)}
    assert (
        flag_fix(connection, FixFlag(Selection(cause=CAUSE), POLICY), **dry).status
        is FixStatus.ACTIVE
    )
    assert (list_fixes(connection), _cause_status(connection)) == ([], "open")
    fix = _flag(connection)
    _advance(connection, fix)
    _work(database, delivers=True)

    def all_there_is() -> list[object]:
        tables = (
            "outbox_event",
            "dlq.fix",
            "dlq.fix_stage",
            "dlq.fix_outcome",
            "dlq.retry",
            "dlq.audit",
            "dlq.cause",
        )
        return [
            connection.execute(f"select * from {table} order by 1, 2".encode()).fetchall()
            for table in tables
        ]

    before = all_there_is()
    would = advance_fix(
        connection, fix.id, audit=_act(), options=RunOptions(dry_run=True), terms=TERMS
    )
    assert (would.settled, would.released, would.fix.stage) == (3, 5, 2)
    assert pause_fix(connection, fix.id, **dry).status is FixStatus.PAUSED
    assert withdraw_fix(connection, fix.id, **dry).status is FixStatus.WITHDRAWN
    assert all_there_is() == before
    paused = pause_fix(connection, fix.id, audit=_act())
    assert resume_fix(connection, fix.id, **dry).status is FixStatus.ACTIVE
    assert get_fix(connection, fix.id) == paused


def test_what_only_looks_leaves_no_trace_of_the_applications_triggers(
    connection: Connection,
) -> None:
    """Theirs of statements run for a statement that changes no row, too."""
    _dead(connection, 3)
    connection.execute(
        "create table told (at timestamptz); create function tell() returns trigger language plpgsql as"
        " $$ begin insert into told values (now()); return null; end $$;"
        " create trigger tell after update on outbox_event for each statement execute function tell()"
    )
    looks = (
        lambda: retry_events(connection, [1, 2], audit=_act(), options=RunOptions(dry_run=True)),
        lambda: retry_event(
            connection,
            1,
            audit=_act(),
            options=RunOptions(dry_run=True),
            payload="{}",
            allow_edit=True,
        ),
        lambda: discard_events(
            connection, Selection(event_ids=(1,)), audit=_act(), options=RunOptions(dry_run=True)
        ),
    )
    for look in looks:
        look()
        assert one(connection, "select count(*) from told") == {"count": 0}
    retry_events(connection, [1, 2], audit=_act())
    assert one(connection, "select count(*) from told") == {"count": 1}


def test_many_ids_are_released_in_batches_at_one_pace(connection: Connection) -> None:
    """5,000 a transaction, and the second batch falls due after the first."""
    connection.execute(
        "insert into outbox_event (aggregate_type, aggregate_id, event_type, payload, status, last_error)"
        " select 'order', n::text, 'e', '{}', 'dead', 'x' from generate_series(1, 7000) n"
    )
    done = retry_events(connection, range(1, 7001), audit=_act(reason="all"), rate=100.0)
    assert (done.events, done.batches) == (7000, 2)
    span = one(connection, "select max(next_run_at) - min(next_run_at) as span from outbox_event")[
        "span"
    ]
    assert span == timedelta(seconds=69.99)
    assert one(connection, "select array_agg(events order by id) as e from dlq.audit") == {
        "e": [5000, 2000]
    }


def test_parked_events_are_released_page_by_page_at_one_pace(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many they are, a page of them is held at a time. A dry run counts them all."""
    _dead(connection, 6)
    park(connection, [1, 2, 3, 5, 6])
    monkeypatch.setattr("dlq_pipelines.retries.parked.BATCH", 2)

    def release(*, dry_run: bool = False) -> RetryResult:
        return release_parked(
            connection,
            Selection(all=True),
            max_retries=3,
            audit=_act(),
            options=RunOptions(dry_run=dry_run),
            rate=10,
        )

    assert release(dry_run=True) == RetryResult(5, 3)
    assert release() == RetryResult(5, 3)
    assert release() == RetryResult(0, 0)
    assert _counts(connection) == {"dead": 1, "pending": 5}
    span = one(
        connection,
        "select max(next_run_at) - min(next_run_at) as span from outbox_event where status = 'pending'",
    )
    assert span["span"] == timedelta(seconds=0.4)
    assert one(connection, "select array_agg(events order by id) as e from dlq.audit") == {
        "e": [2, 2, 1]
    }


def _explain(connection: Connection, statement: str, **values: object) -> str:
    text = connection.render_query(statement, **values)
    return "\n".join(
        row["QUERY PLAN"] for row in connection.execute(f"explain {text}".encode()).fetchall()
    )


def _pages(connection: Connection, statement: str, **values: object) -> int:
    """Pages of the database that the statement looks at."""
    text = connection.render_query(statement, **values)
    (plan,) = one(connection, f"explain (analyze, buffers, format json) {text}")["QUERY PLAN"]
    return int(plan["Plan"]["Shared Hit Blocks"]) + int(plan["Plan"]["Shared Read Blocks"])


def _outstanding() -> dict[str, Any]:
    return {
        "now": _now(),
        "settle_seconds": 60,
        "after_time": FIRST_CURSOR[0],
        "after_id": 0,
        "rows": 100,
    }


@pytest.fixture(params=[500, 1], ids=["of many causes", "of one cause"])
def crowded(request: pytest.FixtureRequest, connection: Connection) -> tuple[Connection, Fix]:
    """20,000 dead events, a fix that has released its canary, and the ledger of what was retried before."""
    connection.execute(
        "insert into outbox_event (aggregate_type, aggregate_id, event_type, payload, status, last_error)"
        " select 'order', n::text, 'e', '{}', 'dead', 'Error' || n %% %s || ': x' from generate_series(1, 20000) n",
        [request.param],
    )
    classify_deaths(connection, zone=ZoneInfo("UTC"))
    cause = one(connection, "select cause_id from dlq.death limit 1")["cause_id"]
    fix = flag_fix(
        connection, FixFlag(Selection(cause=cause), RetryPolicy(canary=20)), audit=_act()
    )
    _advance(connection, fix)
    connection.execute(
        "insert into outbox_event_archive select 100000 + id, aggregate_type, aggregate_id, event_type, payload,"
        " status, attempts, next_run_at, created_at from outbox_event"
    )
    connection.execute(
        "with past as (insert into dlq.death"
        " (event_id, aggregate_type, aggregate_id, event_type, attempts, died_at, cause_id) select 200000 + n, 'order',"
        " n::text, 'e', 5, '2026-01-01Z', 'v1-past' from generate_series(1, 20000) n returning *)"
        " insert into dlq.retry (death_id, event_id, aggregate_type, aggregate_id, actor, reason, retried_at, due_at,"
        " outcome, settled_at) select id, event_id, aggregate_type, aggregate_id, 'a', 'r', died_at, died_at, 'delivered',"
        " died_at from past"
    )
    connection.execute("analyze")
    return connection, fix


def _statements(connection: Connection, fix: Fix) -> dict[str, dict[str, Any]]:
    assert fix.policy is not None
    walk = {"after_time": FIRST_CURSOR[0], "after_id": 0, "rows": 5000, "room": 5, "stage": 1}
    by_type = replace(fix, selection=Selection(event_type="e"))
    by_ids = replace(fix, selection=Selection(event_ids=(1, 2, 3)))
    parked = {
        **build_selection_parameters(connection, Selection(all=True), before=_now()),
        "max_retries": 3,
        "after": 0,
        "limit": 100,
    }
    walk |= {
        "release": True,
        "due": _now(),
        "seconds_each": 0.1,
        "now": _now(),
        "actor": "a",
        "reason": "r",
    }
    return {
        "retry.take": {**build_target_parameters(connection, fix, fix.policy), **walk},
        "retry.take of a page": {
            **build_target_parameters(connection, fix, fix.policy),
            **walk,
            "room": 5000,
        },
        "retry.take of a type": {
            **build_target_parameters(connection, by_type, fix.policy),
            **walk,
        },
        "retry.take of ids": {**build_target_parameters(connection, by_ids, fix.policy), **walk},
        "retry.take without a release": {
            **build_target_parameters(connection, fix, fix.policy),
            **walk,
            "release": False,
        },
        "retry.note_late": {"now": _now(), "limit": 100},
        "retry.next_due": {"now": _now(), "fix_id": fix.id, "seconds_each": 0.1},
        "retry.settle": _outstanding() | {"fix_id": fix.id},
        "retry.settle of people": _outstanding() | {"fix_id": None},
        "retry.left_by_fixes": {},
        "fix.due": {"now": _now(), "limit": 20, "congested": False},
        "fix.unclassified": {"fix_id": fix.id},
        "fix.backlog": {"now": _now()},
        "fix.failures": {"fix_id": fix.id, "stage": 1, "limit": 100},
        "retry.parked": parked | {"fix_id": None},
        "retry.parked of a fix": parked | {"fix_id": fix.id},
        "retry.deaths_of": {"event_id": 7, "limit": 100},
        "retry.retries_of": {"event_id": 7, "limit": 100},
        "retry.fix_of": {"event_id": 7},
    }


@pytest.mark.parametrize(
    "statement",
    [
        "retry.take",
        "retry.take of a page",
        "retry.take of a type",
        "retry.take of ids",
        "retry.take without a release",
        "retry.next_due",
        "retry.note_late",
        "retry.settle",
        "retry.settle of people",
        "retry.left_by_fixes",
        "fix.due",
        "fix.unclassified",
        "fix.backlog",
        "fix.failures",
        "retry.parked",
        "retry.parked of a fix",
        "retry.deaths_of",
        "retry.retries_of",
        "retry.fix_of",
    ],
)
def test_no_statement_of_a_fix_reads_whole_tables(
    crowded: tuple[Connection, Fix], statement: str
) -> None:
    """Each is led by an index on the fix or its cause, be it one of many or the only one."""
    connection, fix = crowded
    plan = _explain(
        connection, statement.partition(" ")[0], **_statements(connection, fix)[statement]
    )
    assert not re.search(r"Seq Scan on (death|retry|outbox_event|outbox_event_archive)\b", plan), (
        plan
    )
    # Counted in the order of the ledger's index: a page ends where it is full.
    assert not statement.startswith("retry.parked") or (
        "GroupAggregate" in plan and "Sort" not in plan
    ), plan
    # What the sensor asks twice a minute costs what is outstanding, not what ever died of the cause.
    assert statement != "fix.due" or not re.search(r"\bdeath\b", plan), plan


def _chain(connection: Connection, count: int, *, aggregate: str = "7", error: str = ERROR) -> None:
    """Dead events of one aggregate, written one after the other."""
    connection.execute(
        "insert into outbox_event (aggregate_type, aggregate_id, event_type, payload)"
        " select 'order', %s, 'e', '{}' from generate_series(1, %s)",
        [aggregate, count],
    )
    kill(connection, error, attempts=5, where="status = 'pending'")
    classify_deaths(connection, zone=ZoneInfo("UTC"))


def test_of_an_aggregate_the_next_event_follows_when_the_one_before_is_done(
    connection: Connection, database: Database
) -> None:
    """One at a time, in one stage, oldest first, though the later one died first."""
    _chain(connection, 3)
    connection.execute("update dlq.death set died_at = died_at - event_id * interval '1 minute'")
    connection.execute(
        "update outbox_event e set dead_at = d.died_at from dlq.death d where d.event_id = e.id"
    )
    fix = _flag(connection)
    for number in (1, 2, 3):
        assert _advance(connection, fix).released == 1
        assert one(
            connection, "select array_agg(id) as ids from outbox_event where status = 'pending'"
        )["ids"] == [number]
        assert _advance(connection, fix).released == 0
        _work(database, delivers=True)
    assert _advance(connection, fix).fix.status is FixStatus.VERIFIED
    assert get_stage_outcomes(connection, fix.id)[1].delivered == 3


def test_an_event_that_follows_when_nothing_is_outstanding_is_due_at_once(
    connection: Connection, database: Database
) -> None:
    """It waits for the one before it, and not for the times of all that its stage ever released."""
    _chain(connection, 3)
    fix = _flag(connection, policy=replace(POLICY, rate=0.01))
    for _ in range(3):
        assert _advance(connection, fix).released == 1
        _work(database, delivers=True)
    waited = connection.execute("select due_at - retried_at as waited from dlq.retry").fetchall()
    assert [row["waited"] for row in waited] == [timedelta()] * 3


def test_without_order_all_events_of_an_aggregate_go_at_once(connection: Connection) -> None:
    """Where it was said that they do not build on each other."""
    _chain(connection, 3)
    assert (
        _advance(connection, _flag(connection, policy=replace(POLICY, order="none"))).released == 3
    )


def test_what_follows_an_event_that_stays_dead_is_held_and_said(
    connection: Connection, database: Database
) -> None:
    """Behind a death of another cause, which this fix does not target."""
    _chain(connection, 1, error="KeyError: 'sku'")
    _chain(connection, 2)
    _dead(connection, 1)
    fix = _flag(connection)
    assert _advance(connection, fix).released == 1
    _work(database, delivers=True)
    done = _advance(connection, fix)
    assert done.fix.status is FixStatus.VERIFIED
    assert (done.fix.verdict or "").endswith("2 behind an earlier dead event of their aggregate")
    assert _counts(connection) == {"dead": 3, "done": 1}


def test_a_fix_waits_for_an_earlier_event_that_a_person_retried(
    connection: Connection, database: Database
) -> None:
    """And goes on when that is delivered."""
    _chain(connection, 2)
    fix = _flag(connection)
    retry_events(connection, [1], audit=_act())
    assert _advance(connection, fix).step == WaitStep(
        "1 events wait for an earlier event of their aggregate, which was retried without this fix"
    )
    _work(database, delivers=True)
    assert _advance(connection, fix).released == 1


def test_an_event_that_died_again_after_three_retries_is_parked(
    connection: Connection, database: Database
) -> None:
    """No fix releases it; a filter passes over it unless it is asked for; a person who names it does."""
    _dead(connection, 2)
    for _ in range(3):
        retry_events(connection, [1], audit=_act())
        _work(database, delivers=False)
    classify_deaths(connection, zone=ZoneInfo("UTC"))
    settle_outcomes(connection, now=_now(), settle_seconds=60)
    assert _preview(connection, Selection(cause=CAUSE)) == FixPreview(
        events=2, aggregates=2, parked=1, overtaken=0, stages=[1], seconds=0.001
    )
    fix = _flag(connection)
    assert _advance(connection, fix).released == 1
    _work(database, delivers=True)
    assert (_advance(connection, fix).fix.verdict or "").endswith("still dead: 1 parked")

    def would(most: int | None) -> int:
        return retry_selected(
            connection,
            Selection(all=True),
            audit=_act(),
            options=RunOptions(dry_run=True),
            rate=50.0,
            max_retries=most,
        ).events

    assert (would(3), would(None)) == (0, 1)
    assert retry_events(connection, [1], audit=_act()).events == 1


SELECTORS = {
    "a cause": (Selection(cause=CAUSE), {1, 2, 3}),
    "a type": (Selection(event_type="b"), {3, 4}),
    "a type of aggregate": (Selection(aggregate_type="order"), {1, 2, 3, 4}),
    "ids": (Selection(event_ids=(2, 4, 99)), {2, 4}),
    "a text, letter by letter": (Selection(error_contains="no 'sku_%"), {4}),
    "since": (Selection(since=datetime(2026, 11, 20, 12, 3, tzinfo=UTC)), {3, 4}),
    "until": (Selection(until=datetime(2026, 11, 20, 12, 3, tzinfo=UTC)), {1, 2}),
    "several of them": (Selection(cause=CAUSE, event_type="b"), {3}),
    "all": (Selection(all=True), {1, 2, 3, 4}),
}


@pytest.mark.parametrize("name", SELECTORS)
def test_a_selector_means_the_same_everywhere(connection: Connection, name: str) -> None:
    """In the preview, in a stage, in a retry by hand, in the archive's exclusion."""
    _dead(connection, 2, event_type="a")
    _dead(connection, 1, event_type="b")
    _dead(connection, 1, event_type="b", error="KeyError: no 'sku_%' in it")
    connection.execute(
        "update dlq.death set died_at = timestamptz '2026-11-20 12:00Z' + event_id * interval '1 min'"
    )
    connection.execute(
        "update outbox_event e set dead_at = d.died_at from dlq.death d where d.event_id = e.id"
    )
    selection, meant = SELECTORS[name]
    assert _preview(connection, selection).events == len(meant)
    by_hand = retry_selected(
        connection,
        selection,
        audit=_act(),
        options=RunOptions(dry_run=True),
        rate=50.0,
        max_retries=3,
    )
    assert by_hand.events == len(meant)
    fix = flag_fix(
        connection, FixFlag(selection, replace(POLICY, canary=10, order="none")), audit=_act()
    )
    assert get_fix(connection, fix.id).selection == selection
    moved = archive_dead_events(
        connection,
        before=_now(),
        only_exported=False,
        audit=_act(),
        options=RunOptions(dry_run=True),
    ).moved
    assert moved == 4 - len(meant)
    _advance(connection, fix)
    released = one(connection, "select array_agg(event_id) as ids from dlq.retry")["ids"]
    assert set(released) == meant


def test_fixes_that_target_the_same_events_are_refused(connection: Connection) -> None:
    """The first is named; fixes that look alike but share no event may be open together."""
    _dead(connection, 2, event_type="a")
    _dead(connection, 2, event_type="b", error="KeyError: 'sku'")
    first = _flag(connection, event_type="a")
    for overlapping in (
        Selection(event_type="a"),
        Selection(error_contains="answer"),
        Selection(event_ids=(1, 3)),
    ):
        with pytest.raises(RefusedError, match=f"Fix {first.id} is open"):
            flag_fix(connection, FixFlag(overlapping, POLICY), audit=_act())
        with pytest.raises(RefusedError, match=f"Fix {first.id} is open"):
            _preview(connection, overlapping)
    second = flag_fix(connection, FixFlag(Selection(error_contains="sku"), POLICY), audit=_act())
    assert [fix.id for fix in list_fixes(connection, only_open=True)] == [second.id, first.id]


def test_a_second_fix_of_a_cause_is_refused_while_the_first_waits_for_outcomes(
    connection: Connection,
) -> None:
    """All that it means is with the worker, and more has died of the cause since."""
    _dead(connection, 2)
    first = _flag(connection)
    assert _advance(connection, first).released == 2
    _dead(connection, 1)
    with pytest.raises(RefusedError, match=f"Fix {first.id} is open"):
        _flag(connection)


def test_a_preview_changes_nothing(connection: Connection) -> None:
    """Not the fix, not the cause, not the audit."""
    _dead(connection, 25)
    policy = RetryPolicy(canary=2, growth=3.0, rate=5.0)
    assert _preview(connection, Selection(cause=CAUSE), policy) == FixPreview(
        events=25, aggregates=25, parked=0, overtaken=0, stages=[2, 6, 17], seconds=5.0
    )
    assert (list_fixes(connection), _cause_status(connection)) == ([], "open")
    assert one(connection, "select count(*) as n from dlq.audit")["n"] == 0


@pytest.mark.parametrize(
    ("asks", "counted_from"),
    [
        (lambda own: _preview(own, Selection(cause=CAUSE)).events, "dlq.retry"),
        (lambda own: _flag(own).id, "outbox_event"),
    ],
    ids=["previewed", "flagged"],
)
def test_while_targets_are_counted_deaths_are_classified_and_others_may_flag(
    connection: Connection, database: Database, asks: Callable[[Connection], int], counted_from: str
) -> None:
    """It may take seconds, and a preview comes before every flag over HTTP."""
    _dead(connection, 1)
    add_events(connection, 1)
    kill(connection, ERROR, where="status = 'pending'")
    with ThreadPoolExecutor(1) as pool, database.connect() as own, database.connect() as other:
        with other.transaction():
            other.execute(f"lock table {counted_from}".encode())
            asking = pool.submit(asks, own)
            _wait_until_blocked(own, by=connection)
            assert classify_deaths(connection, zone=ZoneInfo("UTC")).deaths == 1
            assert one(connection, "select pg_try_advisory_xact_lock(1684828518) as free") == {
                "free": True
            }
        assert asking.result() > 0


def test_a_preview_counts_what_newer_events_have_overtaken(connection: Connection) -> None:
    """Of their own aggregate, and delivered; or says that it does not know, when counting takes too long."""
    _chain(connection, 2)
    connection.execute("update outbox_event set status = 'done' where id = 2")
    assert _preview(connection, Selection(cause=CAUSE)).overtaken == 1


def test_a_preview_that_takes_too_long_says_that_it_does_not_know(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And gives the other figures."""
    monkeypatch.setattr("dlq_pipelines.retries.fixes._PATIENCE", "1ms")
    _chain(connection, 2)
    connection.execute(
        "insert into outbox_event (aggregate_type, aggregate_id, event_type, payload, status)"
        " select 'order', '7', 'e', '{}', 'pending' from generate_series(1, 200000)"
    )
    would = _preview(connection, Selection(cause=CAUSE))
    assert (would.events, would.overtaken) == (2, None)


def test_a_paused_fix_releases_nothing_until_it_is_resumed(
    connection: Connection, database: Database
) -> None:
    """It keeps its targets, its outcomes are written down, and both acts are in the audit."""
    _dead(connection, 8)
    fix = _flag(connection)
    _advance(connection, fix)
    assert pause_fix(connection, fix.id, audit=_act()).status is FixStatus.PAUSED
    _work(database, delivers=True)
    assert (_advance(connection, fix).released, _due(connection)) == (0, [])
    assert get_stage_outcomes(connection, fix.id)[1].delivered == 3
    with pytest.raises(RefusedError, match="is paused"):
        pause_fix(connection, fix.id, audit=_act())
    with pytest.raises(RefusedError, match=f"Fix {fix.id} is open"):
        _flag(connection)
    assert resume_fix(connection, fix.id, audit=_act()).status is FixStatus.ACTIVE
    with pytest.raises(RefusedError, match="is active"):
        resume_fix(connection, fix.id, audit=_act())
    assert _advance(connection, fix).released == 5
    kinds = one(connection, "select array_agg(kind order by id) as kinds from dlq.audit")["kinds"]
    assert kinds == ["fix.flag", "retry.stage", "fix.paused", "fix.active", "retry.stage"]


def test_outcomes_of_a_paused_fix_are_settled_without_it(
    connection: Connection, database: Database
) -> None:
    """As those of ended ones, by the job that settles what people retried."""
    _dead(connection, 2)
    fix = _flag(connection)
    _advance(connection, fix)
    pause_fix(connection, fix.id, audit=_act())
    _work(database, delivers=True)
    assert settle_retries(connection, now=_now(), settle_seconds=60) == 2
    assert get_stage_outcomes(connection, fix.id)[1].delivered == 2


def test_no_stage_begins_while_the_worker_is_far_behind(connection: Connection) -> None:
    """Nor does the sensor ask for it; outcomes are written down all the same."""
    _dead(connection, 8)
    fix = _flag(connection)
    _advance(connection, fix)
    connection.execute("update outbox_event set status = 'done' where status = 'pending'")
    add_events(connection, 1)
    connection.execute(
        "update outbox_event set next_run_at = now() - interval '10 min' where status = 'pending'"
    )
    terms = FixTerms(max_backlog=timedelta(minutes=5))
    assert list_due_fixes(connection, now=_now(), max_backlog=terms.max_backlog) == [
        get_fix(connection, fix.id)
    ]
    done = advance_fix(connection, fix.id, audit=_act(), terms=terms)
    assert isinstance(done.step, WaitStep)
    assert (done.settled, done.released, done.step.reason[:21]) == (3, 0, "the worker is 600 s b")
    assert list_due_fixes(connection, now=_now(), max_backlog=terms.max_backlog) == []
    connection.execute("update outbox_event set status = 'done' where status = 'pending'")
    assert advance_fix(connection, fix.id, audit=_act(), terms=terms).released == 5


def test_a_fix_begins_not_before_its_time_and_ends_at_its_last(connection: Connection) -> None:
    """Expired, it is closed, its cause is open, and what it released stays with the worker."""
    _dead(connection, 8)
    flag = FixFlag(
        Selection(cause=CAUSE),
        POLICY,
        not_before=_now() + timedelta(hours=1),
        expires_at=_now() + timedelta(hours=3),
    )
    fix = flag_fix(connection, flag, audit=_act())
    assert (_due(connection), _advance(connection, fix).released) == ([], 0)
    assert _due(connection, later=3601)
    assert _advance(connection, fix, later=3601).released == 3
    assert _due(connection, later=3 * 3600 + 1)
    done = _advance(connection, fix, later=3 * 3600 + 1)
    assert (done.fix.status, _cause_status(connection)) == (FixStatus.EXPIRED, "open")
    assert _counts(connection) == {"dead": 5, "pending": 3}


def test_a_fix_without_a_policy_takes_the_installations_once(
    connection: Connection, database: Database
) -> None:
    """At its first step; so its verdict has one policy whatever the settings become."""
    _dead(connection, 8)
    fix = flag_fix(connection, FixFlag(Selection(cause=CAUSE)), audit=_act())
    assert (fix.policy, fix.expires_at) == (None, None)
    advance_fix(connection, fix.id, audit=_act(), terms=FixTerms(POLICY, timedelta(days=3)))
    taken = get_fix(connection, fix.id)
    assert (taken.policy, taken.expires_at) == (POLICY, fix.flagged_at + timedelta(days=3))
    _work(database, delivers=True)
    advance_fix(connection, fix.id, audit=_act(), terms=FixTerms(RetryPolicy(canary=1)))
    assert get_fix(connection, fix.id).policy == POLICY


def test_a_fix_has_its_time_from_when_it_may_begin(connection: Connection) -> None:
    """Flagged for a day after its expiry would be over, it is tried all the same."""
    _dead(connection, 1)
    day = _now() + timedelta(days=20)
    fix = flag_fix(
        connection, FixFlag(Selection(cause=CAUSE), POLICY, not_before=day), audit=_act()
    )
    assert _advance(connection, fix, later=20 * 86_400 + 60).released == 1
    assert get_fix(connection, fix.id).expires_at == day + TERMS.expiry


def test_a_fix_that_is_paused_before_its_first_step_expires_too(connection: Connection) -> None:
    """A step tells it when, and the sensor asks for that once."""
    _dead(connection, 1)
    fix = flag_fix(connection, FixFlag(Selection(cause=CAUSE), POLICY), audit=_act())
    pause_fix(connection, fix.id, audit=_act())
    assert [due.id for due in _due(connection)] == [fix.id]
    assert _advance(connection, fix).step == WaitStep("paused")
    assert (_due(connection), get_fix(connection, fix.id).expires_at) == (
        [],
        fix.flagged_at + TERMS.expiry,
    )
    later = TERMS.expiry.total_seconds() + 60
    assert [due.id for due in _due(connection, later=later)] == [fix.id]
    assert _advance(connection, fix, later=later).fix.status is FixStatus.EXPIRED


def test_a_flag_from_a_clock_that_is_ahead_does_not_target_its_own_prey(
    connection: Connection,
) -> None:
    """Deaths are dated by the server; so is the flag."""
    _dead(connection, 1)
    ahead = AuditContext("ann", "mended", _now() + timedelta(hours=1))
    fix = flag_fix(connection, FixFlag(Selection(cause=CAUSE), POLICY), audit=ahead)
    assert fix.flagged_at <= one(connection, "select clock_timestamp() as now")["now"]


def test_a_halted_fix_shows_the_new_errors_beside_the_old(connection: Connection) -> None:
    """Those of most events first, and what had no outcome as such."""
    _dead(connection, 4)
    fix = _flag(connection, policy=replace(POLICY, canary=4))
    _advance(connection, fix)
    for event, error in ((1, "KeyError: 'a'"), (2, "KeyError: 'b'"), (3, ERROR)):
        connection.execute(
            "update outbox_event set status = 'dead', last_error = %s where id = %s", [error, event]
        )
    done = _advance(connection, fix, later=120)
    assert done.fix.status is FixStatus.HALTED
    shown = [(e["events"], e["outcome"], e["before"], e["after"]) for e in done.fix.evidence]
    assert shown[0] == (2, "died_again", ERROR, "KeyError: 'b'")
    assert sorted(shown[1:]) == [(1, "died_again", ERROR, ERROR), (1, "timed_out", ERROR, "")]


def _end(connection: Connection, database: Database, fix: Fix, status: FixStatus) -> None:
    """Let the fix end like that."""
    if status is FixStatus.WITHDRAWN:
        withdraw_fix(connection, fix.id, audit=_act())
        return
    if status is FixStatus.REJECTED:
        connection.execute("update outbox_event set status = 'done' where status = 'dead'")
    _advance(connection, fix)
    _work(database, delivers=status is FixStatus.VERIFIED)
    assert (
        _advance(connection, fix, later=15 * 86_400 * (status is FixStatus.EXPIRED)).fix.status
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
def test_of_a_cause_that_a_fix_means_all_of_its_end_says_what_it_shows(
    connection: Connection, database: Database, known: str, ends: FixStatus
) -> None:
    """Proven or refuted; an end that shows neither gives back what was known before. A fix of a part says nothing."""
    _dead(connection, 2, event_type="a")
    before = (known, _now() - timedelta(days=1))
    connection.execute("update dlq.cause set status = %s, fixed_at = %s", before)
    part = _flag(connection, event_type="a")
    assert _cause_state(connection) == before
    _end(connection, database, part, ends)
    assert _cause_state(connection) == before
    _dead(connection, 2, event_type="b")
    whole = _flag(connection)
    assert _cause_state(connection) == ("fixing", None)
    _end(connection, database, whole, ends)
    shown = {FixStatus.VERIFIED: ("fixed", whole.flagged_at), FixStatus.HALTED: ("open", None)}
    assert _cause_state(connection) == shown.get(ends, before)


def test_an_event_that_another_transaction_holds_is_said_to_be_that(
    connection: Connection, database: Database
) -> None:
    """Not that it is not dead; with its payload or another; a moment later it is retried."""
    _dead(connection, 1)
    with database.connect() as other, other.transaction():
        other.execute("select from outbox_event where id = 1 for update")
        for payload in (None, "{}"):
            with pytest.raises(
                RefusedError, match="Event 1 is dead, but another transaction holds it"
            ):
                retry_event(connection, 1, audit=_act(), payload=payload, allow_edit=True)
    retry_event(connection, 1, audit=_act())
    with pytest.raises(NotFoundError, match="Event 1 is not dead"):
        retry_event(connection, 1, audit=_act())


def test_a_retry_with_another_payload_keeps_the_original(connection: Connection) -> None:
    """In the ledger, with who and why; only where it is allowed, and only of a dead event."""
    add_events(connection, 2, payload='{"sku": null, "price": 12345678901234567890.10}')
    kill(connection, ERROR, where="id = 1")
    park(connection, [1])  # of deaths before, which the ledger learned of after this one
    new = '{"sku": "A-1", "price": 0.12345678901234567890}'
    with pytest.raises(RefusedError, match="DLQ_ALLOW_EDIT"):
        retry_with_payload(connection, 1, new, audit=_act(), allowed=False)
    with pytest.raises(NotFoundError, match="Event 2 is not dead"):
        retry_with_payload(connection, 2, new, audit=_act(), allowed=True)
    retry_with_payload(
        connection, 1, new, audit=_act(), options=RunOptions(dry_run=True), allowed=True
    )
    assert _counts(connection) == {"dead": 1, "pending": 1}
    retry_with_payload(connection, 1, new, audit=_act(), allowed=True)
    assert one(connection, "select payload::text, status from outbox_event where id = 1") == {
        "payload": new, "status": "pending",
    }  # fmt: skip
    kept = one(
        connection,
        "select payload_before::text as before, actor, reason from dlq.retry where outcome is null",
    )
    assert kept == {
        "before": '{"sku": null, "price": 12345678901234567890.10}',
        "actor": "bob",
        "reason": "asked",
    }


@pytest.mark.parametrize(
    "payload", ["{", "", '{"a": NaN}', r'{"a": "\u0000"}', r'{"a": "\ud800"}', "\x00", "\ud800"]
)
@pytest.mark.parametrize("dry_run", [True, False])
def test_a_payload_that_cannot_be_stored_is_refused_and_the_event_stays_dead(
    connection: Connection, payload: str, dry_run: bool
) -> None:
    """Said as a wrong argument, also by a dry run."""
    add_events(connection, 1)
    kill(connection, ERROR)
    with pytest.raises(ValueError, match=r"(?i)payload"):
        retry_with_payload(
            connection, 1, payload, audit=_act(), options=RunOptions(dry_run=dry_run), allowed=True
        )
    assert one(connection, "select status, payload from outbox_event") == {
        "status": "dead",
        "payload": {},
    }


def test_what_dies_again_during_a_retry_by_hand_does_not_follow(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It targets what was dead when it began, so it ends beside a worker that lets everything die at once."""
    monkeypatch.setattr("dlq_pipelines.outbox.batches.BATCH", 2)
    _dead(connection, 6)
    connection.execute(
        "create function die() returns trigger language plpgsql as $$ begin"
        " update outbox_event set status = 'dead', last_error = 'again' where id = new.event_id; return null; end $$;"
        "create constraint trigger die after insert on dlq.retry deferrable initially deferred"
        " for each row execute function die()"
    )
    done = retry_selected(
        connection, Selection(all=True), audit=_act(), rate=100.0, max_retries=None
    )
    assert (done.events, done.batches) == (6, 3)
    assert one(connection, "select count(*) as n from dlq.retry")["n"] == 6


def test_the_longest_unattended_fixes_come_first(connection: Connection) -> None:
    """Fixes that wait for others do not keep the rest from their turn."""
    for error in ("A: x", "B: x", "C: x"):
        _dead(connection, 1, error=error)
        flag_fix(
            connection, FixFlag(Selection(cause=compute_cause_key(error)), POLICY), audit=_act()
        )
    connection.execute("update dlq.fix set stepped_at = now() where id = 1")
    due = list_due_fixes(connection, now=_now(), max_backlog=timedelta(days=30), limit=2)
    assert [fix.id for fix in due] == [2, 3]


@pytest.mark.parametrize("dry_run", [True, False])
def test_an_unknown_cause_is_not_taken_for_one_without_events(
    connection: Connection, *, dry_run: bool
) -> None:
    """By nothing that changes events of a filter, and by a dry run no less."""
    _dead(connection, 1)
    nobodys = Selection(cause="nope")
    given: Any = {"audit": _act(), "options": RunOptions(dry_run=dry_run)}
    for change in (
        lambda: retry_selected(connection, nobodys, **given, rate=1.0, max_retries=3),
        lambda: release_parked(connection, nobodys, **given, rate=1.0, max_retries=3),
        lambda: discard_events(connection, nobodys, **given),
        lambda: restore_events(connection, nobodys, **given),
    ):
        with pytest.raises(
            NotFoundError, match=r"There is no cause 'nope'. `dlq causes list` lists the causes."
        ):
            change()
    assert _counts(connection) == {"dead": 1}


def test_a_fix_with_the_longest_note_goes_on(connection: Connection) -> None:
    """Its stages sign with the note behind their number, as far as the audit keeps a reason."""
    _dead(connection, 1)
    fix = flag_fix(
        connection,
        FixFlag(Selection(cause=CAUSE), POLICY),
        audit=_act("ann", "n" * MAX_REASON_LENGTH),
    )
    assert _advance(connection, fix).released == 1
    signed = one(connection, "select reason from dlq.audit where kind = 'retry.stage'")["reason"]
    assert signed == f"fix {fix.id}, stage 1: {'n' * MAX_REASON_LENGTH}"[:MAX_REASON_LENGTH]
