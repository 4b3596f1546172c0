"""When does a day begin and end?"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo


@dataclass(frozen=True)
class Day:
    """A calendar day of a time zone as two UTC instants: 23, 24 or 25 hours, end excluded."""

    date: date
    start: datetime
    until: datetime

    @classmethod
    def of(cls, day: date, zone: ZoneInfo) -> "Day":
        """The day of that date in that zone."""
        midnight = datetime.combine(day, time(), zone).astimezone(UTC)
        return cls(day, midnight, datetime.combine(day + timedelta(days=1), time(), zone).astimezone(UTC))
