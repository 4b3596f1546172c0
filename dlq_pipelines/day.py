"""When does a day begin and end?"""

import datetime as dt
from dataclasses import dataclass
from zoneinfo import ZoneInfo


def midnight(day: dt.date, zone: dt.tzinfo) -> dt.datetime:
    """The first instant of a day in a time zone, in UTC."""
    return dt.datetime.combine(day, dt.time(), zone).astimezone(dt.UTC)


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
