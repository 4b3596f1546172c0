"""Tests deployments: noting them, what causes say of them, and fixes that name one."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from zoneinfo import ZoneInfo

import psycopg
import pytest

from dlq_pipelines.alerts.figures import read_alert_figures
from dlq_pipelines.alerts.rules import Thresholds, evaluate_rules
from dlq_pipelines.audit import RunOptions, list_audit_entries
from dlq_pipelines.causes.catalogue import Cause, list_causes
from dlq_pipelines.causes.classify import classify_deaths
from dlq_pipelines.deployments import (
    Deployment,
    get_deployment,
    list_deployments,
    list_preceding_deployments,
    note_deployment,
)
from dlq_pipelines.errors import NotFoundError
from dlq_pipelines.outbox.selection import Selection
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.reports.figures import ReportPolicy
from dlq_pipelines.reports.report import make_report
from dlq_pipelines.retries.fixes import FixFlag, flag_fix, get_fix
from tests.retries.helpers import add_dead, build_audit
from tests.rows import one, wait_for_blocked_session

NOW = datetime.now(UTC)


def note(connection: Connection, version: str, ago: timedelta, service: str = "checkout") -> int:
    at = datetime.now(UTC) - ago
    return note_deployment(
        connection, service, version, deployed_at=at, audit=build_audit("ci", "deployed")
    ).id


def find_cause(connection: Connection) -> Cause:
    add_dead(connection, 2, error="KeyError: 'postcode'")
    classify_deaths(connection, zone=ZoneInfo("UTC"))
    return list_causes(connection)[0]


def test_a_deployment_is_noted_and_audited(connection: Connection) -> None:
    noted = note_deployment(
        connection, "checkout", "v42", link="https://x.example/42", audit=build_audit("ci", "why")
    )
    assert noted == get_deployment(connection, noted.id) == list_deployments(connection)[0]
    assert (noted.service, noted.version, noted.noted_by) == ("checkout", "v42", "ci")
    assert abs(noted.deployed_at - datetime.now(UTC)) < timedelta(minutes=1)
    (entry,) = list_audit_entries(connection)
    assert (entry.kind, entry.actor, entry.reason) == ("deployment.note", "ci", "why")
    assert entry.filter == {"deployment": noted.id, "service": "checkout", "version": "v42"}


def test_the_same_deployment_is_noted_once(connection: Connection) -> None:
    at = datetime.now(UTC) - timedelta(hours=1)
    note_again = partial(
        note_deployment, connection, deployed_at=at, audit=build_audit("ci", "deployed")
    )
    first = note_again("checkout", "v42")
    assert note_again("checkout", "v42") == first
    assert note_again("billing", "v42") != first
    assert one(connection, "select count(*) as n from dlq.audit")["n"] == 2


def test_a_step_of_a_pipeline_may_be_repeated(connection: Connection) -> None:
    """Without a time, the same version within ten minutes is the same. A new link is kept."""
    first = note_deployment(connection, " checkout", "v42\n", audit=build_audit("ci", "deployed"))
    assert (first.service, first.version) == ("checkout", "v42")
    again = note_deployment(
        connection, "checkout", "v42", link="https://x.example/42", audit=build_audit()
    )
    assert (again.id, again.link) == (first.id, "https://x.example/42")
    assert note_deployment(connection, "checkout", "v42", audit=build_audit()).link == again.link
    assert [entry.kind for entry in list_audit_entries(connection)] == ["deployment.note"] * 2
    assert note_deployment(connection, "checkout", "v43", audit=build_audit()).id != first.id
    connection.execute("update dlq.deployment set deployed_at = now() - interval '11 minutes'")
    assert note_deployment(connection, "checkout", "v42", audit=build_audit()).id != first.id


def test_two_notes_at_once_are_one(connection: Connection, database: Database) -> None:
    """The second waits for the first, and finds what it has noted."""
    note_again = partial(note_deployment, service="checkout", version="v42", audit=build_audit())
    with database.connect() as other, ThreadPoolExecutor(1) as pool:
        with connection.transaction():
            first = note_again(connection)
            second = pool.submit(note_again, other)
            wait_for_blocked_session(connection)
            assert list_deployments(connection) == [first]
        assert second.result(60) == first
    assert len(list_audit_entries(connection)) == 1


def test_a_dry_run_notes_nothing(connection: Connection) -> None:
    note_deployment(
        connection, "checkout", "v42", audit=build_audit(), options=RunOptions(dry_run=True)
    )
    assert list_deployments(connection) == []
    assert list_audit_entries(connection) == []


@pytest.mark.parametrize(
    ("service", "version", "values", "error"),
    [
        (" ", "v42", {}, "service must not be empty"),
        ("checkout", "", {}, "version must not be empty"),
        ("x" * 201, "v42", {}, "service has 201 characters; the maximum is 200"),
        ("checkout", "v\x00", {}, "version is not valid UTF-8 or contains NUL"),
        ("checkout", "v42", {"link": "x" * 2_001}, "link has 2001 characters"),
        (
            "checkout",
            "v42",
            {"deployed_at": NOW + timedelta(hours=1)},
            "must not lie in the future",
        ),
        ("checkout", "v42", {"deployed_at": datetime(1800, 1, 1, tzinfo=UTC)}, "years 1900"),
        ("checkout", "v42", {"deployed_at": datetime(2026, 1, 1)}, "must have a time zone"),  # noqa: DTZ001
    ],
)
def test_invalid_values_are_refused(
    connection: Connection, service: str, version: str, values: dict[str, object], error: str
) -> None:
    with pytest.raises(ValueError, match=error):
        note_deployment(connection, service, version, audit=build_audit(), **values)  # type: ignore[arg-type]
    assert list_deployments(connection) == []


@pytest.mark.parametrize(
    ("call", "error"),
    [
        ("' ', 'v42'", "service must not be empty"),
        ("null, 'v42'", "service must not be empty"),
        ("'checkout', null", "version must not be empty"),
        ("'checkout', 'v42', link => ' '", "link must not be empty(.|\n)*leave link out"),
        ("'checkout', repeat('x', 201)", "version has 201 characters"),
        ("'checkout', 'v42', deployed_at => 'infinity'", "must not lie in the future"),
        ("'checkout', 'v42', deployed_at => '-infinity'", "years 1900 to 9000"),
    ],
)
def test_sql_refuses_them_too(connection: Connection, call: str, error: str) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=error):
        connection.execute(f"select dlq.note_deployment({call})")


def test_sql_notes_a_deployment_in_the_name_of_the_role(connection: Connection) -> None:
    """A pipeline has psql; the fix that it carries is flagged in the same statement."""
    cause = find_cause(connection)
    fix_id = one(
        connection,
        f"select dlq.flag_fix('labels read v2', cause => '{cause.id}',"
        " deployment => dlq.note_deployment('checkout', 'v43')) as id",
    )["id"]
    (deployment,) = list_deployments(connection)
    assert deployment.noted_by == one(connection, "select session_user::text as name")["name"]
    assert get_fix(connection, fix_id).deployment == deployment.id


def test_a_cause_says_which_deployment_it_followed(connection: Connection) -> None:
    note(connection, "v40", timedelta(minutes=61))
    note(connection, "v41", timedelta(minutes=30))
    note(connection, "v42", timedelta(minutes=6, seconds=5))
    cause = find_cause(connection)
    note(connection, "v43", timedelta(0))
    assert cause.beginning == "6 minutes after checkout v42"
    (shown,) = list_causes(connection)
    assert shown.beginning == cause.beginning
    near = list_preceding_deployments(connection, cause.first_seen)
    assert [deployment.version for deployment in near] == ["v42", "v41"]
    figures = read_alert_figures(
        connection,
        now=datetime.now(UTC),
        thresholds=Thresholds(),
        max_retries=3,
        archive_retention_days=0,
    )
    (found,) = (
        finding for finding in evaluate_rules(figures, Thresholds()) if finding.rule == "new_cause"
    )
    assert "UTC, 6 minutes after checkout v42. " in found.detail


def test_nothing_is_guessed(connection: Connection) -> None:
    """No deployment within the hour: a cause says nothing."""
    note(connection, "v40", timedelta(minutes=61))
    cause = find_cause(connection)
    assert (cause.deployment, cause.beginning) == (None, "")
    assert list_preceding_deployments(connection, cause.first_seen) == []


def test_a_delay_is_shown_in_its_unit() -> None:
    deployment = Deployment(1, "checkout", "v42", None, NOW, "ci")
    assert deployment.describe_delay(NOW + timedelta(seconds=1)) == "1 second after checkout v42"
    assert deployment.describe_delay(NOW + timedelta(seconds=119)) == "1 minute after checkout v42"
    assert deployment.describe_delay(NOW + timedelta(hours=1)) == "60 minutes after checkout v42"


def test_a_fix_names_the_deployment_that_carries_it(connection: Connection) -> None:
    cause = find_cause(connection)
    deployment = note(connection, "v43", timedelta(minutes=1))
    flag = FixFlag(Selection(cause=cause.id), deployment=deployment)
    fix = flag_fix(connection, flag, audit=build_audit())
    assert fix.deployment == get_fix(connection, fix.id).deployment == deployment
    day = fix.flagged_at.astimezone(UTC).date()
    report = make_report(
        connection,
        day=day,
        zone=ZoneInfo("UTC"),
        policy=ReportPolicy(),
        now=fix.flagged_at + timedelta(days=2),
    )
    assert "carried by <bdi>checkout v43</bdi>" in report.html
    assert "carried by checkout v43" in report.markdown
    assert json.loads(report.json)["fixes"][0]["deployment"] == "checkout v43"


def test_a_fix_of_an_unknown_deployment_is_refused(connection: Connection) -> None:
    cause = find_cause(connection)
    with pytest.raises(NotFoundError, match=r"There is no deployment 7\. `dlq deployments list`"):
        flag_fix(connection, FixFlag(Selection(cause=cause.id), deployment=7), audit=build_audit())
    with pytest.raises(NotFoundError, match="There is no deployment 7"):
        get_deployment(connection, 7)


def test_deployments_are_listed_by_service_and_page(connection: Connection) -> None:
    ids = [note(connection, f"v{n}", timedelta(minutes=10 - n)) for n in range(5)]
    note(connection, "v1", timedelta(minutes=1), service="billing")
    first = list_deployments(connection, service="checkout", limit=3)
    assert [found.id for found in first] == ids[:1:-1]
    rest = list_deployments(connection, service="checkout", limit=3, after=first[-1].id)
    assert [found.id for found in rest] == ids[1::-1]
