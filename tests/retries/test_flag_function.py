"""`dlq.flag_fix`: another team flags a fix in SQL, signed by its role, and can do nothing else."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4
from zoneinfo import ZoneInfo

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo
from psycopg.rows import dict_row

from dlq_pipelines.audit import AuditContext
from dlq_pipelines.causes.classify import classify_deaths
from dlq_pipelines.outbox.selection import Selection
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.retries.advance import AdvanceResult, advance_fix
from dlq_pipelines.retries.fix import FixStatus, FixTerms, RetryPolicy
from dlq_pipelines.retries.fixes import list_due_fixes, list_fixes
from tests.rows import add_events, kill, one

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
(SNIPPET,) = re.findall(r"^```sql\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
GRANTS, FLAG = SNIPPET.split("\n\n")
RELATIONS = """
    select c.oid::regclass::text as name, c.relkind::text as kind
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where c.relkind not in ('i', 'c', 't') and (n.nspname = 'dlq' or c.relname like 'outbox_event%')
    order by 1
"""
STATEMENTS = {
    "r": ["table {}", "delete from {}", "truncate {}", "drop table {}"],
    "v": ["table {}", "drop view {}"],
    "S": ["select nextval('{}')", "select last_value from {}"],
}
FUNCTIONS = """
    select p.oid::regprocedure::text as name from pg_proc p join pg_namespace n on n.oid =
        p.pronamespace
    where n.nspname = 'dlq' and has_function_privilege(%s, p.oid, 'execute') order by 1
"""


@pytest.fixture
def cause(connection: Connection) -> str:
    """The cause of two dead events of each of two types."""
    for event_type in ("order.placed", "order.paid"):
        add_events(connection, 2, event_type=event_type)
    kill(connection, "TimeoutError: no answer")
    classify_deaths(connection, zone=ZoneInfo("UTC"))
    return str(one(connection, "select id from dlq.cause")["id"])


@pytest.fixture
def team(
    connection: Connection, database: Database
) -> Iterator[psycopg.Connection[dict[str, Any]]]:
    """A connection of a role that was made as the README says."""
    role = f"checkout_team_{uuid4().hex[:12]}"
    name = sql.Identifier(role)
    connection.execute(GRANTS.replace("checkout_team", role).encode())
    try:
        password = connection.info.password or "unused"
        connection.execute(sql.SQL("alter role {} password {}").format(name, password))
        url = make_conninfo(database.url, user=role, password=password)
        with psycopg.connect(url, autocommit=True, row_factory=dict_row) as opened:
            yield opened
    finally:
        connection.execute(sql.SQL("drop owned by {}").format(name))
        connection.execute(sql.SQL("drop role {}").format(name))


Team = psycopg.Connection[dict[str, Any]]


def test_a_team_flags_its_fix_as_the_readme_says(
    connection: Connection, team: Team, cause: str
) -> None:
    """It is signed by the role, dated by the server, and takes the installation's policy."""
    began = datetime.now(UTC) - timedelta(seconds=1)
    statement = re.sub(r"v2-[0-9a-f]{16}", cause, FLAG)
    assert statement != FLAG
    placed = team.execute(statement.encode()).fetchone()
    (fix,) = list_fixes(connection)
    assert placed == {"flag_fix": fix.id}
    assert (fix.flagged_by, fix.selection, fix.policy) == (
        team.info.user,
        Selection(cause=cause),
        None,
    )
    assert began < fix.flagged_at <= datetime.now(UTC)
    assert one(connection, "select kind, actor, events from dlq.audit where kind = 'fix.flag'") == {
        "kind": "fix.flag",
        "actor": team.info.user,
        "events": 4,
    }
    audit = AuditContext("sensor", "a step is due", datetime.now(UTC))
    assert (
        advance_fix(connection, fix.id, audit=audit, terms=FixTerms()).released == 2
    )  # one an aggregate


