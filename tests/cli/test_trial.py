"""Tests what `dlq try` prints, and that the command it ends with repeats what was given."""

import csv
import io
from pathlib import Path

import pytest

from dlq_pipelines.postgres.connect import Connection
from tests.cli.conftest import Run, read_json
from tests.rows import add_events, kill


@pytest.fixture
def orders(connection: Connection) -> Connection:
    """An outbox of another name, whose worker writes a state that nobody knows."""
    add_events(connection, 12, payload='{"acquirer": "northbank"}')
    kill(connection, "KeyError: 'postcode'")
    connection.execute("update outbox_event set status = 'stuck'")
    connection.execute('create schema shop; create table shop."My Outbox" (like outbox_event)')
    connection.execute('insert into shop."My Outbox" select * from outbox_event')
    connection.execute('alter table shop."My Outbox" add primary key (id)')
    return connection


@pytest.mark.usefixtures("orders")
def test_an_unknown_state_is_named_with_what_to_do(dlq: Run) -> None:
    ended = dlq("try", "--table", "shop.My Outbox")
    assert "0 dead events of 12 events" in ended.out
    assert "Other states: stuck (12). If the worker has given up" in ended.out
    ended = dlq("try", "--table", "shop.My Outbox", "--dead", "nosuch")
    assert "No row has the state nosuch." in ended.out


@pytest.mark.usefixtures("orders")
def test_the_next_command_repeats_what_was_given(dlq: Run) -> None:
    ended = dlq("try", "--table", "shop.My Outbox", "--dead", "stuck", "--delivered", "done")
    assert "12 dead events of 12 events" in ended.out
    assert "KeyError: 'postcode'" in ended.out
    wanted = "  dlq adopt 'shop.My Outbox' --dead stuck --delivered done --write outbox.toml\n"
    assert ended.out.endswith(wanted)


def test_the_reference_table_needs_no_mapping(dlq: Run, connection: Connection) -> None:
    add_events(connection, 2)
    kill(connection, "KeyError: 'postcode'")
    ended = dlq("try")
    assert ended.out.endswith("\nNothing was written. Next:\n  dlq migrate --plan\n")
    assert ended.err == ""
    (row,) = csv.DictReader(io.StringIO(dlq("try", "--format", "csv").out))
    assert (row["title"], row["dead"]) == ("KeyError: 'postcode'", "2")
    assert read_json(dlq("try", "--json"))["dead"] == 2


def test_several_candidates_are_named_so_that_they_can_be_copied(
    dlq: Run, orders: Connection
) -> None:
    orders.execute("update outbox_event set status = 'dead'")
    orders.execute("""update shop."My Outbox" set status = 'dead'""")
    ended = dlq("try")
    assert ended.code == 4
    assert "`dlq try --table public.outbox_event`" in ended.err
    orders.execute("drop table outbox_event cascade")
    assert "12 dead events" in dlq("try").out


def test_an_error_names_where_the_url_was_given(
    dlq: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without any URL no server is started: a new one has no application."""
    wrong = dlq("try", "postgres//shop:s3cret@host/shop")
    assert wrong.err.startswith("dlq: The argument URL is not a connection string. Write postgres")
    assert "s3cret" not in wrong.err
    closed = dlq("try", "postgresql://shop@127.0.0.1:1/shop")
    assert closed.err.endswith("Check the argument URL and the server, then run `dlq try`.\n")
    monkeypatch.setenv("DLQ_DATABASE_URL", "postgresql://shop@127.0.0.1:1/shop")
    assert "Check DLQ_DATABASE_URL and the server, then run `dlq try`." in dlq("try").err
    monkeypatch.delenv("DLQ_DATABASE_URL")
    none = dlq("try")
    assert (none.code, "dlq try postgresql://user@host/name" in none.err) == (2, True)
    assert not (home / "postgres").exists()


@pytest.mark.usefixtures("orders")
def test_a_mapping_or_the_column_of_the_state_can_be_given(dlq: Run, tmp_path: Path) -> None:
    by_column = dlq("try", "--table", "shop.My Outbox", "--state", "status", "--dead", "stuck")
    assert "12 dead events of 12 events" in by_column.out
    assert by_column.out.endswith(
        "  dlq adopt 'shop.My Outbox' --state status --dead stuck --write outbox.toml\n"
    )
    file = tmp_path / "outbox.toml"
    options = ["--state", "status", "--dead", "stuck", "--write", str(file)]
    assert dlq("adopt", "shop.My Outbox", *options).code == 0
    by_file = dlq("try", "--mapping", str(file))
    assert "12 dead events of 12 events" in by_file.out
    assert by_file.out.endswith(f"  export DLQ_OUTBOX_MAPPING={file}\n  dlq migrate --plan\n")
    other = dlq("try", "--table", "outbox_event", "--mapping", str(file))
    assert "  export DLQ_OUTBOX_SCHEMA=public DLQ_OUTBOX_TABLE=outbox_event\n" in other.out
    both = dlq("try", "--mapping", str(file), "--dead", "stuck")
    assert (both.code, "Leave out --state, --dead and --delivered" in both.err) == (2, True)
    absent = dlq("adopt", "shop.My Outbox", "--state", "phase")
    assert (absent.code, "has no column 'phase'. Its columns: id, " in absent.err) == (3, True)
