"""What people do to causes: it changes what is shown, keeps the ledger, and can be taken back."""

import random
import time
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
from dlq_pipelines.causes.fingerprint import compute_cause_key
from dlq_pipelines.errors import NotFoundError, RefusedError
from dlq_pipelines.outbox.selection import Selection
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.retries.fix import RetryPolicy
from dlq_pipelines.retries.fixes import FixFlag, flag_fix, preview_fix
from tests.rows import add_events, kill, one

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
AUDIT = AuditContext("ann", "they are one", NOW)
ERRORS = {
    "refused": "ConnectionRefusedError: refused",
    "reset": "ConnectionResetError: reset",
    "key": "KeyError: 'a'",
}
REFUSED, RESET, KEY = (compute_cause_key(ERRORS[name]) for name in ("refused", "reset", "key"))


@pytest.fixture(autouse=True)
def _three_causes(connection: Connection) -> None:
    """Three deaths of `refused`, two of `reset`, one of `key`."""
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


def test_a_merged_cause_is_shown_as_the_other_and_its_deaths_keep_it(
    connection: Connection,
) -> None:
    """New deaths of it too."""
    before = _ledger(connection)
    merge_causes(connection, RESET, into=REFUSED, audit=AUDIT)
    assert _shown(connection) == {REFUSED: (5, 5), KEY: (1, 1)}
    assert _ledger(connection) == before
    assert get_cause(connection, REFUSED).members == (RESET,)
    add_events(connection, 1)
    kill(connection, ERRORS["reset"], where="status = 'pending'")
    classify_deaths(connection, zone=ZoneInfo("UTC"))
    assert _shown(connection)[REFUSED] == (6, 6)


def test_splitting_gives_back_exactly_what_was_merged(connection: Connection) -> None:
    """Also out of a merge of merges, which never makes a chain."""
    before = _shown(connection)
    merge_causes(connection, RESET, into=REFUSED, audit=AUDIT)
    merge_causes(connection, REFUSED, into=KEY, audit=AUDIT)
    assert _shown(connection) == {KEY: (6, 6)}
    assert get_cause(connection, KEY).members == tuple(sorted((REFUSED, RESET)))
    for cause in (RESET, REFUSED):
        split_cause(connection, cause, audit=AUDIT)
    assert _shown(connection) == before


def test_a_fix_targets_what_was_merged_into_its_cause(connection: Connection) -> None:
    """And is not flagged for a cause that is shown as another."""
    merge_causes(connection, RESET, into=REFUSED, audit=AUDIT)
    audit = replace(AUDIT, now=datetime.now(UTC))
    flag = FixFlag(Selection(cause=REFUSED))
    assert preview_fix(connection, flag, audit=audit, default=RetryPolicy()).events == 5
    with pytest.raises(RefusedError, match=f"merged into {REFUSED}"):
        flag_fix(connection, FixFlag(Selection(cause=RESET)), audit=audit)
    fix = flag_fix(connection, flag, audit=audit)
    for change in (
        lambda: split_cause(connection, RESET, audit=AUDIT),
        lambda: merge_causes(connection, KEY, into=REFUSED, audit=AUDIT),
        lambda: merge_causes(connection, REFUSED, into=KEY, audit=AUDIT),
    ):
        with pytest.raises(RefusedError, match=f"Fix {fix.id} .* is under way"):
            change()


@pytest.mark.parametrize("what", ["name", "owner", "note"])
def test_what_people_say_of_a_cause_is_shown_and_taken_back(
    connection: Connection, what: str
) -> None:
    """An empty text takes it away."""
    change = set_cause_text(connection, KEY, what, "  Postcode missing ", audit=AUDIT)
    assert getattr(get_cause(connection, KEY), what) == "Postcode missing"
    undo_change(connection, change.operation, audit=AUDIT)
    assert getattr(get_cause(connection, KEY), what) is None
    with pytest.raises(ValueError, match=f"{what} has 10001 characters"):
        set_cause_text(connection, KEY, what, "x" * 10_001, audit=AUDIT)


def test_a_name_is_the_title(connection: Connection) -> None:
    """Without one it is type and template."""
    assert get_cause(connection, REFUSED).title == "ConnectionRefusedError: refused"
    set_cause_text(connection, REFUSED, "name", "Carrier closed", audit=AUDIT)
    assert get_cause(connection, REFUSED).title == "Carrier closed"


