"""The days that daily schedules request: on the first day, after an outage or a refusal."""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta

import dagster as dg
import pytest

from dlq_pipelines.definitions import defs
from dlq_pipelines.postgres.connect import Connection
from tests.rows import date_deaths_by_due_times

pytestmark = pytest.mark.usefixtures("home")
REPOSITORY = defs.get_repository_def()
TODAY = date(2026, 11, 21)
NIGHT = datetime(2026, 11, 21, 6, tzinfo=UTC)
Ask = Callable[..., dict[str, str]]
RECORD = {
    "export_daily": (
        "insert into dlq.export_day (day, starts_at, ends_at, rows, files, exported_at,"
        " verified_at)"
        " values (%(day)s, %(day)s::date, %(day)s::date + 1, 0, '[]', now(), now())"
        " on conflict (day) do update set verified_at = now()"
    ),
    "report_daily": (
        "insert into dlq.report_day (day, headline, figures, files, built_at) values (%(day)s,"
        " '', '{}', '[]', now())"
    ),
}


def _ago(days: int) -> str:
    return (TODAY - timedelta(days=days)).isoformat()


@pytest.fixture(params=RECORD)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def ask(name: str, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Evaluate the schedule as the daemon does; return the requested days and run keys."""
    monkeypatch.setenv("DLQ_TIMEZONE", "UTC")

    def tick(at: datetime = NIGHT) -> dict[str, str]:
        context = dg.build_schedule_context(
            scheduled_execution_time=at,
            repository_def=REPOSITORY,
        )
        requests = defs.resolve_schedule_def(name).evaluate_tick(context).run_requests or []
        return {str(request.partition_key): str(request.run_key) for request in requests}

    return tick


def _die(connection: Connection, day: str) -> None:
    connection.execute(
        "insert into outbox_event (aggregate_type, aggregate_id, event_type, payload, status,"
        " last_error, next_run_at)"
        " values ('order', '1', 'e', '{}', 'dead', 'boom', %s::date + interval '12 hours')",
        [day],
    )
    date_deaths_by_due_times(connection)


def test_the_first_morning_requests_only_yesterday(connection: Connection, ask: Ask) -> None:
    """The two weeks before the installation are not requested."""
    assert list(ask()) == [_ago(1)]
    _die(connection, _ago(20))
    assert list(ask()) == [_ago(1)]


def test_earlier_days_with_deaths_are_requested_on_the_first_morning(
    connection: Connection, ask: Ask
) -> None:
    _die(connection, _ago(9))
    _die(connection, _ago(3))
    assert list(ask()) == [_ago(9), _ago(3), _ago(1)]


def test_days_that_an_outage_missed_are_requested_after_it(
    connection: Connection, ask: Ask, name: str
) -> None:
    """Days without a death too: they have a file and a page as any other day."""
    for days in (8, 7, 4):
        connection.execute(RECORD[name].encode(), {"day": _ago(days)})
    assert list(ask()) == [_ago(6), _ago(5), _ago(3), _ago(2), _ago(1)]
    connection.execute(RECORD[name].encode(), {"day": _ago(100)})
    assert list(ask()) == [_ago(days) for days in (14, 13, 12, 11, 10, 9, 6, 5, 3, 2, 1)]


def test_a_tick_evaluated_twice_requests_the_same_runs_and_the_next_tick_others(
    connection: Connection, ask: Ask
) -> None:
    """No run is doubled, and a refused day is requested again."""
    _die(connection, _ago(3))
    first = ask()
    assert ask() == first
    next_day = ask(NIGHT + timedelta(days=1))
    assert next_day.keys() > {_ago(3)}
    assert set(next_day.values()).isdisjoint(first.values())


@pytest.mark.parametrize("name", ["export_daily"], indirect=False)
def test_an_export_that_is_not_verified_is_requested_again(
    connection: Connection, ask: Ask, name: str
) -> None:
    connection.execute(RECORD[name].encode(), {"day": _ago(2)})
    assert list(ask()) == [_ago(1)]
    connection.execute("update dlq.export_day set verified_at = null")
    assert list(ask()) == [_ago(2), _ago(1)]


def test_without_the_database_the_tick_fails_and_the_next_one_requests_the_day(
    connection: Connection, ask: Ask, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection.execute(RECORD[name].encode(), {"day": _ago(2)})
    with monkeypatch.context() as away:
        away.setenv("DLQ_DATABASE_URL", "postgresql://ann:s3cr3t@127.0.0.1:1/none")
        with pytest.raises(dg.DagsterError) as raised:
            ask()
    assert "Cannot connect to PostgreSQL" in str(raised.value.__cause__)
    assert "s3cr3t" not in str(raised.value.__cause__)
    assert list(ask(NIGHT + timedelta(days=1))) == [_ago(1), TODAY.isoformat()]


def test_before_the_first_day_is_over_a_schedule_skips(ask: Ask) -> None:
    assert ask(datetime(2026, 1, 1, 6, tzinfo=UTC)) == {}
