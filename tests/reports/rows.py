"""Inserts deaths and causes into the ledger, for tests of single figures."""

from datetime import datetime

from dlq_pipelines.postgres.connect import Connection


def add_cause(
    connection: Connection, cause: str, exception: str = "TimeoutError", template: str = "no answer"
) -> None:
    """Insert a cause without deaths."""
    connection.execute(
        "insert into dlq.cause (id, exception_type, template, first_seen, last_seen)"
        " values (%s, %s, %s, 'infinity', '-infinity')",
        [cause, exception, template],
    )


def add_death(
    connection: Connection,
    at: datetime,
    *,
    cause: str | None = None,
    event: int = 1,
    event_type: str = "OrderPlaced",
    aggregate: str = "1",
    error: str | None = "boom",
    detail: str = "",
) -> None:
    """Insert a death whose event was delivered since."""
    connection.execute(
        "insert into dlq.death (event_id, aggregate_type, aggregate_id, event_type, attempts,"
        " died_at, error, cause_id, detail)"
        " values (%s, 'order', %s, %s, 5, %s, %s, %s, %s)",
        [event, aggregate, event_type, at, error, cause, None if cause is None else detail],
    )


def count_again(connection: Connection, zone: str = "Europe/Berlin") -> None:
    """Update rollup and catalogue from the ledger, as the classification does."""
    connection.execute("truncate dlq.cause_day, dlq.cause_detail")
    connection.execute(
        "insert into dlq.cause_day (day, cause_id, event_type, aggregate_type, deaths)"
        " select (died_at at time zone %s)::date, cause_id, event_type, aggregate_type, count(*)"
        " from dlq.death"
        " where cause_id is not null group by 1, 2, 3, 4",
        [zone],
    )
    connection.execute(
        "update dlq.cause c set first_seen = d.first, last_seen = d.last from"
        " (select cause_id, min(died_at) as first, max(died_at) as last"
        " from dlq.death group by 1) d"
        " where d.cause_id = c.id"
    )
    connection.execute(
        "insert into dlq.cause_detail (cause_id, detail, first_seen, last_seen, deaths)"
        " select cause_id, detail, min(died_at), max(died_at), count(*) from dlq.death"
        " where detail <> '' group by 1, 2"
    )
