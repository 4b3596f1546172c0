"""Writes the shop's days: business rows and their events, some with a fault in their data.

`play_day` writes a day as the shop's own code would: business rows and their events in one
transaction. The seed determines the whole day. `FAULTS` is the share of events whose data make the
handler fail.
"""

import random
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from decimal import Decimal
from enum import StrEnum
from itertools import groupby
from typing import Any, Final, TypeAlias

from psycopg.types.json import Json

from dlq_pipelines.demo.servers import DOWN_ACQUIRER, OWN_DEPOT, SLOW_DEPOT, THROTTLED_DOMAIN
from dlq_pipelines.errors import RefusedError
from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.postgres.queries import SQL_FOLDER, bind_names, load_queries

DAYS: Final = 14
CAMPAIGN_DAY: Final = 12
# Shares of the payments and mails without a fault that are sent to another company over HTTP.
_BY_CARD: Final = 0.3
_RELAYED: Final = 0.1

EVENT_TYPES: Final = frozenset(
    {
        "order.placed",
        "stock.reserved",
        "payment.captured",
        "invoice.issued",
        "parcel.shipped",
        "pickup.requested",
        "newsletter.sent",
        "prices.received",
    }
)

# A statement of sql/queries/shop.sql and its values.
Row: TypeAlias = tuple[str, Mapping[str, Any]]


class Fault(StrEnum):
    """A fault in an event's data. `handlers` has the exception that each fault causes."""

    LEGACY_LEDGER = "legacy ledger"
    ACQUIRER_DOWN = "acquirer down"
    OVER_CREDIT = "over credit"
    THROTTLED = "throttled"
    SLOW_DEPOT = "slow depot"
    SLIP_TAKEN = "slip taken"
    DECIMAL_COMMA = "decimal comma"
    RENAMED_FIELD = "renamed field"
    MISSING_SKU = "missing sku"
    NEW_TAX_CODE = "new tax code"


def _percent(*days: int) -> tuple[float, ...]:
    return tuple(share / 100 for share in days)


# Share of the events of its kind that have the fault, on each of the fourteen days.
FAULTS: Final[Mapping[Fault, tuple[float, ...]]] = {
    # The legacy ledger is replaced after the first week: a fix is verified. On the last day a
    # release writes to it again: the cause has regressed.
    Fault.LEGACY_LEDGER: _percent(12, 10, 9, 8, 6, 3, 1, 0, 0, 0, 0, 0, 0, 5),
    Fault.ACQUIRER_DOWN: _percent(3, 3, 4, 3, 5, 6, 5, 7, 8, 7, 9, 10, 11, 12),
    Fault.OVER_CREDIT: _percent(2, 3, 2, 3, 3, 2, 2, 3, 2, 3, 2, 4, 2, 3),
    # The newsletter of day 12 goes to all customers: this cause has a spike.
    Fault.THROTTLED: _percent(1, 1, 1, 2, 1, 1, 1, 1, 2, 1, 1, 22, 3, 1),
    Fault.SLOW_DEPOT: _percent(8, 4, 8, 0, 8, 4, 8, 12, 4, 8, 4, 8, 12, 8),
    Fault.SLIP_TAKEN: _percent(2, 2, 3, 3, 2, 1, 1, 3, 3, 4, 3, 3, 1, 2),
    # More and more suppliers export their list from a spreadsheet.
    Fault.DECIMAL_COMMA: _percent(2, 2, 4, 4, 4, 6, 6, 8, 8, 10, 12, 12, 14, 16),
    # The app's release of day 9 renames the field, and more customers install it each day.
    Fault.RENAMED_FIELD: _percent(0, 0, 0, 0, 0, 0, 0, 0, 6, 10, 14, 18, 22, 26),
    # The same cause as the renamed field, with another detail: a missing key of an invoice.
    Fault.MISSING_SKU: _percent(0, 0, 0, 0, 0, 0, 0, 0, 2, 2, 2, 2, 2, 2),
    # The same release introduces a tax code that the invoices do not know: this cause is new.
    Fault.NEW_TAX_CODE: _percent(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5),
}

