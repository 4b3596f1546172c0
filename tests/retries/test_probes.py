"""Causes that heal without a person: probes on a real database, with a worker that fails first."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from zoneinfo import ZoneInfo

import pytest

from dlq_pipelines.audit import AuditContext, list_audit_entries
from dlq_pipelines.causes.catalogue import (
    ProbeMode,
    get_cause,
    merge_causes,
    mute_cause,
    set_cause_probe,
    undo_change,
)
from dlq_pipelines.causes.classify import classify_deaths
from dlq_pipelines.causes.fingerprint import compute_cause_id
from dlq_pipelines.outbox.selection import Selection
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.retries.advance import pause_fix, withdraw_fix
from dlq_pipelines.retries.fix import FixStatus
from dlq_pipelines.retries.fixes import FixFlag, flag_fix, get_fix, list_fixes
from dlq_pipelines.retries.probe import ProbePolicy
from dlq_pipelines.retries.probes import (
    ProbeRun,
    describe_probes,
    list_due_probes,
    run_probes,
)
from dlq_pipelines.retries.recall import recall_retries
from tests.retries.helpers import (
    CAUSE,
    ERROR,
    add_dead,
    advance,
    build_audit,
    count_by_status,
    flag_cause,
    get_cause_status,
    get_now,
    run_worker,
)
from tests.rows import one, park

UTC_ZONE = ZoneInfo("UTC")
ON = ProbePolicy(enabled=True, per_day=50, settle_seconds=60, max_backlog=timedelta(days=30))
IDLE = ProbeRun({}, (), (), (), ())


def probe(connection: Connection, *, minutes: float, policy: ProbePolicy = ON) -> ProbeRun:
    """Run the probes as they would run in so many minutes."""
    audit = AuditContext("sensor", "due", get_now() + timedelta(minutes=minutes), "run-1")
    return run_probes(connection, policy=policy, zone=UTC_ZONE, audit=audit)


def list_due(connection: Connection, *, minutes: float, policy: ProbePolicy = ON) -> Sequence[str]:
    now = get_now() + timedelta(minutes=minutes)
    found = list_due_probes(connection, policy=policy, zone=UTC_ZONE, now=now)
    return [state.cause_id for state in found]


def work(database: Database, connection: Connection, *, delivers: bool) -> int:
    done = run_worker(database, delivers=delivers)
    classify_deaths(connection, zone=UTC_ZONE)
    return done


def test_a_cause_heals_without_a_flag(connection: Connection, database: Database) -> None:
    """The worker fails once, is repaired, and everything is delivered by a fix of the probe's."""
    add_dead(connection, 40)
    assert probe(connection, minutes=4) == IDLE  # the last death is too recent
    first = probe(connection, minutes=6)
    assert list(first.released) == [CAUSE]
    assert str(describe_probes(connection, CAUSE, policy=ON)) == (
        f"on, try 1: event {first.released[CAUSE]} is released"
    )
    assert probe(connection, minutes=6.5) == IDLE  # its outcome is not known
    assert work(database, connection, delivers=False) == 1
    assert probe(connection, minutes=20).failed == (CAUSE,)

    assert probe(connection, minutes=29) == IDLE
    second = probe(connection, minutes=31)
    assert second.released.keys() == {CAUSE}
    assert second.released != first.released  # another event: what died again is the last
    assert work(database, connection, delivers=True) == 1
    (fix_id,) = probe(connection, minutes=33).fixes
    fix = get_fix(connection, fix_id)
    assert fix.flagged_by == "probe"
    assert fix.note == (f"event {second.released[CAUSE]} was delivered by probe 2 of cause {CAUSE}")
    assert fix.selection == Selection(cause=CAUSE)
    assert get_cause_status(connection) == "fixing"

    while get_fix(connection, fix_id).closed_at is None:
        assert probe(connection, minutes=60) == IDLE  # the fix is open
        advance(connection, fix, later=3_600)
        work(database, connection, delivers=True)
    assert get_fix(connection, fix_id).status is FixStatus.VERIFIED
    assert get_cause_status(connection) == "fixed"
    assert count_by_status(connection) == {"done": 40}
    assert probe(connection, minutes=120).healed == (CAUSE,)
    summary = describe_probes(connection, CAUSE, policy=ON)
    assert (summary.tries, summary.event_id, summary.fix_id) == (0, None, None)
    ledger = connection.execute(
        "select actor, reason, fix_id, outcome from dlq.retry where actor = 'probe' order by due_at"
    ).fetchall()
    assert [(row["outcome"], row["fix_id"], row["reason"]) for row in ledger] == [
        ("died_again", None, f"probe 1 of cause {CAUSE}"),
        ("delivered", None, f"probe 2 of cause {CAUSE}"),
    ]
    entries = [entry for entry in list_audit_entries(connection) if entry.actor == "probe"]
    assert [(entry.kind, entry.events) for entry in entries] == [
        ("fix.flag", 39),
        ("probe.release", 1),
        ("probe.release", 1),
    ]
    assert entries[-1].filter == {"cause": CAUSE, "event": first.released[CAUSE], "probe": 1}


