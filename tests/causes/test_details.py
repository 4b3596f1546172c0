"""Details, the second level of a cause: stored with each death, counted, bounded, merged."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import product
from zoneinfo import ZoneInfo

import pytest

from dlq_pipelines.archive.purge import purge_deaths
from dlq_pipelines.audit import AuditContext
from dlq_pipelines.causes import classify
from dlq_pipelines.causes.catalogue import (
    get_cause,
    list_causes,
    mark_regressed_causes,
    mark_regressed_details,
    merge_causes,
    split_cause,
    undo_change,
)
from dlq_pipelines.causes.classify import ClassificationResult, DetailKey, classify_deaths
from dlq_pipelines.causes.counts import count_classified_deaths
from dlq_pipelines.causes.fingerprint import compute_cause_key
from dlq_pipelines.causes.title import build_title
from dlq_pipelines.outbox.dead_events import list_dead_events
from dlq_pipelines.postgres.connect import Connection, Database
from tests.rows import add_events, kill, one

UTC_ZONE = ZoneInfo("UTC")
NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
AUDIT = AuditContext("ann", "they are one", NOW)
KEY = compute_cause_key("KeyError: 'sku'").id
WORDS = "street city region country phone mobile name title color shape weight brand price note tag"
# More than the 200 details that a cause may have.
NAMES = ["_".join(pair) for pair in product(WORDS.split(), repeat=2)]


def let_die(connection: Connection, *errors: str) -> ClassificationResult:
    """Let an event die of each error, and classify the deaths."""
    for error in errors:
        add_events(connection, 1)
        kill(connection, error, where="status = 'pending'")
    return classify_deaths(connection, zone=UTC_ZONE)


def list_details(connection: Connection, cause: str = KEY) -> dict[str, tuple[str, int, int]]:
    """Return state, deaths and dead events of each detail."""
    return {
        detail.detail: (detail.status, detail.deaths, detail.dead)
        for detail in get_cause(connection, cause).details
    }


def fix(connection: Connection, *details: str, at: str = "now() - interval '1 hour'") -> None:
    """Mark details as fixed, and their deaths as older than the fix."""
    connection.execute(
        f"update dlq.cause_detail set status = 'fixed', fixed_at = {at},"
        f" first_seen = {at} - interval '1 day' where detail = any(%s)".encode(),
        [list(details)],
    )
    connection.execute(f"update dlq.death set event_created_at = {at} - interval '2 days'".encode())


def test_each_death_and_each_dead_event_has_the_detail_of_its_text(connection: Connection) -> None:
    """Unclassified deaths have none; an error that names nothing has an empty one."""
    add_events(connection, 1)
    kill(connection, "KeyError: 'sku'")
    assert one(connection, "select detail from dlq.death") == {"detail": None}
    let_die(connection, "KeyError: 'postcode'", "TimeoutError: no answer")
    for table in ("death", "dead", "shown_death", "dead_now", "dead_event"):
        found = connection.execute(f"select detail from dlq.{table} order by event_id".encode())
        assert [row["detail"] for row in found] == ["sku", "postcode", ""]
    assert [event.detail for event in list_dead_events(connection).events] == [
        "",
        "postcode",
        "sku",
    ]
    assert list_details(connection) == {"postcode": ("open", 1, 1), "sku": ("open", 1, 1)}


def test_only_a_new_detail_of_a_known_cause_is_news(connection: Connection) -> None:
    found = let_die(connection, "KeyError: 'sku'", "KeyError: 'sku'")
    assert (found.new_causes, found.new_details) == ((KEY,), ())
    found = let_die(connection, "KeyError: 'city'", "KeyError: 'sku'")
    assert (found.new_causes, found.new_details) == ((), ((KEY, "city"),))


def test_details_beyond_the_limit_of_a_cause_are_counted_as_other(
    connection: Connection, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Concurrent runs agree on the 200, and each death counts in the detail that it stores."""
    monkeypatch.setattr(classify, "BATCH", 40)
    connection.execute(
        "insert into dlq.death (event_id, aggregate_type, aggregate_id, event_type, attempts,"
        " died_at, error) select n, 'order', '1', 'e', 5, now(), 'KeyError: ''' || name || ''''"
        " from unnest(%s::text[]) with ordinality as given (name, n),"
        " generate_series(1, 3) order by md5(name || generate_series)",
        [NAMES],
    )

    def run(_: int) -> None:
        with database.connect() as own:
            classify_deaths(own, zone=UTC_ZONE)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(run, range(3)))
    counted = connection.execute(
        "select detail, deaths from dlq.cause_detail order by detail"
    ).fetchall()
    ledger = connection.execute(
        "select detail, count(*) as deaths from dlq.death group by 1 order by 1"
    ).fetchall()
    assert counted == ledger
    assert len(counted) == 201
    assert {row["deaths"] for row in counted} == {3, 3 * (len(NAMES) - 200)}
    assert {row["detail"] for row in counted} - set(NAMES) == {"other"}


