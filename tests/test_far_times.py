"""Tests that no face fails on a row that PostgreSQL accepts and Python cannot hold.

Infinite times, years beyond 9999 and before 1, and fixes that were written by hand.
"""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import dagster as dg
import httpx
import pytest

from dlq_pipelines import OutboxRepository
from dlq_pipelines.causes.classify import classify_deaths
from dlq_pipelines.day import (
    AFTER_ALL_TIMES,
    BEFORE_ALL_TIMES,
)
from dlq_pipelines.definitions import defs
from dlq_pipelines.defs.retries import FIX_TAG
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.retries.fix import FixStatus
from dlq_pipelines.retries.fixes import get_fix, list_due_fixes, list_fixes
from tests.api.conftest import api, serve  # noqa: F401 - fixtures
from tests.cli.conftest import Run, dlq  # noqa: F401 - a fixture
from tests.rows import add_events, date_deaths, kill, one

POLICY = 'canary, growth, rate, min_success, settle_seconds, max_retries, "order"'
# Columns of `dlq.fix` with values that only a person with rights on the table can write.
BY_HAND = [
    ("since", "'-infinity'"),
    ("since", "'0044-03-15 BC'"),
    ("until", "'infinity'"),
    ("until", "'20000-01-01Z'"),
    ("event_ids", "'{1,null}'"),
    ("event_ids", "'{{1,2},{3,null}}'"),
    ("event_ids", "'{0,-1}'"),
    ("attempts, not_before", "1, '294276-12-31Z'"),
    ("attempts, not_before, expires_at", "1, 'infinity', 'infinity'"),
    ("attempts, expires_at", "1, '20000-01-01Z'"),
    ("attempts, expires_at", "1, '-infinity'"),
    ("attempts, not_before", "1, 'infinity'"),
    ("error_contains", "' '"),
    ("event_type", "e'\\t'"),
    ("aggregate_type, owner, link", "' ', ' ', ' '"),
    ("event_ids, detail", "'{}', ' '"),
    ("attempts, note", "1, ' '"),
    (f"attempts, {POLICY}", "1, 10, 10, 1e-12, 0.9, 900, 3, 'none'"),
    (f"attempts, {POLICY}", "1, 10, 10, 'NaN', 'NaN', 0, -1, 'by hand'"),
    (f"attempts, {POLICY}", "1, null, null, 50, null, null, null, null"),
    ("attempts, evidence", "1, '3'"),
    ("attempts, evidence", """1, '[{"a": 1}]'"""),
    (
        "attempts, evidence",
        """1, '[{"events": 1, "outcome": "died_again", "before": 7, "after": "x"}]'""",
    ),
    ("attempts, stage", "1, -3"),
    ("attempts, current_rate", "1, 1e-300"),
    ("attempts, current_rate", "1, 'NaN'"),
    ("attempts, current_rate, release_rate", "1, 0, 'infinity'"),
    ("attempts, last_due_at", "1, 'infinity'"),
    ("attempts, rate_state", """1, '"abc"'"""),
    ("attempts, rate_state", """1, '{"bogus": 1}'"""),
    ("attempts, rate_state", """1, '{"recent": "x"}'"""),
    ("attempts, rate_state", """1, '{"grows_after": "2026-11-24T10:00:00"}'"""),
]
UNREADABLE = 15
# It can be read, and no step of it can run.
FAILING = ('attempts, "where"', "1, '$.a ((('")
BY_HAND.append(FAILING)
# Sound by itself, but no such stage has begun.
ASTRAY = ("attempts, stage", "1, 7")
BY_HAND.append(ASTRAY)


