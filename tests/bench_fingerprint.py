"""How many error texts does one core fingerprint in a second, next to masking them with a chain of plain patterns?

    python tests/bench_fingerprint.py

Times are the process's own, so other programs disturb them little; each figure is the best of some rounds. The peer
is what a careful line of shell would do: one `re.sub` after the other over the whole text, then a hash.
"""

import hashlib
import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from dlq_pipelines.causes.fingerprint import _remembered, cause_key

sys.path.insert(0, str(Path(__file__).parent))
from causes.labelled import FILES, labelled_errors, labelled_file

ROUNDS, TEXTS, ROWS = 5, 20_000, 1_000_000
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


def rate(function: Callable[[str], object], texts: Sequence[str]) -> float:
    """Texts a second of processor time, the best of some rounds; nothing is remembered from round to round."""
    best = 0.0
    for _ in range(ROUNDS):
        _remembered.cache_clear()
        start = time.process_time()
        for text in texts:
            function(text)
        best = max(best, len(texts) / (time.process_time() - start))
    return best


def traceback_of(text: str, number: int) -> str:
    """The text as the last line of a traceback of 1 to 3 kB."""
    frames = "".join(_FRAME.format(f"part{(number * 7 + n) % 90}", n) for n in range(8 + number % 14))
    typed = text if re.match(r"[A-Za-z_.]+: ", text) else f"shop.DeliveryError: {text}"
    return f"Traceback (most recent call last):\n{frames}{typed}"


def distinct(texts: Sequence[str], count: int) -> list[str]:
    """As many texts, all different: the first line of a repeated one gets a number."""
    seen: set[str] = set()
    for n in range(count):
        line, end, rest = texts[n % len(texts)].partition("\n")
        text = line + end + rest
        seen.add(text if text not in seen else f"{line} {n}{end}{rest}")
    return sorted(seen, key=hash)


def main() -> None:
    """Print one line a kind of text."""
    own = [text for text, _ in labelled_errors()]
    kinds = {"messages of many libraries": own}
    kinds |= {name: [text for text, _ in labelled_file(name)] for name in FILES}
    kinds["tracebacks of libraries"] = [traceback_of(text.partition("\n")[0], n) for n, text in enumerate(own)]
    kinds["tracebacks of PostgreSQL"] = [traceback_of(text, n) for n, text in enumerate(kinds["pg_message_2k"])]
    print(f"{'distinct texts':<28}{'characters':>11}{'texts/s':>10}{'chain/s':>10}{'ratio':>7}")  # noqa: T201
    for kind, given in kinds.items():
        texts = distinct(given, TEXTS)
        ours, theirs = rate(cause_key, texts), rate(chain, texts)
        size = sum(map(len, texts)) / len(texts)
        print(f"{kind:<28}{size:>11.0f}{ours:>10,.0f}{theirs:>10,.0f}{ours / theirs:>7.2f}")  # noqa: T201
    repeated = [kinds["tracebacks of libraries"][n % 1_500] for n in range(ROWS)]
    print(f"{ROWS:,} rows with repeats: {rate(cause_key, repeated):,.0f} rows/s")  # noqa: T201


if __name__ == "__main__":
    main()
