"""Checks that `dlq doctor` finds each problem, and that the remedy that it prints works."""

import json
import re
import shlex
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg
import pytest
from dagster._daemon.types import DaemonHeartbeat
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from dlq_pipelines.archive.archive import archive_dead_events
from dlq_pipelines.audit import AuditContext
from dlq_pipelines.causes.classify import classify_deaths
from dlq_pipelines.doctor import CheckResult, check_installation
from dlq_pipelines.installation import prepare_dagster
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.settings import Settings, read_settings
from tests.cli.conftest import Run
from tests.cli.test_main import _environment
from tests.postgres.test_roles import granted_roles
from tests.rows import add_events, date_deaths_by_due_times, kill, one

CHECKS = [
    "connection",
    "schema",
    "table",
    "states",
    "trigger",
    "rights",
    "clock",
    "backlog",
    "stuck events",
    "exports",
    "reconciliation",
    "error texts",
    "Dagster daemon",
    "disk",
]
NOW = datetime(2026, 3, 20, 12, tzinfo=UTC)
HEARTBEATS = (
    "create table daemon_heartbeats (daemon_type text, timestamp timestamp);"
    " insert into daemon_heartbeats"
    " select unnest(array['SENSOR', 'SCHEDULER', 'QUEUED_RUN_COORDINATOR']),"
    " now() at time zone 'UTC' - interval '{seconds} s'"
)


# The rights of a role on tables, views and columns.
GIVEN = """
    with held as (
        select c.oid, a.privilege_type, null as columns, a.grantee
        from pg_class c, aclexplode(c.relacl) a
        union all
        select c.oid, a.privilege_type, string_agg(t.attname, ', ' order by t.attname), a.grantee
        from pg_class c
        join pg_attribute t on t.attrelid = c.oid,
        aclexplode(t.attacl) a
        group by 1, 2, 4
    )
    select
        format('%%I.%%I', relnamespace::regnamespace, relname) as name,
        lower(privilege_type) as privilege,
        columns
    from held
    join pg_class c using (oid)
    join pg_roles r on r.oid = held.grantee
    where r.rolname = %s
"""


def _run_doctor(dlq: Run) -> tuple[int, dict[str, dict[str, Any]]]:
    ended = dlq("doctor", "--json")
    found = {check["check"]: check for check in json.loads(ended.out)["checks"]}
    assert list(found) == CHECKS
    assert (ended.code == 1) == any(check["ok"] is False for check in found.values())
    assert all(bool(check["remedy"]) == (check["ok"] is False) for check in found.values())
    return ended.code, found


def test_events_that_no_worker_takes_are_named(dlq: Run, connection: Connection) -> None:
    """The worker is not behind: it takes others that fell due later."""
    assert _run_doctor(dlq)[1]["stuck events"]["ok"] is True
    add_events(connection, 3, event_type="nobody.takes.it")
    connection.execute("update outbox_event set next_run_at = '2026-03-20T09:00Z'")
    add_events(connection, 1)
    connection.execute(
        "update outbox_event set status = 'done', created_at = now() - interval '1 min'"
        " where event_type <> 'nobody.takes.it'"
    )
    found = _run_doctor(dlq)[1]
    assert found["backlog"]["ok"] is True
    stuck = found["stuck events"]
    assert stuck["ok"] is False
    assert stuck["found"] == (
        "no worker takes 3 events of nobody.takes.it, although later events were taken; the "
        "oldest, 1, is due since 2026-03-20 09:00:00+00"
    )
    assert "start a worker" in stuck["remedy"]


def _check(name: str) -> CheckResult:
    """Run the checks at `NOW` and return one."""
    checks = check_installation(read_settings(), now=NOW)
    return next(check for check in checks if check.check == name)


def _run_remedy(command: object, database: Database) -> None:
    """Run a remedy in a shell in which psql finds the database."""
    line = f"{str(command).replace('psql ', f'psql {shlex.quote(database.url)} ')}"
    subprocess.run(["bash", "-c", line], env=_environment(), check=True, capture_output=True)


@pytest.fixture
def dagster(home: Path, connection: Connection) -> Iterator[Database]:
    """The database with the heartbeats of Dagster's daemons."""
    url = prepare_dagster(Settings(home=home))["DLQ_DAGSTER_URL"].replace("+psycopg2", "")
    yield Database(url)
    connection.execute(
        sql.SQL("drop database {} with (force)").format(
            sql.Identifier(f"{connection.info.dbname}_dagster")
        )
    )


