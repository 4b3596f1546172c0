"""OutboxRepository, as a worker and as application code use it."""

import json
import re
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dlq_pipelines import OutboxRepository
from dlq_pipelines.errors import DatabaseUnavailableError
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.repository import format_error_text
from tests.rows import add_events, date_deaths, kill, one


@pytest.fixture
def repository(database: Database) -> Iterator[OutboxRepository]:
    """A repository whose retries are due at once."""
    with OutboxRepository(database.url, retry_backoff_seconds=0) as opened:
        yield opened


def test_an_event_goes_from_pending_to_done(
    connection: Connection, repository: OutboxRepository
) -> None:
    """Fetched with all its fields, then done with one attempt counted."""
    add_events(connection, 1, payload='{"total": 12345678901234567890, "name": "Zoë"}')
    (event,) = repository.fetch_pending(10)
    assert (event.id, event.aggregate_type, event.status, event.attempts) == (
        1,
        "order",
        "pending",
        0,
    )
    assert event.payload == {"total": 12345678901234567890, "name": "Zoë"}
    repository.mark_success(event.id)
    assert one(connection, "select status, attempts from outbox_event") == {
        "status": "done",
        "attempts": 1,
    }


def test_an_event_dies_after_max_attempts_with_its_traceback(
    connection: Connection, repository: OutboxRepository
) -> None:
    """Each failed attempt stores the handled exception; the fifth one records the death."""
    add_events(connection, 1)
    for _ in range(5):
        (event,) = repository.fetch_pending(1)
        try:
            payload: dict[str, str] = {}
            payload["postcode"]
        except KeyError:
            repository.mark_retry(event.id)
    assert repository.fetch_pending(1) == []
    dead = repository.get_dead_event(1)
    assert dead is not None
    assert dead.attempts == 5
    assert dead.last_error is not None
    assert dead.last_error.startswith("Traceback (most recent call last):")
    assert dead.last_error.endswith("KeyError: 'postcode'\n")
    death = one(connection, "select event_id, attempts, died_at, error, event_type from dlq.death")
    assert death == {
        "event_id": 1,
        "attempts": 5,
        "died_at": dead.dead_at,
        "error": dead.last_error,
        "event_type": "order.placed",
    }


def test_a_failed_attempt_waits_for_the_back_off(
    connection: Connection, database: Database
) -> None:
    """The status is the worker's own `retry`, due after the back-off."""
    add_events(connection, 1)
    with OutboxRepository(database.url, retry_backoff_seconds=60) as repository:
        repository.mark_retry(repository.fetch_pending(1)[0].id, "no")
        assert repository.fetch_pending(1) == []
    row = one(
        connection,
        "select status, attempts, next_run_at - now() > interval '40 s' as later from outbox_event",
    )
    assert row == {"status": "retry", "attempts": 1, "later": True}


def test_eight_workers_never_share_an_event(connection: Connection, database: Database) -> None:
    """2,000 events, eight workers in small batches: each event is handed out once."""
    add_events(connection, 2000)
    handed: Counter[int] = Counter()
    lock = threading.Lock()

    def work(_: int) -> None:
        with OutboxRepository(database.url) as repository:
            while batch := repository.fetch_pending(25):
                with lock:
                    handed.update(int(event.id) for event in batch)
                for event in batch[::2]:
                    repository.mark_success(event.id)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert len(handed) == 2000
    assert set(handed.values()) == {1}


def test_a_worker_that_dies_gives_its_events_back(
    connection: Connection, database: Database
) -> None:
    """After the lease the event is handed out again, with nothing lost."""
    add_events(connection, 1)
    with (
        OutboxRepository(database.url, lease_seconds=1) as dying,
        OutboxRepository(database.url) as other,
    ):
        assert len(dying.fetch_pending(1)) == 1
        assert other.fetch_pending(1) == []
        connection.execute("select pg_sleep(1.1)")
        assert [event.id for event in other.fetch_pending(1)] == [1]


def test_a_late_report_does_not_kill_what_is_done(
    connection: Connection, repository: OutboxRepository
) -> None:
    """Two workers with the same event after a lease: done stays done."""
    add_events(connection, 1)
    repository.fetch_pending(1)
    repository.mark_success(1)
    for _ in range(9):
        repository.mark_retry(1, "late")
    repository.mark_success(1)
    assert one(connection, "select status, attempts from outbox_event") == {
        "status": "done",
        "attempts": 1,
    }
    assert one(connection, "select count(*) from dlq.death") == {"count": 0}


