"""Fixes under fire: processes killed, the server crashed, workers, sensors and an archiver at once."""

import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import psutil
import psycopg
import pytest

from dlq_pipelines.archive.archive import archive_dead_events, discard_events
from dlq_pipelines.causes.classify import classify_deaths
from dlq_pipelines.causes.fingerprint import cause_key
from dlq_pipelines.errors import DlqError, RefusedError
from dlq_pipelines.installation import create_tables
from dlq_pipelines.operation import Act
from dlq_pipelines.outbox.event import Selector
from dlq_pipelines.postgres import embedded
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.retries.fix import FixStatus, RetryPolicy, Terms
from dlq_pipelines.retries.ledger import Flag, fixes_due, flag_fix, list_fixes
from dlq_pipelines.retries.retry import advance_fix, retry_selected, settle_retries
from tests.rows import one

# How hard; `make drill` asks for more.
KILLS = int(os.environ.get("DRILL_KILLS", "50"))
EVENTS = int(os.environ.get("DRILL_EVENTS", "20000"))
POLICY = RetryPolicy(canary=5, growth=3.0, rate=100_000.0, settle_seconds=600)
TERMS = Terms(POLICY, max_backlog=timedelta(days=1))
# Written down beside our own books, so that nothing here takes their word: each time that an event is released.
WITNESS = """
    create table released (event_id bigint, at timestamptz default clock_timestamp());
    create function witness() returns trigger language plpgsql as
        $$ begin insert into released (event_id) values (new.id); return null; end $$;
    create trigger witness after update on outbox_event for each row
        when (old.status = 'dead' and new.status = 'pending') execute function witness();
"""
# What a run worker does, in small batches so that there is much to interrupt.
STEPPER = """
import sys
from datetime import UTC, datetime
from dlq_pipelines.operation import Act
from dlq_pipelines.postgres.connect import Database
from dlq_pipelines.retries import fix, retry
from dlq_pipelines.retries.ledger import list_fixes
fix.BATCH, retry.BATCH = 4, 100
with Database(sys.argv[1]).connect() as connection:
    print("ready", flush=True)
    while True:
        for one in list_fixes(connection, only_open=True):
            act = Act("sensor", "a step is due", datetime.now(UTC))
            retry.advance_fix(connection, one.id, act=act, terms=fix.Terms())
"""


def _act(actor: str = "ann", reason: str = "mended") -> Act:
    return Act(actor, reason, datetime.now(UTC))


def _die(connection: Connection, count: int, error: str) -> None:
    """Classified dead events of an error, two of each aggregate."""
    connection.execute(
        "insert into outbox_event (aggregate_type, aggregate_id, event_type, payload, status, last_error, dead_at)"
        " select 'order', %s || n / 2, 'e', '{}', 'dead', %s, now() - interval '1 hour' from generate_series(1, %s) n",
        [error, error, count],
    )
    classify_deaths(connection, zone=ZoneInfo("UTC"))


def _flag(connection: Connection, error: str, policy: RetryPolicy = POLICY) -> int:
    return flag_fix(connection, Flag(Selector(cause_id=cause_key(error)), policy), act=_act()).id


def _books(connection: Connection) -> dict[str, object]:
    """What must hold whatever happened."""
    return {
        "retries without a release, or the other way round": connection.execute(
            "select event_id from (select event_id, 1 as n from released"
            " union all select event_id, -1 from dlq.retry) b group by 1 having sum(n) <> 0"
        ).fetchall(),
        "a fix released an event twice": connection.execute(
            "select fix_id, event_id from dlq.retry where fix_id is not null group by 1, 2 having count(*) > 1"
        ).fetchall(),
        "stages that are not what the ledger says": connection.run("fix.stages_difference").fetchall(),
        "audit": one(
            connection,
            "select (select coalesce(sum(events), 0) from dlq.operation where kind like 'retry.%')"
            " - (select count(*) from dlq.retry) as n",
        )["n"],
        "lost or doubled": connection.one("archive.unaccounted"),
        "retried, and neither dead nor on its way nor done": connection.execute(
            "select r.event_id from dlq.retry r join outbox_event e on e.id = r.event_id where r.outcome = 'done'"
            " and e.status <> 'done' and not exists (select from dlq.death d"
            " where d.event_id = r.event_id and d.id > r.death_id)"
        ).fetchall(),
    }


SOUND = {
    "retries without a release, or the other way round": [],
    "a fix released an event twice": [],
    "stages that are not what the ledger says": [],
    "audit": 0,
    "lost or doubled": {"missing": 0, "doubled": 0, "examples": None},
    "retried, and neither dead nor on its way nor done": [],
}


