"""What did the shop sell on a day, and which of that day's events carry the seed of a failure?

`play_day` writes a day as the shop's own code would: the business rows and the events that announce them in one
transaction. A day follows from its seed alone. A share of the events, `FAULTS`, is written such that the handler
will really fail on it; what makes them fail is in the data, as it is in life.
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
# Shares of the healthy payments and mails that are delivered to another company over HTTP.
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
    """What is wrong with an event; which exception comes of it is in `handlers`."""

    LEGACY_LEDGER = "legacy ledger"
    ACQUIRER_DOWN = "acquirer down"
    OVER_CREDIT = "over credit"
    THROTTLED = "throttled"
    SLOW_DEPOT = "slow depot"
    SLIP_TAKEN = "slip taken"
    DECIMAL_COMMA = "decimal comma"
    RENAMED_FIELD = "renamed field"


# Share of the events of its kind that have the fault, on each of the fourteen days.
FAULTS: Final[Mapping[Fault, tuple[float, ...]]] = {
    # The last customers leave the legacy ledger in the first week: this cause vanishes.
    Fault.LEGACY_LEDGER: (0.12, 0.10, 0.09, 0.08, 0.06, 0.03, 0.01, 0, 0, 0, 0, 0, 0, 0),
    Fault.ACQUIRER_DOWN: (
        0.03,
        0.03,
        0.04,
        0.03,
        0.05,
        0.06,
        0.05,
        0.07,
        0.08,
        0.07,
        0.09,
        0.10,
        0.11,
        0.12,
    ),
    Fault.OVER_CREDIT: (
        0.02,
        0.03,
        0.02,
        0.03,
        0.03,
        0.02,
        0.02,
        0.03,
        0.02,
        0.03,
        0.02,
        0.04,
        0.02,
        0.03,
    ),
    # The sale's newsletter on day 12 goes to everybody: this cause has a spike.
    Fault.THROTTLED: (
        0.01,
        0.01,
        0.01,
        0.02,
        0.01,
        0.01,
        0.01,
        0.01,
        0.02,
        0.01,
        0.01,
        0.22,
        0.03,
        0.01,
    ),
    Fault.SLOW_DEPOT: (
        0.08,
        0.04,
        0.08,
        0,
        0.08,
        0.04,
        0.08,
        0.12,
        0.04,
        0.08,
        0.04,
        0.08,
        0.12,
        0.08,
    ),
    Fault.SLIP_TAKEN: (
        0.02,
        0.02,
        0.03,
        0.03,
        0.02,
        0.01,
        0.01,
        0.03,
        0.03,
        0.04,
        0.03,
        0.03,
        0.01,
        0.02,
    ),
    # One supplier after the other exports its list from a spreadsheet.
    Fault.DECIMAL_COMMA: (
        0.02,
        0.02,
        0.04,
        0.04,
        0.04,
        0.06,
        0.06,
        0.08,
        0.08,
        0.10,
        0.12,
        0.12,
        0.14,
        0.16,
    ),
    # The app's release of day 9 calls the field otherwise, and more customers install it day by day.
    Fault.RENAMED_FIELD: (0, 0, 0, 0, 0, 0, 0, 0, 0.06, 0.10, 0.14, 0.18, 0.22, 0.26),
}

# How much of a day's events each of the fourteen days has, and how much of a day's business each hour.
_DAY_WEIGHTS: Final = (86, 90, 92, 95, 104, 110, 84, 96, 99, 101, 104, 138, 124, 97)
_HOUR_WEIGHTS: Final = (
    3,
    2,
    1,
    1,
    1,
    2,
    5,
    9,
    14,
    18,
    20,
    21,
    22,
    19,
    17,
    17,
    18,
    21,
    25,
    29,
    30,
    24,
    14,
    7,
)
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
    """A customer; `credit` is the most that one of their orders may cost, in euros."""

    number: int
    email: str
    credit: Decimal


@dataclass(frozen=True)
class ShopDay:
    """A day to play.

    Attributes:
        number: 1 to 14; decides how often each fault occurs.
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
    """Something that happened in the shop: business rows, and the events that announce them.

    Attributes:
        at: when, for the rows and for the events.
        rows: the business rows, in the order in which they are written.
        events: written in the same transaction.
    """

    at: datetime
    rows: Sequence[Row]
    events: Sequence[ShopEvent]


