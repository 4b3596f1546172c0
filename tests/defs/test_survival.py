"""Outages of a production instance, in short; `make drill` has all of them."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from dlq_pipelines.defs.runs import clean_up_runs
from tests.defs.conftest import OUTBOX
from tests.production import run_production


def test_a_fix_is_released_once_although_the_database_and_the_daemon_were_away(
    tmp_path: Path,
) -> None:
    """The units of deploy/systemd, restarted as systemd does."""
    with run_production(tmp_path) as running:
        running.wait_for_release(running.flag("before"))
        code, daemon = running.units
        running.stop_database(5)
        fix = running.flag("after")
        daemon.kill()
        running.wait_for_release(fix)
        assert daemon.starts >= 2
        assert code.starts == 1
        with running.instance() as instance:
            # The clean-up finds the runs of the daemon by their tag; of two runs of fixes neither
            # holds a latest record.
            before = datetime.now(UTC) + timedelta(minutes=1)
            assert clean_up_runs(instance, OUTBOX, before=before, dry_run=True).deleted >= 2
