"""A state machine of what people, workers and jobs do to dead events, with its invariants.

Time is the machine's own: it passes when a rule says so. Workers take only what is due by it.
"""

import itertools
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dlq_pipelines import OutboxRepository
from dlq_pipelines.archive.archive import archive_dead_events, discard_events
from dlq_pipelines.archive.purge import purge_archive
from dlq_pipelines.archive.restore import restore_events
from dlq_pipelines.audit import AuditContext, RunOptions
from dlq_pipelines.causes.classify import classify_deaths
from dlq_pipelines.causes.fingerprint import compute_cause_id
from dlq_pipelines.errors import NotFoundError, RefusedError
from dlq_pipelines.outbox.selection import Selection
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.retries.advance import advance_fix, pause_fix, resume_fix, withdraw_fix
from dlq_pipelines.retries.fix import Fix, FixStatus, FixTerms, RetryPolicy, can_stage_pass
from dlq_pipelines.retries.fixes import (
    FixFlag,
    flag_fix,
    get_stage_outcomes,
    list_due_fixes,
    list_fixes,
)
from dlq_pipelines.retries.retry import retry_events, retry_selected
from dlq_pipelines.retries.settle import settle_retries

ERRORS = ("TimeoutError: no answer", "KeyError: 'sku'")
CAUSES = tuple(compute_cause_id(error) for error in ERRORS)
# What the present state does not allow.
REFUSED = (NotFoundError, RefusedError)
TERMS = FixTerms(max_backlog=timedelta(hours=1))
# Aggregates of one, two and three events, and their types.
FIRST = [
    (1, "a"),
    (2, "a"),
    (3, "a"),
    (2, "b"),
    (3, "b"),
    (4, "a"),
    (3, "a"),
    (5, "b"),
    (6, "a"),
    (6, "b"),
]
# Enough for every fix of an example to end; more is one that does not.
MOST_ROUNDS = 200
EMPTY = """
    truncate outbox_event, dlq.archived, dlq.death, dlq.dead, dlq.cause_day, dlq.cause_alias,
        dlq.cause, dlq.retry,
        dlq.fix_outcome, dlq.fix_stage, dlq.fix, dlq.discard, dlq.purged, dlq.audit
        restart identity cascade
"""
EVENTS = """
    select e.id, e.aggregate_id, e.event_type, e.status, d.died_at, d.death_id, d.cause_id,
        (select count(*) from dlq.retry r where r.event_id = e.id) as retries
    from outbox_event e left join dlq.dead d on d.event_id = e.id
"""
# A dead event whose death was answered by a retry, and one that left the state without one.
ASTRAY = """
    select d.event_id
    from (select distinct on (event_id) * from dlq.death order by event_id, died_at desc) d
    left join dlq.retry r on r.death_id = d.id
    left join outbox_event e on e.id = d.event_id
    left join dlq.archive a on a.id = d.event_id
    where (coalesce(e.status, a.status) = 'dead') is distinct from (r.death_id is null)
        and not exists (select from dlq.purged p where p.event_id = d.event_id)
"""
OUTCOMES = """
    select r.death_id, case
        when exists (select from dlq.death d where d.event_id = r.event_id and d.id > r.death_id)
            then 'died_again'
        when e.status = 'done' then 'delivered' end as outcome
    from dlq.retry r left join outbox_event e on e.id = r.event_id where r.outcome is null
"""
KNOWN_AS_DEAD = "select event_id as id from dlq.dead_now order by 1"
DEAD = "select id from outbox_event where status = 'dead' order by 1"
IN_ONE_PLACE = """
    select (select count(*) from outbox_event) + (select count(*) from dlq.archive)
        + (select count(*) from dlq.purged) as n
"""
AUDITED = """
    select coalesce(sum(events), 0)::bigint as n from dlq.audit
    where kind in ('retry.stage', 'retry.selected')
"""

