"""A reindex after a new version of the fingerprint keeps ids and adds aliases."""

import hashlib
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from dlq_pipelines.audit import AuditContext, RunOptions
from dlq_pipelines.causes import classify, reindex
from dlq_pipelines.causes.fingerprint import Fingerprint, compute_cause_id, compute_fingerprint
from dlq_pipelines.causes.reindex import CauseAlias, apply_reindex, plan_reindex
from dlq_pipelines.errors import RefusedError
from dlq_pipelines.postgres.connect import Connection
from tests.rows import add_events, kill, one

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
AUDIT = AuditContext("ann", "upgrade", NOW)
UTC_ZONE = ZoneInfo("UTC")
TYPES = [
    "ConnectionRefusedError: no",
    "ConnectionResetError: no",
    "ConnectionResetError: no, not now",
]


def _next_version(error: str | None) -> Fingerprint:
    """Version 3: joins the first two types, and separates the messages of the third."""
    old = compute_fingerprint(error)
    kind = "ConnectionError" if (error or "").endswith(": no") else (error or "")
    return old._replace(id=f"v3-{hashlib.sha256(kind.encode()).hexdigest()[:16]}")


def _die(connection: Connection, error: str, count: int) -> None:
    add_events(connection, count)
    kill(connection, error, where="status = 'pending'")


@pytest.fixture
def upgraded(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> Connection:
    """Create a catalogue of version 2, then switch the process to version 3."""
    for error, count in zip(TYPES, (3, 2, 1), strict=True):
        _die(connection, error, count)
    classify.classify_deaths(connection, zone=UTC_ZONE)
    monkeypatch.setattr(classify, "VERSION", 3)
    for module in (classify, reindex):
        monkeypatch.setattr(module, "compute_cause_key", _next_version)
    monkeypatch.setattr(classify, "compute_fingerprint", _next_version)
    return connection


def test_classification_by_a_new_version_requires_a_reindex(upgraded: Connection) -> None:
    """Without it, every text would get a second cause. The message names the command."""
    _die(upgraded, TYPES[0], 1)
    with pytest.raises(RefusedError, match="dlq causes reindex --dry-run"):
        classify.classify_deaths(upgraded, zone=UTC_ZONE)
    assert one(upgraded, "select count(*) as n from dlq.death where cause_id is null")["n"] == 1


def test_reindex_adds_new_fingerprints_to_the_causes_with_most_deaths(
    upgraded: Connection,
) -> None:
    """Ids and deaths stay; later deaths get the same causes."""
    before = upgraded.execute("select id, cause_id from dlq.death order by id").fetchall()
    plan = plan_reindex(upgraded)
    refused, reset, other = (compute_cause_id(error) for error in TYPES)
    both = _next_version(TYPES[0]).id
    assert CauseAlias(both, refused, 3, (reset,)) in plan
    assert CauseAlias(_next_version(TYPES[2]).id, other, 1, ()) in plan
    assert apply_reindex(upgraded, plan, audit=AUDIT, options=RunOptions(dry_run=True)) == 2
    assert (
        one(upgraded, "select count(*) as n from dlq.cause_alias where fingerprint like 'v3-%'")[
            "n"
        ]
        == 0
    )
    assert apply_reindex(upgraded, plan, audit=AUDIT) == 2
    assert apply_reindex(upgraded, plan_reindex(upgraded), audit=AUDIT) == 0
    _die(upgraded, TYPES[1], 1)
    assert classify.classify_deaths(upgraded, zone=UTC_ZONE).new_causes == ()
    assert (
        upgraded.execute("select id, cause_id from dlq.death order by id limit 6").fetchall()
        == before
    )
    assert (
        one(upgraded, "select cause_id from dlq.death order by id desc limit 1")["cause_id"]
        == refused
    )
    assert one(upgraded, "select kind, filter from dlq.audit") == {
        "kind": "cause.reindex",
        "filter": {"aliases": 2},
    }


def test_reindex_uses_the_sample_of_a_cause_without_deaths(upgraded: Connection) -> None:
    """The ledger is purged, the catalogue is not."""
    upgraded.execute("delete from dlq.death")
    assert {alias.cause_id for alias in plan_reindex(upgraded)} >= {compute_cause_id(TYPES[2])}
