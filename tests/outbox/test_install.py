"""Plays each table of `shapes/` from plan to removal, with the statements of its application."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pandas as pd
import pytest

from dlq_pipelines.archive.archive import archive_dead_events
from dlq_pipelines.archive.restore import restore_events
from dlq_pipelines.audit import AuditContext
from dlq_pipelines.causes.classify import classify_deaths
from dlq_pipelines.day import Day
from dlq_pipelines.errors import RefusedError, SchemaError
from dlq_pipelines.exports.export import export_day, verify_day
from dlq_pipelines.exports.manifest import ExportOptions
from dlq_pipelines.exports.target import open_local_target
from dlq_pipelines.outbox.adopt import propose_mapping
from dlq_pipelines.outbox.dead_events import list_dead_events
from dlq_pipelines.outbox.install import (
    describe_shape,
    install_outbox,
    list_pending,
    read_outbox_facts,
    run_preflight,
)
from dlq_pipelines.outbox.mapping import list_presets, load_mapping, parse_mapping
from dlq_pipelines.outbox.mapping_sql import quote_identifier
from dlq_pipelines.outbox.mapping_types import Mapping
from dlq_pipelines.outbox.plan import list_table_statements
from dlq_pipelines.outbox.reconcile import reconcile_events
from dlq_pipelines.outbox.remove import RemovalScope, remove_installation
from dlq_pipelines.outbox.selection import Selection
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.postgres.queries import TableNames
from dlq_pipelines.reports.figures import ReportPolicy
from dlq_pipelines.reports.report import build_report
from dlq_pipelines.retries.advance import AdvanceResult, advance_fix
from dlq_pipelines.retries.fix import Fix, FixStatus, FixTerms
from dlq_pipelines.retries.fixes import FixFlag, flag_fix, get_fix, list_due_fixes
from dlq_pipelines.retries.retry import retry_selected
from dlq_pipelines.settings import ExportFormat
from tests.outbox.table_shapes import SHAPES, name_table, read_shape
from tests.outbox.test_adopt import NOTHING_DIES, OTHERS
from tests.postgres.dumps import dump_schema
from tests.rows import one

AUDIT = AuditContext("ann", "tested", datetime.now(UTC))
ALL = Selection(all=True)
TERMS = FixTerms()
UTC_ZONE = ZoneInfo("UTC")
SERVED = [name for name in SHAPES if name not in NOTHING_DIES]
# A state that is a number means what the operator says: first what is dead and what is delivered,
# then, where the proposal asks for it, what a retry sets.
GIVEN_STATES = {"kholodilin-partitioned": {"dead_values": [90], "delivered_values": [100]}}
GIVEN_RETRIES = {
    "kholodilin-partitioned": """
[retry]
status = 0
retry_count = 0
"""
}


@pytest.mark.parametrize("name", SERVED)
def test_an_outbox_is_served_from_plan_to_removal(
    empty_database: Database, tmp_path: Path, name: str
) -> None:
    """The same as before after the removal, and the application's statements always work."""
    shape = read_shape(name)
    with empty_database.connect() as connection:
        connection.execute(shape["create"])
        mapping = load_shape_mapping(connection, name)
        connection.names = TableNames(mapping.schema, mapping.table)
        before = dump_schema(empty_database)
        play_and_roll_back(connection, mapping, shape)
        plan_outbox(connection, mapping)
        assert dump_schema(empty_database) == before
        play_and_roll_back(connection, mapping, shape)
        connection.execute(shape.get("write", "select 1"))
        assert install_outbox(connection, mapping)
        assert list_pending(connection, mapping) == []
        assert install_outbox(connection, mapping) == []
        play_and_roll_back(connection, mapping, shape)
        operate_outbox(connection, mapping, shape)
        report_and_export(connection, empty_database, mapping, tmp_path)
        archive_and_restore(connection, mapping)
        if mapping.retry is None:
            refuse_fixes(connection)
        else:
            retry_and_fix(connection, shape)
        remove_installation(connection, RemovalScope(), audit=AUDIT)
        assert dump_schema(empty_database) == before
        play_and_roll_back(connection, mapping, shape)


def load_shape_mapping(connection: Connection, name: str) -> Mapping:
    """Return the preset of a shape, or the mapping that is proposed for its table."""
    if name in list_presets():
        return load_mapping(name)
    with connection.transaction(force_rollback=True):
        shape = read_shape(name)
        connection.execute(shape["write"] + shape.get("give up", ""))
        facts = read_outbox_facts(connection, "public", OTHERS[name])
        values: dict[str, Any] = GIVEN_STATES.get(name, {})
        text = propose_mapping(facts, **values).text
        return parse_mapping(text + GIVEN_RETRIES.get(name, ""), f"{name}.toml")


def play_and_roll_back(connection: Connection, mapping: Mapping, shape: dict[str, str]) -> None:
    """Run all that the application does with its table, in one transaction that is rolled back."""
    with connection.transaction(force_rollback=True):
        connection.execute(f"delete from {name_table(mapping)}")
        for section in ("write", "give up", "take", "deliver"):
            connection.execute(shape.get(section, "select 1"))


