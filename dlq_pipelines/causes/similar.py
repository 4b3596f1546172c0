"""Proposes causes to merge: pairs and groups whose templates are equal but for one word.

A person decides: two failures that differ in one word may need two fixes. Causes that differ in a
code, such as a status or an SQLSTATE, or in the class of an error are never proposed.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from dlq_pipelines.causes.catalogue import Cause
from dlq_pipelines.causes.words import is_failure

# In a short message one word matters: "connection refused" and "connection reset" are two causes.
_MIN_WORDS = 5
# More causes than this that share all but one word are one group instead of pairs: the word is a
# value that the template shows.
_MAX_ALIKE = 5
# A status, an errno, an SQLSTATE, a class or a code in words: 503, ENOSPC, SlowDown, do_not_honor.
_CODE = re.compile(r"[0-9]|\bE[A-Z]{3,}\b|[a-z][A-Z]|\w_\w|\w\.[A-Z]")


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
class MergeGroup:
    """Causes that differ in one word only, with the evidence: "15 causes differ only in <word>".

    Attributes:
        cause: the one with most deaths, to merge the others into.
        others: the others, the one with most deaths first.
        differs: the word of each at the place where they differ, in the same order.
        template: the common template, with `…` at that place.
        words: the number of words that all templates share.
    """

    cause: Cause
    others: tuple[Cause, ...]
    differs: tuple[str, ...]
    template: str
    words: int

    def describe_difference(self) -> str:
        """Return the evidence as a sentence."""
        return f"{len(self.others) + 1} causes differ only in one word: {self.template}"


@dataclass(frozen=True)
class _Shortened:
    """A cause whose template lost the word at one place; None: it lost none."""

    cause: Cause
    at: int | None
    word: str


def find_similar_causes(causes: Sequence[Cause]) -> list[MergeProposal]:
    """Return pairs of causes with one exception type and templates equal but for one word.

    Causes with equal templates are no pair: they have different roots. The pairs with most deaths
    come first.
    """
    found = {(pair.cause.id, pair.other.id): pair for pair in _list_pairs(causes)}
    return sorted(
        found.values(), key=lambda pair: (-pair.other.deaths, pair.cause.id, pair.other.id)
    )


def find_similar_groups(causes: Sequence[Cause]) -> list[MergeGroup]:
    """Return groups of more than five causes with one exception type that differ in one word.

    The groups with most causes come first.
    """
    groups = []
    for (_, words), alike in _group_by_shortened_template(causes).items():
        by_place: defaultdict[int, list[_Shortened]] = defaultdict(list)
        for item in alike:
            if item.at is not None and not _states_failure(item.word):
                by_place[item.at].append(item)
        for at, items in by_place.items():
            if len(items) > _MAX_ALIKE:
                groups.append(_build_group(items, words, at))
    return sorted(groups, key=lambda group: (-len(group.others), group.cause.id, group.template))


def _build_group(items: list[_Shortened], words: tuple[str, ...], at: int) -> MergeGroup:
    ranked = sorted(items, key=lambda item: (-item.cause.deaths, item.cause.id))
    return MergeGroup(
        ranked[0].cause,
        tuple(item.cause for item in ranked[1:]),
        tuple(item.word for item in ranked),
        " ".join([*words[:at], "…", *words[at:]]),
        len(words),
    )


def _list_pairs(causes: Sequence[Cause]) -> Iterator[MergeProposal]:
    for (_, words), alike in _group_by_shortened_template(causes).items():
        if len(alike) <= _MAX_ALIKE:
            ranked = sorted(alike, key=lambda item: (-item.cause.deaths, item.cause.id))
            for left, right in combinations(ranked, 2):
                # At the same place one word replaces the other. If one template is whole, the other
                # has a word more. In all other cases two words differ.
                if (
                    left.cause is not right.cause
                    and (left.at == right.at or None in {left.at, right.at})
                    and left.word != right.word
                    and not _states_failure(left.word)
                    and not _states_failure(right.word)
                ):
                    yield MergeProposal(
                        left.cause, right.cause, (left.word, right.word), len(words)
                    )


def _states_failure(word: str) -> bool:
    """Whether a word is a code, a class of an error, or names a failure in plain words."""
    return _CODE.search(word) is not None or is_failure(word.lower())


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