def test_a_late_success_is_one_although_the_event_died_meanwhile(
    connection: Connection, repository: OutboxRepository
) -> None:
    """It was delivered; that it died stays in the ledger."""
    add_events(connection, 1)
    repository.fetch_pending(1)
    kill(connection, "a second worker, after the lease")
    repository.mark_success(1)
    assert one(connection, "select status from outbox_event") == {"status": "done"}
    assert one(connection, "select count(*) from dlq.death") == {"count": 1}


def test_the_trigger_records_deaths_of_workers_that_know_nothing_of_us(
    connection: Connection,
) -> None:
    """A plain UPDATE or INSERT to dead is a death; an update of a dead event is not."""
    add_events(connection, 2)
    connection.execute("update outbox_event set status = 'dead', attempts = 3 where id = 1")
    connection.execute("update outbox_event set status = 'dead', attempts = 4 where id = 1")
    connection.execute(
        "insert into outbox_event (id, aggregate_type, aggregate_id, event_type, payload, status)"
        " values (9, 'order', 'a', 'order.placed', '{}', 'dead'), (9, 'order', 'b',"
        " 'order.placed', '{}', 'dead')"
        " on conflict do nothing"
    )
    rows = connection.execute(
        "select d.event_id, d.attempts, d.event_created_at = e.created_at as same"
        " from dlq.death d join outbox_event e on e.id = d.event_id order by 1"
    ).fetchall()
    assert rows == [
        {"event_id": 1, "attempts": 3, "same": True},
        {"event_id": 9, "attempts": 0, "same": True},
    ]


def test_a_worker_without_rights_on_our_schema_still_records_deaths(connection: Connection) -> None:
    """The trigger writes with its owner's rights; the worker's role can read nothing of ours."""
    add_events(connection, 1)
    role = f"plain_worker_{connection.info.backend_pid}"
    connection.execute(f"create role {role}")
    connection.execute(f"grant select, update on outbox_event to {role}")
    connection.execute(f"set role {role}")
    connection.execute("update outbox_event set status = 'dead'")
    connection.execute("reset role")
    connection.execute(f"drop owned by {role}")
    connection.execute(f"drop role {role}")
    assert one(connection, "select count(*) from dlq.death") == {"count": 1}


def test_a_success_calls_nothing_of_ours(connection: Connection) -> None:
    """The triggers' conditions keep every update that is no death out of their functions."""
    add_events(connection, 1)
    called = {}
    for status in ("retry", "done", "dead"):
        plan = connection.execute(
            "explain (analyze) update outbox_event set status = %s", [status]
        ).fetchall()
        called[status] = "Trigger dlq_update" in str(plan)
    assert called == {"retry": False, "done": False, "dead": True}


def test_a_rolled_back_death_never_happened(connection: Connection) -> None:
    """The death is in the worker's own transaction."""
    add_events(connection, 1)
    with connection.transaction(force_rollback=True):
        connection.execute("update outbox_event set status = 'dead'")
        assert one(connection, "select count(*) from dlq.death") == {"count": 1}
    assert one(connection, "select count(*) from dlq.death") == {"count": 0}


def test_lists_and_counts_share_their_filters(
    connection: Connection, repository: OutboxRepository
) -> None:
    """Last death first; `since` means dead after that moment."""
    add_events(connection, 6)
    connection.execute(
        "update outbox_event set event_type = 'order.paid', aggregate_type = 'payment' where id > 4"
    )
    kill(connection, "boom")
    middle = one(connection, "select died_at from dlq.death where event_id = 3")["died_at"]
    assert [event.id for event in repository.fetch_dead_events()] == [6, 5, 4, 3, 2, 1]
    assert [event.id for event in repository.fetch_dead_events(limit=2, offset=1)] == [5, 4]
    assert [event.id for event in repository.fetch_dead_events(event_type="order.paid")] == [6, 5]
    assert [event.id for event in repository.fetch_dead_events(aggregate_type="order")] == [
        4,
        3,
        2,
        1,
    ]
    assert [event.id for event in repository.fetch_dead_events(since=middle)] == [6, 5, 4]
    assert repository.count_dead_events() == 6
    assert repository.count_dead_events(event_type="order.paid") == 2
    assert repository.count_dead_events("order", "order.placed", middle) == 1


