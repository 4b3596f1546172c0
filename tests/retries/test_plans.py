"""Plans and costs of the statements."""

import itertools
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from dlq_pipelines.audit import AuditContext
from dlq_pipelines.causes.classify import classify_deaths
from dlq_pipelines.outbox.batches import FIRST_CURSOR, build_batch_parameters
from dlq_pipelines.outbox.selection import Selection, build_selection_parameters
from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.retries.advance import (
    build_target_parameters,
)
from dlq_pipelines.retries.fix import Fix, RetryPolicy
from dlq_pipelines.retries.fixes import (
    FixFlag,
    flag_fix,
)
from dlq_pipelines.retries.retry import (
    retry_selected,
)
from dlq_pipelines.retries.settle import settle_retries
from tests.retries.helpers import add_dead, advance, build_audit, chain, get_now
from tests.rows import one
from tests.shapes import SHAPES, OutboxShape, ShapedOutbox


def test_a_batch_of_outcomes_costs_the_same_for_any_number_of_retries(
    connection: Connection,
) -> None:
    """Counted in database pages: the ledger is not scanned to find or to write outcomes."""
    costs = []
    for more in (1_000, 5_000):
        connection.execute(
            "insert into outbox_event (aggregate_type, aggregate_id, event_type, payload, status,"
            " last_error)"
            " select 'order', n::text, 'e', '{}', 'dead', 'x' from generate_series(1, %s) n",
            [more],
        )
        retry_selected(
            connection, Selection(all=True), audit=build_audit(), rate=100_000, max_retries=None
        )
        connection.execute("update outbox_event set status = 'done' where status = 'pending'")
        connection.execute("vacuum analyze")
        with connection.transaction(force_rollback=True):
            costs.append(_pages(connection, "retry.settle", **_outstanding(), fix_id=None))
    assert costs[1] < 1.5 * costs[0], costs


