"""Shows the alerts, the audit log, and the daily reports."""

import html
import re
from datetime import date

from dlq_pipelines.alerts.alert import list_alerts
from dlq_pipelines.alerts.rules import link_alert
from dlq_pipelines.audit import list_audit_entries
from dlq_pipelines.day import parse_past_time
from dlq_pipelines.errors import NotFoundError
from dlq_pipelines.installation import open_reports_target
from dlq_pipelines.links import PATHS
from dlq_pipelines.text import render_json
from dlq_pipelines.web.render import PAGE_POLICY
from dlq_pipelines.web.visit import PageAnswer, PageVisit, build_path, parse_whole_number

_LISTED, _LISTED_DAYS = 50, 31
# A report allows its own style sheet by its hash. Nothing else that it asks for is granted.
_STYLE_HASH = re.compile(r"style-src '(sha256-[A-Za-z0-9+/=]{44})'")
_HEAD = 2_000


def show_alerts(visit: PageVisit) -> PageAnswer:
    """List firing alerts, the most severe first, then resolved ones, the latest first."""
    alerts = list_alerts(visit.connection, limit=_LISTED, after=visit.get_text("after"))
    following = build_path("alerts", after=alerts[-1].cursor) if len(alerts) == _LISTED else None
    return PageAnswer(
        "alerts.html.j2",
        {
            "alerts": [
                (alert, alert.state(visit.now), link_alert(alert.rule, alert.key, PATHS))
                for alert in alerts
            ],
            "silence": lambda key: build_path("alerts", "silence", key=key),
            "next": following,
        },
    )


def show_audit(visit: PageVisit) -> PageAnswer:
    """List who changed what, when and why, the latest first."""
    after, since = visit.get_text("after"), visit.get_text("since")
    at = since and parse_past_time("since", since, visit.settings.zone, now=visit.now)
    entries = list_audit_entries(
        visit.connection,
        limit=_LISTED,
        after=parse_whole_number("after", after) if after else None,
        since=at or None,
    )
    following = (
        build_path("audit", since=since, after=entries[-1].id) if len(entries) == _LISTED else None
    )
    return PageAnswer(
        "audit.html.j2",
        {
            "entries": [(entry, render_json(entry.filter)) for entry in entries],
            "since": since,
            "next": following,
        },
    )


def show_reports(visit: PageVisit) -> PageAnswer:
    """List the days that have a report, the latest first."""
    from dlq_pipelines.reports.publish import list_reports

    after = visit.get_text("after")
    found = list_reports(
        visit.connection, limit=_LISTED_DAYS, before=_parse_day(after) if after else None
    )
    following = (
        build_path("reports", after=found[-1].day.isoformat())
        if len(found) == _LISTED_DAYS
        else None
    )
    return PageAnswer("reports.html.j2", {"reports": found, "next": following})


def show_report(visit: PageVisit) -> PageAnswer:
    """Send the HTML report of a day from its store, under the policy of the pages."""
    from dlq_pipelines.reports.publish import read_report_page

    day = _parse_day(visit.path["day"])
    page = read_report_page(open_reports_target(visit.settings), day)
    if page is None:
        raise NotFoundError(
            f"There is no report of {day}.", f"`dlq reports build --day {day}` builds it."
        )
    style = _STYLE_HASH.search(html.unescape(page[:_HEAD]))
    granted = f"'{style[1]}'" if style else "'none'"
    return PageAnswer(
        document=page,
        policy=PAGE_POLICY.replace("style-src 'self'", f"style-src {granted}"),
    )


def go_to_reports(_: PageVisit) -> PageAnswer:
    """Go from the list that a report links to, which is a file, to the page that lists reports."""
    return PageAnswer(go_to="/reports")


def _parse_day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise NotFoundError(
            f"{text[:60]!r} is not a day.", "Write it as 2026-11-24; /reports lists the days."
        ) from None
