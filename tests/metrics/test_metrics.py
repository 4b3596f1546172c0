"""Tests a scrape: correct, bounded, of one snapshot, with counters that never decrease."""

import os
import random
import re
import shutil
import subprocess
import threading
from collections import Counter
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from dlq_pipelines.alerts.jobs import FailedRun, RunScan, record_job_failures, record_job_success
from dlq_pipelines.archive.archive import archive_dead_events
from dlq_pipelines.archive.purge import purge_archive, purge_deaths
from dlq_pipelines.archive.restore import restore_events
from dlq_pipelines.audit import AuditContext
from dlq_pipelines.causes import classify
from dlq_pipelines.causes.classify import classify_deaths
from dlq_pipelines.causes.counts import refresh_shown_causes
from dlq_pipelines.exports.redact import parse_redaction
from dlq_pipelines.metrics import DeadLetterCollector, build_snapshot_reader
from dlq_pipelines.outbox.reconcile import reconcile_events
from dlq_pipelines.outbox.selection import Selection
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.retries.advance import advance_fix
from dlq_pipelines.retries.fix import FixTerms
from dlq_pipelines.retries.fixes import list_fixes
from dlq_pipelines.retries.probe import ProbePolicy
from dlq_pipelines.retries.probes import run_probes
from dlq_pipelines.retries.recall import recall_retries
from dlq_pipelines.retries.retry import retry_events
from dlq_pipelines.retries.settle import settle_retries
from tests.rows import add_events, kill, one
from tests.shapes import ShapedOutbox

UTC_ZONE = ZoneInfo("UTC")
Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def text(database: Database) -> str:
    """Scrape from a process that has just started."""
    registry = CollectorRegistry()
    registry.register(
        DeadLetterCollector(
            build_snapshot_reader(database.connect, max_retries=3, archive_retention_days=365),
            outbox="orders",
        )
    )
    return generate_latest(registry).decode()


