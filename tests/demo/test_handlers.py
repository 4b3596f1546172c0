"""The shop's deliveries: each fails for its own reason, one repair resolves its cause."""

import random
import re
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from time import monotonic, sleep
from zoneinfo import ZoneInfo

import pytest

from dlq_pipelines.audit import AuditContext
from dlq_pipelines.causes.catalogue import get_cause
from dlq_pipelines.causes.update import CauseUpdate, update_causes
from dlq_pipelines.demo import shop
from dlq_pipelines.demo.handlers import Handlers, Repair, UnknownEventError
from dlq_pipelines.demo.servers import ProviderServers, find_closed_port, run_provider_servers
from dlq_pipelines.demo.shop import CITIES, Clerk, Fault, ShopAction
from dlq_pipelines.demo.worker import WorkResult, drain_outbox, run_workers
from dlq_pipelines.outbox.event import OutboxEvent
from dlq_pipelines.outbox.selection import Selection
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.repository import OutboxRepository
from dlq_pipelines.retries.advance import advance_fix
from dlq_pipelines.retries.fix import FixStatus, FixTerms, RetryPolicy
from dlq_pipelines.retries.fixes import FixFlag, flag_fix, get_fix
from dlq_pipelines.validate import EventId

AT = datetime(2026, 11, 20, 12, tzinfo=UTC)
LAST_LINE = {
    Fault.LEGACY_LEDGER: (
        "invoice.issued",
        r"urllib\.error\.URLError: <urlopen error .*Connection refused>",
    ),
    Fault.ACQUIRER_DOWN: (
        "payment.captured",
        r"urllib\.error\.HTTPError: HTTP Error 503: Service Unavailable",
    ),
    Fault.OVER_CREDIT: (
        "payment.captured",
        r"dlq_pipelines\.demo\.handlers\.PaymentDeclinedError: order .* EUR",
    ),
    Fault.THROTTLED: (
        "newsletter.sent",
        r"urllib\.error\.HTTPError: HTTP Error 429: Too Many Requests",
    ),
    Fault.SLOW_DEPOT: ("pickup.requested", r"TimeoutError: timed out"),
    Fault.SLIP_TAKEN: (
        "stock.reserved",
        r"psycopg\.errors\.UniqueViolation: duplicate key .*\nDETAIL: .*",
    ),
    Fault.DECIMAL_COMMA: (
        "prices.received",
        r"json\.decoder\.JSONDecodeError: .*: line 1 column \d+ \(char \d+\)",
    ),
    Fault.RENAMED_FIELD: ("parcel.shipped", r"KeyError: 'postcode'"),
    Fault.MISSING_SKU: ("invoice.issued", r"KeyError: 'sku'"),
    Fault.NEW_TAX_CODE: (
        "invoice.issued",
        r"dlq_pipelines\.demo\.handlers\.UnknownTaxCodeError: no rate for tax code '.*'",
    ),
}


@pytest.fixture
def called() -> Iterator[ProviderServers]:
    with run_provider_servers() as running:
        yield running


@pytest.fixture
def handlers(called: ProviderServers) -> Handlers:
    return Handlers(called)


@pytest.fixture
def open_shop(connection: Connection) -> Connection:
    shop.create_shop(connection)
    return connection


@pytest.mark.parametrize("fault", Fault)
def test_each_fault_kills_its_event_with_a_genuine_traceback(
    open_shop: Connection, database: Database, handlers: Handlers, fault: Fault
) -> None:
    """Five attempts, then dead; every other event is delivered."""
    event_type, last_line = LAST_LINE[fault]
    shop.write_actions(open_shop, _one_of_each(fault))

    drain_outbox(database, handlers)

    (death,) = open_shop.execute("select event_type, attempts, error from dlq.death").fetchall()
    assert (death["event_type"], death["attempts"]) == (event_type, 5)
    assert death["error"].startswith("Traceback (most recent call last):\n")
    assert "worker.py" in death["error"]
    assert "handlers.py" in death["error"]
    assert _matches(last_line, death["error"])
    assert _statuses(open_shop) == {"done": 7, "dead": 1}


