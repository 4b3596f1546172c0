"""Which causes are known, how much do they hurt, and what is their state?"""

from dataclasses import dataclass
from datetime import datetime

from dlq_pipelines.outbox.event import positive
from dlq_pipelines.postgres.connect import Connection


@dataclass(frozen=True)
class Cause:
    """A class of failures with one root.

    Attributes:
        deaths: all deaths of it in the ledger's rollup.
        dead: events that are dead of it in the outbox now.
    """

    id: str
    exception_type: str
    template: str
    status: str
    first_seen: datetime
    last_seen: datetime
    deaths: int
    dead: int

    @property
    def title(self) -> str:
        """Exception type and template in one line."""
        return ": ".join(part for part in (self.exception_type, self.template) if part)


def list_causes(connection: Connection, *, limit: int = 50) -> list[Cause]:
    """Causes, those with most dead events now first, then by deaths."""
    return [Cause(**row) for row in connection.run("cause.list", limit=positive("limit", limit, most=1000))]
