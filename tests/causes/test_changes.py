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

from dlq_pipelines.causes.catalogue import (
    Change,
    describe_as,
    describe_cause,
    get_cause,
    list_causes,
    merge_causes,
    mute_cause,
    split_cause,
    undo,
)
from dlq_pipelines.causes.classify import classify_deaths
from dlq_pipelines.causes.fingerprint import cause_key
from dlq_pipelines.errors import NotFoundError, RefusedError
from dlq_pipelines.operation import Act
from dlq_pipelines.outbox.event import Selector
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.retries.fix import RetryPolicy
from dlq_pipelines.retries.ledger import Flag, flag_fix, preview_fix
from tests.rows import add_events, kill, one

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
ACT = Act("ann", "they are one", NOW)
ERRORS = {"refused": "ConnectionRefusedError: refused", "reset": "ConnectionResetError: reset", "key": "KeyError: 'a'"}
REFUSED, RESET, KEY = (cause_key(ERRORS[name]) for name in ("refused", "reset", "key"))


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
    rows = connection.execute("select cause_id, count(*) as n from dlq.death group by 1 order by 1").fetchall()
    return [(row["cause_id"], row["n"]) for row in rows]


def test_a_merged_cause_is_shown_as_the_other_and_its_deaths_keep_it(connection: Connection) -> None:
    """New deaths of it too."""
    before = _ledger(connection)
    merge_causes(connection, RESET, into=REFUSED, act=ACT)
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
    merge_causes(connection, RESET, into=REFUSED, act=ACT)
    merge_causes(connection, REFUSED, into=KEY, act=ACT)
    assert _shown(connection) == {KEY: (6, 6)}
    assert get_cause(connection, KEY).members == tuple(sorted((REFUSED, RESET)))
    for cause in (RESET, REFUSED):
        split_cause(connection, cause, act=ACT)
    assert _shown(connection) == before


def test_a_fix_targets_what_was_merged_into_its_cause(connection: Connection) -> None:
    """And is not flagged for a cause that is shown as another."""
    merge_causes(connection, RESET, into=REFUSED, act=ACT)
    act = replace(ACT, now=datetime.now(UTC))
    flag = Flag(Selector(cause_id=REFUSED))
    assert preview_fix(connection, flag, act=act, default=RetryPolicy()).events == 5
    with pytest.raises(RefusedError, match=f"merged into {REFUSED}"):
        flag_fix(connection, Flag(Selector(cause_id=RESET)), act=act)
    fix = flag_fix(connection, flag, act=act)
    for change in (
        lambda: split_cause(connection, RESET, act=ACT),
        lambda: merge_causes(connection, KEY, into=REFUSED, act=ACT),
        lambda: merge_causes(connection, REFUSED, into=KEY, act=ACT),
    ):
        with pytest.raises(RefusedError, match=f"Fix {fix.id} .* is under way"):
            change()


@pytest.mark.parametrize("what", ["name", "owner", "note"])
def test_what_people_say_of_a_cause_is_shown_and_taken_back(connection: Connection, what: str) -> None:
    """An empty text takes it away."""
    change = describe_as(connection, KEY, what, "  Postcode missing ", act=ACT)
    assert getattr(get_cause(connection, KEY), what) == "Postcode missing"
    undo(connection, change.operation, act=ACT)
    assert getattr(get_cause(connection, KEY), what) is None
    with pytest.raises(ValueError, match=f"{what} has 10001 characters"):
        describe_as(connection, KEY, what, "x" * 10_001, act=ACT)


def test_a_name_is_the_title(connection: Connection) -> None:
    """Without one it is type and template."""
    assert get_cause(connection, REFUSED).title == "ConnectionRefusedError: refused"
    describe_as(connection, REFUSED, "name", "Carrier closed", act=ACT)
    assert get_cause(connection, REFUSED).title == "Carrier closed"


def test_a_muted_cause_is_muted_until_its_time(connection: Connection) -> None:
    """Nothing has to run for it to end."""
    mute_cause(connection, KEY, NOW + timedelta(days=2), act=ACT)
    cause = get_cause(connection, KEY)
    assert (cause.state(NOW), cause.state(NOW + timedelta(days=2))) == ("muted", "open")
    mute_cause(connection, KEY, None, act=ACT)
    assert get_cause(connection, KEY).state(NOW) == "open"
    for until in (NOW, NOW + timedelta(days=367)):
        with pytest.raises(ValueError, match="within the next year"):
            mute_cause(connection, KEY, until, act=ACT)


