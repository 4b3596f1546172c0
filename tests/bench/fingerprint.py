"""How long does one core take to fingerprint an error text, next to masking it with a chain of plain patterns?

Times are the process's own, so other programs disturb them little; each figure is the best of some rounds. The peer
is what a careful line of shell would do: one `re.sub` after the other over the whole text, then a hash. Both read
texts that they have not seen before; the last figure is of rows that repeat 1,500 texts, as deaths do.
"""

import hashlib
import math
import re
import time
from collections.abc import Callable, Iterator, Sequence

from dlq_pipelines.causes.fingerprint import compute_cause_key
from tests.bench.figure import Figure, sized
from tests.causes.labelled import FILES, labelled_errors, labelled_file

ROUNDS, TEXTS, ROWS, BOUND = 3, sized(20_000), sized(200_000), 4.5
_CHAIN = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        (r"https?://\S+", "<url>"),
        (r"\S+@\S+", "<email>"),
        (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "<uuid>"),
        (r"0x[0-9a-f]+", "<address>"),
        (r"\d+\.\d+\.\d+\.\d+", "<ip>"),
        (r"'[^']*'", "<text>"),
        (r'"[^"]*"', "<text>"),
        (r"\d+", "<number>"),
    )
)
_FRAME = '  File "/srv/shop/{0}/deliver.py", line {1}, in deliver_{0}\n    return self.session.post(url, json=event)\n'


def chain(text: str) -> str:
    """The peer: every pattern over the whole text."""
    for pattern, name in _CHAIN:
        text = pattern.sub(name, text)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def seconds(
    function: Callable[[str], object], texts: Sequence[str], *, fresh: bool = True
) -> float:
    """Seconds of processor time a text, the best of some rounds; fresh: no round sees a text of another."""
    best = math.inf
    for n in range(ROUNDS):
        given = [f"{text} [{n}]" for text in texts] if fresh else texts
        start = time.process_time()
        for text in given:
            function(text)
        best = min(best, (time.process_time() - start) / len(given))
    return best


def traceback_of(text: str, number: int) -> str:
    """The text as the last line of a traceback of 1 to 3 kB."""
    frames = "".join(
        _FRAME.format(f"part{(number * 7 + n) % 90}", n) for n in range(8 + number % 14)
    )
    typed = text if re.match(r"[A-Za-z_.]+: ", text) else f"shop.DeliveryError: {text}"
    return f"Traceback (most recent call last):\n{frames}{typed}"


def distinct(texts: Sequence[str], count: int) -> list[str]:
    """As many texts, all different: repeated ones get a number into their first line."""
    return [
        f"{(line := texts[n % len(texts)].partition(chr(10)))[0]} {n}{line[1]}{line[2]}"
        for n in range(count)
    ]


def measure() -> Iterator[Figure]:
    """A text of each kind; 40,000 a second are 25 us each, 1,000,000 rows a second 1 us."""
    own = [text for text, _ in labelled_errors()]
    kinds = {"a message": own} | {name: [text for text, _ in labelled_file(name)] for name in FILES}
    kinds["a traceback of 1-3 kB"] = [
        traceback_of(text.partition("\n")[0], n) for n, text in enumerate(own)
    ]
    for kind, given in kinds.items():
        texts = distinct(given, TEXTS)
        yield Figure(
            f"fingerprint {kind}",
            seconds(compute_cause_key, texts),
            seconds(chain, texts),
            BOUND,
            "a chain of re.sub",
        )
    repeated = [kinds["a traceback of 1-3 kB"][n % 1_500] for n in range(ROWS)]
    hashed = seconds(lambda text: hashlib.sha256(text.encode()).digest(), repeated, fresh=False)
    yield Figure(
        "fingerprint a row that repeats",
        seconds(compute_cause_key, repeated, fresh=False),
        hashed,
        2.0,
        "its SHA-256",
    )
