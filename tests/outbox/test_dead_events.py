"""Lists and counts of dead events: complete, exact, and read from indexes."""

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dlq_pipelines.outbox.dead_events import (
    StatsDimension,
    count_dead_events,
    get_dead_event_stats,
    list_dead_events,
)
from dlq_pipelines.outbox.selection import Selection
from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.validate import EventId
from tests.rows import add_events, date_deaths, kill
from tests.shapes import SHAPES, OutboxShape, ShapedOutbox

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def _fill(connection: Connection, count: int) -> None:
    """Add dead events of four types and three causes, one a minute; pairs die at the same time."""
    connection.execute("alter table outbox_event disable trigger user")
    connection.execute(
        "insert into outbox_event (aggregate_type, aggregate_id, event_type, payload, status,"
        " attempts, last_error)"
        " select 'kind' || mod(n, 2), n::text, 'type' || mod(n, 4), '{}', 'dead', mod(n, 5),"
        " 'Error ' || n from generate_series(1, %s) n",
        [count],
    )
    connection.execute("alter table outbox_event enable trigger user")
    connection.execute(
        "insert into dlq.cause (id, exception_type, template, first_seen, last_seen)"
        " select 'c' || n, 'Error', n::text, now(), now() from generate_series(0, 2) n"
    )
    connection.execute(
        "insert into dlq.death (event_id, event_created_at, aggregate_type, aggregate_id,"
        " event_type, attempts, died_at, error, cause_id, detail)"
        " select id, created_at, aggregate_type, aggregate_id, event_type, attempts,"
        " '2026-02-01Z'::timestamptz + (id / 2) * interval '1 minute', last_error,"
        " 'c' || mod(id, 3), 'd' || mod(id, 100) from outbox_event order by id"
    )
    connection.execute(
        "insert into dlq.dead select id, event_id, event_created_at, aggregate_type, aggregate_id,"
        " event_type, died_at, cause_id, detail from dlq.death"
    )
    connection.execute("vacuum analyze")


@pytest.fixture(scope="module", params=SHAPES)
def filled(
    request: pytest.FixtureRequest,
    open_outbox: Callable[[OutboxShape], AbstractContextManager[ShapedOutbox]],
) -> Iterator[ShapedOutbox]:
    """The same dead events among many others, for statements that change nothing."""
    with open_outbox(SHAPES[request.param]) as outbox:
        connection = outbox.connection
        for kind in range(4):
            outbox.add_events(5_000, event_type=f"type{kind}")
        outbox.give_up_all("'Error ' || n")
        outbox.add_events(40_000)
        connection.execute(
            "insert into dlq.cause (id, exception_type, template, first_seen, last_seen)"
            " select 'c' || n, 'Error', n::text, now(), now() from generate_series(0, 2) n"
        )
        connection.execute(
            "update dlq.death set cause_id = 'c' || mod(id, 3),"
            " died_at = '2026-02-01Z'::timestamptz + (id / 2) * interval '1 minute'"
        )
        connection.execute(
            "insert into dlq.dead select id, event_id, event_created_at, aggregate_type,"
            " aggregate_id, event_type, died_at, cause_id from dlq.death"
        )
        connection.execute("vacuum analyze")
        connection.execute("set max_parallel_workers_per_gather = 0")
        yield outbox


def _all(connection: Connection, selection: Selection, *, limit: int) -> list[EventId]:
    """Every event of the pages, one after the other."""
    ids: list[EventId] = []
    after: str | None = None
    while True:
        page = list_dead_events(connection, selection, limit=limit, after=after)
        ids += [event.id for event in page.events]
        after = page.next
        if after is None:
            return ids


@pytest.mark.parametrize(
    ("selection", "where"),
    [
        (Selection(all=True), "true"),
        (Selection(event_type="type1"), "event_type = 'type1'"),
        (Selection(attempts=3), "attempts = 3"),
        (Selection(cause="c1"), "mod(event_id, 3) = 1"),
        (
            Selection(cause="c1", aggregate_type="kind0"),
            "mod(event_id, 3) = 1 and aggregate_type = 'kind0'",
        ),
        (Selection(error_contains="r 77"), "error like 'Error 77%'"),
        (
            Selection(since=datetime(2026, 2, 2, tzinfo=UTC), until=NOW),
            "died_at >= '2026-02-02Z'",
        ),
        (
            Selection(event_ids=tuple(range(2, 9_000, 3))),
            "mod(event_id, 3) = 2 and event_id < 9000",
        ),
    ],
    ids=str,
)
def test_pages_by_key_and_by_offset_hold_each_event_once_in_order(
    connection: Connection, selection: Selection, where: str
) -> None:
    """More than one scan of 5,000 rows, with equal times of death, and as many as are counted."""
    _fill(connection, 12_000)
    rows = connection.execute(
        f"select event_id from dlq.death where {where} order by died_at desc, id desc".encode()
    )
    expected = [row["event_id"] for row in rows]
    assert _all(connection, selection, limit=701) == expected
    late = list_dead_events(connection, selection, limit=10, offset=len(expected) - 5)
    assert ([event.id for event in late.events], late.next) == (expected[-5:], None)
    stats = get_dead_event_stats(connection, selection, now=NOW)
    assert stats.total == count_dead_events(connection, selection) == len(expected)
    for counted in (stats.by_event_type, stats.by_aggregate_type, stats.by_cause, stats.by_age):
        assert sum(each.events for each in counted) == len(expected)


