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

from dlq_pipelines.archive.archive import archive_dead_events, discard_events
from dlq_pipelines.archive.purge import purge_archive
from dlq_pipelines.archive.restore import restore_events
from dlq_pipelines.audit import AuditContext, RunOptions
from dlq_pipelines.causes.classify import classify_deaths
from dlq_pipelines.causes.fingerprint import compute_cause_id
from dlq_pipelines.errors import NotFoundError, RefusedError
from dlq_pipelines.outbox.selection import Selection
from dlq_pipelines.retries.advance import Patience, advance_fix, pause_fix, resume_fix, withdraw_fix
from dlq_pipelines.retries.fix import Fix, FixStatus, FixTerms, RetryPolicy, can_stage_pass
from dlq_pipelines.retries.fixes import (
    FixFlag,
    flag_fix,
    get_stage_outcomes,
    list_due_fixes,
    list_fixes,
)
from dlq_pipelines.retries.pace import compute_lowest_rate
from dlq_pipelines.retries.probe import FIRST_WAIT, ProbePolicy
from dlq_pipelines.retries.probes import run_probes
from dlq_pipelines.retries.recall import recall_fix, recall_retries
from dlq_pipelines.retries.retry import retry_events, retry_selected
from dlq_pipelines.retries.settle import settle_retries
from tests.shapes import ShapedOutbox

ERRORS = ("TimeoutError: no answer", "KeyError: 'sku'")
CAUSES = tuple(compute_cause_id(error) for error in ERRORS)
# What the present state does not allow.
REFUSED = (NotFoundError, RefusedError)
TERMS = FixTerms(max_backlog=timedelta(hours=1), lookahead=timedelta(seconds=90))
# So few a day that an example reaches the bound.
PROBES = ProbePolicy(
    enabled=True, per_day=4, settle_seconds=60, max_retries=2, max_backlog=timedelta(hours=1)
)
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
    truncate {table}, dlq.archived, dlq.death, dlq.dead, dlq.cause_day, dlq.cause_alias,
        dlq.cause, dlq.retry, dlq.recalled,
        dlq.fix_outcome, dlq.fix_stage, dlq.fix, dlq.discard, dlq.purged, dlq.audit
        restart identity cascade
"""
EVENTS = """
    select e.*, d.died_at, d.death_id, d.cause_id,
        (select count(*) from dlq.retry r where r.event_id = e.id) as retries
    from (select {number} as n, {key} as id, {aggregate} as aggregate_id,
              {event_type} as event_type, {state} as state from {table}) e
    left join dlq.dead d on d.event_id = e.id
"""
# A dead event whose death was answered by a retry, and one that left the state without one.
ASTRAY = """
    select d.event_id
    from (select distinct on (event_id) * from dlq.death order by event_id, died_at desc) d
    left join dlq.retry r on r.death_id = d.id
    left join ({events}) e on e.id = d.event_id
    left join dlq.archive a on a.id = d.event_id
    where coalesce(e.state = 'dead', a.dead, false) is distinct from (r.death_id is null)
        and not exists (select from dlq.purged p where p.event_id = d.event_id)
"""
OUTCOMES = """
    select r.death_id, case
        when exists (select from dlq.death d where d.event_id = r.event_id and d.id > r.death_id)
            then 'died_again'
        when e.state = 'done' or e.id is null then 'delivered' end as outcome
    from dlq.retry r left join ({events}) e on e.id = r.event_id where r.outcome is null
"""
KNOWN_AS_DEAD = "select event_id as id from dlq.dead_now order by 1"
DEAD = "select id from ({events}) e where state = 'dead' order by 1"
IN_ONE_PLACE = """
    select (select count(*) from {table}) + (select count(*) from dlq.archive)
        + (select count(*) from dlq.purged) as n
"""
# Released less recalled, as the audit log has them.
AUDITED = """
    select coalesce(sum(case kind when 'retry.recall' then -events else events end), 0)::bigint as n
    from dlq.audit where kind in ('retry.stage', 'retry.selected', 'probe.release', 'retry.recall')
"""
RECALLED = """
    select (select count(*) from dlq.recalled) as kept, coalesce(sum(events), 0)::bigint as audited
    from dlq.audit where kind = 'retry.recall'
