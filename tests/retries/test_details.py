"""A fix of one detail of a cause: it releases, judges and changes that detail alone."""

from dataclasses import replace
from zoneinfo import ZoneInfo

import psycopg
import pytest

from dlq_pipelines.audit import RunOptions
from dlq_pipelines.causes.catalogue import get_cause, merge_causes
from dlq_pipelines.causes.fingerprint import compute_cause_key
from dlq_pipelines.causes.update import update_causes
from dlq_pipelines.errors import RefusedError
from dlq_pipelines.outbox.selection import Selection
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.retries.advance import withdraw_fix
from dlq_pipelines.retries.fix import Fix, FixStatus, WaitStep
from dlq_pipelines.retries.fixes import FixFlag, flag_fix, get_fix
from dlq_pipelines.retries.retry import retry_selected
from tests.retries.helpers import (
    POLICY,
    add_dead,
    advance,
    build_audit,
    count_by_status,
    get_now,
    run_worker,
)
from tests.rows import add_events, kill, one

KEY = compute_cause_key("KeyError: 'sku'").id
SKU, CITY = Selection(cause=KEY, detail="sku"), Selection(cause=KEY, detail="city")
WHOLE = Selection(cause=KEY)


@pytest.fixture(autouse=True)
def dead(connection: Connection) -> None:
    """Three dead events of each of two details of a cause."""
    add_dead(connection, 3, error="KeyError: 'sku'")
    add_dead(connection, 3, error="KeyError: 'city'")


def flag(connection: Connection, selection: Selection) -> Fix:
    return flag_fix(connection, FixFlag(selection, POLICY), audit=build_audit("ann", "fixed"))


def get_states(connection: Connection) -> dict[str, str]:
    """Return the state of the cause, as the key "", and of its details."""
    cause = get_cause(connection, KEY)
    return {"": cause.status} | {detail.detail: detail.status for detail in cause.details}


def verify(connection: Connection, database: Database, fix: Fix) -> None:
    """Advance a fix whose events are all delivered to its end."""
    while get_fix(connection, fix.id).status is FixStatus.ACTIVE:
        advance(connection, fix)
        run_worker(database, delivers=True)
    assert get_fix(connection, fix.id).status is FixStatus.VERIFIED


def test_a_verified_fix_of_a_detail_fixes_that_detail_alone(
    connection: Connection, database: Database
) -> None:
    fix = flag(connection, SKU)
    assert get_states(connection) == {"": "open", "city": "open", "sku": "fixing"}
    verify(connection, database, fix)
    assert get_states(connection) == {"": "open", "city": "open", "sku": "fixed"}
    assert count_by_status(connection) == {"dead": 3, "done": 3}
    (detail,) = (found for found in get_cause(connection, KEY).details if found.detail == "sku")
    assert (detail.fixed_at, detail.dead) == (fix.flagged_at, 0)


def test_a_halted_fix_of_a_detail_opens_it(connection: Connection, database: Database) -> None:
    fix = flag(connection, SKU)
    advance(connection, fix)
    run_worker(database, delivers=False)
    advance(connection, fix)
    assert get_fix(connection, fix.id).status is FixStatus.HALTED
    assert get_states(connection) == {"": "open", "city": "open", "sku": "open"}


@pytest.mark.parametrize("known", ["fixed", "regressed"])
def test_a_withdrawn_fix_restores_the_state_of_its_detail(
    connection: Connection, known: str
) -> None:
    connection.execute(
        "update dlq.cause_detail set status = %s, fixed_at = '2026-01-01Z' where detail = 'sku'",
        [known],
    )
    before = one(connection, "select * from dlq.cause_detail where detail = 'sku'")
    fix = flag(connection, SKU)
    assert get_states(connection)["sku"] == "fixing"
    withdraw_fix(connection, fix.id, audit=build_audit())
    assert one(connection, "select * from dlq.cause_detail where detail = 'sku'") == before


