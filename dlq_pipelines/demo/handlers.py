"""What does the shop do with each of its events, and which deliveries fail until somebody mends something?

Every failure is an exception that really happened here:

| event | fails when | exception |
| --- | --- | --- |
| `invoice.issued` | the ledger is `legacy`, whose host is gone | `URLError: ... Connection refused` |
| `payment.captured` | the card's acquirer is down | `HTTPError: HTTP Error 503: Service Unavailable` |
| `payment.captured` | the amount is over the customer's credit | `PaymentDeclinedError` |
| `newsletter.sent` | the mailbox provider is throttled | `HTTPError: HTTP Error 429: Too Many Requests` |
| `pickup.requested` | the depot answers too late | `TimeoutError: timed out` |
| `stock.reserved` | the slip was booked by hand before | `psycopg.errors.UniqueViolation` |
| `prices.received` | the supplier writes decimal commas | `json.decoder.JSONDecodeError` |
| `parcel.shipped` | the app sends `postal_code`, not `postcode` | `KeyError: 'postcode'` |

Two of them are said to be mended in the demo: see `Repair`.
"""

import json
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final

from dlq_pipelines.demo.servers import OWN_DEPOT, ProviderServers
from dlq_pipelines.outbox.event import OutboxEvent
from dlq_pipelines.postgres.connect import Connection

_TIMEOUT_SECONDS: Final = 5.0
# Below the 250 ms that the slow depot takes.
_PICKUP_TIMEOUT_SECONDS: Final = 0.02
# Not urllib's default opener: that one would send loopback calls through a proxy from the environment.
_HTTP: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Repair(StrEnum):
    """A change that the shop deploys because it is believed to end a cause.

    PARCEL_FIELDS is a true fix: the label is printed from `postal_code` where an address has no `postcode`, and the
    parcels that died of `KeyError: 'postcode'` are shipped when they are retried.
    PAYMENT_ROUTE is a false one: the provider says that its route v2 works again, the shop calls v2, and for the
    same acquirer v2 answers `HTTP Error 503: Service Unavailable` as v1 did.
    """

    PARCEL_FIELDS = "parcel-fields"
    PAYMENT_ROUTE = "payment-route"


class PaymentDeclinedError(Exception):
    """The order costs more than the customer's credit allows; no retry changes that."""


class UnknownEventError(Exception):
    """The outbox holds an event that the shop did not write."""


class Handlers:
    """The shop's deliveries. One object serves all worker threads: only `mend` changes it, in one assignment.

    Args:
        services: whom the shop calls.
    """

    def __init__(self, services: ProviderServers) -> None:
        self._services = services
        self._postcode_fields: tuple[str, ...] = ("postcode",)
        self._capture_url = f"{services.payments}/v1/capture"
        self._handlers: Mapping[str, Callable[[Connection, OutboxEvent], None]] = {
            "order.placed": self._confirm_order,
            "stock.reserved": self._book_stock,
            "payment.captured": self._capture_payment,
            "invoice.issued": self._issue_invoice,
            "parcel.shipped": self._label_parcel,
            "pickup.requested": self._request_pickup,
            "newsletter.sent": self._send_mail,
            "prices.received": self._read_prices,
        }

    def mend(self, repair: Repair) -> None:
        """Deploy a repair: from here on these deliveries run the changed code. Doing it twice changes nothing."""
        match repair:
            case Repair.PARCEL_FIELDS:
                self._postcode_fields = ("postcode", "postal_code")
            case Repair.PAYMENT_ROUTE:
                self._capture_url = f"{self._services.payments}/v2/capture"

    def handle(self, connection: Connection, event: OutboxEvent) -> None:
        """Deliver one event; returning means that it is delivered. Delivering it again does no harm.

        Args:
            connection: to the shop's tables, in autocommit mode, of the calling thread alone.
            event: from `OutboxRepository.fetch_pending`.

        Raises:
            Exception: whatever made the delivery fail, as it happened.
        """
        handler = self._handlers.get(event.event_type)
        if handler is None:
            raise UnknownEventError(f"no handler for {event.event_type}")
        handler(connection, event)

    def _confirm_order(self, connection: Connection, event: OutboxEvent) -> None:
        connection.run("shop.confirm_order", order=event.payload["order"])

    def _book_stock(self, connection: Connection, event: OutboxEvent) -> None:
        slip, quantity = event.payload["slip"], event.payload["quantity"]
        connection.run("shop.book_stock", slip=slip, quantity=quantity, event=str(event.id))

    def _capture_payment(self, connection: Connection, event: OutboxEvent) -> None:
        order, amount = event.payload["order"], Decimal(event.payload["amount"])
        credit = connection.fetch_one("shop.credit", order=order)["credit"]
        if amount > credit:
            raise PaymentDeclinedError(
                f"order {order}: {amount} EUR is over the customer's credit of {credit} EUR"
            )
        if event.payload["method"] == "card":
            _post(
                self._capture_url,
                {"order": order, "amount": str(amount), "acquirer": event.payload["acquirer"]},
            )
        connection.run("shop.settle_payment", order=order)

    def _issue_invoice(self, connection: Connection, event: OutboxEvent) -> None:
        if event.payload["ledger"] == "legacy":
            _post(f"{self._services.bookkeeping}/invoices", event.payload)
        connection.run("shop.issue_invoice", order=event.payload["order"])

    def _label_parcel(self, connection: Connection, event: OutboxEvent) -> None:
        address = event.payload["address"]
        # The first name that the address has; with none of them, the oldest one is what is missed.
        field = next(
            (name for name in self._postcode_fields if name in address), self._postcode_fields[0]
        )
        label = f"{address['name']}, {address['street']}, {address[field]} {address['city']}"
        connection.run("shop.label_parcel", order=event.payload["order"], label=label)

    def _request_pickup(self, connection: Connection, event: OutboxEvent) -> None:
        if event.payload["depot"] != OWN_DEPOT:
            _post(
                f"{self._services.carrier}/pickup", event.payload, timeout=_PICKUP_TIMEOUT_SECONDS
            )
        connection.run("shop.pick_up_parcel", order=event.payload["order"])

    def _send_mail(self, connection: Connection, event: OutboxEvent) -> None:
        if event.payload["relay"] == "provider":
            _post(
                f"{self._services.mail}/send",
                {"to": event.payload["to"], "subject": event.payload["subject"]},
            )
        connection.run("shop.send_mail", number=event.payload["mail"])

    def _read_prices(self, connection: Connection, event: OutboxEvent) -> None:
        prices = json.loads(event.payload["document"])["prices"]
        connection.run("shop.read_prices", number=event.payload["list"], prices=len(prices))


def _post(url: str, body: Mapping[str, Any], *, timeout: float = _TIMEOUT_SECONDS) -> None:
    """Send JSON and wait at most `timeout` seconds for an answer.

    Raises:
        OSError: nobody answers, or not in time, or the answer is no success.
    """
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"Content-Type": "application/json"}, method="POST"
    )
    try:
        _HTTP.open(request, timeout=timeout).close()
    except urllib.error.HTTPError as answer:
        answer.close()
        raise
