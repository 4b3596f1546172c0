"""What does the ledger say of a day, as it was when the day ended?

`read_figures` asks for sums, never for all rows, in one snapshot of the database.
"""

from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pandas as pd
from psycopg.rows import DictRow

from dlq_pipelines.causes.fingerprint import compute_fingerprint
from dlq_pipelines.causes.parse import parse_error
from dlq_pipelines.errors import RefusedError
from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.reports.figures import (
    CAUSES_LISTED,
    DAYS_BEFORE,
    MATRIX_CAUSES,
    MATRIX_TYPES,
    OTHER,
    UNCLASSIFIED,
    BacklogFigures,
    CauseFigures,
    DayTotals,
    ErrorSample,
    FixEvidence,
    FixFigures,
    ReconciliationFigures,
    ReportFigures,
    ReportPolicy,
    ReportWindow,
    StageFigures,
    UpcomingFigures,
    group_deaths_by_day,
    group_deaths_by_hour,
    group_deaths_by_type,
    select_detailed_causes,
)
from dlq_pipelines.reports.states import (
    CauseHistory,
    CauseState,
    compute_escalation_limit,
    decide_cause_state,
    is_escalating,
)
from dlq_pipelines.retries.fixes import build_fix
from dlq_pipelines.text import sanitize_line, sanitize_text

# Of each event type list, of the latest errors that are read for details, of fixes.
_TYPES, _ERRORS, _FIXES = 12, 40, 50
# An error is read with that many characters at each end and shown with fewer: what the cut left of a secret is not.
_READ_HALF, _SHOWN_HALF, _MARGIN = 5_000, 1_500, 1_000
_CUT = "\n[...]\n"
_WEEK = timedelta(days=7)


def read_report_figures(
    connection: Connection, window: ReportWindow, *, policy: ReportPolicy, now: datetime
) -> ReportFigures:
    """Read the day's figures.

    Args:
        connection: in autocommit mode and outside a transaction: the snapshot is a transaction of its own.
        window: the day, which must be over.
        policy: what the installation decides.
        now: the moment.

    Raises:
        RefusedError: the day is not over, or the ledger has forgotten some of its deaths.
    """
    if now < window.until:
        raise RefusedError(
            f"{window.day} is not over yet: it can be reported after {window.until:%Y-%m-%d %H:%M} UTC. "
            "`dlq causes list` shows what is dead now."
        )
    with connection.transaction():
        connection.run("report.snapshot")
        connection.run("report.memory")
        return _Reading(connection, window, policy).figures()


