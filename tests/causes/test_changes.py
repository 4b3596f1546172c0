"""Changes of causes: they change what is shown, keep the ledger, and can be undone."""

import random
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest

from dlq_pipelines.audit import AuditContext, RunOptions
from dlq_pipelines.causes.catalogue import (
    CauseChange,
    CauseTextColumn,
    describe_cause,
    get_cause,
    list_causes,
    merge_causes,
    mute_cause,
    set_cause_text,
    split_cause,
    undo_change,
)
from dlq_pipelines.causes.classify import classify_deaths
from dlq_pipelines.causes.fingerprint import compute_cause_id
from dlq_pipelines.errors import NotFoundError, RefusedError
from dlq_pipelines.outbox.selection import Selection
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.retries.fix import RetryPolicy
from dlq_pipelines.retries.fixes import FixFlag, flag_fix, preview_fix
from tests.rows import add_events, count_blocked_sessions, kill, one, wait_for_blocked_session

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
AUDIT = AuditContext("ann", "they are one", NOW)
Change = Callable[[Connection], CauseChange]
ERRORS = {
    "refused": "ConnectionRefusedError: refused",
    "reset": "ConnectionResetError: reset",
    "key": "KeyError: 'a'",
}
REFUSED, RESET, KEY = (compute_cause_id(ERRORS[name]) for name in ("refused", "reset", "key"))


@pytest.fixture(autouse=True)
def _three_causes(connection: Connection) -> None:
    """Create three deaths of `refused`, two of `reset`, one of `key`."""
    for name, count in (("refused", 3), ("reset", 2), ("key", 1)):
        add_events(connection, count, event_type=name)
        kill(connection, ERRORS[name], where="status = 'pending'")
    classify_deaths(connection, zone=ZoneInfo("UTC"))


def _shown(connection: Connection) -> dict[str, tuple[int, int]]:
    return {cause.id: (cause.dead, cause.deaths) for cause in list_causes(connection)}


def _ledger(connection: Connection) -> list[tuple[str, int]]:
    rows = connection.execute(
        "select cause_id, count(*) as n from dlq.death group by 1 order by 1"
    ).fetchall()
    return [(row["cause_id"], row["n"]) for row in rows]


def test_merged_cause_is_shown_as_the_other_and_keeps_its_deaths(connection: Connection) -> None:
    """New deaths of the merged cause are shown as the other too."""
    before = _ledger(connection)
    merge_causes(connection, RESET, into=REFUSED, audit=AUDIT)
    assert _shown(connection) == {REFUSED: (5, 5), KEY: (1, 1)}
    assert _ledger(connection) == before
    assert get_cause(connection, REFUSED).members == (RESET,)
    add_events(connection, 1)
    kill(connection, ERRORS["reset"], where="status = 'pending'")
    classify_deaths(connection, zone=ZoneInfo("UTC"))
    assert _shown(connection)[REFUSED] == (6, 6)


def test_split_restores_exactly_what_was_merged(connection: Connection) -> None:
    """Also after a merge of merged causes, which makes no chain."""
    before = _shown(connection)
    merge_causes(connection, RESET, into=REFUSED, audit=AUDIT)
    merge_causes(connection, REFUSED, into=KEY, audit=AUDIT)
    assert _shown(connection) == {KEY: (6, 6)}
    assert get_cause(connection, KEY).members == tuple(sorted((REFUSED, RESET)))
    for cause in (RESET, REFUSED):
        split_cause(connection, cause, audit=AUDIT)
    assert _shown(connection) == before


def test_fix_selects_the_causes_merged_into_its_cause(connection: Connection) -> None:
    """A merged cause accepts no fix, and a cause with an open fix no merge and no split."""
    merge_causes(connection, RESET, into=REFUSED, audit=AUDIT)
    audit = replace(AUDIT, now=datetime.now(UTC))
    flag = FixFlag(Selection(cause=REFUSED))
    assert preview_fix(connection, flag, audit=audit, default=RetryPolicy()).events == 5
    with pytest.raises(RefusedError, match=f"merged into {REFUSED}"):
        flag_fix(connection, FixFlag(Selection(cause=RESET)), audit=audit)
    fix = flag_fix(connection, flag, audit=audit)
    refused = pytest.raises(RefusedError, match=f"Fix {fix.id} .* is open")
    with refused:
        split_cause(connection, RESET, audit=AUDIT)
    with refused:
        merge_causes(connection, KEY, into=REFUSED, audit=AUDIT)
    with refused:
        merge_causes(connection, REFUSED, into=KEY, audit=AUDIT)


