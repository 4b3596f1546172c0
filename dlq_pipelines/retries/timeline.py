"""Reads how a fix went over time: what it released, and what became of it, in equal intervals."""

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from datetime import UTC, datetime, timedelta, tzinfo

from dlq_pipelines.day import convert_to_zone, format_time
from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.retries.fixes import get_fix
from dlq_pipelines.text import format_seconds

# As many columns, a name, a number and a rate fit into a terminal of 80 characters.
MAX_INTERVALS = 48
_MINUTE, _HOUR, _DAY = 60, 3_600, 86_400
# Seconds. The sensor records outcomes every 30 s: shorter intervals would show the sensor. The last
# one is enough for the years 1900 to 9000, in which all times of a fix are.
_LENGTHS = (
    30,
    *(count * _MINUTE for count in (1, 2, 5, 10, 15, 30)),
    *(count * _HOUR for count in (1, 2, 3, 6, 12)),
    *(count * _DAY for count in (1, 2, 7, 28, 365, 3_650, 73_000)),
)
_BARS = " ▁▂▃▄▅▆▇█"
_EXACT_FROM = 100


@dataclass(frozen=True)
class FixInterval:
    """What happened to the events of a fix from `start` until the next interval.

    Attributes:
        start: in UTC.
        released: released events that fell due. Those that were recalled never did.
        delivered: events that were found delivered; the outcomes that follow likewise.
        rate: released events a second.
    """

    start: datetime
    released: int = 0
    delivered: int = 0
    died_again: int = 0
    timed_out: int = 0
    deleted: int = 0
    rate: float = 0.0


@dataclass(frozen=True)
class FixTimeline:
    """A fix over time, from the first event that fell due to the last one, or the last outcome.

    Attributes:
        seconds: the length of each interval.
        intervals: at most 48, without gaps; none before the first event falls due.
    """

    seconds: int
    intervals: tuple[FixInterval, ...] = ()

    @property
    def start(self) -> datetime:
        """The start of the first interval. Requires one."""
        return self.intervals[0].start

    @property
    def end(self) -> datetime:
        """The end of the last interval. Requires one."""
        return self.intervals[-1].start + timedelta(seconds=self.seconds)


# Names of the rows of a chart. The last two are shown if there are any.
SERIES = {
    "released": "released",
    "delivered": "delivered",
    "died_again": "died again",
    "timed_out": "timed out",
    "deleted": "deleted",
}
_OPTIONAL = ("timed_out", "deleted")


def read_fix_timeline(connection: Connection, fix_id: int, *, until: datetime) -> FixTimeline:
    """Return the timeline of a fix, of what happened before `until`. See `read_fix_timelines`.

    Raises:
        NotFoundError: the fix does not exist.
    """
    fix = get_fix(connection, fix_id)
    return read_fix_timelines(connection, [fix.id], until=until)[fix.id]


def read_fix_timelines(
    connection: Connection, fix_ids: Sequence[int], *, until: datetime
) -> dict[int, FixTimeline]:
    """Return a timeline for each of the fixes, of what happened before `until`.

    Read from the ledger, so that the same question has the same answer later. The time that it
    takes grows with the retries of these fixes: about half a second for a million.
    """
    rows = connection.run(
        "fix.timeline",
        fixes=list(fix_ids),
        until=until,
        lengths=list(_LENGTHS),
        most=MAX_INTERVALS,
    ).fetchall()
    counted: dict[int, dict[int, dict[str, int]]] = {}
    seconds: dict[int, int] = {}
    for row in rows:
        seconds[row["fix_id"]] = row["seconds"]
        numbers = counted.setdefault(row["fix_id"], {}).setdefault(row["number"], {})
        numbers[row["kind"]] = row["events"]
    return {
        fix_id: _build_timeline(seconds.get(fix_id, _LENGTHS[0]), counted.get(fix_id, {}))
        for fix_id in fix_ids
    }


def _build_timeline(seconds: int, counted: dict[int, dict[str, int]]) -> FixTimeline:
    """Build a timeline from the counts of intervals by their number since 1970; others are 0."""
    if not counted:
        return FixTimeline(seconds)
    return FixTimeline(
        seconds,
        tuple(
            FixInterval(
                datetime.fromtimestamp(number * seconds, UTC),
                **(events := counted.get(number, {})),
                rate=round(events.get("released", 0) / seconds, 6),
            )
            for number in range(min(counted), max(counted) + 1)
        ),
    )


def list_series(timeline: FixTimeline) -> dict[str, list[int]]:
    """Return the numbers of each series by its name in `FixInterval`, without empty optional ones.

    In the order of `SERIES`.
    """
    found = {name: [getattr(interval, name) for interval in timeline.intervals] for name in SERIES}
    return {name: counts for name, counts in found.items() if any(counts) or name not in _OPTIONAL}


def format_rate(rate: float) -> str:
    """Return events a second: `0.05`, `12.5`, `1,200`."""
    return f"{rate:,.0f}" if rate >= _EXACT_FROM else f"{rate:.3g}"


def render_timeline_text(timeline: FixTimeline, zone: tzinfo) -> str:
    """Render a timeline as a chart of at most 80 characters a line; an empty one as a sentence.

    All rows have the same scale. An interval with any event has a bar.
    """
    if not timeline.intervals:
        return "No released event has fallen due yet."
    series = list_series(timeline)
    most = max(max(counts) for counts in series.values())
    width = len(timeline.intervals)
    lines = [f"{'':11}{'':{width}} {'events':>9} {'most/s':>8}"]
    for name, counts in series.items():
        # Rounded up, so that one event among thousands is seen.
        bars = "".join(_BARS[-(-count * (len(_BARS) - 1) // most)] for count in counts)
        rate = format_rate(max(counts) / timeline.seconds)
        lines.append(f"{SERIES[name]:11}{bars} {sum(counts):>9,} {rate:>8}")
    first, last = (format_time(convert_to_zone(at, zone)) for at in (timeline.start, timeline.end))
    lines.append(f"{format_seconds(timeline.seconds)} a column, from {first} to {last}.")
    return "\n".join(lines)


def list_timeline_rows(timeline: FixTimeline, zone: tzinfo) -> list[tuple[object, ...]]:
    """Return the intervals as rows: local start, events of each series, and rate."""
    return [
        (format_time(convert_to_zone(interval.start, zone)), *astuple(interval)[1:])
        for interval in timeline.intervals
    ]
