"""The shop's days: written once and whole, repeatable by seed, with their deaths on the day."""

import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg
import psycopg
import pytest

from dlq_pipelines.causes.classify import classify_deaths
from dlq_pipelines.causes.counts import DeathCounts, count_classified_deaths
from dlq_pipelines.demo import shop
from dlq_pipelines.demo.demo import _empty, _mark
from dlq_pipelines.demo.handlers import Handlers
from dlq_pipelines.demo.servers import ProviderServers, run_provider_servers
from dlq_pipelines.demo.shop import CAMPAIGN_DAY, Clerk, Fault, ShopDay, ShopEventKind
from dlq_pipelines.demo.worker import drain_outbox
from dlq_pipelines.errors import RefusedError
from dlq_pipelines.outbox.install import install_outbox
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.postgres.migrate import create_host_tables
from dlq_pipelines.postgres.queries import TableNames
from dlq_pipelines.repository import OutboxRepository
from dlq_pipelines.settings import Settings
from tests.rows import add_events, kill, set_causes

ZONE = ZoneInfo("Europe/Berlin")
# The night to the 25th is an hour longer there: this day has 25 hours.
DAY = ShopDay(9, date(2026, 10, 25), 300)
NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
EVENTS = (
    "select event_type, aggregate_id, payload, created_at, next_run_at from outbox_event"
    " order by id"
)


@pytest.fixture
def called() -> Iterator[ProviderServers]:
    with run_provider_servers() as running:
        yield running


@pytest.fixture
def open_shop(connection: Connection) -> Connection:
    shop.create_shop(connection)
    return connection


def test_a_day_is_written_with_exactly_its_events_all_due_when_they_were_created(
    open_shop: Connection,
) -> None:
    played = shop.play_day(open_shop, DAY, zone=ZONE, seed=1, now=NOW)

    events = open_shop.execute(EVENTS).fetchall()
    assert played.events == len(events) == DAY.events
    assert all(event["next_run_at"] == event["created_at"] for event in events)
    assert {event["created_at"].astimezone(ZONE).date() for event in events} == {DAY.date}
    assert [event["created_at"] for event in events] == sorted(
        event["created_at"] for event in events
    )


def test_every_event_of_an_order_has_its_business_row(open_shop: Connection) -> None:
    shop.play_day(open_shop, DAY, zone=ZONE, seed=1, now=NOW)

    orders = _one(open_shop, "select count(*) from shop_order")
    assert orders > 0
    for event_type in ("order.placed", "payment.captured", "invoice.issued"):
        announced = (
            "select count(*) from outbox_event join shop_order on number = aggregate_id"
            " where event_type = %s"
        )
        assert _one(open_shop, announced, (event_type,)) == orders
    assert _one(
        open_shop, "select count(*) from outbox_event where event_type = 'parcel.shipped'"
    ) == _one(open_shop, "select count(*) from shop_parcel")


def test_the_same_seed_plays_the_same_day_and_another_seed_another(open_shop: Connection) -> None:
    days = []
    for seed in (1, 1, 2):
        with open_shop.transaction(force_rollback=True):
            shop.play_day(open_shop, DAY, zone=ZONE, seed=seed, now=NOW)
            days.append(open_shop.execute(EVENTS).fetchall())

    assert days[0] == days[1] != days[2]


def test_a_day_that_was_played_is_not_played_again(open_shop: Connection) -> None:
    shop.play_day(open_shop, DAY, zone=ZONE, seed=1, now=NOW)

    assert shop.play_day(open_shop, DAY, zone=ZONE, seed=2, now=NOW) == shop.PlayedDay(
        actions=0, events=0
    )
    assert _one(open_shop, "select count(*) from outbox_event") == DAY.events


def test_a_day_that_is_not_over_is_played_in_its_hours_so_far(open_shop: Connection) -> None:
    now = datetime(2026, 10, 25, 9, 30, tzinfo=UTC)

    shop.play_day(open_shop, DAY, zone=ZONE, seed=1, now=now)

    assert _one(open_shop, "select count(*) from outbox_event") == DAY.events
    assert _one(open_shop, "select max(created_at) from outbox_event") <= now


