"""Checks the archive: its rows, its columns, and the dead events that should be in it."""

from datetime import datetime

from dlq_pipelines.postgres.connect import Connection


def count_archive_rows(connection: Connection) -> int:
    """Return the number of rows in the archive; above a million the planner's estimate."""
    return int(connection.fetch_one("archive.rows")["rows"])


def list_column_differences(connection: Connection) -> list[str]:
    """Return a sentence for each column of the outbox that the archive lacks or has otherwise."""
    return [
        f"{row['column']} {row['type']} is archived as {row['archived_as'] or 'nothing'}"
        for row in connection.run("archive.columns_lacking")
    ]


def count_overdue_events(connection: Connection, *, before: datetime) -> int:
    """Return how many events that died before this time could be archived and are not."""
    found = connection.fetch_one("archive.count_movable", before=before, times=None)
    return int(found["events"])
