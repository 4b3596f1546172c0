"""Hides the names, types, dates and units in a run of plain words.

Runs of words repeat in most texts, so their results are cached.
"""

import re
from functools import lru_cache
from typing import NamedTuple

from dlq_pipelines.causes.tokens import (
    FAILURE,
    PLURAL,
    UNIT_END,
    UNIT_START,
    WORD_END,
    WORD_START,
)
from dlq_pipelines.causes.vocabulary import (
    ABBREVIATIONS,
    ARTICLES,
    CODE_LEADS,
    COUNTED_NOUNS,
    FIELD_ADJECTIVES,
    FOUND_WORDS,
    FUNCTION_WORDS,
    HOST_LEADS,
    KINDS,
    MONTHS,
    NAME_LEADS,
    NAMED_KINDS,
    NAMED_PERSONS,
    NOISE_NAMES,
    NUMBER_NOUNS,
    PERSON_ATTRIBUTES,
    PERSON_LEADS,
    PERSON_VERBS,
    PERSONS,
    PREDICATES,
    STATUS_WORDS,
    TAKEN_VERBS,
    THINGS,
    TITLE_WORDS,
    TYPE_LEADS,
    TYPE_NAMES,
    UNITS,
    VALUE_KEYS,
    VERBS,
    WEEKDAYS,
)

# None exceeds a message: their number bounds the memory.
_CACHE_SIZE = 2_048
# What stands in front of a run, if it is a number or any token without an effect of its own.
NUMBER_FRONT, WORD_FRONT = "0", "word"

_PERSON = re.compile(
    r"\b((?i:" + "|".join(sorted(PERSON_LEADS)) + r")) "
    r"([A-Z][a-z]*+(?:['\u2019-][A-Z]?+[a-z]++)*+"
    r"(?: [A-Z][a-z]*+(?:['\u2019-][A-Z]?+[a-z]++)*+)++)"
)
# One capitalised word between such a word and a verb: "Recipient Anna refused the parcel".
_NAMED_ALONE = re.compile(
    r"\b((?i:"
    + "|".join(sorted(PERSONS | {"client"}))
    + r")) ([A-Z][a-z]++(?:['\u2019-][A-Z]?+[a-z]++)*+)(?= [a-z])"
)
# Words that are no name of a person in lower case, and names that are words too.
_NO_PERSONS = (
    ARTICLES
    | COUNTED_NOUNS
    | FUNCTION_WORDS
    | KINDS
    | NAME_LEADS
    | NAMED_KINDS
    | NOISE_NAMES
    | NUMBER_NOUNS
    | PERSON_ATTRIBUTES
    | PERSON_VERBS
    | PERSONS
    | TYPE_NAMES
    | UNITS
    | VALUE_KEYS
    | {"another", "someone", "nobody", "else"}
)
_LOWER_LEADS = NAMED_PERSONS | {word.capitalize() for word in NAMED_PERSONS} | {"by"}
_NAMES_TOO = frozenset(("bill", "may"))
_ABSTRACT = re.compile(r".*(?:[ts]ion|[dm]ent|ness|ity|ance|ence|able|ible)|.{2,}(?:ing|ed)")
_SINGULAR = {"were": "wa", "are": "is", "have": "ha", "was": "wa", "has": "ha", "do": "doe"}
_VERB_FORMS = re.compile(r"\b(?:were|are|have|was|has|do)\b")
_DATES = MONTHS | WEEKDAYS
_STATES, _STATE_LEADS = frozenset(("state", "status")), frozenset(("in", "from", "to", "has"))
_LETTERS = frozenset(("token", "character", "char", "byte", "letter", "symbol", "flag"))
_FIELDS = frozenset(("field", "attribute", "property", "parameter", "fields"))
_FIELD_LEADS = frozenset(("for", "in", "of", "on"))
_OWNERS = frozenset(("container", "property", "queue", "topic"))
_NAMERS = frozenset(("called", "named", "type", "typ", "tipo"))
_ANNOUNCING = KINDS | TYPE_LEADS | HOST_LEADS | {"got", "valid", "(", ","}
_MARKERS = (
    _ANNOUNCING
    | THINGS
    | ABBREVIATIONS
    | _DATES
    | PERSON_LEADS
    | {word.capitalize() for word in PERSON_LEADS | KINDS}
    | _STATES
    | _FIELDS
    | _LETTERS
    | {"Got", "Found", "operation", "port", "into"}
)
# Every other token before words has the same effect as WORD_FRONT.
FRONTS = _ANNOUNCING | NAME_LEADS | _STATES | _LETTERS | {"", "the"}


class WordRun(NamedTuple):
    """A run of words without its values.

    Attributes:
        text: the words for people.
        key: the words for the hash, without what depends on a number.
        names: the hidden names, each with the noun that announces it.
        last: the last word, in lower case.
        noun: the last noun that can announce a name; empty without one.
    """

    text: str
    key: str
    names: tuple[tuple[str, str], ...]
    last: str
    noun: str