def test_a_refused_business_row_leaves_neither_rows_nor_events(open_shop: Connection) -> None:
    first, second = (_clerk().place_order(NOW) for _ in range(2))
    shop.write_actions(open_shop, [first])
    parcel = replace(
        second, rows=[("shop.parcel", {"order": first.events[0].aggregate_id, "at": NOW})]
    )

    with pytest.raises(psycopg.errors.UniqueViolation):
        shop.write_actions(open_shop, [parcel, second])

    assert _one(open_shop, "select count(*) from shop_order") == 1
    assert _one(open_shop, "select count(*) from shop_parcel") == 0
    assert _one(open_shop, "select count(*) from outbox_event") == len(first.events)


def test_a_refused_event_leaves_no_business_row(open_shop: Connection) -> None:
    mail = _clerk().write_mail(NOW)
    broken = replace(mail, events=[replace(mail.events[0], payload={"text": "\x00"})])

    with pytest.raises(psycopg.DataError):
        shop.write_actions(open_shop, [broken])

    assert _one(open_shop, "select count(*) from shop_mail") == 0


def test_the_fourteen_days_end_with_the_last_one_and_add_up() -> None:
    days = shop.plan_fourteen_days(date(2026, 3, 1), events=20_000)

    assert [day.date for day in days] == [date(2026, 2, 16) + timedelta(days=n) for n in range(14)]
    assert abs(sum(day.events for day in days) - 20_000) <= len(days)


def test_one_fault_begins_on_day_nine_one_comes_back_and_one_has_a_spike(
    open_shop: Connection,
) -> None:
    for day in shop.plan_fourteen_days(DAY.date):
        shop.play_day(open_shop, day, zone=ZONE, seed=7, now=NOW)

    count = "select count(*) from outbox_event where created_at >= %s and created_at < %s and "
    renamed, legacy, throttled = (
        [
            _one(open_shop, count + fault, shop.compute_day_bounds(day.date, ZONE))
            for day in shop.plan_fourteen_days(DAY.date)
        ]
        for fault in (
            "payload -> 'address' ? 'postal_code'",
            "payload ->> 'ledger' = 'legacy'",
            "payload ->> 'to' like '%%@slowmail.example'",
        )
    )
    assert not any(renamed[:8])
    assert all(renamed[8:])
    assert all(legacy[:6])
    assert not any(legacy[7:-1])
    assert legacy[-1]
    spike = throttled.pop(CAMPAIGN_DAY - 1)
    assert spike > 5 * max(throttled)


def test_creating_the_shop_twice_is_safe_and_dropping_it_leaves_no_table(
    open_shop: Connection,
) -> None:
    shop.play_day(open_shop, DAY, zone=ZONE, seed=1, now=NOW)
    shop.create_shop(open_shop)
    assert _one(open_shop, "select count(*) from shop_customer") == len(shop.CUSTOMERS)

    shop.drop_shop(open_shop)

    assert _one(open_shop, "select count(*) from pg_tables where tablename like 'shop\\_%'") == 0


@pytest.mark.parametrize("table", ["outbox_event", "dlq.archived"])
def test_no_shop_is_created_over_the_events_of_an_application(
    connection: Connection, table: str
) -> None:
    connection.execute(
        "insert into outbox_event (aggregate_type, aggregate_id, event_type, payload, status)"
        " values ('a', '1', 'order.placed', '{}', 'dead')"
    )
    if table == "dlq.archived":
        connection.execute("select dlq.archive_events(array[1], now())")

    with pytest.raises(RefusedError, match="needs its own outbox"):
        shop.create_shop(connection)

    assert _one(connection, "select count(*) from pg_tables where tablename like 'shop\\_%'") == 0


