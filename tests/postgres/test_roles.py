"""Tests on a real server that each role of `sql/roles.sql` can do its work, and nothing else."""

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from uuid import uuid4
from zoneinfo import ZoneInfo

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from dlq_pipelines import OutboxRepository
from dlq_pipelines.archive.archive import archive_dead_events, discard_events
from dlq_pipelines.archive.purge import purge_archive, purge_deaths
from dlq_pipelines.archive.restore import restore_events
from dlq_pipelines.audit import AuditContext
from dlq_pipelines.causes.catalogue import (
    list_causes,
    mark_regressed_causes,
    merge_causes,
    mute_cause,
    set_cause_text,
    split_cause,
    undo_change,
)
from dlq_pipelines.causes.classify import classify_deaths
from dlq_pipelines.day import Day
from dlq_pipelines.erase import ErasureTerms, erase_events, list_erasable_events
from dlq_pipelines.errors import RefusedError
from dlq_pipelines.exports.export import export_day, verify_day
from dlq_pipelines.exports.target import open_local_target
from dlq_pipelines.outbox.install import install_outbox
from dlq_pipelines.outbox.selection import Selection
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.postgres.migrate import (
    create_host_tables,
    render_roles,
    require_current,
)
from dlq_pipelines.postgres.queries import TableNames
from dlq_pipelines.reports.figures import ReportPolicy
from dlq_pipelines.reports.report import build_report, make_report
from dlq_pipelines.retries.advance import advance_fix, withdraw_fix
from dlq_pipelines.retries.fix import FixTerms
from dlq_pipelines.retries.fixes import FixFlag, flag_fix, list_due_fixes, list_fixes, preview_fix
from dlq_pipelines.retries.retry import retry_selected, retry_with_payload
from dlq_pipelines.retries.settle import settle_retries
from tests.other_outboxes import install_shape
from tests.outbox.table_shapes import read_shape
from tests.rows import add_events, kill, one

UTC_ZONE = ZoneInfo("UTC")
ROLES = ("operator", "reader", "flagger", "worker")
TABLES = """
    select c.oid::regclass::text as name, c.relkind in ('r', 'p') as is_table
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where c.relkind in ('r', 'p', 'v', 'm')
        and (n.nspname = 'dlq' or c.relname like 'outbox_event%')
    order by 1
"""
FUNCTIONS = """
    select p.proname as name, p.provolatile <> 'v' and not prosecdef as reads
    from pg_proc p join pg_namespace n on n.oid = p.pronamespace
    where n.nspname = 'dlq'
        and p.prokind = 'f'
        and has_function_privilege(%s, p.oid, 'execute') = %s
    order by 1
"""
# The rights of the operator on tables where it has not all of select, insert and delete.
OPERATOR_RIGHTS = {
    "dlq.audit": {"select", "insert"},
    "dlq.migration": {"select"},
    "dlq.attachment": {"select"},
    "dlq.death": {"select", "insert", "delete"},  # and update of the cause and the end
    "outbox_event": {"select", "insert", "delete"},  # and update of the columns of a retry
}
NEVER_DELETED = {
    "cause",
    "cause_alias",
    "deployment",
    "cause_day",
    "fix",
    "fix_stage",
    "fix_outcome",
    "export_day",
}
STATEMENTS = {
    "select": "select from {} limit 0",
    "insert": "insert into {} default values",
    "delete": "delete from {} where false",
    "truncate": "truncate {}",
    "drop": "drop table {}",
}
Urls = Mapping[str, str]


