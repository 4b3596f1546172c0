"""Exposes metrics of dead events and of dlq-pipelines itself in Prometheus' text format.

Each scrape reads every figure from the database in one snapshot: a restart resets nothing, and
several processes expose the same values. Counters are read from tables that are never purged, plus
the deaths that are not classified yet. While the database cannot be read, the only sample is
`dlq_up 0`, so that no false value is exposed. Every sample has the label `outbox`, which keeps the
outboxes of a Prometheus server apart.
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
from dlq_pipelines.outbox.queue import list_stuck_events
from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.retries.fix import FixStatus
from dlq_pipelines.text import RedactTexts

# The upper bounds of the histogram, as `dlq.attempts_bucket` has them; the last one is no bound.
_BOUNDS = (1, 2, 3, 5, 10, 20, 50, 2_147_483_647)
_OUTCOMES = ("delivered", "died_again", "timed_out", "deleted", "recalled")
# Characters of a label that comes from an error.
_MAX_LABEL = 100
_SEVERITIES = ("info", "warning", "critical")
Rows = list[DictRow]


@dataclass(frozen=True)
class MetricsSnapshot:
    """What a scrape reads: the rows of the statements of the same names in `metrics.sql`."""

    deaths: Rows
    unclassified: Rows
    dead: Rows
    causes: Rows
    retries: Rows
    probes: Rows
    healed: DictRow
    fixes: Rows
    open_fixes: Rows
    moved_events: Rows
    checks: Rows
    jobs: Rows
    alerts: Rows
    channels: Rows
    state: DictRow
    stuck_events: int
    archive_retention_seconds: float


def read_metrics_snapshot(
    connection: Connection,
    *,
    max_retries: int,
    archive_retention_days: int,
    redact: RedactTexts = list,
) -> MetricsSnapshot:
    """Read a snapshot in a read-only transaction. Each statement may take five seconds.

    Args:
        connection: in autocommit mode.
        max_retries: retries after which an event that dies again is parked.
        archive_retention_days: days that archived events are kept; 0: they are never purged.
        redact: hides parts of details, which come from errors.
    """
    with connection.snapshot():
        connection.run("metrics.bound")
        return MetricsSnapshot(
            deaths=connection.run("metrics.deaths").fetchall(),
            unclassified=connection.run("metrics.unclassified", labels=LABELS).fetchall(),
            dead=connection.run("metrics.dead", labels=LABELS).fetchall(),
            causes=connection.run("metrics.causes").fetchall(),
            retries=connection.run("metrics.retries").fetchall(),
            probes=connection.run("metrics.probes").fetchall(),
            healed=connection.fetch_one("metrics.healed"),
            fixes=connection.run("metrics.fixes").fetchall(),
            open_fixes=_redact_details(connection.run("metrics.open_fixes").fetchall(), redact),
            moved_events=connection.run("metrics.moved_events").fetchall(),
            checks=connection.run("metrics.checks").fetchall(),
            jobs=connection.run("metrics.jobs").fetchall(),
            alerts=connection.run("metrics.alerts").fetchall(),
            channels=connection.run("metrics.channels").fetchall(),
            state=connection.fetch_one("metrics.state", max_retries=max_retries),
            stuck_events=sum(
                stuck.events
                for stuck in list_stuck_events(
                    connection, now=connection.fetch_one("session.clock")["now"]
                )
            ),
            archive_retention_seconds=archive_retention_days * 86_400.0,
        )


def _redact_details(rows: Rows, redact: RedactTexts) -> Rows:
    """Return the rows with details that are redacted and then cut: a pattern needs the whole."""
    details = redact([row["detail"] for row in rows])
    return [
        row | {"detail": detail[:_MAX_LABEL]} for row, detail in zip(rows, details, strict=True)
    ]


class DeadLetterCollector(Collector):
    """Reads a snapshot for each scrape.

    Args:
        read: returns a snapshot. May raise the errors of a database that is not available.
        outbox: value of the label `outbox`, which is `Settings.label`.
    """

    def __init__(self, read: Callable[[], MetricsSnapshot], *, outbox: str) -> None:
        self._read = read
        self._outbox = outbox

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics, or `dlq_up 0` alone, with the label of the outbox."""
        for metric in self._collect():
            metric.samples = [
                sample._replace(labels={"outbox": self._outbox, **sample.labels})
                for sample in metric.samples
            ]
            yield metric

    def _collect(self) -> Iterator[Metric]:
        try:
            snapshot = self._read()
        except (psycopg.Error, DlqError, OSError):
            yield _build_gauge("dlq_up", "1 if the database can be read, 0 otherwise.", 0)
            return
        yield _build_gauge("dlq_up", "1 if the database can be read, 0 otherwise.", 1)
        yield from build_metrics(snapshot)

    def describe(self) -> Iterable[Metric]:
        """Return nothing: otherwise a registry reads the database when it is built."""
        return ()


