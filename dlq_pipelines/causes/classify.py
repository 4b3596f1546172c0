"""Classifies deaths: gives each new death its cause and its detail, and counts them.

The queue is `cause_id is null`, not a watermark: ids commit out of order. A batch is a transaction
that locks its deaths, assigns their causes and adds them to the rollups. Concurrent runs and a run
that is killed therefore count no death twice.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import NamedTuple
from zoneinfo import ZoneInfo

from dlq_pipelines.causes.counts import CAUSES_SHOWN, LABELS
from dlq_pipelines.causes.fingerprint import (
    VERSION,
    CauseKey,
    compute_cause_key,
    compute_fingerprint,
)
from dlq_pipelines.causes.transient import is_transient
from dlq_pipelines.errors import RefusedError
from dlq_pipelines.outbox.batches import FIRST_CURSOR, build_cursor_parameters
from dlq_pipelines.postgres.connect import Connection

BATCH = 5_000
# Digests of texts whose fingerprint a run caches: about 20 MB. Most days have fewer distinct texts.
_CACHED_TEXTS = 100_000
_SAMPLE_CHARACTERS = 20_000
# Further details of a cause count as one: as many rows would say nothing.
MAX_DETAILS = 200
OTHER_DETAIL = "other"


class DetailKey(NamedTuple):
    """A detail of a cause."""

    cause: str
    detail: str


@dataclass(frozen=True)
class ClassificationResult:
    """Counts of a classification, the causes that it created, and new details of known causes."""

    deaths: int
    batches: int
    new_causes: tuple[str, ...] = ()
    new_details: tuple[DetailKey, ...] = ()


def classify_deaths(
    connection: Connection,
    *,
    zone: ZoneInfo,
    announce: bool = False,
    progress: Callable[[int], None] = lambda _: None,
) -> ClassificationResult:
    """Give every unclassified death its cause and its detail.

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
    cache, details = FingerprintCache(), DetailPlaces()
    while True:
        with connection.transaction():
            batch = connection.fetch_one(
                "cause.take_batch", limit=BATCH, **build_cursor_parameters(after)
            )
            if not batch["ids"] and after == FIRST_CURSOR:
                return ClassificationResult(
                    deaths, batches, tuple(new_causes), details.list_new(except_of=new_causes)
                )
            if not batch["ids"]:
                after = FIRST_CURSOR  # again: earlier deaths may have committed meanwhile
                continue
            keys = cache.fingerprint_deaths(connection, batch["ids"], batch["digests"])
            distinct = list(dict.fromkeys(keys))
            causes, created = lock_causes(connection, {key.id for key in distinct}, cache.samples)
            named = details.place_all(connection, causes, distinct)
            places = place_keys(keys, distinct)
            deaths += _assign_causes(
                connection, batch["ids"], places, named, zone, announce=announce
            )
        batches += 1
        new_causes += created
        progress(deaths)
        after = batch["last_time"], batch["last_id"]


def _assign_causes(
    connection: Connection,
    ids: list[int],
    places: list[int],
    named: list[DetailKey],
    zone: ZoneInfo,
    *,
    announce: bool,
) -> int:
    """Write the causes of a batch and count its deaths, in its transaction; return how many.

    A place is that of the death's cause in `named`: numbers take a fraction of the time of texts.
    """
    assigned = connection.fetch_one(
        "cause.assign",
        deaths=ids,
        places=places,
        causes=[key.cause for key in named],
        details=[key.detail for key in named],
        zone=zone.key,
    )
    groups = assigned["groups"]
    connection.run("cause.roll_up_days", groups=groups)
    if assigned["details"] is not None:
        connection.run("cause.count_details", details=assigned["details"])
    connection.run("cause.widen_times", groups=groups)
    connection.run("cause.place_labels", groups=groups, labels=LABELS)
    connection.run("cause.count_types", groups=groups)
    connection.run("cause.count_causes", groups=groups, causes_shown=CAUSES_SHOWN)
    if announce:
        connection.run("cause.announce", deaths=ids)
    return int(assigned["deaths"])