def test_a_cause_that_goes_on_failing_waits_twice_as_long(
    connection: Connection, database: Database
) -> None:
    """Looked at every minute around the times at which it may be released again."""
    add_dead(connection, 10)
    policy = replace(ON, max_retries=100)
    minute, waits = 6, []
    for expected in [10, 20, 40, 80, 160, 320, 360, 360]:
        assert probe(connection, minutes=minute, policy=policy).released
        work(database, connection, delivers=False)
        assert probe(connection, minutes=minute + 1, policy=policy).failed == (CAUSE,)
        looks = range(minute + expected - 1, minute + expected + 3)
        due = [look for look in looks if list_due(connection, minutes=look, policy=policy)]
        waits.append(due[0] - minute - 1)
        minute = due[0]
    assert waits == [10, 20, 40, 80, 160, 320, 360, 360]
    assert not list_fixes(connection)


def test_a_day_has_a_bound(connection: Connection, database: Database) -> None:
    """It counts the events of all causes; an outcome is judged after it too."""
    errors = [f"{name}Error: x" for name in ("Timeout", "ConnectionRefused", "ConnectionReset")]
    for error in errors:
        add_dead(connection, 2, error=error)
    policy = replace(ON, per_day=2, ordered=False)
    start = (get_now() + timedelta(days=1)).replace(hour=1, minute=0)  # a day of its own
    offset = (start - get_now()) / timedelta(minutes=1)
    assert len(probe(connection, minutes=offset, policy=policy).released) == 2
    work(database, connection, delivers=False)
    assert len(probe(connection, minutes=offset + 5, policy=policy).failed) == 2
    assert list_due(connection, minutes=offset + 12 * 60, policy=policy) == []
    assert probe(connection, minutes=offset + 12 * 60, policy=policy) == IDLE
    assert len(probe(connection, minutes=offset + 24 * 60, policy=policy).released) == 2


def test_probes_are_off_by_default_and_a_person_overrides_it_for_a_cause(
    connection: Connection,
) -> None:
    add_dead(connection, 3)
    add_dead(connection, 3, error="KeyError: 'a'")
    key = compute_cause_id("KeyError: 'a'")
    off = replace(ON, enabled=ProbePolicy().enabled, ordered=False)

    def switch(cause: str, mode: ProbeMode) -> int:
        return set_cause_probe(connection, cause, mode, audit=build_audit()).audit_id

    assert list_due(connection, minutes=60, policy=off) == []
    assert list_due(connection, minutes=60) == [CAUSE]  # KeyError is not transient
    change = switch(CAUSE, "off")
    assert list_due(connection, minutes=60) == []
    undo_change(connection, change, audit=build_audit())
    assert get_cause(connection, CAUSE).probe is None
    assert list_due(connection, minutes=60) == [CAUSE]
    switch(key, "on")
    assert list_due(connection, minutes=60, policy=off) == [key]
    assert probe(connection, minutes=60, policy=off).released.keys() == {key}
    switch(key, "default")
    assert list_due(connection, minutes=60, policy=off) == []