@pytest.mark.parametrize("column", ["name", "owner", "note"])
def test_text_is_set_undone_and_bounded(connection: Connection, column: CauseTextColumn) -> None:
    change = set_cause_text(connection, KEY, column, "  Postcode missing ", audit=AUDIT)
    assert getattr(get_cause(connection, KEY), column) == "Postcode missing"
    undo_change(connection, change.audit_id, audit=AUDIT)
    assert getattr(get_cause(connection, KEY), column) is None
    for text, reason in (("x" * 10_001, "has 10001 characters"), ("a\0", "is not valid UTF-8")):
        with pytest.raises(ValueError, match=f"{column} {reason}"):
            set_cause_text(connection, KEY, column, text, audit=AUDIT)


def test_empty_text_removes_the_name(connection: Connection) -> None:
    set_cause_text(connection, KEY, "name", "Postcode missing", audit=AUDIT)
    set_cause_text(connection, KEY, "name", " ", audit=AUDIT)
    assert get_cause(connection, KEY).name is None


def test_title_is_the_name_or_type_and_template(connection: Connection) -> None:
    assert get_cause(connection, REFUSED).title == "ConnectionRefusedError: refused"
    set_cause_text(connection, REFUSED, "name", "Carrier closed", audit=AUDIT)
    assert get_cause(connection, REFUSED).title == "Carrier closed"


def test_mute_ends_at_its_time(connection: Connection) -> None:
    """No job has to run to end it."""
    mute_cause(connection, KEY, NOW + timedelta(days=2), audit=AUDIT)
    cause = get_cause(connection, KEY)
    assert (cause.state(NOW), cause.state(NOW + timedelta(days=2))) == ("muted", "open")
    mute_cause(connection, KEY, None, audit=AUDIT)
    assert get_cause(connection, KEY).state(NOW) == "open"
    for until in (NOW, NOW + timedelta(days=367)):
        with pytest.raises(ValueError, match="within the next year"):
            mute_cause(connection, KEY, until, audit=AUDIT)


def test_mute_accepts_a_year_from_any_day_in_any_zone(connection: Connection) -> None:
    """Including the last day of a month. A mute in another time zone can be undone too."""
    last = datetime(2027, 12, 31, 12, tzinfo=timezone(timedelta(hours=5)))
    change = mute_cause(connection, KEY, last + timedelta(days=365), audit=replace(AUDIT, now=last))
    assert get_cause(connection, KEY).state(last + timedelta(days=364)) == "muted"
    undo_change(connection, change.audit_id, audit=AUDIT)
    assert get_cause(connection, KEY).muted_until is None


def test_split_waits_for_a_concurrent_fix_and_is_refused(
    connection: Connection, database: Database
) -> None:
    """The fix has counted the deaths of its cause, which must not change afterwards."""
    merge_causes(connection, RESET, into=REFUSED, audit=AUDIT)
    change = split_cause(connection, RESET, audit=AUDIT)
    back = undo_change(connection, change.audit_id, audit=AUDIT)
    changes: tuple[Change, ...] = (
        lambda own: split_cause(own, RESET, audit=AUDIT),
        lambda own: undo_change(own, back.audit_id, audit=AUDIT),
    )
    with ThreadPoolExecutor(2) as pool:
        with database.connect() as other, other.transaction():
            flag_fix(
                other,
                FixFlag(Selection(cause=REFUSED)),
                audit=replace(AUDIT, now=datetime.now(UTC)),
            )
            waiting = [
                _start_and_wait_for_lock(pool, connection, database, change) for change in changes
            ]
        for result in waiting:
            with pytest.raises(RefusedError, match=r"Fix 1 .* is open"):
                result.result()