def test_a_verified_fix_of_a_cause_fixes_the_details_that_were_seen_before_it(
    connection: Connection, database: Database
) -> None:
    """A detail that is first seen after the flag is news, and leaves the cause fixed."""
    fix = flag(connection, WHOLE)
    assert get_states(connection) == {"": "fixing", "city": "open", "sku": "open"}
    verify(connection, database, fix)
    add_dead(connection, 1, error="KeyError: 'street'")
    found = update_causes(connection, now=get_now(), zone=ZoneInfo("UTC"))
    assert (found.regressed, found.regressed_details) == ((), ())
    assert get_states(connection) == {
        "": "fixed",
        "city": "fixed",
        "sku": "fixed",
        "street": "open",
    }
    add_dead(connection, 1, error="KeyError: 'sku'")
    found = update_causes(connection, now=get_now(), zone=ZoneInfo("UTC"))
    assert (found.regressed, found.regressed_details) == ((KEY,), ((KEY, "sku"),))
    assert get_states(connection) == {
        "": "regressed",
        "city": "fixed",
        "sku": "regressed",
        "street": "open",
    }


@pytest.mark.parametrize(
    ("first", "second"),
    [(SKU, SKU), (WHOLE, SKU), (SKU, WHOLE), (SKU, Selection(detail="sku"))],
    ids=["detail and detail", "cause and detail", "detail and cause", "detail of any cause"],
)
def test_fixes_of_the_same_detail_overlap_also_while_the_worker_has_their_events(
    connection: Connection, first: Selection, second: Selection
) -> None:
    fix = flag(connection, first)
    if second.cause is not None:
        retry_selected(connection, SKU, audit=build_audit(), rate=None, max_retries=None)
        add_dead(connection, 1, error="KeyError: 'sku'")
    with pytest.raises(RefusedError, match=f"Fix {fix.id} is open"):
        flag(connection, second)
    assert flag(connection, CITY).id == fix.id + 1 if first is SKU else True


def test_the_database_refuses_two_open_fixes_of_one_detail(connection: Connection) -> None:
    flag(connection, SKU)
    with pytest.raises(psycopg.errors.UniqueViolation):
        connection.execute(
            "insert into dlq.fix (cause_id, detail, note, flagged_by, flagged_at, status_before)"
            " select cause_id, detail, note, flagged_by, flagged_at, status_before from dlq.fix"
        )


def test_a_fix_of_a_part_of_a_detail_changes_no_state(
    connection: Connection, database: Database
) -> None:
    fix = flag(connection, Selection(cause=KEY, detail="sku", event_type="order.placed"))
    verify(connection, database, fix)
    assert set(get_states(connection).values()) == {"open"}


@pytest.mark.parametrize("selection", [SKU, Selection(detail="sku")], ids=["cause", "any cause"])
def test_a_fix_waits_for_deaths_from_before_its_flag_that_are_not_classified(
    connection: Connection, selection: Selection
) -> None:
    add_events(connection, 1)
    kill(connection, "KeyError: 'sku'", where="status = 'pending'")
    fix = flag(connection, selection)
    step = advance(connection, fix).step
    connection.execute("update outbox_event set status = 'done' where status = 'pending'")
    step = advance(connection, fix).step
    assert isinstance(step, WaitStep)
    assert "not classified: 1" in step.reason


def test_a_fix_of_a_detail_targets_that_of_merged_causes_too(
    connection: Connection, database: Database
) -> None:
    add_dead(connection, 2, error="LookupError: 'sku'")
    other = compute_cause_key("LookupError: 'sku'").id
    merge_causes(connection, other, into=KEY, audit=build_audit())
    # The events of the other detail are earlier ones of the same aggregates.
    policy = replace(POLICY, order="none")
    fix = flag_fix(connection, FixFlag(SKU, policy), audit=build_audit("ann", "fixed"))
    verify(connection, database, fix)
    assert count_by_status(connection) == {"dead": 3, "done": 5}
    assert get_states(connection) == {"": "open", "city": "open", "sku": "fixed"}


def test_dead_events_of_a_detail_are_retried_alone(connection: Connection) -> None:
    done = retry_selected(
        connection,
        CITY,
        audit=build_audit(),
        options=RunOptions(),
        rate=None,
        max_retries=None,
    )
    assert done.events == 3
    assert one(connection, "select array_agg(event_id) as ids from dlq.retry") == {"ids": [4, 5, 6]}