def plan_outbox(connection: Connection, mapping: Mapping) -> None:
    """Check that nothing is refused, and that triggers are all that the table gets."""
    checks = run_preflight(connection, mapping)
    assert [check for check in checks if check.outcome == "refused"] == []
    statements = list_table_statements(
        list_pending(connection, mapping), connection.names, describe_shape(connection, mapping)
    )
    columns = [line for line in statements if line.startswith("alter table")]
    assert len(columns) == (mapping.name == "dispatchbox")
    triggers = [line for line in statements if line.startswith("create or replace trigger dlq_")]
    assert len(triggers) == 4
    assert len(statements) == len(columns) + len(triggers)
    assert all(name_table(mapping) in statement for statement in statements)


def operate_outbox(connection: Connection, mapping: Mapping, shape: dict[str, str]) -> None:
    """Record the death of an event, classify it and list it."""
    connection.execute(shape["give up"])
    assert one(connection, "select count(*) as n from dlq.dead_now") == {"n": 1}
    assert classify_deaths(connection, zone=UTC_ZONE).deaths == 1
    (event,) = list_dead_events(connection).events
    assert str(event.id) == read_key(connection, mapping)


def report_and_export(
    connection: Connection, database: Database, mapping: Mapping, folder: Path
) -> None:
    """Publish the report of the day, and export it; both contain the death, and its id as it is."""
    death = one(connection, "select died_at, cause_id, event_type from dlq.death")
    day, later = death["died_at"].date(), datetime.now(UTC) + timedelta(days=2)
    published = build_report(
        connection,
        day=day,
        zone=UTC_ZONE,
        target=open_local_target(folder / "reports", ""),
        policy=ReportPolicy(),
        now=later,
    )
    totals = published.figures.totals
    assert (totals.deaths, totals.events, totals.unclassified) == (1, 1, 0)
    assert published.figures.matrix.loc[death["cause_id"], death["event_type"]] == 1
    assert published.figures.backlog.dead_at_end == 1
    written = json.loads((folder / "reports" / f"{day}.json").read_text("utf-8"))
    assert [cause["cause_id"] for cause in written["causes"]] == [death["cause_id"]]
    target = open_local_target(folder / "exports")
    chosen = ExportOptions(formats=(ExportFormat.PARQUET,))
    span = Day.of(day, UTC_ZONE)
    export_day(connection, url=database.url, day=span, target=target, now=later, options=chosen)
    assert verify_day(connection, day=span, target=target, now=later) == []
    (file,) = (folder / "exports").rglob("*.parquet")
    (row,) = pd.read_parquet(file).to_dict("records")
    is_number = isinstance(one(connection, "select event_id from dlq.death")["event_id"], int)
    key = read_key(connection, mapping)
    assert row["event_id"] == (int(key) if is_number else key)
    assert (row["cause_id"], row["died_at"]) == (death["cause_id"], death["died_at"])
    payload = one(connection, "select payload from dlq.outbox")["payload"]
    assert (None if pd.isna(row["payload"]) else row["payload"]) == payload


def archive_and_restore(connection: Connection, mapping: Mapping) -> None:
    """The row comes back as it was, and is dead of the same death."""
    (event,) = list_dead_events(connection).events
    rows = read_rows(connection, mapping)
    later = datetime.now(UTC) + timedelta(days=1)
    done = archive_dead_events(connection, before=later, only_exported=True, audit=AUDIT)
    assert (done.moved, read_rows(connection, mapping)) == (1, [])
    with pytest.raises(RefusedError, match="The archive holds 1 event, which would be lost"):
        remove_installation(connection, RemovalScope(), audit=AUDIT)
    assert restore_events(connection, ALL, audit=AUDIT).events == 1
    assert read_rows(connection, mapping) == rows
    assert reconcile_events(connection, now=datetime.now(UTC)).is_balanced
    assert [found.id for found in list_dead_events(connection).events] == [event.id]


def refuse_fixes(connection: Connection) -> None:
    """Without [retry], a fix and a retry are refused with the reason, and the event stays dead."""
    reason = r"^The mapping has no \[retry\]: its worker cannot be made to take an event again"
    with pytest.raises(RefusedError, match=reason):
        flag_fix(connection, FixFlag(ALL), audit=sign())
    with pytest.raises(RefusedError, match=reason):
        retry_selected(connection, ALL, audit=sign(), rate=None, max_retries=None)
    assert len(list_dead_events(connection).events) == 1


def retry_and_fix(connection: Connection, shape: dict[str, str]) -> None:
    """The worker takes what a retry or a fix releases, and its result decides how a fix ends."""
    assert connection.execute(shape["take"]).rowcount == 0
    retried = retry_selected(connection, ALL, audit=sign(), rate=None, max_retries=None)
    assert retried.events == 1
    assert list_dead_events(connection).events == ()
    assert connection.execute(shape["take"]).rowcount == 1
    assert reconcile_events(connection, now=datetime.now(UTC)).is_balanced
    if "write" in shape:  # otherwise giving up writes another row: the dead letter
        connection.execute(shape["give up"])
        assert run_fix(connection, shape, "give up").status is FixStatus.HALTED
    else:
        connection.execute(shape["deliver"])
        connection.execute(shape["give up"])
    assert run_fix(connection, shape, "deliver").status is FixStatus.VERIFIED
    assert list_dead_events(connection).events == ()
    assert reconcile_events(connection, now=datetime.now(UTC)).is_balanced