def test_split_is_refused_if_the_cause_is_merged_concurrently(
    connection: Connection, database: Database
) -> None:
    """The new root is not locked, so a fix of it could be flagged meanwhile."""
    merge_causes(connection, RESET, into=REFUSED, audit=AUDIT)
    with ThreadPoolExecutor(1) as pool:
        with database.connect() as other, other.transaction():
            split_cause(other, RESET, audit=AUDIT)
            merge_causes(other, RESET, into=KEY, audit=AUDIT)
            result = _start_and_wait_for_lock(
                pool, connection, database, lambda own: split_cause(own, RESET, audit=AUDIT)
            )
        with pytest.raises(RefusedError, match=r"A concurrent change merged .* Run it again"):
            result.result()
    assert get_cause(connection, KEY).members == (RESET,)


def _start_and_wait_for_lock(
    pool: ThreadPoolExecutor, connection: Connection, database: Database, change: Change
) -> Future[CauseChange]:
    """Start a change on its own connection; return once that connection also waits for a lock."""

    def run() -> CauseChange:
        with replace(database, lock_timeout=300).connect() as own:
            return change(own)

    before = count_blocked_sessions(connection)
    result = pool.submit(run)
    wait_for_blocked_session(connection, more_than=before)
    return result


def test_no_sequence_of_changes_makes_a_chain_of_merges(connection: Connection) -> None:
    """One step always finds the cause that is shown, and no death is lost."""
    chance = random.Random(7)
    chains = (
        "select count(*) from dlq.cause m join dlq.cause r on r.id = m.merged_into"
        " where r.merged_into is not null"
    )
    for _ in range(20):
        done: list[int] = []
        with connection.transaction(force_rollback=True):
            for _ in range(12):
                with suppress(RefusedError):
                    done.append(_make_random_change(connection, chance, done).audit_id)
            assert one(connection, chains) == {"count": 0}
            assert sum(deaths for _, deaths in _shown(connection).values()) == 6


def _make_random_change(
    connection: Connection, chance: random.Random, done: list[int]
) -> CauseChange:
    cause, into = chance.sample([REFUSED, RESET, KEY], 2)
    match chance.choice(["merge", "split", "undo"]):
        case "undo" if done:
            return undo_change(connection, chance.choice(done), audit=AUDIT)
        case "split":
            return split_cause(connection, cause, audit=AUDIT)
        case _:
            return merge_causes(connection, cause, into=into, audit=AUDIT)


def test_undo_that_would_make_a_chain_names_the_cause_to_split_first(
    connection: Connection,
) -> None:
    merge_causes(connection, RESET, into=REFUSED, audit=AUDIT)
    split = split_cause(connection, RESET, audit=AUDIT)
    # First its root is merged elsewhere, then it has a member.
    for cause, into in ((REFUSED, KEY), (KEY, RESET)):
        merge_causes(connection, cause, into=into, audit=AUDIT)
        with pytest.raises(
            RefusedError,
            match=f"Cause {cause} was merged into {into} .* `dlq causes split {cause}`",
        ):
            undo_change(connection, split.audit_id, audit=AUDIT)
        split_cause(connection, cause, audit=AUDIT)
    undo_change(connection, split.audit_id, audit=AUDIT)
    assert get_cause(connection, REFUSED).members == (RESET,)


def test_undo_restores_a_merge_of_merges_and_can_be_undone(connection: Connection) -> None:
    """Each cause returns to the cause that it was merged into before."""
    merge_causes(connection, RESET, into=REFUSED, audit=AUDIT)
    between = _shown(connection)
    change = merge_causes(connection, REFUSED, into=KEY, audit=AUDIT)
    back = undo_change(connection, change.audit_id, audit=AUDIT)
    assert _shown(connection) == between
    undo_change(connection, back.audit_id, audit=AUDIT)
    assert _shown(connection) == {KEY: (6, 6)}


