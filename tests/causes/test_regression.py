"""A fixed cause regresses if an event that was written after the fix dies of it."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from dlq_pipelines.causes.catalogue import mark_regressed_causes
from dlq_pipelines.causes.classify import classify_deaths
from dlq_pipelines.causes.fingerprint import compute_cause_id
from dlq_pipelines.postgres.connect import Connection
from tests.rows import add_events, kill, one

ERROR = "TimeoutError: no answer"


@pytest.fixture
def fixed_at(connection: Connection) -> datetime:
    """Create a cause that was fixed an hour ago; return the time of the fix."""
    fixed_at = datetime.now(UTC) - timedelta(hours=1)
    add_events(connection, 1)
    kill(connection, ERROR)
    classify_deaths(connection, zone=ZoneInfo("UTC"))
    connection.execute("update dlq.cause set status = 'fixed', fixed_at = %s", [fixed_at])
    connection.execute("update dlq.death set died_at = %s", [fixed_at - timedelta(days=1)])
    return fixed_at


@pytest.mark.parametrize(
    ("written", "error", "regressed"),
    [
        (timedelta(minutes=5), ERROR, True),
        (-timedelta(minutes=5), ERROR, False),
        (timedelta(minutes=5), "KeyError: 'other'", False),
    ],
    ids=["written after the fix", "written before the fix", "another cause"],
)
def test_only_an_event_written_after_the_fix_is_a_regression(
    connection: Connection, fixed_at: datetime, written: timedelta, error: str, *, regressed: bool
) -> None:
    """The change is in the audit log."""
    add_events(connection, 1)
    connection.execute(
        "update outbox_event set created_at = %s where status = 'pending'", [fixed_at + written]
    )
    kill(connection, error, where="status = 'pending'")
    classify_deaths(connection, zone=ZoneInfo("UTC"))
    cause, now = compute_cause_id(ERROR), datetime.now(UTC)
    assert mark_regressed_causes(connection, now=now) == ((cause,) if regressed else ())
    status = one(connection, f"select status from dlq.cause where id = '{cause}'")["status"]
    assert status == ("regressed" if regressed else "fixed")
    kinds = [row["kind"] for row in connection.execute("select kind from dlq.audit").fetchall()]
    assert kinds == (["cause.regressed"] if regressed else [])
    assert mark_regressed_causes(connection, now=now) == ()
