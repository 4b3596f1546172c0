"""Values without bound: 1,000 values of each kind are one cause; statuses are not values."""

import random
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from dlq_pipelines.causes.fingerprint import compute_cause_id
from dlq_pipelines.causes.vocabulary import CURRENCIES


def _split(words: str) -> list[str]:
    return words.split()


_FIRST = _split("Anna Jan Maria Piotr John Sophie Omar Aiko Chen Fatima April May Mark Bill Rose")
_LAST = _split("Kowalska Nowak Smith Miller Rossi Tanaka Okafor O'Neil King Stone Fox Church Banks")
_CITIES = _split("Berlin Warsaw Paris Lyon Madrid Oslo Bergen Cairo Lagos Osaka Lima Bath Nice")
_HOSTS = _split("orders mail rates kafka redis broker shop db billing search cache gateway auth")
_OPERATIONS = _split("GetItem PutItem Publish Query Scan Decrypt Invoke Create UploadPart Encrypt")
_STATES = _split("new paid shipped cancelled returned pending draft")
_FILE_WORDS = _split("orders of May parcels and the invoices Annas-list 2026 for Berlin draft new")
_UNITS = ["1 minute(s)", "10 second(s)", "30000ms", "5 s", "2 hours", "1.5 seconds", "1 day"]


def _moment(chance: random.Random) -> datetime:
    return datetime(2020, 1, 1, tzinfo=UTC) + timedelta(seconds=chance.randrange(300_000_000))


def _currency(chance: random.Random) -> str:
    return chance.choice(sorted(CURRENCIES))


def _person(chance: random.Random) -> str:
    return f"{chance.choice(_FIRST)} {chance.choice(_LAST)}"


def _file(chance: random.Random) -> str:
    words = chance.sample(_FILE_WORDS, chance.randint(2, 5))
    extension = chance.choice(["csv", "json", "pdf", "txt", "xlsx", "xml"])
    return f"{' '.join(words)}{chance.choice(['', ' 2', ' (3)', '-v2'])}.{extension}"


