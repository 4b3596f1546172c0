"""Every face reports a transient error as transient, without advice about roles and servers."""

import psycopg
import pytest

from dlq_pipelines.api.errors import describe_error
from dlq_pipelines.cli.app import _describe_error
from dlq_pipelines.defs.session import open_session
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.settings import read_settings

SLOW = (
    "The database did not answer in time. "
    "Select fewer events, or try again when the database is less busy."
)
HELD = "Other transactions hold the rows. Try again when those transactions have ended."


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(
    ("timeout", "statement", "message"),
    [
        ("statement_timeout", "select pg_sleep(10)", SLOW),
        ("lock_timeout", "alter table outbox_event add column own text", HELD),
        (
            "deadlock_timeout",
            "do $$ begin raise 'deadlock detected' using errcode = '40P01'; end $$",
            HELD,
        ),
    ],
)
def test_every_face_reports_a_transient_error(
    connection: Connection, database: Database, timeout: str, statement: str, message: str
) -> None:
    """A statement timeout, a lock timeout and a deadlock."""
    with database.connect() as other, other.transaction():
        other.execute("lock table outbox_event in row exclusive mode")
        connection.execute(f"set {timeout} = '50ms'".encode())
        with pytest.raises(psycopg.Error) as raised:
            connection.execute(statement.encode())
    status, body = describe_error(raised.value)
    assert (status, body.error, body.code) == (503, message, "transient")
    assert _describe_error(raised.value) == message
    with pytest.raises(Exception, match=message), open_session(read_settings, None):
        raise raised.value