def test_a_page_goes_on_where_the_last_one_ended_whatever_happened_meanwhile(
    connection: Connection,
) -> None:
    """What left is not missed, what died since is before it."""
    add_events(connection, 6)
    kill(connection, "x")
    first = list_dead_events(connection, limit=2)
    connection.execute("update outbox_event set status = 'pending' where id in (4, 5)")
    add_events(connection, 1)
    kill(connection, "y", where="status = 'pending' and id = 7")
    rest = list_dead_events(connection, limit=10, after=first.next)
    assert [event.id for event in (*first.events, *rest.events)] == [6, 5, 3, 2, 1]


def test_ages_are_counted_from_the_moment_that_was_given(connection: Connection) -> None:
    """Bounds belong to the older side, and the sides are of one snapshot."""
    add_events(connection, 5)
    kill(connection, "x")
    for event, age in enumerate((0, 3_599, 3_600, 604_800, 9_999_999), 1):
        died = NOW - timedelta(seconds=age)
        date_deaths(connection, f"timestamptz '{died}'", where=f"event_id = {event}")
    for selection in (Selection(all=True), Selection(error_contains="x")):
        ages = get_dead_event_stats(connection, selection, now=NOW, by=[StatsDimension.AGE]).by_age
        assert [(age.from_seconds, age.events) for age in ages] == [
            (0, 2), (3_600, 1), (86_400, 0), (604_800, 1), (2_592_000, 1),
        ]  # fmt: skip


def test_what_is_not_classified_yet_is_counted_as_that(connection: Connection) -> None:
    add_events(connection, 3)
    kill(connection, "x")
    (counted,) = get_dead_event_stats(connection, now=NOW).by_cause
    assert (counted.name, counted.events) == (None, 3)
    assert [event.cause_id for event in list_dead_events(connection).events] == [None] * 3


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"limit": 0}, "limit must be a whole number from 1 to 1000"),
        ({"limit": 1001}, "limit must be a whole number from 1 to 1000"),
        ({"offset": -1}, "offset must be"),
        ({"after": "x"}, "Invalid cursor"),
        ({"after": "é"}, "Invalid cursor"),
        ({"after": "f" * 22}, "Invalid cursor"),
        ({"after": "AAZg_EESMAAAAAAAAA9CQA", "offset": 1}, "offset cannot be combined with after"),
    ],
)
def test_a_page_that_is_none_is_refused(
    connection: Connection, asked: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        list_dead_events(connection, **asked)


FOLDED = {"event_type": None, "aggregate_type": None, "since": None, "until": None}
PAGE = {
    "causes": None,
    "detail": None,
    "event_ids": None,
    "selection": "{}",
    "rows": 101,
    "offset": 0,
    **FOLDED,
}
AGES = {"bounds": [1, 2, 3, 4], "hour": NOW, "day": NOW, "week": NOW, "month": NOW, **FOLDED}


@pytest.mark.parametrize(
    ("name", "values", "index"),
    [
        ("look", {**PAGE, "before_time": "infinity", "before_id": 2**63 - 1}, "dead_time"),
        ("look", {**PAGE, "before_time": "2026-02-01T01:00Z", "before_id": 3}, "dead_time"),
        (
            "look",
            {**PAGE, "before_time": "infinity", "before_id": 1, "causes": ["c1"]},
            "dead_cause",
        ),
        (
            "look",
            {
                **PAGE,
                "before_time": "infinity",
                "before_id": 1,
                "causes": ["c1"],
                "detail": "d1",
            },
            "dead_detail",
        ),
        (
            "look",
            {**PAGE, "before_time": "infinity", "before_id": 1, "event_ids": [1, 2]},
            "dead_event_id",
        ),
        ("events", {"deaths": [1, 2, 3], "longest": 9}, "the key"),
        ("types", FOLDED, "on dead"),
        ("types", {**FOLDED, "event_type": "type1"}, "on dead"),
        ("ages", AGES, "Index Only Scan using dead_time"),
    ],
)
def test_what_is_dead_is_found_by_its_indexes(
    filled: ShapedOutbox, name: str, values: dict[str, Any], index: str
) -> None:
    """Also among many other events, no statement reads the table itself or sorts dead events."""
    connection = filled.connection
    if values.get("event_ids"):
        values = {**values, "event_ids": [str(id_) for id_ in filled.event_ids(1, 2)]}
    query = connection.render_query(f"dead_event.{name}", **values)
    statement = f"explain (analyze, timing off, costs off) {query}"
    plan = "\n".join(row["QUERY PLAN"] for row in connection.execute(statement.encode()))
    assert (filled.key_index if index == "the key" else index) in plan, plan
    assert not re.search(rf"Seq Scan on (death|{filled.table_name})(\s|$)", plan), plan
    most = max(int(float(word)) for word in re.findall(r"actual rows=([\d.]+)", plan))
    assert name != "look" or most <= 101, plan
    assert filled.count_states()["dead"] == 20_000
