"""Tests how values of the database are read: far times, days and uuids."""

from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import pytest

from dlq_pipelines.day import (
    AFTER_ALL_TIMES,
    BEFORE_ALL_TIMES,
    LAST_FINITE_TIME,
    convert_to_zone,
    format_time,
)
from dlq_pipelines.postgres.connect import Connection
from tests.rows import one


@pytest.mark.parametrize(
    ("value", "expected", "shown"),
    [
        ("infinity", AFTER_ALL_TIMES, "after year 9999"),
        ("20000-01-01Z", LAST_FINITE_TIME, "after year 9999"),
        ("-infinity", BEFORE_ALL_TIMES, "before year 1"),
        ("0044-03-15 BC", BEFORE_ALL_TIMES, "before year 1"),
        ("2026-01-01Z", datetime(2026, 1, 1, tzinfo=UTC), "2025-12-31 19:00:00-05"),
    ],
)
def test_a_time_of_the_database_never_raises(
    connection: Connection, value: str, expected: datetime, shown: str
) -> None:
    """Alone and in arrays; it can also be shown in a time zone in which it overflows."""
    row = connection.execute(
        "select %s::timestamptz as at, array[%s::timestamptz] as several", [value, value]
    ).fetchone()
    assert row == {"at": expected, "several": [expected]}
    zone = ZoneInfo("America/New_York")
    assert format_time(convert_to_zone(expected, zone)) == shown


def test_a_day_of_the_database_never_raises(connection: Connection) -> None:
    row = one(
        connection,
        "select array['infinity', '-infinity', '20000-01-01', '0044-03-15 BC', '2026-01-01']"
        "::date[] as days",
    )
    assert row["days"] == [date.max, date.min, date.max, date.min, date(2026, 1, 1)]


def test_a_uuid_is_text(connection: Connection) -> None:
    """Alone, in arrays and in composite values, as ids are."""
    text = "0b0e5b0c-6c6b-4b8c-9f6c-0123456789ab"
    row = one(connection, f"select '{text}'::uuid as id, array['{text}'::uuid] as ids")
    assert row == {"id": text, "ids": [text]}
