"""What the suite does under fire, in full: hundreds of kills, and a crowd on 20,000 events."""

from pathlib import Path

from dlq_pipelines.postgres.connect import Database
from tests.archive.test_fire import kill_jobs
from tests.retries.test_fire import crowded, killed_at_random


def test_fixes_survive_three_hundred_kills_and_twenty_crashes(tmp_path: Path) -> None:
    """Each target is released once."""
    killed_at_random(tmp_path, kills=300, crashes=20, count=600)


def test_archive_restore_and_purge_survive_a_hundred_kills(tmp_path: Path) -> None:
    """No event is lost or doubled."""
    kill_jobs(tmp_path, rounds=100)


def test_a_crowd_on_twenty_thousand_events_keeps_the_books(database: Database) -> None:
    """Four fixes at once."""
    crowded(database, fixes=4, count=5000)
