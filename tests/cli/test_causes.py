"""Checks `dlq causes classify`."""

import json

from dlq_pipelines.causes.fingerprint import compute_cause_id
from dlq_pipelines.postgres.connect import Connection
from tests.cli.conftest import Run
from tests.rows import add_events, kill, one

ERROR = "KeyError: 'sku'"
CAUSE = compute_cause_id(ERROR)


def test_classify_gives_deaths_their_cause_once(dlq: Run, connection: Connection) -> None:
    add_events(connection, 3)
    kill(connection, ERROR)
    classified = dlq("causes", "classify", "--json")
    assert (classified.code, classified.err) == (0, "")
    assert json.loads(classified.out) == {"deaths": 3, "new_causes": [CAUSE], "regressed": []}
    causes = connection.execute("select distinct cause_id as id from dlq.death").fetchall()
    assert causes == [{"id": CAUSE}]
    again = dlq("causes", "classify")
    assert again.out == "Classified 0 deaths: 0 new causes, 0 regressed causes.\n"


def test_classify_marks_a_fixed_cause_that_died_again_as_regressed(
    dlq: Run, connection: Connection
) -> None:
    add_events(connection, 1)
    kill(connection, ERROR)
    assert dlq("causes", "classify").out.endswith(f"new: {CAUSE}\n")
    connection.execute("update dlq.cause set status = 'fixed', fixed_at = now()")
    add_events(connection, 1)
    kill(connection, ERROR, where="status = 'pending'")
    assert dlq("causes", "classify").out == (
        f"Classified 1 death: 0 new causes, 1 regressed cause.\nregressed: {CAUSE}\n"
    )
    assert one(connection, "select status from dlq.cause") == {"status": "regressed"}