@contextmanager
def granted_roles(database: Database, names: TableNames = TableNames()) -> Iterator[Urls]:
    """Create roles and an account in each; yield the connection strings of the accounts."""
    suffix = uuid4().hex[:8]
    roles = {role: f"{role} {suffix}" for role in ROLES}  # the space tests quoting
    run_psql(database, render_roles(names), roles)
    with database.connect() as owner:
        password = owner.info.password or "unused"
        accounts = {role: f"{role}_account_{suffix}" for role in ROLES}
        try:
            for role, account in accounts.items():
                create = sql.SQL("create role {} login password {} in role {}")
                owner.execute(
                    create.format(sql.Identifier(account), password, sql.Identifier(roles[role]))
                )
            yield {
                role: make_conninfo(database.url, user=name, password=password)
                for role, name in accounts.items()
            }
        finally:
            for name in (*accounts.values(), *roles.values()):
                owner.execute(sql.SQL("drop owned by {}").format(sql.Identifier(name)))
                owner.execute(sql.SQL("drop role {}").format(sql.Identifier(name)))


@pytest.fixture
def urls(database: Database) -> Iterator[Urls]:
    with granted_roles(database) as granted:
        yield granted


def run_psql(database: Database, script: str, variables: Mapping[str, str]) -> None:
    """Run a script with psql, twice, as after each migration."""
    parts = conninfo_to_dict(database.url)
    options = ["-h", str(parts["host"]), "-U", str(parts["user"]), "-d", str(parts["dbname"])]
    options += [word for name, value in variables.items() for word in ("-v", f"{name}={value}")]
    for _ in range(2):
        done = subprocess.run(
            ["psql", "-X", *options], input=script, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr


def make_audit() -> AuditContext:
    """Return the audit context of a change that is made now."""
    return AuditContext("ann", "tested", datetime.now(UTC))


def find_day(connection: Connection) -> date:
    """Return the day of the last death in UTC."""
    died_at: datetime = one(connection, "select max(died_at) from dlq.death")["max"]
    return died_at.astimezone(UTC).date()


def test_the_worker_delivers_and_fails_events_and_its_deaths_are_recorded(
    connection: Connection, urls: Urls
) -> None:
    """It has no rights on the schema `dlq`: the trigger has the rights of its owner."""
    add_events(connection, 3)
    with OutboxRepository(urls["worker"], max_attempts=1) as repository:
        first, second, third = repository.fetch_pending(3)
        repository.mark_success(first.id)
        repository.mark_retry(second.id, "boom")
        repository.mark_retry(third.id, "boom")
    assert one(connection, "select count(*) from dlq.death") == {"count": 2}


def test_the_operator_can_run_every_job_and_command(
    connection: Connection, urls: Urls, tmp_path: Path
) -> None:
    """From the classification to the purge."""
    add_events(connection, 30)
    kill(connection, "TimeoutError: no answer", where="id <= 20")
    kill(connection, "KeyError: 'postcode'", where="id > 20")
    with Database(urls["operator"]).connect() as operator:
        require_current(operator)
        assert classify_deaths(operator, zone=UTC_ZONE).deaths == 30
        now = datetime.now(UTC)
        assert mark_regressed_causes(operator, now=now) == ()
        edit_causes(operator)
        run_fix(operator, connection)
        retry_with_payload(operator, 25, '{"fixed": true}', audit=make_audit(), allowed=True)
        settle_retries(operator, now=datetime.now(UTC), settle_seconds=1)
        day = Day.of(date(2026, 3, 10), UTC_ZONE)
        target = open_local_target(tmp_path)
        export_day(operator, url=urls["operator"], day=day, target=target, now=now)
        assert verify_day(operator, day=day, target=target, now=now) == []
        build_report(
            operator,
            day=find_day(connection),
            zone=UTC_ZONE,
            target=open_local_target(tmp_path, "reports"),
            policy=ReportPolicy(),
            now=now + timedelta(days=2),
        )
        run_archive(operator)
        for name in ("reconcile.unaccounted", "cause.rollup_difference", "reconcile.observe"):
            operator.fetch_one(name)
        operator.run("fix.stages_difference")
        operator.run("archive.columns_lacking")
        operator.execute("select dlq.archive_dead_outbox_events(1000)")
    assert one(connection, "select count(*) from dlq.archived") == {"count": 0}
    assert one(connection, "select count(*) > 0 as audited from dlq.audit where actor = 'ann'") == {
        "audited": True
    }


def edit_causes(operator: Connection) -> None:
    """Merge, undo, split, name and mute causes."""
    first, other = (cause.id for cause in list_causes(operator))
    merged = merge_causes(operator, first, into=other, audit=make_audit())
    undo_change(operator, merged.audit_id, audit=make_audit())
    merge_causes(operator, first, into=other, audit=make_audit())
    split_cause(operator, first, audit=make_audit())
    set_cause_text(operator, first, "name", "no answer", audit=make_audit())
    mute_cause(operator, first, datetime.now(UTC) + timedelta(days=1), audit=make_audit())


def run_fix(operator: Connection, owner: Connection) -> None:
    """Preview, flag, advance and withdraw a fix, and recall what it released."""
    cause = next(cause.id for cause in list_causes(operator) if cause.dead == 20)
    flag = FixFlag(Selection(cause=cause))
    assert preview_fix(operator, flag, audit=make_audit(), default=FixTerms().policy).events == 20
    fix = flag_fix(operator, flag, audit=make_audit())
    (due,) = list_due_fixes(operator, now=datetime.now(UTC), max_backlog=timedelta(days=1))
    assert advance_fix(operator, due.id, audit=make_audit(), terms=FixTerms()).released == 10
    owner.execute("update outbox_event set status = 'done' where status = 'pending'")
    later = AuditContext("ann", "a step is due", datetime.now(UTC) + timedelta(seconds=60))
    assert advance_fix(operator, fix.id, audit=later, terms=FixTerms()).released == 10
    assert withdraw_fix(operator, fix.id, audit=make_audit()).recalled == 10


def run_archive(operator: Connection) -> None:
    """Discard, archive, restore and purge events."""
    soon = datetime.now(UTC) + timedelta(seconds=1)
    assert discard_events(operator, Selection(event_ids=(21,)), audit=make_audit()).events == 1
    moved = archive_dead_events(
        operator, before=soon, only_exported=False, audit=make_audit()
    ).moved
    assert moved > 0
    assert restore_events(operator, Selection(event_ids=(22, 23)), audit=make_audit()).events == 2
    archive_dead_events(operator, before=soon, only_exported=True, audit=make_audit())
    archive_dead_events(operator, before=soon, only_exported=False, audit=make_audit())
    assert (
        purge_archive(
            operator, before=datetime.now(UTC) + timedelta(days=1), audit=make_audit()
        ).events
        == moved + 1
    )
    assert purge_deaths(operator, before=soon, audit=make_audit()).events > 0


def test_the_reader_can_read_everything(connection: Connection, urls: Urls) -> None:
    """Tables, views, reports, and statements that call functions."""
    add_events(connection, 2)
    kill(connection, "boom")
    classify_deaths(connection, zone=UTC_ZONE)
    with Database(urls["reader"]).connect() as reader:
        require_current(reader)
        (cause,) = list_causes(reader)
        now = datetime.now(UTC)
        report = make_report(
            reader,
            day=find_day(connection),
            zone=UTC_ZONE,
            policy=ReportPolicy(),
            now=now + timedelta(days=2),
        )
        assert report.figures.totals.deaths == cause.dead == 2
        assert [fix.id for fix in list_fixes(reader)] == []
        for row in connection.execute(TABLES.encode()):
            reader.execute(sql.SQL("table {}").format(sql.Identifier(*row["name"].split("."))))
        reader.fetch_one("archive.exported_times", before=now)
        reader.run("archive.columns_lacking")


def test_the_flagger_can_flag_a_fix_in_its_own_name(connection: Connection, urls: Urls) -> None:
    add_events(connection, 1)
    kill(connection, "boom")
    classify_deaths(connection, zone=UTC_ZONE)
    with psycopg.connect(urls["flagger"], autocommit=True) as flagger:
        flagger.execute("select dlq.flag_fix('fixed', \"all\" => true)")
    (fix,) = list_fixes(connection)
    assert fix.flagged_by == conninfo_to_dict(urls["flagger"])["user"]


def list_rights(role: str, table: str, *, is_table: bool) -> set[str]:
    """Return the rights that a role has to have on a table or view."""
    if role == "operator":
        if not is_table:
            return {"select"}
        return OPERATOR_RIGHTS.get(
            table,
            {"select", "insert", "delete"} - ({"delete"} if table[4:] in NEVER_DELETED else set()),
        )
    if role == "reader":
        return {"select"}
    return {"select"} if (role, table) == ("worker", "outbox_event") else set()


def test_the_operator_may_erase_events_and_other_roles_may_not(
    connection: Connection, urls: Urls
) -> None:
    """A dead one and a delivered one. The error says which role may."""
    add_events(connection, 2, payload='{"mail": "a"}')
    kill(connection, "boom at maria@example.org")
    connection.execute("update outbox_event set status = 'done' where id = 2")
    terms = ErasureTerms(UTC_ZONE, "exports", "reports")
    for role in ("reader", "flagger", "worker"):
        with (
            Database(urls[role]).connect() as account,
            pytest.raises(RefusedError, match=r"may not erase: permission denied.* operator"),
        ):
            erase_events(account, [1], terms=terms, audit=make_audit())
    with Database(urls["operator"]).connect() as operator:
        ids = list_erasable_events(operator, [1, 2], "maria@example.org")
        done = erase_events(
            operator, ids, terms=terms, audit=make_audit(), text="maria@example.org"
        )
        assert [(event.rows, event.deaths) for event in done.events] == [(1, 1), (1, 1)]
        assert done.left == ()
        assert operator.run("doctor.rights").fetchall() == []


@pytest.mark.parametrize("role", ROLES)
def test_a_role_has_no_other_rights_on_tables(
    connection: Connection, urls: Urls, role: str
) -> None:
    """Every statement without the right is refused, and no other one."""
    tried = 0
    with psycopg.connect(urls[role], autocommit=True) as account:
        for table in connection.execute(TABLES.encode()).fetchall():
            rights = list_rights(role, table["name"], is_table=table["is_table"])
            for right, statement in STATEMENTS.items():
                if right != "select" and not table["is_table"]:
                    continue
                if table["name"].startswith("outbox_event") and right == "insert":
                    # Only the application draws new ids from the sequence.
                    statement = "insert into {} (id) values (1)"  # noqa: PLW2901
                refused = is_refused(account, statement.format(table["name"]))
                assert refused == (right not in rights), (role, right, table["name"])
                tried += 1
    assert tried > 50


def is_refused(account: psycopg.Connection, statement: str) -> bool:
    """Run a statement and roll it back; return whether the account lacks the right."""
    try:
        with account.transaction(force_rollback=True):
            account.execute(statement.encode())
    except psycopg.errors.InsufficientPrivilege:
        return True
    except (psycopg.IntegrityError, psycopg.errors.FeatureNotSupported):
        pass  # the account has the right, but the row is invalid
    return False


FORGE = """
    create temp table forged (like outbox_event);
    create trigger t after insert on forged
        for each row execute function dlq.record_change()
"""
FORBIDDEN = {
    "operator": [
        "update dlq.death set error = 'nothing'",
        "update dlq.audit set actor = 'somebody'",
        "update dlq.migration set checksum = ''",
        "update outbox_event set event_type = 'x'",
        "update outbox_event set last_error = 'x'",
        "update dlq.outbox set event_type = 'x'",
        "insert into dlq.outbox (id) values (1)",
        "delete from dlq.archive",
        "update dlq.migration set name = 'x'",
        FORGE,
        "alter table outbox_event disable trigger all",
    ],
    "reader": [
        "select dlq.flag_fix('fixed', \"all\" => true)",
        "select dlq.archive_events(array[1], now())",
        "update dlq.cause set note = 'x'",
        "select dlq.archive_dead_outbox_events(0)",
        "select from outbox_event for update",
    ],
    "flagger": [
        "select dlq.place_fix(null)",
        "select dlq.restore_events(array[1])",
        "select dlq.archive_dead_outbox_events(0)",
        "update outbox_event set status = 'pending'",
    ],
    "worker": [
        "update outbox_event set payload = '{}'",
        "update outbox_event set event_type = 'x'",
        "select dlq.flag_fix('fixed', \"all\" => true)",
    ],
}


@pytest.mark.parametrize(
    ("role", "statement"), [(role, text) for role, texts in FORBIDDEN.items() for text in texts]
)
def test_a_role_cannot_run_a_forbidden_statement(
    connection: Connection, urls: Urls, role: str, statement: str
) -> None:
    add_events(connection, 1)
    kill(connection, "boom")
    with (
        psycopg.connect(urls[role]) as account,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        account.execute(statement.encode())


@pytest.mark.parametrize("role", ROLES)
def test_a_role_creates_nothing_in_the_schema_and_calls_only_the_functions_it_needs(
    connection: Connection, urls: Urls, role: str
) -> None:
    with psycopg.connect(urls[role], autocommit=True) as account:
        for statement in (
            "create table dlq.mine ()",
            "create schema mine",
            "create role mine",
            "drop schema dlq",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                account.execute(statement.encode())
        user = account.info.user
    callable_ = connection.execute(FUNCTIONS.encode(), [user, True]).fetchall()
    refused = {row["name"] for row in connection.execute(FUNCTIONS.encode(), [user, False])}
    match role:
        case "operator":
            assert refused == {"record_change", "check_fix_deployment"}
        case "reader":
            assert callable_
            assert all(row["reads"] for row in callable_)
        case "flagger":
            assert [row["name"] for row in callable_] == ["flag_fix", "note_deployment"]
        case _:
            assert callable_ == []


def test_roles_work_with_names_that_need_quotes(empty_database: Database) -> None:
    names = TableNames(
        outbox_schema='shop "1"',
        outbox_table="out box",
        dlq_schema="dead letters",
    )
    database = replace(empty_database, names=names)
    with database.connect() as owner:
        create_host_tables(owner)
        install_outbox(owner)
        with granted_roles(database, names) as urls:
            with replace(database, url=urls["operator"]).connect() as operator:
                assert classify_deaths(operator, zone=UTC_ZONE).deaths == 0
                assert (
                    archive_dead_events(
                        operator, before=datetime.now(UTC), only_exported=True, audit=make_audit()
                    ).moved
                    == 0
                )
            with OutboxRepository(urls["worker"], names=names) as repository:
                assert repository.fetch_pending(1) == []


def test_the_roles_have_the_rights_that_another_mapping_needs(empty_database: Database) -> None:
    """On a uuid key and other names the operator retries, and may write no other column."""
    with install_shape(empty_database, "django-outbox-pattern") as (database, owner):
        for section in ("write", "give up"):
            owner.execute(read_shape("django-outbox-pattern")[section].encode())
        with granted_roles(database, database.names) as urls:
            with replace(database, url=urls["operator"]).connect() as operator:
                assert operator.run("doctor.rights").fetchall() == []
                audit = AuditContext("ann", "asked", datetime.now(UTC))
                done = retry_selected(
                    operator, Selection(all=True), audit=audit, rate=None, max_retries=None
                )
                assert done.events == 1
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    operator.execute("update published set destination = 'x'")
            with replace(database, url=urls["worker"]).connect() as worker:
                assert one(worker, "select count(*) as n from published") == {"n": 1}
