"""Shows the causes, what needs attention first, and one cause with all that is known of it."""

from collections.abc import Iterable
from shlex import quote
from typing import Any
from urllib.parse import urlencode

from dlq_pipelines.causes.catalogue import (
    Cause,
    CauseFilter,
    describe_cause,
    find_cause_id,
    find_shown_cause_id,
    get_causes,
    redact_causes,
)
from dlq_pipelines.causes.explain import CauseExplanation, explain_cause
from dlq_pipelines.causes.recent import (
    Recency,
    count_daily_deaths,
    list_recent_causes,
)
from dlq_pipelines.causes.search import has_title, list_causes_of_type, search_causes
from dlq_pipelines.causes.states import RECENT_PERIOD, ListedCauseState
from dlq_pipelines.day import convert_to_zone, parse_past_time
from dlq_pipelines.deployments import list_preceding_deployments
from dlq_pipelines.errors import RefusedError
from dlq_pipelines.installation import (
    build_hides_path,
    build_redact_errors,
    build_redact_payload,
)
from dlq_pipelines.outbox.dead_events import list_dead_events
from dlq_pipelines.outbox.selection import Selection
from dlq_pipelines.retries.fixes import list_cause_fixes
from dlq_pipelines.text import RedactTexts, format_aggregate
from dlq_pipelines.web.charts import draw_trend
from dlq_pipelines.web.merges import list_similar_pairs
from dlq_pipelines.web.render import build_shown_error, format_payload
from dlq_pipelines.web.visit import PageAnswer, PageVisit, build_path

_SAMPLES = 3
_SIMILAR = 5
_RECENT_STATES = tuple(state.value for state in ListedCauseState if state.is_recent)
_SHOWN_DETAILS = 30
_FILTERS = ("state", "owner", "event_type", "text", "since")


def show_causes(visit: PageVisit) -> PageAnswer:
    """List causes: new, regressed and rising ones first, then the others by dead events now."""
    connection, settings, now = visit.connection, visit.settings, visit.now
    given = {name: visit.get_text(name) for name in _FILTERS}
    state = given["state"]
    if state and state not in (states := [one.value for one in ListedCauseState]):
        raise ValueError(f"state: {state[:60]!r} is not one of {', '.join(states)}.")
    since = visit.get_text("since") or RECENT_PERIOD
    after = visit.get_text("after")
    redact = build_redact_errors(settings)
    at = parse_past_time("since", since, settings.zone, now=now)
    recent = list_recent_causes(connection, since=at, now=now, zone=settings.zone)
    urgent = {item.cause.id: item for item in recent.causes if item.recency != Recency.ONGOING}
    wanted = CauseFilter(
        now,
        None if state in _RECENT_STATES else state,
        given["owner"],
        list_causes_of_type(connection, given["event_type"]) if given["event_type"] else None,
    )
    first = [
        (item, shown)
        for item, shown in zip(
            urgent.values(),
            redact_causes([item.cause for item in urgent.values()], redact),
            strict=True,
        )
        if (state not in _RECENT_STATES or item.recency == state)
        and wanted.matches(shown)
        and has_title(shown, given["text"])
    ]
    others: tuple[Cause, ...] = ()
    following = None
    if state not in _RECENT_STATES:
        found = search_causes(connection, wanted, text=given["text"], redact=redact, after=after)
        others = tuple(cause for cause in found.causes if cause.id not in urgent)
        following = found.next
    return PageAnswer(
        "causes.html.j2",
        {
            "urgent": [] if after else first,
            "others": others,
            "now": now,
            "since": since,
            "unclassified": recent.unclassified,
            "given": given,
            "states": tuple(state.value for state in ListedCauseState),
            "is_filtered": any(given[name] for name in _FILTERS if name != "since"),
            "is_first": after is None,
            "next": following and build_path("causes", **given, after=following),
        },
    )


