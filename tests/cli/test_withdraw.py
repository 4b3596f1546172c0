"""`dlq fixes withdraw`: does a person's word end a fix, and only that?"""

import getpass
import json

import pytest

from dlq_pipelines.postgres.connect import Connection
from tests.cli.conftest import Run
from tests.rows import one

OPERATIONS = "select kind, actor, reason from dlq.operation"
FIX = "select status, verdict from dlq.fix"


@pytest.fixture(autouse=True)
def _flagged(connection: Connection) -> None:
    """One active fix."""
    connection.execute(
        "insert into dlq.cause (id, exception_type, template, sample, first_seen, last_seen, status)"
        " values ('c1', 'KeyError', 'id', '', now(), now(), 'fixing')"
    )
    connection.execute(
        "insert into dlq.fix (cause_id, note, flagged_by, flagged_at, canary, rate, min_success, settle_seconds)"
        " values ('c1', 'mended', 'ann', now(), 10, 50, 0.9, 900)"
    )


@pytest.mark.parametrize("named", [[], ["--actor", "bob"]], ids=["the account", "a name"])
def test_withdrawing_ends_the_fix_in_a_persons_name(dlq: Run, connection: Connection, named: list[str]) -> None:
    """The account's, unless another is given; the cause is open."""
    actor = named[-1] if named else getpass.getuser()
    ended = dlq("fixes", "withdraw", "1", "--reason", "rolled back", *named)
    assert (ended.code, ended.err) == (0, "")
    assert f"withdrawn by {actor}: rolled back" in ended.out
    assert one(connection, FIX) == {"status": "withdrawn", "verdict": f"withdrawn by {actor}: rolled back"}
    assert one(connection, "select status from dlq.cause") == {"status": "open"}
    assert one(connection, OPERATIONS) == {"kind": "fix.withdrawn", "actor": actor, "reason": "rolled back"}


def test_a_program_reads_what_the_fix_is_now(dlq: Run) -> None:
    """The same fields as `dlq fixes list --json`."""
    withdrawn = json.loads(dlq("fixes", "withdraw", "1", "--reason", "rolled back", "--json").out)
    assert withdrawn == json.loads(dlq("fixes", "list", "--json").out)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["2", "--reason", "x"], 3, "no fix 2"),
        (["1", "--reason", " "], 2, "reason must not be empty"),
        (["1", "--reason", "x", "--actor", ""], 2, "actor must not be empty"),
        (["1"], 2, "--reason"),
        (["0", "--reason", "x"], 2, "0 is not in the range"),
    ],
)
def test_what_cannot_be_withdrawn_is_said_and_changes_nothing(
    dlq: Run, connection: Connection, arguments: list[str], code: int, said: str
) -> None:
    ended = dlq("fixes", "withdraw", *arguments)
    assert (ended.code, said in ended.err) == (code, True), ended
    assert one(connection, FIX) == {"status": "active", "verdict": None}
    assert connection.execute(OPERATIONS.encode()).fetchall() == []


def test_a_fix_that_has_ended_stays_as_it_is(dlq: Run, connection: Connection) -> None:
    """Refused, with the state that it is in; the audit has the first withdrawal alone."""
    dlq("fixes", "withdraw", "1", "--reason", "first")
    before = one(connection, "select * from dlq.fix")
    again = dlq("fixes", "withdraw", "1", "--reason", "second")
    assert (again.code, "Fix 1 is withdrawn already" in again.err) == (4, True)
    assert one(connection, "select * from dlq.fix") == before
    assert one(connection, OPERATIONS)["reason"] == "first"
