"""How does a person get some deaths into one file, now, with the columns of the daily export?

Uncompressed, and into any open file, so that it can be piped on. Deaths that have no cause yet are among them.
"""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import BinaryIO

import pyarrow as pa

from dlq_pipelines.exports.export import write_batches
from dlq_pipelines.exports.formats import create_writer
from dlq_pipelines.exports.redact import Redaction
from dlq_pipelines.exports.stream import stream_deaths
from dlq_pipelines.outbox.selection import Selection, list_cause_members
from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.settings import ExportFormat


@dataclass
class _Count:
    """Tells how many rows have passed."""

    tell: Callable[[int], None]
    rows: int = 0

    def add(self, batch: pa.RecordBatch) -> None:
        self.rows += batch.num_rows
        self.tell(self.rows)


def export_selected(
    connection: Connection,
    *,
    url: str,
    selection: Selection,
    format: ExportFormat,
    file: BinaryIO,
    redaction: Redaction,
    progress: Callable[[int], None],
    limit: int | None = None,
) -> int:
    """Write the deaths that a selection means into an open file, which stays open; returns how many.

    Args:
        connection: the ledger's database.
        url: the same database, for the stream.
        selection: which deaths.
        format: of the file.
        file: written from where it stands, never read or sought.
        redaction: what is hidden, as in the daily export.
        progress: is told how many deaths were read so far, a few thousand at a time.
        limit: how many at most, the oldest; None: all.

    Raises:
        NotFoundError: the selection names a cause that does not exist.
        RefusedError: it names a cause that is merged into another.
        DatabaseUnavailableError: the stream broke off; the file is not whole.
        OSError: the file cannot be written.
    """
    if selection.cause is not None:
        list_cause_members(connection, selection.cause)
    count = _Count(progress)
    one = create_writer(format, file)
    try:
        with closing(
            stream_deaths(connection, url=url, selection=selection, limit=limit)
        ) as batches:
            write_batches(map(redaction.batch, batches), [one], count.add)
        one.close({f"dlq.{name}": str(value) for name, value in selection.to_json().items()})
    except BaseException:
        one.abandon()
        raise
    return count.rows