def test_a_muted_cause_is_muted_until_its_time(connection: Connection) -> None:
    """Nothing has to run for it to end."""
    mute_cause(connection, KEY, NOW + timedelta(days=2), audit=AUDIT)
    cause = get_cause(connection, KEY)
    assert (cause.state(NOW), cause.state(NOW + timedelta(days=2))) == ("muted", "open")
    mute_cause(connection, KEY, None, audit=AUDIT)
    assert get_cause(connection, KEY).state(NOW) == "open"
    for until in (NOW, NOW + timedelta(days=367)):
        with pytest.raises(ValueError, match="within the next year"):
            mute_cause(connection, KEY, until, audit=AUDIT)


def test_a_cause_is_muted_for_a_year_from_any_day_and_in_any_zone(connection: Connection) -> None:
    """Also from the last of a month; and what was said in another zone is taken back like the rest."""
    last = datetime(2027, 12, 31, 12, tzinfo=timezone(timedelta(hours=5)))
    change = mute_cause(connection, KEY, last + timedelta(days=365), audit=replace(AUDIT, now=last))
    assert get_cause(connection, KEY).state(last + timedelta(days=364)) == "muted"
    undo_change(connection, change.operation, audit=AUDIT)
    assert get_cause(connection, KEY).muted_until is None


def test_a_cause_is_not_split_off_while_a_fix_of_it_is_being_flagged(
    connection: Connection, database: Database
) -> None:
    """The fix has counted its deaths: the split waits for it, and is refused."""
    merge_causes(connection, RESET, into=REFUSED, audit=AUDIT)
    change = split_cause(connection, RESET, audit=AUDIT)
    back = undo_change(connection, change.operation, audit=AUDIT)
    asks = (
        lambda own: split_cause(own, RESET, audit=AUDIT),
        lambda own: undo_change(own, back.operation, audit=AUDIT),
    )
    with ThreadPoolExecutor(2) as pool:
        with database.connect() as other, other.transaction():
            flag_fix(
                other,
                FixFlag(Selection(cause=REFUSED)),
                audit=replace(AUDIT, now=datetime.now(UTC)),
            )
            asked = [_asked(pool, connection, database, ask) for ask in asks]
        for answer in asked:
            with pytest.raises(RefusedError, match=r"Fix 1 .* is under way"):
                answer.result(30)


def test_a_cause_that_is_merged_in_this_moment_is_not_split(
    connection: Connection, database: Database
) -> None:
    """Its new root is not locked, so a fix could be flagged: nothing is done."""
    merge_causes(connection, RESET, into=REFUSED, audit=AUDIT)
    with ThreadPoolExecutor(1) as pool:
        with database.connect() as other, other.transaction():
            split_cause(other, RESET, audit=AUDIT)
            merge_causes(other, RESET, into=KEY, audit=AUDIT)
            answer = _asked(
                pool, connection, database, lambda own: split_cause(own, RESET, audit=AUDIT)
            )
        with pytest.raises(RefusedError, match=r"in this moment\. Ask again"):
            answer.result(30)
    assert get_cause(connection, KEY).members == (RESET,)


def _asked(
    pool: ThreadPoolExecutor,
    connection: Connection,
    database: Database,
    ask: Callable[[Connection], CauseChange],
) -> Future[CauseChange]:
    """Ask on a connection of its own, and return when that waits for a lock like those before it."""

    def alone() -> CauseChange:
        with database.connect() as own:
            return ask(own)

    waiting = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
    before = one(connection, waiting)["count"]
    asked = pool.submit(alone)
    while one(connection, waiting)["count"] == before:
        time.sleep(0.01)
    return asked


def test_no_history_of_changes_makes_a_chain_of_merges(connection: Connection) -> None:
    """Whatever is merged, split and taken back, in any order: one step leads to the cause that is shown."""
    chance = random.Random(7)
    chains = "select count(*) from dlq.cause m join dlq.cause r on r.id = m.merged_into where r.merged_into is not null"
    for _ in range(50):
        done: list[int] = []
        with connection.transaction(force_rollback=True):
            for _ in range(12):
                with suppress(RefusedError):
                    done.append(_some_change(connection, chance, done).operation)
            assert one(connection, chains) == {"count": 0}
            assert sum(deaths for _, deaths in _shown(connection).values()) == 6


def _some_change(connection: Connection, chance: random.Random, done: list[int]) -> CauseChange:
    cause, into = chance.sample([REFUSED, RESET, KEY], 2)
    match chance.choice(["merge", "split", "undo"]):
        case "undo" if done:
            return undo_change(connection, chance.choice(done), audit=AUDIT)
        case "split":
            return split_cause(connection, cause, audit=AUDIT)
        case _:
            return merge_causes(connection, cause, into=into, audit=AUDIT)