@dataclass(frozen=True)
class PlayedDay:
    """What a day wrote: nothing if it had been played before."""

    acts: int
    events: int


def create_shop(connection: Connection) -> None:
    """Create the shop's tables and its customers, unless they are there.

    Raises:
        RefusedError: as `refuse_others` does.
    """
    require_own_database(connection)
    tables = (SQL_FOLDER / "demo" / "shop.sql").read_text(encoding="utf-8")
    with connection.transaction():
        connection.execute(bind_names(tables, connection.names).encode())
        _write_rows(connection, [("shop.customer", vars(customer)) for customer in CUSTOMERS])


def require_own_database(connection: Connection) -> None:
    """Look for an application. The shop's workers take whatever is due, and a reset empties outbox, archive and ledger.

    Raises:
        RefusedError: there is no shop, but outbox, archive, ledger or audit are in use; or there are events or deaths
            of types that the shop does not write.
    """
    found = connection.fetch_one("shop.others", types=sorted(EVENT_TYPES))["found"]
    if found:
        raise RefusedError(
            f"The demo needs an outbox of its own, and {connection.names.outbox_schema}."
            f"{connection.names.outbox_table} is an application's: {found}. Point DLQ_DATABASE_URL at an empty "
            "database, or unset it for the embedded one."
        )


def drop_shop(connection: Connection) -> None:
    """Drop the shop's tables. Its events stay in the outbox: whoever starts anew deletes those in one transaction."""
    connection.run("shop.drop")


def count_waiting_events(connection: Connection) -> int:
    """How many events are neither delivered nor dead, whether due, backing off or leased to a worker."""
    return int(connection.fetch_one("shop.waiting")["events"])


def plan_fourteen_days(last: date, *, events: int = 20_000) -> list[ShopDay]:
    """The days that end with `last`, and how the events are spread over them: `events` in total, within rounding."""
    total = sum(_DAY_WEIGHTS)
    return [
        ShopDay(number, last - timedelta(days=DAYS - number), round(events * weight / total))
        for number, weight in enumerate(_DAY_WEIGHTS, start=1)
    ]


def compute_day_bounds(day: date, zone: tzinfo) -> tuple[datetime, datetime]:
    """The first moment of a day in this time zone and that of the next day, in UTC."""
    start, stop = (
        datetime.combine(d, time(), zone).astimezone(UTC) for d in (day, day + timedelta(days=1))
    )
    return start, stop


def play_day(
    connection: Connection, day: ShopDay, *, zone: tzinfo, seed: int, now: datetime
) -> PlayedDay:
    """Write a day's business and events, in one transaction: a day is played whole or not at all, and once.

    Args:
        connection: in autocommit mode, to a database with a shop.
        day: which day, and how many events.
        zone: whose days these are.
        seed: the same seed writes the same day.
        now: nothing is written for a later moment; a day that is not over yet is played in the hours so far.
    """
    start, stop = compute_day_bounds(day.date, zone)
    rng = random.Random(f"{seed}:{day.number}")
    kinds = _kinds(rng, day)
    clerk = Clerk(
        rng, day.date, {fault: shares[day.number - 1] for fault, shares in FAULTS.items()}
    )
    moments = _moments(rng, len(kinds), start, min(stop, now))
    acts = [clerk.act(kind, at) for kind, at in zip(kinds, moments, strict=True)]
    with connection.transaction():
        new = connection.run("shop.play_day", day=day.date, seed=seed, events=day.events).fetchone()
        if new is None:
            return PlayedDay(acts=0, events=0)
        write_actions(connection, acts)
    return PlayedDay(acts=len(acts), events=sum(len(act.events) for act in acts))


def write_actions(connection: Connection, acts: Iterable[ShopAction]) -> None:
    """Write business rows and their events in one transaction; any of them refused, none is written."""
    acts = list(acts)
    with connection.transaction():
        _write_rows(connection, [row for act in acts for row in act.rows])
        _write_rows(
            connection,
            [("shop.event", _values(event, act.at)) for act in acts for event in act.events],
        )


def backdate_deaths(connection: Connection, day: date, *, zone: tzinfo, now: datetime) -> int:
    """Move the deaths of the events created on a played day into that day, and return how many there are.

    Deaths that are classified already, or whose event was retried by an operator, are left alone.
    """
    start, stop = compute_day_bounds(day, zone)
    return int(connection.fetch_one("shop.backdate", start=start, stop=stop, now=now)["deaths"])