class _Reading:
    """One snapshot's answers about a day."""

    def __init__(self, connection: Connection, window: ReportWindow, policy: ReportPolicy) -> None:
        self._connection, self._window, self._policy = connection, window, policy
        self._span = {"start": window.start, "until": window.until}

    def figures(self) -> ReportFigures:
        """All of them."""
        self._require_remembered()
        rows = self._causes()
        totals = self._totals(rows)
        ids = [row["cause_id"] for row in rows if row["cause_id"] is not None]
        days = group_deaths_by_day(self._days(rows, totals, ids), self._window, causes=ids)
        causes = self._ranked(
            rows, {name: days[name].tolist() for name in (*ids, UNCLASSIFIED)}, totals
        )
        fixes = self._connection.run("report.fixes", limit=_FIXES, **self._span).fetchall()
        retained = timedelta(days=self._policy.dead_retention_days)
        soon = min(self._window.until, self._window.until + _WEEK - retained)
        still = self._connection.fetch_one(
            "report.open", at=self._window.until, archive_before=soon
        )
        hours = self._connection.run(
            "report.hours", bounds=self._window.hours, **self._span
        ).fetchall()
        return ReportFigures(
            window=self._window,
            policy=self._policy,
            totals=totals,
            causes=causes,
            days=days,
            hours=group_deaths_by_hour(hours, self._window),
            matrix=self._matrix(list(causes[:MATRIX_CAUSES]), totals.deaths),
            backlog=self._backlog(still, totals.deaths),
            ahead=self._ahead(still["archived_soon"]),
            fixes=self._fixes(fixes),
            fixes_found=fixes[0]["found"] if fixes else 0,
            books=self._books(),
            ledger_begin=self._connection.fetch_one("report.ledger_begin", day=self._window.day)[
                "day"
            ],
        )

    def _require_remembered(self) -> None:
        if self._connection.fetch_one("report.forgotten", day=self._window.day, **self._span)[
            "forgotten"
        ]:
            raise RefusedError(
                f"The ledger has forgotten deaths of {self._window.day}, which is past DLQ_LEDGER_RETENTION_DAYS: "
                "another report would say less. Keep the one that there is."
            )

    def _causes(self) -> list[DictRow]:
        """The day's causes by harm, with the distinct aggregates of merged ones counted together."""
        rows = self._connection.run(
            "report.causes", limit=CAUSES_LISTED, types=_TYPES, **self._span
        ).fetchall()
        merged = [one for row in rows if len(row["members"]) > 1 for one in row["members"]]
        if merged:
            counted = self._connection.run("report.merged_aggregates", members=merged, **self._span)
            aggregates = {row["cause_id"]: row["aggregates"] for row in counted}
            for row in rows:
                row["aggregates"] = aggregates.get(row["cause_id"], row["aggregates"])
        return rows

    def _totals(self, rows: list[DictRow]) -> DayTotals:
        if not rows:
            return DayTotals(0, 0, 0, 0)
        events = self._connection.fetch_one("report.events", **self._span)["events"]
        unclassified = sum(row["deaths"] for row in rows if row["cause_id"] is None)
        return DayTotals(rows[0]["deaths_found"], events, unclassified, rows[0]["causes_found"])

    def _days(self, rows: list[DictRow], totals: DayTotals, ids: list[str]) -> list[dict[str, Any]]:
        """Deaths by day and cause: the day itself from its causes, those before from the rollup."""
        window, days = self._window, self._window.days
        before = self._connection.run(
            "report.days", causes=ids, first=days[0], day=window.day
        ).fetchall()
        waiting = self._connection.run(
            "report.days_unclassified", bounds=window.day_bounds, start=window.start
        )
        today = {row["cause_id"] or UNCLASSIFIED: row["deaths"] for row in rows}
        today[OTHER] = totals.deaths - sum(today.values())
        return [
            *({**row, "cause_id": row["cause_id"] or OTHER} for row in before),
            *(
                {"day": days[row["position"]], "cause_id": UNCLASSIFIED, "deaths": row["deaths"]}
                for row in waiting
            ),
            *(
                {"day": window.day, "cause_id": cause, "deaths": deaths}
                for cause, deaths in today.items()
            ),
        ]

    def _ranked(
        self, rows: list[DictRow], trends: dict[str, list[int]], totals: DayTotals
    ) -> tuple[CauseFigures, ...]:
        """The causes by harm, what people muted last, those that are told in full with their errors."""
        known = self._described([row["cause_id"] for row in rows if row["cause_id"] is not None])
        judged = [
            self._judged(row, known.get(row["cause_id"]), trends[row["cause_id"] or UNCLASSIFIED])
            for row in rows
        ]
        judged.sort(
            key=lambda one: (
                one.state is CauseState.MUTED,
                -one.row["aggregates"],
                -one.row["deaths"],
            )
        )
        full = select_detailed_causes([one.state for one in judged])
        errors = self._errors(
            [one.row["cause_id"] for one, whole in zip(judged, full, strict=True) if whole]
        )
        return tuple(
            CauseFigures(
                rank=rank,
                state=one.state,
                limit=one.limit,
                escalating=one.escalating,
                share=one.row["deaths"] / totals.deaths,
                trend=tuple(one.trend),
                in_full=whole,
                **_counted(one.row),
                **one.said,
                **errors.get(one.row["cause_id"], {}),
            )
            for rank, (one, whole) in enumerate(zip(judged, full, strict=True), start=1)
        )

    def _described(self, ids: list[str]) -> dict[str, DictRow]:
        """What is known of the causes; owner, note and mute as they were at the day's end, templates redacted."""
        asked = {"causes": ids, "until": self._window.until}
        rows = self._connection.run("report.described", **asked).fetchall()
        templates = self._policy.redaction.redact_errors([row["template"] for row in rows])
        found = {
            row["cause_id"]: row | {"template": shown}
            for row, shown in zip(rows, templates, strict=True)
        }
        for change in self._connection.run("report.said_since", **asked):
            found[change["cause_id"]][change["key"]] = change["value"]
        return found

    def _judged(self, row: DictRow, known: DictRow | None, trend: list[int]) -> "_Judged":
        """Which state the cause was in, by how many deaths on which days."""
        if known is None:
            said = _NOT_CLASSIFIED | {"first_seen": row["first"]}
            return _Judged(row, trend, CauseState.UNCLASSIFIED, None, escalating=False, said=said)
        muted = known["muted_until"]
        seen = CauseHistory(
            first_seen=known["first_seen"],
            muted_until=datetime.fromisoformat(muted) if isinstance(muted, str) else muted,
            **{name: known[name] for name in ("fixing", "fixed", "regressed")},
        )
        age = (self._window.day - seen.first_seen.astimezone(self._window.zone).date()).days
        before = trend[:-1][max(DAYS_BEFORE - age, 0) :] if age > 0 else []
        worse = is_escalating(row["deaths"], before)
        word = decide_cause_state(
            seen, start=self._window.start, until=self._window.until, escalating=worse
        )
        return _Judged(
            row,
            trend,
            word,
            compute_escalation_limit(before) if before else None,
            worse,
            said=_said(known, seen),
        )

    def _matrix(self, causes: list[CauseFigures], deaths: int) -> pd.DataFrame:
        ids = [cause.cause_id for cause in causes]
        rows = self._connection.run(
            "report.types", causes=ids, limit=MATRIX_TYPES, **self._span
        ).fetchall()
        named = [row | {"event_type": sanitize_line(row["event_type"], 80)} for row in rows]
        return group_deaths_by_type(named, causes, deaths)

    def _errors(self, causes: list[str | None]) -> dict[str | None, dict[str, Any]]:
        """Of each cause a sample, and the names in its last errors, all redacted before anything is read from them."""
        ids = [cause for cause in causes if cause is not None]
        rows = self._connection.run(
            "report.samples", causes=ids, half=_READ_HALF, limit=_ERRORS, **self._span
        ).fetchall()
        texts = self._policy.redaction.redact_errors([row["error"] or "" for row in rows])
        found: dict[str | None, list[tuple[DictRow, str]]] = {}
        for row, text in zip(rows, texts, strict=True):
            found.setdefault(row["cause_id"], []).append((row, text))
        return {cause: _told_by(errors) for cause, errors in found.items()}

    def _backlog(self, still: DictRow, died: int) -> BacklogFigures:
        start, until = self._window.start, self._window.until
        ask, most = self._connection.fetch_one, self._policy.max_retries
        return BacklogFigures(
            before=ask("report.open", at=start, archive_before=start)["events"],
            open=still["events"],
            oldest=still["oldest"],
            parked=ask("report.parked", at=until, max_retries=most)["events"],
            died=died,
            **ask("report.moved", **self._span),
            **ask("report.retries", **self._span),
        )

    def _ahead(self, archived: int) -> UpcomingFigures:
        """What the retentions take within a week after the day."""
        until, days = self._window.until, self._policy.archive_retention_days
        if not days:
            return UpcomingFigures(archived, None)
        soon = min(until, until + _WEEK - timedelta(days=days))
        return UpcomingFigures(
            archived,
            self._connection.fetch_one("report.purged_soon", at=until, purge_before=soon)["events"],
        )

    def _fixes(self, rows: list[DictRow]) -> tuple[FixFigures, ...]:
        if not rows:
            return ()
        stages: dict[int, list[StageFigures]] = {row["id"]: [] for row in rows}
        asked = {
            "fixes": list(stages),
            "since": min(row["flagged_at"] for row in rows),
            "until": self._window.until,
        }
        for row in self._connection.run("report.stages", **asked):
            stages[row.pop("fix_id")].append(StageFigures(**row))
        return tuple(self._fix(row, stages[row["id"]]) for row in rows)

    def _fix(self, row: DictRow, stages: list[StageFigures]) -> FixFigures:
        """The fix as it was: what came of it later is left out."""
        fix, ended = build_fix(row), bool(row["ended"])
        pairs = [
            (one["events"], *self._policy.redaction.redact_errors([one["before"], one["after"]]))
            for one in fix.evidence
        ]
        return FixFigures(
            id=fix.id,
            cause_id=fix.selection.cause,
            status=str(fix.status) if ended else "paused" if row["was_paused"] else "active",
            ended=ended,
            targets=sanitize_line(str(fix.selection), 200),
            note=sanitize_line(fix.note, 300),
            link=sanitize_line(fix.link, 300) if fix.link else None,
            owner=sanitize_line(fix.owner, 100) if fix.owner else None,
            flagged_by=sanitize_line(fix.flagged_by, 100),
            flagged_at=fix.flagged_at,
            closed_at=fix.closed_at if ended else None,
            verdict=sanitize_line(fix.verdict, 300) if ended and fix.verdict else None,
            stages=tuple(stages),
            evidence=tuple(
                FixEvidence(n, summarize_error(before), summarize_error(after))
                for n, before, after in pairs
            )
            if ended
            else (),
        )

    def _books(self) -> ReconciliationFigures | None:
        row = self._connection.run("report.books", until=self._window.until).fetchone()
        return ReconciliationFigures(**row | {"examples": tuple(row["examples"])}) if row else None


