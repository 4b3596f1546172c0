"""Loads error texts whose cause is known from tests/data/causes, and fills in format strings."""

import csv
import json
import random
import re
import uuid
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

DATA = Path(__file__).parents[1] / "data" / "causes"
FILES = (
    "pg_message_2k",
    "pg_psycopg_2k",
    "cpython_message_2k",
    "cpython_traceback_2k",
    "cpython_raised",
)
LANGUAGES = tuple(f"languages/{path.stem}" for path in sorted((DATA / "languages").glob("*.csv")))
_WORDS = [
    "orders",
    "invoice",
    "payments",
    "billing",
    "stock",
    "shipment",
    "customer",
    "refund",
    "basket",
    "catalogue",
]
_PARTS = [
    "user",
    "order",
    "item",
    "line",
    "total",
    "amount",
    "tax",
    "code",
    "ship",
    "bill",
    "card",
    "stock",
    "price",
]
_VALUES = [
    "abc",
    "12,50",
    "2024-13-01",
    "N/A",
    "anna",
    "O'Neil",
    "4.2e",
    "blue shoes",
    "Zoë",
    "1;drop",
    "-",
    "7 kg",
]


def labelled_errors(
    name: str = "formats", *, variants: int = 8, seed: int = 7
) -> list[tuple[str, str]]:
    """Return texts made of format strings, each with its format string as label."""
    chance = random.Random(seed)
    lines = (DATA / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    return [(fill(line, chance), line) for line in lines if line[0] != "#" for _ in range(variants)]


def labelled_file(name: str) -> list[tuple[str, str]]:
    """Return the texts of a CSV file with their groups as labels."""
    with (DATA / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return [(row["content"], row["event_id"]) for row in csv.DictReader(file)]


def fill(line: str, chance: random.Random) -> str:
    """Fill the format string with values made by `chance`."""
    text = line.replace("\\n", "\n").replace("\\t", "\t").replace("\\\\", "\\")
    return re.sub(
        r"\{(\w+)\}",
        lambda found: _MAKERS[found[1]](chance) if found[1] in _MAKERS else found[0],
        text,
    )


def grouping(
    texts: Iterable[tuple[str, str]], key: Callable[[str], Hashable]
) -> tuple[float, float]:
    """Return GA, the share of texts whose group is exactly right, and FGA, the F1 over groups."""
    truth: dict[str, set[int]] = defaultdict(set)
    found: dict[Hashable, set[int]] = defaultdict(set)
    at = -1
    for at, (text, label) in enumerate(texts):
        truth[label].add(at)
        found[key(text)].add(at)
    groups = {frozenset(group) for group in truth.values()}
    right = [group for group in found.values() if group in groups]
    return sum(map(len, right)) / (at + 1), 2 * len(right) / (len(groups) + len(found))


def _ident(chance: random.Random) -> str:
    return "_".join(chance.sample(_PARTS, chance.randint(2, 3))) + chance.choice(
        ["", "", "_id", "2"]
    )


def _class(chance: random.Random) -> str:
    return "".join(part.title() for part in chance.sample(_PARTS, 2))


def _path(chance: random.Random) -> str:
    return (
        f"/{chance.choice(['srv', 'var/lib', 'app/src'])}/{chance.choice(_WORDS)}/{_file(chance)}"
    )


def _file(chance: random.Random) -> str:
    name = f"{chance.choice(_WORDS)}{chance.choice(['', '_2', '-new'])}"
    return f"{name}.{chance.choice(['csv', 'js', 'json', 'rs'])}"


def _hex(length: int) -> Callable[[random.Random], str]:
    return lambda chance: f"{chance.getrandbits(length * 4):0{length}x}"


def _ip(chance: random.Random) -> str:
    return ".".join(str(chance.randint(1, 254)) for _ in range(4))


def _host(chance: random.Random) -> str:
    name = f"{chance.choice(_WORDS)}{chance.choice(['', '-2', '.eu'])}"
    return f"{name}.{chance.choice(['internal', 'example.com'])}"


def _url_path(chance: random.Random) -> str:
    return f"/v{chance.randint(1, 3)}/{chance.choice(_WORDS)}/{chance.randint(1, 99999)}"


def _time(chance: random.Random) -> str:
    moment = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=chance.randint(0, 30_000_000))
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def _json(chance: random.Random) -> str:
    keys = chance.sample(_PARTS, chance.randint(1, 3))
    return json.dumps(
        {key: chance.choice([chance.randint(1, 999), "x y", None, [1, 2]]) for key in keys}
    )


def _words(count: int, mark: str) -> Callable[[random.Random], str]:
    return lambda chance: mark.join(chance.sample(_PARTS, count))


_MAKERS: dict[str, Callable[[random.Random], str]] = {
    "ident": _ident,
    "Class": _class,
    "CONST": lambda chance: _ident(chance).upper(),
    "word": lambda chance: chance.choice(_WORDS),
    "value": lambda chance: chance.choice(_VALUES),
    "int": lambda chance: str(chance.choice([chance.randint(1, 9), chance.randint(10, 99_999)])),
    "float": lambda chance: f"{chance.uniform(1, 99):.{chance.randint(1, 2)}f}",
    "uuid": lambda chance: str(uuid.UUID(int=chance.getrandbits(128))),
    "hash12": _hex(12),
    "hash24": _hex(24),
    "byte": lambda chance: f"0x{chance.randint(128, 255):x}",
    "address": lambda chance: f"0x7f{chance.getrandbits(40):010x}",
    "ip": _ip,
    "port": lambda chance: str(chance.randint(1024, 65535)),
    "host": _host,
    "url": lambda chance: (
        f"https://{_host(chance)}{_url_path(chance)}{chance.choice(['', '?page=2', '/'])}"
    ),
    "urlpath": _url_path,
    "path": _path,
    "file": _file,
    "email": lambda chance: f"{chance.choice(_PARTS)}.{chance.randint(1, 99)}@{_host(chance)}",
    "time": _time,
    "dur": lambda chance: chance.choice(["30s", "31s", "1.5s", "250ms", "2m0s"]),
    "type": lambda chance: chance.choice(["int", "str", "NoneType", "dict", "Decimal", "list"]),
    "dtype": lambda chance: chance.choice(["float64", "int32", "uint8"]),
    "operator": lambda chance: chance.choice(["+", "-", "*", "/", "+="]),
    "json": _json,
    "topic": _words(2, "."),
    "kebab": _words(3, "-"),
    "CUR": lambda chance: chance.choice(["EUR", "USD", "JPY"]),
    "reqid": lambda chance: (
        f"{chance.choice(['req', 'cus'])}_{uuid.UUID(int=chance.getrandbits(128)).hex[:14]}"
    ),
    "phone": lambda chance: f"+4930{chance.randint(10**6, 10**7)}",
    "SQLVERB": lambda chance: chance.choice(["INSERT", "UPDATE", "DELETE", "SELECT FOR UPDATE"]),
    "ANGLE": lambda chance: chance.choice(["<", "0x0D", "i", "'"]),
    "sku": lambda chance: f"SKU-{chance.randint(1, 9999)}",
    "inv": lambda chance: f"INV-2026-{chance.randint(1, 9999):04}",
}
