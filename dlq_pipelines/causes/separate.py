"""Finds what sets the failing events apart: conditions that dead events meet and others do not.

Each event is a JSON document. The documents of dead and of delivered events are compared path by
path: a field that is present or missing, its type, its value or one of a few values, the beginning
and length of a text, the size of a number or of an array, and two of these together. Also compared
are the event type, the aggregate and the hour of the day.

The score of a condition is Youden's J: the share of dead events that meet it, minus the share of
delivered events that do. Delivered events are weighted so that they were written at the hours, or
else on the days, at which the dead ones were: otherwise whatever names a time, such as a number
that grows, would separate the events of an outage. The p-value of a condition is that of Fisher's
exact test, one-sided. Thousands of conditions are tried, so some fit by chance: the p-values are
corrected by the procedure of Benjamini and Hochberg at a false discovery rate of 1 % (J. R. Stat.
Soc. B 57, 1995).
"""

import json
import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import accumulate, chain, combinations, combinations_with_replacement
from math import exp, isfinite, lgamma
from typing import Any

from dlq_pipelines.outbox.payload_filter import format_path

FALSE_DISCOVERY_RATE = 0.01
# A condition that hardly more of the dead than of the others meet explains nothing.
MIN_SCORE = 0.3
# A pair of conditions replaces its parts only if it is better by this much.
_MIN_GAIN = 0.1
_MAX_FINDINGS = 5
# Bounds of one comparison: hostile documents have any number of names, levels and elements.
_MAX_PATHS = 1_000
_MAX_DEPTH = 16
_MAX_MEMBERS = 200
_MAX_ELEMENTS = 50
_MAX_VALUE_LENGTH = 80
# Values that one condition lists, and distinct values of a field that may have such a condition.
_MAX_LISTED = 4
_MAX_DISTINCT = 100
_PAIRED = 16
# Events of each group by which fields are chosen that are worth reading in all events.
_SCREENED = 250
# A field whose numbers grow with the time of the events says only when they were written.
_MAX_TREND = 0.9
# A window of hours must repeat, otherwise it is the outage itself.
_MIN_DAYS = 3
# Fewer events have no trend, and PostgreSQL's regular expressions repeat no more often.
_MIN_DATED = 10
_MAX_REPETITIONS = 255
# Delivered events of an hour or a day that show what is usual at that time.
_MIN_STRATUM = 5
_MAX_HOURS = 12
_WINDOWS = 24 * _MAX_HOURS
# Numbers at which a range with two ends may begin or end: 561 ranges.
_RANGE_ENDS = 32
# The share of texts that are numbers in a field of numbers.
_MIN_NUMBERS = 0.9
_NUMBER = re.compile(r"-?[0-9]{1,15}(?:\.[0-9]{1,15})?")
_TYPED = re.compile(r"!?exists\([^?]*\)\Z|.*\.type\(\) ==")
_WORD_END = re.compile(r"[-_/:.@# ]")
_PREFIX_LENGTHS = (1, 2, 3, 4, 6)


@dataclass(frozen=True)
class EventSample:
    """One event that is compared: its payload as text, and its columns."""

    payload: str | None
    event_type: str
    aggregate_type: str
    aggregate_id: str
    created_at: datetime | None


@dataclass(frozen=True)
class SeparationFinding:
    """A condition that sets dead events apart.

    Attributes:
        condition: in words, such as `$.acquirer = northbank`.
        where: the filter that selects events by it; None: it is not about the payload.
        dead: dead events that meet it.
        delivered: delivered events that meet it.
        score: share of the dead minus share of the delivered events, above 0 to 1, the latter
            weighted by the times of the dead ones.
        q_value: the p-value after correction for the number of conditions that were tried.
        equivalents: conditions that the same events meet.
        filters: what selects events by it, by the name of the filter: `where` or a column; empty:
            no filter does.
    """

    condition: str
    where: str | None
    dead: int
    delivered: int
    score: float
    q_value: float
    equivalents: tuple[str, ...] = ()
    filters: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Separation:
    """What sets dead events apart from delivered ones, the best condition first.

    Attributes:
        dead: dead events that were compared.
        delivered: delivered events that were compared.
        unreadable: events of both kinds whose payload is no JSON.
        tried: conditions that were tried.
        findings: empty if nothing separates them.
        hidden: paths that were left out because they must not be shown.
    """

    dead: int
    delivered: int
    unreadable: int
    tried: int
    findings: tuple[SeparationFinding, ...]
    hidden: int = 0

    @property
    def is_too_small(self) -> bool:
        """Whether a condition of all dead and no delivered events would not be significant."""
        least = compute_fisher_p(self.dead, self.dead, 0, self.delivered)
        return least * max(self.tried, 1) > FALSE_DISCOVERY_RATE


