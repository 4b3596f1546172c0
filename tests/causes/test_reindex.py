"""A new version of the fingerprint: ids stay, aliases are added."""

import hashlib
from dataclasses import replace
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from dlq_pipelines.audit import AuditContext, RunOptions
from dlq_pipelines.causes import classify, reindex
from dlq_pipelines.causes.fingerprint import Fingerprint, compute_cause_key, compute_fingerprint
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
    """Version 2: sees the two first types as one, and every message of the third apart."""
    old = compute_fingerprint(error)
    kind = "ConnectionError" if (error or "").endswith(": no") else (error or "")
    return old._replace(id=f"v2-{hashlib.sha256(kind.encode()).hexdigest()[:16]}")


def _die(connection: Connection, error: str, count: int) -> None:
    add_events(connection, count)
    kill(connection, error, where="status = 'pending'")


@pytest.fixture
def upgraded(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> Connection:
    """A catalogue of version 1 in a process of version 2."""
    for error, count in zip(TYPES, (3, 2, 1), strict=True):
        _die(connection, error, count)
    classify.classify_deaths(connection, zone=UTC_ZONE)
    monkeypatch.setattr(classify, "VERSION", 2)
    for module in (classify, reindex):
        monkeypatch.setattr(module, "compute_cause_key", lambda error: _next_version(error).id)
    monkeypatch.setattr(classify, "compute_fingerprint", _next_version)
    return connection


def test_without_a_reindex_nothing_is_classified_by_another_version(upgraded: Connection) -> None:
    """Every text would mint a second cause beside its own; the message names the command."""
    _die(upgraded, TYPES[0], 1)
    with pytest.raises(RefusedError, match="dlq causes reindex --dry-run"):
        classify.classify_deaths(upgraded, zone=UTC_ZONE)
    assert one(upgraded, "select count(*) as n from dlq.death where cause_id is null")["n"] == 1


def test_a_reindex_leads_new_fingerprints_to_the_causes_that_have_most_of_their_deaths(
    upgraded: Connection,
) -> None:
    """Ids and deaths stay as they are; later deaths find the same causes."""
    before = upgraded.execute("select id, cause_id from dlq.death order by id").fetchall()
    plan = plan_reindex(upgraded)
    refused, reset, other = (compute_cause_key(error) for error in TYPES)
    both = _next_version(TYPES[0]).id
    assert CauseAlias(both, refused, 3, (reset,)) in plan
    assert CauseAlias(_next_version(TYPES[2]).id, other, 1, ()) in plan
    assert apply_reindex(upgraded, plan, audit=AUDIT, options=RunOptions(dry_run=True)) == 2
    assert (
        one(upgraded, "select count(*) as n from dlq.cause_alias where fingerprint like 'v2-%'")[
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


def test_a_cause_whose_deaths_are_gone_keeps_its_sample_for_the_reindex(
    upgraded: Connection,
) -> None:
    """The ledger may have been purged; the cause is not."""
    upgraded.execute("delete from dlq.death")
    assert {alias.cause_id for alias in plan_reindex(upgraded)} >= {compute_cause_key(TYPES[2])}