def test_every_argument_of_the_function_is_a_field_of_the_fix(
    connection: Connection, team: Team, cause: str
) -> None:
    team.execute(
        "select dlq.flag_fix('fixed', cause => %s, event_type => 'order.paid', aggregate_type =>"
        " 'order',"
        " event_ids => array[3, 4, 5], error_contains => 'no answer', since => '2026-01-01Z',"
        " until => '2099-01-01Z', link => 'v42', owner => 'checkout', not_before => '2030-01-01Z',"
        " expires_at => '2031-01-01Z')",
        [cause],
    )
    (fix,) = list_fixes(connection)
    assert fix.selection == Selection(
        cause=cause,
        event_type="order.paid",
        aggregate_type="order",
        event_ids=(3, 4, 5),
        error_contains="no answer",
        since=datetime(2026, 1, 1, tzinfo=UTC),
        until=datetime(2099, 1, 1, tzinfo=UTC),
    )
    assert (fix.note, fix.link, fix.owner, fix.status) == (
        "fixed",
        "v42",
        "checkout",
        FixStatus.ACTIVE,
    )
    assert (fix.not_before, fix.expires_at) == (
        datetime(2030, 1, 1, tzinfo=UTC),
        datetime(2031, 1, 1, tzinfo=UTC),
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("'fixed'", "without a filter would target every dead event"),
        ("' ', \"all\" => true", "note must not be empty"),
        ("'fixed', cause => 'v2-nothing'", "no cause 'v2-nothing'"),
        ("'fixed', event_type => 'never.seen'", "No dead events match"),
        (
            "'fixed', \"all\" => true, event_type => 'order.paid'",
            "all cannot be combined with filters",
        ),
        ('null, "all" => true', "note must not be empty"),
        ("repeat('x', 10001), \"all\" => true", "note has 10001 characters; the maximum is 10000"),
        ("'fixed', \"all\" => true, owner => E'\\t'", "owner must not be empty"),
        ("'fixed', \"all\" => true, owner => repeat('x', 201)", "owner has 201 characters"),
        ("'fixed', \"all\" => true, link => ''", "link must not be empty"),
        ("'fixed', \"all\" => true, link => repeat('x', 2001)", "link has 2001 characters"),
        ("'fixed', cause => ''", "cause must not be empty"),
        ("'fixed', event_type => ' '", "event_type must not be empty"),
        ("'fixed', aggregate_type => ''", "aggregate_type must not be empty"),
        ("'fixed', error_contains => ''", "error_contains must not be empty"),
        ("'fixed', error_contains => repeat('x', 1001)", "error_contains has 1001 characters"),
        ("'fixed', attempts => -1", "attempts must not be negative, not -1"),
        ("'fixed', since => '2026-01-02Z', until => '2026-01-02Z'", "since must be before until"),
        (
            "'fixed', since => '-infinity'",
            "since must lie in the years 1900 to 9000, not at -",
        ),
        ("'fixed', since => '0044-03-15 BC'", "since must lie in the years 1900 to 9000"),
        ("'fixed', until => 'infinity'", "until must lie in the years 1900 to 9000"),
        (
            "'fixed', \"all\" => true, not_before => '20000-01-01Z'",
            "not_before must lie in the years",
        ),
        ("'fixed', \"all\" => true, expires_at => 'infinity'", "expires_at must lie in the years"),
        ("'fixed', \"all\" => true, expires_at => '2026-01-01Z'", "would expire before it begins"),
        ("'fixed', event_ids => '{}'", "event_ids must hold at least one event id"),
        ("'fixed', event_ids => array[1, null]", "without null and nested lists"),
        ("'fixed', event_ids => array[[1, 2], [3, 4]]", "without null and nested lists"),
        (
            "'fixed', event_ids => array(select generate_series(1, 20000))",
            "event_ids holds 20000 ids; the maximum is 10000",
        ),
    ],
)
@pytest.mark.usefixtures("cause")
def test_what_cannot_be_flagged_is_said_to_the_team_and_changes_nothing(
    connection: Connection, team: Team, arguments: str, said: str
) -> None:
    """In one sentence with a hint, not as a violated constraint with all values of the row."""
    with pytest.raises(psycopg.Error, match=said) as refused:
        team.execute(f"select dlq.flag_fix({arguments})".encode())
    assert refused.value.diag.message_hint
    assert not refused.value.diag.constraint_name
    assert len(str(refused.value).splitlines()) < 8
    assert list_fixes(connection) == []