@dataclass(frozen=True)
class _Condition:
    """A condition with the events that meet it, as bits: those of dead events first."""

    text: str
    where: str | None
    events: int
    # What it is about: the path of a field, or the name of a column.
    about: tuple[str, ...]
    # Of two conditions that the same events meet, the one with the smaller cost is shown.
    cost: int
    # How many conditions were tried to find this one.
    tries: int
    # The column that it is about, with its value.
    column: tuple[str, str] | None = None

    @property
    def filters(self) -> dict[str, str]:
        if self.where is not None:
            return {"where": self.where}
        return dict([self.column]) if self.column else {}


# A condition of a field before it has one: its words, filter, events, cost and tries.
_Words = tuple[str, str | None, int, int, int]


@dataclass
class _Field:
    """What the documents have at one path: by type, each value with the number of its event."""

    steps: tuple[str, ...]
    seen: dict[type, list[tuple[int, Any]]] = field(default_factory=dict)
    children: dict[str, "_Field"] = field(default_factory=dict)


def find_separation(
    dead: Sequence[EventSample],
    delivered: Sequence[EventSample],
    *,
    is_hidden: Callable[[tuple[str, ...]], bool] = lambda _: False,
    local_hour: Callable[[datetime], int] = lambda at: at.hour,
) -> Separation:
    """Compare dead events with delivered ones.

    Args:
        dead: events of one cause that are dead.
        delivered: events of the same event types that were delivered and never died.
        is_hidden: whether a path must not be shown; its steps are names, and `[*]` for an element.
        local_hour: the hour of a time, 0 to 23, in the time zone of the reader.
    """
    documents = [_parse_document(event.payload or "") for event in (*dead, *delivered)]
    whole = _Comparison(dead, delivered, documents)
    wanted, tried = None, 0
    hidden = set[tuple[str, ...]]()
    is_left_out = _note_hidden(is_hidden, hidden)
    if len(documents) > 2 * _SCREENED:
        wanted, tried = _screen_fields(whole.take_part(), is_left_out)
    sides, conditions = whole.sides, list[_Condition]()
    for condition in chain(
        _compare_columns(whole, local_hour),
        *(_compare_field(at, whole) for at in _list_fields(whole, is_left_out, wanted)),
    ):
        tried += condition.tries
        if sides.score(condition.events) >= MIN_SCORE:
            conditions.append(condition)
    best = sorted(conditions, key=lambda item: (-sides.score(item.events), item.cost, item.text))
    pairs = list(_combine(best[:_PAIRED], sides))
    tried += _PAIRED * (_PAIRED - 1) // 2 if len(best) > 1 else 0
    found = _choose([*best, *pairs], sides, tried)
    unreadable = sum(document is _UNREADABLE for document in documents)
    return Separation(len(dead), len(delivered), unreadable, tried, found, len(hidden))


def _note_hidden(
    is_hidden: Callable[[tuple[str, ...]], bool], into: set[tuple[str, ...]]
) -> Callable[[tuple[str, ...]], bool]:
    """Return a function that says whether a path is hidden, and adds each such path to a set."""

    def is_left_out(steps: tuple[str, ...]) -> bool:
        if not is_hidden(steps):
            return False
        into.add(steps)
        return True

    return is_left_out