def scrape(database: Database) -> Series:
    """Return every sample by its name and labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text(database))
        for sample in family.samples
    }


def value(series: Series, name: str, **labels: str) -> float:
    return series[name, tuple(sorted({"outbox": "orders", **labels}.items()))]


def named(series: Series, name: str) -> dict[tuple[tuple[str, str], ...], float]:
    return {labels: found for (one_name, labels), found in series.items() if one_name == name}


def audit(now: datetime | None = None) -> AuditContext:
    return AuditContext("ann", "asked", now or datetime.now(UTC))


def counters(series: Series) -> Series:
    return {
        key: found
        for key, found in series.items()
        if key[0].endswith(("_total", "_bucket", "_count", "_sum"))
    }


def test_a_death_is_counted_at_once_and_only_once(
    connection: Connection, database: Database
) -> None:
    """Before it is classified and afterwards."""
    add_events(connection, 3)
    kill(connection, "boom", attempts=5)
    for unclassified in (3, 0):
        seen = scrape(database)
        kind = {"event_type": "order.placed", "aggregate_type": "order"}
        assert value(seen, "dispatchbox_dead_events_total", **kind) == 3
        assert value(seen, "dispatchbox_dead_events_current", **kind) == 3
        assert value(seen, "dlq_unclassified_deaths") == unclassified
        attempts = {key: found for key, found in seen.items() if "attempts_before_dead" in key[0]}
        assert {
            dict(labels).get("le", name): found for (name, labels), found in attempts.items()
        } == {
            "1.0": 0,
            "2.0": 0,
            "3.0": 0,
            "5.0": 3,
            "10.0": 3,
            "20.0": 3,
            "50.0": 3,
            "+Inf": 3,
            "dispatchbox_event_attempts_before_dead_count": 3,
            "dispatchbox_event_attempts_before_dead_sum": 15,
        }
        classify_deaths(connection, zone=UTC_ZONE)
    assert list(named(seen, "dlq_cause_deaths_total").values()) == [3]


@pytest.mark.parametrize("seed", range(4))
def test_no_counter_decreases(connection: Connection, database: Database, seed: int) -> None:
    """After retries, archive, restore and purges, with a new process for each scrape."""
    chance = random.Random(seed)
    died: Counter[str] = Counter()
    before: Series = {}
    for step in range(30):
        _do_something(connection, chance, died, step)
        seen = scrape(database)
        lower = {
            key: (before[key], seen[key])
            for key in counters(seen)
            if seen[key] < before.get(key, 0)
        }
        assert lower == {}, step
        assert {key[0] for key in before.keys() - seen.keys()} <= {
            "dlq_oldest_archived_event_timestamp_seconds",
            "dispatchbox_dead_events_current",  # of an unclassified type
        }
        by_type = Counter(
            {
                dict(k)["event_type"]: int(v)
                for k, v in named(seen, "dispatchbox_dead_events_total").items()
            }
        )
        assert by_type == died
        before = seen
    assert (
        one(connection, "select count(*) from dlq.audit where kind = 'ledger.purge'")["count"] > 0
    )


def _do_something(
    connection: Connection, chance: random.Random, died: Counter[str], step: int
) -> None:
    later = datetime.now(UTC) + timedelta(days=5000 + step)
    match chance.choice(
        [
            "die",
            "die",
            "classify",
            "retry",
            "deliver",
            "archive",
            "restore",
            "purge",
            "purge deaths",
        ]
    ):
        case "die":
            kind = chance.choice(["order.placed", "order.paid", "parcel.sent"])
            add_events(connection, chance.randint(1, 5), event_type=kind)
            waiting = connection.execute(
                "select event_type from outbox_event where status in ('pending', 'retry')"
            )
            died.update(row["event_type"] for row in waiting.fetchall())
            kill(
                connection,
                f"Error{chance.randint(1, 9)}",
                attempts=chance.randint(1, 60),
                where="status <> 'done'",
            )
        case "classify":
            classify_deaths(connection, zone=UTC_ZONE)
            refresh_shown_causes(connection, now=datetime.now(UTC))
        case "retry":
            ids = [
                row["id"]
                for row in connection.execute(
                    "select id from outbox_event where status = 'dead' limit 4"
                )
            ]
            if ids:
                retry_events(connection, ids, audit=audit(), rate=1000.0)
        case "deliver":
            connection.execute("update outbox_event set status = 'done' where status = 'pending'")
            settle_retries(connection, now=datetime.now(UTC) + timedelta(days=1), settle_seconds=1)
        case "archive":
            archive_dead_events(connection, before=later, only_exported=False, audit=audit())
        case "restore":
            restore_events(connection, Selection(all=True), audit=audit())
        case "purge":
            purge_archive(connection, before=later, audit=audit())
        case "purge deaths":
            classify_deaths(connection, zone=UTC_ZONE)
            archive_dead_events(connection, before=later, only_exported=False, audit=audit())
            purge_archive(connection, before=later, audit=audit())
            purge_deaths(connection, before=later, audit=audit())


def test_probes_and_what_they_healed_are_counted(
    connection: Connection, database: Database
) -> None:
    """By outcome, and with the events of the fix that a probe flagged; people's retries are not."""
    policy = ProbePolicy(enabled=True, settle_seconds=60, max_backlog=timedelta(days=30))

    def probe(minutes: int) -> None:
        now = datetime.now(UTC) + timedelta(minutes=minutes)
        run_probes(connection, policy=policy, zone=UTC_ZONE, audit=audit(now))

    def outcomes() -> dict[str, float]:
        found = named(scrape(database), "dlq_probes_total")
        return {dict(labels)["outcome"]: count for labels, count in found.items() if count}

    def work(change: str) -> None:
        connection.execute(f"update outbox_event set {change} where status = 'pending'".encode())
        classify_deaths(connection, zone=UTC_ZONE)

    add_events(connection, 5)
    kill(connection, "TimeoutError: no answer", attempts=5)
    classify_deaths(connection, zone=UTC_ZONE)
    assert outcomes() == {}
    probe(6)
    work("status = 'dead', last_error = 'TimeoutError: no answer'")
    probe(20)
    assert outcomes() == {"died_again": 1}
    probe(31)
    released = one(connection, "select event_id from dlq.retry where outcome is null")
    done = recall_retries(connection, Selection(all=True), audit=audit())
    assert done.recalled == 1, released
    probe(32)
    assert outcomes() == {"died_again": 1, "recalled": 1}
    probe(60)
    work("status = 'done'")
    probe(61)
    assert outcomes() == {"died_again": 1, "recalled": 1, "delivered": 1}
    assert value(scrape(database), "dlq_healed_events_total") == 1
    (fix,) = list_fixes(connection)
    for minutes in (62, 63):
        signed = audit(datetime.now(UTC) + timedelta(minutes=minutes))
        advance_fix(connection, fix.id, audit=signed, terms=FixTerms())
        work("status = 'done'")
    assert value(scrape(database), "dlq_healed_events_total") == 5
    add_events(connection, 1)
    kill(connection, "KeyError: 'sku'", attempts=5, where="status = 'pending'")
    retry_events(connection, [6], audit=audit())
    work("status = 'done'")
    settle_retries(connection, now=datetime.now(UTC) + timedelta(days=1), settle_seconds=1)
    series = scrape(database)
    assert value(series, "dlq_healed_events_total") == 5
    assert value(series, "dlq_retries_total", outcome="delivered") == 6
    assert outcomes()["delivered"] == 1