@dataclass(frozen=True)
class _Judged:
    """A row of the day with what was made of it."""

    row: DictRow
    trend: list[int]
    state: CauseState
    limit: float | None
    escalating: bool
    said: dict[str, Any]


_NOT_CLASSIFIED = {"title": "not classified yet", "exception_type": "", "template": ""}


def _said(known: DictRow, seen: CauseHistory) -> dict[str, Any]:
    """What is shown of a cause in words."""
    exception, template = (
        sanitize_line(known["exception_type"], 120),
        sanitize_line(known["template"], 300),
    )
    return {
        "title": sanitize_line(known["name"], 120)
        if known["name"]
        else format_cause_label(exception, template),
        "exception_type": exception,
        "template": template,
        "owner": sanitize_line(known["owner"], 100) if known["owner"] else None,
        "note": sanitize_line(known["note"], 500) if known["note"] else None,
        "muted_until": seen.muted_until,
        "first_seen": seen.first_seen,
    }


def _counted(row: DictRow) -> dict[str, Any]:
    """The figures of a cause."""
    types = zip(row["event_types"], row["type_deaths"], strict=True)
    return {
        "cause_id": row["cause_id"] or UNCLASSIFIED,
        "deaths": row["deaths"],
        "aggregates": row["aggregates"],
        "event_types": tuple((sanitize_line(name, 80), deaths) for name, deaths in types),
        "kinds": row["kinds"],
        "last_seen": row["last"],
        "attempts": (row["fewest"], row["attempts"] / row["deaths"], row["most"]),
    }


