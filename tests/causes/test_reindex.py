"""A reindex after a new version of the fingerprint leads each cause to its successors."""

import hashlib
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from dlq_pipelines.audit import AuditContext
from dlq_pipelines.causes import classify, reindex
from dlq_pipelines.causes.catalogue import get_cause, merge_causes, mute_cause, set_cause_text
from dlq_pipelines.causes.fingerprint import VERSION, CauseKey, compute_cause_id
from dlq_pipelines.causes.reindex import (
    CauseSuccession,
    Successor,
    build_inheritance,
    plan_reindex,
    reindex_causes,
)
from dlq_pipelines.errors import RefusedError
from dlq_pipelines.outbox.selection import Selection
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.retries.fixes import FixFlag, flag_fix, get_fix
from tests.rows import add_events, kill, one

# After the deaths, which the server dates: a fix targets those before its flag.
NOW = datetime(2040, 1, 1, tzinfo=UTC)
AUDIT = AuditContext("ann", "upgrade", NOW)
ZONE = ZoneInfo("UTC")
TYPES = [
    "ConnectionRefusedError: no",
    "ConnectionResetError: no",
    "ConnectionResetError: no, not now",
]
REFUSED, RESET, LATER = (compute_cause_id(error) for error in TYPES)


def compute_next_key(error: str | None) -> CauseKey:
    """Return the key of the next version: it joins two types, and separates deaths by a word."""
    text = error or ""
    kind = "ConnectionError" if text.endswith(": no") else text
    digest = hashlib.sha256(kind.encode()).hexdigest()[:16]
    return CauseKey(f"v{VERSION + 1}-{digest}", detail="no" if kind == "ConnectionError" else "")


BOTH, LATER_NEXT = compute_next_key(TYPES[0]).id, compute_next_key(TYPES[2]).id


def let_die(connection: Connection, error: str, count: int) -> None:
    """Add events and let them die of an error."""
    add_events(connection, count)
    kill(connection, error, where="status = 'pending'")


def classify_all(connection: Connection) -> classify.ClassificationResult:
    return classify.classify_deaths(connection, zone=ZONE)


@pytest.fixture
def classified(connection: Connection) -> Connection:
    """Create a catalogue of the present version."""
    for error, count in zip(TYPES, (3, 2, 1), strict=True):
        let_die(connection, error, count)
    classify_all(connection)
    return connection


def upgrade(monkeypatch: pytest.MonkeyPatch) -> None:
    """Switch this process to the next version."""
    for module in (classify, reindex):
        monkeypatch.setattr(module, "VERSION", VERSION + 1)
    monkeypatch.setattr(classify, "compute_cause_key", compute_next_key)


