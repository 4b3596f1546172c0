"""How many events are dead, how many died, and is anything of ours not working? In Prometheus' text format.

Every figure is read from the database when it is asked for, in one snapshot, so a restart resets nothing and several
processes say the same. Counters come from tables that are written where something is counted and that are never purged;
what is not classified yet is added to them. While the database is away only `dlq_up 0` is said: nothing false.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

import psycopg
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from psycopg.rows import DictRow

from dlq_pipelines.causes.counts import LABELS
from dlq_pipelines.errors import DlqError
from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.retries.fix import FixStatus

# The bounds of the histogram, as `dlq.attempts_bucket` knows them; the last stands for no bound.
_BOUNDS = (1, 2, 3, 5, 10, 20, 50, 2_147_483_647)
_OUTCOMES = ("delivered", "died_again", "timed_out", "deleted")
_SEVERITIES = ("info", "warning", "critical")
Rows = list[DictRow]


@dataclass(frozen=True)
class MetricsSnapshot:
    """Everything that a scrape reads, of one moment, as rows of the statements of the same names."""

    deaths: Rows
    unclassified: Rows
    dead: Rows
    causes: Rows
    retries: Rows
    fixes: Rows
    acts: Rows
    checks: Rows
    jobs: Rows
    alerts: Rows
    channels: Rows
    state: DictRow
    archive_retention_seconds: float


def read_metrics_snapshot(
    connection: Connection, *, max_retries: int, archive_retention_days: int
) -> MetricsSnapshot:
    """Read all of it in one read-only transaction, within five seconds.

    Args:
        connection: in autocommit mode.
        max_retries: after so many retries an event is parked.
        archive_retention_days: how long archived events are kept; 0: for ever.
    """
    names = ("deaths", "causes", "retries", "fixes", "acts", "checks", "jobs", "alerts", "channels")
    with connection.transaction():
        connection.run("session.one_moment")
        connection.run("metrics.bound")
        return MetricsSnapshot(
            **{name: connection.run(f"metrics.{name}").fetchall() for name in names},
            **{
                name: connection.run(f"metrics.{name}", labels=LABELS).fetchall()
                for name in ("unclassified", "dead")
            },
            state=connection.fetch_one("metrics.state", max_retries=max_retries),
            archive_retention_seconds=archive_retention_days * 86_400.0,
        )


class DeadLetterCollector(Collector):
    """Reads a snapshot each time it is collected.

    Args:
        read: opens what is needed and returns a snapshot; it may fail as databases do.
    """

    def __init__(self, read: Callable[[], MetricsSnapshot]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        """All metrics, or that there are none now."""
        try:
            snapshot = self._read()
        except (psycopg.Error, DlqError, OSError):
            yield _gauge("dlq_up", "Whether the database could be read: 1 or 0.", 0)
            return
        yield _gauge("dlq_up", "Whether the database could be read: 1 or 0.", 1)
        yield from build_metrics(snapshot)

    def describe(self) -> Iterable[Metric]:
        """Nothing: a registry that asks would read the database while it is built."""
        return ()


def build_snapshot_reader(
    connect: Callable[[], AbstractContextManager[Connection]],
    *,
    max_retries: int,
    archive_retention_days: int,
) -> Callable[[], MetricsSnapshot]:
    """What a `DeadLetterCollector` reads by: a connection for each scrape."""

    def read() -> MetricsSnapshot:
        with connect() as connection:
            return read_metrics_snapshot(
                connection, max_retries=max_retries, archive_retention_days=archive_retention_days
            )

    return read


def build_metrics(snapshot: MetricsSnapshot) -> Iterator[Metric]:
    """The metrics of a snapshot."""
    yield from _deaths(snapshot)
    yield from _dead_now(snapshot)
    yield from _retries_and_fixes(snapshot)
    yield from _moved(snapshot)
    yield from _our_own(snapshot)
    yield from _alerts(snapshot)


def _deaths(snapshot: MetricsSnapshot) -> Iterator[Metric]:
    total = CounterMetricFamily(
        "dispatchbox_dead_events",
        "Transitions of events to dead, ever. The first 50 types of each kind have their names, the rest is other.",
        labels=("event_type", "aggregate_type"),
    )
    for kind, deaths in sorted(_kinds(snapshot).items()):
        total.add_metric(kind, deaths)
    yield total
    yield _attempts(snapshot.deaths + snapshot.unclassified)
    by_cause = CounterMetricFamily(
        "dlq_cause_deaths",
        "Classified deaths of the 50 causes that die most; other: deaths of causes while they were not among them.",
        labels=("cause_id",),
    )
    info = GaugeMetricFamily(
        "dlq_cause_info",
        "Always 1; what a cause of dlq_cause_deaths_total is, and which cause it was merged into.",
        labels=("cause_id", "shown_as", "exception_type"),
    )
    for row in snapshot.causes:
        by_cause.add_metric((row["cause_id"],), row["deaths"])
        if row["shown_as"] is not None:
            info.add_metric((row["cause_id"], row["shown_as"], row["exception_type"]), 1)
    yield by_cause
    yield info
    waiting = sum(row["deaths"] for row in snapshot.unclassified)
    yield _gauge("dlq_unclassified_deaths", "Deaths that have no cause yet.", waiting)


def _kinds(snapshot: MetricsSnapshot) -> Counter[tuple[str, str]]:
    """Deaths by event type and aggregate type."""
    kinds: Counter[tuple[str, str]] = Counter()
    for row in snapshot.deaths + snapshot.unclassified:
        if row["event_type"] is not None and row["aggregate_type"] is not None:
            kinds[row["event_type"], row["aggregate_type"]] += row["deaths"]
    return kinds


def _attempts(rows: Rows) -> Metric:
    """The histogram. Its buckets are cumulative, as Prometheus wants them."""
    family = HistogramMetricFamily(
        "dispatchbox_event_attempts_before_dead",
        "Attempts of an event until it was dead.",
        labels=("event_type",),
    )
    buckets: defaultdict[str, Counter[int]] = defaultdict(Counter)
    attempts: Counter[str] = Counter()
    for row in rows:
        if row["event_type"] is not None:
            buckets[row["event_type"]][row["attempts_up_to"]] += row["deaths"]
            attempts[row["event_type"]] += row["attempts"]
    for event_type, deaths in sorted(buckets.items()):
        upto = [(bound, sum(n for at, n in deaths.items() if at <= bound)) for bound in _BOUNDS]
        named = [(str(float(bound)), count) for bound, count in upto[:-1]]
        family.add_metric((event_type,), [*named, ("+Inf", upto[-1][1])], attempts[event_type])
    return family


def _dead_now(snapshot: MetricsSnapshot) -> Iterator[Metric]:
    current = GaugeMetricFamily(
        "dispatchbox_dead_events_current",
        "Events that are dead in the outbox table now.",
        labels=("event_type", "aggregate_type"),
    )
    # Of a type that is known by its name, that nothing is dead now is a zero.
    dead = {(row["event_type"], row["aggregate_type"]): 0 for row in snapshot.deaths}
    dead |= {(row["event_type"], row["aggregate_type"]): row["events"] for row in snapshot.dead}
    for kind, events in sorted(dead.items()):
        current.add_metric(kind, events)
    yield current
    yield _gauge(
        "dlq_oldest_dead_event_age_seconds",
        "How long ago the oldest event that is dead now died; 0: none is dead.",
        max(snapshot.state["oldest_dead_seconds"] or 0.0, 0.0),
    )
    yield _gauge(
        "dlq_parked_events",
        "Dead events that only a person releases: too many retries.",
        snapshot.state["parked"],
    )


def _retries_and_fixes(snapshot: MetricsSnapshot) -> Iterator[Metric]:
    retries = CounterMetricFamily(
        "dlq_retries", "Retried events by what became of them, ever.", labels=("outcome",)
    )
    known = {row["outcome"]: row["retries"] for row in snapshot.retries}
    for outcome in _OUTCOMES:
        retries.add_metric((outcome,), known.get(outcome, 0))
    yield retries
    yield _gauge(
        "dlq_retries_outstanding",
        "Retried events without an outcome yet.",
        snapshot.state["outstanding"],
    )
    fixes = GaugeMetricFamily("dlq_fixes", "Flagged fixes by their state.", labels=("status",))
    counted = {row["status"]: row["fixes"] for row in snapshot.fixes}
    for status in FixStatus:
        fixes.add_metric((status,), counted.get(status, 0))
    yield fixes


def _moved(snapshot: MetricsSnapshot) -> Iterator[Metric]:
    acts = {row["kind"]: row["events"] for row in snapshot.acts}
    for name, text, kinds in (
        (
            "archived",
            "Dead events moved to the archive, ever, the discarded ones too.",
            ("move", "discard"),
        ),
        ("discarded", "Dead events that a person gave up, ever.", ("discard",)),
        ("restored", "Events brought back from the archive, ever.", ("restore",)),
        ("purged", "Events deleted from the archive, ever.", ("purge",)),
    ):
        yield CounterMetricFamily(
            f"dlq_{name}_events", text, value=sum(acts.get(f"archive.{kind}", 0) for kind in kinds)
        )
    yield CounterMetricFamily(
        "dlq_forgotten_deaths",
        "Deaths past the ledger's retention; all other counters still have them.",
        value=acts.get("ledger.purge", 0),
    )
    yield _gauge(
        "dlq_archive_retention_seconds",
        "How long archived events are kept; 0: for ever.",
        snapshot.archive_retention_seconds,
    )
    yield _gauge(
        "dlq_oldest_archived_event_timestamp_seconds",
        "When the dead event that is in the archive for longest was moved there; none: the archive has none.",
        snapshot.state["oldest_archived"],
    )


def _our_own(snapshot: MetricsSnapshot) -> Iterator[Metric]:
    passed = GaugeMetricFamily(
        "dlq_check_passed", "Whether a check of the books held when it last ran.", labels=("check",)
    )
    at = GaugeMetricFamily(
        "dlq_check_timestamp_seconds", "When a check last ran.", labels=("check",)
    )
    for row in snapshot.checks:
        passed.add_metric((row["name"],), int(row["passed"]))
        at.add_metric((row["name"],), row["checked_at"].timestamp())
    yield passed
    yield at
    books = next(
        (row["figures"] for row in snapshot.checks if row["name"] == "books_balance"), None
    )
    yield _gauge(
        "dlq_unaccounted_events",
        "Events that are nowhere or in two places, when books_balance last ran; none: it never ran.",
        None if books is None else books["missing"] + books["doubled"],
    )
    # Not `job`: that is the name that Prometheus gives to what it scrapes.
    for name, column, what in (
        ("success", "succeeded_at", "succeeded"),
        ("failure", "failed_at", "failed for good"),
    ):
        family = GaugeMetricFamily(
            f"dlq_job_last_{name}_timestamp_seconds",
            f"When a job last {what}.",
            labels=("dlq_job",),
        )
        for row in snapshot.jobs:
            if row[column] is not None:
                family.add_metric((row["job"],), row[column].timestamp())
        yield family
    failing = GaugeMetricFamily(
        "dlq_job_failures",
        "Days of a job, or 1, that failed and have not succeeded since.",
        labels=("dlq_job",),
    )
    for row in snapshot.jobs:
        failing.add_metric((row["job"],), row["failing"])
    yield failing
    yield _gauge(
        "dlq_installed_timestamp_seconds",
        "When the schema was made: what has never succeeded is overdue from then on.",
        snapshot.state["installed"],
    )


def _alerts(snapshot: MetricsSnapshot) -> Iterator[Metric]:
    for name, text in (
        ("firing", "Alerts that fire and are not silenced."),
        ("silenced", "Alerts that fire unheard."),
    ):
        family = GaugeMetricFamily(f"dlq_alerts_{name}", text, labels=("severity",))
        counted = {row["severity"]: row[name] for row in snapshot.alerts}
        for severity in _SEVERITIES:
            family.add_metric((severity,), counted.get(severity, 0))
        yield family
    sent = CounterMetricFamily(
        "dlq_channel_messages", "Messages to a channel, ever.", labels=("channel", "outcome")
    )
    failing = GaugeMetricFamily(
        "dlq_channel_failures", "Failures of a channel since it last worked.", labels=("channel",)
    )
    waiting = GaugeMetricFamily(
        "dlq_channel_waiting", "Notices that a channel still has to get.", labels=("channel",)
    )
    for row in snapshot.channels:
        sent.add_metric((row["id"], "sent"), row["sent"])
        sent.add_metric((row["id"], "failed"), row["failed"])
        failing.add_metric((row["id"],), row["failures"])
        waiting.add_metric((row["id"],), row["waiting"])
    yield from (sent, failing, waiting)
    yield _gauge(
        "dlq_unannounced_deaths",
        "Deaths that the webhook of deaths was not told of yet.",
        snapshot.state["unannounced"],
    )


def _gauge(name: str, text: str, value: float | None) -> Metric:
    """A gauge without labels; None: it has no value now."""
    return GaugeMetricFamily(name, text, value=value)
