"""What a mapping does not offer is refused with its reason; what it offers works on any payload."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import psycopg
import pytest

from dlq_pipelines.audit import AuditContext, RunOptions
from dlq_pipelines.causes.classify import classify_deaths
from dlq_pipelines.errors import RefusedError
from dlq_pipelines.outbox.offers import require_offer
from dlq_pipelines.outbox.reconcile import reconcile_events
from dlq_pipelines.outbox.selection import Selection
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.retries.fix import FixTerms, RetryPolicy
from dlq_pipelines.retries.fixes import FixFlag, FlagInput, build_flag, flag_fix, preview_fix
from dlq_pipelines.retries.history import get_event_history
from dlq_pipelines.retries.parked import release_parked
from dlq_pipelines.retries.retry import (
    retry_event,
    retry_events,
    retry_selected,
    retry_with_payload,
)
from dlq_pipelines.retries.settle import settle_retries
from tests.other_outboxes import add_task, install_shape, install_tasks
from tests.rows import one

ZONE = ZoneInfo("UTC")
ID = "0b0e5b0c-6c6b-4b8c-9f6c-0123456789ab"
ALL = Selection(all=True)
NO_RETRY = r"The mapping has no \[retry\]: its worker cannot be made to take an event again\."


def sign() -> AuditContext:
    """Return an audit context of now."""
    return AuditContext("ann", "asked", datetime.now(UTC))


def test_every_retry_is_refused_without_a_way_to_retry(empty_database: Database) -> None:
    """Also in dry runs, and nothing is written."""
    with install_tasks(empty_database, offers_retries=False) as (_, connection):
        add_task(connection, ID, "{}")
        classify_deaths(connection, zone=ZONE)
        audit, flag = sign(), FixFlag(ALL)
        for dry_run in (True, False):
            options = RunOptions(dry_run=dry_run)
            with pytest.raises(RefusedError, match=NO_RETRY):
                retry_event(connection, ID, audit=audit, options=options)
            with pytest.raises(RefusedError, match=NO_RETRY):
                retry_events(connection, [ID], audit=audit, options=options)
            with pytest.raises(RefusedError, match=NO_RETRY):
                retry_selected(
                    connection, ALL, audit=audit, options=options, rate=None, max_retries=3
                )
            with pytest.raises(RefusedError, match=NO_RETRY):
                retry_with_payload(connection, ID, "{}", audit=audit, options=options, allowed=True)
            with pytest.raises(RefusedError, match=NO_RETRY):
                release_parked(connection, ALL, max_retries=3, audit=audit, options=options, rate=1)
            with pytest.raises(RefusedError, match=NO_RETRY):
                flag_fix(connection, flag, audit=audit, options=options)
        with pytest.raises(RefusedError, match=NO_RETRY):
            preview_fix(connection, flag, audit=audit, default=RetryPolicy())
        with pytest.raises(psycopg.errors.RaiseException, match=NO_RETRY):
            connection.execute("select dlq.flag_fix('fixed', \"all\" => true)")
        found = one(connection, "select count(*) as n from dlq.audit where kind <> 'causes'")
        assert found["n"] == 0
        assert one(connection, "select state from task") == {"state": "failed"}


def test_fixes_are_refused_if_no_success_is_visible(empty_database: Database) -> None:
    """Retries by hand are offered and time out. What is deleted after one is not missing."""
    with install_tasks(empty_database, knows_delivered=False) as (_, connection):
        add_task(connection, ID, "{}")
        classify_deaths(connection, zone=ZONE)
        with pytest.raises(RefusedError, match=r"^The mapping has no delivered: whether a retry"):
            flag_fix(connection, FixFlag(ALL), audit=sign())
        assert retry_events(connection, [ID], audit=sign()).events == 1
        connection.execute("update task set state = 'done'")
        later = datetime.now(UTC) + timedelta(hours=1)
        assert settle_retries(connection, now=datetime.now(UTC), settle_seconds=60) == 0
        assert settle_retries(connection, now=later, settle_seconds=60) == 1
        assert one(connection, "select outcome from dlq.retry") == {"outcome": "timed_out"}
        connection.execute("delete from task")
        assert reconcile_events(connection, now=later).is_balanced
        add_task(connection, ID, "{}")
        connection.execute("delete from task")
        assert reconcile_events(connection, now=later + timedelta(hours=1)).missing == 1


def test_an_order_is_refused_only_if_it_was_asked_for(empty_database: Database) -> None:
    """The default order of the installation applies to aggregates, and there are none."""
    terms = FixTerms()
    with install_tasks(empty_database) as (_, connection):
        add_task(connection, ID, "{}")
        classify_deaths(connection, zone=ZONE)
        audit = sign()
        asked, default = (
            build_flag(ALL, given, terms=terms, zone=ZONE, now=audit.now)
            for given in (FlagInput(order="aggregate"), FlagInput())
        )
        with pytest.raises(RefusedError, match=r"^The mapping has no aggregate_id: "):
            flag_fix(connection, asked, audit=audit)
        assert flag_fix(connection, default, audit=audit).id == 1


@pytest.mark.parametrize("shape", ["laravel-failed-jobs", "axon", "wolverine", "masstransit"])
def test_presets_say_what_they_do_not_offer(empty_database: Database, shape: str) -> None:
    with install_shape(empty_database, shape) as (_, connection):
        offers = connection.fetch_one("outbox.offers")["offers"]
        for operation, reason in offers.items():
            if reason:
                with pytest.raises(RefusedError) as refused:
                    require_offer(connection, operation)
                assert str(refused.value) == reason
            else:
                require_offer(connection, operation)
        assert offers["archive"] == ""


@pytest.mark.parametrize(
    ("payload_type", "before", "after"),
    [
        ("jsonb", '{"n": 1}', '{"big": 12345678901234567890.12345678901234567890}'),
        ("json", '{"a" : 1,\n "a": 1.0e2 }', '{ "b":1,"b" : 2.50 }'),
        ("text", "not JSON \\ 日本", 'a new\t"text"'),
        ("text", "{}", ""),
        ("varchar(20)", "old", "new"),
        ("bytea", "\\x00ff10", "\\xdeadbeef00"),
    ],
)
def test_a_new_payload_is_stored_as_it_was_given(
    empty_database: Database, payload_type: str, before: str, after: str
) -> None:
    """The ledger keeps the old one, byte for byte."""
    with install_tasks(empty_database, payload_type=payload_type) as (_, connection):
        add_task(connection, ID, before)
        retry_event(connection, ID, audit=sign(), payload=after, allow_edit=True)
        assert read_payload(connection) == after
        assert one(connection, "select payload_before from dlq.retry") == {"payload_before": before}
        assert get_event_history(connection, ID).retries[0].payload_before is not None
        assert one(connection, "select state, tries from task") == {"state": "new", "tries": 0}


@pytest.mark.parametrize(
    ("payload_type", "wrong", "message"),
    [
        ("jsonb", "{", "^The payload is not JSON that PostgreSQL can store: invalid input syntax"),
        ("jsonb", '"\\u0000"', "^The payload is not JSON that PostgreSQL can store: unsupported"),
        ("json", "{'a': 1}", "^The payload is not JSON that PostgreSQL can store: invalid input"),
        ("bytea", "\\xzz", "^The payload is not a bytea that PostgreSQL can store: invalid hex"),
        ("bytea", "\\xabc", "^The payload is not a bytea that PostgreSQL can store: invalid hex"),
        ("varchar(3)", "four", "^The payload is not a text that PostgreSQL can store: value too"),
        ("text", "a\x00b", "^payload is not valid UTF-8 or contains NUL"),
    ],
)
def test_a_payload_of_another_type_is_refused(
    empty_database: Database, payload_type: str, wrong: str, message: str
) -> None:
    """The event stays dead with its payload."""
    valid = "\\x00" if payload_type == "bytea" else "{}"
    with install_tasks(empty_database, payload_type=payload_type) as (_, connection):
        add_task(connection, ID, valid)
        with pytest.raises(ValueError, match=message):
            retry_event(connection, ID, audit=sign(), payload=wrong, allow_edit=True)
        assert read_payload(connection) == valid
        assert one(connection, "select state from task") == {"state": "failed"}
        assert one(connection, "select count(*) from dlq.retry") == {"count": 0}


def read_payload(connection: Connection) -> str:
    """Return the payload of the only event as the views have it."""
    return str(one(connection, "select payload from dlq.outbox")["payload"])
