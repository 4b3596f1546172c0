"""Explains the new, regressed and escalating causes of a day when its report is first built.

The payloads of a day's dead events do not stay: events are delivered, archived and erased. So what
was found is recorded, and a report that is built again shows it.
"""

import json
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import datetime

import psycopg

from dlq_pipelines.causes.explain import COMPARED_EVENTS, CauseExplanation, explain_cause
from dlq_pipelines.errors import RefusedError
from dlq_pipelines.outbox.offers import require_offer
from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.reports.figures import CauseFigures, ExplanationFigures, ReportFigures
from dlq_pipelines.reports.read import read_explanations
from dlq_pipelines.reports.states import URGENT_STATES
from dlq_pipelines.text import sanitize_line

# What is recorded if there was nothing to compare, so that a later build does not compare either.
_NOTHING = ExplanationFigures(
    None, None, dead=0, compared_dead=0, delivered=0, compared_delivered=0
)
# Causes of a report. Comparing 2,000 and 2,000 payloads of 2 kB takes about 0.3 s, so a report
# takes three seconds longer at most.
_MAX_EXPLAINED = 10


def record_explanations(
    connection: Connection, figures: ReportFigures, *, now: datetime
) -> ReportFigures:
    """Explain the causes that need it, record what was found, and return the figures with it.

    The ten most harmful new, regressed and escalating causes of the day are explained once. A cause
    whose events take longer to read than the statement timeout is left out.

    Args:
        connection: in autocommit mode and outside a transaction.
        figures: of the day's report.
        now: the current time.
    """
    try:
        require_offer(connection, "payloads")
    except RefusedError:
        return figures
    window = figures.window
    known = {
        row["cause_id"] for row in connection.run("report.explanations", day=window.day).fetchall()
    }
    urgent = [cause for cause in figures.causes if _is_explained(cause)][:_MAX_EXPLAINED]
    found = []
    for cause in urgent:
        # It was merged into another one meanwhile, or its events take too long to read.
        with suppress(RefusedError, psycopg.errors.QueryCanceled):
            if cause.cause_id not in known:
                explanation = explain_cause(
                    connection,
                    cause.cause_id,
                    died=(window.start, window.until),
                    zone=window.zone,
                    is_hidden=figures.policy.redaction.hides,
                )
                summary = _summarize(explanation) if _is_typical(explanation, cause) else _NOTHING
                found.append({"cause_id": cause.cause_id} | asdict(summary))
    if not found:
        return figures
    connection.run(
        "report.record_explanations", day=window.day, explanations=json.dumps(found), now=now
    )
    recorded = read_explanations(connection, window, figures.policy.redaction)
    return replace(
        figures,
        causes=tuple(
            replace(cause, explanation=recorded.get(cause.cause_id)) for cause in figures.causes
        ),
    )


def _is_explained(cause: CauseFigures) -> bool:
    return bool(cause.cause_id) and cause.is_detailed and cause.state in URGENT_STATES


def _is_typical(explanation: CauseExplanation, cause: CauseFigures) -> bool:
    """Whether at least half of the day's deaths were compared, or as many as ever are.

    After a retry only some are left, such as those of one detail, and what these have in common
    does not explain the others.
    """
    return 2 * explanation.separation.dead >= min(cause.deaths, COMPARED_EVENTS)


def _summarize(explanation: CauseExplanation) -> ExplanationFigures:
    """Return the best condition, made safe to show."""
    separation = explanation.separation
    best = next(iter(separation.findings), None)
    return ExplanationFigures(
        sanitize_line(best.condition, 300) if best else None,
        best.where if best else None,
        dead=best.dead if best else 0,
        compared_dead=separation.dead,
        delivered=best.delivered if best else 0,
        compared_delivered=separation.delivered,
    )