def build_snapshot_reader(
    connect: Callable[[], AbstractContextManager[Connection]],
    *,
    max_retries: int,
    archive_retention_days: int,
    redact: RedactTexts = list,
) -> Callable[[], MetricsSnapshot]:
    """Return the function of a `DeadLetterCollector` that opens a connection for each scrape."""

    def read() -> MetricsSnapshot:
        with connect() as connection:
            return read_metrics_snapshot(
                connection,
                max_retries=max_retries,
                archive_retention_days=archive_retention_days,
                redact=redact,
            )

    return read


def build_metrics(snapshot: MetricsSnapshot) -> Iterator[Metric]:
    """Yield the metrics of a snapshot."""
    yield from _build_death_metrics(snapshot)
    yield from _build_cause_metrics(snapshot)
    yield from _build_dead_event_metrics(snapshot)
    yield from _build_retry_metrics(snapshot)
    yield from _build_archive_metrics(snapshot)
    yield from _build_check_metrics(snapshot)
    yield from _build_job_metrics(snapshot)
    yield from _build_alert_metrics(snapshot)
    yield from _build_channel_metrics(snapshot)


def _build_death_metrics(snapshot: MetricsSnapshot) -> Iterator[Metric]:
    total = CounterMetricFamily(
        "dispatchbox_dead_events",
        "Deaths: transitions of events to dead. Types beyond the first 50 of each label are other.",
        labels=("event_type", "aggregate_type"),
    )
    deaths: Counter[tuple[str, str]] = Counter()
    for row in snapshot.deaths + snapshot.unclassified:
        if row["event_type"] is not None and row["aggregate_type"] is not None:
            deaths[row["event_type"], row["aggregate_type"]] += row["deaths"]
    for types, count in sorted(deaths.items()):
        total.add_metric(types, count)
    yield total
    yield _build_attempts_histogram(snapshot.deaths + snapshot.unclassified)


def _build_attempts_histogram(rows: Rows) -> Metric:
    """Return the histogram of attempts, with cumulative buckets as Prometheus requires."""
    family = HistogramMetricFamily(
        "dispatchbox_event_attempts_before_dead",
        "Attempts of an event before it died.",
        labels=("event_type",),
    )
    deaths: defaultdict[str, Counter[int]] = defaultdict(Counter)
    attempts: Counter[str] = Counter()
    for row in rows:
        if row["event_type"] is not None:
            deaths[row["event_type"]][row["attempts_up_to"]] += row["deaths"]
            attempts[row["event_type"]] += row["attempts"]
    for event_type, by_bound in sorted(deaths.items()):
        buckets = []
        total = 0
        for bound in _BOUNDS:
            total += by_bound[bound]
            buckets.append(("+Inf" if bound == _BOUNDS[-1] else str(float(bound)), total))
        family.add_metric((event_type,), buckets, attempts[event_type])
    return family


def _build_cause_metrics(snapshot: MetricsSnapshot) -> Iterator[Metric]:
    deaths = CounterMetricFamily(
        "dlq_cause_deaths",
        "Classified deaths of the 50 causes with most deaths. other: deaths of causes while they"
        " were not among these.",
        labels=("cause_id",),
    )
    info = GaugeMetricFamily(
        "dlq_cause_info",
        "Always 1. Exception type of a cause of dlq_cause_deaths_total, and the cause that it was"
        " merged into.",
        labels=("cause_id", "shown_as", "exception_type"),
    )
    for row in snapshot.causes:
        deaths.add_metric((row["cause_id"],), row["deaths"])
        if row["shown_as"] is not None:
            info.add_metric((row["cause_id"], row["shown_as"], row["exception_type"]), 1)
    yield deaths
    yield info
    yield _build_gauge(
        "dlq_unclassified_deaths",
        "Deaths without a cause yet.",
        sum(row["deaths"] for row in snapshot.unclassified),
    )