def test_a_cause_is_muted_for_a_year_from_any_day_and_in_any_zone(connection: Connection) -> None:
    """Also from the last of a month; and what was said in another zone is taken back like the rest."""
    last = datetime(2027, 12, 31, 12, tzinfo=timezone(timedelta(hours=5)))
    change = mute_cause(connection, KEY, last + timedelta(days=365), act=replace(ACT, now=last))
    assert get_cause(connection, KEY).state(last + timedelta(days=364)) == "muted"
    undo(connection, change.operation, act=ACT)
    assert get_cause(connection, KEY).muted_until is None


def test_a_cause_is_not_split_off_while_a_fix_of_it_is_being_flagged(
    connection: Connection, database: Database
) -> None:
    """The fix has counted its deaths: the split waits for it, and is refused."""
    merge_causes(connection, RESET, into=REFUSED, act=ACT)
    change = split_cause(connection, RESET, act=ACT)
    back = undo(connection, change.operation, act=ACT)
    asks = (lambda own: split_cause(own, RESET, act=ACT), lambda own: undo(own, back.operation, act=ACT))
    with ThreadPoolExecutor(2) as pool:
        with database.connect() as other, other.transaction():
            flag_fix(other, Flag(Selector(cause_id=REFUSED)), act=replace(ACT, now=datetime.now(UTC)))
            asked = [_asked(pool, connection, database, ask) for ask in asks]
        for answer in asked:
            with pytest.raises(RefusedError, match=r"Fix 1 .* is under way"):
                answer.result(30)


def test_a_cause_that_is_merged_in_this_moment_is_not_split(connection: Connection, database: Database) -> None:
    """Its new root is not locked, so a fix could be flagged: nothing is done."""
    merge_causes(connection, RESET, into=REFUSED, act=ACT)
    with ThreadPoolExecutor(1) as pool:
        with database.connect() as other, other.transaction():
            split_cause(other, RESET, act=ACT)
            merge_causes(other, RESET, into=KEY, act=ACT)
            answer = _asked(pool, connection, database, lambda own: split_cause(own, RESET, act=ACT))
        with pytest.raises(RefusedError, match=r"in this moment\. Ask again"):
            answer.result(30)
    assert get_cause(connection, KEY).members == (RESET,)


def _asked(
    pool: ThreadPoolExecutor, connection: Connection, database: Database, ask: Callable[[Connection], Change]
) -> Future[Change]:
    """Ask on a connection of its own, and return when that waits for a lock like those before it."""

    def alone() -> Change:
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


def _some_change(connection: Connection, chance: random.Random, done: list[int]) -> Change:
    cause, into = chance.sample([REFUSED, RESET, KEY], 2)
    match chance.choice(["merge", "split", "undo"]):
        case "undo" if done:
            return undo(connection, chance.choice(done), act=ACT)
        case "split":
            return split_cause(connection, cause, act=ACT)
        case _:
            return merge_causes(connection, cause, into=into, act=ACT)


def test_an_undo_that_would_make_a_chain_says_what_stands_in_its_way(connection: Connection) -> None:
    """It names the cause to split first; then it is done."""
    merge_causes(connection, RESET, into=REFUSED, act=ACT)
    split = split_cause(connection, RESET, act=ACT)
    for cause, into in ((REFUSED, KEY), (KEY, RESET)):  # its root is merged elsewhere; it has a member by now
        merge_causes(connection, cause, into=into, act=ACT)
        with pytest.raises(RefusedError, match=f"Cause {cause} was merged into {into} .* `dlq causes split {cause}`"):
            undo(connection, split.operation, act=ACT)
        split_cause(connection, cause, act=ACT)
    undo(connection, split.operation, act=ACT)
    assert get_cause(connection, REFUSED).members == (RESET,)