class _Place(NamedTuple):
    """A word with the three words before it and the word after it."""

    word: str
    one: str
    two: str
    three: str
    after: str
    is_alone: bool
    is_before_last: bool


@lru_cache(_CACHE_SIZE)
def hide_names(text: str, front: str) -> WordRun:
    """Hide the words where a name, a type, a date or a unit is announced."""
    words = text.split(" ")
    last = words[-1].lower()
    if last == "code" and len(words) > 1 and words[-2].lower() not in CODE_LEADS:
        last = WORD_FRONT
    noun = next((word for word in reversed(words) if word.lower() in NAMED_KINDS), "").lower()
    shown, names = _hide_words(words, front) if _has_marker(words, front) else (text, ())
    return WordRun(shown, reduce_words(shown), names, last, noun)


@lru_cache(_CACHE_SIZE)
def is_failure(word: str) -> bool:
    """Whether a word in lower case, or a part of an identifier, names a failure."""
    return FAILURE.search(word) is not None


def reduce_words(text: str) -> str:
    """Drop the plural, which depends on a value: "1 argument was", "2 arguments were"."""
    singular = PLURAL.sub(lambda found: "y" if found[0] == "ies" else "", text)
    return _VERB_FORMS.sub(lambda found: _SINGULAR[found[0]], singular)


def hide_subject(text: str) -> tuple[str, str]:
    """Hide the field that a validation rejects: "Email can't be blank"; return it too."""
    words = text.split(" ")
    verbs = VERBS | frozenset(_SINGULAR.values())
    at = next((at for at, word in enumerate(words) if word in verbs), 0)
    return " ".join(["<name>", *words[at:]]) if at else text, " ".join(words[:at])


def _has_marker(words: list[str], front: str) -> bool:
    """Whether anything in the run can announce a value."""
    return (
        front in _ANNOUNCING
        or front == NUMBER_FRONT
        or not _MARKERS.isdisjoint(words)
        or words[1:3] in (["is", "not"], ["not", "defined"])
        or any(word[0].isupper() for word in words[1:])
    )


