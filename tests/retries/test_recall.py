"""Recalls: what no worker has taken is dead of the same death again, and the books hold."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from dlq_pipelines.archive.purge import purge_deaths
from dlq_pipelines.audit import AuditContext, RunOptions
from dlq_pipelines.causes.classify import classify_deaths
from dlq_pipelines.errors import NotFoundError, RefusedError
from dlq_pipelines.outbox.mapping import list_presets, load_mapping
from dlq_pipelines.outbox.selection import Selection
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.retries.advance import advance_fix, pause_fix, resume_fix, withdraw_fix
from dlq_pipelines.retries.fix import Fix, FixStatus, FixTerms, RetryPolicy, WaitStep
from dlq_pipelines.retries.fixes import (
    FixFlag,
    flag_fix,
    get_fix,
    get_fix_progress,
    get_stage_outcomes,
)
from dlq_pipelines.retries.history import get_event_history
from dlq_pipelines.retries.recall import RecallResult, recall_fix, recall_retries
from dlq_pipelines.retries.retry import retry_events, retry_selected, retry_within_lookahead
from dlq_pipelines.retries.settle import settle_retries
from tests.other_outboxes import add_task, install_shape, install_tasks
from tests.outbox.table_shapes import name_table, read_shape
from tests.retries.helpers import (
    CAUSE,
    ERROR,
    POLICY,
    TERMS,
    add_dead,
    advance,
    build_audit,
    chain,
    count_by_status,
    flag_cause,
    get_cause_status,
    get_now,
    list_due,
    run_worker,
)
from tests.rows import add_events, kill, one

EVERY = Selection(all=True)
SLOW = RetryPolicy(canary=200, rate=1.0)
PACED = [
    name
    for name in list_presets()
    if (mapping := load_mapping(name)).retry
    and mapping.due_at
    and mapping.due_at.column in {assignment.column for assignment in mapping.retry}
]
UNPACED = [name for name in list_presets() if load_mapping(name).retry and name not in PACED]


def read_table(connection: Connection, table: str) -> list[str]:
    """Return the rows of a table as texts."""
    rows = connection.execute(f"select t::text as row from {table} t order by 1".encode())
    return [row["row"] for row in rows]


def read_dead(connection: Connection) -> list[dict[str, Any]]:
    return connection.execute("select * from dlq.dead_now order by death_id").fetchall()


def retry_later(connection: Connection, ids: list[Any] | None = None) -> None:
    """Retry events by hand, due in five minutes."""
    audit = AuditContext("bob", "asked", get_now() + timedelta(minutes=5))
    if ids is None:
        retry_selected(connection, EVERY, audit=audit, rate=None, max_retries=None)
    else:
        retry_events(connection, ids, audit=audit)


def recall(connection: Connection, selection: Selection = EVERY) -> RecallResult:
    return recall_retries(connection, selection, audit=build_audit("eve", "stop"))


def count_scheduled(connection: Connection) -> int:
    return int(
        one(
            connection,
            "select count(*) as n from outbox_event"
            " where status in ('pending', 'retry') and next_run_at > now()",
        )["n"]
    )


def books_hold(connection: Connection) -> bool:
    """Whether outbox, ledger, stages and audit log agree."""
    counted = one(
        connection,
        "select (select count(*) from dlq.retry) + (select count(*) from dlq.recalled) as kept,"
        " coalesce(sum(events) filter (where kind in ('retry.stage', 'retry.selected')), 0)"
        " as audited,"
        " coalesce(sum(events) filter (where kind = 'retry.recall'), 0) as recalls,"
        " (select count(*) from dlq.recalled) as recalled from dlq.audit",
    )
    dead = "select id from outbox_event where status = 'dead' order by 1"
    known = "select event_id as id from dlq.dead_now order by 1"
    return bool(
        counted["kept"] == counted["audited"]
        and counted["recalls"] == counted["recalled"]
        and connection.run("fix.stages_difference").fetchall() == []
        and connection.fetch_one("reconcile.unaccounted")["missing"] == 0
        and connection.execute(dead.encode()).fetchall()
        == connection.execute(known.encode()).fetchall()
    )


@pytest.fixture(params=PACED)
def shaped(
    request: pytest.FixtureRequest, empty_database: Database
) -> Iterator[tuple[Connection, str, str]]:
    """Yield the outbox of a public project with a dead event, its table and its shape."""
    with install_shape(empty_database, request.param) as (_, connection):
        shape = read_shape(request.param)
        connection.execute(shape.get("write", "select 1").encode())
        connection.execute(shape["give up"].encode())
        yield connection, name_table(load_mapping(request.param)), request.param


def test_a_recalled_row_is_the_row_that_died(shaped: tuple[Connection, str, str]) -> None:
    """In every shape: states of text, enums, numbers and booleans; errors in arrays and JSON."""
    connection, table, _ = shaped
    before, dead = read_table(connection, table), read_dead(connection)
    retry_later(connection)
    assert read_table(connection, table) != before
    assert (read_dead(connection), len(read_table(connection, "dlq.retry"))) == ([], 1)
    assert recall(connection) == RecallResult(1, 0)
    assert read_table(connection, table) == before
    assert (read_dead(connection), read_table(connection, "dlq.retry")) == (dead, [])
    assert one(connection, "select count(*) from dlq.death") == {"count": 1}
    assert one(connection, "select recalled_by, recall_reason from dlq.recalled") == {
        "recalled_by": "eve",
        "recall_reason": "stop",
    }
    # The same death can be retried again, and recalled again.
    retry_later(connection)
    assert recall(connection) == RecallResult(1, 0)
    assert read_table(connection, table) == before


def test_what_a_worker_did_meanwhile_decides(shaped: tuple[Connection, str, str]) -> None:
    """A released event that died again is left as it is, with its new death."""
    connection, table, name = shaped
    retry_later(connection)
    connection.execute(read_shape(name)["give up"].encode())
    after = read_table(connection, table)
    assert recall(connection) == RecallResult(0, 0)
    assert read_table(connection, table) == after
    assert (len(read_dead(connection)), len(read_table(connection, "dlq.retry"))) == (1, 1)


def test_what_a_worker_holds_stays_with_it(
    shaped: tuple[Connection, str, str], empty_database: Database
) -> None:
    """The lock decides first, without waiting for it; then the state."""
    connection, table, _ = shaped
    retry_later(connection)
    released = read_table(connection, table)
    with empty_database.connect() as worker, worker.transaction():
        worker.execute(f"select from {table} for update".encode())
        assert recall(connection) == RecallResult(0, 1)
        assert read_table(connection, table) == released
    assert recall(connection) == RecallResult(1, 0)


@pytest.mark.parametrize("preset", UNPACED)
def test_without_a_due_time_nothing_is_recalled(empty_database: Database, preset: str) -> None:
    """The worker may hold the event although its row shows nothing."""
    with install_shape(empty_database, preset) as (_, connection):
        shape = read_shape(preset)
        connection.execute(f"{shape.get('write', 'select 1')}; {shape['give up']}".encode())
        retry_later(connection)
        assert len(read_table(connection, "dlq.retry")) == 1
        with pytest.raises(RefusedError, match="no due time that the worker waits for"):
            recall(connection)


@pytest.mark.parametrize("preset", [name for name in UNPACED if load_mapping(name).delivered])
def test_without_a_due_time_a_stopped_fix_leaves_all_with_the_worker(
    empty_database: Database, preset: str
) -> None:
    """Pause and withdraw say so, a recall is refused, and the sensor requests no run for it."""
    with install_shape(empty_database, preset) as (_, connection):
        shape = read_shape(preset)
        connection.execute(f"{shape.get('write', 'select 1')}; {shape['give up']}".encode())
        classify_deaths(connection, zone=ZoneInfo("UTC"))
        fix = flag_fix(connection, FixFlag(EVERY, SLOW), audit=build_audit())
        audit = AuditContext("sensor", "due", get_now() + timedelta(minutes=5))
        assert advance_fix(connection, fix.id, audit=audit, terms=TERMS).released == 1
        released = read_table(connection, name_table(load_mapping(preset)))
        for stop in (pause_fix, withdraw_fix):
            done = stop(connection, fix.id, audit=build_audit())
            assert (done.recalled, done.with_worker) == (0, 1)
        with pytest.raises(RefusedError, match="no due time that the worker waits for"):
            recall_fix(connection, fix.id, audit=build_audit())
        assert read_table(connection, name_table(load_mapping(preset))) == released
        assert list_due(connection) == []


@pytest.mark.parametrize("due_type", ["timestamptz(0)", "timestamptz(3)", "timestamptz"])
@pytest.mark.parametrize("id_type", ["uuid", "text", "bigint"])
def test_keys_and_times_of_any_precision(
    empty_database: Database, id_type: str, due_type: str
) -> None:
    """A column that rounds the due time still holds what the release gave it."""
    ids = [f"{n:032x}" if id_type == "uuid" else str(n + 7) for n in range(3)]
    with install_tasks(empty_database, id_type=id_type, due_type=due_type) as (_, connection):
        for id_ in ids:
            add_task(connection, id_, "{}")
        before = read_table(connection, "task")
        retry_later(connection)
        assert recall(connection) == RecallResult(3, 0)
        assert read_table(connection, "task") == before


def test_a_fix_that_is_withdrawn_at_once_leaves_nothing_that_falls_due_later(
    connection: Connection,
) -> None:
    """Of 200 events at one a second, one is due, and 199 are dead again."""
    add_dead(connection, 300)
    fix = flag_cause(connection, policy=SLOW)
    assert advance(connection, fix).released == 200
    would = withdraw_fix(connection, fix.id, audit=build_audit(), options=RunOptions(dry_run=True))
    assert (would.status, would.recalled, would.with_worker) == (FixStatus.WITHDRAWN, 199, 1)
    assert (get_fix(connection, fix.id).status, count_scheduled(connection)) == ("active", 199)
    done = withdraw_fix(connection, fix.id, audit=build_audit("ann", "rolled back"))
    assert (done.status, done.recalled, done.with_worker) == (FixStatus.WITHDRAWN, 199, 1)
    assert (count_scheduled(connection), count_by_status(connection)) == (
        0,
        {"dead": 299, "pending": 1},
    )
    assert get_stage_outcomes(connection, fix.id)[1].recalled == 199
    assert books_hold(connection)
    assert list_due(connection) == []


def test_a_halt_recalls_what_is_scheduled(connection: Connection) -> None:
    """As early as the stage cannot pass; the cause is open, and its events can be fixed again."""
    add_dead(connection, 100)
    fix = flag_cause(connection, policy=RetryPolicy(canary=100, rate=1.0))
    advance(connection, fix)
    connection.execute("update outbox_event set status = 'dead' where id <= 11")
    done = advance(connection, fix, later=11)
    assert (done.fix.status, done.recalled, done.with_worker) == (FixStatus.HALTED, 88, 1)
    assert get_cause_status(connection) == "open"
    assert books_hold(connection)
    classify_deaths(connection, zone=ZoneInfo("UTC"))
    again = flag_cause(connection, policy=RetryPolicy(canary=100, rate=1.0))
    assert advance(connection, again, later=12).released == 99


def test_a_resumed_fix_releases_recalled_events_again(
    connection: Connection, database: Database
) -> None:
    """Within the room of its stage, and a recall counts as no retry: nothing is parked."""
    add_dead(connection, 20)
    fix = flag_cause(connection, policy=RetryPolicy(canary=10, rate=1.0, max_retries=1))
    for _ in range(3):
        advance(connection, fix)
        stopped = pause_fix(connection, fix.id, audit=build_audit())
        assert (stopped.status, stopped.recalled, stopped.with_worker) in {
            (FixStatus.PAUSED, 9, 1),
            (FixStatus.PAUSED, 8, 2),
            (FixStatus.PAUSED, 9, 2),
        }
        resume_fix(connection, fix.id, audit=build_audit())
        assert [due.id for due in list_due(connection)] == [fix.id]
    while get_fix(connection, fix.id).status is FixStatus.ACTIVE:
        advance(connection, fix)
        run_worker(database, delivers=True)
        connection.execute("update dlq.retry set due_at = least(due_at, now())")
    assert get_fix(connection, fix.id).status is FixStatus.VERIFIED
    stages = get_stage_outcomes(connection, fix.id)
    assert [stage.delivered for stage in stages.values()] == [10, 10]
    assert stages[1].released == stages[1].recalled + 10
    assert books_hold(connection)


def test_a_recall_that_was_interrupted_is_completed_by_the_sensor(connection: Connection) -> None:
    """Of a fix that is paused, and of one that has ended; by a person too."""
    for status in ("paused", "withdrawn"):
        add_dead(connection, 50)
        fix = flag_cause(connection, policy=SLOW)
        advance(connection, fix)
        # As if the process had been killed between the change and its recall.
        connection.execute(
            "update dlq.fix set status = %s, closed_at = case when %s <> 'paused' then now() end",
            [status, status],
        )
        assert [due.id for due in list_due(connection)] == [fix.id]
        with pytest.raises(RefusedError, match=r"is (open|paused|withdrawn)"):
            pause_fix(connection, fix.id, audit=build_audit())
        done = advance(connection, fix)
        assert done.recalled >= 49
        assert list_due(connection) == []
        assert recall_fix(connection, fix.id, audit=build_audit()).recalled == 0
        assert (count_scheduled(connection), books_hold(connection)) == (0, True)
        connection.execute(
            "update dlq.fix set status = 'withdrawn', closed_at = now() where closed_at is null"
        )
        connection.execute("update dlq.cause set status = 'open'")


def test_an_active_fix_is_not_recalled(connection: Connection) -> None:
    """It would release the events again."""
    add_dead(connection, 5)
    fix = flag_cause(connection, policy=SLOW)
    advance(connection, fix)
    with pytest.raises(RefusedError, match=f"Fix {fix.id} is active: it would release"):
        recall_fix(connection, fix.id, audit=build_audit())
    with pytest.raises(NotFoundError, match="no fix 99"):
        recall_fix(connection, 99, audit=build_audit())


def test_a_stage_is_released_ten_minutes_ahead(connection: Connection) -> None:
    """And refilled when half of it has passed; the pace goes on where it was."""
    add_dead(connection, 1500)
    fix = flag_cause(connection, policy=RetryPolicy(canary=5000, rate=1.0))
    begun = get_now()
    done = advance(connection, fix)
    assert done.released == 601
    assert isinstance(done.step, WaitStep)
    assert done.step.until is not None
    assert 299 <= (done.step.until - begun).total_seconds() <= 303
    assert list_due(connection, later=290) == []
    assert [due.id for due in list_due(connection, later=310)] == [fix.id]
    assert 309 <= advance(connection, fix, later=310).released <= 311
    gaps = one(
        connection,
        "select max(gap) as longest, min(gap) as shortest, max(due_at) as last from ("
        " select due_at, due_at - lag(due_at) over (order by due_at) as gap from dlq.retry) r",
    )
    assert gaps["longest"] == gaps["shortest"] == timedelta(seconds=1)
    assert gaps["last"] <= get_now() + timedelta(seconds=910)
    assert advance(connection, fix, later=900).released > 500
    assert one(connection, "select count(*) from dlq.retry") == {"count": 1500}
    assert get_fix_progress(connection, fix.id, now=get_now(), terms=TERMS).next


def test_the_look_ahead_is_the_installations(connection: Connection) -> None:
    add_dead(connection, 100)
    fix = flag_cause(connection, policy=RetryPolicy(canary=100, rate=1.0))
    terms = FixTerms(lookahead=timedelta(seconds=60), max_backlog=timedelta(hours=1))
    assert advance_fix(connection, fix.id, audit=build_audit(), terms=terms).released == 61


def test_a_slow_rate_holds_from_one_look_to_the_next(connection: Connection) -> None:
    """Although the outcome of the event before is known long before the next is due."""
    add_dead(connection, 5)
    fix = flag_cause(connection, policy=RetryPolicy(canary=5, rate=0.001))
    assert advance(connection, fix).released == 1
    connection.execute("update outbox_event set status = 'done' where status = 'pending'")
    assert advance(connection, fix, later=30).released == 0
    assert list_due(connection, later=690) == []
    assert [due.id for due in list_due(connection, later=710)] == [fix.id]
    assert advance(connection, fix, later=710).released == 1


def test_pause_and_resume_do_not_raise_the_rate(connection: Connection) -> None:
    """Although all that was released before has an outcome by now."""
    add_dead(connection, 5)
    fix = flag_cause(connection, policy=RetryPolicy(canary=5, rate=0.01))
    assert advance(connection, fix).released == 5
    connection.execute(
        "update outbox_event set status = 'done' where status = 'pending' and next_run_at <= now()"
    )
    assert advance(connection, fix).settled == 1
    for recalled in (4, 4):
        assert pause_fix(connection, fix.id, audit=build_audit()).recalled == recalled
        resume_fix(connection, fix.id, audit=build_audit())
        begun = get_now()
        assert advance(connection, fix).released == recalled
        first = one(connection, "select min(due_at) as due from dlq.retry where outcome is null")
        assert first["due"] > begun + timedelta(seconds=90)


def test_retries_by_hand_are_recalled_by_filters(connection: Connection) -> None:
    """By ids, types and causes; those of a fix stay."""
    add_dead(connection, 4)
    add_dead(connection, 4, error="KeyError: 'sku'", event_type="order.paid")
    add_dead(connection, 2, event_type="of.a.fix")
    policy = RetryPolicy(canary=200, rate=1.0, order="none")
    fix = flag_cause(connection, policy=policy, event_type="of.a.fix")
    advance(connection, fix)
    retry_later(connection)
    assert recall(connection, Selection(event_ids=(1, 2, 99))) == RecallResult(2, 0)
    assert recall(connection, Selection(event_type="order.paid")) == RecallResult(4, 0)
    would = recall_retries(
        connection,
        Selection(cause=CAUSE),
        audit=build_audit(),
        options=RunOptions(dry_run=True),
    )
    assert would == RecallResult(2, 0)
    assert recall(connection, Selection(cause=CAUSE)) == would
    assert recall(connection) == RecallResult(0, 0)
    assert (get_stage_outcomes(connection, fix.id)[1].waiting, books_hold(connection)) == (2, True)


def test_many_retries_are_recalled_in_batches(connection: Connection) -> None:
    """Those that are held stay, and every other one is found behind them."""
    add_events(connection, 12_000)
    connection.execute("update outbox_event set status = 'dead', last_error = %s", [ERROR])
    retry_later(connection)
    assert recall(connection) == RecallResult(12_000, 0)
    audited = "select count(*), max(events) as most from dlq.audit where kind = 'retry.recall'"
    assert one(connection, audited) == {"count": 3, "most": 5000}
    assert books_hold(connection)


def test_of_two_recalls_at_once_neither_takes_the_other_one_for_a_worker(
    connection: Connection, database: Database
) -> None:
    add_events(connection, 30_000)
    connection.execute("update outbox_event set status = 'dead', last_error = %s", [ERROR])
    retry_later(connection)

    def recall_all(_: int) -> RecallResult:
        with database.connect() as own:
            return recall(own)

    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(recall_all, range(2)))
    assert sum(result.recalled for result in done) == 30_000
    assert [result.with_worker for result in done] == [0, 0]
    assert books_hold(connection)


def test_more_events_than_the_look_ahead_takes_need_a_fix(connection: Connection) -> None:
    """Refused with the figure, and nothing is released in parts."""
    add_dead(connection, 61)

    def retry(rate: float, **options: Any) -> int:
        return retry_within_lookahead(
            lambda options: retry_selected(
                connection,
                EVERY,
                audit=build_audit(),
                options=options,
                rate=rate,
                max_retries=None,
            ),
            RunOptions(**options),
            rate=rate,
            lookahead=timedelta(seconds=60),
        ).events

    for options in ({}, {"dry_run": True}, {"limit": 61}):
        with pytest.raises(
            RefusedError, match=r"61 events at 0\.5 per second fall due within 2 min"
        ):
            retry(0.5, **options)
    assert count_by_status(connection) == {"dead": 61}
    assert retry(1.0, dry_run=True) == retry(1.0, limit=61) == 61


def test_a_death_that_was_classified_after_the_release_is_dead_again(
    connection: Connection,
) -> None:
    """As one that is classified after the recall."""
    add_events(connection, 2)
    kill(connection, ERROR)
    retry_later(connection)
    classify_deaths(connection, zone=ZoneInfo("UTC"))
    assert read_dead(connection) == []
    assert recall(connection) == RecallResult(2, 0)
    assert [row["cause_id"] for row in read_dead(connection)] == [CAUSE, CAUSE]
    add_events(connection, 1)
    kill(connection, ERROR, where="status = 'pending'")
    retry_later(connection, [3])
    assert recall(connection) == RecallResult(1, 0)
    assert read_dead(connection)[-1]["cause_id"] is None
    classify_deaths(connection, zone=ZoneInfo("UTC"))
    assert one(connection, "select count(*) from dlq.dead") == {"count": 3}
    assert books_hold(connection)


def test_a_past_moment_stays_as_it_was(connection: Connection) -> None:
    """What was released then and is recalled now was not dead then."""
    add_dead(connection, 3)
    before = get_now()
    fix = flag_cause(connection, policy=SLOW)
    advance(connection, fix)
    between = get_now()

    def count_dead_at(moment: datetime) -> int:
        row = connection.execute("select count(*) from dlq.dead_at(%s)", [moment]).fetchone()
        assert row is not None
        return int(row["count"])

    was = [count_dead_at(moment) for moment in (before, between)]
    withdraw_fix(connection, fix.id, audit=build_audit())
    assert [count_dead_at(moment) for moment in (before, between)] == was == [3, 0]
    assert count_dead_at(get_now()) == 2


def test_the_history_of_an_event_names_who_recalled_it(connection: Connection) -> None:
    add_dead(connection, 1)
    retry_later(connection)
    recall(connection)
    retry_later(connection)
    found = get_event_history(connection, 1)
    assert [(row.outcome, row.recalled_by, row.recall_reason) for row in found.retries] == [
        (None, None, None),
        ("recalled", "eve", "stop"),
    ]
    assert [death.id for death in found.deaths] == [1]


def test_earlier_events_that_are_recalled_hold_back_later_ones(connection: Connection) -> None:
    """The order of an aggregate survives a recall."""
    chain(connection, 2)
    retry_later(connection, [1])
    fix = flag_cause(connection, policy=POLICY)
    assert advance(connection, fix).released == 0
    recall(connection)
    advance(connection, fix)
    assert one(connection, "select array_agg(event_id) as ids from dlq.retry") == {"ids": [1]}


def test_the_ledger_forgets_recalls_with_their_deaths(connection: Connection) -> None:
    """The counts of the stage stay."""
    add_dead(connection, 3)
    fix = flag_cause(connection, policy=SLOW)
    advance(connection, fix)
    pause_fix(connection, fix.id, audit=build_audit())
    resume_fix(connection, fix.id, audit=build_audit())
    advance(connection, fix)
    connection.execute("update outbox_event set status = 'done'")
    connection.execute("update dlq.retry set due_at = now()")
    advance(connection, fix)
    settle_retries(connection, now=get_now(), settle_seconds=60)
    purge_deaths(
        connection, before=get_now() + timedelta(days=1), audit=build_audit("job", "retention")
    )
    assert one(connection, "select count(*) from dlq.death") == {"count": 0}
    assert one(connection, "select count(*) from dlq.recalled") == {"count": 0}
    assert connection.run("fix.stages_difference").fetchall() == []
    assert get_stage_outcomes(connection, fix.id)[1].recalled == 2


def test_the_outcome_is_counted_in_metrics(connection: Connection) -> None:
    add_dead(connection, 3)
    fix = flag_cause(connection, policy=SLOW, event_type="order.placed")
    advance(connection, fix)
    withdraw_fix(connection, fix.id, audit=build_audit())
    retry_later(connection, [2])
    recall(connection)
    counted = {row["outcome"]: row["retries"] for row in connection.run("metrics.retries")}
    assert counted == {"recalled": 3}


def test_a_person_who_resumes_stops_a_recall(connection: Connection) -> None:
    """Each batch looks at the fix under its lock."""
    add_dead(connection, 5)
    fix = flag_cause(connection, policy=SLOW)
    advance(connection, fix)
    stale: Fix = get_fix(connection, fix.id)
    assert stale.status is FixStatus.ACTIVE
    connection.execute("update dlq.fix set status = 'paused'")
    with connection.transaction():
        connection.execute("update dlq.fix set status = 'active'")
    with pytest.raises(RefusedError, match="is active"):
        recall_fix(connection, fix.id, audit=build_audit())
    assert one(connection, "select count(*) from dlq.retry") == {"count": 5}


def test_a_due_event_is_never_recalled(connection: Connection) -> None:
    """Although the clock of the caller is behind: a worker may have it in hand."""
    add_dead(connection, 1)
    retry_events(connection, [1], audit=build_audit())
    behind = AuditContext("eve", "stop", datetime.now(UTC) - timedelta(hours=1))
    assert recall_retries(connection, EVERY, audit=behind) == RecallResult(0, 1)