def test_retrying_resets_attempts_and_keeps_the_history(
    connection: Connection, repository: OutboxRepository
) -> None:
    """It is pending once, without attempts; the ledger keeps both deaths and the retry."""
    add_events(connection, 2)
    kill(connection, "boom", attempts=5)
    assert repository.retry_dead_event(1) is True
    assert repository.retry_dead_event(1) is False
    assert repository.retry_dead_event(99) is False
    row = one(connection, "select status, attempts, last_error from outbox_event where id = 1")
    assert row == {"status": "pending", "attempts": 0, "last_error": "boom"}
    kill(connection, "boom again", where="id = 1")
    ledger = connection.execute(
        "select error from dlq.death where event_id = 1 order by id"
    ).fetchall()
    assert [row["error"] for row in ledger] == ["boom", "boom again"]
    assert repository.retry_dead_events_batch([1, 2, 2, 77]) == 2
    assert one(connection, "select count(*) from dlq.retry") == {"count": 3}
    audit = connection.execute("select kind, actor, events from dlq.audit order by id").fetchall()
    assert [(row["kind"], row["events"]) for row in audit] == [
        ("retry.selected", 1),
        ("retry.selected", 2),
    ]


def test_cleaning_up_archives_and_deletes_nothing(
    connection: Connection, repository: OutboxRepository
) -> None:
    """Old dead events are in the archive as they were; young ones stay."""
    add_events(connection, 3)
    kill(connection, "boom")
    date_deaths(connection, "died_at - interval '40 days'", where="event_id < 3")
    before = connection.execute("select * from outbox_event where id < 3 order by id").fetchall()
    assert repository.cleanup_old_dead_events() == 2
    assert repository.cleanup_old_dead_events() == 0
    after = connection.execute("select * from dlq.archived order by id").fetchall()
    assert [{key: row[key] for key in before[0]} for row in after] == before
    assert one(connection, "select count(*) from outbox_event") == {"count": 1}


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda r: r.fetch_pending(0), "batch_size"),
        (lambda r: r.fetch_pending(True), "batch_size"),
        (lambda r: r.fetch_dead_events(limit=0), "limit"),
        (lambda r: r.fetch_dead_events(offset=-1), "offset"),
        (lambda r: r.fetch_dead_events(since=datetime(2026, 1, 1)), "since"),  # noqa: DTZ001
        (lambda r: r.mark_success(-(2**63) - 1), "event_id"),
        (lambda r: r.mark_retry(2**63), "event_id"),
        (lambda r: r.get_dead_event(" "), "event_id"),
        (lambda r: r.retry_dead_event(True), "event_id"),
        (lambda r: r.retry_dead_events_batch([]), "ids"),
        (lambda r: r.retry_dead_events_batch([1, "x\x00"]), "ids"),
        (lambda r: r.cleanup_old_dead_events(-1), "older_than_days"),
    ],
)
def test_a_bad_argument_is_named_and_changes_nothing(
    connection: Connection, repository: OutboxRepository, call: Any, named: str
) -> None:
    """ValueError with the argument's name."""
    add_events(connection, 1)
    kill(connection, "boom")
    before = connection.execute("select * from outbox_event").fetchall()
    with pytest.raises(ValueError, match=named):
        call(repository)
    assert connection.execute("select * from outbox_event").fetchall() == before


@pytest.mark.parametrize(
    "argument",
    ["retry_backoff_seconds", "connect_timeout", "query_timeout", "max_attempts", "lease_seconds"],
)
def test_a_bad_setting_is_named(database: Database, argument: str) -> None:
    """The constructor checks before it connects."""
    with pytest.raises(ValueError, match=argument):
        OutboxRepository(database.url, **{argument: -1})  # type: ignore[arg-type]


def test_a_worker_outlives_a_dropped_connection(
    connection: Connection, repository: OutboxRepository
) -> None:
    """The server ends the session between two calls: the next call connects again."""
    add_events(connection, 1)
    connection.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database()"
        " and pid <> pg_backend_pid()"
    )
    assert repository.is_connected() is False
    assert [event.id for event in repository.fetch_pending(1)] == [1]
    assert repository.is_connected() is True