def test_details_and_ledger_agree_also_after_a_purge(connection: Connection) -> None:
    let_die(connection, "KeyError: 'sku'", "KeyError: 'city'", "TimeoutError: no answer")
    connection.execute("delete from outbox_event where id <= 2")
    connection.execute("update dlq.death set died_at = %s", [NOW - timedelta(days=400)])
    audit = AuditContext("ann", "old", datetime.now(UTC))
    purge_deaths(connection, before=NOW - timedelta(days=300), audit=audit)
    assert one(connection, "select count(*) from dlq.death") == {"count": 1}
    counts = count_classified_deaths(connection)
    assert (counts.ledger_details, counts.details, counts.agree) == (2, 2, True)
    connection.execute("update dlq.cause_detail set deaths = deaths + 1 where detail = 'sku'")
    assert not count_classified_deaths(connection).agree


@pytest.mark.parametrize(
    ("error", "written", "details"),
    [
        ("KeyError: 'sku'", "now()", {"sku"}),
        ("KeyError: 'sku'", "now() - interval '2 hours'", set()),
        ("KeyError: 'city'", "now()", set()),
    ],
    ids=["written after the fix", "written before the fix", "another detail"],
)
def test_a_fixed_detail_regresses_by_an_event_that_was_written_after_the_fix(
    connection: Connection, error: str, written: str, details: set[str]
) -> None:
    """Once, with an entry in the audit log."""
    let_die(connection, "KeyError: 'sku'", "KeyError: 'city'")
    fix(connection, "sku")
    add_events(connection, 1)
    connection.execute(
        f"update outbox_event set created_at = {written} where status = 'pending'".encode()
    )
    kill(connection, error, where="status = 'pending'")
    classify_deaths(connection, zone=UTC_ZONE)
    assert {key.detail for key in mark_regressed_details(connection, now=NOW)} == details
    assert mark_regressed_details(connection, now=NOW) == ()
    assert {
        name for name, shown in list_details(connection).items() if shown[0] == "regressed"
    } == (details)
    assert one(connection, "select count(*) from dlq.audit where kind = 'detail.regressed'") == {
        "count": len(details)
    }


@pytest.mark.parametrize(
    ("error", "regressed"),
    [("KeyError: 'sku'", True), ("KeyError: 'city'", False), ("KeyError", True)],
    ids=["a detail from before the fix", "a new detail", "no detail"],
)
def test_a_new_detail_leaves_a_fixed_cause_fixed(
    connection: Connection, error: str, *, regressed: bool
) -> None:
    """It is news of its own. Errors without a detail regress their cause as before."""
    let_die(connection, "KeyError: 'sku'")
    cause = compute_cause_key(error).id
    if cause != KEY:  # an error of the same cause that names nothing
        connection.execute(
            "insert into dlq.cause_alias (fingerprint, cause_id) values (%s, %s)", [cause, KEY]
        )
    connection.execute(
        "update dlq.cause set status = 'fixed', fixed_at = now(), first_seen = now()"
    )
    connection.execute("update dlq.death set event_created_at = now() - interval '1 day'")
    let_die(connection, error)
    assert mark_regressed_causes(connection, now=NOW) == ((KEY,) if regressed else ())