policies = st.builds(
    RetryPolicy,
    canary=st.integers(1, 3),
    growth=st.sampled_from([1.0, 2.0, 10.0]),
    rate=st.just(1000.0),
    min_success=st.sampled_from([0.3, 0.9, 1.0]),
    settle_seconds=st.just(60),
    max_retries=st.integers(1, 2),
    order=st.sampled_from(["aggregate", "none"]),
)
ids = st.lists(st.integers(1, 20), min_size=1, max_size=6, unique=True)
outcomes = st.lists(st.sampled_from(["done"] * 6 + ["dead", "retry"]), min_size=1, max_size=8)
written = st.lists(st.tuples(st.integers(1, 6), st.sampled_from("ab")), min_size=1, max_size=6)
selections = st.one_of(
    st.builds(Selection, cause=st.sampled_from(CAUSES)),
    st.builds(Selection, event_type=st.sampled_from("ab")),
    st.builds(Selection, cause=st.sampled_from(CAUSES), event_type=st.sampled_from("ab")),
    st.builds(Selection, event_ids=ids.map(tuple)),
    st.just(Selection(all=True)),
)


class Retries(RuleBasedStateMachine):
    """An outbox of a few aggregates, its worker, and all who retry or archive dead events."""

    def __init__(
        self, database: Database, connection: Connection, worker: OutboxRepository
    ) -> None:
        super().__init__()
        self.database, self.connection, self.worker = database, connection, worker
        connection.execute(EMPTY)
        self.events = 0
        self.passed = timedelta()

    @property
    def now(self) -> datetime:
        return datetime.now(UTC) + self.passed

    def audit(self) -> AuditContext:
        return AuditContext("ann", "because", self.now)

    def rows(self, statement: str) -> list[dict[str, Any]]:
        return self.connection.execute(statement.encode()).fetchall()

    # --- the application and its worker ---

    @initialize(written=written, selection=selections, policy=policies)
    def begin(
        self, written: list[tuple[int, str]], selection: Selection, policy: RetryPolicy
    ) -> None:
        """Much has died, some of it twice, and one fix is flagged."""
        self.die(FIRST + written, ERRORS[0])
        self.retry_by_hand([1, 2, 3])
        self.work(["dead", "dead", "retry"])
        self.flag(selection, policy)

    @rule(written=written, error=st.sampled_from(ERRORS))
    def die(self, written: list[tuple[int, str]], error: str) -> None:
        """Events of some aggregates are written and die."""
        for aggregate, event_type in written:
            self.events += 1
            self.connection.execute(
                "insert into outbox_event (aggregate_type, aggregate_id, event_type, payload,"
                " status, last_error)"
                " values ('order', %s, %s, '{}', 'dead', %s)",
                [str(aggregate), event_type, error],
            )
        classify_deaths(self.connection, zone=ZoneInfo("UTC"))

    @rule(outcomes=outcomes)
    def work(self, outcomes: list[str]) -> None:
        """A worker takes what is due, oldest due first."""
        due = self.connection.execute(
            "select id from outbox_event where status in ('pending', 'retry') and next_run_at <= %s"
            " order by next_run_at, id limit %s",
            [self.now, len(outcomes)],
        ).fetchall()
        for row, outcome in zip(due, outcomes, strict=False):
            self.worker.max_attempts = 1 if outcome == "dead" else 99
            if outcome == "done":
                self.worker.mark_success(row["id"])
            else:
                self.worker.mark_retry(row["id"], ERRORS[row["id"] % 2])
        classify_deaths(self.connection, zone=ZoneInfo("UTC"))

    @rule(minutes=st.sampled_from([1, 1, 2, 30, 24 * 60]))
    def wait(self, minutes: int) -> None:
        self.passed += timedelta(minutes=minutes)

    # --- fixes ---

    @rule(selection=selections, policy=policies)
    def flag(self, selection: Selection, policy: RetryPolicy) -> None:
        with suppress(*REFUSED):
            flag_fix(self.connection, FixFlag(selection, policy), audit=self.audit())

    @rule()
    def sense(self) -> None:
        """Run what the sensor requests."""
        for fix in list_due_fixes(self.connection, now=self.now, max_backlog=TERMS.max_backlog):
            self.step(fix)

    @rule(rounds=st.lists(outcomes, min_size=1, max_size=4))
    def go_on(self, rounds: list[list[str]]) -> None:
        """The sensor and the worker take turns, as they mostly do."""
        for outcomes in rounds:
            self.sense()
            self.passed += timedelta(seconds=30)
            self.work(outcomes)
        self.sense()

    @rule(nth=st.integers(0, 1))
    def rerun(self, nth: int) -> None:
        """Somebody runs the step of a fix again, be it open or not."""
        for fix in list_fixes(self.connection)[nth : nth + 1]:
            self.step(fix)

    @rule(nth=st.integers(0, 1), held=st.lists(st.integers(1, 16), min_size=6, unique=True))
    def rerun_while_held(self, nth: int, held: list[int]) -> None:
        """When the next stage could begin, and others hold many of the events."""
        self.passed += timedelta(seconds=30)
        self.work(["done"] * 20)
        with self.database.connect() as other, other.transaction():
            other.execute("select from outbox_event where id = any(%s) for update", [held])
            for fix in list_fixes(self.connection)[nth : nth + 1]:
                released = self.step(fix)
                assert not released & set(held)

    @rule(nth=st.integers(0, 1), change=st.sampled_from([pause_fix, resume_fix, withdraw_fix]))
    def decide(self, nth: int, change: Callable[..., Fix]) -> None:
        for fix in list_fixes(self.connection)[nth : nth + 1]:
            with suppress(*REFUSED):
                change(self.connection, fix.id, audit=self.audit())

    def step(self, fix: Fix) -> set[int]:
        """Run a fix once; check that it may release these events, and return their number."""
        before = {row["id"]: row for row in self.rows(EVENTS)}
        known = {row["death_id"] for row in self.rows("select death_id from dlq.retry")}
        expected = self.outcomes()
        done = advance_fix(self.connection, fix.id, audit=self.audit(), terms=TERMS)
        released = [
            row for row in self.rows("select * from dlq.retry") if row["death_id"] not in known
        ]
        assert len(released) == done.released
        self.settled_as(expected)
        assert not released or fix.status is FixStatus.ACTIVE
        for row in released:
            event = before[row["event_id"]]
            assert (row["fix_id"], row["death_id"]) == (fix.id, event["death_id"])
            assert is_selected(fix, event)
            assert event["retries"] < fix.policy.max_retries  # type: ignore[union-attr]
        if fix.policy and fix.policy.order == "aggregate":
            in_order(before, [row["event_id"] for row in released])
        return {row["event_id"] for row in released}

    # --- people and jobs ---

    @rule(wanted=ids)
    def retry_by_hand(self, wanted: list[int]) -> None:
        dead = {row["id"] for row in self.rows(EVENTS) if row["status"] == "dead"}
        would = retry_events(
            self.connection, wanted, audit=self.audit(), options=RunOptions(dry_run=True)
        ).events
        assert (
            retry_events(self.connection, wanted, audit=self.audit()).events
            == would
            == len(dead & set(wanted))
        )

    @rule(selection=selections, most=st.sampled_from([None, 1]))
    def retry_by_filter(self, selection: Selection, most: int | None) -> None:
        retry_selected(
            self.connection, selection, audit=self.audit(), rate=1000.0, max_retries=most
        )

    @rule()
    def settle(self) -> None:
        expected = self.outcomes()
        settle_retries(self.connection, now=self.now, settle_seconds=60)
        self.settled_as(expected)

    def outcomes(self) -> dict[int, str | None]:
        """Return the expected outcome of each open retry; None: unknown before it times out."""
        return {row["death_id"]: row["outcome"] for row in self.rows(OUTCOMES)}

    def settled_as(self, expected: dict[int, str | None]) -> None:
        """Assert that each new outcome is the expected one."""
        for row in self.rows(
            "select death_id, outcome, settled_at, due_at from dlq.retry where outcome is not null"
        ):
            if row["death_id"] in expected:
                late = row["settled_at"] >= row["due_at"] + timedelta(seconds=60)
                assert row["outcome"] == (expected[row["death_id"]] or (late and "timed_out"))

    @rule()
    def archive(self) -> None:
        """Archive all events that no open fix targets."""
        before = datetime.now(UTC)
        fixes = list_fixes(self.connection, only_open=True)
        stay = {
            row["id"] for row in self.rows(EVENTS) if any(is_selected(fix, row) for fix in fixes)
        }
        would = archive_dead_events(
            self.connection,
            before=before,
            only_exported=False,
            audit=self.audit(),
            options=RunOptions(dry_run=True),
        )
        done = archive_dead_events(
            self.connection, before=before, only_exported=False, audit=self.audit()
        )
        assert done == would
        assert {row["id"] for row in self.rows(EVENTS) if row["status"] == "dead"} == stay

    @rule(selection=selections)
    def restore(self, selection: Selection) -> None:
        would = restore_events(
            self.connection, selection, audit=self.audit(), options=RunOptions(dry_run=True)
        )
        assert restore_events(self.connection, selection, audit=self.audit()) == would
        assert would.blocked == 0

    @rule(wanted=ids)
    def discard(self, wanted: list[int]) -> None:
        discard_events(self.connection, Selection(event_ids=tuple(wanted)), audit=self.audit())

    @precondition(lambda self: self.passed > timedelta(days=1))
    @rule()
    def purge(self) -> None:
        purge_archive(self.connection, before=self.now - timedelta(hours=12), audit=self.audit())

    # --- invariants ---

    @invariant()
    def every_event_is_in_exactly_one_place(self) -> None:
        assert self.connection.fetch_one("reconcile.unaccounted") == {
            "missing": 0,
            "duplicated": 0,
            "event_ids": None,
        }
        assert self.rows(IN_ONE_PLACE)[0]["n"] == self.events

    @invariant()
    def what_is_known_as_dead_is_dead(self) -> None:
        assert self.rows(KNOWN_AS_DEAD) == self.rows(DEAD)

    @invariant()
    def ledger_outbox_and_audit_agree(self) -> None:
        """Each released event has a retry, a dead event has none, and all retries are audited."""
        assert self.rows(ASTRAY) == []
        assert self.rows(AUDITED) == self.rows("select count(*) as n from dlq.retry")
        assert self.connection.run("fix.stages_difference").fetchall() == []

    @invariant()
    def nothing_that_is_dead_here_was_given_up(self) -> None:
        assert not {row["death_id"] for row in self.rows(EVENTS)} & {
            row["death_id"] for row in self.rows("select death_id from dlq.discard")
        }

    @invariant()
    def stages_keep_their_policy(self) -> None:
        for fix in list_fixes(self.connection):
            for number, stage in get_stage_outcomes(self.connection, fix.id).items():
                assert fix.policy
                assert stage.released <= stage.size == fix.policy.size(number)
                if number < fix.stage:
                    assert stage.waiting == 0
                    assert can_stage_pass(stage, fix.policy.min_success)

    @invariant()
    def a_cause_is_being_fixed_while_a_fix_of_all_of_it_is_open(self) -> None:
        fixing = {
            row["id"] for row in self.rows("select id from dlq.cause where status = 'fixing'")
        }
        selections = [fix.selection for fix in list_fixes(self.connection, only_open=True)]
        assert fixing == {one.cause for one in selections if one.to_json().keys() == {"cause"}}

    def teardown(self) -> None:
        """Every fix that is resumed, and whose events are delivered, ends before it expires."""
        for _ in range(MOST_ROUNDS):
            if not (left := list_fixes(self.connection, only_open=True)):
                break
            for fix in left:
                if fix.status is FixStatus.PAUSED:
                    resume_fix(self.connection, fix.id, audit=self.audit())
            self.sense()
            self.passed += timedelta(seconds=30)
            self.work(["done"] * 50)
        assert list_fixes(self.connection, only_open=True) == []
        self.every_event_is_in_exactly_one_place()
        self.ledger_outbox_and_audit_agree()
        self.stages_keep_their_policy()


def is_selected(fix: Fix, event: dict[str, Any]) -> bool:
    """Whether the fix targets the event as it is dead now."""
    selection = fix.selection
    return bool(
        event["status"] == "dead"
        and event["died_at"] < fix.flagged_at
        and selection.cause in {None, event["cause_id"]}
        and selection.event_type in {None, event["event_type"]}
        and (selection.event_ids is None or event["id"] in selection.event_ids)
    )


def in_order(before: dict[int, dict[str, Any]], released: list[int]) -> None:
    """Of an aggregate one event, with none before it that was dead or retried and under way."""
    assert all(
        count == 1
        for count in Counter(before[event]["aggregate_id"] for event in released).values()
    )
    for event, (number, earlier) in itertools.product(released, before.items()):
        if number < event and earlier["aggregate_id"] == before[event]["aggregate_id"]:
            assert earlier["status"] == "done" or (
                earlier["status"] != "dead" and not earlier["retries"]
            )