def test_a_closed_repository_says_so(database: Database) -> None:
    """Closing is final and can be repeated."""
    repository = OutboxRepository(database.url)
    repository.close()
    repository.close()
    assert repository.is_connected() is False
    with pytest.raises(DatabaseUnavailableError, match="closed"):
        repository.fetch_pending(1)


def test_an_unreachable_server_is_said_without_the_password() -> None:
    """The message names the next step and no secret."""
    with pytest.raises(DatabaseUnavailableError, match="dlq migrate --check") as raised:
        OutboxRepository("postgresql://worker:s3cret@127.0.0.1:1/shop")
    assert "s3cret" not in str(raised.value)
    with pytest.raises(DatabaseUnavailableError, match="not a connection string") as raised:
        OutboxRepository("postgres//worker:s3cret@host")
    assert "s3cret" not in str(raised.value)


def test_an_error_text_is_made_storable_and_bounded(
    connection: Connection, repository: OutboxRepository
) -> None:
    """NUL, lone surrogates and a megabyte of text are stored; type and root stay at both ends."""
    add_events(connection, 1)
    text = "Head\x00\ud800" + "x" * 1_000_000 + "ValueError: tail"
    repository.mark_retry(1, text)
    stored = one(connection, "select last_error from outbox_event")["last_error"]
    assert len(stored) < 66_000
    assert stored.startswith("Head\\x00\\ud800")
    assert stored.endswith("ValueError: tail")
    assert format_error_text(None) is None


@pytest.mark.parametrize("payload", ["[" * 12_000 + "]" * 12_000, '{"n": 1' + "0" * 5000 + "}"])
def test_a_payload_that_python_cannot_read_keeps_a_worker_from_no_other(
    connection: Connection, repository: OutboxRepository, payload: str
) -> None:
    """It is returned as text. How deep Python parses depends on its version."""
    add_events(connection, 3)
    connection.execute("update outbox_event set payload = %s::jsonb where id = 2", [payload])
    try:
        read = json.loads(payload)
    except (RecursionError, ValueError):
        read = payload
    first, second, third = repository.fetch_pending(10)
    assert (first.payload, third.payload) == ({}, {})
    assert type(second.payload) is type(read)
    assert isinstance(read, list) or second.payload == read  # lists so deep cannot be compared


def test_a_chained_exception_keeps_its_chain(
    connection: Connection, repository: OutboxRepository
) -> None:
    """What was raised from what is in the text."""
    add_events(connection, 1)
    try:
        try:
            int("x")
        except ValueError as error:
            raise RuntimeError("no total") from error
    except RuntimeError:
        repository.mark_retry(1)
    stored = one(connection, "select last_error from outbox_event")["last_error"]
    assert "invalid literal for int()" in stored
    assert stored.endswith("RuntimeError: no total\n")


def test_polling_uses_the_workers_index_and_lists_use_ours(connection: Connection) -> None:
    """Neither reads the delivered events, however many there are."""
    connection.execute(
        "insert into outbox_event (aggregate_type, aggregate_id, event_type, payload, status)"
        " select 'order', n::text, 'order.placed', '{}', case when n % 100 = 0 then 'dead' else"
        " 'done' end"
        " from generate_series(1, 20000) n"
    )
    connection.execute("analyze")
    filters = {
        "aggregate_type": None,
        "event_type": None,
        "since": datetime.now(UTC) - timedelta(days=1),
    }
    for name, values in (
        ("outbox.fetch_pending", {"limit": 100, "lease": 60}),
        ("outbox.dead_events", {"limit": 100, "offset": 0, **filters}),
        ("outbox.count_dead_events", filters),
        ("reconcile.observe", {}),
    ):
        plan = connection.execute(
            f"explain {connection.render_query(name, **values)}".encode()
        ).fetchall()
        text = "\n".join(row["QUERY PLAN"] for row in plan)
        assert "Seq Scan on outbox_event" not in text, f"{name}\n{text}"
        if name == "outbox.fetch_pending":
            # A join by id would walk the key from the smallest id, past all dead index entries.
            assert re.search(r"Index Cond: \(?\(?id = ANY", text), text
            assert not re.search(r"Tid Scan|Merge Join", text), text