@contextmanager
def _running(*loops: Callable[[threading.Event], None]) -> Iterator[None]:
    """Each in a thread of its own, until the block ends; what one of them raises is raised."""
    stop = threading.Event()
    with ThreadPoolExecutor(len(loops)) as pool:
        threads = [pool.submit(loop, stop) for loop in loops]
        try:
            yield
        finally:
            stop.set()
    for thread in threads:
        thread.result()


def _worker(url: str, dies: str = "false") -> Callable[[threading.Event], None]:
    """An application's own: takes what is due, delivers it or lets it die, and survives its server."""
    statement = (
        "update outbox_event e set status = case when " + dies + " then 'dead' else 'done' end, attempts = attempts + 1"
        " from (select id from outbox_event where status = 'pending' and next_run_at <= now()"
        " order by next_run_at limit 50 for update skip locked) due where due.id = e.id"
    ).encode()

    def work(stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                with psycopg.connect(url, autocommit=True) as connection:
                    while not stop.is_set():
                        if not connection.execute(statement).rowcount:
                            time.sleep(0.01)
            except psycopg.OperationalError:
                time.sleep(0.05)

    return work


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Path]:
    """The home of a server that only this test uses, and may crash."""
    home = tmp_path / "home"
    with embedded.start(home) as server:
        create_tables(Database(server.ensure_database("outbox")))
        yield home


def _crash(home: Path) -> None:
    """Kill the server as the kernel's out-of-memory killer would, and start it again."""
    pid = int((home / "postgres" / "postmaster.pid").read_text().splitlines()[0])
    process = psutil.Process(pid)
    process.kill()
    process.wait(30)
    embedded.start(home).release()