def test_a_fix_that_cannot_end_before_it_expires_is_rejected_at_its_first_step(
    connection: Connection, team: Team, cause: str
) -> None:
    """By the installation's rate, with the figures; at a rate that suffices it releases events."""
    statement = (
        "select dlq.flag_fix('fixed', cause => %s, expires_at => now() + interval '1 minute')"
    )

    def step(rate: float) -> AdvanceResult:
        team.execute(statement.encode(), [cause])
        now = datetime.now(UTC)
        (fix,) = list_due_fixes(connection, now=now, max_backlog=timedelta(days=1))
        audit = AuditContext("sensor", "a step is due", now)
        terms = FixTerms(RetryPolicy(rate=rate))
        return advance_fix(connection, fix.id, audit=audit, terms=terms)

    done = step(0.05)
    assert (done.fix.status, done.released) == (FixStatus.REJECTED, 0)
    figures = "4 events at 0.05 per second take 00:01:20, and the fix expires in 00:0"
    assert (done.fix.verdict or "").startswith(figures)
    assert one(connection, "select status from dlq.cause") == {"status": "open"}
    assert one(connection, "select kind, reason from dlq.audit order by id desc limit 1") == {
        "kind": "fix.rejected",
        "reason": done.fix.verdict,
    }
    done = step(0.1)
    assert (done.fix.status, done.released) == (FixStatus.ACTIVE, 2)


@pytest.mark.parametrize("rate", ["1e-12", "0.0009", "0", "-1", "NaN", "infinity"])
@pytest.mark.usefixtures("cause")
def test_a_rate_out_of_bounds_is_refused_by_name(connection: Connection, rate: str) -> None:
    """`dlq.flag_fix` has no rate; the owner may call the function behind it with one."""
    given = (
        "jsonb_populate_record(null::dlq.fix, jsonb_build_object('note', 'fixed', 'all', true,"
        " 'flagged_by', 'eve', 'flagged_at', now(), 'canary', 1, 'growth', 2, 'min_success', 1,"
        f" 'settle_seconds', 60, 'max_retries', 3, 'order', 'none', 'rate', '{rate}'))"
    )
    with pytest.raises(psycopg.Error, match=r"rate must be from 0\.001 to 100000") as refused:
        connection.execute(f"select dlq.place_fix({given})".encode())
    assert refused.value.diag.message_hint
    with pytest.raises(psycopg.errors.CheckViolation):
        connection.execute(
            "insert into dlq.fix (note, flagged_by, flagged_at, canary, growth, min_success,"
            ' settle_seconds, max_retries, "order", rate)'
            f" values ('x', 'eve', now(), 1, 2, 1, 60, 3, 'none', '{rate}')".encode()
        )


def test_the_team_can_do_nothing_else(connection: Connection, team: Team, cause: str) -> None:
    """It has no right on tables, views, sequences or other functions, and cannot create any."""
    relations = connection.execute(RELATIONS.encode()).fetchall()
    assert {"dlq.fix", "dlq.death", "dlq.dead_event", "outbox_event", "dlq.archived"} <= {
        row["name"] for row in relations
    }
    for row in relations:
        for statement in STATEMENTS[row["kind"]]:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                team.execute(statement.format(row["name"]).encode())
    allowed = [
        row["name"].partition("(")[0]
        for row in connection.execute(FUNCTIONS.encode(), [team.info.user])
    ]
    assert allowed == ["dlq.flag_fix"]
    for statement in (
        "select dlq.place_fix(null)",
        "select dlq.archive_events(array[1], now())",
        "select dlq.archive_dead_outbox_events(0)",
        "insert into dlq.fix (note) values ('x')",
        "update dlq.fix set status = 'verified'",
        "update outbox_event set status = 'pending'",
        "insert into outbox_event (aggregate_type, aggregate_id) values ('a', 'b')",
        "create table dlq.mine (id int)",
        "create function dlq.mine() returns int language sql return 1",
        "drop function dlq.flag_fix",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            team.execute(statement.encode())
    assert one(
        connection, "select count(*) filter (where status = 'dead') as dead from outbox_event"
    ) == {"dead": 4}
    assert cause


def test_nothing_that_the_team_creates_is_called_in_its_place(
    team: Team, connection: Connection, cause: str
) -> None:
    """The function pins its search path, so it finds no table or operator of the team."""
    team.execute(
        "create temp table fix (id int); create temp table cause (id text, merged_into text)"
    )
    team.execute("set search_path = pg_temp, dlq, public")
    team.execute("select dlq.flag_fix('fixed', cause => %s)", [cause])
    assert [fix.selection.cause for fix in list_fixes(connection)] == [cause]
