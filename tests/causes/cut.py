"""Measures texts that a column of 255 characters has cut off, against the whole texts.

`python -m tests.causes.cut` prints for each labelled file how many long texts keep their cause.
"""

from collections.abc import Iterable
from typing import NamedTuple

from dlq_pipelines.causes.fingerprint import compute_cause_id, compute_fingerprint
from dlq_pipelines.causes.parse import parse_error
from tests.causes.labelled import FILES, LANGUAGES, grouping, labelled_file

COLUMN = 255
# So much of each message must be in the column, otherwise it does not hold the cause.
_STATED = 60


class Kept(NamedTuple):
    """The long texts of a file: how many there are, and how many keep their cause."""

    long: int
    kept: int
    stated: int
    kept_of_stated: int


def states_cause(text: str) -> bool:
    """Whether the column holds the outer exception and the root of the chain."""
    error = parse_error(text)
    links = [(error.exception_type, error.message), *error.roots]
    return all(_holds(text[:COLUMN], type_, message) for type_, message in links)


def _holds(column: str, exception_type: str, message: str) -> bool:
    at = column.find(exception_type.partition(" [")[0])
    stated = message.partition("\n")[0][:_STATED]
    found = column.find(stated, max(at, 0)) >= 0
    return at >= 0 and (found or len(column) - at - len(exception_type) >= _STATED)


def count_kept(texts: Iterable[str]) -> Kept:
    """Count the texts that are longer than the column, and those that keep their cause."""
    long = [text for text in texts if len(text) > COLUMN]
    kept = [compute_cause_id(text) == compute_cause_id(text[:COLUMN]) for text in long]
    stated = [states_cause(text) for text in long]
    both = [one and other for one, other in zip(kept, stated, strict=True)]
    return Kept(len(long), sum(kept), sum(stated), sum(both))


def main() -> None:
    """Print the figures of each file, and the texts that get another cause."""
    total = Kept(0, 0, 0, 0)
    for name in (*FILES[:4], *LANGUAGES):
        rows = labelled_file(name)
        found = count_kept(text for text, _ in rows)
        cut = [(text[:COLUMN], label) for text, label in rows if len(text) > COLUMN]
        share, f1 = grouping(cut, compute_cause_id) if cut else (1.0, 1.0)
        total = Kept(*map(sum, zip(total, found, strict=True)))
        print(f"{name:32} {found} GA {share:.3f} FGA {f1:.3f}")
        for text, _ in rows:
            whole, part = compute_fingerprint(text), compute_fingerprint(text[:COLUMN])
            if len(text) > COLUMN and states_cause(text) and whole.id != part.id:
                print(f"   {text[:COLUMN]!r}\n     {whole[1:6]}\n     {part[1:6]}")
    print(total)


if __name__ == "__main__":
    main()