# Relative number of events of each of the fourteen days, and of each hour of a day.
_DAY_WEIGHTS: Final = (86, 90, 92, 95, 104, 110, 84, 96, 99, 101, 104, 138, 124, 97)
_MORNING_WEIGHTS: Final = (3, 2, 1, 1, 1, 2, 5, 9, 14, 18, 20, 21)
_HOUR_WEIGHTS: Final = (*_MORNING_WEIGHTS, 22, 19, 17, 17, 18, 21, 25, 29, 30, 24, 14, 7)
_STREETS: Final = ("Bridge Street", "Mill Lane", "Station Road", "High Street", "Church Lane")
CITIES: Final = (
    ("10115", "Berlin"),
    ("1010", "Wien"),
    ("8001", "Zürich"),
    ("75001", "Paris"),
    ("28001", "Madrid"),
)


@dataclass(frozen=True)
class Customer:
    """A customer; `credit` is the maximum of one order, in euros."""

    number: int
    email: str
    credit: Decimal


@dataclass(frozen=True)
class ShopDay:
    """A day to play.

    Attributes:
        number: 1 to 14; determines how often each fault occurs.
        date: the day in the shop's time zone.
        events: how many events to write, exactly.
    """

    number: int
    date: date
    events: int


@dataclass(frozen=True)
class ShopEvent:
    """An event to write to the outbox."""

    event_type: str
    aggregate_type: str
    aggregate_id: str
    payload: Mapping[str, Any]


@dataclass(frozen=True)
class ShopAction:
    """A business transaction of the shop: its rows and its events.

    Attributes:
        at: the time of the rows and of the events.
        rows: the business rows, in writing order.
        events: written in the same transaction.
    """

    at: datetime
    rows: Sequence[Row]
    events: Sequence[ShopEvent]


@dataclass(frozen=True)
class PlayedDay:
    """What `play_day` wrote: nothing if the day had been played before."""

    actions: int
    events: int


def create_shop(connection: Connection) -> None:
    """Create the shop's tables and customers if they do not exist.

    Raises:
        RefusedError: as `require_own_database` does.
    """
    require_own_database(connection)
    tables = (SQL_FOLDER / "demo" / "shop.sql").read_text(encoding="utf-8")
    with connection.transaction():
        connection.execute(bind_names(tables, connection.names).encode())
        _write_rows(connection, [("shop.customer", vars(customer)) for customer in CUSTOMERS])


def require_own_database(connection: Connection) -> None:
    """Refuse the database of an application.

    The shop's workers take all due events, and a reset empties outbox, archive and ledger.

    Raises:
        RefusedError: there is no shop and outbox, archive, ledger or audit log are in use; or there
            are events or deaths of types that the shop does not write.
    """
    found = connection.fetch_one("shop.others", types=sorted(EVENT_TYPES))["found"]
    if found:
        raise RefusedError(
            f"The demo needs its own outbox. {connection.names.outbox_schema}."
            f"{connection.names.outbox_table} belongs to an application: {found}.",
            "Set DLQ_DATABASE_URL to an empty database, or unset it for the embedded one.",
        )


def drop_shop(connection: Connection) -> None:
    """Drop the shop's tables. Its events stay; the caller deletes them in the same transaction."""
    connection.run("shop.drop")


def count_waiting_events(connection: Connection) -> int:
    """Return the number of events that are neither delivered nor dead."""
    return int(connection.fetch_one("shop.waiting")["events"])


def plan_fourteen_days(last: date, *, events: int = 20_000) -> list[ShopDay]:
    """Return the days up to `last`, with `events` events in total, within rounding."""
    total = sum(_DAY_WEIGHTS)
    return [
        ShopDay(number, last - timedelta(days=DAYS - number), round(events * weight / total))
        for number, weight in enumerate(_DAY_WEIGHTS, start=1)
    ]


def compute_day_bounds(day: date, zone: tzinfo) -> tuple[datetime, datetime]:
    """Return the start of a day in this time zone and the start of the next day, in UTC."""
    start, stop = (
        datetime.combine(d, time(), zone).astimezone(UTC) for d in (day, day + timedelta(days=1))
    )
    return start, stop


