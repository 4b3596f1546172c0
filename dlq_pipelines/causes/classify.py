"""Classifies deaths: gives each new death its cause and counts the deaths of each day and cause.

The queue is `cause_id is null`, not a watermark: ids commit out of order. A batch is a transaction
that locks its deaths, assigns their causes and adds them to the rollups. Concurrent runs and a run
that is killed therefore count no death twice.
"""

from collections.abc import Callable
from dataclasses import dataclass
from zoneinfo import ZoneInfo

from dlq_pipelines.causes.counts import CAUSES_SHOWN, LABELS
from dlq_pipelines.causes.fingerprint import VERSION, compute_cause_key, compute_fingerprint
from dlq_pipelines.errors import RefusedError
from dlq_pipelines.outbox.batches import FIRST_CURSOR, build_cursor_parameters
from dlq_pipelines.postgres.connect import Connection

BATCH = 5_000
# Digests of texts whose fingerprint a run caches: about 20 MB. Most days have fewer distinct texts.
_CACHED_TEXTS = 100_000
_SAMPLE_CHARACTERS = 20_000


@dataclass(frozen=True)
class ClassificationResult:
    """Counts of a classification, and the ids of the causes that it created."""

    deaths: int
    batches: int
    new_causes: tuple[str, ...]


def classify_deaths(
    connection: Connection,
    *,
    zone: ZoneInfo,
    announce: bool = False,
    progress: Callable[[int], None] = lambda _: None,
) -> ClassificationResult:
    """Give every unclassified death its cause.

    Args:
        connection: in autocommit mode.
        zone: the time zone of a day in the rollup.
        announce: queue each death for the webhook of deaths, in the transaction that classifies it.
        progress: called after each batch with the number of deaths classified so far.

    Raises:
        RefusedError: another version of the fingerprint made the catalogue, which is not reindexed.
    """
    _require_current_version(connection)
    deaths = batches = 0
    after = FIRST_CURSOR
    new_causes: list[str] = []
    cache = FingerprintCache()
    while True:
        with connection.transaction():
            batch = connection.fetch_one(
                "cause.take_batch", limit=BATCH, **build_cursor_parameters(after)
            )
            if not batch["ids"] and after == FIRST_CURSOR:
                return ClassificationResult(deaths, batches, tuple(new_causes))
            if not batch["ids"]:
                after = FIRST_CURSOR  # again: earlier deaths may have committed meanwhile
                continue
            fingerprints = cache.fingerprint_deaths(connection, batch["ids"], batch["digests"])
            causes, created = _lock_causes(connection, fingerprints, cache.samples)
            named = [causes[fingerprint] for fingerprint in fingerprints]
            deaths += _assign_causes(connection, batch["ids"], named, zone, announce=announce)
        batches += 1
        new_causes += created
        progress(deaths)
        after = batch["last_time"], batch["last_id"]


def _assign_causes(
    connection: Connection, ids: list[int], causes: list[str], zone: ZoneInfo, *, announce: bool
) -> int:
    """Write the causes of a batch and count its deaths, in its transaction; return how many."""
    assigned = connection.fetch_one("cause.assign", deaths=ids, causes=causes, zone=zone.key)
    groups = assigned["groups"]
    connection.run("cause.roll_up_days", groups=groups)
    connection.run("cause.widen_times", groups=groups)
    connection.run("cause.place_labels", groups=groups, labels=LABELS)
    connection.run("cause.count_types", groups=groups)
    connection.run("cause.count_causes", groups=groups, causes_shown=CAUSES_SHOWN)
    if announce:
        connection.run("cause.announce", deaths=ids)
    return int(assigned["deaths"])


class FingerprintCache:
    """Caches the ids of fingerprints by the digest of the error text, for one run.

    Attributes:
        samples: one text for each fingerprint that the last batch computed.
    """

    def __init__(self) -> None:
        self._known: dict[bytes, str] = {}
        self.samples: dict[str, str] = {}

    def fingerprint_deaths(
        self, connection: Connection, ids: list[int], digests: list[bytes]
    ) -> list[str]:
        """Return the id of the fingerprint of each death; fetch only texts that are not cached."""
        if len(self._known) > _CACHED_TEXTS:
            self._known.clear()
        unread = {
            digest: id_
            for id_, digest in zip(ids, digests, strict=True)
            if digest not in self._known
        }
        digest_of = {id_: digest for digest, id_ in unread.items()}
        self.samples = {}
        for row in connection.run("cause.fetch_errors", ids=list(digest_of)) if digest_of else ():
            key = self._known[digest_of[row["id"]]] = compute_cause_key(row["error"]).id
            self.samples.setdefault(key, row["error"] or "")
        return [self._known[digest] for digest in digests]


def _lock_causes(
    connection: Connection, fingerprints: list[str], samples: dict[str, str]
) -> tuple[dict[str, str], list[str]]:
    """Return the cause of each fingerprint, locked, and the causes that this run created.

    Locks and creates in the order of ids: two runs that create the same causes wait for each other
    instead of deadlocking.
    """
    wanted = set(fingerprints)
    created: list[str] = []
    while True:
        rows = connection.run("cause.lock_by_fingerprint", fingerprints=list(wanted)).fetchall()
        causes = {row["fingerprint"]: row["cause_id"] for row in rows}
        missing = sorted(wanted - causes.keys())
        if not missing:
            return causes, created
        created += [key for key in missing if _create_cause(connection, key, samples[key])]


def _create_cause(connection: Connection, key: str, sample: str) -> bool:
    """Create a cause; return False if a concurrent run created it first.

    Only a new cause needs the parts of a fingerprint that people read.
    """
    fingerprint = compute_fingerprint(sample)
    row = connection.fetch_one(
        "cause.create",
        id=key,
        exception_type=fingerprint.exception_type,
        template=fingerprint.template,
        sample=extract_excerpt(sample),
    )
    return bool(row["created"])


def extract_excerpt(text: str) -> str:
    """Return both ends of a long text: some tools name the failure first, others last."""
    half = _SAMPLE_CHARACTERS // 2
    return text if len(text) <= _SAMPLE_CHARACTERS else f"{text[:half]}\n[...]\n{text[-half:]}"


def _require_current_version(connection: Connection) -> None:
    """Without aliases of its version, each known cause would get a duplicate."""
    state = connection.fetch_one("cause.check_version", version=f"v{VERSION}")
    if state["used"] and not state["current"]:
        raise RefusedError(
            f"The catalogue of causes has no fingerprints of version v{VERSION}.",
            "Preview the change with `dlq causes reindex --dry-run`, then run it without.",
        )
