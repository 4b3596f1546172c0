"""Tests that the Prometheus rules and the dashboard use existing metrics, and the rules' cases."""

import json
import re
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from dlq_pipelines.alerts.alert import AlertPolicy, evaluate_alerts
from dlq_pipelines.alerts.delivery import Sender, deliver_messages
from dlq_pipelines.alerts.figures import record_check_result
from dlq_pipelines.alerts.jobs import FailedRun, RunScan, record_job_failures, record_job_success
from dlq_pipelines.alerts.routes import parse_routes
from dlq_pipelines.alerts.rules import Severity
from dlq_pipelines.archive.archive import archive_dead_events
from dlq_pipelines.audit import AuditContext
from dlq_pipelines.causes.classify import classify_deaths
from dlq_pipelines.metrics import DeadLetterCollector, build_snapshot_reader
from dlq_pipelines.postgres.connect import Connection, Database
from tests.alerts.servers import free_port
from tests.rows import add_events, kill

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy/prometheus/rules.yml"
DASHBOARD = json.loads((ROOT / "deploy/grafana/dead-letters.json").read_text(encoding="utf-8"))
NOW = datetime.now(UTC)
NAME = re.compile(r"\b(?:dlq|dispatchbox)_[a-z_0-9]+")


@pytest.fixture
def scrape(connection: Connection, database: Database) -> list[str]:
    """The lines of a scrape after each kind of event has happened once."""
    add_events(connection, 2)
    kill(connection, "boom")
    classify_deaths(connection, zone=ZoneInfo("UTC"))
    archive_dead_events(
        connection,
        before=NOW + timedelta(days=1),
        only_exported=False,
        audit=AuditContext("ann", "x", NOW),
    )
    figures = {"missing": 0, "duplicated": 0}
    record_check_result(
        connection,
        "no_event_is_missing",
        passed=True,
        severity=Severity.CRITICAL,
        figures=figures,
        now=NOW,
    )
    record_job_success(connection, "export_day", at=NOW)
    record_job_failures(
        connection,
        RunScan((FailedRun("export_day", "run", NOW + timedelta(seconds=1)),), NOW, more=False),
    )
    to = Sender(parse_routes(f"json://127.0.0.1:{free_port()}/"))
    evaluate_alerts(connection, now=NOW, policy=AlertPolicy(routes=to.routes))
    deliver_messages(connection, to, now=NOW)
    registry = CollectorRegistry()
    registry.register(
        DeadLetterCollector(
            build_snapshot_reader(database.connect, max_retries=3, archive_retention_days=365),
            outbox="orders",
        )
    )
    return [
        line for line in generate_latest(registry).decode().splitlines() if not line.startswith("#")
    ]


@pytest.fixture
def exposed(scrape: list[str]) -> set[str]:
    """The names of all metrics."""
    return {re.split(r"[{ ]", line)[0] for line in scrape}


def test_no_metric_has_a_label_that_prometheus_sets(scrape: list[str]) -> None:
    """Prometheus would rename the label, and no rule would match it. Every one has `outbox`."""
    labels = {label for line in scrape for label in re.findall(r'([a-z_]+)="', line)}
    assert "dlq_job" in labels
    assert all('outbox="orders"' in line for line in scrape if not line.startswith("python_"))
    assert not labels & {"job", "instance", "pod", "namespace", "service", "endpoint", "container"}


def test_every_query_of_the_dashboard_uses_existing_metrics(exposed: set[str]) -> None:
    queries = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    queries += [
        variable["query"]
        for variable in DASHBOARD["templating"]["list"]
        if variable["type"] == "query"
    ]
    for query in queries:
        names = set(NAME.findall(query))
        assert names, query
        assert names <= exposed, query


def test_every_rule_uses_existing_metrics(exposed: set[str]) -> None:
    others = {"dlq", "dlq_job"}  # the group of recording rules, and a label
    named = set(NAME.findall(re.sub(r"dlq:\S+", "", RULES.read_text(encoding="utf-8")))) - others
    assert len(named) > 10
    assert named <= exposed


def list_queries() -> list[str]:
    """The queries of the dashboard and of the rules."""
    queries = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    rules = RULES.read_text(encoding="utf-8")
    queries += re.findall(r"expr: (?:\|\n)?((?:.+\n)+?) +(?:for|labels|- |# )", rules)
    assert len(queries) > 30
    return queries


def test_no_query_counts_a_figure_of_several_servers_twice() -> None:
    """Each metric is reduced to one value of all servers before it is summed or joined."""
    for query in list_queries():
        named = re.sub(
            r"\{[^}]*\}|dlq:\S+|dlq_up == 0|absent\(max_over_time\(dlq_up|\"dlq_job\"", "", query
        )
        reduced = re.findall(
            r"(?:max|min|sum) without \(instance, pod(?:, event_type, aggregate_type)?\) "
            r"\((?:(?:increase|\w+_over_time)\()?(?:dlq|dispatchbox)_",
            named,
        )
        assert len(reduced) == len(NAME.findall(named)), query


def test_no_query_lets_an_outbox_hide_another() -> None:
    """Every sum and join keeps the label `outbox`, and the dashboard can show a single outbox."""
    for query in list_queries():
        grouped = re.findall(
            r"\b(sum|count|avg|topk|max|min)\b(?: (by|without) \(([^)]*)\))?", query
        )
        for function, kind, labels in grouped:
            kept = ("outbox" in labels) == (kind == "by")
            assert kind, (function, query)
            assert kept or labels == "le", query
        for labels in re.findall(r"\bon \(([^)]*)\)", query):
            assert "outbox" in labels, query
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            names, chosen = NAME.findall(target["expr"]), target["expr"].count('outbox=~"$outbox"')
            assert chosen == len(names), target["expr"]
    rules = RULES.read_text(encoding="utf-8")
    assert rules.count("summary:") == rules.count("$labels.outbox")


def test_every_panel_has_a_description_and_no_two_overlap() -> None:
    places: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        assert panel["title"]
        assert panel["description"]
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not places & cells, panel["title"]
        assert at["x"] + at["w"] <= 24
        places |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


@pytest.mark.parametrize(
    "command",
    [
        "check rules --lint=all --lint-fatal rules.yml",
        "test rules rules_test.yml rules_days_test.yml",
    ],
)
def test_promtool_accepts_the_rules_and_their_cases(command: str) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is missing: apt-get install prometheus")
    done = subprocess.run(
        [promtool, *command.split()],
        cwd=RULES.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_case_in_which_it_fires() -> None:
    alerts = set(re.findall(r"- alert: (\w+)", RULES.read_text(encoding="utf-8")))
    cases = set(
        re.findall(
            r"alertname: (\w+)\n\s+exp_alerts:\n",
            "".join(file.read_text("utf-8") for file in RULES.parent.glob("*_test.yml")),
        )
    )
    assert alerts == cases