def test_parked_and_erased_events_are_never_released(connection: Connection) -> None:
    add_dead(connection, 4)
    park(connection, [1, 2])
    connection.execute("update dlq.death set erased_at = now() where event_id = 3")
    done = probe(connection, minutes=60)
    assert done.released == {CAUSE: "4"}
    connection.execute("update outbox_event set status = 'done' where id = 4")
    assert probe(connection, minutes=61).fixes  # what is left: for the fix, which parks them too
    (fix,) = list_fixes(connection)
    withdraw_fix(connection, fix.id, audit=build_audit())
    later = 60
    while later < 2_000:
        later += 10
        assert not probe(connection, minutes=later).released
    # Not asked for at every tick, although nothing can be released.
    assert list_due(connection, minutes=later) == []


def test_a_muted_merged_or_fixing_cause_is_not_probed(connection: Connection) -> None:
    add_dead(connection, 3)
    add_dead(connection, 1, error="KeyError: 'a'")
    key = compute_cause_id("KeyError: 'a'")
    muted = mute_cause(connection, CAUSE, get_now() + timedelta(days=2), audit=build_audit())
    assert list_due(connection, minutes=60) == []
    undo_change(connection, muted.audit_id, audit=build_audit())
    merged = merge_causes(connection, key, into=CAUSE, audit=build_audit())
    assert list_due(connection, minutes=60) == []  # a part of it is not transient
    undo_change(connection, merged.audit_id, audit=build_audit())
    fix = flag_cause(connection, event_type="order.placed")  # of a part of the cause
    assert list_due(connection, minutes=60) == []
    pause_fix(connection, fix.id, audit=build_audit())
    assert list_due(connection, minutes=60) == []
    withdraw_fix(connection, fix.id, audit=build_audit())
    assert list_due(connection, minutes=60) == [CAUSE]
    flag_fix(connection, FixFlag(Selection(event_type="order.placed")), audit=build_audit())
    assert not probe(connection, minutes=60).released  # that fix targets each of its events


def test_two_runs_at_once_release_one_event(connection: Connection, database: Database) -> None:
    add_dead(connection, 20)
    with ThreadPoolExecutor(4) as pool:

        def run(_: int) -> ProbeRun:
            with database.connect() as own:
                return probe(own, minutes=10)

        runs = list(pool.map(run, range(8)))
    assert sum(len(done.released) for done in runs) == 1
    assert one(connection, "select count(*) as n from dlq.retry")["n"] == 1
    assert count_by_status(connection) == {"dead": 19, "pending": 1}


@pytest.mark.parametrize("statement", ["probe.record", "audit.record", "fix.place"])
def test_a_run_that_dies_in_a_step_leaves_it_done_or_not_begun(
    connection: Connection,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    statement: str,
) -> None:
    """Fails at and after each statement that writes; the next run ends in the same state."""
    add_dead(connection, 5)
    run_statement = Connection.run
    broken = True

    def fail(self: Connection, name: str, /, **values: object) -> object:
        done = run_statement(self, name, **values)
        if broken and name == statement:
            raise ConnectionError(statement)
        return done

    monkeypatch.setattr(Connection, "run", fail)
    for minutes in (10, 12):
        for is_broken in (True, False):
            broken = is_broken
            try:
                probe(connection, minutes=minutes)
            except ConnectionError:
                assert broken
        work(database, connection, delivers=True)
    assert one(connection, "select count(*) as n from dlq.retry")["n"] == 1
    (fix,) = list_fixes(connection)
    assert fix.flagged_by == "probe"
    assert [e.kind for e in list_audit_entries(connection) if e.actor == "probe"] == [
        "fix.flag",
        "probe.release",
    ]


def test_the_only_dead_event_needs_no_fix(connection: Connection, database: Database) -> None:
    add_dead(connection, 1)
    assert probe(connection, minutes=10).released == {CAUSE: "1"}
    work(database, connection, delivers=True)
    assert probe(connection, minutes=11).healed == (CAUSE,)
    assert not list_fixes(connection)
    assert list_due(connection, minutes=60) == []