def show_cause(visit: PageVisit) -> PageAnswer:
    """Show one cause: trend, details, what sets its events apart, samples and earlier fixes."""
    connection, settings = visit.connection, visit.settings
    given = visit.path["cause"]
    whole_id = find_cause_id(connection, given)
    if (shown_id := find_shown_cause_id(connection, whole_id)) != given:
        # Links of alerts and reports outlive a merge, and people write the beginning of an id.
        merged = whole_id if shown_id != whole_id else None
        return PageAnswer(go_to=build_path("causes", shown_id, merged=merged))
    redact = build_redact_errors(settings)
    described = describe_cause(connection, given, redact=redact)
    cause = described.cause
    (shown,) = redact_causes([cause], redact)
    explanation, unexplained = _explain(visit, cause.id)
    today = convert_to_zone(visit.now, settings.zone).date()
    deaths = count_daily_deaths(connection, [cause.id, *cause.members], last_day=today)
    return PageAnswer(
        "cause.html.j2",
        {
            "cause": shown,
            "state": cause.state(visit.now),
            "trend": draw_trend(deaths),
            "deaths": deaths,
            "details": [
                {
                    "shown": hidden.detail,
                    # A detail that is redacted is in no address either.
                    "flag": build_path("fixes", "new", cause=cause.id, detail=stored.detail)
                    if hidden.detail == stored.detail
                    else None,
                    "row": stored,
                }
                for stored, hidden in zip(
                    cause.details[:_SHOWN_DETAILS], shown.details[:_SHOWN_DETAILS], strict=True
                )
            ],
            "more_details": len(cause.details[_SHOWN_DETAILS:]),
            "explanation": explanation,
            "unexplained": unexplained,
            "findings": [
                (
                    finding,
                    finding.filters
                    and build_path("fixes", "new", cause=cause.id, **finding.filters),
                )
                for finding in (explanation.separation.findings if explanation else ())
            ],
            "samples": _list_samples(visit, cause.id, redact),
            "last_sample": None
            if described.sample is None
            else build_shown_error(described.sample),
            "fixes": list_cause_fixes(connection, [cause.id, *cause.members]),
            "changes": described.changes,
            "deployments": [
                (deployment, deployment.describe_delay(cause.first_seen))
                for deployment in list_preceding_deployments(connection, cause.first_seen)
            ],
            "flag": build_path("fixes", "new", cause=cause.id),
            "path": build_path("causes", cause.id),
            "merged": visit.get_text("merged"),
            "similar": _list_similar(visit, cause, redact),
            "lines": [
                f"dlq causes explain {quote(cause.id)}",
                f"dlq dead-events list --cause {quote(cause.id)} --limit 5",
                f"dlq fixes flag --cause {quote(cause.id)} --note 'fixed in v42' --dry-run",
            ],
        },
    )


def _explain(visit: PageVisit, cause_id: str) -> tuple[CauseExplanation | None, str]:
    """Return the explanation of a cause, or why there is no explanation."""
    try:
        return (
            explain_cause(
                visit.connection,
                cause_id,
                zone=visit.settings.zone,
                is_hidden=build_hides_path(visit.settings),
            ),
            "",
        )
    except RefusedError as error:  # the mapping has no payload
        return None, str(error)


def _list_similar(
    visit: PageVisit, cause: Cause, redact: RedactTexts
) -> list[tuple[Cause, str, str, str, str]]:
    """Return causes that differ in one word: page, words, page that merges it, and command."""
    pairs = list_similar_pairs(visit, cause.id)[:_SIMILAR]
    shown = redact_causes([other for other, _ in pairs], redact)
    return [
        (
            hidden,
            build_path("causes", other.id),
            " / ".join(word or "(nothing)" for word in redact(list(words))),
            f"{build_path('causes', other.id)}/merge?{urlencode({'into': cause.id})}",
            f"dlq causes merge {quote(other.id)} {quote(cause.id)} --reason ... --dry-run",
        )
        for (other, words), hidden in zip(pairs, shown, strict=True)
    ]


def _list_samples(visit: PageVisit, cause_id: str, redact: RedactTexts) -> list[dict[str, Any]]:
    """Return the latest dead events of a cause, redacted before anything is cut."""
    redact_payload = build_redact_payload(visit.settings)
    page = list_dead_events(visit.connection, Selection(cause=cause_id), limit=_SAMPLES)
    errors = redact([event.last_error or "" for event in page.events])
    return [
        {
            "id": event.id,
            "link": build_path("events", event.id),
            "type": event.event_type,
            "aggregate": format_aggregate(event.aggregate_type, event.aggregate_id),
            "died_at": event.dead_at,
            "attempts": event.attempts,
            "error": build_shown_error(error),
            "payload": format_payload(event.payload, redact_payload),
        }
        for event, error in zip(page.events, errors, strict=True)
    ]


def read_titles(visit: PageVisit, cause_ids: Iterable[str | None]) -> dict[str, str]:
    """Return the redacted titles of causes by their ids, without merged and unknown ones."""
    found = get_causes(visit.connection, list(dict.fromkeys(filter(None, cause_ids))))
    shown = redact_causes(found.values(), build_redact_errors(visit.settings))
    return {cause.id: cause.title for cause in shown}