def compute_fisher_p(hits: int, total: int, other_hits: int, other_total: int) -> float:
    """Return the one-sided p-value of Fisher's exact test.

    The probability that at least `hits` of `total` events meet a condition, if the events that meet
    it were drawn from both groups alike: the upper tail of the hypergeometric distribution. By
    logarithms of factorials, so that thousands of events overflow nothing. Agrees with
    `scipy.stats.fisher_exact(..., alternative="greater")`, which would add 100 MB of dependencies.
    """
    drawn, everything = hits + other_hits, total + other_total
    tail = sum(
        exp(
            _log_choose(total, k)
            + _log_choose(other_total, drawn - k)
            - _log_choose(everything, drawn)
        )
        for k in range(hits, min(total, drawn) + 1)
    )
    return min(1.0, tail)


def _log_choose(n: int, k: int) -> float:
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)


class _Sides:
    """The two groups, as bits of one number."""

    def __init__(self, dead: Sequence[EventSample], delivered: Sequence[EventSample]) -> None:
        self.dead, self.delivered = len(dead), len(delivered)
        self.dead_bits = (1 << self.dead) - 1
        # Delivered events of the same times as some share of the dead ones.
        self.strata = _list_strata(dead, delivered)

    def count(self, events: int) -> tuple[int, int]:
        """Return how many dead and how many delivered events are in a set."""
        hits = (events & self.dead_bits).bit_count()
        return hits, events.bit_count() - hits

    def score(self, events: int) -> float:
        """Return Youden's J of a set; 0 if a group is empty."""
        if not self.dead or not self.delivered:
            return 0.0
        hits, others = self.count(events)
        score = hits / self.dead - others / self.delivered
        if score < MIN_SCORE:
            return score
        return hits / self.dead - sum(
            share * (events & members).bit_count() / members.bit_count()
            for share, members in self.strata
        )

    def compute_p(self, events: int) -> float:
        """Return the p-value of a set."""
        hits, others = self.count(events)
        return compute_fisher_p(hits, self.dead, others, self.delivered)


def _list_strata(
    dead: Sequence[EventSample], delivered: Sequence[EventSample]
) -> list[tuple[float, int]]:
    """Return shares of the dead events, each with the delivered events to compare it with.

    Those of the same hour if there are enough, or else of the same day, or else all of them.
    """
    everything = ((1 << len(delivered)) - 1) << len(dead)
    at: dict[tuple[int, int], list[int]] = {}
    for number, event in enumerate(delivered, len(dead)):
        for time in _name_times(event):
            at.setdefault(time, []).append(number)
    sets = {time: _build_set(found) for time, found in at.items() if len(found) >= _MIN_STRATUM}
    shares: Counter[int] = Counter(
        next((sets[time] for time in _name_times(event) if time in sets), everything)
        for event in dead
    )
    return [(count / len(dead), members) for members, count in shares.items()]


def _name_times(event: EventSample) -> tuple[tuple[int, int], ...]:
    """Return the hour and the day at which an event was written, as numbers."""
    at = event.created_at
    return () if at is None else ((at.toordinal(), at.hour), (at.toordinal(), -1))


# --- reading --------------------------------------------------------------------------------------