def test_a_storm_without_statistics_costs_no_more(connection: Connection) -> None:
    """An index that the planner takes for a small one is never read whole for each event."""
    add_dead(connection, 4_000)
    retry_selected(
        connection, Selection(all=True), audit=build_audit(), rate=None, max_retries=None
    )
    connection.execute("update outbox_event set status = 'done'")
    settle_retries(connection, now=get_now(), settle_seconds=60)
    connection.execute("vacuum analyze")
    costs = {}
    for heard in (False, True):
        connection.execute(
            "insert into outbox_event (aggregate_type, aggregate_id, event_type, payload, status,"
            " last_error)"
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


def test_one_long_aggregate_without_statistics_costs_no_more(connection: Connection) -> None:
    """Its first dead event is found by the index, not by sorting all of them for each of them."""
    for table in ("dlq.dead", "dlq.death", "dlq.retry", "outbox_event"):
        connection.execute(f"alter table {table} set (autovacuum_enabled = off)".encode())
    costs = []
    for more in (400, 2_600):
        chain(connection, more)
        with connection.transaction(force_rollback=True):
            costs.append(_pages(connection, "retry.take", **_free(connection) | {"rows": 400}))
    assert costs[1] < 1.5 * costs[0], costs


def _free(connection: Connection) -> dict[str, Any]:
    """All that is dead, released at once."""
    who = {
        "actor": "ann",
        "reason": "asked",
        "now": get_now(),
        "due": get_now(),
        "seconds_each": 0.0,
        "release": True,
    }
    return {**build_batch_parameters(connection, Selection(all=True)), **who, "ordered": True}


def _pages(connection: Connection, statement: str, **values: object) -> int:
    """Pages of the database that the statement looks at."""
    text = connection.render_query(statement, **values)
    (plan,) = one(connection, f"explain (analyze, buffers, format json) {text}")["QUERY PLAN"]
    return int(plan["Plan"]["Shared Hit Blocks"]) + int(plan["Plan"]["Shared Read Blocks"])


def _outstanding() -> dict[str, Any]:
    return {
        "now": get_now(),
        "settle_seconds": 60,
        "after_time": FIRST_CURSOR[0],
        "after_id": 0,
        "rows": 100,
    }


@pytest.fixture(
    scope="module",
    params=itertools.product(SHAPES, [500, 1]),
    ids=lambda given: f"{given[0]}, {'many causes' if given[1] > 1 else 'one cause'}",
)
def crowded(
    request: pytest.FixtureRequest,
    open_outbox: Callable[[OutboxShape], AbstractContextManager[ShapedOutbox]],
) -> Iterator[tuple[ShapedOutbox, Fix]]:
    """Add 20,000 dead events, a fix that has released its canary, and earlier retries.

    Explained only, so all statements share it.
    """
    name, causes = request.param
    with open_outbox(SHAPES[name]) as outbox:
        yield outbox, _crowd(outbox, causes)


def _crowd(outbox: ShapedOutbox, causes: int) -> Fix:
    connection, shape = outbox.connection, outbox.shape
    outbox.add_events(20_000)
    outbox.give_up_all(f"'Error' || n % {causes} || ': x'")
    classify_deaths(connection, zone=ZoneInfo("UTC"))
    cause = one(connection, "select cause_id from dlq.death limit 1")["cause_id"]
    fix = flag_fix(
        connection, FixFlag(Selection(cause=cause), RetryPolicy(canary=20)), audit=build_audit()
    )
    advance(connection, fix)
    connection.execute(
        f"insert into dlq.archived select e.*, 100000 + {shape.number}, now()"
        f" from {shape.table} e".encode()
    )
    connection.execute(
        "with past as (insert into dlq.death"
        " (event_id, aggregate_type, aggregate_id, event_type, attempts, died_at, cause_id)"
        f" select {shape.key_of}, 'order', n::text, 'e', 5, '2026-01-01Z', 'v2-past'"
        " from generate_series(200001, 220000) n returning *)"
        " insert into dlq.retry (death_id, event_id, aggregate_type, aggregate_id, actor, reason,"
        " retried_at, due_at, outcome, settled_at)"
        " select id, event_id, aggregate_type, aggregate_id, 'a', 'r', died_at, died_at,"
        " 'delivered', died_at from past".encode()
    )
    connection.execute(
        "insert into dlq.recalled select death_id, event_id, event_created_at, aggregate_type,"
        " aggregate_id, fix_id, stage, actor, reason, retried_at, due_at, now(), 'eve', 'stop'"
        " from dlq.retry"
    )
    connection.execute("analyze")
    return fix


def _probe_question() -> dict[str, Any]:
    return {
        "cause_id": None,
        "now": get_now() + timedelta(hours=1),
        "quiet_since": get_now() + timedelta(minutes=55),
        "enabled": True,
        "may_release": True,
        "settle_seconds": 60,
        "limit": 20,
    }


def _statements(outbox: ShapedOutbox, fix: Fix) -> dict[str, dict[str, Any]]:
    assert fix.policy is not None
    connection, event = outbox.connection, outbox.event_id(7)
    identity = {"event_id": event, "created_at": outbox.read_row(7)["created_at"]}
    walk = {"after_time": FIRST_CURSOR[0], "after_id": 0, "rows": 5000, "room": 5, "stage": 1}
    by_type = replace(fix, selection=Selection(event_type="e"))
    by_ids = replace(fix, selection=Selection(event_ids=tuple(outbox.event_ids(1, 2, 3))))
    by_detail = replace(fix, selection=replace(fix.selection, detail="d"))
    parked = {
        **build_selection_parameters(connection, Selection(all=True), before=get_now()),
        "max_retries": 3,
        "after": 0,
        "limit": 100,
    }
    walk |= {
        "release": True,
        "due": get_now(),
        "seconds_each": 0.1,
        "now": get_now(),
        "actor": "a",
        "reason": "r",
    }
    recall = {"selection": None, "causes": None}
    by_filter = build_selection_parameters(connection, by_type.selection, before=None)
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
        "retry.take of a detail": {
            **build_target_parameters(connection, by_detail, fix.policy),
            **walk,
        },
        "retry.take of ids": {**build_target_parameters(connection, by_ids, fix.policy), **walk},
        "retry.take without a release": {
            **build_target_parameters(connection, fix, fix.policy),
            **walk,
            "release": False,
        },
        "retry.note_late": {"now": get_now(), "limit": 100},
        "fix.pace": {"now": get_now(), "fix_id": fix.id},
        "fix.explain_expiry": {"fix_id": fix.id},
        "fix.timeline": {
            "fixes": [fix.id],
            "until": get_now(),
            "lengths": [30, 86_400],
            "most": 48,
        },
        "fix.is_behind": {"fix_id": fix.id, "due_before": get_now()},
        "retry.settle": _outstanding() | {"fix_id": fix.id},
        "retry.settle of people": _outstanding() | {"fix_id": None},
        "retry.recount_deleted": {
            "fix_id": fix.id,
            "rows": 5000,
            "stage": 1,
            "event_id": str(event),
        },
        "retry.left_by_fixes": {},
        "retry.find_followers": {"deaths": "{7,8,200007}"},
        "retry.has_followers": {"fix_id": fix.id, "until": get_now(), "rows": 5000},
        "retry.take of a follower": {
            **build_target_parameters(connection, fix, fix.policy),
            **walk,
            "event_ids": [str(event)],
        },
        "fix.due": {"now": get_now(), "limit": 20, "congested": False},
        "fix.unclassified": {"fix_id": fix.id},
        "queue.oldest_due": {"now": get_now()},
        "queue.waiting": {
            "now": get_now(),
            "stuck_before": get_now() - timedelta(hours=1),
            "rows": 1000,
        },
        "fix.failures": {"fix_id": fix.id, "stage": 1, "limit": 100},
        "retry.parked": parked | {"fix_id": None},
        "retry.parked of a fix": parked | {"fix_id": fix.id},
        "retry.deaths_of": identity | {"limit": 100},
        "retry.retries_of": identity | {"limit": 100},
        "retry.fix_of": identity,
        "recall.take": walk | recall | {"fix_id": fix.id},
        "recall.take of people": walk | recall | {"fix_id": None, **by_filter},
        "recall.count_with_worker": recall | {"fix_id": fix.id},
        "recall.count_with_worker of people": by_filter | {"fix_id": None},
        "recall.reset_pace": {"fix_id": fix.id, "now": get_now()},
        "probe.due": _probe_question(),
        "probe.due of a cause": _probe_question() | {"cause_id": fix.selection.cause},
        "probe.count_released": {"since": get_now() - timedelta(days=1)},
        "probe.pick": {
            "cause_id": fix.selection.cause,
            "causes": [fix.selection.cause],
            "max_retries": 3,
            "rows": 5000,
            "limit": 100,
        },
        "probe.get": {"cause_id": fix.selection.cause, "enabled": True},
        "outbox.dead_events": {
            "limit": 100,
            "offset": 0,
            "aggregate_type": None,
            "event_type": None,
            "since": get_now() - timedelta(days=1),
        },
        "outbox.dead_event": {"id": event},
    }


