"""Searches causes by state, owner, event type and title, a page at a time."""

from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from dlq_pipelines.causes.catalogue import Cause, CauseFilter, list_causes, redact_causes
from dlq_pipelines.causes.recent import list_recent_causes
from dlq_pipelines.causes.states import RECENT_PERIOD, ListedCauseState
from dlq_pipelines.day import parse_past_time
from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.text import RedactTexts
from dlq_pipelines.validate import validate_not_blank, validate_positive, validate_storable

# Causes that one search reads: a title that few causes have must not read all of them.
_PAGE, _MAX_PAGES = 200, 10
_MAX_LIMIT = 1_000
_MAX_OWNER_LENGTH, _MAX_TYPE_LENGTH = 200, 1_000


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


def build_cause_filter(
    connection: Connection,
    *,
    state: ListedCauseState | None,
    owner: str | None,
    since: str | None,
    event_type: str | None = None,
    now: datetime,
    zone: ZoneInfo,
) -> CauseFilter:
    """Build the filter of the lists of the command line and of the HTTP API.

    Args:
        connection: to the ledger.
        state: the state; None: any.
        owner: the owner, in any case; None: any.
        since: when the period of the states `new` and `rose` begins; None: 24 hours ago.
        event_type: a type of events that died of them; None: any.
        now: the present time.
        zone: the time zone of days.

    Raises:
        ValueError: `since` is not a time before now, or is given with another state; the owner is
            blank; or a text cannot be stored.
    """
    if owner is not None:
        owner = validate_storable(
            "owner", validate_not_blank("owner", owner).strip(), most=_MAX_OWNER_LENGTH
        )
    ids = None
    if event_type:
        validate_storable("event_type", event_type, most=_MAX_TYPE_LENGTH)
        ids = list_causes_of_type(connection, event_type)
    if state is None or not state.is_recent:
        if since is not None:
            raise ValueError("since applies to the states new and rose only. Pass one of them.")
        return CauseFilter(now, state, owner, ids)
    at = parse_past_time("since", since or RECENT_PERIOD, zone, now=now)
    recent = list_recent_causes(connection, since=at, now=now, zone=zone)
    found = frozenset(item.cause.id for item in recent.causes if item.recency.value == state.value)
    return CauseFilter(now, owner=owner, ids=found if ids is None else found & ids)


def search_causes(
    connection: Connection,
    wanted: CauseFilter,
    *,
    text: str | None = None,
    redact: RedactTexts = list,
    limit: int = 50,
    after: str | None = None,
) -> CauseSearch:
    """Return causes that match a filter and a title, those with most dead events now first.

    A page reads at most 2,000 causes, so it can be short although others follow.

    Args:
        connection: to the ledger.
        wanted: the filter.
        text: a part of the title as it is shown, in any case; None: any title.
        redact: hides parts of titles and details.
        limit: the most causes of a page.
        after: the `next` of the previous page.

    Raises:
        ValueError: the limit is out of range, or `after` is not a cursor.
    """
    if text is None:
        causes = list_causes(connection, limit=limit, after=after, wanted=wanted)
        following = causes[-1].cursor if len(causes) == limit else None
        return CauseSearch(tuple(redact_causes(causes, redact)), following)
    validate_positive("limit", limit, most=_MAX_LIMIT)
    found: list[Cause] = []
    for _ in range(_MAX_PAGES):
        page = list_causes(connection, limit=_PAGE, after=after, wanted=wanted)
        for cause, shown in zip(page, redact_causes(page, redact), strict=True):
            if has_title(shown, text):
                if len(found) == limit:
                    return CauseSearch(tuple(found), after)
                found.append(shown)
            after = cause.cursor
        if len(page) < _PAGE:
            return CauseSearch(tuple(found), None)
    return CauseSearch(tuple(found), after)


def has_title(cause: Cause, text: str | None) -> bool:
    """Return whether the title of a cause contains a text, in any case; None: any title does."""
    return text is None or text.casefold() in cause.title.casefold()
