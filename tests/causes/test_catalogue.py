"""The list of causes: those with most dead events now come first."""

from zoneinfo import ZoneInfo

import pytest

from dlq_pipelines.causes.catalogue import get_cause, list_causes
from dlq_pipelines.causes.classify import classify_deaths
from dlq_pipelines.causes.fingerprint import compute_cause_id
from dlq_pipelines.postgres.connect import Connection
from tests.rows import add_events, kill
from tests.shapes import ShapedOutbox

ERRORS = {"KeyError: 'x'": "id <= 5", "HTTP 503": "id between 6 and 8", "oops": "id = 9"}


def test_list_is_ordered_by_dead_events_and_then_by_deaths(connection: Connection) -> None:
    """Four of the five events that died of the first cause were delivered since."""
    add_events(connection, 9)
    for error, where in ERRORS.items():
        kill(connection, error, where=where)
    classify_deaths(connection, zone=ZoneInfo("UTC"))
    connection.execute("update outbox_event set status = 'done' where id <= 4")
    causes = list_causes(connection)
    assert [(cause.title, cause.dead, cause.deaths, cause.status) for cause in causes] == [
        ("HTTP 503", 3, 3, "open"),
        ("KeyError: 'x'", 1, 5, "open"),
        ("oops", 1, 1, "open"),
    ]
    assert [cause.id for cause in causes] == [
        compute_cause_id(error) for error in ("HTTP 503", "KeyError: 'x'", "oops")
    ]
    assert list_causes(connection, limit=1) == causes[:1]


def test_event_with_two_causes_is_dead_of_the_last(connection: Connection) -> None:
    """Its first death counts in the ledger, but not as a dead event."""
    add_events(connection, 1)
    kill(connection, "HTTP 503")
    connection.execute("update outbox_event set status = 'pending'")
    kill(connection, "HTTP 404")
    classify_deaths(connection, zone=ZoneInfo("UTC"))
    assert [(cause.title, cause.dead, cause.deaths) for cause in list_causes(connection)] == [
        ("HTTP 404", 1, 1),
        ("HTTP 503", 0, 1),
    ]


@pytest.mark.parametrize("limit", [0, -1, 1001, True])
def test_limit_is_from_1_to_1000(connection: Connection, limit: int) -> None:
    with pytest.raises(ValueError, match="limit"):
        list_causes(connection, limit=limit)


def test_the_figures_of_one_cause_count_no_other_events(outbox: ShapedOutbox) -> None:
    """By the index of dead events by cause, of the cause and of those that are merged into it."""
    outbox.add_dead(20, error="KeyError: 'sku'")
    connection = outbox.connection
    connection.execute(
        "insert into dlq.cause (id, exception_type, template, first_seen, last_seen)"
        " select 'v2-' || n, 'E', 'm', now(), now() from generate_series(1, 50) n;"
        " insert into dlq.dead select n.death_id + 1000 * m, n.event_id, n.event_created_at,"
        " n.aggregate_type, n.aggregate_id, n.event_type, n.died_at, 'v2-' || 1 + m % 50, n.detail"
        " from dlq.dead n, generate_series(1, 1000) m;"
        " analyze"
    )
    plan = outbox.explain(
        "cause.list",
        ids=["v2-7"],
        limit=1,
        after_dead=None,
        after_deaths=None,
        after_id=None,
        state=None,
        owner=None,
        now=None,
    )
    assert "Seq Scan on dead" not in plan, plan
    assert get_cause(connection, "v2-7").dead == 400
    connection.execute("update dlq.cause set merged_into = 'v2-7' where id = 'v2-8'")
    assert get_cause(connection, "v2-7").dead == 800