KINDS: dict[str, tuple[Callable[[random.Random], str], list[str]]] = {
    "date": (
        lambda chance: f"{_moment(chance):%d %B %Y}",
        ["Delivery on {} is not possible", "no slot available for {}"],
    ),
    "American date": (
        lambda chance: f"{_moment(chance):%B %d, %Y}",
        ["Delivery on {} is not possible", "no slot available for {}"],
    ),
    "HTTP date": (
        lambda chance: f"{_moment(chance):%a, %d %b %Y %H:%M:%S GMT}",
        ["retry after {}"],
    ),
    "weekday": (lambda chance: f"{_moment(chance):%A}", ["Warehouse is closed on {}"]),
    "month": (lambda chance: f"{_moment(chance):%B}", ["no invoice for {} was found"]),
    "currency": (
        _currency,
        ["no exchange rate for {}", "Unsupported currency {}", "amount in {} is too small"],
    ),
    "pair": (
        lambda chance: f"{_currency(chance)}/{_currency(chance)}",
        ["no exchange rate for {}", "No rate {}"],
    ),
    "money": (
        lambda chance: f"{chance.randrange(99_999) / 100:.2f} {_currency(chance)}",
        ["Amount {} exceeds the limit", "charge of {} was declined"],
    ),
    "host": (
        lambda chance: chance.choice(_HOSTS) + chance.choice(["", "-1", "-api", ".internal"]),
        [
            "getaddrinfo ENOTFOUND {}",
            "dial tcp: lookup {}: no such host",
            "could not resolve host: {}",
            "Failed to connect to {} port 8080: Connection refused",
            "java.net.UnknownHostException: {}",
            "connect ECONNREFUSED {}:5432",
        ],
    ),
    "person": (
        _person,
        [
            "customer {} is blocked",
            "Payment of customer {} was declined",
            "signed by {} without approval",
            "no address for {}",
            "Customer {} not found",
            "invalid recipient {}",
        ],
    ),
    "person in lower case": (
        lambda chance: _person(chance).lower(),
        [
            "customer {} is blocked",
            "Payment of customer {} was declined",
            "Customer {} not found",
            "invalid recipient {}",
            "user {} has no address",
            "no parcel of sender {} was found",
            "Order 7 is locked by {}",
            "created by {}, not by the shop",
            "driver {} does not answer",
            "owner: {}",
            "failed, customer={}, retry later",
            "mr {} refused the parcel",
            "frau {} ist unbekannt",
            'recipient "{}" is unknown',
        ],
    ),
    "surname in lower case": (
        lambda chance: chance.choice(_LAST).lower(),
        ["Order 7 is locked by {}", "customer {} is blocked", "mrs. {} is not at home"],
    ),
    "file with spaces": (
        _file,
        [
            "cannot open '{}'",
            'file "{}" not found',
            "Upload failed: '{}'",
            "cannot parse file: '{}'",
            "No such file or directory: '/srv/in/{}'",
            "No such file or directory: /srv/in/{}",
            "cannot read /srv/My Documents/{} today",
            "C:\\Users\\Anna Nowak\\{}: access denied",
            "file {} not found",
            "cannot move /srv/in/{} to the archive",
            "{!r} is no spreadsheet",
        ],
    ),
    "city": (lambda chance: chance.choice(_CITIES), ["no courier in {} today"]),
    "operation": (
        lambda chance: chance.choice(_OPERATIONS),
        [
            "An error occurred (Throttling) when calling the {} operation: Rate exceeded",
            "operation error S3: {}, https response error StatusCode: 503",
        ],
    ),
    "value of a key": (
        lambda chance: chance.choice([_person(chance), f"{chance.choice(_CITIES)} Logistics", "x"]),
        ["Invalid address. name: {}", "failed, customer={}, retry later", "Unknown supplier: {}"],
    ),
    "number": (
        lambda chance: str(chance.randrange(1, 100_000)),
        [
            "Order {} cannot be shipped",
            "Postal code {} is not served",
            "promo code {} is not valid",
            "line {} is too long",
            "event {}: no route",
            "batch of {} parcels rejected",
            "Limit of fields [{}] exceeded",
            "limit: {}",
            "Got {} rows",
            "took {} ms",
            "expected {} items",
        ],
    ),
    "duration": (lambda chance: chance.choice(_UNITS), ["Command timed out after {}"]),
    "uuid": (
        lambda chance: str(uuid.UUID(int=chance.getrandbits(128))),
        ["order {} is gone", "requestId: {} failed"],
    ),
    "state": (
        lambda chance: chance.choice(_STATES),
        ["Order 7 cannot be shipped in state {}", "Invoice has a status of {}"],
    ),
}

DRESSES = """HTTP {}|HTTP/1.1 {}|HTTP error {}|HTTP status {}
http {} from upstream|status {}|status: {}
status={}|status code {}|status code: {}|Status Code: {};|StatusCode={}
Request failed with {}|Request failed with status code {}|Request failed: {}
Upload failed: {}|failed with {}|failed ({})|[{}] during GET|({})|{}|{} Bad thing|{}: gone
{} - gone|error {}|Error: {}|got {}|got a {}|got an HTTP {}|received {}|received {} from api
responded {}|responded with {}|response {}|response: {}|response code {}|returned {}
returned error {}|server returned {} for /x|answered {}|answered {} after 30s|API {}: /v1
api returned a {}|upstream {}|upstream returned {}, retrying|unexpected {}
unexpected status {}|unexpected response: {}|Invalid response received: {}
webhook answered {}.|webhook: {}|POST /orders {}|GET https://a.example/x {}
GET https://a.example/x -> {}|GET https://a.example/x: {}
call to https://a.example/x returned {}|non-200 response {}|<Response [{}]>|code={}
server error {}|client error: {}|throttled ({}), retry|bad gateway, {}|http_status={}
Error {} (Bad)|was refused with a {}|Expected 200, got {}
expected status 200 but received {}|gateway said {}"""