@pytest.mark.parametrize(
    "statement",
    [
        "retry.take",
        "retry.take of a page",
        "retry.take of a type",
        "retry.take of a detail",
        "retry.take of ids",
        "retry.take without a release",
        "fix.pace",
        "fix.explain_expiry",
        "fix.timeline",
        "fix.is_behind",
        "retry.note_late",
        "retry.settle",
        "retry.settle of people",
        "retry.recount_deleted",
        "retry.left_by_fixes",
        "retry.find_followers",
        "retry.has_followers",
        "retry.take of a follower",
        "fix.due",
        "fix.unclassified",
        "queue.oldest_due",
        "queue.waiting",
        "fix.failures",
        "retry.parked",
        "retry.parked of a fix",
        "retry.deaths_of",
        "retry.retries_of",
        "retry.fix_of",
        "recall.take",
        "recall.take of people",
        "recall.count_with_worker",
        "recall.count_with_worker of people",
        "recall.reset_pace",
        "probe.due",
        "probe.due of a cause",
        "probe.count_released",
        "probe.pick",
        "probe.get",
        "outbox.dead_events",
        "outbox.dead_event",
    ],
)
def test_no_statement_of_a_fix_reads_whole_tables(
    crowded: tuple[ShapedOutbox, Fix], statement: str
) -> None:
    """Each uses an index on the fix or on its cause, also if the cause is the only one."""
    outbox, fix = crowded
    values = _statements(outbox, fix)[statement]
    plan = outbox.explain(statement.partition(" ")[0], **values)
    assert not re.search(outbox.scan, plan), plan
    # Counted in the order of the ledger's index: a page ends where it is full.
    assert not statement.startswith("retry.parked") or (
        "GroupAggregate" in plan and "Sort" not in plan
    ), plan
    # The sensor's query, twice a minute, reads open retries and not all deaths of the cause.
    assert statement not in {"fix.due", "probe.due"} or not re.search(r"\bdeath\b", plan), plan


def test_a_batch_of_a_recall_costs_the_same_for_any_number_of_retries(
    connection: Connection,
) -> None:
    """Counted in database pages, with what the function of the batch reads and writes."""
    costs = []
    for more in (1_000, 6_000):
        connection.execute(
            "insert into outbox_event (aggregate_type, aggregate_id, event_type, payload, status,"
            " last_error)"
            " select 'order', n::text, 'e', '{}', 'dead', 'x' from generate_series(1, %s) n",
            [more],
        )
        later = AuditContext("bob", "asked", get_now() + timedelta(minutes=5))
        retry_selected(connection, Selection(all=True), audit=later, rate=None, max_retries=None)
        connection.execute("vacuum analyze")
        batch = {
            "fix_id": None,
            "selection": None,
            "causes": None,
            "now": get_now(),
            "after_time": FIRST_CURSOR[0],
            "after_id": 0,
            "rows": 100,
            "actor": "eve",
            "reason": "stop",
        }
        with connection.transaction(force_rollback=True):
            costs.append(_pages(connection, "recall.take", **batch))
            assert one(connection, "select count(*) from dlq.recalled") == {"count": 100}
    assert costs[1] < 1.5 * costs[0], costs


def test_the_question_of_probes_costs_the_same_for_any_number_of_dead_events(
    connection: Connection,
) -> None:
    """Counted in database pages: of each transient cause one row of what is dead is read."""
    costs = []
    for more in (2_000, 20_000):
        connection.execute(
            "insert into outbox_event (aggregate_type, aggregate_id, event_type, payload, status,"
            " last_error)"
            " select 'order', n::text, 'e', '{}', 'dead', 'TimeoutError: timed out'"
            " from generate_series(1, %s) n",
            [more],
        )
        classify_deaths(connection, zone=ZoneInfo("UTC"))
        connection.execute("vacuum analyze")
        found = connection.run("probe.due", **_probe_question()).fetchall()
        assert len(found) == 1
        costs.append(_pages(connection, "probe.due", **_probe_question()))
    assert costs[1] <= costs[0] + 5, costs