def test_classification_by_a_new_version_requires_a_reindex(
    classified: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without it, every text would get a second cause. The message names the command."""
    upgrade(monkeypatch)
    let_die(classified, TYPES[0], 1)
    with pytest.raises(RefusedError, match="not of version"):
        classify_all(classified)
    assert one(classified, "select count(*) as n from dlq.death where cause_id is null")["n"] == 1


def test_causes_lead_to_their_successors(
    classified: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The dry run says what the run does. Deaths, dead events and rollups have the new causes."""
    upgrade(monkeypatch)
    rollup = count_rollups(classified)
    expected = [
        CauseSuccession(REFUSED, (Successor(BOTH, 3),)),
        CauseSuccession(RESET, (Successor(BOTH, 2),)),
        CauseSuccession(LATER, (Successor(LATER_NEXT, 1),)),
    ]
    read: list[int] = []
    planned = plan_reindex(classified, progress=read.append)
    assert (planned, read) == (expected, [3, 5, 6])
    assert one(classified, "select count(*) as n from dlq.cause_successor") == {"n": 0}
    assert reindex_causes(classified, zone=ZONE, audit=AUDIT) == expected
    assert reindex_causes(classified, zone=ZONE, audit=AUDIT) == []
    assert count_rollups(classified) == rollup
    cause = get_cause(classified, BOTH)
    assert (cause.deaths, cause.dead, [(d.detail, d.deaths) for d in cause.details]) == (
        5,
        5,
        [("no", 5)],
    )
    assert get_cause(classified, REFUSED).id == get_cause(classified, RESET).id == BOTH
    let_die(classified, TYPES[1], 1)
    assert classify_all(classified).new_causes == ()
    assert get_cause(classified, BOTH).deaths == 6
    difference = classified.fetch_one("cause.rollup_difference")
    assert difference["ledger"] == difference["rollup"] == difference["counters"] == 7
    assert difference["ledger_details"] == difference["details"] == 6


def count_rollups(connection: Connection) -> list[dict[str, object]]:
    """Return the deaths of each day and type, whatever their cause."""
    return connection.execute(
        "select day, event_type, aggregate_type, sum(deaths) as deaths from dlq.cause_day"
        " group by 1, 2, 3 order by 1, 2, 3"
    ).fetchall()


def test_one_cause_can_become_several(
    classified: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name goes to the one with most deaths; owner and note go to all; so does an open fix."""
    monkeypatch.setattr(
        classify, "compute_cause_key", lambda _error: CauseKey(f"v{VERSION}-one", detail="")
    )
    let_die(classified, "TimeoutError: slow", 3)
    let_die(classified, "TimeoutError: slower", 1)
    classify_all(classified)
    old = f"v{VERSION}-one"
    for column, text in (("name", "Slow"), ("owner", "ops"), ("note", "since May")):
        set_cause_text(classified, old, column, text, audit=AUDIT)  # type: ignore[arg-type]
    mute_cause(classified, old, NOW + timedelta(days=1), audit=AUDIT)
    fix = flag_fix(classified, FixFlag(Selection(cause=old)), audit=AUDIT)
    upgrade(monkeypatch)
    (found,) = [s for s in reindex_causes(classified, zone=ZONE, audit=AUDIT) if s.cause_id == old]
    first, second = (get_cause(classified, s.cause_id) for s in found.successors)
    assert [s.deaths for s in found.successors] == [3, 1]
    assert (first.name, first.owner, first.note, first.status) == (
        "Slow",
        "ops",
        "since May",
        "fixing",
    )
    assert (second.name, second.owner, second.note, second.status) == (
        None,
        "ops",
        "since May",
        "open",
    )
    assert first.muted_until == second.muted_until == NOW + timedelta(days=1)
    assert get_fix(classified, fix.id).selection.cause == first.id


def test_merges_stay(classified: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Successors of a merged cause are shown as the successor of the cause it was merged into."""
    merge_causes(classified, LATER, into=REFUSED, audit=AUDIT)
    upgrade(monkeypatch)
    reindex_causes(classified, zone=ZONE, audit=AUDIT)
    cause = get_cause(classified, BOTH)
    assert cause.deaths == 6
    assert set(cause.members) >= {LATER_NEXT, LATER, REFUSED, RESET}
    merged = classified.execute(
        "select m.id from dlq.cause c join dlq.cause m on m.id = c.merged_into"
        " where m.merged_into is not null"
    ).fetchall()
    assert merged == []


def test_two_open_fixes_of_causes_that_become_one(
    classified: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one of the larger cause goes on; the other ends, and says why."""
    flags = [FixFlag(Selection(cause=cause)) for cause in (REFUSED, RESET)]
    first, second = (flag_fix(classified, flag, audit=AUDIT) for flag in flags)
    upgrade(monkeypatch)
    reindex_causes(classified, zone=ZONE, audit=AUDIT)
    assert get_fix(classified, first.id).status == "active"
    ended = get_fix(classified, second.id)
    assert (ended.status, ended.selection.cause) == ("withdrawn", BOTH)
    assert f"fix {first.id}" in str(ended.verdict)
    assert get_cause(classified, BOTH).status == "fixing"


def test_two_runs_at_once_hand_each_cause_over_once(
    classified: Connection, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The successors of one cause stay two causes, although both runs finish it."""
    monkeypatch.setattr(
        classify, "compute_cause_key", lambda _error: CauseKey(f"v{VERSION}-one", detail="")
    )
    let_die(classified, "TimeoutError: slow", 3)
    let_die(classified, "TimeoutError: slower", 1)
    classify_all(classified)
    upgrade(monkeypatch)
    pending = reindex._list_pending(classified)
    with database.connect() as other:
        reindex_causes(other, zone=ZONE, audit=AUDIT)
    monkeypatch.setattr(reindex, "_list_pending", lambda _: pending)
    reindex_causes(classified, zone=ZONE, audit=AUDIT)
    first, second = (compute_next_key(f"TimeoutError: {word}").id for word in ("slow", "slower"))
    assert (get_cause(classified, first).deaths, get_cause(classified, second).deaths) == (3, 1)


def test_deaths_that_an_older_process_classified_later_move_too(
    classified: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the reindex. What people said of the causes meanwhile stays."""
    upgrade(monkeypatch)
    reindex_causes(classified, zone=ZONE, audit=AUDIT)
    set_cause_text(classified, BOTH, "owner", "team-b", audit=AUDIT)
    let_die(classified, TYPES[0], 1)
    monkeypatch.setattr(classify, "VERSION", VERSION)
    monkeypatch.setattr(classify, "compute_cause_key", lambda _: CauseKey(BOTH, ""))
    classify_all(classified)
    classified.execute(
        "update dlq.death set cause_id = %s where id = (select max(id) from dlq.death)", [REFUSED]
    )
    monkeypatch.setattr(classify, "compute_cause_key", compute_next_key)
    assert [s.cause_id for s in reindex_causes(classified, zone=ZONE, audit=AUDIT)] == [REFUSED]
    assert get_cause(classified, BOTH).owner == "team-b"
    assert plan_reindex(classified) == []


def test_a_cause_whose_deaths_are_purged_meanwhile_stays(
    classified: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    upgrade(monkeypatch)
    pending = reindex._list_pending(classified)
    classified.execute("delete from dlq.death")
    monkeypatch.setattr(reindex, "_list_pending", lambda _: pending)
    assert reindex_causes(classified, zone=ZONE, audit=AUDIT) == []
    assert get_cause(classified, REFUSED).id == REFUSED


@pytest.mark.parametrize("stop_at", range(1, 7))
def test_an_interrupted_run_is_started_again(
    classified: Connection, monkeypatch: pytest.MonkeyPatch, stop_at: int
) -> None:
    """After any number of transactions the next run ends in the same state."""
    upgrade(monkeypatch)
    monkeypatch.setattr(reindex, "BATCH", 2)
    calls = 0
    finish, move = reindex._finish_cause, reindex._move_batch

    def count_calls() -> None:
        nonlocal calls
        calls += 1
        if calls > stop_at:
            raise KeyboardInterrupt

    def finish_counted(*given: object, **options: object) -> object:
        count_calls()
        return finish(*given, **options)  # type: ignore[arg-type]

    def move_counted(*given: object) -> object:
        count_calls()
        return move(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(reindex, "_finish_cause", finish_counted)
    monkeypatch.setattr(reindex, "_move_batch", move_counted)
    with pytest.raises(KeyboardInterrupt):
        reindex_causes(classified, zone=ZONE, audit=AUDIT)
    calls = -1_000
    reindex_causes(classified, zone=ZONE, audit=AUDIT)
    assert plan_reindex(classified) == []
    successors = classified.execute(
        "select cause_id, successor_id, deaths from dlq.cause_successor order by deaths desc"
    ).fetchall()
    assert [tuple(row.values()) for row in successors] == [
        (REFUSED, BOTH, 3),
        (RESET, BOTH, 2),
        (LATER, LATER_NEXT, 1),
    ]
    assert get_cause(classified, BOTH).deaths == 5


@pytest.mark.parametrize(
    ("own", "left", "has_other", "expected"),
    [
        ("open", "fixed", False, "fixed"),
        ("fixed", "open", True, "open"),
        ("fixed", "regressed", True, "regressed"),
        ("open", "fixed", True, "open"),
        ("fixing", "open", True, "fixing"),
        ("regressed", "fixing", True, "fixing"),
    ],
)
def test_of_two_predecessors_the_state_that_asks_most_counts(
    own: str, left: str, has_other: bool, expected: str
) -> None:
    empty = dict.fromkeys(("name", "owner", "note", "muted_until", "probe"))
    row = {"id": "a", "status": own, "fixed_at": None, **empty}
    found = build_inheritance(empty, row, (left, NOW), is_first=True, has_other=has_other)
    assert found["status"] == expected
