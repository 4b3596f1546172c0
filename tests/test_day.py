"""Tests times that people write relative to now."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from dlq_pipelines.day import parse_past_time

BERLIN = ZoneInfo("Europe/Berlin")
# Half an hour after the clocks went back in Berlin.
NOW = datetime(2026, 10, 25, 1, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("30m", datetime(2026, 10, 25, 1, 0, tzinfo=UTC)),
        ("2h", datetime(2026, 10, 24, 23, 30, tzinfo=UTC)),
        ("24H", datetime(2026, 10, 24, 1, 30, tzinfo=UTC)),
        ("1d", datetime(2026, 10, 24, 1, 30, tzinfo=UTC)),
        (" 1w ", datetime(2026, 10, 18, 1, 30, tzinfo=UTC)),
        ("0m", NOW),
        ("today", datetime(2026, 10, 24, 22, 0, tzinfo=UTC)),
        ("Yesterday", datetime(2026, 10, 23, 22, 0, tzinfo=UTC)),
        ("2026-10-25", datetime(2026, 10, 24, 22, 0, tzinfo=UTC)),
        ("2026-10-25T12:00", datetime(2026, 10, 25, 11, 0, tzinfo=UTC)),
    ],
)
def test_a_time_before_now_or_a_day_by_its_name(text: str, expected: datetime) -> None:
    """Hours are real ones, and days begin at midnight of the time zone."""
    assert parse_past_time("since", text, BERLIN, now=NOW) == expected


@pytest.mark.parametrize(
    "text", ["", "2", "h", "-2h", "2 h", "2y", "1.5h", "tomorrow", "999999w", "9999999h", "٢h"]
)
def test_another_text_is_refused_by_name(text: str) -> None:
    with pytest.raises(ValueError, match=r"^since: "):
        parse_past_time("since", text, BERLIN, now=NOW)