def run_fix(connection: Connection, shape: dict[str, str], result: str) -> Fix:
    """Flag a fix of the cause, and step while the sensor finds it due; the worker does the rest."""
    classify_deaths(connection, zone=UTC_ZONE)
    cause = one(connection, "select cause_id from dlq.dead")["cause_id"]
    fix = flag_fix(connection, FixFlag(Selection(cause=cause)), audit=sign())
    assert step_due_fix(connection).released == 1
    assert connection.execute(shape["take"]).rowcount == 1
    assert list_due_fixes(connection, now=datetime.now(UTC), max_backlog=TERMS.max_backlog) == []
    connection.execute(shape[result])
    assert step_due_fix(connection).settled == 1
    return get_fix(connection, fix.id)


def step_due_fix(connection: Connection) -> AdvanceResult:
    """Run the step that the sensor requests."""
    now = datetime.now(UTC)
    (due,) = list_due_fixes(connection, now=now, max_backlog=TERMS.max_backlog)
    return advance_fix(connection, due.id, audit=sign(), terms=TERMS)


def sign() -> AuditContext:
    """Return an audit context of now."""
    return AuditContext("ann", "tested", datetime.now(UTC))


def read_key(connection: Connection, mapping: Mapping) -> str:
    """Return the key of the only row of the table, as PostgreSQL writes it."""
    key = quote_identifier(mapping.id)
    return str(one(connection, f"select {key}::text as id from {name_table(mapping)}")["id"])


def read_rows(connection: Connection, mapping: Mapping) -> list[str]:
    """Return the rows of the table as PostgreSQL writes them."""
    rows = connection.execute(f"select t::text as row from {name_table(mapping)} t").fetchall()
    return [row["row"] for row in rows]


@pytest.mark.parametrize("name", sorted(NOTHING_DIES))
def test_an_outbox_in_which_nothing_dies_is_refused(empty_database: Database, name: str) -> None:
    """No mapping is proposed, another table's mapping is refused, and nothing changes."""
    shape = read_shape(name)
    with empty_database.connect() as connection:
        connection.execute(shape["create"])
        before = dump_schema(empty_database)
        facts = read_outbox_facts(connection, "public", OTHERS[name])
        with pytest.raises(RefusedError, match="is ever dead"):
            propose_mapping(facts)
        with pytest.raises(SchemaError, match=f"public.{OTHERS[name]} has no column") as raised:
            install_outbox(connection, load_mapping("dispatchbox"))
        assert "nothing was changed" in raised.value.message
        assert dump_schema(empty_database) == before
        connection.execute(shape["write"])


def test_two_outboxes_in_one_database_keep_apart(empty_database: Database) -> None:
    """Each has its own schema, and the removal of one leaves the other as it was."""
    with empty_database.connect() as connection:
        before = dump_schema(empty_database)
        for name, schema in (("oban", "dlq_jobs"), ("gruelbox", "dlq_mail")):
            shape, mapping = read_shape(name), load_mapping(name)
            connection.execute(shape["create"] + shape["write"])
            connection.names = TableNames(mapping.schema, mapping.table, schema)
            install_outbox(connection, mapping)
            connection.execute(shape["give up"])
        for schema in ("dlq_jobs", "dlq_mail"):
            found = one(connection, f"select count(*) as n from {schema}.dead_now")
            assert found == {"n": 1}
        connection.names = replace(connection.names, dlq_schema="dlq_jobs")
        remove_installation(connection, RemovalScope(), audit=AUDIT)
        assert "dlq_jobs" not in dump_schema(empty_database)
        assert one(connection, "select count(*) as n from dlq_mail.dead_now") == {"n": 1}
        connection.names = replace(connection.names, dlq_schema="dlq_mail")
        remove_installation(connection, RemovalScope(), audit=AUDIT)
        connection.execute("drop table oban_jobs, txno_outbox; drop type oban_job_state")
        assert dump_schema(empty_database) == before


def test_offers_are_known_to_the_database(empty_database: Database) -> None:
    """The reason of each operation that is not offered is a warning before, and stored after."""
    with empty_database.connect() as connection:
        connection.execute(read_shape("laravel-failed-jobs")["create"])
        mapping = load_mapping("laravel-failed-jobs")
        connection.names = TableNames(mapping.schema, mapping.table)
        checks = run_preflight(connection, mapping)
        warned = {
            check.name.removeprefix("offer "): check.found.removeprefix("Not offered. ")
            for check in checks
            if check.outcome == "warning"
        }
        assert "retries" in warned
        install_outbox(connection, mapping)
        offers = one(connection, "select dlq.offers()::text as offers")["offers"]
        assert {name: why for name, why in json.loads(offers).items() if why} == warned
