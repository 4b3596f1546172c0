"""Which cause does each new death have, and how many died of it each day?

The queue is `cause_id is null`, not a watermark: ids commit out of order. A batch is one transaction that locks its
deaths, names their causes and adds them to the daily rollup, so two runs at once, or one that is killed, count
nothing twice.
"""

from collections.abc import Callable
from dataclasses import dataclass
from zoneinfo import ZoneInfo

from dlq_pipelines.causes.counts import CAUSES_SHOWN, LABELS
from dlq_pipelines.causes.fingerprint import VERSION, compute_cause_key, compute_fingerprint
from dlq_pipelines.errors import RefusedError
from dlq_pipelines.postgres.connect import Connection

BATCH = 5_000
# Digests of texts whose fingerprint a run remembers: some 20 MB, and most days have fewer distinct texts.
_REMEMBERED = 100_000
_SAMPLE_CHARACTERS = 20_000


@dataclass(frozen=True)
class ClassificationResult:
    """Deaths that got their cause, and the ids of causes never seen before."""

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
        announce: note each death for the webhook of deaths, in the transaction that classifies it.
        progress: called after each batch with the number of deaths classified so far.

    Raises:
        RefusedError: the catalogue was made by another version of the fingerprint and is not reindexed.
    """
    _require_indexed(connection)
    deaths = batches = after = 0
    new: list[str] = []
    memory = FingerprintCache()
    while True:
        with connection.transaction():
            batch = connection.fetch_one("cause.take_batch", limit=BATCH, after=after)
            if not batch["ids"] and not after:
                return ClassificationResult(deaths, batches, tuple(new))
            if not batch["ids"]:
                after = 0  # once more from the beginning: lower ids may have been committed since
                continue
            found = memory.recognise(connection, batch["ids"], batch["digests"])
            causes, minted = _causes_of(connection, found, memory.samples)
            named = [causes[key] for key in found]
            deaths += connection.fetch_one(
                "cause.assign",
                deaths=batch["ids"],
                causes=named,
                zone=zone.key,
                labels=LABELS,
                causes_shown=CAUSES_SHOWN,
                announce=announce,
            )["deaths"]
        batches += 1
        new += minted
        progress(deaths)
        after = batch["ids"][-1]


class FingerprintCache:
    """The fingerprints' ids of the texts that this run has read, by the digest of the text.

    Attributes:
        samples: a text for each of them that the last batch met for the first time.
    """

    def __init__(self) -> None:
        self._known: dict[bytes, str] = {}
        self.samples: dict[str, str] = {}

    def recognise(self, connection: Connection, ids: list[int], digests: list[bytes]) -> list[str]:
        """The id of a fingerprint for each death; only texts that were not read before are fetched."""
        if len(self._known) > _REMEMBERED:
            self._known.clear()
        unread = {
            digest: id_
            for id_, digest in zip(ids, digests, strict=True)
            if digest not in self._known
        }
        digest_of = {id_: digest for digest, id_ in unread.items()}
        self.samples = {}
        for row in connection.run("cause.texts", ids=list(digest_of)) if digest_of else ():
            key = self._known[digest_of[row["id"]]] = compute_cause_key(row["error"])
            self.samples.setdefault(key, row["error"] or "")
        return [self._known[digest] for digest in digests]


def _causes_of(
    connection: Connection, found: list[str], samples: dict[str, str]
) -> tuple[dict[str, str], list[str]]:
    """The cause of each fingerprint, locked, and the causes that had to be minted for it.

    In the order of ids, so that two runs that mint the same causes wait for each other instead of deadlocking.
    """
    wanted = set(found)
    minted: list[str] = []
    while True:
        rows = connection.run("cause.known", fingerprints=list(wanted)).fetchall()
        causes = {row["fingerprint"]: row["cause_id"] for row in rows}
        missing = sorted(wanted - causes.keys())
        if not missing:
            return causes, minted
        minted += [key for key in missing if _mint(connection, key, samples[key])]


def _mint(connection: Connection, key: str, sample: str) -> bool:
    """Whether this run is the one that minted it. Only of a new cause is made what people read."""
    found = compute_fingerprint(sample)
    shown = {
        "exception_type": found.exception_type,
        "template": found.template,
        "sample": extract_excerpt(sample),
    }
    return bool(connection.fetch_one("cause.mint", id=key, **shown)["minted"])


def extract_excerpt(text: str) -> str:
    """Enough of a long text to see what it is: some tools say what failed at the beginning, some at the end."""
    half = _SAMPLE_CHARACTERS // 2
    return text if len(text) <= _SAMPLE_CHARACTERS else f"{text[:half]}\n[...]\n{text[-half:]}"


def _require_indexed(connection: Connection) -> None:
    """Without aliases for its version every text would mint a second cause beside the one that it has."""
    state = connection.fetch_one("cause.versions", version=f"v{VERSION}")
    if state["used"] and not state["current"]:
        raise RefusedError(
            f"The catalogue of causes was made by another version of the fingerprint than v{VERSION}. "
            "Look at `dlq causes reindex --dry-run`, then run `dlq causes reindex`."
        )
