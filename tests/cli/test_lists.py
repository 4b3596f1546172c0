"""Checks that `dlq causes list` and `dlq fixes list` print what the tables hold."""

import json
from datetime import datetime
from typing import Any

import pytest

from dlq_pipelines.postgres.connect import Connection
from tests.cli.conftest import Run, read_json
from tests.rows import add_events, kill, set_causes

# Terminal codes (7 and 8 bit), a title, markup, a direction override, a cell end.
HOSTILE = "\x1b[2J\x1b]0;owned\x07[bold red]a[/bold red]\x9b31m\u202eb\r\n| Zoë \x7f日本"
INERT = "[bold red]a[/bold red]b | Zoë 日本"
CAUSES = """
    select
        c.id, exception_type, template, status, status as state, fixed_at, name, owner, note,
        muted_until, probe, is_transient, array[]::text[] as members, null as deployment,
        array[]::text[] as details, first_seen, last_seen,
        (select sum(deaths)::int from dlq.cause_day r where r.cause_id = c.id) as deaths,
        (
            select count(*)
            from dlq.dead d
            where d.cause_id = c.id
        ) as dead
    from dlq.cause c
    order by dead desc, deaths desc, id
"""
FIXES = """
    select
        id, cause_id as cause, detail, event_type, aggregate_type, aggregate_id, event_ids,
        attempts, error_contains, "where", since, until, "all", note, link, owner, flagged_by,
        flagged_at, not_before, expires_at, stage, status, verdict, evidence, closed_at, canary,
        growth, rate, min_success, settle_seconds, max_retries, "order", null as unreadable,
        current_rate, release_rate, deployment
    from dlq.fix
    order by id desc
"""


@pytest.fixture(autouse=True)
def _causes_and_fixes(connection: Connection) -> None:
    """Three causes with deaths, one of an event that was delivered since, and two fixes."""
    add_events(connection, 7)
    kill(connection, "boom")
    connection.execute(
        "insert into dlq.cause (id, exception_type, template, first_seen, last_seen)"
        " select 'c' || n, case when n < 3 then 'KeyError' else '' end,"
        " case n when 2 then %s else n::text end,"
        " timestamptz '2026-11-20 12:00:00.5+00', now() from generate_series(1, 3) n",
        [HOSTILE],
    )
    set_causes(connection, "'c' || case when id < 2 then 1 when id < 4 then 2 else 3 end")
    connection.execute("update outbox_event set status = 'done' where id = 7")
    connection.execute(
        "insert into dlq.cause_day (day, cause_id, event_type, aggregate_type, deaths)"
        " select date '2026-11-20' + n, cause_id, event_type, 'order', count(*)"
        " from dlq.death, generate_series(0, 1) n"
        " group by 1, 2, 3"
    )
    connection.execute(
        "insert into dlq.fix"
        " (cause_id, event_ids, note, flagged_by, flagged_at, canary, growth, rate, min_success,"
        ' settle_seconds, max_retries, "order", status, verdict, closed_at)'
        " values ('c1', null, %(text)s, 'me', %(at)s, 10, 2.5, 0.5, 0.9, 900, 3, 'none',"
        " 'active', null, null),"
        " ('c2', '{3,4}', 'n', %(text)s, %(at)s, 10, 10, 50, 0.9, 900, 3, 'aggregate',"
        " 'halted', %(text)s, now())",
        {"text": HOSTILE, "at": "2026-11-20 12:00:00.5+00"},
    )


@pytest.mark.parametrize(("name", "sql"), [("causes", CAUSES), ("fixes", FIXES)])
def test_json_has_the_rows_of_the_tables_in_inert_characters(
    dlq: Run, connection: Connection, name: str, sql: str
) -> None:
    printed = dlq(name, "list", "--json")
    assert (printed.code, printed.err) == (0, "")
    assert printed.out.isascii()
    assert printed.out.expandtabs().replace("\n", "").isprintable()
    rows = json.loads(printed.out)[name]
    assert json.loads(dlq(name, "list", "--json", "--limit", "1").out)[name] == rows[:1]
    assert [_read(row) for row in rows] == connection.execute(sql.encode()).fetchall()


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        (
            "causes",
            [
                "cause state dead now deaths title details owner",
                "c3 open 3 8 3",
                f"c2 open 2 4 KeyError: {INERT}",
                "c1 open 1 2 KeyError: 1",
            ],
        ),
        (
            "fixes",
            [
                "fix status stage selection flagged actor verdict",
                f"2 halted 0 cause c2, events 3, 4 2026-11-20 12:00:00+00 {INERT} {INERT}",
                "1 active 0 cause c1 2026-11-20 12:00:00+00 me not decided yet",
            ],
        ),
    ],
)
def test_a_table_has_one_line_per_row_and_hostile_text_inert(
    dlq: Run, name: str, lines: list[str]
) -> None:
    printed = dlq(name, "list")
    assert (printed.code, printed.err) == (0, "")
    assert printed.out.expandtabs().replace("\n", "").isprintable()
    assert [" ".join(line.split()) for line in printed.out.splitlines()] == lines


@pytest.mark.parametrize(
    ("name", "line"), [("causes", "No causes yet"), ("fixes", "No fix was ever flagged")]
)
def test_an_empty_list_says_so(dlq: Run, connection: Connection, name: str, line: str) -> None:
    connection.execute("truncate dlq.cause cascade")
    assert line in dlq(name, "list").out
    assert json.loads(dlq(name, "list", "--json").out)[name] == []


def _read(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row of JSON as psycopg would."""
    flat = row.pop("policy", {}) | row.pop("selection", {}) | row
    return {
        key: datetime.fromisoformat(value) if key.endswith(("_at", "_seen")) and value else value
        for key, value in flat.items()
    }


def test_the_audit_log_is_listed_since_a_time(dlq: Run, connection: Connection) -> None:
    connection.execute(
        "insert into dlq.audit (kind, actor, reason, filter, events, at)"
        " select 'archive.move', 'ann', repeat('word ', 60), '{}', 1, "
        " now() - n * '1 hour'::interval"
        " from generate_series(5, 1, -1) n"
    )
    listed = read_json(dlq("audit", "list", "--since", "150m", "--json"))["entries"]
    assert [entry["id"] for entry in listed] == [5, 4]
    assert "Nothing was changed since 5m." in dlq("audit", "list", "--since", "5m").out
    assert dlq("audit", "list", "--since", "soon").code == 2
    assert "word…\t" in dlq("audit", "list").out
