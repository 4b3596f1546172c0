"""Which causes are so alike that a person should look whether they are one?

Two causes are proposed when their templates are equal but for one word. Nothing is merged by itself: two failures that
differ in one word may need two fixes.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from dlq_pipelines.causes.catalogue import Cause

# One word of few says everything: "connection refused" and "connection reset" are two causes.
_FEWEST_WORDS = 5
# Causes that share all but one word with this many others differ in what matters, as error codes do.
_MOST_ALIKE = 5


@dataclass(frozen=True)
class Proposal:
    """Two causes that may be one, and what speaks for it.

    Attributes:
        cause: the one with more deaths, to merge the other into.
        other: the one with fewer.
        differs: the word of each at the place where they differ; an empty one is missing.
        words: words that both templates share.
    """

    cause: Cause
    other: Cause
    differs: tuple[str, str]
    words: int


def similar_causes(causes: Sequence[Cause]) -> list[Proposal]:
    """Pairs of causes of one exception type with templates that are equal but for one word, most deaths first."""
    found: dict[tuple[str, str], Proposal] = {}
    for left, right, at in _pairs(causes):
        words = [cause.template.split() for cause in (left, right)]
        differs = tuple(one[at] if len(one) > at else "" for one in words)
        found.setdefault((left.id, right.id), Proposal(left, right, (differs[0], differs[1]), len(words[0]) - 1))
    return sorted(found.values(), key=lambda one: (-one.other.deaths, one.cause.id, one.other.id))


def _pairs(causes: Sequence[Cause]) -> Iterator[tuple[Cause, Cause, int]]:
    """Causes that are equal without their word at one place: found by hashing, not by comparing all with all."""
    without: defaultdict[tuple[str, int, tuple[str, ...]], list[Cause]] = defaultdict(list)
    for cause in causes:
        words = tuple(cause.template.split())
        for at in range(len(words) if len(words) >= _FEWEST_WORDS else 0):
            without[cause.exception_type, at, words[:at] + words[at + 1 :]].append(cause)
    for (_, at, _), alike in without.items():
        if len(alike) <= _MOST_ALIKE:
            ranked = sorted(alike, key=lambda cause: (-cause.deaths, cause.id))
            yield from ((left, right, at) for left, right in combinations(ranked, 2))
