"""A fixed cause that is seen again after its fix turns regressed; what was under way before does not count."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from dlq_pipelines.causes.catalogue import mark_regressed_causes
from dlq_pipelines.causes.classify import classify_deaths
from dlq_pipelines.causes.fingerprint import compute_cause_key
from dlq_pipelines.postgres.connect import Connection
from tests.rows import add_events, kill, one

ERROR = "TimeoutError: no answer"
FIXED = datetime.now(UTC) - timedelta(hours=1)


@pytest.fixture(autouse=True)
def _fixed_cause(connection: Connection) -> None:
    add_events(connection, 1)
    kill(connection, ERROR)
    classify_deaths(connection, zone=ZoneInfo("UTC"))
    connection.execute("update dlq.cause set status = 'fixed', fixed_at = %s", [FIXED])
    connection.execute("update dlq.death set died_at = %s", [FIXED - timedelta(days=1)])


@pytest.mark.parametrize(
    ("written", "error", "regressed"),
    [
        (timedelta(minutes=5), ERROR, True),
        (-timedelta(minutes=5), ERROR, False),
        (timedelta(minutes=5), "KeyError: 'other'", False),
    ],
    ids=["written after the fix", "written before it", "of another cause"],
)
def test_only_an_event_first_attempted_after_the_fix_is_a_relapse(
    connection: Connection, written: timedelta, error: str, regressed: bool
) -> None:
    """Wherever the event is by now; the change is in the audit."""
    add_events(connection, 1)
    connection.execute(
        "update outbox_event set created_at = %s where status = 'pending'", [FIXED + written]
    )
    kill(connection, error, where="status = 'pending'")
    classify_deaths(connection, zone=ZoneInfo("UTC"))
    assert mark_regressed_causes(connection, now=datetime.now(UTC)) == (
        (compute_cause_key(ERROR),) if regressed else ()
    )
    status = one(
        connection, f"select status from dlq.cause where id = '{compute_cause_key(ERROR)}'"
    )["status"]
    assert status == ("regressed" if regressed else "fixed")
    kinds = [row["kind"] for row in connection.execute("select kind from dlq.audit").fetchall()]
    assert kinds == (["cause.regressed"] if regressed else [])
    assert mark_regressed_causes(connection, now=datetime.now(UTC)) == ()
