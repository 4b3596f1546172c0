"""Delivers the shop's events. Some deliveries fail until the shop changes its code.

Every failure is a real exception:

| event | fails if | exception |
| --- | --- | --- |
| `invoice.issued` | the ledger is `legacy` | `URLError: ... Connection refused` |
| `payment.captured` | the card's acquirer is down | `HTTPError: HTTP Error 503` |
| `payment.captured` | the amount exceeds the credit | `PaymentDeclinedError` |
| `newsletter.sent` | the mailbox provider is throttled | `HTTPError: HTTP Error 429` |
| `pickup.requested` | the depot answers too late | `TimeoutError: timed out` |
| `stock.reserved` | the slip was booked by hand | `psycopg.errors.UniqueViolation` |
| `prices.received` | the supplier writes decimal commas | `json.decoder.JSONDecodeError` |
| `parcel.shipped` | the app sends `postal_code` | `KeyError: 'postcode'` |
| `invoice.issued` | the line has no `sku` | `KeyError: 'sku'`, another detail of the same cause |
| `invoice.issued` | the tax code is new | `UnknownTaxCodeError` |

The demo flags a fix for three of them: see `Repair`.
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
# Shorter than the 250 ms that the slow depot takes.
_PICKUP_TIMEOUT_SECONDS: Final = 0.02
# urllib's default opener would send loopback calls through a proxy from the environment.
_HTTP: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}))


_TAX_CODES: Final = frozenset({"standard", "reduced"})


class Repair(StrEnum):
    """A change that the shop deploys to resolve a cause.

    OWN_LEDGER resolves it until it is rolled back: invoices of the legacy ledger are written to the
    shop's own.
    PARCEL_FIELDS resolves it: the label is printed from `postal_code` if an address has no
    `postcode`, so parcels that died of `KeyError: 'postcode'` are delivered when retried. It says
    nothing about the invoices that die of `KeyError: 'sku'`.
    PAYMENT_ROUTE does not: the shop calls the provider's route v2, which answers
    `HTTP Error 503: Service Unavailable` for the same acquirer, as v1 did.
    """

    OWN_LEDGER = "own-ledger"
    PARCEL_FIELDS = "parcel-fields"
    PAYMENT_ROUTE = "payment-route"


class PaymentDeclinedError(Exception):
    """The order costs more than the customer's credit. Retrying does not help."""


class UnknownTaxCodeError(Exception):
    """The shop has no rate for a tax code."""


class UnknownEventError(Exception):
    """The shop did not write this event."""


class Handlers:
    """The shop's deliveries.

    One object serves all worker threads: a change of it is a single assignment.

    Args:
        services: the servers that the shop calls.
    """

    def __init__(self, services: ProviderServers) -> None:
        self._services = services
        self._writes_to_legacy_ledger = True
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

    def deploy(self, repair: Repair) -> None:
        """Deploy a change: later deliveries run the changed code. Idempotent."""
        match repair:
            case Repair.OWN_LEDGER:
                self._writes_to_legacy_ledger = False
            case Repair.PARCEL_FIELDS:
                self._postcode_fields = ("postcode", "postal_code")
            case Repair.PAYMENT_ROUTE:
                self._capture_url = f"{self._services.payments}/v2/capture"

    def roll_back_ledger(self) -> None:
        """Deploy the release that lacks `Repair.OWN_LEDGER`. Idempotent."""
        self._writes_to_legacy_ledger = True

    def handle(self, connection: Connection, event: OutboxEvent) -> None:
        """Deliver an event. Idempotent: an event may be delivered twice.

        Args:
            connection: to the shop's tables, in autocommit mode, used by the calling thread only.
            event: from `OutboxRepository.fetch_pending`.

        Raises:
            Exception: the delivery failed.
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
        line = event.payload["line"]
        text = f"{line['quantity']} x {line['sku']}"
        if event.payload["tax"] not in _TAX_CODES:
            raise UnknownTaxCodeError(f"no rate for tax code '{event.payload['tax']}'")
        if event.payload["ledger"] == "legacy" and self._writes_to_legacy_ledger:
            _post(f"{self._services.bookkeeping}/invoices", event.payload)
        connection.run("shop.issue_invoice", order=event.payload["order"], line=text)

    def _label_parcel(self, connection: Connection, event: OutboxEvent) -> None:
        address = event.payload["address"]
        # The first name that the address has. If it has none, the oldest name is the missing key.
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
    """Send JSON and wait at most `timeout` seconds for the response.

    Raises:
        OSError: no response within the timeout, or an error status.
    """
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"Content-Type": "application/json"}, method="POST"
    )
    try:
        _HTTP.open(request, timeout=timeout).close()
    except urllib.error.HTTPError as answer:
        answer.close()
        raise
