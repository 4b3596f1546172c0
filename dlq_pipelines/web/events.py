"""Shows the whole life of an event that died, and lists the parked events."""

from dlq_pipelines.installation import build_redact_errors, build_redact_payload
from dlq_pipelines.retries.history import get_event_history
from dlq_pipelines.retries.parked import list_parked_events
from dlq_pipelines.text import format_aggregate
from dlq_pipelines.validate import parse_event_id
from dlq_pipelines.web.causes import read_titles
from dlq_pipelines.web.render import build_shown_error, format_payload
from dlq_pipelines.web.visit import PageAnswer, PageVisit, build_path, parse_whole_number

_LISTED = 50
_PLACES = {
    "outbox": "in the outbox",
    "archive": "in the archive",
    "purged": "deleted from the archive by retention",
    "gone": "in neither the outbox nor the archive",
}


def show_event(visit: PageVisit) -> PageAnswer:
    """Show deaths, retries, fix and payload of an event, even if it has left the outbox."""
    settings = visit.settings
    redact, redact_payload = build_redact_errors(settings), build_redact_payload(settings)
    found = get_event_history(visit.connection, parse_event_id(visit.path["event_id"]))
    event = found.event
    errors = redact([death.error or "" for death in found.deaths])
    details = redact([death.detail or "" for death in found.deaths])
    titles = read_titles(visit, [death.cause_id for death in found.deaths])
    return PageAnswer(
        "event.html.j2",
        {
            "id": found.event_id,
            "place": _PLACES.get(found.place, found.place),
            "event": event,
            "aggregate": format_aggregate(event.aggregate_type, event.aggregate_id)
            if event
            else "",
            "payload": format_payload(event.payload, redact_payload) if event else None,
            "fix": found.fix,
            "deaths": [
                {
                    "row": death,
                    "detail": detail,
                    "error": build_shown_error(error),
                    "cause": death.cause_id and build_path("causes", death.cause_id),
                    "title": titles.get(death.cause_id or "", ""),
                }
                for death, detail, error in zip(found.deaths, details, errors, strict=True)
            ],
            "retries": [
                (retry, format_payload(retry.payload_before, redact_payload))
                for retry in found.retries
            ],
            "command": f"dlq dead-events show {found.event_id}",
        },
    )


def show_parked_events(visit: PageVisit) -> PageAnswer:
    """List the events that died again after the maximum of retries."""
    after, most = visit.get_text("after"), visit.settings.max_retries
    found = list_parked_events(
        visit.connection,
        max_retries=most,
        after=parse_whole_number("after", after) if after else 0,
        limit=_LISTED,
    )
    titles = read_titles(visit, [event.cause_id for event in found])
    following = build_path("parked", after=found[-1].death_id) if len(found) == _LISTED else None
    return PageAnswer(
        "parked.html.j2",
        {
            "events": [
                (
                    event,
                    build_path("events", event.event_id),
                    event.cause_id and build_path("causes", event.cause_id),
                    titles.get(event.cause_id or "", ""),
                    format_aggregate(event.aggregate_type, event.aggregate_id),
                )
                for event in found
            ],
            "max_retries": most,
            "next": following,
            "lines": [
                "dlq fixes release-parked --all --reason 'corrected by hand' --dry-run",
            ],
        },
    )
