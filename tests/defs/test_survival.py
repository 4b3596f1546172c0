"""What production does to it, in short; tests/drills/drill_survival.py takes the time for all of it."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from dlq_pipelines.defs.runs import clean_up_runs
from tests.production import production


def test_a_fix_is_released_once_though_the_database_was_away_and_the_daemon_killed(
    tmp_path: Path,
) -> None:
    """The units of deploy/systemd, started again as systemd does."""
    with production(tmp_path) as running:
        running.wait_for_release(running.flag("before"))
        code, daemon = running.units
        running.take_the_database_away(5)
        fix = running.flag("after")
        daemon.kill()
        running.wait_for_release(fix)
        assert daemon.starts >= 2
        assert code.starts == 1
        with running.instance() as instance:
            # What the daemon launches is known as ours by the clean-up: of two steps of fixes neither is a last word.
            before = datetime.now(UTC) + timedelta(minutes=1)
            assert clean_up_runs(instance, before=before, dry_run=True).deleted >= 2
