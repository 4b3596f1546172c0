"""When does a day begin and end, and which moment does somebody mean?"""

import datetime as dt
from dataclasses import dataclass
from zoneinfo import ZoneInfo

# Far inside what Python can count, so that days may be added and zones applied without a look at each place.
_FIRST_YEAR, _LAST_YEAR = 1900, 9000

# Days that the schedules make up for. After a longer outage somebody backfills, and sees what that takes.
CATCH_UP_DAYS = 14


def validate_year(day: dt.date) -> None:
    """Refuse a day or moment so far away that it is a mistake.

    Raises:
        ValueError: it lies outside the years 1900 to 9000.
    """
    if not _FIRST_YEAR <= day.year <= _LAST_YEAR:
        raise ValueError(
            f"{day.isoformat()[:10]} lies outside the years {_FIRST_YEAR} to {_LAST_YEAR}."
        )


def compute_midnight(day: dt.date, zone: dt.tzinfo) -> dt.datetime:
    """The first instant of a day in a time zone, in UTC.

    Raises:
        ValueError: the day lies outside the years 1900 to 9000.
    """
    validate_year(day)
    return dt.datetime.combine(day, dt.time(), zone).astimezone(dt.UTC)


def parse_time(name: str, text: str, zone: dt.tzinfo) -> dt.datetime:
    """The moment that a person wrote as `2026-11-24` or `2026-11-24T18:30`, in that zone unless it names its own.

    Raises:
        ValueError: it is none, or lies outside the years 1900 to 9000; the message names the argument.
    """
    try:
        value = dt.datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(
            f"{name}: {text!r} is no time. Write it as 2026-11-24 or 2026-11-24T18:30."
        ) from None
    try:
        validate_year(value)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    return value if value.tzinfo else value.replace(tzinfo=zone)


def format_time(at: dt.datetime) -> str:
    """A moment for people, to the second, in its own zone: `2026-11-24 18:30:00-05`, which `moment` reads again.

    The offset stands there because an hour of the autumn comes twice.
    """
    offset = f"{at:%z}"
    return f"{at:%Y-%m-%d %H:%M:%S}{offset.removesuffix('00')}"


@dataclass(frozen=True)
class Day:
    """A calendar day of a time zone as two UTC instants: 23, 24 or 25 hours, the end excluded."""

    date: dt.date
    start: dt.datetime
    until: dt.datetime

    @classmethod
    def of(cls, day: dt.date, zone: ZoneInfo) -> "Day":
        """The day of that date in that zone."""
        return cls(
            day, compute_midnight(day, zone), compute_midnight(day + dt.timedelta(days=1), zone)
        )