def test_a_probe_that_times_out_or_is_recalled_counts_as_failed(connection: Connection) -> None:
    add_dead(connection, 3)
    assert probe(connection, minutes=10).released
    recall_retries(connection, Selection(cause=CAUSE), audit=build_audit())
    assert probe(connection, minutes=11).failed == (CAUSE,)
    assert probe(connection, minutes=20) == IDLE
    assert probe(connection, minutes=22).released
    assert probe(connection, minutes=22.5) == IDLE
    assert probe(connection, minutes=24).failed == (CAUSE,)  # nobody took it for a minute
    assert one(connection, "select outcome from dlq.retry")["outcome"] == "timed_out"


def test_what_a_person_does_meanwhile_counts_more(
    connection: Connection, database: Database
) -> None:
    """A mute, a switch or a fix while an event is released: its outcome flags nothing."""
    add_dead(connection, 9)
    assert probe(connection, minutes=10).released
    muted = mute_cause(connection, CAUSE, get_now() + timedelta(days=2), audit=build_audit())
    work(database, connection, delivers=True)
    assert probe(connection, minutes=11).healed == (CAUSE,)
    undo_change(connection, muted.audit_id, audit=build_audit())
    assert probe(connection, minutes=20) == IDLE
    assert probe(connection, minutes=22).released
    fix = flag_cause(connection)
    work(database, connection, delivers=True)
    assert probe(connection, minutes=23).healed == (CAUSE,)
    assert [flagged.id for flagged in list_fixes(connection)] == [fix.id]
    assert list_due(connection, minutes=600) == []
    withdraw_fix(connection, fix.id, audit=build_audit())
    assert list_due(connection, minutes=600) == [CAUSE]


def test_a_halted_fix_of_a_probe_waits_longer(connection: Connection, database: Database) -> None:
    """One event was delivered by chance: the canary halts, and the wait doubles."""
    add_dead(connection, 30)
    assert probe(connection, minutes=10).released
    work(database, connection, delivers=True)
    (fix_id,) = probe(connection, minutes=12).fixes
    fix = get_fix(connection, fix_id)
    advance(connection, fix, later=900)
    work(database, connection, delivers=False)
    advance(connection, fix, later=960)
    assert get_fix(connection, fix_id).status is FixStatus.HALTED
    assert probe(connection, minutes=17).failed == (CAUSE,)
    assert probe(connection, minutes=25) == IDLE
    assert probe(connection, minutes=27).released


def test_outcomes_are_judged_before_further_events_are_released(
    connection: Connection, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if more causes wait than a run steps through."""
    monkeypatch.setattr("dlq_pipelines.retries.probes._CAUSES_PER_RUN", 1)
    for error in (ERROR, "ConnectionResetError: x", "ConnectionRefusedError: x"):
        add_dead(connection, 2, error=error)
    policy = replace(ON, ordered=False)
    assert len(probe(connection, minutes=10, policy=policy).released) == 1
    work(database, connection, delivers=True)
    assert len(probe(connection, minutes=11, policy=policy).fixes) == 1
    assert len(probe(connection, minutes=12, policy=policy).released) == 1


def test_nothing_is_released_while_the_worker_is_behind(connection: Connection) -> None:
    add_dead(connection, 3)
    connection.execute(
        "insert into outbox_event (aggregate_type, aggregate_id, event_type, payload, next_run_at)"
        " values ('order', 'late', 'e', '{}', now())"
    )
    assert (
        list_due(connection, minutes=10, policy=replace(ON, max_backlog=timedelta(minutes=5))) == []
    )
    assert list_due(connection, minutes=10) == [CAUSE]


def test_the_error_of_the_helpers_is_transient(connection: Connection) -> None:
    add_dead(connection, 1)
    assert ERROR.startswith("TimeoutError")
    assert get_cause(connection, CAUSE).is_transient