def test_details_of_merged_causes_count_together_and_a_split_separates_them(
    connection: Connection,
) -> None:
    """The shown cause has the state; a merge gives it that of details that only the other has."""
    other = compute_cause_key("LookupError: 'sku'").id
    let_die(connection, "KeyError: 'sku'", *["LookupError: 'sku'", "LookupError: 'city'"] * 2)
    fix(connection, "city")
    merge = merge_causes(connection, other, into=KEY, audit=AUDIT)
    both = {"city": ("fixed", 2, 2), "sku": ("open", 3, 3)}
    assert list_details(connection) == both
    found = let_die(connection, "LookupError: 'note'", "LookupError: 'sku'")
    assert found.new_details == ((other, "note"),)
    both |= {"note": ("open", 1, 1), "sku": ("open", 4, 4)}
    assert list_details(connection) == both
    assert count_classified_deaths(connection).agree
    split_cause(connection, other, audit=AUDIT)
    assert list_details(connection) == {"sku": ("open", 1, 1)}
    assert list_details(connection, other) == {
        "city": ("fixed", 2, 2),
        "note": ("open", 1, 1),
        "sku": ("open", 3, 3),
    }
    assert one(connection, "select count(*) from dlq.cause_detail where deaths = 0") == {"count": 0}
    merge_causes(connection, other, into=KEY, audit=AUDIT)
    undo_change(connection, merge.audit_id + 2, audit=AUDIT)
    assert list_details(connection) == {"sku": ("open", 1, 1)}


def test_a_fixed_detail_regresses_by_the_death_of_a_merged_cause(connection: Connection) -> None:
    other = compute_cause_key("LookupError: 'sku'").id
    let_die(connection, "KeyError: 'sku'", "LookupError: 'sku'")
    merge_causes(connection, other, into=KEY, audit=AUDIT)
    fix(connection, "sku")
    let_die(connection, "LookupError: 'sku'")
    assert mark_regressed_details(connection, now=NOW) == (DetailKey(KEY, "sku"),)


@pytest.mark.parametrize(
    ("template", "details", "title"),
    [
        ("<name>", [("postcode", 8), ("sku", 2)], "KeyError: 'postcode'"),
        ("<name>", [("postcode", 7), ("sku", 3)], "KeyError: <name>"),
        ("<name>", [("other", 10)], "KeyError: <name>"),
        ("<name>", [], "KeyError: <name>"),
        ("no '<name>' here", [("sku", 10)], "KeyError: no 'sku' here"),
        ('no "<word>" here', [("sku", 10)], 'KeyError: no "sku" here'),
        ("<name> of <name>", [("sku", 10)], "KeyError: <name> of <name> (sku)"),
        ("no sku", [("sku", 10)], "KeyError: no sku"),
        ("", [("sku", 10)], "KeyError: (sku)"),
    ],
)
def test_a_title_says_the_detail_that_most_deaths_name(
    template: str, details: list[tuple[str, int]], title: str
) -> None:
    assert build_title("KeyError", template, details, deaths=10) == title


def test_a_title_names_what_is_dead_now(connection: Connection) -> None:
    """Not the detail that most deaths of the past name: it may be fixed since."""
    let_die(connection, *["KeyError: 'postcode'"] * 9)
    assert list_causes(connection)[0].title == "KeyError: 'postcode'"
    connection.execute("update outbox_event set status = 'done'")
    assert list_causes(connection)[0].title == "KeyError: 'postcode'"
    let_die(connection, *["KeyError: 'sku'"] * 2)
    assert list_causes(connection)[0].title == "KeyError: 'sku'"


def test_a_list_shows_the_details_with_most_deaths_of_each_cause(connection: Connection) -> None:
    let_die(connection, *[f"KeyError: '{name}'" for name in [*NAMES[:6], NAMES[5]]])
    (cause,) = list_causes(connection)
    assert [detail.detail for detail in cause.details] == [NAMES[5], *sorted(NAMES[:5])[:4]]
    assert len(get_cause(connection, KEY).details) == 6