def test_a_healthy_event_changes_the_row_that_it_is_about(
    open_shop: Connection, database: Database, handlers: Handlers
) -> None:
    shop.write_actions(open_shop, _one_of_each())

    assert drain_outbox(database, handlers) == WorkResult(delivered=8, failed=0)

    order, parcel, movement, mail, prices = (
        open_shop.execute(f"select * from shop_{name}").fetchone()
        for name in ("order", "parcel", "stock_movement", "mail", "price_list")
    )
    assert order
    assert order["confirmed_at"]
    assert order["paid_at"]
    assert order["invoiced_at"]
    assert parcel
    assert parcel["label"].startswith("Customer of")
    assert parcel["picked_up_at"]
    assert movement
    assert movement["booked_by"].isdigit()
    assert mail
    assert mail["sent_at"]
    assert prices
    assert prices["prices"] == 3


def test_a_failed_delivery_changes_nothing(
    open_shop: Connection, database: Database, handlers: Handlers
) -> None:
    shop.write_actions(open_shop, _one_of_each(*Fault))

    drain_outbox(database, handlers)

    order, parcel, mail = (
        open_shop.execute(f"select * from shop_{name}").fetchone()
        for name in ("order", "parcel", "mail")
    )
    assert order
    assert not order["paid_at"]
    assert not order["invoiced_at"]
    assert parcel
    assert not parcel["label"]
    assert not parcel["picked_up_at"]
    assert mail
    assert not mail["sent_at"]


def test_the_true_repair_ships_the_parcels_that_died(
    open_shop: Connection, database: Database, handlers: Handlers
) -> None:
    """`postal_code` is read, so the label has the postcode; older parcels still work."""
    shop.write_actions(open_shop, _one_of_each(Fault.RENAMED_FIELD))
    drain_outbox(database, handlers)

    handlers.deploy(Repair.PARCEL_FIELDS)
    _retry_all_dead(database)
    shop.write_actions(open_shop, _one_of_each(number=2))
    drain_outbox(database, handlers)

    labels = [row["label"] for row in open_shop.execute("select label from shop_parcel")]
    assert len(labels) == 2
    assert all(any(postcode in label for postcode, _ in CITIES) for label in labels)
    assert _statuses(open_shop) == {"done": 16}


def test_a_fix_of_one_detail_stays_verified_when_another_detail_of_its_cause_dies(
    open_shop: Connection, database: Database, handlers: Handlers
) -> None:
    """The parcels' `KeyError: 'postcode'` is fixed; an invoice dies of `KeyError: 'sku'` later."""

    def update() -> CauseUpdate:
        return update_causes(open_shop, now=datetime.now(UTC), zone=ZoneInfo("UTC"))

    def play(*faults: Fault, number: int) -> None:
        shop.write_actions(open_shop, _one_of_each(*faults, number=number))
        open_shop.execute("update outbox_event set created_at = now() where status = 'pending'")
        drain_outbox(database, handlers)

    play(Fault.RENAMED_FIELD, number=1)
    (cause,) = update().new_causes
    policy = RetryPolicy(canary=1, settle_seconds=60, max_retries=3)
    audit = AuditContext("shipping-team", "postal_code", datetime.now(UTC))
    flag = FixFlag(Selection(cause=cause, detail="postcode"), policy)
    fix = flag_fix(open_shop, flag, audit=audit)
    handlers.deploy(Repair.PARCEL_FIELDS)
    for _ in range(2):
        advance_fix(
            open_shop, fix.id, audit=replace(audit, now=datetime.now(UTC)), terms=FixTerms()
        )
        drain_outbox(database, handlers)
    play(Fault.MISSING_SKU, number=2)
    found = update()
    assert (found.new_details, found.regressed, found.regressed_details) == (
        ((cause, "sku"),),
        (),
        (),
    )
    shown = get_cause(open_shop, cause)
    assert shown.status == "open"
    assert {detail.detail: detail.status for detail in shown.details} == {
        "postcode": "fixed",
        "sku": "open",
    }
    assert get_fix(open_shop, fix.id).status is FixStatus.VERIFIED


def test_the_false_repair_calls_the_new_route_and_the_same_payments_die_again(
    open_shop: Connection, database: Database, handlers: Handlers
) -> None:
    shop.write_actions(open_shop, _one_of_each(Fault.ACQUIRER_DOWN))
    drain_outbox(database, handlers)

    handlers.deploy(Repair.PAYMENT_ROUTE)
    _retry_all_dead(database)
    drain_outbox(database, handlers)

    first, second = (
        row["error"] for row in open_shop.execute("select error from dlq.death order by id")
    )
    assert "HTTP Error 503: Service Unavailable" in first
    assert first.splitlines()[-1] == second.splitlines()[-1]
    assert _statuses(open_shop) == {"done": 7, "dead": 1}