"""
# Scheduled by a fix that does not go on, or further ahead than anything may be.
SCHEDULED = """
    select r.death_id from dlq.retry r
    join (select {key} as id, {due} as due_at from {table} where {waiting}) e
        on e.id = r.event_id and e.due_at = r.due_at
    left join dlq.fix f on f.id = r.fix_id
    where r.outcome is null and r.payload_before is null and r.due_at > '{now}'
        and (f.status <> 'active' or r.due_at > r.retried_at + interval '10 min')
"""

# Events that probes released, by cause, whose outcome is not known.
PROBED = """
    select c.id as cause_id, count(*) as n
    from dlq.retry r
    join dlq.death d on d.id = r.death_id
    join dlq.cause c on c.id = d.cause_id
    where r.actor = 'probe' and r.outcome is null
    group by 1
"""
# Two events of a fix that fall due closer together than its rate allows.
TOO_FAST = """
    select r.fix_id, r.due_at, r.gap, f.rate
    from (
        select fix_id, due_at,
            due_at - lag(due_at) over (partition by fix_id order by due_at, death_id) as gap
        from dlq.retry where fix_id is not null) r
    join dlq.fix f on f.id = r.fix_id
    where r.gap < make_interval(secs => 1 / f.rate) - interval '1 ms'
"""

policies = st.builds(
    RetryPolicy,
    canary=st.integers(1, 3),
    growth=st.sampled_from([1.0, 2.0, 10.0]),
    rate=st.sampled_from([1000.0, 0.02]),
    min_success=st.sampled_from([0.3, 0.9, 1.0]),
    settle_seconds=st.just(60),
    max_retries=st.integers(1, 2),
    order=st.sampled_from(["aggregate", "none"]),
)
numbers = st.lists(st.integers(1, 20), min_size=1, max_size=6, unique=True)
# Taken: the worker stops before it has a result, and takes the event again later.
results = ["done"] * 6 + ["dead", "retry", "taken"]
outcomes = st.lists(st.sampled_from(results), min_size=1, max_size=8)
written = st.lists(st.tuples(st.integers(1, 6), st.sampled_from("ab")), min_size=1, max_size=6)
# Filters of a selection, with numbers in place of ids.
selections: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.builds(dict, cause=st.sampled_from(CAUSES)),
    st.builds(dict, event_type=st.sampled_from("ab")),
    st.builds(dict, cause=st.sampled_from(CAUSES), event_type=st.sampled_from("ab")),
    st.builds(dict, event_ids=numbers),
    st.just({"all": True}),
)
Filters = dict[str, Any]


def build_words(outbox: ShapedOutbox) -> dict[str, str]:
    """Return what the statements of this module call the table, its columns and its events."""
    shape = outbox.shape
    words = {
        "table": shape.table,
        "number": shape.number,
        "key": shape.key,
        "aggregate": shape.aggregate,
        "event_type": shape.columns["event_type"],
        "state": outbox.state,
        "due": shape.due,
        "waiting": shape.states["waiting"],
    }
    return {**words, "events": EVENTS.format(**words)}


class Retries(RuleBasedStateMachine):
    """An outbox of a few aggregates, its worker, and all who retry or archive dead events."""

    def __init__(self, outbox: ShapedOutbox) -> None:
        super().__init__()
        self.outbox, self.connection = outbox, outbox.connection
        self.words = build_words(outbox)
        outbox.written = outbox.deleted = 0
        self.connection.execute(EMPTY.format(**self.words).encode())
        self.passed = timedelta()

    @property
    def now(self) -> datetime:
        return datetime.now(UTC) + self.passed

    def audit(self) -> AuditContext:
        return AuditContext("ann", "because", self.now)

    def rows(self, statement: str) -> list[dict[str, Any]]:
        return self.connection.execute(statement.format(**self.words).encode()).fetchall()

    def select(self, filters: Filters) -> Selection:
        """Return the selection of filters, with ids in place of numbers."""
        if "event_ids" in filters:
            return Selection(event_ids=tuple(self.outbox.event_ids(*filters["event_ids"])))
        return Selection(**filters)

    # --- the application and its worker ---

    @initialize(written=written, selection=selections, policy=policies)
    def begin(
        self, written: list[tuple[int, str]], selection: Filters, policy: RetryPolicy
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
            self.outbox.give_up(
                self.outbox.add_events(1, aggregate=str(aggregate), event_type=event_type), error
            )
        classify_deaths(self.connection, zone=ZoneInfo("UTC"))

    @rule(outcomes=outcomes)
    def work(self, outcomes: list[str]) -> None:
        """A worker takes what is due, oldest due first."""
        left = self.outbox.list_numbers("working")
        due = [*left, *self.outbox.take(len(outcomes), now=self.now)]
        for number, outcome in zip(due, outcomes, strict=False):
            if outcome == "done":
                self.outbox.deliver([number])
            elif outcome == "dead":
                self.outbox.give_up([number], ERRORS[number % 2])
            elif outcome == "retry":
                self.outbox.try_again([number], due=self.now + timedelta(seconds=30))
        classify_deaths(self.connection, zone=ZoneInfo("UTC"))

    @rule(minutes=st.sampled_from([1, 1, 2, 30, 24 * 60]))
    def wait(self, minutes: int) -> None:
        self.passed += timedelta(minutes=minutes)

    # --- fixes ---

    @rule(selection=selections, policy=policies)
    def flag(self, selection: Filters, policy: RetryPolicy) -> None:
        with suppress(*REFUSED):
            flag = FixFlag(self.select(selection), policy)
            flag_fix(self.connection, flag, audit=self.audit())

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

    @rule(nth=st.integers(0, 1), outcomes=outcomes)
    def follow(self, nth: int, outcomes: list[str]) -> None:
        """The step of a fix goes on while the worker takes one event after the other."""
        left = [*outcomes]
        patience = Patience(
            0.02,
            lambda: self.now,
            total=1,
            sleep=lambda _: self.work([left.pop()] if left else []),
        )
        for fix in list_fixes(self.connection)[nth : nth + 1]:
            advance_fix(self.connection, fix.id, audit=self.audit(), terms=TERMS, patience=patience)

    @rule(nth=st.integers(0, 1), held=st.lists(st.integers(1, 16), min_size=6, unique=True))
    def rerun_while_held(self, nth: int, held: list[int]) -> None:
        """When the next stage could begin, and others hold many of the events."""
        self.passed += timedelta(seconds=30)
        self.work(["done"] * 20)
        with self.outbox.database.connect() as other, other.transaction():
            self.outbox.lock_rows(other, held)
            for fix in list_fixes(self.connection)[nth : nth + 1]:
                released = self.step(fix)
                assert not released & set(held)

    @rule(nth=st.integers(0, 1), change=st.sampled_from([pause_fix, resume_fix, withdraw_fix]))
    def decide(self, nth: int, change: Callable[..., Fix]) -> None:
        for fix in list_fixes(self.connection)[nth : nth + 1]:
            with suppress(*REFUSED):
                change(self.connection, fix.id, audit=self.audit())

    @rule(nth=st.integers(0, 1))
    def halt_without_recall(self, nth: int) -> None:
        """A process is killed between the change of a fix and its recall."""
        for fix in list_fixes(self.connection, only_open=True)[nth : nth + 1]:
            self.connection.run(
                "fix.close",
                fix_id=fix.id,
                status=FixStatus.WITHDRAWN,
                verdict="killed",
                evidence="[]",
                now=self.now,
            )
            stuck = bool(self.scheduled())
            due = list_due_fixes(self.connection, now=self.now, max_backlog=TERMS.max_backlog)
            assert (fix.id in {one.id for one in due}) == stuck
            self.step(fix)

    @rule(nth=st.integers(0, 1))
    def recall(self, nth: int) -> None:
        """A person recalls what a fix left, again and again."""
        for fix in list_fixes(self.connection)[nth : nth + 1]:
            with suppress(*REFUSED):
                done = recall_fix(self.connection, fix.id, audit=self.audit())
                assert done.recalled == 0

    @rule(selection=selections)
    def recall_by_hand(self, selection: Filters) -> None:
        chosen, dry_run = self.select(selection), RunOptions(dry_run=True)
        with suppress(NotFoundError):  # no person retried one of these
            would = recall_retries(self.connection, chosen, audit=self.audit(), options=dry_run)
            assert recall_retries(self.connection, chosen, audit=self.audit()) == would

    def scheduled(self) -> list[dict[str, Any]]:
        """Return what is scheduled although it must not be."""
        statement = SCHEDULED.format(**self.words, now=self.now.isoformat())
        return self.connection.execute(statement.encode()).fetchall()

    def step(self, fix: Fix) -> set[int]:
        """Run a fix once; check that it may release these events, and return their numbers."""
        # What a probe flagged takes the installation's policy at its first step.
        policy = fix.policy or TERMS.policy
        before = {row["id"]: row for row in self.rows(EVENTS)}
        known = {row["death_id"] for row in self.rows("select death_id from dlq.retry")}
        expected = self.outcomes()
        done = advance_fix(self.connection, fix.id, audit=self.audit(), terms=TERMS)
        released = [
            row for row in self.rows("select * from dlq.retry") if row["death_id"] not in known
        ]
        # A release that leaves no event for the stage can halt it at once, which recalls it again.
        assert len(released) <= done.released <= len(released) + done.recalled
        assert all(row["due_at"] <= row["retried_at"] + TERMS.lookahead for row in released)
        self.settled_as(expected)
        assert not released or fix.status is FixStatus.ACTIVE
        for row in released:
            event = before[row["event_id"]]
            assert (row["fix_id"], row["death_id"]) == (fix.id, event["death_id"])
            assert self.is_selected(fix, event)
            assert event["retries"] < policy.max_retries
        numbers = [before[row["event_id"]]["n"] for row in released]
        if policy.order == "aggregate" and self.outbox.shape.has_aggregates:
            in_order({row["n"]: row for row in before.values()}, numbers)
        return set(numbers)

    def is_selected(self, fix: Fix, event: dict[str, Any]) -> bool:
        """Whether the fix targets the event as it is dead now."""
        selection = fix.selection
        id_ = self.outbox.event_id(event["n"])
        return bool(
            event["state"] == "dead"
            and event["died_at"] < fix.flagged_at
            and selection.cause in {None, event["cause_id"]}
            and selection.event_type in {None, event["event_type"]}
            and (selection.event_ids is None or id_ in selection.event_ids)
        )

    # --- probes ---

    @rule(minutes=st.sampled_from([0, 6, 30]))
    def probe(self, minutes: int) -> None:
        """A run of probes, some time later: it releases what it may, or flags what it may."""
        self.passed += timedelta(minutes=minutes)
        before = {row["id"]: row for row in self.rows(EVENTS)}
        known = {row["death_id"] for row in self.rows("select death_id from dlq.retry")}
        busy = {row["cause_id"] for row in self.rows(PROBED)}
        open_fixes = list_fixes(self.connection, only_open=True)
        expected = self.outcomes()
        now = self.now
        signed = AuditContext("sensor", "due", now)
        done = run_probes(self.connection, policy=PROBES, zone=ZoneInfo("UTC"), audit=signed)
        released = [
            row for row in self.rows("select * from dlq.retry") if row["death_id"] not in known
        ]
        self.settled_as(expected)
        assert len(released) == len(done.released)
        for row in released:
            event = before[row["event_id"]]
            cause = event["cause_id"]
            assert (row["actor"], row["fix_id"]) == ("probe", None)
            assert cause == CAUSES[0], "only this cause is transient"
            assert cause not in busy
            assert event["state"] == "dead"
            assert event["retries"] < PROBES.max_retries
            assert not any(self.is_selected(fix, event) for fix in open_fixes)
            assert event["died_at"] <= now - FIRST_WAIT
        if self.outbox.shape.has_aggregates:
            in_order(
                {row["n"]: row for row in before.values()},
                [before[row["event_id"]]["n"] for row in released],
            )
        for fix in list_fixes(self.connection, only_open=True):
            assert fix.id in {one.id for one in open_fixes} or (
                fix.flagged_by == "probe" and fix.selection == Selection(cause=CAUSES[0])
            )

    # --- people and jobs ---

    @rule(wanted=numbers)
    def retry_by_hand(self, wanted: list[int]) -> None:
        dead = {row["n"] for row in self.rows(EVENTS) if row["state"] == "dead"}
        ids = self.outbox.event_ids(*wanted)
        would = retry_events(
            self.connection, ids, audit=self.audit(), options=RunOptions(dry_run=True)
        ).events
        assert (
            retry_events(self.connection, ids, audit=self.audit()).events
            == would
            == len(dead & set(wanted))
        )

    @rule(selection=selections, most=st.sampled_from([None, 1]))
    def retry_by_filter(self, selection: Filters, most: int | None) -> None:
        # Due within seconds, or later, so that a recall finds some.
        for rate in (1000.0, 0.1):
            retry_selected(
                self.connection,
                self.select(selection),
                audit=self.audit(),
                options=RunOptions(limit=5),
                rate=rate,
                max_retries=most,
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
            row["n"]
            for row in self.rows(EVENTS)
            if any(self.is_selected(fix, row) for fix in fixes)
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
        assert {row["n"] for row in self.rows(EVENTS) if row["state"] == "dead"} == stay

    @rule(selection=selections)
    def restore(self, selection: Filters) -> None:
        chosen, dry_run = self.select(selection), RunOptions(dry_run=True)
        would = restore_events(self.connection, chosen, audit=self.audit(), options=dry_run)
        assert restore_events(self.connection, chosen, audit=self.audit()) == would
        assert would.blocked == 0

    @rule(wanted=numbers)
    def discard(self, wanted: list[int]) -> None:
        selection = self.select({"event_ids": wanted})
        discard_events(self.connection, selection, audit=self.audit())

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
        assert self.rows(IN_ONE_PLACE)[0]["n"] + self.outbox.deleted == self.outbox.written

    @invariant()
    def what_is_known_as_dead_is_dead(self) -> None:
        assert self.rows(KNOWN_AS_DEAD) == self.rows(DEAD)

    @invariant()
    def ledger_outbox_and_audit_agree(self) -> None:
        """Each released event has a retry, a dead event has none, and all retries are audited."""
        assert self.rows(ASTRAY) == []
        assert self.rows(AUDITED) == self.rows("select count(*) as n from dlq.retry")
        (recalled,) = self.rows(RECALLED)
        assert recalled["kept"] == recalled["audited"]
        assert self.connection.run("fix.stages_difference").fetchall() == []

    @invariant()
    def nothing_is_scheduled_that_was_stopped(self) -> None:
        """Nor further ahead than ten minutes."""
        assert self.scheduled() == []

    @invariant()
    def a_cause_has_one_probe_at_a_time(self) -> None:
        """And no day has more of them than it may."""
        assert all(row["n"] == 1 for row in self.rows(PROBED))
        days = self.rows(
            "select at::date as day, sum(events) as n from dlq.audit"
            " where kind = 'probe.release' group by 1"
        )
        assert all(row["n"] <= PROBES.per_day for row in days)

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
                assert 0 <= stage.tried <= stage.size == fix.policy.size(number)
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

    @invariant()
    def rates_stay_in_their_bounds(self) -> None:
        """And no fix releases events closer together than its own rate allows."""
        for fix in list_fixes(self.connection):
            if fix.policy is None or fix.release_rate is None:
                continue
            current = fix.policy.rate if fix.current_rate is None else fix.current_rate
            assert compute_lowest_rate(fix.policy.rate) <= current <= fix.policy.rate
            assert 0 < fix.release_rate <= fix.policy.rate * (1 + 1e-9)
        assert self.rows(TOO_FAST) == []

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


def in_order(before: dict[int, dict[str, Any]], released: list[int]) -> None:
    """Of an aggregate one event, with none before it that was dead or retried and under way."""
    assert all(
        count == 1
        for count in Counter(before[event]["aggregate_id"] for event in released).values()
    )
    for event, (number, earlier) in itertools.product(released, before.items()):
        if number < event and earlier["aggregate_id"] == before[event]["aggregate_id"]:
            assert earlier["state"] == "done" or (
                earlier["state"] != "dead" and not earlier["retries"]
            )
