"""Searches causes by state, owner and title, a page at a time."""

from dataclasses import dataclass
from datetime import datetime

from dlq_pipelines.causes.catalogue import Cause, list_causes, redact_causes
from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.text import RedactTexts

# Causes that one search reads: a filter that few causes match must not read all of them.
_PAGE, _MAX_PAGES = 200, 10


@dataclass(frozen=True)
class CauseFilter:
    """Which causes are searched for; a None matches all of them.

    Attributes:
        state: open, fixing, fixed, regressed or muted.
        owner: the owner, in any case.
        text: a part of the title, in any case.
        ids: the causes; see `list_causes_of_type`.
    """

    state: str | None = None
    owner: str | None = None
    text: str | None = None
    ids: frozenset[str] | None = None

    def matches(self, cause: Cause, *, now: datetime) -> bool:
        """Return whether a cause meets all that was given."""
        return (
            (self.state is None or cause.state(now) == self.state)
            and (self.owner is None or (cause.owner or "").casefold() == self.owner.casefold())
            and (self.text is None or self.text.casefold() in cause.title.casefold())
            and (self.ids is None or cause.id in self.ids)
        )


@dataclass(frozen=True)
class CauseSearch:
    """Causes that were found; `next` is the `after` of the next page, None on the last one."""

    causes: tuple[Cause, ...]
    next: str | None


def list_causes_of_type(connection: Connection, event_type: str) -> frozenset[str]:
    """Return the causes that events of a type have died of, by the rollup.

    A merged cause is returned as the cause that it is merged into.
    """
    rows = connection.run("cause.of_event_type", event_type=event_type)
    return frozenset(row["id"] for row in rows)


def search_causes(
    connection: Connection,
    wanted: CauseFilter,
    *,
    now: datetime,
    redact: RedactTexts = list,
    limit: int = 50,
    after: str | None = None,
) -> CauseSearch:
    """Return causes that match a filter, those with most dead events now first.

    A page reads at most 2,000 causes, so it can be short although others follow.

    Args:
        connection: to the ledger.
        wanted: the filter, which sees titles as they are shown.
        now: the present time.
        redact: hides parts of titles and details.
        limit: the most causes of a page.
        after: the `next` of the previous page.

    Raises:
        ValueError: `after` is not a cursor.
    """
    found: list[Cause] = []
    for _ in range(_MAX_PAGES):
        page = list_causes(connection, limit=_PAGE, after=after)
        for cause, shown in zip(page, redact_causes(page, redact), strict=True):
            if wanted.matches(shown, now=now):
                if len(found) == limit:
                    return CauseSearch(tuple(found), after)
                found.append(shown)
            after = cause.cursor
        if len(page) < _PAGE:
            return CauseSearch(tuple(found), None)
    return CauseSearch(tuple(found), after)