def _kill_a_stepper(url: str, after: float) -> None:
    """Start a process that steps all open fixes, and kill it that many seconds after it is ready."""
    with subprocess.Popen(
        [sys.executable, "-c", STEPPER, url], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as stepper:
        assert stepper.stdout is not None
        stepper.stdout.readline()
        time.sleep(after)
        stepper.kill()


@pytest.mark.timeout(900)
def test_every_target_is_released_once_whoever_is_killed(own_server: Path) -> None:
    """The stepping process at random points, the server in between; then one is left to finish."""
    chance = random.Random(4)
    url = embedded.start(own_server).ensure_database("outbox")
    database = Database(url)
    targets = 0
    with database.connect() as connection:
        connection.execute(WITNESS)
    with _running(_worker(url), _worker(url)):
        for kill in range(KILLS):
            with database.connect() as connection:
                if not list_fixes(connection, only_open=True):
                    _die(connection, 300, f"Error{targets}: x")
                    _flag(connection, f"Error{targets}: x")
                    targets += 300
            _kill_a_stepper(url, chance.uniform(0, 0.1))
            if kill % 10 == 9:
                _crash(own_server)
        with database.connect() as connection:
            _step_to_the_end(connection)
            assert {fix.status for fix in list_fixes(connection)} == {FixStatus.VERIFIED}
            assert _books(connection) == SOUND
            steps = one(connection, "select count(*) as n from dlq.operation where kind = 'retry.stage'")["n"]
            assert steps > KILLS // 2  # there was something to interrupt
            assert one(connection, "select count(*) as n, count(distinct event_id) as d from released") == {
                "n": targets, "d": targets,
            }  # fmt: skip
            assert one(connection, "select count(*) as n from outbox_event where status = 'done'") == {"n": targets}


def _step_to_the_end(connection: Connection) -> None:
    give_up = time.monotonic() + 300
    while fixes := list_fixes(connection, only_open=True, limit=1000):
        assert time.monotonic() < give_up
        for fix in fixes:
            advance_fix(connection, fix.id, act=_act("sensor", "step"), terms=TERMS)


def _sensor(database: Database) -> Callable[[threading.Event], None]:
    """What the daemon and its runs do, without their pauses."""

    def tick(stop: threading.Event) -> None:
        with database.connect() as connection:
            while not stop.is_set():
                for fix in fixes_due(connection, now=datetime.now(UTC), max_backlog=TERMS.max_backlog):
                    advance_fix(connection, fix.id, act=_act("sensor", "step"), terms=TERMS)
                time.sleep(0.02)

    return tick


def _archiver(database: Database) -> Callable[[threading.Event], None]:
    """Takes every dead event that no open fix wants, as soon as it is dead."""

    def archive(stop: threading.Event) -> None:
        with database.connect() as connection:
            while not stop.is_set():
                classify_deaths(connection, zone=ZoneInfo("UTC"))
                archive_dead_events(connection, before=datetime.now(UTC), only_exported=False, act=_act("archiver"))
                settle_retries(connection, now=datetime.now(UTC), settle_seconds=600)
                time.sleep(0.1)

    return archive


@pytest.mark.timeout(900)
def test_workers_sensors_and_an_archiver_at_once_keep_the_books(connection: Connection, database: Database) -> None:
    """Eight, two and one; fixes that hold, fixes that do not, and events that nobody flagged."""
    connection.execute(WITNESS)
    kinds = [f"Kind{letter}Error: x" for letter in "ABCDEFGHIJ"]
    for kind in kinds:
        _die(connection, EVENTS // len(kinds), kind)
    for kind in kinds[:8]:  # the others are the archiver's
        _flag(connection, kind, RetryPolicy(canary=10, rate=100_000.0, ordering="none", settle_seconds=600))
    false = "last_error in ('KindAError: x', 'KindBError: x')"
    workers = [_worker(database.url, f"{false} or e.id % 97 = 0") for _ in range(8)]
    with _running(*workers, _sensor(database), _sensor(database), _archiver(database)):
        give_up = time.monotonic() + 600
        while list_fixes(connection, only_open=True):
            assert time.monotonic() < give_up
            time.sleep(0.1)
    classify_deaths(connection, zone=ZoneInfo("UTC"))
    assert _books(connection) == SOUND
    ended = {fix.selector.cause_id: fix.status for fix in list_fixes(connection)}
    expected = {cause_key(kind): FixStatus.HALTED if kind in kinds[:2] else FixStatus.VERIFIED for kind in kinds[:8]}
    assert ended == expected
    places = "select (select count(*) from outbox_event) + (select count(*) from outbox_event_archive) as n"
    assert one(connection, places) == {"n": EVENTS}
    assert len(set(connection.one("cause.rollup_difference").values())) == 1
    # Nothing of a false fix but its canary was tried, and nothing that nobody flagged.
    tried = "select count(*) as n from released r join dlq.death d using (event_id) where d.error = '{}'"
    for kind, most in ((kinds[0], 10), (kinds[1], 10), (kinds[8], 0), (kinds[9], 0)):
        assert one(connection, tried.format(kind).replace("count(*)", "count(distinct r.event_id)"))["n"] == most


@dataclass(frozen=True)
class Taken:
    """Who took how many events, each at the same moment as the others."""

    archived: int
    discarded: int
    retried: int
    released: int


def _race(database: Database, fix_id: int) -> Taken:
    together = threading.Barrier(4)
    everything = Selector(every=True)

    def run(take: Callable[[Connection], int]) -> int:
        with database.connect() as own:
            together.wait()
            try:
                return take(own)
            except RefusedError:
                return 0

    def archive(own: Connection) -> int:
        return archive_dead_events(own, before=datetime.now(UTC), only_exported=False, act=_act("archiver")).moved

    takers: list[Callable[[Connection], int]] = [
        archive,
        lambda own: discard_events(own, everything, act=_act("discarder")).events,
        lambda own: retry_selected(own, everything, act=_act("retrier"), rate=1000.0, max_retries=None).events,
        lambda own: advance_fix(own, fix_id, act=_act("sensor"), terms=TERMS).released,
    ]
    with ThreadPoolExecutor(4) as pool:
        return Taken(*pool.map(run, takers))


@pytest.mark.parametrize("seed", range(5))
def test_archive_discard_retry_and_stage_never_meet_in_an_event(
    connection: Connection, database: Database, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """All want all of it at once; each event is taken by one."""
    for module in ("retries.retry", "retries.fix", "archive.archive"):
        monkeypatch.setattr(f"dlq_pipelines.{module}.BATCH", 7 + seed)
    connection.execute(WITNESS)
    _die(connection, 300, "WantedError: x")
    _die(connection, 300, "NobodysError: x")
    fix = _flag(connection, "WantedError: x", RetryPolicy(canary=300, rate=1000.0, ordering="none"))
    taken = _race(database, fix)
    counts = "select status, count(*) as n from outbox_event group by 1"
    left = {row["status"]: row["n"] for row in connection.execute(counts)}
    assert left.get("pending", 0) == taken.retried + taken.released
    archived = one(connection, "select count(*) as n from outbox_event_archive")["n"]
    assert archived == taken.archived + taken.discarded
    assert sum(left.values()) + archived == 600
    assert taken.archived <= 300  # what the fix targets is not the archive's
    assert _books(connection) == SOUND


def test_a_step_beside_a_broken_server_is_one_clear_error(own_server: Path) -> None:
    """And the next one, when it is back, goes on."""
    url = embedded.start(own_server).ensure_database("outbox")
    database = Database(url)
    with database.connect() as connection:
        _die(connection, 3, "Error: x")
        fix = _flag(connection, "Error: x")
        pid = int((own_server / "postgres" / "postmaster.pid").read_text().splitlines()[0])
        psutil.Process(pid).kill()
        with pytest.raises((psycopg.OperationalError, DlqError)):
            advance_fix(connection, fix, act=_act(), terms=TERMS)
    embedded.start(own_server).release()
    with database.connect() as connection:
        assert advance_fix(connection, fix, act=_act(), terms=TERMS).released == 2
