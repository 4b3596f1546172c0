"""When does a day begin and end, and which moment does somebody mean?"""

import datetime as dt
from dataclasses import dataclass
from zoneinfo import ZoneInfo


def midnight(day: dt.date, zone: dt.tzinfo) -> dt.datetime:
    """The first instant of a day in a time zone, in UTC."""
    return dt.datetime.combine(day, dt.time(), zone).astimezone(dt.UTC)


def moment(name: str, text: str, zone: dt.tzinfo) -> dt.datetime:
    """The moment that a person wrote as `2026-11-24` or `2026-11-24T18:30`, in that zone unless it names its own.

    Raises:
        ValueError: it is none; the message names the argument.
    """
    try:
        value = dt.datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{name}: {text!r} is no time. Write it as 2026-11-24 or 2026-11-24T18:30.") from None
    return value if value.tzinfo else value.replace(tzinfo=zone)


@dataclass(frozen=True)
class Day:
    """A calendar day of a time zone as two UTC instants: 23, 24 or 25 hours, the end excluded."""

    date: dt.date
    start: dt.datetime
    until: dt.datetime

    @classmethod
    def of(cls, day: dt.date, zone: ZoneInfo) -> "Day":
        """The day of that date in that zone."""
        return cls(day, midnight(day, zone), midnight(day + dt.timedelta(days=1), zone))