def test_an_undo_that_would_make_a_chain_says_what_stands_in_its_way(
    connection: Connection,
) -> None:
    """It names the cause to split first; then it is done."""
    merge_causes(connection, RESET, into=REFUSED, audit=AUDIT)
    split = split_cause(connection, RESET, audit=AUDIT)
    for cause, into in (
        (REFUSED, KEY),
        (KEY, RESET),
    ):  # its root is merged elsewhere; it has a member by now
        merge_causes(connection, cause, into=into, audit=AUDIT)
        with pytest.raises(
            RefusedError,
            match=f"Cause {cause} was merged into {into} .* `dlq causes split {cause}`",
        ):
            undo_change(connection, split.operation, audit=AUDIT)
        split_cause(connection, cause, audit=AUDIT)
    undo_change(connection, split.operation, audit=AUDIT)
    assert get_cause(connection, REFUSED).members == (RESET,)


def test_an_undo_restores_a_merge_of_merges_and_can_be_undone(connection: Connection) -> None:
    """Each cause goes back to where it was, not merely out of the merge."""
    merge_causes(connection, RESET, into=REFUSED, audit=AUDIT)
    between = _shown(connection)
    change = merge_causes(connection, REFUSED, into=KEY, audit=AUDIT)
    back = undo_change(connection, change.operation, audit=AUDIT)
    assert _shown(connection) == between
    undo_change(connection, back.operation, audit=AUDIT)
    assert _shown(connection) == {KEY: (6, 6)}


def test_an_undo_is_refused_when_the_cause_was_changed_since(connection: Connection) -> None:
    """It names the cause, and changes nothing."""
    change = set_cause_text(connection, KEY, "name", "first", audit=AUDIT)
    set_cause_text(connection, KEY, "name", "second", audit=AUDIT)
    with pytest.raises(
        RefusedError, match=f"Cause {KEY} was changed again after operation {change.operation}"
    ):
        undo_change(connection, change.operation, audit=AUDIT)
    assert get_cause(connection, KEY).name == "second"
    with pytest.raises(NotFoundError, match="No operation 999"):
        undo_change(connection, 999, audit=AUDIT)


def test_every_change_has_its_audit_row(connection: Connection) -> None:
    """Who, why, when, from what, to what."""
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
    (told,) = describe_cause(connection, REFUSED).changes or [None]
    assert told is None or told.kind == "cause.merge"


def test_a_change_of_nothing_writes_nothing(connection: Connection) -> None:
    """Saying a name twice is one change."""
    set_cause_text(connection, KEY, "name", "same", audit=AUDIT)
    assert set_cause_text(connection, KEY, "name", "same", audit=AUDIT).changes == ()
    assert one(connection, "select count(*) as n from dlq.audit")["n"] == 1


DRY_RUN = RunOptions(dry_run=True)


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
def test_a_dry_run_tells_the_same_and_changes_nothing(
    connection: Connection, change: Callable[[Connection, RunOptions], CauseChange]
) -> None:
    """What it tells is what the real one then does."""
    told = change(connection, DRY_RUN).changes
    assert one(connection, "select count(*) as n from dlq.audit")["n"] == 0
    assert told == change(connection, RunOptions()).changes != ()


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda c: merge_causes(c, KEY, into=KEY, audit=AUDIT), ValueError, "itself"),
        (lambda c: merge_causes(c, KEY, into="v1-none", audit=AUDIT), NotFoundError, "v1-none"),
        (lambda c: split_cause(c, KEY, audit=AUDIT), RefusedError, "nothing to split"),
        (lambda c: get_cause(c, "v1-none"), NotFoundError, "no cause 'v1-none'"),
        (lambda _: AuditContext(" ", "because", NOW), ValueError, "actor must not be empty"),
        (lambda _: AuditContext("ann", "", NOW), ValueError, "reason must not be empty"),
    ],
)
def test_what_cannot_be_done_is_said(
    connection: Connection,
    change: Callable[[Connection], object],
    error: type[Exception],
    words: str,
) -> None:
    """And changes nothing."""
    with pytest.raises(error, match=words):
        change(connection)
    assert one(connection, "select count(*) as n from dlq.audit")["n"] == 0


def test_a_merged_cause_is_changed_by_its_root_alone(connection: Connection) -> None:
    """The message names the root and the way out."""
    merge_causes(connection, RESET, into=REFUSED, audit=AUDIT)
    for change in (
        lambda: set_cause_text(connection, RESET, "name", "x", audit=AUDIT),
        lambda: merge_causes(connection, KEY, into=RESET, audit=AUDIT),
        lambda: get_cause(connection, RESET),
    ):
        with pytest.raises(RefusedError, match=f"merged into {REFUSED}.*dlq causes split {RESET}"):
            change()