def _hide_words(words: list[str], front: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    unit = ""
    if front == NUMBER_FRONT and words[0].lower() in UNITS:
        unit, words = f"{UNIT_START}{words[0]}{UNIT_END}", words[1:]
        if not words:
            return unit, ()
        unit += " "
    words, names = _hide_proper_names(_hide_persons(words, front))
    three, two, one = "", "", front if front != NUMBER_FRONT else ""
    if not one and _starts_with_name(words):
        names.append(("name", words[0]))
        words[0] = "<name>"
    for at, word in enumerate(words):
        after = words[at + 1] if at + 1 < len(words) else ""
        place = _Place(word, one, two, three, after, len(words) == 1, at + 2 == len(words))
        if word in _DATES and (one or front == NUMBER_FRONT or word != "May"):
            words[at] = "<time>"
        elif noun := _find_announcing_noun(place):
            words[at] = "<name>"
            names.append((noun, word))
        elif _is_type(place):
            words[at] = show_type(word)
        elif _is_state(place) or (len(word) == 1 and one in _LETTERS):
            words[at] = "<word>"
        three, two, one = two, one, word.lower()
    return unit + " ".join(words), tuple(names)


def _hide_persons(words: list[str], front: str) -> list[str]:
    """Hide the names of persons after a word for a person, which most runs do not have."""
    if any(word[0].isupper() for word in words[1:]):
        text = _PERSON.sub(_hide_person, " ".join(words))
        words = _NAMED_ALONE.sub(_hide_person_alone, text).split(" ")
    if not _LOWER_LEADS.isdisjoint(words):
        words = _hide_lower_persons(words, front)
    return words


def _hide_person(found: re.Match[str]) -> str:
    """Hide two or more capitalised words after "customer", "by" or "for"."""
    lead, name = found.groups()
    kept = is_failure(name.lower()) or _DATES.issuperset(name.split(" "))
    return found[0] if kept else f"{lead} <name>"


def _hide_person_alone(found: re.Match[str]) -> str:
    lead, name = found.groups()
    return found[0] if _is_title([name]) or name in _DATES else f"{lead} <name>"


def can_be_person(word: str) -> bool:
    """Whether a word in lower case can be a part of the name of a person."""
    return (
        len(word) > 1
        and word[0].isalpha()
        and word.islower()
        and (word in _NAMES_TOO or word not in _NO_PERSONS)
        and _ABSTRACT.fullmatch(word) is None
        and not is_failure(word)
    )


def _hide_lower_persons(words: list[str], front: str) -> list[str]:
    """Hide a name in lower case: "customer anna lenz is blocked", "locked by anna lenz".

    Two words after a word for a person, and before a verb or the end of what is invalid; one or two
    words after what a person does.
    """
    for at, word in enumerate(words[:-1]):
        if word == "by" and at and words[at - 1] in TAKEN_VERBS:
            least = 1
        elif word.lower() in NAMED_PERSONS:
            least = 2
        else:
            continue
        end = at + 1
        while end < min(at + 3, len(words)) and can_be_person(words[end]):
            end += 1
        is_last = end == len(words)
        before = words[at - 1] if at else front
        if end - at > least and (
            words[end] in PERSON_VERBS
            if not is_last
            else least == 1 or before in NAME_LEADS or not before
        ):
            return [*words[: at + 1], "<name>", *_hide_lower_persons(words[end:], "")]
    return words


def _hide_proper_names(words: list[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Hide capitalised words inside a sentence: a model, an operation, a product, a place.

    The words of a status stay: "failed with Bad Gateway".
    """
    shown: list[str] = []
    names = []
    at = 0
    while at < len(words):
        end = at
        while end < len(words) and words[end][0].isupper() and end:
            end += 1
        group = words[at:end]
        if group and at and words[at - 1].islower() and not _is_title(group):
            shown.append("<time>" if _DATES.issuperset(group) else "<name>")
            is_operation = words[end : end + 1] == ["operation"]
            names.append(("operation" if is_operation else words[at - 1], " ".join(group)))
            at = end
        else:
            shown += group or [words[at]]
            at = max(end, at + 1)
    return shown, names


def _is_title(group: list[str]) -> bool:
    """Whether capitalised words state something, as the phrase of a status does."""
    return any(
        word in STATUS_WORDS
        or word in TITLE_WORDS
        or word in ABBREVIATIONS
        or is_failure(word.lower())
        or len(word) == 1
        for word in group
    )


def show_type(word: str) -> str:
    """Show a type that is a word; hide the name of a class."""
    is_word = word in TYPE_NAMES or word in ABBREVIATIONS
    return f"{WORD_START}{word}{WORD_END}" if is_word else "<type>"


def _starts_with_name(words: list[str]) -> bool:
    """Whether the text denies something about a name: "orders is not defined"."""
    is_named = (words[1:3] == ["is", "not"] and not PREDICATES.isdisjoint(words[3:4])) or words[
        1:
    ] == ["not", "defined"]
    return is_named and words[0] not in ABBREVIATIONS


def _find_announcing_noun(place: _Place) -> str:
    """Return the noun that announces this word as a name; empty without one."""
    word, one, two, _, after, _, is_before_last = place
    if after == "operation" and one == "the" and word[0].isupper():
        return after
    if word.lower() not in FIELD_ADJECTIVES:
        if after in _FIELDS and is_before_last and one in _FIELD_LEADS:
            return after
        if after == "port" and one == "to":
            return "host"
    if one not in _ANNOUNCING or word in FUNCTION_WORDS or _is_state(place) or word[0] == "<":
        return ""
    is_owned = (one in _OWNERS and after in VERBS) or (one == "host" and two == "resolve")
    is_kind = word in KINDS and not is_owned
    if one in HOST_LEADS and (word not in KINDS or one != "resolve"):
        return one
    return one if one in KINDS and not is_kind and _is_announced_name(place) else ""


def _is_announced_name(place: _Place) -> bool:
    """Whether a kind announces a name: "for table orders", "table orders does"."""
    word, one, two, three, after = place[:5]
    if one == "name":
        return two in {"with", "by"}
    # "the server disconnected", "duplicate key value"
    if word.endswith("ed") or word in NOISE_NAMES or word in ABBREVIATIONS:
        return False
    return (
        one in _NAMERS
        or two in NAME_LEADS
        or three in NAME_LEADS
        or (two not in ARTICLES and after in VERBS)
        or "-" in word
    )


def _is_type(place: _Place) -> bool:
    """Whether a type is announced: "got Order", ", not Order", "to integer", "(integer, text)"."""
    word, one, two, _, after, is_alone, _ = place
    if word in ABBREVIATIONS or (word in TYPE_NAMES and after == "into"):
        return True
    is_class = word[0].isupper() and not is_failure(word.lower())
    if one and after in THINGS and (word in TYPE_NAMES or is_class):
        return True
    if one not in _ANNOUNCING or word in FUNCTION_WORDS or word[0] == "<":
        return False
    if one == "got" or (one == "not" and two == "," and not after) or (one == "valid" and is_class):
        return True
    if one == "," and after in FOUND_WORDS:
        return word in TYPE_NAMES or word[0].isupper()
    return word in TYPE_NAMES and (one in TYPE_LEADS or (one in {"(", ","} and is_alone))


def _is_state(place: _Place) -> bool:
    """Whether a state is announced: "in state new", "a status of canceled"."""
    word, one, two = place[:3]
    if one in _STATES:
        return two in _STATE_LEADS and (word not in FUNCTION_WORDS or word.endswith("ed"))
    return one == "of" and two in _STATES