def _write_rows(connection: Connection, rows: Sequence[Row]) -> None:
    """Run each statement for all its rows at once; statements in the order in which they first occur."""
    order = {name: position for position, name in enumerate(dict(rows))}
    queries = load_queries(connection.names)
    for name, group in groupby(sorted(rows, key=lambda row: order[row[0]]), key=lambda row: row[0]):
        connection.cursor().executemany(queries[name], [values for _, values in group])


def _values(event: ShopEvent, at: datetime) -> dict[str, Any]:
    return vars(event) | {"payload": Json(event.payload), "at": at}


def _customer(number: int) -> Customer:
    domain = (
        THROTTLED_DOMAIN
        if number % 8 == 0
        else ("post.example", "quickmail.example", "inbox.example")[number % 3]
    )
    return Customer(number, f"customer{number}@{domain}", Decimal(150 + number * 37 % 9 * 50))


CUSTOMERS: Final = tuple(_customer(number) for number in range(1, 401))
_THROTTLED: Final = tuple(c for c in CUSTOMERS if c.email.endswith(f"@{THROTTLED_DOMAIN}"))
_REACHABLE: Final = tuple(c for c in CUSTOMERS if not c.email.endswith(f"@{THROTTLED_DOMAIN}"))


class ShopEventKind(StrEnum):
    """What can happen in the shop; a checkout writes four events, everything else one."""

    CHECKOUT = "checkout"
    PARCEL = "parcel"
    PICKUP = "pickup"
    MAIL = "mail"
    PRICE_LIST = "price list"


_CHECKOUT_EVENTS: Final = 4
# How often each kind happens, relative to the others; on the campaign's day twice as many mails are written.
_KIND_WEIGHTS: Final = {
    ShopEventKind.CHECKOUT: 200,
    ShopEventKind.PARCEL: 190,
    ShopEventKind.PICKUP: 30,
    ShopEventKind.MAIL: 330,
    ShopEventKind.PRICE_LIST: 80,
}


def _kinds(rng: random.Random, day: ShopDay) -> list[ShopEventKind]:
    """What happens on a day, in the order in which it happens, adding up to the day's events."""
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


def _moments(rng: random.Random, count: int, start: datetime, stop: datetime) -> list[datetime]:
    """That many moments of a day in order, busier where the hour is, squeezed between start and stop."""
    hours = rng.choices(range(24), _HOUR_WEIGHTS, k=count)
    return [
        start + share * (stop - start)
        for share in sorted((hour + rng.random()) / 24 for hour in hours)
    ]


