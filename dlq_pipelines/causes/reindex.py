"""A new version of the fingerprint groups texts differently. How do causes keep their ids?

Every text of the ledger is fingerprinted anew, and each new fingerprint becomes an alias of the cause that most of its
deaths have. No death and no id changes: what the new version tells apart stays one cause until somebody splits it, and
what it sees as one goes to the larger cause from now on and is proposed for merging.
"""

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from dlq_pipelines.audit import AuditContext, RunOptions, record_audit_entry
from dlq_pipelines.causes.classify import BATCH, FingerprintCache
from dlq_pipelines.causes.fingerprint import compute_cause_key
from dlq_pipelines.postgres.connect import Connection


@dataclass(frozen=True)
class CauseAlias:
    """A fingerprint of the present version and the cause that it leads to.

    Attributes:
        deaths: deaths of that cause whose texts have the fingerprint.
        others: causes with fewer deaths of the same fingerprint: the new version sees them as one.
    """

    fingerprint: str
    cause_id: str
    deaths: int
    others: tuple[str, ...]


def plan_reindex(
    connection: Connection, *, progress: Callable[[int], None] = lambda _: None
) -> list[CauseAlias]:
    """The aliases that the present version needs, by cause and fingerprint; changes nothing.

    Reads the whole ledger, in batches of 5,000 deaths, and each distinct text once; `progress` is told how many so
    far, after each batch.
    """
    deaths: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for row in connection.run("cause.list_samples"):
        deaths[compute_cause_key(row["sample"])][row["id"]] += 0
    memory, after, read = FingerprintCache(), 0, 0
    while rows := connection.run("cause.fetch_classified", after=after, limit=BATCH).fetchall():
        found = memory.fingerprint_deaths(
            connection, [row["id"] for row in rows], [row["digest"] for row in rows]
        )
        for row, key in zip(rows, found, strict=True):
            deaths[key][row["cause_id"]] += 1
        after, read = rows[-1]["id"], read + len(rows)
        progress(read)
    return sorted(
        (_alias(key, causes) for key, causes in deaths.items()),
        key=lambda one: (one.cause_id, one.fingerprint),
    )


def apply_reindex(
    connection: Connection,
    aliases: list[CauseAlias],
    *,
    audit: AuditContext,
    options: RunOptions = RunOptions(),
) -> int:
    """Add the aliases that are missing, all or none; returns how many those were."""
    with connection.transaction(force_rollback=options.dry_run):
        added = sum(
            connection.run(
                "cause.add_alias", fingerprint=one.fingerprint, cause_id=one.cause_id
            ).rowcount
            for one in aliases
        )
        if added:
            record_audit_entry(connection, "cause.reindex", {"aliases": added}, audit=audit)
    return added


def _alias(key: str, causes: Counter[str]) -> CauseAlias:
    """Most deaths win; of equals the smaller id, so that every plan is the same."""
    first, *others = sorted(causes, key=lambda cause: (-causes[cause], cause))
    return CauseAlias(key, first, causes[first], tuple(others))