def _build_dead_event_metrics(snapshot: MetricsSnapshot) -> Iterator[Metric]:
    current = GaugeMetricFamily(
        "dispatchbox_dead_events_current",
        "Dead events in the outbox now.",
        labels=("event_type", "aggregate_type"),
    )
    # Types with a label and without a dead event now are 0, so that their series do not end.
    events = {(row["event_type"], row["aggregate_type"]): 0 for row in snapshot.deaths}
    for row in snapshot.dead:
        events[row["event_type"], row["aggregate_type"]] = row["events"]
    for types, count in sorted(events.items()):
        current.add_metric(types, count)
    yield current
    yield _build_gauge(
        "dlq_oldest_dead_event_age_seconds",
        "Seconds since the death of the oldest dead event; 0 without dead events.",
        max(snapshot.state["oldest_dead_seconds"] or 0.0, 0.0),
    )
    yield _build_gauge(
        "dlq_parked_events",
        "Dead events that died again after the maximum of retries; only a person releases them.",
        snapshot.state["parked"],
    )
    yield _build_gauge(
        "dlq_stuck_events",
        "Events due for more than an hour that no worker takes, although it took later ones.",
        snapshot.stuck_events,
    )


def _build_retry_metrics(snapshot: MetricsSnapshot) -> Iterator[Metric]:
    retries = CounterMetricFamily(
        "dlq_retries", "Retried events by outcome, with and without a fix.", labels=("outcome",)
    )
    settled = {row["outcome"]: row["retries"] for row in snapshot.retries}
    for outcome in _OUTCOMES:
        retries.add_metric((outcome,), settled.get(outcome, 0))
    yield retries
    yield _build_gauge(
        "dlq_retries_outstanding",
        "Retried events without an outcome yet.",
        snapshot.state["outstanding"],
    )
    probes = CounterMetricFamily(
        "dlq_probes",
        "Events that probes released, by outcome. dlq_retries_total includes them.",
        labels=("outcome",),
    )
    judged = {row["outcome"]: row["retries"] for row in snapshot.probes}
    for outcome in _OUTCOMES:
        probes.add_metric((outcome,), judged.get(outcome, 0))
    yield probes
    yield CounterMetricFamily(
        "dlq_healed_events",
        "Events delivered without a person: by probes, and by the fixes that they flagged.",
        value=int(snapshot.healed["events"]),
    )
    fixes = GaugeMetricFamily("dlq_fixes", "Fixes by status.", labels=("status",))
    counted = {row["status"]: row["fixes"] for row in snapshot.fixes}
    for status in FixStatus:
        fixes.add_metric((status,), counted.get(status, 0))
    yield fixes
    info = GaugeMetricFamily(
        "dlq_open_fix_info",
        "Always 1. Status, cause and detail of an open fix; empty if it names none. At most 50.",
        labels=("fix", "status", "cause_id", "detail"),
    )
    for row in snapshot.open_fixes:
        info.add_metric((str(row["id"]), row["status"], row["cause_id"], row["detail"]), 1)
    yield info


def _build_archive_metrics(snapshot: MetricsSnapshot) -> Iterator[Metric]:
    events = {row["kind"]: row["events"] for row in snapshot.moved_events}
    discarded = events.get("archive.discard", 0)
    for name, text, value in (
        (
            "dlq_archived_events",
            "Dead events moved to the archive, with discarded ones.",
            events.get("archive.move", 0) + discarded,
        ),
        ("dlq_discarded_events", "Dead events that a person discarded.", discarded),
        (
            "dlq_restored_events",
            "Events moved back from the archive as dead.",
            events.get("archive.restore", 0),
        ),
        (
            "dlq_purged_events",
            "Archived events deleted after their retention.",
            events.get("archive.purge", 0),
        ),
        (
            "dlq_purged_deaths",
            "Deaths deleted from the ledger after its retention. Other counters include them.",
            events.get("ledger.purge", 0),
        ),
    ):
        yield CounterMetricFamily(name, text, value=value)
    yield _build_gauge(
        "dlq_archive_retention_seconds",
        "Seconds that archived events are kept; 0: they are never purged.",
        snapshot.archive_retention_seconds,
    )
    yield _build_gauge(
        "dlq_oldest_archived_event_timestamp_seconds",
        "Unix time at which the oldest archived event was archived; absent without one.",
        snapshot.state["oldest_archived"],
    )