@pytest.mark.parametrize(
    ("kind", "template"), [(kind, text) for kind, (_, texts) in KINDS.items() for text in texts]
)
def test_a_thousand_values_are_one_cause(kind: str, template: str) -> None:
    chance = random.Random(7)
    texts = [template.format(KINDS[kind][0](chance)) for _ in range(1_000)]
    causes = {compute_cause_id(text): text for text in texts}
    assert len(causes) == 1, list(causes.values())[:4]


@pytest.mark.parametrize("dress", DRESSES.replace("\n", "|").split("|"))
def test_status_is_kept_in_every_dress(dress: str) -> None:
    assert compute_cause_id(dress.format(503)) != compute_cause_id(dress.format(404))


@pytest.mark.parametrize(
    "text",
    ["Got {} rows", "waited {} ms", "batch of {} parcels", "row {}", "port {}", "Order {} is gone"],
)
def test_counted_and_numbered_things_have_no_status(text: str) -> None:
    assert compute_cause_id(text.format(503)) == compute_cause_id(text.format(17))


@pytest.mark.parametrize(
    ("text", "is_code"),
    [
        ("exit code {}", True),
        ("exited with code {}", True),
        ("error code: {}", True),
        ("response code {}", True),
        ("code {}: no route", True),
        ("Postal code {} is unknown", False),
        ("Country code {} is unknown", False),
        ("bar code {}", False),
    ],
)
def test_code_is_a_code_only_where_a_failure_announces_it(text: str, *, is_code: bool) -> None:
    one, other = compute_cause_id(text.format(10000)), compute_cause_id(text.format(20000))
    assert (one != other) == is_code


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Couldn't find Order with 'id'=7", "Couldn't find User with 'id'=9"),
        ("No handler for event order.created", "No handler for event mail.sent"),
        ("Depot Gdansk is closed", "Depot Warsaw is closed"),
        ("user anna not found", "user jens not found"),
        ("worker-7d9f8c6b5-x2x4z died", "worker-55c99-abcde died"),
        ("size 10 MB exceeds 5 MB", "size 10 KB exceeds 5 KB"),
        ("Retry 3/5 failed", "Retry 4/5 failed"),
        ("IBAN DE89370400440532013000 invalid", "IBAN PL61109010140000071219812874 invalid"),
        ("no courier for Berlin", "no courier for Paris"),
        ("letter to 'anna lenz.pdf' lost", "letter to 'copy of (3) letter.pdf' lost"),
    ],
)
def test_name_of_any_kind_is_a_value(one: str, other: str) -> None:
    assert compute_cause_id(one) == compute_cause_id(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Cannot connect to server", "Cannot connect to database"),
        ("failed with Bad Gateway", "failed with Gateway Timeout"),
        ("Order 7: customer is blocked", "Order 7: customer is unknown"),
        ("Validation failed: Email can't be blank", "Validation failed: Email is invalid"),
        ("Delivery failed: 'No rate was found'", "Delivery failed: 'No address was found'"),
        ("Invalid address: street missing", "Invalid address: city missing"),
        ("label not printed: printer offline", "label not printed: paper jam"),
        ("connect ECONNREFUSED 10.0.0.1:80", "connect ETIMEDOUT 10.0.0.1:80"),
        ("price is negative", "price is missing"),
        ("cancelled by Customer Service", "cancelled by customer"),
        ("cancelled by customer service", "cancelled by fraud check"),
        ("customer billing address is missing", "customer shipping address is missing"),
        ("user session token is expired", "user refresh token is expired"),
        ("customer credit line is closed", "customer home address is closed"),
        ("row is locked by another transaction", "row is locked by the owner"),
        ("Upload failed: 'bad header in orders.csv'", "Upload failed: 'no space for orders.csv'"),
        ("cannot read /srv/in because of a.csv", "cannot read /srv/in after a move of a.csv"),
        ("file is missing for a.csv", "file is too large for a.csv"),
    ],
)
def test_reason_is_not_a_value(one: str, other: str) -> None:
    assert compute_cause_id(one) != compute_cause_id(other)
