"""How do deaths leave PostgreSQL as Arrow batches, however many there are?

ADBC reads PostgreSQL's binary COPY. The server sends as fast as it is read, so memory stays that of a batch.
"""

from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

import adbc_driver_postgresql.dbapi as adbc
import pyarrow as pa

from dlq_pipelines.errors import DatabaseUnavailableError
from dlq_pipelines.exports.formats import SCHEMA
from dlq_pipelines.postgres.connect import Connection

_LOCK_TIMEOUT = "5s"
_BATCH_BYTES = 4 * 2**20


@dataclass(frozen=True)
class Selection:
    """Which deaths: all that these say together; None is not asked for.

    Attributes:
        cause_id: of this cause or of one that is merged into it.
        event_type: of events of this type.
        aggregate_type: of aggregates of this type.
        event_ids: of these events.
        error_contains: whose error holds this text, in this case.
        died_since: not before this moment.
        died_until: before this moment.
    """

    cause_id: str | None = None
    event_type: str | None = None
    aggregate_type: str | None = None
    event_ids: Sequence[int] | None = None
    error_contains: str | None = None
    died_since: datetime | None = None
    died_until: datetime | None = None


def stream_deaths(connection: Connection, *, url: str, selection: Selection) -> Generator[pa.RecordBatch]:
    """The deaths of a selection as batches of `SCHEMA`, in the order of their time and id, however long that takes.

    Args:
        connection: writes the values into the statement; is not used for more.
        url: the same database, for the stream's own connection.
        selection: which deaths.

    Raises:
        DatabaseUnavailableError: the stream broke off.
    """
    configure = connection.literal("session.configure", statement_timeout="0", lock_timeout=_LOCK_TIMEOUT)
    values = {**asdict(selection), "event_ids": None if selection.event_ids is None else list(selection.event_ids)}
    statement = connection.literal("export.deaths", **values)
    try:
        with adbc.connect(url) as stream, stream.cursor() as cursor:
            cursor.execute(configure)
            cursor.fetchall()
            cursor.adbc_statement.set_options(**{"adbc.postgresql.batch_size_hint_bytes": str(_BATCH_BYTES)})
            cursor.execute(statement)
            for batch in cursor.fetch_record_batch():
                if batch.num_rows:
                    yield batch.cast(SCHEMA)
    except (adbc.Error, OSError):  # an OSError where the connection breaks in the middle of the stream
        raise DatabaseUnavailableError(
            "The stream from PostgreSQL broke off: the server went away, or a table was locked. Export again."
        ) from None