def play_day(
    connection: Connection, day: ShopDay, *, zone: tzinfo, seed: int, now: datetime
) -> PlayedDay:
    """Write a day's rows and events in one transaction. A day that was played is not written again.

    Args:
        connection: in autocommit mode, to a database with a shop.
        day: the day and its number of events.
        zone: the time zone of the day.
        seed: the same seed writes the same day.
        now: no row is later than this; the events of today are spread over the hours so far.
    """
    start, stop = compute_day_bounds(day.date, zone)
    rng = random.Random(f"{seed}:{day.number}")
    kinds = _choose_kinds(rng, day)
    clerk = Clerk(
        rng, day.date, {fault: shares[day.number - 1] for fault, shares in FAULTS.items()}
    )
    times = _choose_times(rng, len(kinds), start, min(stop, now))
    actions = [clerk.make_action(kind, at) for kind, at in zip(kinds, times, strict=True)]
    with connection.transaction():
        new = connection.run("shop.play_day", day=day.date, seed=seed, events=day.events).fetchone()
        if new is None:
            return PlayedDay(actions=0, events=0)
        write_actions(connection, actions)
    return PlayedDay(actions=len(actions), events=sum(len(action.events) for action in actions))


def write_actions(connection: Connection, actions: Iterable[ShopAction]) -> None:
    """Write business rows and their events in one transaction."""
    actions = list(actions)
    with connection.transaction():
        _write_rows(connection, [row for action in actions for row in action.rows])
        _write_rows(
            connection,
            [
                ("shop.event", _build_event_row(event, action.at))
                for action in actions
                for event in action.events
            ],
        )


def backdate_deaths(connection: Connection, day: date, *, zone: tzinfo, now: datetime) -> int:
    """Move the deaths of a played day's events into that day, and return their number.

    Classified deaths, and deaths of events that a person retried, are not moved.
    """
    start, stop = compute_day_bounds(day, zone)
    return int(connection.fetch_one("shop.backdate", start=start, stop=stop, now=now)["deaths"])


def _write_rows(connection: Connection, rows: Sequence[Row]) -> None:
    """Run each statement once for all of its rows, in the order in which the statements occur."""
    order = {name: position for position, name in enumerate(dict(rows))}
    queries = load_queries(connection.names)
    for name, group in groupby(sorted(rows, key=lambda row: order[row[0]]), key=lambda row: row[0]):
        connection.cursor().executemany(queries[name], [values for _, values in group])


def _build_event_row(event: ShopEvent, at: datetime) -> dict[str, Any]:
    return vars(event) | {"payload": Json(event.payload), "at": at}


def _build_customer(number: int) -> Customer:
    domain = (
        THROTTLED_DOMAIN
        if number % 8 == 0
        else ("post.example", "quickmail.example", "inbox.example")[number % 3]
    )
    return Customer(number, f"customer{number}@{domain}", Decimal(150 + number * 37 % 9 * 50))


CUSTOMERS: Final = tuple(_build_customer(number) for number in range(1, 401))
_THROTTLED: Final = tuple(c for c in CUSTOMERS if c.email.endswith(f"@{THROTTLED_DOMAIN}"))
_REACHABLE: Final = tuple(c for c in CUSTOMERS if not c.email.endswith(f"@{THROTTLED_DOMAIN}"))


class ShopEventKind(StrEnum):
    """A kind of business transaction; a checkout writes four events, the others one."""

    CHECKOUT = "checkout"
    PARCEL = "parcel"
    PICKUP = "pickup"
    MAIL = "mail"
    PRICE_LIST = "price list"


_CHECKOUT_EVENTS: Final = 4
# Relative frequency of each kind; on the campaign's day twice as many mails are written.
_KIND_WEIGHTS: Final = {
    ShopEventKind.CHECKOUT: 200,
    ShopEventKind.PARCEL: 190,
    ShopEventKind.PICKUP: 30,
    ShopEventKind.MAIL: 330,
    ShopEventKind.PRICE_LIST: 80,
}