def test_the_false_repair_breaks_no_healthy_payment(
    open_shop: Connection, database: Database, handlers: Handlers
) -> None:
    handlers.deploy(Repair.PAYMENT_ROUTE)
    clerk = Clerk(random.Random(2), AT.date(), {})
    shop.write_actions(open_shop, [clerk.place_order(AT) for _ in range(30)])
    assert (
        open_shop.execute(
            "select from outbox_event where payload ->> 'acquirer' = 'eastbank'"
        ).rowcount
        > 0
    )

    drain_outbox(database, handlers)

    assert _statuses(open_shop) == {"done": 120}


def test_several_workers_never_deliver_one_event_twice(
    open_shop: Connection, database: Database, called: ProviderServers
) -> None:
    seen: Counter[tuple[EventId, int]] = Counter()
    threads: set[int] = set()

    class Counting(Handlers):
        def handle(self, connection: Connection, event: OutboxEvent) -> None:
            seen[event.id, event.attempts] += 1
            threads.add(threading.get_ident())
            super().handle(connection, event)

    counting = Counting(called)
    day = shop.ShopDay(12, AT.date() - timedelta(days=1), 800)
    shop.play_day(open_shop, day, zone=UTC, seed=4, now=AT)

    worked = drain_outbox(database, counting, workers=4)

    assert len(threads) > 1
    assert set(seen.values()) == {1}
    assert worked.delivered + worked.failed == seen.total()
    done, dead = _statuses(open_shop)["done"], _statuses(open_shop)["dead"]
    assert (worked.delivered, worked.failed) == (done, 5 * dead)
    assert done + dead == 800


def test_delivering_an_event_twice_is_idempotent(
    open_shop: Connection, database: Database, handlers: Handlers
) -> None:
    shop.write_actions(open_shop, _one_of_each())
    drain_outbox(database, handlers)
    open_shop.execute(
        "update outbox_event set status = 'pending', attempts = 0, next_run_at = created_at"
    )

    assert drain_outbox(database, handlers) == WorkResult(delivered=8, failed=0)
    assert open_shop.execute("select from shop_stock_movement").rowcount == 1


def test_workers_in_the_background_deliver_what_falls_due_later(
    open_shop: Connection, database: Database, handlers: Handlers
) -> None:
    with run_workers(database, handlers, workers=2):
        shop.write_actions(open_shop, _one_of_each())
        give_up = monotonic() + 120
        while shop.count_waiting_events(open_shop) and monotonic() < give_up:
            sleep(0.02)

    assert _statuses(open_shop) == {"done": 8}


def test_an_unknown_event_type_is_named(open_shop: Connection, handlers: Handlers) -> None:
    event = OutboxEvent(1, "a", "1", "user.registered", {}, "pending", 0, AT, AT)

    with pytest.raises(UnknownEventError, match=r"no handler for user\.registered"):
        handlers.handle(open_shop, event)


def test_a_closed_port_refuses_and_no_other_socket_gets_it() -> None:
    with find_closed_port() as port:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=2)
        with pytest.raises(OSError), socket.socket() as other:
            other.bind(("127.0.0.1", port))


def _one_of_each(*faults: Fault, number: int = 1) -> list[ShopAction]:
    """One action of each kind, eight events, with all of these faults."""
    clerk = Clerk(
        random.Random(number), AT.date() + timedelta(days=number), dict.fromkeys(faults, 1.0)
    )
    return [
        make(AT)
        for make in (
            clerk.place_order,
            clerk.pack_parcel,
            clerk.request_pickup,
            clerk.write_mail,
            clerk.receive_prices,
        )
    ]


def _retry_all_dead(database: Database) -> None:
    with OutboxRepository(database.url) as repository:
        dead = [event.id for event in repository.fetch_dead_events()]
        assert repository.retry_dead_events_batch(dead) == len(dead) > 0


def _statuses(connection: Connection) -> dict[str, int]:
    rows = connection.execute("select status, count(*) as events from outbox_event group by status")
    return {row["status"]: row["events"] for row in rows}


def _matches(last_line: str, error: str) -> bool:
    return re.search(rf"^{last_line}\n\Z", error, re.MULTILINE) is not None