@pytest.mark.parametrize(
    ("left", "reason"),
    [
        ("delete from outbox_event", "its ledger holds deaths"),
        (
            """delete from outbox_event; delete from dlq.death; insert into dlq.audit
               (kind, actor, reason, filter, events, at)
               values ('archive.purge', 'ann', 'r', '{}', 1, now())""",
            "its audit log holds entries",
        ),
    ],
)
def test_no_shop_is_created_over_a_ledger_whose_outbox_is_empty(
    connection: Connection, left: str, reason: str
) -> None:
    """The ledger and the audit log of an application belong to it too."""
    add_events(connection, 1)
    kill(connection, "boom")
    connection.execute(left.encode())
    with pytest.raises(RefusedError, match=reason):
        shop.create_shop(connection)
    assert _one(connection, "select count(*) from pg_tables where tablename like 'shop\\_%'") == 0


@pytest.mark.parametrize("gone", ["select", "delete from outbox_event"])
def test_no_demo_is_played_or_reset_once_an_application_writes_to_the_outbox(
    open_shop: Connection, gone: str, tmp_path: Path
) -> None:
    """Its events and deaths are found by type; neither a reset nor another demo changes them."""
    _mark(open_shop, "demo.begin")
    add_events(open_shop, 2, event_type="real.event")
    kill(open_shop, "boom")
    open_shop.execute(gone.encode())
    before = _one(open_shop, "select array_agg(id) from outbox_event")
    with pytest.raises(RefusedError, match=r"it holds an event of type real\.event"):
        shop.create_shop(open_shop)
    with (
        pytest.raises(RefusedError, match=r"real\.event"),
        dg.DagsterInstance.ephemeral() as instance,
    ):
        _empty(open_shop, instance, Settings(home=tmp_path))
    assert _one(open_shop, "select array_agg(id) from outbox_event") == before
    assert _one(open_shop, "select count(*) from dlq.death") == 2


# What describes the installation and not its events.
KEPT = {"attachment", "migration", "installation", "job_scan"}


def test_a_reset_empties_every_table_and_all_counts_agree_afterwards(
    open_shop: Connection, database: Database, called: ProviderServers, tmp_path: Path
) -> None:
    """A table that a later migration adds is emptied too: the tables are read from the catalog."""
    _mark(open_shop, "demo.begin")
    shop.play_day(open_shop, replace(DAY, events=60), zone=ZONE, seed=3, now=NOW)
    drain_outbox(database, Handlers(called))
    classify_deaths(open_shop, zone=ZONE)
    assert count_classified_deaths(open_shop).rollup > 0

    with dg.DagsterInstance.ephemeral() as instance:
        _empty(open_shop, instance, Settings(home=tmp_path))

    assert count_classified_deaths(open_shop) == DeathCounts(0, 0, 0, 0, 0)
    tables = [
        row["name"]
        for row in open_shop.execute(
            "select tablename as name from pg_tables where schemaname = 'dlq'"
        )
    ]
    filled = {name for name in tables if _one(open_shop, f"select count(*) from dlq.{name}")}
    assert filled == KEPT
    assert _one(open_shop, "select count(*) from outbox_event") == 0
    assert _one(open_shop, "select count(*) from dlq.archived") == 0


def test_the_shop_knows_its_own_types(called: ProviderServers) -> None:
    """Its handlers deliver exactly these."""
    assert Handlers(called)._handlers.keys() == shop.EVENT_TYPES


def test_backdated_deaths_lie_in_their_day_after_their_creation_and_stay_joined_to_their_events(
    open_shop: Connection, database: Database, called: ProviderServers
) -> None:
    shop.play_day(open_shop, DAY, zone=ZONE, seed=1, now=NOW)
    drain_outbox(database, Handlers(called))

    moved = shop.backdate_deaths(open_shop, DAY.date, zone=ZONE, now=NOW)

    deaths = _deaths(open_shop)
    assert moved == len(deaths) > 0
    for death in deaths:
        assert death["died_at"] == death["last_error_at"]
        assert (
            death["created_at"] <= death["died_at"] <= death["created_at"] + timedelta(minutes=10)
        )
        assert death["died_at"].astimezone(ZONE).date() == DAY.date
    assert shop.backdate_deaths(open_shop, DAY.date, zone=ZONE, now=NOW) == moved
    assert _deaths(open_shop) == deaths