def _choose_kinds(rng: random.Random, day: ShopDay) -> list[ShopEventKind]:
    """Return the kinds of a day in their order; their events add up to the day's number."""
    weights = dict(_KIND_WEIGHTS)
    if day.number == CAMPAIGN_DAY:
        weights[ShopEventKind.MAIL] *= 2
    kinds: list[ShopEventKind] = []
    left = day.events
    while left > 0:
        kind = rng.choices(list(weights), list(weights.values()))[0]
        if kind is ShopEventKind.CHECKOUT and left < _CHECKOUT_EVENTS:
            kind = ShopEventKind.MAIL
        left -= _CHECKOUT_EVENTS if kind is ShopEventKind.CHECKOUT else 1
        kinds.append(kind)
    return kinds


def _choose_times(
    rng: random.Random, count: int, start: datetime, stop: datetime
) -> list[datetime]:
    """Return ordered times between start and stop, more of them in busy hours."""
    hours = rng.choices(range(24), _HOUR_WEIGHTS, k=count)
    return [
        start + share * (stop - start)
        for share in sorted((hour + rng.random()) / 24 for hour in hours)
    ]


@dataclass
class Clerk:
    """Makes the actions of a day. Numbers restart with each date.

    Attributes:
        rng: makes all random choices.
        date: the prefix of numbers.
        faults: share of the events of its kind that have the fault; 0 if it is absent.
    """

    rng: random.Random
    date: date
    faults: Mapping[Fault, float]
    _count: Counter[ShopEventKind] = field(default_factory=Counter)
    _unpacked: deque[str] = field(default_factory=deque)
    _packed: deque[str] = field(default_factory=deque)

    def make_action(self, kind: ShopEventKind, at: datetime) -> ShopAction:
        """Return the next action of that kind; a mail if no order or parcel is left for it."""
        if kind is ShopEventKind.CHECKOUT:
            return self.place_order(at)
        if kind is ShopEventKind.PARCEL and self._unpacked:
            return self.pack_parcel(at)
        if kind is ShopEventKind.PICKUP and self._packed:
            return self.request_pickup(at)
        return self.receive_prices(at) if kind is ShopEventKind.PRICE_LIST else self.write_mail(at)

    def place_order(self, at: datetime) -> ShopAction:
        """Place an order: it is confirmed, paid, invoiced and taken from stock."""
        number, customer = self._next_number(ShopEventKind.CHECKOUT), self.rng.choice(CUSTOMERS)
        self._unpacked.append(number)
        over = self._has_fault(Fault.OVER_CREDIT)
        amount = self._choose_amount(customer.credit, over=over)
        stock, by_hand = self._reserve_stock(number, at)
        row = {"number": number, "customer": customer.number, "amount": amount, "at": at}
        events = [
            ShopEvent(
                "order.placed", "order", number, {"order": number, "customer": customer.number}
            ),
            stock,
            # A declined order never reaches the acquirer: it has only one of the two faults.
            self._build_payment(
                number, amount, down=not over and self._has_fault(Fault.ACQUIRER_DOWN)
            ),
            self._build_invoice(number, amount),
        ]
        return ShopAction(at, [("shop.order", row), *by_hand], events)

    def pack_parcel(self, at: datetime) -> ShopAction:
        """Pack the oldest order without a parcel."""
        order = self._unpacked.popleft()
        self._packed.append(order)
        postcode, city = self.rng.choice(CITIES)
        field_name = "postal_code" if self._has_fault(Fault.RENAMED_FIELD) else "postcode"
        street = f"{self.rng.choice(_STREETS)} {self.rng.randint(1, 99)}"
        address = {
            "name": f"Customer of {order}",
            "street": street,
            field_name: postcode,
            "city": city,
        }
        event = ShopEvent("parcel.shipped", "parcel", order, {"order": order, "address": address})
        return ShopAction(at, [("shop.parcel", {"order": order, "at": at})], [event])

    def request_pickup(self, at: datetime) -> ShopAction:
        """Request the pickup of the oldest parcel; the shop's own depot needs no carrier."""
        order = self._packed.popleft()
        depot = SLOW_DEPOT if self._has_fault(Fault.SLOW_DEPOT) else OWN_DEPOT
        event = ShopEvent("pickup.requested", "parcel", order, {"order": order, "depot": depot})
        return ShopAction(at, [("shop.pickup", {"order": order, "depot": depot})], [event])

    def write_mail(self, at: datetime) -> ShopAction:
        """Write a newsletter to a customer, mostly through the shop's own relay."""
        number = self._next_number(ShopEventKind.MAIL)
        throttled = self._has_fault(Fault.THROTTLED)
        customer = self.rng.choice(_THROTTLED if throttled else _REACHABLE)
        relay = "provider" if throttled or self.rng.random() < _RELAYED else "own"
        payload = {"mail": number, "to": customer.email, "subject": "What is new", "relay": relay}
        event = ShopEvent("newsletter.sent", "customer", str(customer.number), payload)
        return ShopAction(
            at, [("shop.mail", {"number": number, "customer": customer.number, "at": at})], [event]
        )

    def receive_prices(self, at: datetime) -> ShopAction:
        """Receive a supplier's prices as a JSON document."""
        number, supplier = (
            self._next_number(ShopEventKind.PRICE_LIST),
            f"supplier-{self.rng.randint(1, 12)}",
        )
        comma = "," if self._has_fault(Fault.DECIMAL_COMMA) else "."
        skus = self.rng.sample(range(1000, 10_000), 3)
        prices = ", ".join(
            f'"sku-{sku}": {self.rng.randint(1, 99)}{comma}{self.rng.randint(10, 99)}'
            for sku in skus
        )
        document = f'{{"supplier": "{supplier}", "prices": {{{prices}}}}}'
        event = ShopEvent(
            "prices.received", "supplier", supplier, {"list": number, "document": document}
        )
        return ShopAction(
            at, [("shop.price_list", {"number": number, "supplier": supplier, "at": at})], [event]
        )

    def _choose_amount(self, credit: Decimal, *, over: bool) -> Decimal:
        cents = (
            self.rng.randint(1, 20_000) if over else -self.rng.randint(0, int(credit * 100) - 500)
        )
        return credit + Decimal(cents) / 100

    def _reserve_stock(self, order: str, at: datetime) -> tuple[ShopEvent, list[Row]]:
        """Return the reservation and, for that fault, the movement booked by hand before."""
        slip, quantity = f"slip-{order}", self.rng.randint(1, 5)
        event = ShopEvent("stock.reserved", "stock", slip, {"slip": slip, "quantity": quantity})
        taken = self._has_fault(Fault.SLIP_TAKEN)
        movement = {"slip": slip, "quantity": quantity, "at": at}
        return event, [("shop.movement_by_hand", movement)] if taken else []

    def _build_payment(self, order: str, amount: Decimal, *, down: bool) -> ShopEvent:
        payload = {"order": order, "amount": str(amount), "method": "wallet"}
        if down or self.rng.random() < _BY_CARD:
            payload |= {"method": "card", "acquirer": DOWN_ACQUIRER if down else "eastbank"}
        return ShopEvent("payment.captured", "payment", order, payload)

    def _build_invoice(self, order: str, amount: Decimal) -> ShopEvent:
        is_legacy = self._has_fault(Fault.LEGACY_LEDGER)
        is_missing = not is_legacy and self._has_fault(Fault.MISSING_SKU)
        has_code = not is_legacy and not is_missing and self._has_fault(Fault.NEW_TAX_CODE)
        payload = {
            "order": order,
            "amount": str(amount),
            "ledger": "legacy" if is_legacy else "own",
            "tax": "reverse-charge" if has_code else "standard",
            "line": {"article" if is_missing else "sku": f"sku-{order}", "quantity": 1},
        }
        return ShopEvent("invoice.issued", "invoice", order, payload)

    def _next_number(self, kind: ShopEventKind) -> str:
        self._count[kind] += 1
        return f"{self.date:%Y%m%d}-{self._count[kind]:04}"

    def _has_fault(self, fault: Fault) -> bool:
        """Decide by chance. A fault that is absent draws no number: other days stay as they are."""
        share = self.faults.get(fault, 0)
        return share > 0 and self.rng.random() < share