def test_deaths_that_no_trigger_saw_are_counted(connection: Connection, database: Database) -> None:
    """The counter has the deaths of all reconciliations. The deaths themselves are counted too."""
    add_events(connection, 5)
    for missed, ids in ((3, "1, 2, 3"), (0, "-1"), (1, "4")):
        connection.execute(
            "alter table outbox_event disable trigger user;"
            f" update outbox_event set status = 'dead' where id in ({ids});"
            " alter table outbox_event enable trigger user".encode()
        )
        assert reconcile_events(connection, now=datetime.now(UTC)).missed == missed
    seen = scrape(database)
    assert value(seen, "dlq_missed_deaths_total") == 4
    kind = {"event_type": "order.placed", "aggregate_type": "order"}
    assert value(seen, "dispatchbox_dead_events_total", **kind) == 4
    assert value(seen, "dispatchbox_dead_events_current", **kind) == 4


def test_failed_days_of_a_job_count_until_they_succeed(
    connection: Connection, database: Database
) -> None:
    """Other days do not matter. The time of the installation is exposed."""
    now = datetime.now(UTC)
    days = ("2026-01-01", "2026-01-02")
    record_job_failures(
        connection, RunScan((FailedRun("export_day", "run", now, days, now),), now, more=False)
    )
    for done, left in (("2026-01-03", 2), ("2026-01-01", 1), ("2026-01-02", 0)):
        record_job_success(connection, "export_day", day=done, at=now + timedelta(minutes=1))
        seen = scrape(database)
        assert value(seen, "dlq_job_failures", dlq_job="export_day") == left
    assert value(seen, "dlq_installed_timestamp_seconds") <= now.timestamp()