class _Comparison:
    """Both groups, with the document of each event."""

    def __init__(
        self,
        dead: Sequence[EventSample],
        delivered: Sequence[EventSample],
        documents: Sequence[Any],
    ) -> None:
        self.dead, self.delivered, self.documents = dead, delivered, documents
        self.events = [*dead, *delivered]
        self.sides = _Sides(dead, delivered)
        self.readable = _build_set(
            number for number, document in enumerate(documents) if document is not _UNREADABLE
        )

    def take_part(self) -> "_Comparison":
        """Return the comparison of a part of each group, evenly spread."""
        count = len(self.dead)
        steps = (-(-count // _SCREENED) or 1, -(-len(self.delivered) // _SCREENED) or 1)
        return _Comparison(
            self.dead[:: steps[0]],
            self.delivered[:: steps[1]],
            [*self.documents[: count : steps[0]], *self.documents[count :: steps[1]]],
        )


def _screen_fields(
    part: _Comparison, is_hidden: Callable[[tuple[str, ...]], bool]
) -> tuple[set[tuple[str, ...]], int]:
    """Return the fields that may separate the groups, and how many conditions were tried.

    Those with half of the least score in a part of the events. To read every field of all events
    takes four times as long.
    """
    wanted, tried = set[tuple[str, ...]](), 0
    for at in _list_fields(part, is_hidden):
        for condition in _compare_field(at, part):
            tried += condition.tries
            if part.sides.score(condition.events) >= MIN_SCORE / 2:
                wanted.add(at.steps)
    return wanted, tried


def _list_fields(
    comparison: _Comparison,
    is_hidden: Callable[[tuple[str, ...]], bool],
    wanted: Collection[tuple[str, ...]] | None = None,
) -> list[_Field]:
    """Return the fields of the documents, or only those that are wanted."""
    root, reader = _Field(()), _DocumentReader()
    for steps in wanted or ():
        at = root
        for depth, name in enumerate(steps, 1):
            at = at.children.setdefault(name, _Field(steps[:depth]))
    for number, document in enumerate(comparison.documents):
        if document is not _UNREADABLE and wanted is None:
            reader.add_all(root, document, number, 0)
        elif document is not _UNREADABLE:
            reader.add_known(root, document, number)
    found, open_ = list[_Field](), [root]
    while open_:
        at = open_.pop()
        if not is_hidden(at.steps):
            open_ += at.children.values()
            if wanted is None or at.steps in wanted:
                found.append(at)
    return found


# The document of a payload that PostgreSQL cannot read, so that no filter could select the event:
# no JSON, or JSON with NaN, an infinity, a null character or half of a character.
_UNREADABLE = object()


def _parse_document(text: str) -> Any:
    try:
        document = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return _UNREADABLE
    if "\\u0000" in text or ("\\u" in text and not _is_encodable(document)):
        return _UNREADABLE
    return document


def _is_encodable(document: Any) -> bool:
    try:
        json.dumps(document, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


class _DocumentReader:
    """Adds documents to fields, within the bounds."""

    def __init__(self) -> None:
        self.paths = 0

    def add_known(self, into: _Field, value: Any, number: int) -> None:
        """Add a value of an event, and those inside of it whose fields exist already."""
        kind = type(value)
        into.seen.setdefault(kind, []).append((number, value))
        for name, child in into.children.items():
            if kind is list and name == "[*]":
                for member in value[:_MAX_ELEMENTS]:
                    self.add_known(child, member, number)
            elif kind is dict and name in value:
                self.add_known(child, value[name], number)

    def add_all(self, into: _Field, value: Any, number: int, depth: int) -> None:
        """Add a value of an event, and everything inside of it."""
        kind = type(value)
        seen = into.seen.get(kind)
        if seen is None:
            seen = into.seen[kind] = []
        seen.append((number, value))
        if depth == _MAX_DEPTH or (kind is not dict and kind is not list):
            return
        children = into.children
        if kind is list:
            child = children.get("[*]") or self._add_child(into, "[*]")
            if child:
                for member in value[:_MAX_ELEMENTS]:
                    self.add_all(child, member, number, depth + 1)
            return
        for name, member in value.items():
            child = children.get(name) or self._add_child(into, name)
            if child:
                self.add_all(child, member, number, depth + 1)

    def _add_child(self, of: _Field, name: str) -> _Field | None:
        if len(of.children) >= _MAX_MEMBERS or self.paths >= _MAX_PATHS:
            return None
        self.paths += 1
        child = of.children[name] = _Field((*of.steps, name))
        return child


# --- conditions -----------------------------------------------------------------------------------

_TYPES: dict[type, str] = {
    str: "string",
    int: "number",
    float: "number",
    bool: "boolean",
    type(None): "null",
    dict: "object",
    list: "array",
}


def _compare_columns(
    whole: _Comparison, local_hour: Callable[[datetime], int]
) -> Iterator[_Condition]:
    events, sides = whole.events, whole.sides
    for label in ("event_type", "aggregate_type", "aggregate_id"):
        values = [(number, getattr(event, label)) for number, event in enumerate(events)]
        words = label.replace("_", " ")
        for value, numbers in _group_values(values, sides).items():
            if value != "":
                met = _build_set(numbers)
                yield _Condition(f"{words} {value}", None, met, (words,), 1, 1, (label, str(value)))
    yield from _compare_hours(events, sides, local_hour)


def _compare_hours(
    events: Sequence[EventSample], sides: _Sides, local_hour: Callable[[datetime], int]
) -> Iterator[_Condition]:
    """Yield the window of hours that separates best, if it comes again on several days."""
    by_hour: list[list[int]] = [[] for _ in range(24)]
    for number, event in enumerate(events):
        if event.created_at is not None:
            by_hour[local_hour(event.created_at)].append(number)
    sets = [_build_set(numbers) for numbers in by_hour]
    best: tuple[float, int, int, int] = (0.0, 0, 0, 0)
    for begin in range(24):
        met = 0
        for length in range(1, _MAX_HOURS + 1):
            met |= sets[(begin + length - 1) % 24]
            best = max(best, (sides.score(met), -length, begin, met))
    _, length, begin, met = best
    days = {
        event.created_at.date()
        for number, event in enumerate(events[: sides.dead])
        if met >> number & 1 and event.created_at is not None
    }
    if len(days) >= _MIN_DAYS:
        end = (begin - length) % 24
        yield _Condition(
            f"written from {begin:02}:00 to {end:02}:00", None, met, ("hour",), 4, _WINDOWS
        )


def _compare_field(at: _Field, comparison: _Comparison) -> Iterator[_Condition]:
    sides, readable = comparison.sides, comparison.readable
    times = [event.created_at for event in comparison.events]
    path, seen = format_path(at.steps), at.seen
    texts = seen.get(str, [])
    # The paths of jsonpath look into arrays, so a filter would select what was not counted.
    is_mixed = list in seen and len(seen) > 1
    conditions = chain(
        _compare_presence(path, readable, seen),
        _compare_values(path, at, sides),
        (
            (f"{path} begins with {prefix!r}", f"{path} starts with {_quote(prefix)}", met, 3, 1)
            for prefix, met in _list_prefixes(texts, sides)
        ),
        (
            (f"{path} ends with {domain}", _render_end(path, domain), met, 3, 1)
            for domain, met in _list_domains(texts, sides)
        ),
        (
            (f"{path} {found}", found.render(path), found.events, found.cost, found.tries)
            for found in _split(seen.get(int, []) + seen.get(float, []), sides, times)
        ),
        # Amounts are often texts, so that no digit is lost.
        (
            (
                f"{path} {found}",
                found.render(f"{path}.double()"),
                found.events,
                found.cost,
                found.tries,
            )
            for found in _split(_read_numbers(texts), sides, times)
        ),
        (
            (
                f"{path} has {found} elements",
                found.render(f"{path}.size()"),
                found.events,
                found.cost,
                found.tries,
            )
            for found in _split([(n, len(it)) for n, it in seen.get(list, [])], sides)
        ),
        (
            (
                f"{path} has {found} characters",
                _render_length(path, found),
                found.events,
                found.cost + 1,
                found.tries,
            )
            for found in _split([(n, len(it)) for n, it in texts], sides)
        ),
    )
    for text, found, met, cost, tries in conditions:
        where = None if is_mixed and found and not _TYPED.match(found) else found
        yield _Condition(text, where, met, (path,), cost + len(at.steps), tries)


def _compare_presence(
    path: str, readable: int, seen: dict[type, list[tuple[int, Any]]]
) -> Iterator[_Words]:
    names: dict[str, int] = {}
    for kind, values in seen.items():
        met = _build_set(number for number, _ in values)
        names[_TYPES[kind]] = names.get(_TYPES[kind], 0) | met
    present = 0
    for met in names.values():
        present |= met
    yield f"{path} is missing", f"!exists({path})", readable & ~present, 2, 1
    yield f"{path} is present", f"exists({path})", present, 3, 1
    for name, met in names.items() if len(names) > 1 else ():
        words = f"{path} is null" if name == "null" else f"{path} has the type {name}"
        yield words, f'{path}.type() == "{name}"', met, 2, 1


def _compare_values(path: str, at: _Field, sides: _Sides) -> Iterator[_Words]:
    groups: dict[Any, set[int]] = {}
    for kind, seen in at.seen.items():
        if kind is not dict and kind is not list:
            for value, numbers in _group_values(seen, sides).items():
                if kind is float and not isfinite(value):
                    continue  # 1e999: a filter could not be written
                # True equals 1. JSON of each is different.
                groups[_quote(value)] = numbers
    for chosen, met in _list_choices(groups, sides):
        values = [json.loads(value) for value in chosen]
        where = " || ".join(f"{path} == {_quote(value)}" for value in values)
        shown = ", ".join(_show(value) for value in values)
        words = f"{path} = {shown}" if len(values) == 1 else f"{path} is one of {shown}"
        yield words, where, met, len(values), 1


def _render_end(path: str, text: str) -> str:
    return f"{path} like_regex {_quote(re.escape(text) + '$')}"


def _render_length(path: str, found: "_Range") -> str | None:
    """Return the filter of a length: jsonpath has no function for it."""
    low, high = found.low or 0, found.high
    if max(low, high or 0) > _MAX_REPETITIONS:
        return None
    count = f"{{{low},{'' if high is None else high}}}"
    return f'{path} like_regex "^.{count}$" flag "s"'


def _group_values(values: Sequence[tuple[int, Any]], sides: _Sides) -> dict[Any, set[int]]:
    """Return the events of each value that enough dead events have, as sets of numbers."""
    least = max(2.0, MIN_SCORE / _MAX_LISTED * sides.dead)
    counts = Counter(value for number, value in values if number < sides.dead)
    groups: dict[Any, set[int]] = {
        value: set()
        for value, count in counts.items()
        if count >= least and (type(value) is not str or len(value) <= _MAX_VALUE_LENGTH)
    }
    for number, value in values if groups else ():
        if value in groups:
            groups[value].add(number)
    return groups


def _list_choices(
    groups: dict[Any, set[int]], sides: _Sides
) -> Iterator[tuple[tuple[Any, ...], int]]:
    """Yield each value alone, and the best values together as long as one more is better."""
    sets = {value: _build_set(numbers) for value, numbers in groups.items()}
    order = sorted(sets, key=lambda value: (-sides.score(sets[value]), str(value)))
    for value in order:
        yield (value,), sets[value]
    met = sets[order[0]] if order else 0
    for count in range(2, min(len(order), _MAX_LISTED) + 1):
        more = met | sets[order[count - 1]]
        if sides.score(more) < sides.score(met) + _MIN_GAIN:
            return
        met = more
        yield tuple(order[:count]), met


def _list_prefixes(texts: Sequence[tuple[int, str]], sides: _Sides) -> Iterator[tuple[str, int]]:
    """Yield beginnings that many dead events have in common, up to a separator or a length."""
    if len({text for _, text in texts}) <= _MAX_LISTED:
        return
    counts: Counter[str] = Counter()
    for number, text in texts:
        if number < sides.dead:
            ends = {match.end() for match in _WORD_END.finditer(text[:_MAX_VALUE_LENGTH])}
            counts.update({text[:end] for end in (*ends, *_PREFIX_LENGTHS) if end < len(text)})
    # Of beginnings that the same dead events have, the longest excludes most of the others.
    longest = {(count, prefix[0]): prefix for prefix, count in sorted(counts.items())}
    for (count, _), prefix in longest.items():
        if count >= max(2.0, MIN_SCORE * sides.dead):
            yield prefix, _build_set({n for n, text in texts if text.startswith(prefix)})


def _read_numbers(texts: Sequence[tuple[int, str]]) -> list[tuple[int, float]]:
    """Return the numbers of texts, if nearly all of them are numbers; others are `n/a` or empty."""
    found = [(number, float(text)) for number, text in texts if _NUMBER.fullmatch(text)]
    return found if len(found) >= _MIN_NUMBERS * len(texts) else []


def _list_domains(texts: Sequence[tuple[int, str]], sides: _Sides) -> Iterator[tuple[str, int]]:
    """Yield the ends of e-mail addresses, from the @, that many dead events have in common."""
    ends = [(number, text[at:]) for number, text in texts if (at := text.rfind("@")) > 0]
    for domain, numbers in _group_values(ends, sides).items():
        yield domain, _build_set(numbers)


@dataclass(frozen=True)
class _Range:
    """Numbers from `low` to `high`; one end may be missing. And the events with such a number."""

    low: float | None
    high: float | None
    events: int
    tries: int

    def __str__(self) -> str:
        if self.low is None:
            return f"<= {self.high}"
        return f">= {self.low}" if self.high is None else f"from {self.low} to {self.high}"

    @property
    def cost(self) -> int:
        return 4 if self.low is None or self.high is None else 5

    def render(self, number: str) -> str:
        """Return the filter; of the elements of an array, one must be within both bounds."""
        if self.low is None or self.high is None:
            return f"{number} {self}"
        return f"exists({number} ? (@ >= {self.low} && @ <= {self.high}))"


def _split(
    values: Sequence[tuple[int, float]],
    sides: _Sides,
    times: Sequence[datetime | None] | None = None,
) -> Iterator[_Range]:
    """Yield the best range with a lower bound, with an upper one, and one with both if better."""
    counts: dict[float, list[int]] = {}
    for number, value in values:
        counted = counts.get(value)
        if counted is None:
            counted = counts[value] = [0, 0]
        counted[number >= sides.dead] += 1
    if len(counts) <= 1 or (times is not None and _is_place(values, len(counts), times)):
        return
    weights = [
        (value, dead / max(1, sides.dead) - others / max(1, sides.delivered), dead)
        for value, (dead, others) in sorted(counts.items())
    ]

    def select(low: float | None, high: float | None, score: float, tries: int) -> _Range:
        # One that cannot be shown needs no set of events.
        met = (
            number
            for number, value in (values if score >= MIN_SCORE else ())
            if (low is None or value >= low) and (high is None or value <= high)
        )
        return _Range(low, high, _build_set(met), tries)

    best = 0.0
    tries = len(weights) - 1
    for is_low, found in ((True, weights[:0:-1]), (False, weights[:-1])):
        sums = accumulate(weight for _, weight, _ in found)
        score, bound = max(
            ((score, value) for score, (value, _, _) in zip(sums, found, strict=True)),
            key=lambda pair: pair[0],
        )
        best = max(best, score)
        if score > 0 and isfinite(bound):
            yield select(bound if is_low else None, None if is_low else bound, score, tries)
    score, low, high, tries = _find_range(weights)
    is_better = score >= best + _MIN_GAIN and isfinite(low) and isfinite(high)
    yield select(low, high, score if is_better else 0.0, tries)


def _find_range(weights: Sequence[tuple[float, float, int]]) -> tuple[float, float, float, int]:
    """Return the score and the ends of the best range with two ends, and how many were tried.

    Its ends are some numbers of dead events, with about as many dead events between any two of
    them: all pairs of thousands of numbers would be millions of tries, which correct every p-value.

    Args:
        weights: each number with what it adds to the score, and its dead events.
    """
    before = [0.0, *accumulate(weight for _, weight, _ in weights)]
    dead = list(accumulate(count for _, _, count in weights))
    if dead[-1] == 0:
        return 0.0, 0.0, 0.0, 0
    ends = sorted(
        {
            bisect_left(dead, max(1, dead[-1] * part / _RANGE_ENDS))
            for part in range(_RANGE_ENDS + 1)
        }
    )
    pairs = list(combinations_with_replacement(ends, 2))
    score, low, high = max((before[high + 1] - before[low], low, high) for low, high in pairs)
    return score, weights[low][0], weights[high][0], len(pairs)


def _is_place(
    values: Sequence[tuple[int, float]], distinct: int, times: Sequence[datetime | None]
) -> bool:
    """Return whether the numbers say only when the events were written.

    Without times, whole numbers are taken for serial numbers if nearly each event has its own: the
    delivered events that are compared are the latest ones.
    """
    if any(times):
        return _grows_with_time(values, times)
    are_whole = all(type(value) is int for _, value in values)
    return are_whole and len(values) >= _MIN_DATED and distinct >= _MAX_TREND * len(values)


def _grows_with_time(values: Sequence[tuple[int, float]], times: Sequence[datetime | None]) -> bool:
    """Return whether the ranks of the numbers follow those of the times (Spearman's rho)."""
    dated = [(at, value) for number, value in values if (at := times[number]) is not None]
    if len(dated) < _MIN_DATED:
        return False
    by_time = sorted(range(len(dated)), key=lambda index: dated[index][0])
    by_value = sorted(range(len(dated)), key=lambda index: dated[index][1])
    ranks = {index: rank for rank, index in enumerate(by_value)}
    count = len(dated)
    squares = sum((rank - ranks[index]) ** 2 for rank, index in enumerate(by_time))
    return abs(1 - 6 * squares / (count * (count * count - 1))) > _MAX_TREND


def _build_set(numbers: Iterable[int]) -> int:
    """Return the numbers as bits of one number: sets of thousands of events compare in a step."""
    members = list(numbers)
    bits = bytearray(max(members, default=-1) // 8 + 1)
    for number in members:
        bits[number >> 3] |= 1 << (number & 7)
    return int.from_bytes(bits, "little")


# --- choice ---------------------------------------------------------------------------------------


def _combine(best: Sequence[_Condition], sides: _Sides) -> Iterator[_Condition]:
    """Yield pairs of conditions on two fields that are better together than each alone."""
    for one, other in combinations(best, 2):
        met = one.events & other.events
        alone = max(sides.score(one.events), sides.score(other.events))
        if one.about == other.about or sides.score(met) < alone + _MIN_GAIN:
            continue
        if one.where and other.where:
            where = " && ".join(_bracket(part.where or "") for part in (one, other))
            words = f"{one.text} and {other.text}"
            yield _Condition(words, where, met, one.about + other.about, one.cost + other.cost, 1)


def _bracket(where: str) -> str:
    return f"({where})" if "||" in where else where


def _choose(
    conditions: Sequence[_Condition], sides: _Sides, tried: int
) -> tuple[SeparationFinding, ...]:
    """Return the best significant conditions, each set of events and each field once."""
    ranked = sorted(
        ((sides.compute_p(condition.events), condition) for condition in conditions),
        key=lambda item: item[0],
    )
    # Benjamini and Hochberg: the largest rank whose p-value is at most its share of the rate.
    # Conditions below MIN_SCORE have no rank, so the correction is stricter than it need be.
    q_values: dict[int, float] = {}
    smallest = 1.0
    for rank in range(len(ranked), 0, -1):
        p_value, condition = ranked[rank - 1]
        smallest = min(smallest, p_value * tried / rank)
        q_values[id(condition)] = smallest
    significant = [
        condition for condition in conditions if q_values[id(condition)] <= FALSE_DISCOVERY_RATE
    ]
    significant.sort(key=lambda item: (-round(sides.score(item.events), 3), item.cost, item.text))
    chosen: list[tuple[_Condition, list[str], set[str]]] = []
    for condition in significant:
        same = next((kept for kept in chosen if _are_alike(kept[0], condition)), None)
        if same is not None:
            _, others, named = same
            if not {*condition.about} & named and len(others) < _MAX_FINDINGS:
                others.append(condition.text)
                named.update(condition.about)
        elif len(chosen) < _MAX_FINDINGS and not any(
            {*condition.about} & {*kept.about} for kept, _, _ in chosen
        ):
            chosen.append((condition, [], {*condition.about}))
    return tuple(
        SeparationFinding(
            condition.text,
            condition.where,
            *sides.count(condition.events),
            sides.score(condition.events),
            q_values[id(condition)],
            tuple(same),
            condition.filters,
        )
        for condition, same, _ in chosen
    )


def _are_alike(one: _Condition, other: _Condition) -> bool:
    """Return whether nearly the same events meet both."""
    union = (one.events | other.events).bit_count()
    return (one.events & other.events).bit_count() >= 0.95 * union


def _quote(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _show(value: Any) -> str:
    return value if isinstance(value, str) and value.strip() else json.dumps(value)
