"""Measures how long one core takes to fingerprint an error text.

Times are processor times, so other programs disturb them little. Each figure is the best of three
rounds. The peer masks the text with a chain of plain patterns, one `re.sub` after the other over
the whole text, then hashes it. Both read texts that they have not read before; a few thousand of
them differ only in a number, as deaths of one cause do, and share a result. In the last figure,
rows repeat 1,500 texts, as deaths do.
"""

import hashlib
import math
import re
import time
from collections.abc import Callable, Iterator, Sequence

from dlq_pipelines.causes.fingerprint import compute_cause_id
from tests.bench.figure import Figure, sized
from tests.causes.labelled import labelled_errors, labelled_file

# The rows of docs/benchmarks.md, and the files of tests/data/causes.
KINDS = {
    "PostgreSQL message, 2 kB": "pg_message_2k",
    "psycopg message, 2 kB": "pg_psycopg_2k",
    "CPython message, 2 kB": "cpython_message_2k",
    "CPython traceback, 2 kB": "cpython_traceback_2k",
    "CPython exception as raised": "cpython_raised",
}
TRACEBACK = "traceback of 1 to 3 kB"
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
_FRAME = (
    '  File "/srv/shop/{0}/deliver.py", line {1}, in deliver_{0}\n'
    "    return self.session.post(url, json=event)\n"
)


def mask_and_hash(text: str) -> str:
    """Apply every pattern to the whole text, then hash it: the peer."""
    for pattern, name in _CHAIN:
        text = pattern.sub(name, text)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def measure_seconds(
    function: Callable[[str], object], texts: Sequence[str], *, fresh: bool = True
) -> float:
    """Return the processor seconds per text, the best of three rounds.

    Args:
        function: what is measured.
        texts: its arguments.
        fresh: change the texts in each round, so that none is cached.
    """
    best = math.inf
    for n in range(ROUNDS):
        inputs = [f"{text} [{n}]" for text in texts] if fresh else texts
        start = time.process_time()
        for text in inputs:
            function(text)
        best = min(best, (time.process_time() - start) / len(inputs))
    return best


def build_traceback(text: str, number: int) -> str:
    """Build a traceback of 1 to 3 kB that ends in the text."""
    frames = "".join(
        _FRAME.format(f"part{(number * 7 + n) % 90}", n) for n in range(8 + number % 14)
    )
    typed = text if re.match(r"[A-Za-z_.]+: ", text) else f"shop.DeliveryError: {text}"
    return f"Traceback (most recent call last):\n{frames}{typed}"


def build_distinct_texts(texts: Sequence[str], count: int) -> list[str]:
    """Build `count` distinct texts: each gets a number in its first line."""
    return [
        f"{(line := texts[n % len(texts)].partition(chr(10)))[0]} {n}{line[1]}{line[2]}"
        for n in range(count)
    ]


def measure() -> Iterator[Figure]:
    """Yield a figure for each kind of text: 25 µs are 40,000 texts a second."""
    own = [text for text, _ in labelled_errors()]
    kinds = {"message": own} | {
        kind: [text for text, _ in labelled_file(file)] for kind, file in KINDS.items()
    }
    kinds[TRACEBACK] = [build_traceback(text.partition("\n")[0], n) for n, text in enumerate(own)]
    for kind, examples in kinds.items():
        texts = build_distinct_texts(examples, TEXTS)
        yield Figure(
            f"fingerprint: {kind}",
            measure_seconds(compute_cause_id, texts),
            measure_seconds(mask_and_hash, texts),
            BOUND,
            "a chain of re.sub",
        )
    repeated = [kinds[TRACEBACK][n % 1_500] for n in range(ROWS)]
    hashed = measure_seconds(
        lambda text: hashlib.sha256(text.encode()).digest(), repeated, fresh=False
    )
    yield Figure(
        "fingerprint: repeated text",
        measure_seconds(compute_cause_id, repeated, fresh=False),
        hashed,
        2.0,
        "its SHA-256",
    )