@dataclass
class Clerk:
    """Makes up what happens on one day, one act after the other. Numbers start anew with each date.

    Attributes:
        rng: decides everything that is left open.
        date: what numbers begin with.
        faults: share of the events of its kind that have the fault; none where it is not named.
    """

    rng: random.Random
    date: date
    faults: Mapping[Fault, float]
    _count: Counter[ShopEventKind] = field(default_factory=Counter)
    _unpacked: deque[str] = field(default_factory=deque)
    _packed: deque[str] = field(default_factory=deque)

    def act(self, kind: ShopEventKind, at: datetime) -> ShopAction:
        """The next act of that kind; a mail, if there is no order to pack or no parcel to fetch."""
        if kind is ShopEventKind.CHECKOUT:
            return self.checkout(at)
        if kind is ShopEventKind.PARCEL and self._unpacked:
            return self.parcel(at)
        if kind is ShopEventKind.PICKUP and self._packed:
            return self.pickup(at)
        return self.price_list(at) if kind is ShopEventKind.PRICE_LIST else self.mail(at)

    def checkout(self, at: datetime) -> ShopAction:
        """An order, which is confirmed, paid, invoiced and taken from the shelf."""
        number, customer = self._number(ShopEventKind.CHECKOUT), self.rng.choice(CUSTOMERS)
        self._unpacked.append(number)
        over = self._has(Fault.OVER_CREDIT)
        amount = self._amount(customer.credit, over=over)
        stock, by_hand = self._stock(number, at)
        row = {"number": number, "customer": customer.number, "amount": amount, "at": at}
        events = [
            ShopEvent(
                "order.placed", "order", number, {"order": number, "customer": customer.number}
            ),
            stock,
            # An order that is declined never gets as far as the acquirer: it has this fault or that one.
            self._payment(number, amount, down=not over and self._has(Fault.ACQUIRER_DOWN)),
            self._invoice(number, amount),
        ]
        return ShopAction(at, [("shop.order", row), *by_hand], events)

    def parcel(self, at: datetime) -> ShopAction:
        """The oldest order without a parcel is packed."""
        order = self._unpacked.popleft()
        self._packed.append(order)
        postcode, city = self.rng.choice(CITIES)
        field_name = "postal_code" if self._has(Fault.RENAMED_FIELD) else "postcode"
        street = f"{self.rng.choice(_STREETS)} {self.rng.randint(1, 99)}"
        address = {
            "name": f"Customer of {order}",
            "street": street,
            field_name: postcode,
            "city": city,
        }
        event = ShopEvent("parcel.shipped", "parcel", order, {"order": order, "address": address})
        return ShopAction(at, [("shop.parcel", {"order": order, "at": at})], [event])

    def pickup(self, at: datetime) -> ShopAction:
        """The carrier is asked to fetch the oldest parcel at a depot; the shop's own needs no carrier."""
        order = self._packed.popleft()
        depot = SLOW_DEPOT if self._has(Fault.SLOW_DEPOT) else OWN_DEPOT
        event = ShopEvent("pickup.requested", "parcel", order, {"order": order, "depot": depot})
        return ShopAction(at, [("shop.pickup", {"order": order, "depot": depot})], [event])

    def mail(self, at: datetime) -> ShopAction:
        """A newsletter to one customer, mostly through the shop's own relay."""
        number = self._number(ShopEventKind.MAIL)
        throttled = self._has(Fault.THROTTLED)
        customer = self.rng.choice(_THROTTLED if throttled else _REACHABLE)
        relay = "provider" if throttled or self.rng.random() < _RELAYED else "own"
        payload = {"mail": number, "to": customer.email, "subject": "What is new", "relay": relay}
        event = ShopEvent("newsletter.sent", "customer", str(customer.number), payload)
        return ShopAction(
            at, [("shop.mail", {"number": number, "customer": customer.number, "at": at})], [event]
        )

    def price_list(self, at: datetime) -> ShopAction:
        """A supplier sends new prices as a JSON document."""
        number, supplier = (
            self._number(ShopEventKind.PRICE_LIST),
            f"supplier-{self.rng.randint(1, 12)}",
        )
        comma = "," if self._has(Fault.DECIMAL_COMMA) else "."
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

    def _amount(self, credit: Decimal, *, over: bool) -> Decimal:
        cents = (
            self.rng.randint(1, 20_000) if over else -self.rng.randint(0, int(credit * 100) - 500)
        )
        return credit + Decimal(cents) / 100

    def _stock(self, order: str, at: datetime) -> tuple[ShopEvent, list[Row]]:
        """The reservation and, where the warehouse was quicker, the movement that it booked by hand."""
        slip, quantity = f"slip-{order}", self.rng.randint(1, 5)
        event = ShopEvent("stock.reserved", "stock", slip, {"slip": slip, "quantity": quantity})
        taken = self._has(Fault.SLIP_TAKEN)
        movement = {"slip": slip, "quantity": quantity, "at": at}
        return event, [("shop.movement_by_hand", movement)] if taken else []

    def _payment(self, order: str, amount: Decimal, *, down: bool) -> ShopEvent:
        payload = {"order": order, "amount": str(amount), "method": "wallet"}
        if down or self.rng.random() < _BY_CARD:
            payload |= {"method": "card", "acquirer": DOWN_ACQUIRER if down else "eastbank"}
        return ShopEvent("payment.captured", "payment", order, payload)

    def _invoice(self, order: str, amount: Decimal) -> ShopEvent:
        ledger = "legacy" if self._has(Fault.LEGACY_LEDGER) else "own"
        return ShopEvent(
            "invoice.issued",
            "invoice",
            order,
            {"order": order, "amount": str(amount), "ledger": ledger},
        )

    def _number(self, kind: ShopEventKind) -> str:
        self._count[kind] += 1
        return f"{self.date:%Y%m%d}-{self._count[kind]:04}"

    def _has(self, fault: Fault) -> bool:
        return self.rng.random() < self.faults.get(fault, 0)