def test_a_sound_installation_passes_every_check(dlq: Run, dagster: Database) -> None:
    with dagster.connect() as connection:
        connection.execute(HEARTBEATS.format(seconds=5).encode())
    code, found = _run_doctor(dlq)
    assert (code, [check["ok"] for check in found.values()]) == (0, [True] * len(CHECKS))


def test_a_daemon_without_heartbeat_is_found(dlq: Run, dagster: Database) -> None:
    with dagster.connect() as connection:
        connection.execute(HEARTBEATS.format(seconds=400).encode())
    daemon = _run_doctor(dlq)[1]["Dagster daemon"]
    assert daemon["ok"] is False
    assert str(daemon["remedy"]).startswith("dlq up, or export DAGSTER_HOME=")
    assert "QUEUED_RUN_COORDINATOR, SCHEDULER, SENSOR" in str(daemon["found"])


def test_the_daemon_of_a_host_is_found_by_its_instance(
    dlq: Run, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its storage is its own affair: here SQLite."""
    assert home
    own = tmp_path / "dagster"
    own.mkdir()
    (own / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    monkeypatch.setenv("DAGSTER_HOME", str(own))
    daemon = _run_doctor(dlq)[1]["Dagster daemon"]
    assert (daemon["ok"], daemon["remedy"]) == (False, "dagster-daemon run")
    assert "SENSOR" in str(daemon["found"])
    with dg.DagsterInstance.from_config(str(own)) as instance:
        for kind in instance.get_required_daemon_types():
            instance.add_daemon_heartbeat(DaemonHeartbeat(time.time(), kind, None))
    assert _run_doctor(dlq)[1]["Dagster daemon"]["ok"] is True
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "missing"))
    daemon = _run_doctor(dlq)[1]["Dagster daemon"]
    assert (daemon["ok"], daemon["remedy"]) == (False, "dagster instance info")


def test_the_daemon_of_a_deployment_is_found_in_its_own_database(
    dlq: Run, empty_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the database that dagster.yaml reads. The remedy restarts the service."""
    monkeypatch.setenv(
        "DLQ_DAGSTER_URL", empty_database.url.replace("postgresql://", "postgresql+psycopg2://")
    )
    daemon = _run_doctor(dlq)[1]["Dagster daemon"]
    assert (daemon["found"], daemon["remedy"]) == (
        "it has never run on this installation",
        "systemctl restart dlq-daemon",
    )
    with empty_database.connect() as connection:
        connection.execute(HEARTBEATS.format(seconds=5).encode())
    assert _run_doctor(dlq)[1]["Dagster daemon"]["ok"] is True
    monkeypatch.setenv(
        "DLQ_DAGSTER_URL", "postgresql+psycopg2://dagster:s3cr3t@127.0.0.1:1/dagster"
    )
    assert (
        _run_doctor(dlq)[1]["Dagster daemon"]["found"]
        == "the database that DLQ_DAGSTER_URL names does not answer"
    )


@pytest.mark.parametrize(
    "harm",
    [
        "alter table outbox_event disable trigger dlq_update",
        "drop trigger dlq_insert on outbox_event",
    ],
)
def test_the_remedy_restores_a_trigger_that_does_not_fire(
    dlq: Run, connection: Connection, database: Database, harm: str
) -> None:
    """After the remedy, deaths are recorded again."""
    connection.execute(harm.encode())
    trigger = _run_doctor(dlq)[1]["trigger"]
    assert trigger["ok"] is False
    _run_remedy(trigger["remedy"], database)
    assert _run_doctor(dlq)[1]["trigger"]["ok"] is True
    add_events(connection, 1)
    kill(connection, "x")
    connection.execute(
        "insert into outbox_event (aggregate_type, aggregate_id, event_type, payload, status)"
        " values ('order', '1', 'e', '{}', 'dead')"
    )
    assert one(connection, "select count(*) from dlq.death") == {"count": 2}


def test_the_remedy_grants_missing_rights(
    dlq: Run, connection: Connection, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a role without any right, by a membership in the operator's role."""
    role = f"app_{connection.info.backend_pid}"
    name = sql.Identifier(role)
    connection.execute(sql.SQL("create role {} login").format(name))
    try:
        with granted_roles(database) as urls:
            (operator,) = _list_operators(connection, urls["operator"])
            monkeypatch.setattr("dlq_pipelines.doctor._OPERATOR", operator)
            monkeypatch.setenv("DLQ_DATABASE_URL", make_conninfo(database.url, user=role))
            found = _run_doctor(dlq)[1]
            skipped = {check for check in CHECKS[1:11] if found[check]["ok"] is None}
            assert skipped == {*CHECKS[1:11]} - {"rights"}
            assert "lacks rights" in str(found["schema"]["found"])
            rights = found["rights"]
            assert rights["remedy"] == f"psql -c 'grant \"{operator}\" to {role}'"
            assert dlq("doctor").out.count(str(rights["remedy"])) == 1
            _run_remedy(rights["remedy"], database)
            found = _run_doctor(dlq)[1]
            assert all(found[check]["ok"] for check in CHECKS[1:8])

            connection.execute(
                sql.SQL("revoke select on dlq.audit from {}").format(sql.Identifier(operator))
            )
            rights = _run_doctor(dlq)[1]["rights"]
            assert rights["remedy"] == "dlq migrate --print roles | psql"

            monkeypatch.setattr("dlq_pipelines.doctor._OPERATOR", "nobody")
            rights = _run_doctor(dlq)[1]["rights"]
            assert rights["remedy"] == (
                f"dlq migrate --print roles | psql && psql -c 'grant nobody to {role}'"
            )
    finally:
        connection.execute(sql.SQL("drop owned by {}").format(name))
        connection.execute(sql.SQL("drop role {}").format(name))


def test_a_wrong_name_of_the_table_is_found(
    dlq: Run, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the remedy names the right one."""
    monkeypatch.setenv("DLQ_OUTBOX_TABLE", "outbox_events")
    schema = _run_doctor(dlq)[1]["schema"]
    assert schema["found"] == (
        "there is no table public.outbox_events: DLQ_OUTBOX_SCHEMA or DLQ_OUTBOX_TABLE is wrong"
    )
    assert schema["remedy"] == "export DLQ_OUTBOX_SCHEMA=public DLQ_OUTBOX_TABLE=outbox_event"
    connection.execute("drop trigger dlq_update on outbox_event")
    assert "DLQ_OUTBOX_TABLE=TABLE" in str(_run_doctor(dlq)[1]["schema"]["remedy"])


def test_the_rights_check_requires_what_the_roles_script_grants_to_the_operator(
    dlq: Run, connection: Connection, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exactly: an installation by deploy/README.md passes, and no right is missed."""
    with granted_roles(database) as urls:
        monkeypatch.setenv("DLQ_DATABASE_URL", urls["operator"])
        assert _run_doctor(dlq)[1]["rights"]["ok"] is True
        (operator,) = _list_operators(connection, urls["operator"])
        given = {
            (row["name"], row["privilege"], row["columns"])
            for row in connection.execute(GIVEN, [operator])
        }
        with replace(database, url=urls["flagger"]).connect() as other:
            grants = [
                re.fullmatch(r"grant (.*) on (.*) to .*", row["grant_statement"])
                for row in other.run("doctor.rights")
                if not row["grant_statement"].startswith("grant usage on schema")
            ]
    needed = {
        (found[2], privilege, ", ".join(sorted(columns.split(", "))) if columns else None)
        for found in grants
        if found
        for privilege, columns in re.findall(r"(\w+)(?: \(([^)]*)\))?", found[1])
    }
    assert needed == given


def _list_operators(connection: Connection, url: str) -> list[str]:
    """Return the operator's role of the account of a connection string."""
    memberships = (
        "select r.rolname as name from pg_auth_members m join pg_roles r on r.oid = m.roleid"
        " join pg_roles a on a.oid = m.member where a.rolname = %s"
    )
    rows = connection.execute(memberships, [conninfo_to_dict(url)["user"]])
    return [row["name"] for row in rows if row["name"].startswith("operator ")]


def test_a_lagging_worker_and_unclassified_deaths_are_found(
    dlq: Run, connection: Connection
) -> None:
    add_events(connection, 2)
    kill(connection, "x", where="id = 1")
    connection.execute("update dlq.death set died_at = now() - interval '2 hours'")
    backlog = _run_doctor(dlq)[1]["backlog"]
    assert "not classified yet: 1 death, the oldest" in str(backlog["found"])
    assert backlog["remedy"] == "dlq causes classify"
    assert dlq("causes", "classify").code == 0
    assert _run_doctor(dlq)[1]["backlog"]["ok"] is True
    connection.execute("update outbox_event set next_run_at = %s", [NOW - timedelta(minutes=10)])
    assert _check("backlog").found == "the worker is 600 s behind"


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("days_per_run", ["0", "1"])
def test_the_remedy_exports_days_that_no_schedule_exports(
    connection: Connection,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    days_per_run: str,
) -> None:
    """Deaths before the first schedule, in one case before the first partition of all.

    After the remedy they can be archived.
    """
    first, last, scheduled = (f"{NOW - timedelta(days=ago):%Y-%m-%d}" for ago in (18, 17, 14))
    monkeypatch.setenv("DLQ_TIMEZONE", "UTC")
    monkeypatch.setenv("DLQ_DAYS_PER_RUN", days_per_run)
    if days_per_run == "1":
        monkeypatch.setenv("DLQ_PARTITIONS_START", last)
    _add_deaths(connection, [first, last, last, scheduled])

    exports = _check("exports")
    assert exports.found.startswith(f"3 dead events of {first} to {last} cannot be archived")
    assert exports.found.endswith(f"no schedule exports a day before {scheduled}")
    assert exports.remedy.endswith(f"--partition-range {first}...{last}")
    assert exports.remedy.startswith(
        "dagster "
        if days_per_run == "0"
        else f"DLQ_PARTITIONS_START={first} DLQ_DAYS_PER_RUN=0 dagster "
    )
    _run_remedy(exports.remedy, database)
    assert _check("exports").ok is True
    assert [
        row["rows"] for row in connection.execute("select rows from dlq.export_day order by day")
    ] == [1, 2]
    audit = AuditContext("ann", "retention", NOW)
    moved = archive_dead_events(
        connection, before=NOW - timedelta(days=10), only_exported=True, audit=audit
    )
    assert (moved.moved, moved.left) == (3, 1)


@pytest.mark.usefixtures("home")
def test_the_exports_check_finds_days_whose_files_are_not_right_any_more(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A death was recorded after the export, or the time zone was changed."""
    monkeypatch.setenv("DLQ_TIMEZONE", "UTC")
    day = f"{NOW - timedelta(days=30):%Y-%m-%d}"
    _add_deaths(connection, [day])
    connection.execute(
        "insert into dlq.export_day (day, starts_at, ends_at, rows, files, exported_at,"
        " verified_at) select %(day)s::date, start, start + interval '1 day', 1, '[]', now(), now()"
        " from (select %(day)s::timestamp at time zone 'UTC' as start) given",
        {"day": day},
    )
    assert _check("exports").ok is True
    monkeypatch.setenv("DLQ_TIMEZONE", "Asia/Tokyo")
    exports = _check("exports")
    assert exports.found.startswith(f"1 exported day from {day} to {day} must be exported again")
    assert exports.remedy.endswith(f"--partition-range {day}...{day}")
    monkeypatch.setenv("DLQ_TIMEZONE", "UTC")
    connection.execute("update dlq.export_day set rows = 0")
    connection.execute("update outbox_event set status = 'done'")
    assert _check("exports").found == exports.found


def test_the_exports_check_passes_if_the_archive_needs_no_exports(
    dlq: Run, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    _add_deaths(connection, ["2026-01-05"])
    assert _run_doctor(dlq)[1]["exports"]["ok"] is False
    monkeypatch.setenv("DLQ_ARCHIVE_REQUIRES_EXPORT", "false")
    assert _run_doctor(dlq)[1]["exports"]["found"] == "the archive does not wait for exports"


def test_the_exports_check_reads_indexes_only(connection: Connection) -> None:
    """It scans neither table."""
    connection.execute(
        "insert into outbox_event"
        " (aggregate_type, aggregate_id, event_type, payload, status, next_run_at)"
        " select 'order', n::text, 'e', '{}', case when n % 4 = 0 then 'dead' else 'done' end,"
        " '2026-03-01'::timestamptz + n * interval '1 minute'"
        " from generate_series(1, 40000) n"
    )
    date_deaths_by_due_times(connection)
    classify_deaths(connection, zone=ZoneInfo("UTC"))
    connection.execute("vacuum analyze")
    text = connection.render_query("doctor.unexported", before=datetime(2026, 3, 10, tzinfo=UTC))
    plan = "\n".join(row["QUERY PLAN"] for row in connection.execute(f"explain {text}".encode()))
    assert "Index Only Scan using dead_time on dead" in plan, plan
    assert "Seq Scan on outbox_event" not in plan, plan
    assert "Seq Scan on death" not in plan, plan


def _add_deaths(connection: Connection, days: list[str]) -> None:
    """Add an event that died at noon for each of these days, and classify it."""
    connection.execute(
        "insert into outbox_event"
        " (aggregate_type, aggregate_id, event_type, payload, status, last_error, next_run_at)"
        " select 'order', '1', 'e', '{}', 'dead', 'TimeoutError: x',"
        " day::timestamptz + interval '12 hours'"
        " from unnest(%s::text[]) day",
        [[f"{day}T00:00Z" for day in days]],
    )
    date_deaths_by_due_times(connection)
    classify_deaths(connection, zone=ZoneInfo("UTC"))


def test_a_check_is_skipped_if_a_check_that_it_depends_on_fails(
    dlq: Run, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the schema of this release, and without a database."""
    connection.execute("delete from dlq.migration where number > 1")
    found = _run_doctor(dlq)[1]
    assert (found["schema"]["ok"], found["schema"]["remedy"]) == (False, "dlq migrate")
    assert [found[name]["ok"] for name in ("trigger", "rights", "clock", "backlog", "exports")] == [
        None
    ] * 5
    monkeypatch.setenv("DLQ_DATABASE_URL", "postgresql://shop:s3cr3t@127.0.0.1:1/shop")
    ended = dlq("doctor")
    assert (ended.code, "Cannot connect to PostgreSQL" in ended.out, "s3cr3t" in ended.out) == (
        1,
        True,
        False,
    )


def test_a_table_that_took_the_name_of_the_outbox_is_found(
    dlq: Run, connection: Connection
) -> None:
    connection.execute(
        "alter table outbox_event rename to outbox_old;"
        " create table outbox_event (like outbox_old including all)"
    )
    found = _run_doctor(dlq)[1]["trigger"]
    assert (found["ok"], "outbox_old" in str(found["found"])) == (False, True)


def test_states_and_missing_error_texts_are_found(dlq: Run, connection: Connection) -> None:
    """A state that the mapping does not know, and deaths that are all one cause."""
    add_events(connection, 2)
    kill(connection, None, where="id = 1")
    connection.execute("update outbox_event set status = 'FAILED' where id = 2")
    found = _run_doctor(dlq)[1]
    assert (found["states"]["ok"], "FAILED: 1" in str(found["states"]["found"])) == (False, True)
    assert found["error texts"]["found"] == "1 of 1 deaths have no error text"
    assert "last_error" in str(found["error texts"]["remedy"])


def test_the_remedy_reconciles_and_finds_a_death_that_no_trigger_saw(
    dlq: Run, connection: Connection, database: Database, dagster: Database
) -> None:
    """Doctor reads no application table for it: it shows when the last reconciliation ran."""
    assert "it has never run" in str(_run_doctor(dlq)[1]["reconciliation"]["found"])
    add_events(connection, 2)
    kill(connection, "boom", where="id = 1")
    assert _run_doctor(dlq)[1]["reconciliation"]["ok"] is True  # since less than two days
    connection.execute("update dlq.installation set created_at = now() - interval '3 days'")
    connection.execute("set session_replication_role = replica")
    connection.execute("update outbox_event set status = 'dead' where id = 2")
    connection.execute("reset session_replication_role")
    failed = _run_doctor(dlq)[1]["reconciliation"]
    assert failed["ok"] is False
    _run_remedy(failed["remedy"], database)
    found = _run_doctor(dlq)[1]["reconciliation"]
    assert found["ok"] is True
    assert "recorded 1 missed death; 0 missing" in str(found["found"])
    assert one(connection, "select count(*) from dlq.dead_now") == {"count": 2}
    assert dagster
