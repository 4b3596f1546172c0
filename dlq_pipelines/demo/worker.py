"""Runs the workers that deliver the shop's events.

`Worker` is the loop of every application with an outbox: fetch, deliver, record the result. It does
not depend on the shop. `drain_outbox` and `run_workers` run several workers, each in a thread with
its own connections.
"""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Self

from dlq_pipelines.demo.handlers import Handlers
from dlq_pipelines.outbox.event import OutboxEvent
from dlq_pipelines.postgres.connect import Database
from dlq_pipelines.repository import OutboxRepository

_BATCH: Final = 50
_IDLE_SECONDS: Final = 0.1
# Events that a killed demo had fetched fall due again after this time.
_LEASE_SECONDS: Final = 30


@dataclass(frozen=True)
class WorkResult:
    """Delivered events and failed attempts; an event that dies fails all of its attempts."""

    delivered: int = 0
    failed: int = 0

    def __add__(self, other: Self) -> Self:
        return type(self)(self.delivered + other.delivered, self.failed + other.failed)


class Worker:
    """One worker.

    Args:
        repository: used by this worker only.
        deliver: delivers one event and raises if it cannot.
        batch_size: events to fetch at a time. Default 50: at a millisecond each, a batch ends long
            before its lease.
    """

    def __init__(
        self,
        repository: OutboxRepository,
        deliver: Callable[[OutboxEvent], None],
        *,
        batch_size: int = _BATCH,
    ) -> None:
        self._repository = repository
        self._deliver = deliver
        self._batch_size = batch_size

    def run_until_idle(self) -> WorkResult:
        """Work until no event is due. Another worker may still hold events."""
        total = WorkResult()
        while (worked := self.run_batch()) != WorkResult():
            total += worked
        return total

    def run(self, stop: threading.Event, *, idle_seconds: float = _IDLE_SECONDS) -> WorkResult:
        """Work until `stop` is set; poll every `idle_seconds`. Finishes the batch in progress."""
        total = WorkResult()
        while not stop.is_set():
            worked = self.run_batch()
            total += worked
            if worked == WorkResult():
                stop.wait(idle_seconds)
        return total

    def run_batch(self) -> WorkResult:
        """Fetch a batch and try to deliver each of its events once."""
        events = self._repository.fetch_pending(self._batch_size)
        delivered = sum(self._attempt(event) for event in events)
        return WorkResult(delivered, len(events) - delivered)

    def _attempt(self, event: OutboxEvent) -> bool:
        try:
            self._deliver(event)
        except Exception:  # noqa: BLE001  # any error is a failed attempt
            self._repository.mark_retry(event.id)
            return False
        self._repository.mark_success(event.id)
        return True


def drain_outbox(database: Database, handlers: Handlers, *, workers: int = 3) -> WorkResult:
    """Deliver all due events with this many workers; failed attempts are repeated without delay.

    Raises:
        DatabaseUnavailableError: no server answers.
    """
    return _run(database, handlers, Worker.run_until_idle, workers=workers)


@contextmanager
def run_workers(database: Database, handlers: Handlers, *, workers: int = 3) -> Iterator[None]:
    """Run this many workers for the length of a `with` block.

    Raises:
        DatabaseUnavailableError: no server answers; raised at the end of the block.
    """
    stop = threading.Event()
    with ThreadPoolExecutor(1) as background:
        crew = background.submit(
            _run, database, handlers, lambda worker: worker.run(stop), workers=workers
        )
        try:
            yield
        finally:
            stop.set()
        crew.result()


def _run(
    database: Database, handlers: Handlers, work: Callable[[Worker], WorkResult], *, workers: int
) -> WorkResult:
    with ThreadPoolExecutor(workers, thread_name_prefix="demo-worker") as crew:
        shifts = [crew.submit(_shift, database, handlers, work) for _ in range(workers)]
        return sum((shift.result() for shift in shifts), WorkResult())


def _shift(
    database: Database, handlers: Handlers, work: Callable[[Worker], WorkResult]
) -> WorkResult:
    repository = OutboxRepository(
        database.url, retry_backoff_seconds=0, lease_seconds=_LEASE_SECONDS, names=database.names
    )
    with repository, database.connect() as connection:
        return work(Worker(repository, lambda event: handlers.handle(connection, event)))
