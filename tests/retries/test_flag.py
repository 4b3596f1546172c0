"""Flagging and previewing fixes."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from dlq_pipelines.archive.archive import archive_dead_events, discard_events
from dlq_pipelines.archive.restore import restore_events
from dlq_pipelines.audit import AuditContext, RunOptions
from dlq_pipelines.causes.classify import classify_deaths
from dlq_pipelines.errors import NotFoundError, RefusedError
from dlq_pipelines.outbox.selection import Selection
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.retries.fix import Fix, FixStatus, RetryPolicy
from dlq_pipelines.retries.fixes import (
    FixFlag,
    FixPreview,
    flag_fix,
    get_fix,
    list_fixes,
    preview_fix,
)
from dlq_pipelines.retries.parked import release_parked
from dlq_pipelines.retries.retry import (
    retry_selected,
)
from tests.retries.helpers import (
    CAUSE,
    ERROR,
    POLICY,
    add_dead,
    advance,
    build_audit,
    chain,
    count_by_status,
    flag_cause,
    get_cause_status,
    get_now,
    preview,
    wait_until_blocked,
)
from tests.rows import add_events, date_deaths, kill, one


def test_flagging_writes_the_fix_the_cause_and_the_audit(connection: Connection) -> None:
    """In one transaction, and nothing of the outbox."""
    add_dead(connection, 2)
    fix = flag_cause(connection)
    assert get_fix(connection, fix.id) == fix == list_fixes(connection)[0]
    assert (fix.status, fix.stage, fix.policy) == (FixStatus.ACTIVE, 0, POLICY)
    assert get_cause_status(connection) == "fixing"
    audit = one(connection, "select kind, actor, reason, filter, events from dlq.audit")
    assert audit == {
        "kind": "fix.flag",
        "actor": "ann",
        "reason": "fixed",
        "filter": {"fix": fix.id},
        "events": 2,
    }
    assert count_by_status(connection) == {"dead": 2}


def test_an_invalid_fix_is_refused_and_changes_nothing(connection: Connection) -> None:
    """An unknown cause, a second fix of a cause, a cause without dead events."""
    with pytest.raises(NotFoundError, match="no cause"):
        flag_cause(connection)
    add_dead(connection, 1)
    with pytest.raises(RefusedError, match="No dead event"):
        flag_cause(connection, event_type="never.seen")
    first = flag_cause(connection)
    with pytest.raises(RefusedError, match=f"Fix {first.id} is open"):
        flag_cause(connection)
    assert one(connection, "select count(*) as n from dlq.audit")["n"] == 1


def test_a_fix_that_cannot_end_before_it_expires_is_refused_with_the_figures(
    connection: Connection,
) -> None:
    """By the flag and by the preview; at the rate that just suffices it is accepted."""
    add_dead(connection, 20)
    start = get_now() + timedelta(days=3)
    flag = FixFlag(
        Selection(cause=CAUSE),
        RetryPolicy(rate=0.001),
        not_before=start,
        expires_at=start + timedelta(seconds=19_999),
    )
    figures = "20 events at 0.001 per second take 05:33:20, and the fix expires in 05:33:19"
    for attempt in (
        lambda: flag_fix(connection, flag, audit=build_audit()),
        lambda: preview_fix(connection, flag, audit=build_audit(), default=POLICY),
    ):
        with pytest.raises(RefusedError, match=figures) as refused:
            attempt()
        assert refused.value.hint == "Raise the rate or the expiry, or narrow the filter."
    assert one(connection, "select count(*) as n from dlq.fix")["n"] == 0
    longer = replace(flag, expires_at=start + timedelta(seconds=20_001))
    assert flag_fix(connection, longer, audit=build_audit()).policy == longer.policy


def test_of_two_flags_at_once_one_wins(connection: Connection, database: Database) -> None:
    """The other is refused and names it."""
    add_dead(connection, 1)

    def flag(_: int) -> object:
        with database.connect() as own:
            try:
                return flag_cause(own)
            except RefusedError as error:
                return error

    with ThreadPoolExecutor(4) as pool:
        said = list(pool.map(flag, range(4)))
    assert sum(isinstance(answer, Fix) for answer in said) == 1
    assert one(connection, "select count(*) as n from dlq.fix")["n"] == 1


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
def test_a_selection_selects_the_same_events_in_every_statement(
    connection: Connection, name: str
) -> None:
    """In the preview, in a stage, in a retry by hand, in the archive's exclusion."""
    add_dead(connection, 2, event_type="a")
    add_dead(connection, 1, event_type="b")
    add_dead(connection, 1, event_type="b", error="KeyError: no 'sku_%' in it")
    date_deaths(connection, "timestamptz '2026-11-20 12:00Z' + event_id * interval '1 min'")
    selection, expected = SELECTORS[name]
    assert preview(connection, selection).events == len(expected)
    by_hand = retry_selected(
        connection,
        selection,
        audit=build_audit(),
        options=RunOptions(dry_run=True),
        rate=50.0,
        max_retries=3,
    )
    assert by_hand.events == len(expected)
    fix = flag_fix(
        connection,
        FixFlag(selection, replace(POLICY, canary=10, order="none")),
        audit=build_audit(),
    )
    assert get_fix(connection, fix.id).selection == selection
    moved = archive_dead_events(
        connection,
        before=get_now(),
        only_exported=False,
        audit=build_audit(),
        options=RunOptions(dry_run=True),
    ).moved
    assert moved == 4 - len(expected)
    advance(connection, fix)
    released = one(connection, "select array_agg(event_id) as ids from dlq.retry")["ids"]
    assert set(released) == expected


