"""Which cause does each new death have, and how many died of it each day?

The queue is `cause_id is null`, not a watermark: ids commit out of order. A batch is one transaction that locks its
deaths, names their causes and adds them to the daily rollup, so two runs at once, or one that is killed, count
nothing twice.
"""

from dataclasses import dataclass
from zoneinfo import ZoneInfo

from psycopg.rows import DictRow

from dlq_pipelines.causes.fingerprint import Fingerprint, fingerprint
from dlq_pipelines.postgres.connect import Connection

BATCH = 5_000


@dataclass(frozen=True)
class Classified:
    """Deaths that got their cause, and the ids of causes never seen before."""

    deaths: int
    batches: int
    new_causes: tuple[str, ...]


def classify_deaths(connection: Connection, *, zone: ZoneInfo) -> Classified:
    """Give every unclassified death its cause.

    Args:
        connection: in autocommit mode.
        zone: the time zone of a day in the rollup.
    """
    deaths = batches = 0
    new: list[str] = []
    while True:
        with connection.transaction():
            texts = connection.run("cause.take_batch", limit=BATCH).fetchall()
            if texts:
                fingerprints = {row["error"]: fingerprint(row["error"]) for row in texts}
                new += _catalogue(connection, texts, fingerprints)
                deaths += _assign(connection, texts, fingerprints, zone)
        if not texts:
            return Classified(deaths, batches, tuple(new))
        batches += 1


def _catalogue(connection: Connection, texts: list[DictRow], fingerprints: dict[str | None, Fingerprint]) -> list[str]:
    """Mint the causes that are missing and widen the times of the others.

    In the order of ids, so that two runs that meet the same causes wait for each other instead of deadlocking.
    """
    seen: dict[str, dict[str, object]] = {}
    for row in texts:
        found = fingerprints[row["error"]]
        cause = seen.setdefault(
            found.id,
            {
                "id": found.id,
                "exception_type": found.exception_type,
                "template": found.template,
                "sample": row["error"] or "",
                "first_seen": row["first_died"],
                "last_seen": row["last_died"],
            },
        )
        cause["first_seen"] = min(cause["first_seen"], row["first_died"])
        cause["last_seen"] = max(cause["last_seen"], row["last_died"])
    return [key for key in sorted(seen) if connection.one("cause.upsert", **seen[key])["minted"]]


def _assign(
    connection: Connection, texts: list[DictRow], fingerprints: dict[str | None, Fingerprint], zone: ZoneInfo
) -> int:
    pairs = [(death, fingerprints[row["error"]].id) for row in texts for death in row["ids"]]
    row = connection.one(
        "cause.assign", deaths=[pair[0] for pair in pairs], fingerprints=[pair[1] for pair in pairs], zone=zone.key
    )
    return int(row["deaths"])