def test_a_scrape_is_one_snapshot(
    connection: Connection, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While deaths are classified, none is counted twice and none is missed."""
    add_events(connection, 3_000)
    connection.execute("update outbox_event set status = 'dead', last_error = 'boom'")
    monkeypatch.setattr(classify, "BATCH", 500)
    scraped = threading.Semaphore(0)  # each batch waits until a scrape has ended
    working = threading.Thread(
        target=classify_deaths,
        args=(connection,),
        kwargs={"zone": UTC_ZONE, "progress": lambda _: scraped.acquire()},
    )
    working.start()
    scrapes = 0
    while working.is_alive():
        seen = scrape(database)
        assert sum(named(seen, "dispatchbox_dead_events_total").values()) == 3_000
        (deaths,) = named(seen, "dispatchbox_event_attempts_before_dead_count").values()
        assert deaths == 3_000
        shown = sum(named(seen, "dlq_cause_deaths_total").values())
        assert shown + value(seen, "dlq_unclassified_deaths") == 3_000
        scrapes += 1
        scraped.release()
    working.join()
    assert scrapes >= 6


def test_types_beyond_the_fiftieth_are_other(connection: Connection, database: Database) -> None:
    """The first ones keep their labels, and no counter decreases."""
    before: Series = {}
    for wave in range(4):
        for kind in range(40):
            add_events(connection, 1 + kind % 3, event_type=f"kind{wave}.{kind}" + "x" * 300)
        kill(connection, f"Error{wave}")
        for classified in (False, True):
            if classified:
                classify_deaths(connection, zone=UTC_ZONE)
            seen = scrape(database)
            assert [key for key in counters(seen) if seen[key] < before.get(key, 0)] == []
            for name in ("dispatchbox_dead_events_total", "dispatchbox_dead_events_current"):
                assert len(named(seen, name)) <= 51
            assert all(len(dict(labels).get("event_type", "")) <= 100 for _, labels in seen)
            before = seen
        deaths = one(connection, "select count(*) from dlq.death")["count"]
        assert sum(named(seen, "dispatchbox_dead_events_total").values()) == deaths
        assert sum(named(seen, "dispatchbox_dead_events_current").values()) == deaths
    assert (
        value(seen, "dispatchbox_dead_events_total", event_type="other", aggregate_type="order")
        == 4 * 79 - 79 - 10 * 3
    )


def test_dead_events_of_hundreds_of_types_add_up(
    connection: Connection, database: Database
) -> None:
    """An application that writes an id into the type does not create a series for each id."""
    for kinds in (499, 500, 700):
        connection.execute("truncate outbox_event")
        connection.execute(
            "insert into outbox_event (aggregate_type, aggregate_id, event_type, payload, status)"
            " select 'order', '1', 'paid ' || mod(n, %s), '{}', 'dead'"
            " from generate_series(1, 2100) n",
            [kinds],
        )
        current = named(scrape(database), "dispatchbox_dead_events_current")
        assert sum(current.values()) == 2_100
        assert len(current) <= 52


def test_causes_beyond_the_fiftieth_are_other_until_they_grow(
    connection: Connection, database: Database
) -> None:
    """A cause that outgrows another one replaces it; `other` keeps its count."""
    add_events(connection, 180)
    for n in range(60):
        kill(
            connection,
            f"Error{n:02}Exception: x",
            where=f"id between {3 * n + 1} and {3 * n + (3 if n < 50 else 1)}",
        )
    classify_deaths(connection, zone=UTC_ZONE)
    seen = scrape(database)
    assert len(named(seen, "dlq_cause_deaths_total")) == 51
    assert value(seen, "dlq_cause_deaths_total", cause_id="other") == 10
    kill(connection, "Error59Exception: x", where="id > 0")
    classify_deaths(connection, zone=UTC_ZONE)
    refresh_shown_causes(connection, now=datetime.now(UTC))
    after = scrape(database)
    assert [key for key in counters(after) if after[key] < seen.get(key, 0)] == []
    assert len(named(after, "dlq_cause_deaths_total")) == 51
    assert 21 in named(after, "dlq_cause_deaths_total").values()
    assert value(after, "dlq_cause_deaths_total", cause_id="other") == 30
    assert len(named(after, "dlq_cause_info")) == 50


def test_two_causes_of_equal_size_do_not_alternate(connection: Connection) -> None:
    """Otherwise every cause would have a series sooner or later."""
    add_events(connection, 51)
    for n in range(51):
        kill(connection, f"Error{n:02}Exception: x", where=f"id = {n + 1}")
        classify_deaths(connection, zone=UTC_ZONE)
    query = (
        "select array_agg(cause_id order by cause_id) as ids"
        " from dlq.cause_count where shown and cause_id <> 'other'"
    )
    shown = one(connection, query)["ids"]
    refresh_shown_causes(connection, now=datetime.now(UTC))
    assert one(connection, query)["ids"] == shown
    assert len(shown) == 50


def test_an_open_fix_has_a_series_with_its_cause_and_its_detail(
    connection: Connection, database: Database
) -> None:
    """At most fifty. A fix that has ended has none."""
    connection.execute(
        "insert into dlq.fix (event_type, detail, note, flagged_by, flagged_at, status, closed_at)"
        " select case when n > 1 then 'e' end, 'sku', 'fixed', 'ann', now(),"
        " case when n > 2 then 'active' else 'halted' end, case when n < 3 then now() end"
        " from generate_series(1, 60) n"
    )
    found = named(scrape(database), "dlq_open_fix_info")
    assert len(found) == 50
    labels = {"cause_id": "", "detail": "sku", "fix": "60", "outbox": "orders", "status": "active"}
    assert tuple(labels.items()) in found


def test_detail_of_an_open_fix_is_redacted_before_it_is_cut(
    connection: Connection, database: Database
) -> None:
    """As alerts and samples are, also if the match begins before the end of the label."""
    detail = f"{'a' * 95}secret-key"
    connection.execute(
        "insert into dlq.fix (event_type, detail, note, flagged_by, flagged_at, status)"
        " values ('e', %s, 'fixed', 'ann', now(), 'active')",
        [detail],
    )
    redact = parse_redaction("", "secret-key", None).redact_errors
    read = build_snapshot_reader(
        database.connect, max_retries=3, archive_retention_days=365, redact=redact
    )
    (row,) = read().open_fixes
    assert row["detail"] == redact([detail])[0][:100]
    assert "secret" not in row["detail"]


def test_without_the_database_the_only_sample_is_dlq_up() -> None:
    """It does not expose zeros."""
    away = Database("postgresql://ann:s3cr3t@127.0.0.1:1/none")
    assert scrape(away) == {("dlq_up", (("outbox", "orders"),)): 0.0}


def test_without_migrations_the_only_sample_is_dlq_up(empty_database: Database) -> None:
    assert scrape(empty_database) == {("dlq_up", (("outbox", "orders"),)): 0.0}


def test_hostile_labels_are_escaped(connection: Connection, database: Database) -> None:
    """A line end or a quote in a type does not start another sample."""
    hostile = 'a"} 1\ndlq_up 0\n\\'
    add_events(connection, 1, event_type=hostile)
    kill(connection, "boom")
    assert (
        value(
            scrape(database),
            "dispatchbox_dead_events_total",
            event_type=hostile,
            aggregate_type="order",
        )
        == 1
    )


def test_promtool_accepts_the_metrics(connection: Connection, database: Database) -> None:
    """`promtool check metrics` checks names, units and help texts."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is missing: apt-get install prometheus")
    add_events(connection, 3)
    kill(connection, "boom")
    classify_deaths(connection, zone=UTC_ZONE)
    checked = subprocess.run(
        [promtool, "check", "metrics"],
        input=text(database),
        capture_output=True,
        text=True,
        check=False,
        env=os.environ,
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_a_scrape_reads_indexes_and_small_tables(outbox: ShapedOutbox) -> None:
    """The table of what is dead is read once, and neither the ledger nor the outbox is scanned."""
    connection = outbox.connection
    outbox.add_events(30_000)
    outbox.give_up_all("'boom'", where="n <= 10000")
    classify_deaths(connection, zone=UTC_ZONE)
    outbox.give_up_all("'boom'", where="n <= 10500")
    connection.execute("vacuum analyze")
    plans: dict[str, str] = {}
    for name in ("dead", "unclassified", "state", "causes", "moved_events"):
        query = connection.render_query(f"metrics.{name}", labels=50, max_retries=3)
        with connection.transaction():
            connection.run("metrics.bound")
            rows = connection.execute(f"explain {query}".encode()).fetchall()
        plans[name] = "\n".join(row["QUERY PLAN"] for row in rows)
    assert plans["dead"].count("Scan on dead ") == 1, plans["dead"]
    for name in ("dead", "unclassified"):
        assert re.search(r"Scan (using|on) death_unclassified\b", plans[name]), plans[name]
    assert "Index Only Scan using dead_time on dead" in plans["state"], plans["state"]
    for plan in plans.values():
        assert not re.search(rf"Seq Scan on (death|{outbox.table_name})(\s|$)", plan), plan
