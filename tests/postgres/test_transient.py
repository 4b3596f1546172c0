"""What is held or slow for a moment is said to be that, by every face; nobody is sent to look at roles and servers."""

import psycopg
import pytest

from dlq_pipelines.api.errors import describe_error
from dlq_pipelines.cli.app import _describe_error
from dlq_pipelines.defs.resources import OutboxResource
from dlq_pipelines.postgres.connect import Connection, Database

SLOW = "The database did not answer in time. Ask for less at once, or again when it is less busy."
HELD = "Other transactions hold what this needs. Ask again when they have ended."


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(
    ("limit", "ask", "said"),
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
def test_what_passes_by_itself_is_said_to_pass(
    connection: Connection, database: Database, limit: str, ask: str, said: str
) -> None:
    """A statement that takes too long, a lock that another holds, and two that wait for each other."""
    with database.connect() as other, other.transaction():
        other.execute("lock table outbox_event in row exclusive mode")
        connection.execute(f"set {limit} = '50ms'".encode())
        with pytest.raises(psycopg.Error) as raised:
            connection.execute(ask.encode())
    assert describe_error(raised.value) == (503, said)
    assert _describe_error(raised.value) == said
    with pytest.raises(Exception, match=said), OutboxResource().session():
        raise raised.value