def test_a_death_of_the_last_minutes_is_moved_no_further_than_the_end_of_the_day_or_now(
    open_shop: Connection, database: Database, called: ProviderServers
) -> None:
    _, stop = shop.compute_day_bounds(DAY.date, ZONE)
    clerk = _clerk({Fault.DECIMAL_COMMA: 1})
    shop.write_actions(open_shop, [clerk.receive_prices(stop - timedelta(seconds=2))])
    drain_outbox(database, Handlers(called))

    shop.backdate_deaths(open_shop, DAY.date, zone=ZONE, now=stop - timedelta(seconds=1))
    assert [death["died_at"] for death in _deaths(open_shop)] == [stop - timedelta(seconds=1)]

    shop.backdate_deaths(open_shop, DAY.date, zone=ZONE, now=NOW)
    assert [death["died_at"] for death in _deaths(open_shop)] == [stop - timedelta(milliseconds=1)]


def test_classified_and_retried_deaths_and_those_of_other_days_stay_where_they_are(
    open_shop: Connection, database: Database, called: ProviderServers
) -> None:
    clerk = _clerk({Fault.DECIMAL_COMMA: 1})
    start, stop = shop.compute_day_bounds(DAY.date, ZONE)
    shop.write_actions(
        open_shop,
        [clerk.receive_prices(at) for at in (start, start, stop, start - timedelta(seconds=1))],
    )
    drain_outbox(database, Handlers(called))
    classified, retried = (
        row["id"] for row in open_shop.execute("select id from outbox_event order by id limit 2")
    )
    open_shop.execute("insert into dlq.cause values ('c', 'ValueError', 't', now(), now())")
    set_causes(open_shop, "'c'", where=f"event_id = {classified}")
    with OutboxRepository(database.url) as repository:
        assert repository.retry_dead_event(retried)
    drain_outbox(database, Handlers(called))
    before = _deaths(open_shop)

    assert shop.backdate_deaths(open_shop, DAY.date, zone=ZONE, now=NOW) == 0
    assert _deaths(open_shop) == before


def test_the_shop_runs_in_tables_with_hostile_names(
    empty_database: Database, called: ProviderServers
) -> None:
    database = Database(empty_database.url, TableNames('My "App', "out%box; --", "d'lq"))
    with database.connect() as connection:
        create_host_tables(connection)
        install_outbox(connection)
        shop.create_shop(connection)
        shop.play_day(connection, replace(DAY, events=60), zone=ZONE, seed=3, now=NOW)

        worked = drain_outbox(database, Handlers(called))

        assert (
            worked.delivered + shop.backdate_deaths(connection, DAY.date, zone=ZONE, now=NOW) == 60
        )
        assert shop.count_waiting_events(connection) == 0
        shop.drop_shop(connection)


def _clerk(faults: dict[Fault, float] | None = None) -> Clerk:
    return Clerk(random.Random(5), DAY.date, faults or {})


def test_without_an_order_there_is_nothing_to_pack() -> None:
    assert [
        event.event_type for event in _clerk().make_action(ShopEventKind.PARCEL, NOW).events
    ] == ["newsletter.sent"]


def _deaths(connection: Connection) -> list[dict[str, Any]]:
    """Return every dead event with its death."""
    return connection.execute(
        "select e.id, e.created_at, e.last_error_at, d.died_at from outbox_event e"
        " join dlq.dead_event d on d.event_id = e.id where e.status = 'dead' order by e.id"
    ).fetchall()


def _one(connection: Connection, statement: str, values: tuple[object, ...] | None = None) -> Any:
    (row,) = connection.execute(statement, values).fetchall()
    return next(iter(row.values()))
