"""Delivers 20,000 dead events of one aggregate, one after the other, by a running installation."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dlq_pipelines.audit import AuditContext
from dlq_pipelines.outbox.selection import Selection
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.retries.fixes import FixFlag, flag_fix, get_fix, get_stage_outcomes
from tests.production import run_production
from tests.retries.helpers import CAUSE, chain, get_now

EVENTS = int(os.environ.get("EVENTS") or 20_000)
# Of the time from the canary to the end, in which a run follows the aggregate.
MOST_OF = 0.8
DELIVER = """
    update outbox_event set status = 'done' where id in (
        select id from outbox_event
        where status in ('pending', 'retry') and next_run_at <= now()
        order by next_run_at limit 50 for update skip locked)
    returning id
"""


@contextmanager
def delivering(database: Database) -> Iterator[list[int]]:
    """Run a worker that delivers each event as soon as it is due; yield the ids in that order."""
    stop, order = threading.Event(), list[int]()

    def work() -> None:
        with database.connect() as own:
            while not stop.is_set():
                taken = [row["id"] for row in own.execute(DELIVER)]
                order.extend(taken)
                if not taken:
                    time.sleep(0.001)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield order
    finally:
        stop.set()
        thread.join()


def wait_for_end(connection: Connection, fix_id: int) -> float:
    """Wait until a fix has ended; return the seconds since its first release."""
    began = None
    while (fix := get_fix(connection, fix_id)).closed_at is None:
        if began is None and fix.stage:
            began = time.monotonic()
        time.sleep(0.05)
    assert began is not None
    return time.monotonic() - began


def test_an_aggregate_is_followed_most_of_the_time(tmp_path: Path) -> None:
    """Dagster's sensor, its runs and their pauses included; the figures are printed."""
    with (
        run_production(tmp_path, DLQ_RETRY_RATE="100000") as running,
        running.database.connect() as connection,
    ):
        chain(connection, EVENTS)
        audit = AuditContext("ann", "fixed", get_now())
        fix = flag_fix(connection, FixFlag(Selection(cause=CAUSE)), audit=audit)
        with delivering(running.database) as order:
            seconds = wait_for_end(connection, fix.id)
        delivered = sum(
            stage.delivered for stage in get_stage_outcomes(connection, fix.id).values()
        )
        assert (get_fix(connection, fix.id).status, delivered) == ("verified", EVENTS)
        # Of one aggregate, so the worker took one at a time.
        assert order == sorted(order)
        with running.instance() as instance:
            runs = [instance.get_run_stats(run.run_id) for run in running.list_runs(fix.id)]
    ran = [run.end_time - run.start_time for run in runs if run.end_time and run.start_time]
    print(
        f"\n{EVENTS:,} events of one aggregate in {seconds:.0f} s, {EVENTS / seconds:.1f} a second;"
        f" runs of {', '.join(f'{length:.0f}' for length in ran)} s"
    )
    # The rate is that of the machine; the pauses between runs are not.
    assert sum(ran) >= MOST_OF * seconds
