"""Tests that this release takes over the database of each earlier one, with everything in it."""

from collections.abc import Iterator
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from dlq_pipelines.causes.classify import classify_deaths
from dlq_pipelines.outbox.install import install_outbox
from dlq_pipelines.outbox.reconcile import ReconciliationResult, reconcile_events
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.postgres.migrate import load_migrations, require_current
from dlq_pipelines.retries.fix import FixStatus
from dlq_pipelines.retries.fixes import list_fixes
from tests.postgres.releases import RELEASES, load_release
from tests.retries.helpers import add_dead, advance, run_worker
from tests.rows import one

FIGURES = """
    select (select count(*) from dlq.death) as deaths,
        (select count(*) from dlq.dead_now) as dead,
        (select count(*) from dlq.archive) as archived,
        (select count(*) from dlq.cause) as causes,
        (select count(*) from dlq.retry) as retries,
        (select count(*) from dlq.audit) as audited,
        (select count(*) from outbox_event) as events
"""


@pytest.fixture(params=RELEASES)
def upgraded(request: pytest.FixtureRequest, empty_database: Database) -> Iterator[Connection]:
    """A connection to the database of a release, after `dlq migrate` of this one."""
    with empty_database.connect() as connection:
        load_release(connection, request.param)
        before = one(connection, FIGURES)
        assert before["deaths"] > 50
        install_outbox(connection)
        assert one(connection, FIGURES) == before
        yield connection


def test_every_released_migration_is_unchanged() -> None:
    """The first release is 0.1.0. The fixture fails if one of its files was edited."""
    assert RELEASES[0] == "0.1.0"
    assert [migration.name for migration in load_migrations()][:5] == [
        "0001_schema",
        "0002_ledger",
        "0003_flag_fix",
        "0004_counts",
        "0005_alerts",
    ]


def test_an_upgraded_database_is_current_and_nothing_is_missing(upgraded: Connection) -> None:
    require_current(upgraded)
    assert reconcile_events(upgraded, now=datetime.now(UTC)) == ReconciliationResult(0, 0)


def test_fixes_go_on_after_the_upgrade(upgraded: Connection, empty_database: Database) -> None:
    """Verified, halted and withdrawn ones are shown, and the open one is verified."""
    by_status = {fix.status for fix in list_fixes(upgraded)}
    assert by_status >= {FixStatus.VERIFIED, FixStatus.HALTED, FixStatus.WITHDRAWN}
    (fix,) = list_fixes(upgraded, only_open=True)
    for _ in range(6):
        run_worker(empty_database, delivers=True)
        advance(upgraded, fix)
    assert list_fixes(upgraded)[0].status is FixStatus.VERIFIED


def test_new_deaths_find_the_causes_of_the_release(upgraded: Connection) -> None:
    before = one(upgraded, "select count(*) as n from dlq.cause")["n"]
    add_dead(upgraded, 2, error="KeyError: 'postcode'")
    classify_deaths(upgraded, zone=ZoneInfo("UTC"))
    assert one(upgraded, "select count(*) as n from dlq.cause")["n"] == before
