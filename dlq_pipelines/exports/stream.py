"""How do deaths leave PostgreSQL as Arrow batches, however many there are?

ADBC reads PostgreSQL's binary COPY. The server sends as fast as it is read, so memory stays that of a batch.
"""

from collections.abc import Generator

import adbc_driver_postgresql.dbapi as adbc
import pyarrow as pa
import pyarrow.compute as pc

from dlq_pipelines.errors import DatabaseUnavailableError
from dlq_pipelines.exports.formats import EXPORT_SCHEMA
from dlq_pipelines.outbox.selection import Selection
from dlq_pipelines.postgres.connect import Connection

_LOCK_TIMEOUT = "5s"
_BATCH_BYTES = 4 * 2**20


def stream_deaths(
    connection: Connection, *, url: str, selection: Selection, limit: int | None = None
) -> Generator[pa.RecordBatch]:
    """The deaths that a selection means as batches of `SCHEMA`, by time and id, however long that takes.

    Args:
        connection: writes the values into the statement; is not used for more.
        url: the same database, for the stream's own connection.
        selection: which deaths.
        limit: how many at most, the oldest; None: all.

    Raises:
        DatabaseUnavailableError: the stream broke off.
    """
    configure = connection.render_query(
        "session.configure", statement_timeout="0", lock_timeout=_LOCK_TIMEOUT
    )
    ids = selection.event_ids
    statement = connection.render_query(
        "export.deaths",
        cause=selection.cause,
        event_type=selection.event_type,
        aggregate_type=selection.aggregate_type,
        error_contains=selection.error_contains,
        attempts=selection.attempts,
        since=selection.since,
        until=selection.until,
        event_ids=None if ids is None else list(ids),
        limit=limit,
    )
    try:
        with adbc.connect(url) as stream, stream.cursor() as cursor:
            cursor.execute(connection.render_query("session.one_moment"))
            cursor.execute(configure)
            cursor.fetchall()
            cursor.execute(connection.render_query("export.causes"))
            causes = cursor.fetch_arrow_table().combine_chunks()
            cursor.adbc_statement.set_options(
                **{"adbc.postgresql.batch_size_hint_bytes": str(_BATCH_BYTES)}
            )
            cursor.execute(statement)
            for batch in cursor.fetch_record_batch():
                if batch.num_rows:
                    yield _named(batch, causes)
    except (
        adbc.Error,
        OSError,
    ):  # an OSError where the connection breaks in the middle of the stream
        raise DatabaseUnavailableError(
            "The stream from PostgreSQL broke off: the server went away, or a table was locked. Export again."
        ) from None


def _named(batch: pa.RecordBatch, causes: pa.Table) -> pa.RecordBatch:
    """The batch with what its fingerprints are called, in the order of `SCHEMA`."""
    found = pc.index_in(
        batch.column("fingerprint"), value_set=causes.column("fingerprint").combine_chunks()
    )
    columns = [
        batch.column(name)
        if name in batch.schema.names
        else causes.column(name).combine_chunks().take(found)
        for name in EXPORT_SCHEMA.names
    ]
    return pa.RecordBatch.from_arrays(columns, EXPORT_SCHEMA.names).cast(EXPORT_SCHEMA)
