"""Renders the report as JSON for programs. `report.schema.json` describes each field.

Causes, fixes and the reconciliation have the fields of their figures, in that order.
"""

import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from dlq_pipelines.reports.figures import ALL, OTHER, CauseFigures, FixFigures, ReportFigures
from dlq_pipelines.reports.states import CauseState

REPORT_VERSION = 1


def render_report_json(figures: ReportFigures, headline: str) -> str:
    """Render the report as ASCII, so that a terminal it is printed to obeys nothing in it."""
    window = figures.window
    content: dict[str, Any] = {
        "version": REPORT_VERSION,
        "day": window.day.isoformat(),
        "time_zone": window.zone.key,
        "from": _format_time(window.start),
        "until": _format_time(window.until),
        "headline": headline,
        "totals": _build_totals(figures),
        "causes_by_state": {state.value: len(figures.list_causes(state)) for state in CauseState},
        "backlog": _build_backlog(figures),
        "upcoming": {
            "archived_within_a_week": figures.upcoming.archived,
            "purged_within_a_week": figures.upcoming.purged,
        },
        "reconciliation": _build_reconciliation(figures),
        "causes": [_build_cause(cause) for cause in figures.causes],
        "causes_not_listed": {"causes": figures.hidden_causes, "deaths": figures.hidden_deaths},
        "days": [
            {"day": str(day), "deaths": int(deaths)} for day, deaths in figures.days[ALL].items()
        ],
        "hours": [
            {"from": _format_time(hour["hour"]), "label": hour["label"], "deaths": hour["deaths"]}
            for hour in figures.hours.to_dict("records")
        ],
        "causes_by_event_type": _build_matrix(figures),
        "fixes": [_build_fix(fix) for fix in figures.fixes],
        "fixes_not_listed": figures.fixes_found - len(figures.fixes),
    }
    if figures.healed is not None:
        content["healed_by_probes"] = asdict(figures.healed)
    return json.dumps(content, indent=1) + "\n"


def _build_totals(figures: ReportFigures) -> dict[str, Any]:
    totals = figures.totals
    return {
        "deaths": totals.deaths,
        "events": totals.events,
        "unclassified": totals.unclassified,
        "causes": totals.causes,
        "classified_share": round(totals.classified, 6),
        "mean_of_14_days_before": round(figures.mean, 3),
        "mean_of_same_weekday": (
            None if figures.weekday_mean is None else round(figures.weekday_mean, 3)
        ),
        "change": None if figures.change is None else round(figures.change, 6),
    }


def _build_backlog(figures: ReportFigures) -> dict[str, Any]:
    backlog, oldest = figures.backlog, figures.backlog.oldest
    age = None if oldest is None else int((figures.window.until - oldest).total_seconds())
    counts = (
        *("parked", "added", "died", "restored", "removed", "retried", "archived", "discarded"),
        *("unexplained", "delivered", "died_again", "timed_out", "deleted", "recalled"),
    )
    return {
        "dead_at_start": backlog.dead_at_start,
        "dead_at_end": backlog.dead_at_end,
        "oldest": _format_time(oldest),
        "oldest_age_seconds": age,
        **{name: getattr(backlog, name) for name in counts},
    }


def _build_reconciliation(figures: ReportFigures) -> dict[str, Any] | None:
    reconciliation = figures.reconciliation
    if reconciliation is None:
        return None
    return asdict(reconciliation) | {"checked_at": _format_time(reconciliation.checked_at)}


def _build_cause(cause: CauseFigures) -> dict[str, Any]:
    fewest, mean, most = cause.attempts
    limit = cause.escalation_limit
    return asdict(cause) | {
        "cause_id": cause.cause_id or None,
        "beginning": cause.beginning or None,
        "escalation_limit": None if limit is None else round(limit, 3),
        "share": round(cause.share, 6),
        "event_types": [
            {"event_type": name, "deaths": deaths} for name, deaths in cause.event_types
        ],
        "first_seen": _format_time(cause.first_seen),
        "last_seen": _format_time(cause.last_seen),
        "attempts": {"fewest": fewest, "mean": round(mean, 3), "most": most},
        "muted_until": _format_time(cause.muted_until),
    }


def _build_matrix(figures: ReportFigures) -> dict[str, Any]:
    table = figures.matrix
    return {
        "event_types": [name for name in table.columns if name != OTHER],
        "rows": [
            {
                "cause_id": None if cause_id in ("", OTHER) else cause_id,
                "is_other": cause_id == OTHER,
                "deaths": [int(deaths) for deaths in table.loc[cause_id].drop(OTHER)],
                "other_event_types": int(table.loc[cause_id, OTHER]),
            }
            for cause_id in table.index
        ],
    }


def _build_fix(fix: FixFigures) -> dict[str, Any]:
    intervals = [
        asdict(interval) | {"start": _format_time(interval.start)}
        for interval in fix.timeline.intervals
    ]
    return asdict(fix) | {
        "flagged_at": _format_time(fix.flagged_at),
        "closed_at": _format_time(fix.closed_at),
        "timeline": {"seconds": fix.timeline.seconds, "intervals": intervals},
    }


def _format_time(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
