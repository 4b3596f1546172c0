"""What does a program read of the report? The same figures as JSON; `report.schema.json` says what each of them is."""

import json
from datetime import UTC, datetime
from typing import Any

from dlq_pipelines.reports.figures import ALL, OTHER, CauseFigures, FixFigures, ReportFigures
from dlq_pipelines.reports.states import CauseState

REPORT_VERSION = 1


def render_report_json(figures: ReportFigures, headline: str) -> str:
    """The JSON twin. In ASCII: nothing in it is obeyed by a terminal that it is printed to."""
    window = figures.window
    content = {
        "version": REPORT_VERSION,
        "day": window.day.isoformat(),
        "time_zone": window.zone.key,
        "from": _instant(window.start),
        "until": _instant(window.until),
        "headline": headline,
        "totals": _totals(figures),
        "states": {state.value: len(figures.in_state(state)) for state in CauseState},
        "backlog": _backlog(figures),
        "ahead": {
            "archived_within_a_week": figures.ahead.archived,
            "purged_within_a_week": figures.ahead.purged,
        },
        "books": _books(figures),
        "causes": [_cause(cause) for cause in figures.causes],
        "causes_not_listed": {"causes": figures.hidden_causes, "deaths": figures.hidden_deaths},
        "days": [
            {"day": str(day), "deaths": int(deaths)} for day, deaths in figures.days[ALL].items()
        ],
        "hours": [
            {"from": _instant(hour), "label": label, "deaths": int(deaths)}
            for hour, label, deaths in zip(
                *(figures.hours[name] for name in ("hour", "label", "deaths")), strict=True
            )
        ],
        "causes_by_event_type": _matrix(figures),
        "fixes": [_fix(fix) for fix in figures.fixes],
        "fixes_not_listed": figures.fixes_found - len(figures.fixes),
    }
    return json.dumps(content, indent=1) + "\n"


def _totals(figures: ReportFigures) -> dict[str, Any]:
    totals = figures.totals
    return vars(totals) | {
        "classified_share": round(totals.classified, 6),
        "mean_of_14_days_before": round(figures.mean, 3),
        "mean_of_same_weekday": round(figures.weekday_mean, 3),
        "change": None if figures.change is None else round(figures.change, 6),
    }


def _backlog(figures: ReportFigures) -> dict[str, Any]:
    backlog = figures.backlog
    oldest = backlog.oldest
    return vars(backlog) | {
        "oldest": _instant(oldest),
        "oldest_age_seconds": int((figures.window.until - oldest).total_seconds())
        if oldest
        else None,
        "opened": backlog.opened,
        "closed": backlog.closed,
        "unexplained": backlog.unexplained,
    }


def _books(figures: ReportFigures) -> dict[str, Any] | None:
    books = figures.books
    if books is None:
        return None
    return vars(books) | {
        "checked_at": _instant(books.checked_at),
        "examples": list(books.examples),
    }


def _cause(cause: CauseFigures) -> dict[str, Any]:
    fewest, mean, most = cause.attempts
    return vars(cause) | {
        "cause_id": cause.cause_id or None,
        "state": cause.state.value,
        "limit": None if cause.limit is None else round(cause.limit, 3),
        "share": round(cause.share, 6),
        "event_types": [
            {"event_type": name, "deaths": deaths} for name, deaths in cause.event_types
        ],
        "first_seen": _instant(cause.first_seen),
        "last_seen": _instant(cause.last_seen),
        "muted_until": _instant(cause.muted_until),
        "trend": list(cause.trend),
        "attempts": {"fewest": fewest, "mean": round(mean, 3), "most": most},
        "details": [{"detail": name, "errors": errors} for name, errors in cause.details],
        "sample": vars(cause.sample) if cause.sample else None,
    }


def _matrix(figures: ReportFigures) -> dict[str, Any]:
    table = figures.matrix
    return {
        "event_types": [name for name in table.columns if name != OTHER],
        "rows": [
            {
                "cause_id": None if cause in ("", OTHER) else cause,
                "others": cause == OTHER,
                "deaths": [int(value) for value in table.loc[cause].drop(OTHER)],
                "other_event_types": int(table.loc[cause, OTHER]),
            }
            for cause in table.index
        ],
    }


def _fix(fix: FixFigures) -> dict[str, Any]:
    return vars(fix) | {
        "flagged_at": _instant(fix.flagged_at),
        "closed_at": _instant(fix.closed_at),
        "stages": [vars(stage) for stage in fix.stages],
        "evidence": [vars(one) for one in fix.evidence],
    }


def _instant(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