def _told_by(errors: list[tuple[DictRow, str]]) -> dict[str, Any]:
    """What the last errors of a cause say: the last one as a sample, and the names that they have in common."""
    names = Counter(compute_fingerprint(text).detail for _, text in errors if text)
    names.pop("", None)
    details = sorted(names.items(), key=lambda one: (-one[1], one[0]))[:5]
    row, text = errors[0]
    characters = row["characters"] or 0
    shown = _both_ends(text, was_cut=characters > 2 * _READ_HALF)
    sample = (
        ErrorSample(row["event_id"], summarize_error(text), shown, characters) if text else None
    )
    return {
        "details": tuple((sanitize_line(name, 120), count) for name, count in details),
        "details_of": len(errors),
        "sample": sample,
    }


def _both_ends(text: str, *, was_cut: bool) -> str:
    """Enough of an error to see what failed: some tools say it at the beginning, some at the end.

    Of one that was cut when it was read, nothing that stood close to the cut.
    """
    if not was_cut and len(text) <= 2 * _SHOWN_HALF:
        return sanitize_text(text)
    head, _, tail = text.partition(_CUT) if was_cut else (text, "", text)
    margin = _MARGIN if was_cut else 0
    first = head[: min(_SHOWN_HALF, max(len(head) - margin, 0))]
    last = tail[max(len(tail) - _SHOWN_HALF, margin) :]
    return sanitize_text(f"{first}{_CUT}{last}")


def summarize_error(error: str) -> str:
    """Exception and message of an error in one line."""
    failure = parse_error(error)
    return format_cause_label(
        sanitize_line(failure.exception_type, 120), sanitize_line(failure.message, 300), limit=300
    )


def format_cause_label(exception: str, message: str, *, limit: int = 160) -> str:
    """A cause in one line, `TimeoutError: no answer in <n> s`; the type is not said twice."""
    said = message.startswith(exception) or not message
    return sanitize_line((message or exception) if said else f"{exception}: {message}", limit)