def place_keys(keys: list[CauseKey], distinct: list[CauseKey]) -> list[int]:
    """Return the place of each key in `distinct`, from 1."""
    place_of = {key: place for place, key in enumerate(distinct, start=1)}
    return [place_of[key] for key in keys]


class DetailPlaces:
    """The details under which a run counts, and those that it was the first to see.

    A detail keeps its place for good, so what a run has read of it stays true.
    """

    def __init__(self) -> None:
        self._placed: dict[DetailKey, DetailKey] = {}
        self._new: list[DetailKey] = []

    def place_all(
        self, connection: Connection, causes: dict[str, str], distinct: list[CauseKey]
    ) -> list[DetailKey]:
        """Return the keys as they are stored: details beyond the limit of a cause are `other`.

        Args:
            connection: in a transaction that holds the locks of the causes.
            causes: the cause of each fingerprint.
            distinct: the keys, each once.
        """
        keys = [DetailKey(causes[key.id], key.detail) for key in distinct]
        if len(self._placed) > _CACHED_TEXTS:
            self._placed.clear()
        unread = {key for key in keys if key.detail} - self._placed.keys()
        if unread:
            self._placed |= {key: key for key in unread}
            for row in connection.run(
                "cause.place_details",
                causes=[key.cause for key in unread],
                details=[key.detail for key in unread],
                most=MAX_DETAILS,
            ):
                key = DetailKey(row["cause_id"], row["detail"])
                if not row["is_placed"]:
                    self._placed[key] = DetailKey(key.cause, OTHER_DETAIL)
                if row["is_new"]:
                    self._new.append(key)
        return [self._placed.get(key, key) for key in keys]

    def list_new(self, *, except_of: Collection[str]) -> tuple[DetailKey, ...]:
        """Return the details that are new, without those of these causes."""
        return tuple(sorted(key for key in self._new if key.cause not in set(except_of)))


class FingerprintCache:
    """Caches the keys of causes by the digest of the error text, for one run.

    Attributes:
        samples: one text for each fingerprint that the last batch computed.
    """

    def __init__(self) -> None:
        self._known: dict[bytes, CauseKey] = {}
        self.samples: dict[str, str] = {}

    def fingerprint_deaths(
        self, connection: Connection, ids: list[int], digests: list[bytes]
    ) -> list[CauseKey]:
        """Return the key of the cause of each death; fetch only texts that are not cached."""
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
            key = self._known[digest_of[row["id"]]] = compute_cause_key(row["error"])
            self.samples.setdefault(key.id, row["error"] or "")
        return [self._known[digest] for digest in digests]


def lock_causes(
    connection: Connection, wanted: set[str], samples: dict[str, str]
) -> tuple[dict[str, str], list[str]]:
    """Return the cause of each fingerprint, locked, and the causes that this run created.

    Locks and creates in the order of ids: two runs that create the same causes wait for each other
    instead of deadlocking.
    """
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
        is_transient=is_transient(fingerprint),
    )
    return bool(row["created"])


def extract_excerpt(text: str) -> str:
    """Return both ends of a long text: some tools name the failure first, others last."""
    half = _SAMPLE_CHARACTERS // 2
    return text if len(text) <= _SAMPLE_CHARACTERS else f"{text[:half]}\n[...]\n{text[-half:]}"


def _require_current_version(connection: Connection) -> None:
    """Before a reindex began, each known cause would get a second one, announced as new."""
    state = connection.fetch_one("cause.check_version", version=f"v{VERSION}")
    if state["outdated"] and not state["current"]:
        raise RefusedError(
            f"The causes in the ledger are not of version v{VERSION} of the fingerprint.",
            "Preview the change with `dlq causes reindex --dry-run`, then run it without.",
        )
