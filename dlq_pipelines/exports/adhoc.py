"""Exports selected deaths to one file, uncompressed, with the columns of the daily export.

Deaths without a cause are included. The file may be a pipe.
"""

from collections.abc import Callable
from contextlib import closing

import pyarrow as pa

from dlq_pipelines.exports.export import write_batches
from dlq_pipelines.exports.formats import ExportWriter
from dlq_pipelines.exports.redact import Redaction
from dlq_pipelines.exports.stream import stream_deaths
from dlq_pipelines.outbox.selection import Selection
from dlq_pipelines.postgres.connect import Connection


def export_selected(
    connection: Connection,
    *,
    url: str,
    selection: Selection,
    writer: ExportWriter,
    redaction: Redaction,
    progress: Callable[[int], None] = lambda _: None,
    limit: int | None = None,
) -> int:
    """Write the selected deaths to an open file, which stays open; return their number.

    Args:
        connection: to the ledger.
        url: the same database, for the stream.
        selection: the deaths.
        writer: of the file.
        redaction: what is hidden, as in the daily export.
        progress: called after each batch with the number of deaths read so far.
        limit: the maximum number of deaths, the earliest first; None: all.

    Raises:
        NotFoundError: the selection names a cause that does not exist.
        RefusedError: it names a cause that is merged into another one.
        DatabaseUnavailableError: the stream broke off; the file is incomplete.
        OSError: the file cannot be written.
    """
    rows = 0

    def count(batch: pa.RecordBatch) -> None:
        nonlocal rows
        rows += batch.num_rows
        progress(rows)

    deaths = stream_deaths(connection, url=url, selection=selection, limit=limit)
    try:
        with closing(deaths) as batches:
            write_batches(map(redaction.redact_batch, batches), [writer], count)
        writer.close({f"dlq.{name}": str(value) for name, value in selection.to_json().items()})
    except BaseException:
        writer.abandon()
        raise
    return rows
