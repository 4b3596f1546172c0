"""Days of 23 and 25 hours: each schedule runs once, each death is exported once."""

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import dagster as dg
import pytest
from dagster._core.definitions.freshness import CronFreshnessPolicy
from dagster._utils.schedules import schedule_execution_time_iterator

from dlq_pipelines.causes.classify import classify_deaths
from dlq_pipelines.day import Day
from dlq_pipelines.definitions import defs
from dlq_pipelines.exports.export import export_day, verify_day
from dlq_pipelines.exports.target import open_local_target
from dlq_pipelines.postgres.connect import Connection, Database
from tests.rows import date_deaths_by_due_times

REPOSITORY = defs.get_repository_def()
# The days on which the clocks change, and how long they are.
CHANGES = [
    ("Europe/Berlin", date(2026, 3, 29), 23),
    ("Europe/Berlin", date(2026, 10, 25), 25),
    ("America/New_York", date(2026, 3, 8), 23),
    ("America/New_York", date(2026, 11, 1), 25),
]
DAILY = ["export_daily", "report_daily", "archive_daily", "clean_up_runs_daily"]


def _ticks(name: str, zone: ZoneInfo, start: date, stop: date) -> Iterator[datetime]:
    """When the daemon would run the schedule in that zone, from one midnight to another."""
    cron = str(defs.resolve_schedule_def(name).cron_schedule)
    begin, end = (datetime(day.year, day.month, day.day, tzinfo=zone) for day in (start, stop))
    for tick in schedule_execution_time_iterator(
        begin.timestamp(), cron, str(zone), ascending=True
    ):
        if tick.timestamp() >= end.timestamp():
            return
        yield tick.astimezone(zone)


@pytest.mark.parametrize(("name", "day", "hours"), CHANGES)
def test_each_daily_schedule_runs_once_on_each_day(name: str, day: date, hours: int) -> None:
    """At its hour of the wall clock, also on the day of the change and the days around it."""
    zone = ZoneInfo(name)
    around = [day + timedelta(days=n) for n in (-1, 0, 1)]
    for schedule in DAILY:
        ticks = list(_ticks(schedule, zone, around[0], around[-1] + timedelta(days=1)))
        assert [tick.date() for tick in ticks] == around, schedule
        cron = str(defs.resolve_schedule_def(schedule).cron_schedule)
        assert {f"{tick.minute} {tick.hour} * * *" for tick in ticks} == {cron}
    assert hours in {23, 25}


@pytest.mark.parametrize(("name", "day", "hours"), CHANGES)
def test_checks_run_every_hour_through_the_change(name: str, day: date, hours: int) -> None:
    """A repeated hour has its ticks twice, a skipped hour has none."""
    ticks = [
        tick.timestamp() for tick in _ticks("check_hourly", ZoneInfo(name), day, day + timedelta(1))
    ]
    assert len(ticks) == hours
    assert {later - earlier for earlier, later in pairwise(ticks)} == {3600.0}


@pytest.mark.parametrize(("name", "day", "hours"), CHANGES)
def test_a_partition_is_the_day_of_the_wall_clock(name: str, day: date, hours: int) -> None:
    """As long as the day is, and the next one begins where it ends: Dagster's window is our day."""
    partitions = dg.DailyPartitionsDefinition(start_date="2026-01-01", timezone=name)
    window = partitions.time_window_for_partition_key(day.isoformat())
    ours = Day.of(day, ZoneInfo(name))
    assert (window.start.timestamp(), window.end.timestamp()) == (
        ours.start.timestamp(),
        ours.until.timestamp(),
    )
    assert ours.until - ours.start == timedelta(hours=hours)
    assert Day.of(day + timedelta(days=1), ZoneInfo(name)).start == ours.until


@pytest.mark.parametrize(("name", "day", "hours"), CHANGES)
@pytest.mark.parametrize(
    ("asset", "hour"),
    [("dead_event_archive", 3)],
)
def test_what_ran_on_time_is_fresh_on_the_day_of_the_change(
    name: str, day: date, hours: int, asset: str, hour: float
) -> None:
    """The clock may go back between the schedule and the deadline of the freshness policy."""
    assert hours in {23, 25}
    policy = REPOSITORY.asset_graph.get(dg.AssetKey(asset)).freshness_policy
    assert isinstance(policy, CronFreshnessPolicy)
    zone = ZoneInfo(name)
    deadline = next(
        schedule_execution_time_iterator(
            datetime(day.year, day.month, day.day, tzinfo=zone).timestamp(),
            policy.deadline_cron,
            name,
            ascending=True,
        )
    )
    materialized = datetime(
        day.year, day.month, day.day, int(hour), int(hour % 1 * 60) + 1, tzinfo=zone
    )
    assert (
        deadline.timestamp() - policy.lower_bound_delta.total_seconds() <= materialized.timestamp()
    )
    assert materialized.timestamp() < deadline.timestamp()


@pytest.mark.parametrize("change", CHANGES)
def test_every_death_of_the_three_days_is_exported_once(
    connection: Connection, database: Database, tmp_path: Path, change: tuple[str, date, int]
) -> None:
    """A death every half hour: each is in the export of exactly one day."""
    name, day, hours = change
    zone, target = ZoneInfo(name), open_local_target(tmp_path)
    days = [Day.of(day + timedelta(days=n), zone) for n in (-1, 0, 1)]
    connection.execute(
        "insert into outbox_event (aggregate_type, aggregate_id, event_type, payload, status,"
        " last_error, next_run_at)"
        " select 'o', at::text, 'e', '{}', 'dead', 'boom', at"
        " from generate_series(%s::timestamptz, %s::timestamptz, interval '30 minutes') at",
        [days[0].start, days[-1].until - timedelta(minutes=30)],
    )
    date_deaths_by_due_times(connection)
    classify_deaths(connection, zone=zone)
    now = datetime(2026, 12, 1, tzinfo=UTC)
    exported: Counter[date] = Counter()
    for one in days:
        exported[one.date] = export_day(
            connection, url=database.url, day=one, target=target, now=now
        ).rows
        assert verify_day(connection, day=one, target=target, now=now) == []
    assert exported == {days[0].date: 48, day: 2 * hours, days[2].date: 48}