@pytest.fixture(autouse=True)
def _zone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A time zone in which the first and the last time of datetime overflow."""
    monkeypatch.setenv("DLQ_TIMEZONE", "America/New_York")


@pytest.fixture
def fixes(connection: Connection) -> int:
    """Flag a sound fix, and write the others by hand; return how many there are."""
    add_events(connection, 3)
    kill(connection, "KeyError: 'sku'")
    classify_deaths(connection, zone=ZoneInfo("UTC"))
    connection.execute("select dlq.flag_fix('sound', event_ids => array[3])")
    # As an earlier release created the table: with fewer constraints.
    connection.execute(
        "do $$ declare name text; begin for name in select conname from pg_constraint"
        " where conrelid = 'dlq.fix'::regclass and contype = 'c' loop"
        " execute format('alter table dlq.fix drop constraint %I', name); end loop; end $$"
    )
    for fix_id, (columns, values) in enumerate(BY_HAND, 2):
        note, text = ("", "") if "note" in columns else ("note, ", "'by hand', ")
        connection.execute(
            f"insert into dlq.fix (id, {note}flagged_by, flagged_at, {columns})"
            " overriding system value"
            f" values ({fix_id}, {text}'eve', now(), {values})".encode()
        )
    return len(BY_HAND) + 1


@pytest.fixture
def far_events(connection: Connection) -> list[int]:
    """Dead events with times that Python cannot hold, and one without."""
    add_events(connection, 5)
    for event_id, column, value in (
        (1, "next_run_at", "infinity"),
        (2, "created_at", "-infinity"),
        (3, "created_at", "20000-01-01Z"),
        (5, "created_at", "0044-03-15 BC"),
    ):
        connection.execute(
            f"update outbox_event set {column} = %s where id = %s", [value, event_id]
        )
    kill(connection, "KeyError: 'sku'", where="id <= 4")
    classify_deaths(connection, zone=ZoneInfo("UTC"))
    return [4, 3, 2, 1]


def test_the_command_line_lists_shows_and_withdraws_fixes_written_by_hand(
    dlq: Run,  # noqa: F811
    connection: Connection,
    fixes: int,
) -> None:
    listed = json.loads(dlq("fixes", "list", "--json").out)["fixes"]
    assert [fix["id"] for fix in listed] == list(range(fixes, 0, -1))
    assert dlq("fixes", "list").code == 0
    for fix_id in range(1, fixes + 1):
        for arguments in (
            ("show", "--json"),
            ("show",),
            ("advance", "--dry-run"),
            ("withdraw", "--reason", "not sound"),
        ):
            ended = dlq("fixes", arguments[0], str(fix_id), *arguments[1:])
            if fix_id == BY_HAND.index(FAILING) + 2 and arguments[0] == "advance":
                assert (ended.code, "would be rejected" in ended.err) == (4, True)
            else:
                assert (ended.code, ended.err) == (0, ""), (fix_id, arguments)
    assert {fix.status for fix in list_fixes(connection)} == {FixStatus.WITHDRAWN}


def test_http_lists_and_shows_fixes_written_by_hand(
    api: httpx.Client,  # noqa: F811
    fixes: int,
) -> None:
    listed = api.get("/api/fixes")
    assert (listed.status_code, listed.json()["count"]) == (200, fixes)
    assert f'dlq_fixes{{outbox="outbox",status="active"}} {fixes}' in api.get(
        "/metrics"
    ).text.replace(".0", "")
    for fix_id in range(1, fixes + 1):
        assert api.get(f"/api/fixes/{fix_id}").status_code == 200
        answer = api.post(f"/api/fixes/{fix_id}/withdraw", json={"reason": "not sound"})
        assert answer.status_code == 200, answer.text


@pytest.mark.usefixtures("home")
def test_the_sensor_still_advances_a_sound_fix(fixes: int) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        context = dg.build_sensor_context(instance=instance, definitions=defs)
        tick = defs.resolve_sensor_def("fix_flag_sensor").evaluate_tick(context)
        requests = tick.run_requests or []
    assert "1" in {request.tags[FIX_TAG] for request in requests if hasattr(request, "tags")}
    assert len(requests) > fixes / 2


def test_a_fix_with_an_invalid_policy_is_shown_as_such_and_rejected_by_its_next_step(
    dlq: Run,  # noqa: F811
    connection: Connection,
    fixes: int,
) -> None:
    listed = {fix["id"]: fix for fix in json.loads(dlq("fixes", "list", "--json").out)["fixes"]}
    slow = next(fix for fix in listed.values() if "1e-12" in str(fix["unreadable"]))
    assert slow["unreadable"] == "rate must be from 0.001 to 100000, not 1e-12"
    unreadable = {key for key, fix in listed.items() if fix["unreadable"]}
    assert len(unreadable) == dlq("fixes", "list").out.count("its row cannot be used") == UNREADABLE
    shown = " ".join(dlq("fixes", "show", str(slow["id"])).out.split())
    assert "cannot be used: rate must be from 0.001" in shown
    due = list_due_fixes(connection, now=datetime.now(UTC), max_backlog=timedelta(1), limit=99)
    assert {fix.id for fix in due} >= unreadable
    for key in (*unreadable, BY_HAND.index(ASTRAY) + 2):
        step = json.loads(dlq("fixes", "advance", str(key), "--json").out)
        assert (step["released"], step["status"]) == (0, "rejected"), key
        assert step["verdict"].startswith("the row of the fix cannot be used: ")
    step = json.loads(dlq("fixes", "advance", str(BY_HAND.index(FAILING) + 2), "--json").out)
    assert step["status"] == "rejected"
    assert step["verdict"].startswith("it cannot be advanced: ")
    assert len(listed) == fixes


def test_ids_of_a_fix_written_by_hand_are_those_that_it_selects(
    connection: Connection, fixes: int
) -> None:
    assert fixes > 6
    ids = [get_fix(connection, fix_id).selection.event_ids for fix_id in (6, 7, 8)]
    assert ids == [(1,), (1, 2, 3), (0, -1)]


def test_dead_events_with_far_times_are_listed_and_shown_in_every_face(
    dlq: Run,  # noqa: F811
    api: httpx.Client,  # noqa: F811
    database: Database,
    far_events: list[int],
) -> None:
    assert dlq("dead-events", "list").out.count("KeyError") == 4
    printed = json.loads(dlq("dead-events", "list", "--json").out)["events"]
    listed = api.get("/api/dead-events").json()["events"]
    with OutboxRepository(database.url) as repository:
        page = repository.list_dead_events().events
        assert repository.get_dead_event(1) is not None
        assert len(repository.fetch_dead_events()) == 4
    assert [event["id"] for event in printed] == [event["id"] for event in listed] == far_events
    assert [event.id for event in page] == far_events
    assert page[-1].next_run_at == AFTER_ALL_TIMES
    assert page[-2].created_at == BEFORE_ALL_TIMES
    for event_id in far_events:
        assert dlq("dead-events", "show", str(event_id)).code == 0
        assert dlq("dead-events", "show", str(event_id), "--json").code == 0
        assert api.get(f"/api/dead-events/{event_id}").status_code == 200


@pytest.mark.usefixtures("far_events")
def test_a_worker_gets_its_whole_batch(database: Database, connection: Connection) -> None:
    """Although the time of one event is before all others."""
    add_events(connection, 2)
    with OutboxRepository(database.url) as repository:
        assert {event.id for event in repository.fetch_pending(10)} == {5, 6, 7}
        repository.mark_success(5)
    assert one(connection, "select status from outbox_event where id = 5") == {"status": "done"}


@pytest.mark.usefixtures("far_events")
@pytest.mark.parametrize("value", ["infinity", "-infinity"])
def test_pages_of_events_that_died_at_an_infinite_time_end(
    connection: Connection, database: Database, value: str
) -> None:
    """Each event is listed once."""
    date_deaths(connection, f"timestamptz '{value}'")
    with OutboxRepository(database.url) as repository:
        pages = list(_read_pages(repository))
    assert pages == [[4], [3], [2], [1]]


def _read_pages(repository: OutboxRepository) -> Iterator[list[int]]:
    after: str | None = None
    for _ in range(10):
        page = repository.list_dead_events(limit=1, after=after)
        yield [int(event.id) for event in page.events]
        after = page.next
        if after is None:
            return
