"""How are the shop's events delivered: by how many workers, and when is there nothing left to do?

`Worker` is the loop that every application with an outbox has: fetch, deliver, report. It knows nothing of the shop.
`drain` and `working` run several of them, each in a thread with connections of its own.
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
# What a killed demo had fetched is due again after this time.
_LEASE_SECONDS: Final = 30


@dataclass(frozen=True)
class WorkResult:
    """What a worker did: events delivered, and attempts that failed (of an event that dies, every one)."""

    delivered: int = 0
    failed: int = 0

    def __add__(self, other: Self) -> Self:
        return type(self)(self.delivered + other.delivered, self.failed + other.failed)


class Worker:
    """One worker.

    Args:
        repository: of this worker alone.
        deliver: does the work for one event and raises if it cannot.
        batch_size: events fetched at a time. Default 50: at a millisecond each, far below any lease.
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
        """Work until nothing is due. Another worker may still hold events at that moment."""
        total = WorkResult()
        while (worked := self.run_batch()) != WorkResult():
            total += worked
        return total

    def run(self, stop: threading.Event, *, idle_seconds: float = _IDLE_SECONDS) -> WorkResult:
        """Work, looking again every `idle_seconds` when nothing is due, until `stop` is set; a batch is finished."""
        total = WorkResult()
        while not stop.is_set():
            worked = self.run_batch()
            total += worked
            if worked == WorkResult():
                stop.wait(idle_seconds)
        return total

    def run_batch(self) -> WorkResult:
        """Fetch one batch and bring each of its events to an end or to its next attempt."""
        events = self._repository.fetch_pending(self._batch_size)
        delivered = sum(self._attempt(event) for event in events)
        return WorkResult(delivered, len(events) - delivered)

    def _attempt(self, event: OutboxEvent) -> bool:
        try:
            self._deliver(event)
        except Exception:  # noqa: BLE001 - whatever a handler raises is why the event was not delivered
            self._repository.mark_retry(event.id)
            return False
        self._repository.mark_success(event.id)
        return True


def drain_outbox(database: Database, handlers: Handlers, *, workers: int = 3) -> WorkResult:
    """Deliver everything that is due with this many workers at once; failed attempts are repeated without a pause.

    Raises:
        DatabaseUnavailableError: no server answers.
    """
    return _run(database, handlers, Worker.run_until_idle, workers=workers)


@contextmanager
def run_workers(database: Database, handlers: Handlers, *, workers: int = 3) -> Iterator[None]:
    """Have this many workers deliver whatever falls due, for the length of a `with` block.

    Raises:
        DatabaseUnavailableError: no server answers, said at the block's end.
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
