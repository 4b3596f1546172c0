"""Classifies the ledger anew after a new version of the fingerprint.

A cause of an earlier version keeps its row and points to its successors: the causes that its deaths
have now. A batch of deaths is a transaction, and so is the end of a cause. What was not finished
stays due, so a run that was killed is started again. Deaths are recorded and classified meanwhile.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any
from zoneinfo import ZoneInfo

from psycopg.rows import DictRow

from dlq_pipelines.audit import AuditContext, record_audit_entry
from dlq_pipelines.causes.classify import (
    BATCH,
    DetailPlaces,
    FingerprintCache,
    lock_causes,
    place_keys,
)
from dlq_pipelines.causes.fingerprint import VERSION
from dlq_pipelines.outbox.batches import FIRST_CURSOR, DeathCursor, build_cursor_parameters
from dlq_pipelines.postgres.connect import Connection

# Of two predecessors of one cause, the state that asks most of people counts.
_STATES = ("fixing", "regressed", "open", "fixed")


@dataclass(frozen=True)
class Successor:
    """A cause that deaths of an earlier cause have now, and how many of them."""

    cause_id: str
    deaths: int


@dataclass(frozen=True)
class CauseSuccession:
    """What became of a cause of an earlier version.

    Attributes:
        cause_id: the cause of the earlier version. It points to its first successor.
        successors: those with most deaths first.
    """

    cause_id: str
    successors: tuple[Successor, ...]


def plan_reindex(
    connection: Connection, *, progress: Callable[[int], None] = lambda _: None
) -> list[CauseSuccession]:
    """Return what would become of each cause of an earlier version.

    Changes nothing. Reads the deaths of these causes in batches of 5,000, and each distinct text
    once. Calls `progress` after each batch with the number of deaths read so far.
    """
    cache, read = FingerprintCache(), 0
    plan = []
    for cause in _list_pending(connection):
        deaths: Counter[str] = Counter()
        for successor in _list_successors(connection, cause["id"]):
            deaths[successor.cause_id] += successor.deaths
        after = FIRST_CURSOR
        while True:
            with connection.transaction(force_rollback=True):
                batch = _take_batch(connection, cause["id"], after)
            if not batch["ids"]:
                break
            keys = cache.fingerprint_deaths(connection, batch["ids"], batch["digests"])
            deaths.update(key.id for key in keys)
            after = batch["last_time"], batch["last_id"]
            read += len(keys)
            progress(read)
        plan.append(CauseSuccession(cause["id"], _sort_successors(deaths)))
    return plan


def reindex_causes(
    connection: Connection,
    *,
    zone: ZoneInfo,
    audit: AuditContext,
    progress: Callable[[int], None] = lambda _: None,
) -> list[CauseSuccession]:
    """Give the deaths of every cause of an earlier version their new causes and details.

    Names, owners, notes, mutes, merges, states and fixes of the earlier causes go to their
    successors. Repeatable: what an earlier run finished is left as it is.

    Args:
        connection: in autocommit mode.
        zone: the time zone of a day in the rollup.
        audit: who starts it, and why.
        progress: called after each batch with the number of deaths classified so far.
    """
    cache, details, done = FingerprintCache(), DetailPlaces(), 0
    pending = _list_pending(connection)
    for cause in pending:
        after = FIRST_CURSOR
        while moved := _move_batch(connection, cause["id"], after, cache, details, zone):
            after, count = moved
            done += count
            progress(done)
    finished = [_finish_cause(connection, cause["id"], audit=audit) for cause in pending]
    return [succession for succession in finished if succession.successors]


def _list_pending(connection: Connection) -> list[DictRow]:
    return connection.run("reindex.list_pending", version=f"v{VERSION}").fetchall()


def _take_batch(connection: Connection, cause_id: str, after: DeathCursor) -> DictRow:
    return connection.fetch_one(
        "reindex.take_batch", cause_id=cause_id, limit=BATCH, **build_cursor_parameters(after)
    )


def _move_batch(
    connection: Connection,
    cause_id: str,
    after: DeathCursor,
    cache: FingerprintCache,
    details: DetailPlaces,
    zone: ZoneInfo,
) -> tuple[DeathCursor, int] | None:
    """Classify the next deaths of a cause anew, in one transaction; None: there are no more."""
    with connection.transaction():
        batch = _take_batch(connection, cause_id, after)
        if not batch["ids"]:
            return None
        keys = cache.fingerprint_deaths(connection, batch["ids"], batch["digests"])
        distinct = list(dict.fromkeys(keys))
        causes, _ = lock_causes(connection, {key.id for key in distinct}, cache.samples)
        named = details.place_all(connection, causes, distinct)
        assigned = connection.fetch_one(
            "reindex.reassign",
            deaths=batch["ids"],
            places=place_keys(keys, distinct),
            causes=[key.cause for key in named],
            details=[key.detail for key in named],
            zone=zone.key,
        )
        groups = assigned["groups"]
        connection.run("reindex.move_days", cause_id=cause_id, groups=groups)
        if assigned["former"] is not None:
            connection.run("reindex.take_details", cause_id=cause_id, former=assigned["former"])
        if assigned["details"] is not None:
            connection.run("cause.count_details", details=assigned["details"])
        connection.run("cause.widen_times", groups=groups)
        connection.run("reindex.count_successors", cause_id=cause_id, groups=groups)
    return (batch["last_time"], batch["last_id"]), len(keys)


def _finish_cause(connection: Connection, cause_id: str, *, audit: AuditContext) -> CauseSuccession:
    """Hand a cause over to its successors, in one transaction.

    Once only: a concurrent run may have finished it, or an older process may have classified more
    of its deaths since. A cause whose deaths the ledger purged meanwhile has no successor.
    """
    with connection.transaction():
        successors = _list_successors(connection, cause_id)
        ids = [successor.cause_id for successor in successors]
        rows = {row["id"]: row for row in connection.run("cause.lock", ids=[cause_id, *ids])}
        state = connection.fetch_one("reindex.is_finished", cause_id=cause_id)
        if ids and not state["finished"]:
            _hand_over_cause(connection, rows, cause_id, ids, audit=audit)
        connection.run("reindex.end_details", cause_id=cause_id)
        succession = CauseSuccession(cause_id, successors)
        if ids:
            record_audit_entry(
                connection,
                "cause.reindex",
                asdict(succession),
                audit=audit,
                events=sum(successor.deaths for successor in successors),
            )
    return succession


def _hand_over_cause(
    connection: Connection,
    rows: Mapping[str, DictRow],
    cause_id: str,
    ids: list[str],
    *,
    audit: AuditContext,
) -> None:
    """Give the successors what the cause has, and show it as the first of them."""
    first, target = ids[0], rows[cause_id]["merged_into"]
    if target is None:
        _hand_over_state(connection, rows[cause_id], [rows[id_] for id_ in ids], audit=audit)
        target = rows[first]["merged_into"] or first
    else:
        _merge_successors(connection, cause_id, ids, target)
    connection.run("reindex.move_fixes", cause_id=cause_id, successor_id=first)
    connection.run("reindex.move_members", cause_id=cause_id, target=target)
    connection.run("reindex.merge", cause_id=cause_id, target=target)
    connection.run("reindex.move_aliases", cause_id=cause_id, successor_id=first)
    connection.run("cause.align_details", ids=[target, *ids])


def _hand_over_state(
    connection: Connection, old: DictRow, successors: list[DictRow], *, audit: AuditContext
) -> None:
    """Give the successors of a shown cause its names and its state, and the first one its fixes.

    An open fix follows the first successor alone, so that it never selects more than it did.
    """
    first = successors[0]["id"]
    fix = connection.run("reindex.open_fix", cause_id=old["id"]).fetchone()
    before = (
        (old["status"], old["fixed_at"])
        if fix is None
        else (fix["status_before"], fix["fixed_at_before"])
    )
    for successor in successors:
        state = (old["status"], old["fixed_at"]) if successor["id"] == first else before
        has_other = connection.fetch_one(
            "reindex.has_finished_predecessors",
            cause_id=old["id"],
            successor_id=successor["id"],
        )["found"]
        connection.run(
            "reindex.inherit",
            **build_inheritance(
                old, successor, state, is_first=successor["id"] == first, has_other=has_other
            ),
        )
        connection.run(
            "reindex.inherit_details",
            cause_id=old["id"],
            successor_id=successor["id"],
            is_first=successor["id"] == first,
        )
    withdrawn = connection.run(
        "reindex.withdraw_second_fixes", cause_id=old["id"], successor_id=first, now=audit.now
    )
    for row in withdrawn.fetchall():
        record_audit_entry(connection, "fix.withdrawn", {"fix": row["id"]}, audit=audit)


def build_inheritance(
    old: Mapping[str, Any],
    successor: Mapping[str, Any],
    state: tuple[str, Any],
    *,
    is_first: bool,
    has_other: bool,
) -> dict[str, Any]:
    """Return the columns of a successor after it took over from a cause.

    What people said of the successor itself stays. The name goes to the first successor alone,
    because a name describes one failure; the others have the same owner, note and mute.

    Args:
        old: the row of the cause.
        successor: the row of the successor.
        state: the status and the time of the fix that the cause leaves.
        is_first: whether most of its deaths are of this successor.
        has_other: whether another cause handed over to it before, so that both states count.
    """
    status, fixed_at = state
    if has_other and _STATES.index(successor["status"]) <= _STATES.index(status):
        status, fixed_at = successor["status"], successor["fixed_at"]
    return {
        "id": successor["id"],
        "name": successor["name"] or (old["name"] if is_first else None),
        "owner": successor["owner"] or old["owner"],
        "note": successor["note"] or old["note"],
        "muted_until": successor["muted_until"] or old["muted_until"],
        "probe": successor["probe"] or old["probe"],
        "status": status,
        "fixed_at": fixed_at,
    }


def _merge_successors(connection: Connection, cause_id: str, ids: list[str], target: str) -> None:
    """Merge the successors of a merged cause into the cause that it is shown as.

    A successor that also came from another cause stays on its own: nobody merged that one.
    """
    for id_ in ids:
        shared = connection.fetch_one(
            "reindex.is_shared", cause_id=cause_id, successor_id=id_, target=target
        )["shared"]
        if id_ != target and not shared:
            connection.run("reindex.move_members", cause_id=id_, target=target)
            connection.run("reindex.merge", cause_id=id_, target=target)


def _list_successors(connection: Connection, cause_id: str) -> tuple[Successor, ...]:
    return tuple(
        Successor(row["successor_id"], row["deaths"])
        for row in connection.run("reindex.list_successors", cause_id=cause_id)
    )


def _sort_successors(deaths: Counter[str]) -> tuple[Successor, ...]:
    """Sort by deaths, then by id, so that plans are equal."""
    return tuple(
        Successor(id_, deaths[id_]) for id_ in sorted(deaths, key=lambda id_: (-deaths[id_], id_))
    )
