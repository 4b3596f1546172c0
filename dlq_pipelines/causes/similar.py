"""Proposes pairs of causes to merge: their templates are equal but for one word.

A person decides: two failures that differ in one word may need two fixes.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from dlq_pipelines.causes.catalogue import Cause

# In a short message one word matters: "connection refused" and "connection reset" are two causes.
_MIN_WORDS = 5
# If more causes than this share all but one word, that word matters, as an error code does.
_MAX_ALIKE = 5


@dataclass(frozen=True)
class MergeProposal:
    """Two causes that may be one, with the evidence.

    Attributes:
        cause: the one with more deaths, to merge the other into.
        other: the one with fewer deaths.
        differs: the word of each at the place where they differ; empty if it is missing.
        words: the number of words that both templates share.
    """

    cause: Cause
    other: Cause
    differs: tuple[str, str]
    words: int


@dataclass(frozen=True)
class _Shortened:
    """A cause whose template lost the word at one place; None: it lost none."""

    cause: Cause
    at: int | None
    word: str


def find_similar_causes(causes: Sequence[Cause]) -> list[MergeProposal]:
    """Return pairs of causes with one exception type and templates equal but for one word.

    The pairs with most deaths come first.
    """
    found = {(pair.cause.id, pair.other.id): pair for pair in _list_pairs(causes)}
    return sorted(
        found.values(), key=lambda pair: (-pair.other.deaths, pair.cause.id, pair.other.id)
    )


def _list_pairs(causes: Sequence[Cause]) -> Iterator[MergeProposal]:
    for (_, words), alike in _group_by_shortened_template(causes).items():
        if len(alike) <= _MAX_ALIKE:
            ranked = sorted(alike, key=lambda item: (-item.cause.deaths, item.cause.id))
            for left, right in combinations(ranked, 2):
                # At the same place one word replaces the other. If one template is whole, the other
                # has a word more. In all other cases two words differ.
                if left.cause is not right.cause and (
                    left.at == right.at or None in {left.at, right.at}
                ):
                    yield MergeProposal(
                        left.cause, right.cause, (left.word, right.word), len(words)
                    )


def _group_by_shortened_template(
    causes: Sequence[Cause],
) -> dict[tuple[str, tuple[str, ...]], list[_Shortened]]:
    """Group causes by their template without one word: hashing avoids comparing all with all."""
    groups: defaultdict[tuple[str, tuple[str, ...]], list[_Shortened]] = defaultdict(list)
    for cause in causes:
        words = tuple(cause.template.split())
        if len(words) >= _MIN_WORDS:
            groups[cause.exception_type, words].append(_Shortened(cause, None, ""))
            for at, word in enumerate(words):
                shortened = words[:at] + words[at + 1 :]
                groups[cause.exception_type, shortened].append(_Shortened(cause, at, word))
    return groups