def test_an_undo_restores_a_merge_of_merges_and_can_be_undone(connection: Connection) -> None:
    """Each cause goes back to where it was, not merely out of the merge."""
    merge_causes(connection, RESET, into=REFUSED, act=ACT)
    between = _shown(connection)
    change = merge_causes(connection, REFUSED, into=KEY, act=ACT)
    back = undo(connection, change.operation, act=ACT)
    assert _shown(connection) == between
    undo(connection, back.operation, act=ACT)
    assert _shown(connection) == {KEY: (6, 6)}


def test_an_undo_is_refused_when_the_cause_was_changed_since(connection: Connection) -> None:
    """It names the cause, and changes nothing."""
    change = describe_as(connection, KEY, "name", "first", act=ACT)
    describe_as(connection, KEY, "name", "second", act=ACT)
    with pytest.raises(RefusedError, match=f"Cause {KEY} was changed again after operation {change.operation}"):
        undo(connection, change.operation, act=ACT)
    assert get_cause(connection, KEY).name == "second"
    with pytest.raises(NotFoundError, match="No operation 999"):
        undo(connection, 999, act=ACT)


def test_every_change_has_its_audit_row(connection: Connection) -> None:
    """Who, why, when, from what, to what."""
    merge_causes(connection, RESET, into=REFUSED, act=ACT)
    row = one(connection, "select kind, actor, reason, at, filter from dlq.operation")
    assert (row["kind"], row["actor"], row["reason"], row["at"]) == ("cause.merge", "ann", "they are one", NOW)
    change = {"cause": RESET, "before": {"merged_into": None}, "after": {"merged_into": REFUSED}}
    assert row["filter"] == {"changes": [change]}
    (told,) = describe_cause(connection, REFUSED).changes or [None]
    assert told is None or told.kind == "cause.merge"


def test_a_change_of_nothing_writes_nothing(connection: Connection) -> None:
    """Saying a name twice is one change."""
    describe_as(connection, KEY, "name", "same", act=ACT)
    assert describe_as(connection, KEY, "name", "same", act=ACT).changes == ()
    assert one(connection, "select count(*) as n from dlq.operation")["n"] == 1


DRY = Act("ann", "only to see", NOW, dry_run=True)


@pytest.mark.parametrize(
    "change",
    [
        lambda c, act: merge_causes(c, RESET, into=REFUSED, act=act),
        lambda c, act: describe_as(c, KEY, "name", "x", act=act),
        lambda c, act: mute_cause(c, KEY, NOW + timedelta(days=1), act=act),
    ],
)
def test_a_dry_run_tells_the_same_and_changes_nothing(
    connection: Connection, change: Callable[[Connection, Act], Change]
) -> None:
    """What it tells is what the real one then does."""
    told = change(connection, DRY).changes
    assert one(connection, "select count(*) as n from dlq.operation")["n"] == 0
    assert told == change(connection, ACT).changes != ()


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda c: merge_causes(c, KEY, into=KEY, act=ACT), ValueError, "itself"),
        (lambda c: merge_causes(c, KEY, into="v1-none", act=ACT), NotFoundError, "v1-none"),
        (lambda c: split_cause(c, KEY, act=ACT), RefusedError, "nothing to split"),
        (lambda c: get_cause(c, "v1-none"), NotFoundError, "no cause 'v1-none'"),
        (lambda _: Act(" ", "because", NOW), ValueError, "actor must not be empty"),
        (lambda _: Act("ann", "", NOW), ValueError, "reason must not be empty"),
    ],
)
def test_what_cannot_be_done_is_said(
    connection: Connection, change: Callable[[Connection], object], error: type[Exception], words: str
) -> None:
    """And changes nothing."""
    with pytest.raises(error, match=words):
        change(connection)
    assert one(connection, "select count(*) as n from dlq.operation")["n"] == 0


def test_a_merged_cause_is_changed_by_its_root_alone(connection: Connection) -> None:
    """The message names the root and the way out."""
    merge_causes(connection, RESET, into=REFUSED, act=ACT)
    for change in (
        lambda: describe_as(connection, RESET, "name", "x", act=ACT),
        lambda: merge_causes(connection, KEY, into=RESET, act=ACT),
        lambda: get_cause(connection, RESET),
    ):
        with pytest.raises(RefusedError, match=f"merged into {REFUSED}.*dlq causes split {RESET}"):
            change()
