"""Adds the fingerprints of a new version to the known causes, so that causes keep their ids.

Every text of the ledger is fingerprinted again. Each new fingerprint becomes an alias of the cause
with most of its deaths. No death and no id changes. Texts that the new version separates stay one
cause until a person splits it; texts that it joins belong to the larger cause from then on.
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
    """A fingerprint of the present version and its cause.

    Attributes:
        deaths: deaths of the cause whose texts have the fingerprint.
        others: causes with fewer deaths of the same fingerprint, which are candidates for a merge.
    """

    fingerprint: str
    cause_id: str
    deaths: int
    others: tuple[str, ...]


def plan_reindex(
    connection: Connection, *, progress: Callable[[int], None] = lambda _: None
) -> list[CauseAlias]:
    """Return the aliases that the present version needs, by cause and fingerprint.

    Changes nothing. Reads the whole ledger in batches of 5,000 deaths, and each distinct text once.
    Calls `progress` after each batch with the number of deaths read so far.
    """
    deaths: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for row in connection.run("cause.list_samples"):
        deaths[compute_cause_key(row["sample"]).id][row["id"]] += 0
    cache, after, read = FingerprintCache(), 0, 0
    while rows := connection.run("cause.fetch_classified", after=after, limit=BATCH).fetchall():
        keys = cache.fingerprint_deaths(
            connection, [row["id"] for row in rows], [row["digest"] for row in rows]
        )
        for row, key in zip(rows, keys, strict=True):
            deaths[key][row["cause_id"]] += 1
        after, read = rows[-1]["id"], read + len(rows)
        progress(read)
    return sorted(
        (_choose_cause(key, causes) for key, causes in deaths.items()),
        key=lambda alias: (alias.cause_id, alias.fingerprint),
    )


def apply_reindex(
    connection: Connection,
    aliases: list[CauseAlias],
    *,
    audit: AuditContext,
    options: RunOptions = RunOptions(),
) -> int:
    """Add the missing aliases in one transaction; return their number."""
    with connection.transaction(force_rollback=options.dry_run):
        added = sum(
            connection.run(
                "cause.add_alias", fingerprint=alias.fingerprint, cause_id=alias.cause_id
            ).rowcount
            for alias in aliases
        )
        if added:
            record_audit_entry(connection, "cause.reindex", {"aliases": added}, audit=audit)
    return added


def _choose_cause(fingerprint: str, causes: Counter[str]) -> CauseAlias:
    """Choose the cause with most deaths; of equals the smallest id, so that plans are equal."""
    first, *others = sorted(causes, key=lambda cause: (-causes[cause], cause))
    return CauseAlias(fingerprint, first, causes[first], tuple(others))
