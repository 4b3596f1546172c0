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
class MergeProposal:
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


@dataclass(frozen=True)
class _Without:
    """A cause whose template has lost its word at one place; at no place: the whole template."""

    cause: Cause
    at: int | None
    word: str


def find_similar_causes(causes: Sequence[Cause]) -> list[MergeProposal]:
    """Pairs of causes of one exception type with templates that are equal but for one word, most deaths first."""
    found = {(one.cause.id, one.other.id): one for one in _proposals(causes)}
    return sorted(found.values(), key=lambda one: (-one.other.deaths, one.cause.id, one.other.id))


def _proposals(causes: Sequence[Cause]) -> Iterator[MergeProposal]:
    for (_, words), alike in _without_one_word(causes).items():
        if len(alike) <= _MOST_ALIKE:
            ranked = sorted(alike, key=lambda one: (-one.cause.deaths, one.cause.id))
            for left, right in combinations(ranked, 2):
                # The same place: a word for a word. One of them whole: a word for none. Otherwise two words differ.
                if left.cause is not right.cause and (
                    left.at == right.at or None in {left.at, right.at}
                ):
                    yield MergeProposal(
                        left.cause, right.cause, (left.word, right.word), len(words)
                    )


def _without_one_word(causes: Sequence[Cause]) -> dict[tuple[str, tuple[str, ...]], list[_Without]]:
    """Causes by what is left of their template: pairs are found by hashing, not by comparing all with all."""
    found: defaultdict[tuple[str, tuple[str, ...]], list[_Without]] = defaultdict(list)
    for cause in causes:
        words = tuple(cause.template.split())
        if len(words) >= _FEWEST_WORDS:
            found[cause.exception_type, words].append(_Without(cause, None, ""))
            for at, word in enumerate(words):
                found[cause.exception_type, words[:at] + words[at + 1 :]].append(
                    _Without(cause, at, word)
                )
    return found