def test_undo_is_refused_after_a_later_change(connection: Connection) -> None:
    """The message names the cause; nothing is changed."""
    change = set_cause_text(connection, KEY, "name", "first", audit=AUDIT)
    set_cause_text(connection, KEY, "name", "second", audit=AUDIT)
    with pytest.raises(
        RefusedError, match=f"Cause {KEY} was changed again after change {change.audit_id}"
    ):
        undo_change(connection, change.audit_id, audit=AUDIT)
    assert get_cause(connection, KEY).name == "second"
    with pytest.raises(
        NotFoundError, match="Change 999 does not exist, or it is not a change of a cause"
    ):
        undo_change(connection, 999, audit=AUDIT)


def test_change_writes_an_audit_entry(connection: Connection) -> None:
    """With actor, reason, time, and the values before and after."""
    merge_causes(connection, RESET, into=REFUSED, audit=AUDIT)
    row = one(connection, "select kind, actor, reason, at, filter from dlq.audit")
    assert (row["kind"], row["actor"], row["reason"], row["at"]) == (
        "cause.merge",
        "ann",
        "they are one",
        NOW,
    )
    change = {"cause": RESET, "before": {"merged_into": None}, "after": {"merged_into": REFUSED}}
    assert row["filter"] == {"changes": [change]}


def test_description_has_the_changes_of_a_cause(connection: Connection) -> None:
    """The latest first."""
    merge_causes(connection, RESET, into=REFUSED, audit=AUDIT)
    split_cause(connection, RESET, audit=AUDIT)
    kinds = [change.kind for change in describe_cause(connection, RESET).changes]
    assert kinds == ["cause.split", "cause.merge"]


def test_unchanged_value_writes_no_audit_entry(connection: Connection) -> None:
    set_cause_text(connection, KEY, "name", "same", audit=AUDIT)
    assert set_cause_text(connection, KEY, "name", "same", audit=AUDIT).changes == ()
    assert one(connection, "select count(*) as n from dlq.audit")["n"] == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda c, options: merge_causes(c, RESET, into=REFUSED, audit=AUDIT, options=options),
        lambda c, options: set_cause_text(c, KEY, "name", "x", audit=AUDIT, options=options),
        lambda c, options: mute_cause(
            c, KEY, NOW + timedelta(days=1), audit=AUDIT, options=options
        ),
    ],
)
def test_dry_run_returns_the_same_and_changes_nothing(
    connection: Connection, change: Callable[[Connection, RunOptions], CauseChange]
) -> None:
    previewed = change(connection, RunOptions(dry_run=True)).changes
    assert one(connection, "select count(*) as n from dlq.audit")["n"] == 0
    assert previewed == change(connection, RunOptions()).changes != ()


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda c: merge_causes(c, KEY, into=KEY, audit=AUDIT), ValueError, "itself"),
        (lambda c: merge_causes(c, KEY, into="v2-none", audit=AUDIT), NotFoundError, "v2-none"),
        (lambda c: split_cause(c, KEY, audit=AUDIT), RefusedError, "nothing to split"),
        (lambda c: get_cause(c, "v2-none"), NotFoundError, "no cause 'v2-none'"),
        (lambda _: AuditContext(" ", "because", NOW), ValueError, "actor must not be empty"),
        (lambda _: AuditContext("ann", "", NOW), ValueError, "reason must not be empty"),
    ],
)
def test_invalid_change_is_refused(
    connection: Connection,
    change: Callable[[Connection], object],
    error: type[Exception],
    words: str,
) -> None:
    """Nothing is changed."""
    with pytest.raises(error, match=words):
        change(connection)
    assert one(connection, "select count(*) as n from dlq.audit")["n"] == 0


def test_merged_cause_accepts_no_change(connection: Connection) -> None:
    """The message names the root and the command that splits the cause."""
    merge_causes(connection, RESET, into=REFUSED, audit=AUDIT)
    refused = pytest.raises(RefusedError, match=f"merged into {REFUSED}.*dlq causes split {RESET}")
    with refused:
        set_cause_text(connection, RESET, "name", "x", audit=AUDIT)
    with refused:
        merge_causes(connection, KEY, into=RESET, audit=AUDIT)
    with refused:
        get_cause(connection, RESET)