def test_fixes_that_target_the_same_events_are_refused(connection: Connection) -> None:
    """The first is named; fixes that look alike but share no event may be open together."""
    add_dead(connection, 2, event_type="a")
    add_dead(connection, 2, event_type="b", error="KeyError: 'sku'")
    first = flag_cause(connection, event_type="a")
    for overlapping in (
        Selection(event_type="a"),
        Selection(error_contains="answer"),
        Selection(event_ids=(1, 3)),
    ):
        with pytest.raises(RefusedError, match=f"Fix {first.id} is open"):
            flag_fix(connection, FixFlag(overlapping, POLICY), audit=build_audit())
        with pytest.raises(RefusedError, match=f"Fix {first.id} is open"):
            preview(connection, overlapping)
    second = flag_fix(
        connection, FixFlag(Selection(error_contains="sku"), POLICY), audit=build_audit()
    )
    assert [fix.id for fix in list_fixes(connection, only_open=True)] == [second.id, first.id]


def test_a_second_fix_of_a_cause_is_refused_while_the_first_waits_for_outcomes(
    connection: Connection,
) -> None:
    """All that it means is with the worker, and more has died of the cause since."""
    add_dead(connection, 2)
    first = flag_cause(connection)
    assert advance(connection, first).released == 2
    add_dead(connection, 1)
    with pytest.raises(RefusedError, match=f"Fix {first.id} is open"):
        flag_cause(connection)


def test_a_preview_changes_nothing(connection: Connection) -> None:
    """Not the fix, not the cause, not the audit."""
    add_dead(connection, 25)
    policy = RetryPolicy(canary=2, growth=3.0, rate=5.0)
    assert preview(connection, Selection(cause=CAUSE), policy) == FixPreview(
        events=25,
        aggregates=25,
        parked=0,
        held=0,
        longest=1,
        overtaken=0,
        stages=[2, 6, 17],
        seconds=90.0,
        deletion_is_loss=True,
    )
    assert (list_fixes(connection), get_cause_status(connection)) == ([], "open")
    assert one(connection, "select count(*) as n from dlq.audit")["n"] == 0


@pytest.mark.parametrize(
    ("asks", "hold"),
    [
        (lambda own: preview(own, Selection(cause=CAUSE)).events, "lock table dlq.retry"),
        (lambda own: flag_cause(own).id, "select pg_advisory_xact_lock(7)"),
    ],
    ids=["previewed", "flagged"],
)
def test_while_targets_are_counted_deaths_are_classified_and_others_may_flag(
    connection: Connection, database: Database, asks: Callable[[Connection], int], hold: str
) -> None:
    """It may take seconds, and a preview comes before every flag over HTTP."""
    add_dead(connection, 1)
    add_events(connection, 1)
    kill(connection, ERROR, where="status = 'pending'")
    # A count that waits, as a long one does.
    connection.execute(
        "create or replace function dlq.selects(fix dlq.fix, death dlq.death, cause text)"
        " returns boolean language plpgsql as"
        " $$ begin perform pg_advisory_xact_lock_shared(7); return true; end $$"
    )
    with ThreadPoolExecutor(1) as pool, database.connect() as own, database.connect() as other:
        with other.transaction():
            other.execute(hold.encode())
            asking = pool.submit(asks, own)
            wait_until_blocked(own, by=connection)
            assert classify_deaths(connection, zone=ZoneInfo("UTC")).deaths == 1
            assert one(connection, "select pg_try_advisory_xact_lock(1684828518) as free") == {
                "free": True
            }
        assert asking.result() > 0


def test_a_preview_counts_what_newer_events_have_overtaken(connection: Connection) -> None:
    """Only delivered events of the same aggregate count; a slow count is unknown."""
    chain(connection, 2)
    connection.execute("update outbox_event set status = 'done' where id = 2")
    assert preview(connection, Selection(cause=CAUSE)).overtaken == 1


def test_a_preview_that_takes_too_long_returns_no_overtaken_count(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And gives the other figures."""
    monkeypatch.setattr("dlq_pipelines.retries.fixes._OVERTAKEN_TIMEOUT", "1ms")
    chain(connection, 2)
    connection.execute(
        "insert into outbox_event (aggregate_type, aggregate_id, event_type, payload, status)"
        " select 'order', '7', 'e', '{}', 'pending' from generate_series(1, 200000)"
    )
    would = preview(connection, Selection(cause=CAUSE))
    assert (would.events, would.overtaken) == (2, None)


def test_a_flag_dated_by_a_fast_clock_does_not_target_deaths_of_its_own_retries(
    connection: Connection,
) -> None:
    """Deaths are dated by the server; so is the flag."""
    add_dead(connection, 1)
    ahead = AuditContext("ann", "fixed", get_now() + timedelta(hours=1))
    fix = flag_fix(connection, FixFlag(Selection(cause=CAUSE), POLICY), audit=ahead)
    assert fix.flagged_at <= one(connection, "select clock_timestamp() as now")["now"]


@pytest.mark.parametrize("dry_run", [True, False])
def test_an_unknown_cause_is_refused(connection: Connection, *, dry_run: bool) -> None:
    """By nothing that changes events of a filter, and by a dry run no less."""
    add_dead(connection, 1)
    nobodys = Selection(cause="nope")
    given: Any = {"audit": build_audit(), "options": RunOptions(dry_run=dry_run)}
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
    assert count_by_status(connection) == {"dead": 1}
