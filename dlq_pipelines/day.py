"""Computes days in a time zone, and parses and formats times."""

import datetime as dt
import re
from dataclasses import dataclass
from zoneinfo import ZoneInfo

# Far inside the range of datetime, so that adding days and converting time zones cannot overflow.
_FIRST_YEAR, _LAST_YEAR = 1900, 9000
# What a time of the database is read as if datetime cannot hold it: -infinity and years before 1,
# and infinity. A finite time after the year 9999 is read as a microsecond less than infinity.
BEFORE_ALL_TIMES = dt.datetime.min.replace(tzinfo=dt.UTC)
AFTER_ALL_TIMES = dt.datetime.max.replace(tzinfo=dt.UTC)
LAST_FINITE_TIME = AFTER_ALL_TIMES - dt.timedelta(microseconds=1)

# Units of a time before now, and days that have a name.
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_DAYS_AGO = {"today": 0, "yesterday": 1}

_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
# Days that the schedules catch up. After a longer outage a person backfills, and sees the cost.
CATCH_UP_DAYS = 14


def validate_year(day: dt.date) -> None:
    """Refuse a day or time that is so far away that it must be a mistake.

    Raises:
        ValueError: the day lies outside the years 1900 to 9000.
    """
    if not _FIRST_YEAR <= day.year <= _LAST_YEAR:
        raise ValueError(
            f"{day.isoformat()[:10]} lies outside the years {_FIRST_YEAR} to {_LAST_YEAR}."
        )


def compute_midnight(day: dt.date, zone: dt.tzinfo) -> dt.datetime:
    """Return the first instant of a day in a time zone, in UTC.

    Raises:
        ValueError: the day lies outside the years 1900 to 9000.
    """
    validate_year(day)
    return dt.datetime.combine(day, dt.time(), zone).astimezone(dt.UTC)


def parse_past_time(name: str, text: str, zone: dt.tzinfo, *, now: dt.datetime) -> dt.datetime:
    """Parse a time as `parse_time` does, `2h` before now, or the start of `today` or `yesterday`.

    Args:
        name: the argument, for the error.
        text: a time, `today`, `yesterday`, or a number of minutes, hours, days or weeks before
            now: `30m`, `2h`, `3d`, `1w`.
        zone: in which days begin and times without an offset are.
        now: the present time.

    Raises:
        ValueError: as `parse_time`, or the time before now lies before 1900.
    """
    if match := re.fullmatch(r"([0-9]{1,7})([mhdw])", text.strip().lower()):
        ago = dt.timedelta(**{_UNITS[match[2]]: int(match[1])})
        try:
            return parse_time(name, (now.astimezone(dt.UTC) - ago).isoformat(), zone)
        except OverflowError:
            raise ValueError(f"{name}: {text!r} lies before the year {_FIRST_YEAR}.") from None
    if text.strip().lower() in _DAYS_AGO:
        day = convert_to_zone(now, zone).date() - dt.timedelta(_DAYS_AGO[text.strip().lower()])
        return dt.datetime.combine(day, dt.time(), zone)
    return parse_time(name, text, zone, examples="2026-11-24, 2026-11-24T18:30, 2h or yesterday")


def parse_time(
    name: str,
    text: str,
    zone: dt.tzinfo,
    *,
    examples: str = "2026-11-24 or 2026-11-24T18:30",
) -> dt.datetime:
    """Parse `2026-11-24` or `2026-11-24T18:30`, in `zone` unless the text names an offset.

    Args:
        name: the argument, for the error.
        text: the time.
        zone: of a text without an offset.
        examples: of what is accepted, for the error.

    Raises:
        ValueError: the text is not a time, or lies outside the years 1900 to 9000; the message
            names the argument.
    """
    try:
        value = dt.datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{name}: {text!r} is not a time. Write it as {examples}.") from None
    try:
        validate_year(value)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    return value if value.tzinfo else value.replace(tzinfo=zone)


def convert_to_zone(at: dt.datetime, zone: dt.tzinfo) -> dt.datetime:
    """Return the time in a time zone; in UTC if datetime cannot hold it in that zone."""
    try:
        return at.astimezone(zone)
    except OverflowError:
        return at.astimezone(dt.UTC)


def format_time(at: dt.datetime) -> str:
    """Format a time to the second, in its own zone, as `2026-11-24 18:30:00-05`.

    `parse_time` parses it. The offset is needed because one hour of autumn occurs twice. A time
    that datetime cannot hold is `before year 1` or `after year 9999`.
    """
    if at == BEFORE_ALL_TIMES:
        return "before year 1"
    if at >= LAST_FINITE_TIME:
        return "after year 9999"
    offset = f"{at:%z}"
    return f"{at:%Y-%m-%d %H:%M:%S}{offset.removesuffix('00')}"


def format_long_day(day: dt.date) -> str:
    """Return `Tuesday, 24 November 2026` in every locale."""
    return f"{_WEEKDAYS[day.weekday()]}, {day.day} {_MONTHS[day.month - 1]} {day.year}"


def format_short_day(day: dt.date) -> str:
    """Return `24 Nov`."""
    return f"{day.day} {_MONTHS[day.month - 1][:3]}"


def format_weekday(day: dt.date) -> str:
    """Return `Tuesday`."""
    return _WEEKDAYS[day.weekday()]


@dataclass(frozen=True)
class Day:
    """A calendar day of a time zone, 23 to 25 hours long, from `start` to before `until` in UTC."""

    date: dt.date
    start: dt.datetime
    until: dt.datetime

    @classmethod
    def of(cls, day: dt.date, zone: ZoneInfo) -> "Day":
        """Return the day of that date in that zone."""
        return cls(
            day, compute_midnight(day, zone), compute_midnight(day + dt.timedelta(days=1), zone)
        )