def _build_check_metrics(snapshot: MetricsSnapshot) -> Iterator[Metric]:
    passed = GaugeMetricFamily(
        "dlq_check_passed",
        "1 if a check passed on its last run, 0 if it failed.",
        labels=("check",),
    )
    checked_at = GaugeMetricFamily(
        "dlq_check_timestamp_seconds", "Unix time of the last run of a check.", labels=("check",)
    )
    unaccounted = None
    for row in snapshot.checks:
        passed.add_metric((row["name"],), int(row["passed"]))
        checked_at.add_metric((row["name"],), row["checked_at"].timestamp())
        if row["name"] == "no_event_is_missing":
            unaccounted = row["figures"]["missing"] + row["figures"]["duplicated"]
    yield passed
    yield checked_at
    yield _build_gauge(
        "dlq_unaccounted_events",
        "Events that the last reconciliation found missing or duplicated; absent before the first.",
        unaccounted,
    )
    yield CounterMetricFamily(
        "dlq_missed_deaths",
        "Deaths that no trigger saw and that a reconciliation recorded.",
        value=snapshot.state["missed"],
    )


def _build_job_metrics(snapshot: MetricsSnapshot) -> Iterator[Metric]:
    # Not `job`: Prometheus uses this label for the scraped target.
    succeeded = GaugeMetricFamily(
        "dlq_job_last_success_timestamp_seconds",
        "Unix time of the last success of a job.",
        labels=("dlq_job",),
    )
    failed = GaugeMetricFamily(
        "dlq_job_last_failure_timestamp_seconds",
        "Unix time of the last failure of a job, after its retries.",
        labels=("dlq_job",),
    )
    failing = GaugeMetricFamily(
        "dlq_job_failures",
        "Days of a job that failed and have not succeeded since; 1 or 0 for a job without days.",
        labels=("dlq_job",),
    )
    for row in snapshot.jobs:
        if row["succeeded_at"] is not None:
            succeeded.add_metric((row["job"],), row["succeeded_at"].timestamp())
        if row["failed_at"] is not None:
            failed.add_metric((row["job"],), row["failed_at"].timestamp())
        failing.add_metric((row["job"],), row["failing"])
    yield from (succeeded, failed, failing)
    yield _build_gauge(
        "dlq_installed_timestamp_seconds",
        "Unix time at which the schema was installed. A job that never succeeded is overdue since.",
        snapshot.state["installed"],
    )


def _build_alert_metrics(snapshot: MetricsSnapshot) -> Iterator[Metric]:
    firing = GaugeMetricFamily(
        "dlq_alerts_firing", "Alerts that fire and are not silenced.", labels=("severity",)
    )
    silenced = GaugeMetricFamily(
        "dlq_alerts_silenced", "Alerts that fire and are silenced.", labels=("severity",)
    )
    alerts = {row["severity"]: row for row in snapshot.alerts}
    for severity in _SEVERITIES:
        row = alerts.get(severity, {"firing": 0, "silenced": 0})
        firing.add_metric((severity,), row["firing"])
        silenced.add_metric((severity,), row["silenced"])
    yield from (firing, silenced)


def _build_channel_metrics(snapshot: MetricsSnapshot) -> Iterator[Metric]:
    messages = CounterMetricFamily(
        "dlq_channel_messages", "Messages to a channel by outcome.", labels=("channel", "outcome")
    )
    failures = GaugeMetricFamily(
        "dlq_channel_failures",
        "Consecutive failures of a channel since its last success.",
        labels=("channel",),
    )
    waiting = GaugeMetricFamily(
        "dlq_channel_waiting", "Notifications queued for a channel.", labels=("channel",)
    )
    for row in snapshot.channels:
        messages.add_metric((row["id"], "sent"), row["sent"])
        messages.add_metric((row["id"], "failed"), row["failed"])
        failures.add_metric((row["id"],), row["failures"])
        waiting.add_metric((row["id"],), row["waiting"])
    yield from (messages, failures, waiting)
    yield _build_gauge(
        "dlq_unannounced_deaths",
        "Deaths queued for the webhook of deaths.",
        snapshot.state["unannounced"],
    )


def _build_gauge(name: str, text: str, value: float | None) -> Metric:
    """Return a gauge without labels of its own. None: it has no sample."""
    return GaugeMetricFamily(name, text, value=value)
