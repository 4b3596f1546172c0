"""Reads the figures of a day from the ledger, as they were at the end of the day.

All statements run in one snapshot of the database and return sums, never all rows.
"""

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pandas as pd
from psycopg.rows import DictRow

from dlq_pipelines.causes.escalation import (
    compute_escalation_limit,
    is_above_limit,
    is_escalating,
    is_rising,
)
from dlq_pipelines.causes.title import build_title
from dlq_pipelines.deployments import Deployment
from dlq_pipelines.errors import RefusedError
from dlq_pipelines.exports.redact import Redaction
from dlq_pipelines.outbox.payload_filter import list_filter_paths
from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.reports.figures import (
    CAUSES_LISTED,
    DAYS_BEFORE,
    HIDDEN_EXPLANATION,
    MATRIX_CAUSES,
    MATRIX_TYPES,
    OTHER,
    UNCLASSIFIED,
    BacklogFigures,
    CauseFigures,
    DayTotals,
    DetailFigures,
    ErrorSample,
    ExplanationFigures,
    FixEvidence,
    FixFigures,
    HealedFigures,
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
from dlq_pipelines.reports.states import CauseHistory, CauseState, decide_cause_state
from dlq_pipelines.reports.wording import format_cause_label, format_utc, summarize_error
from dlq_pipelines.retries.fixes import build_fix
from dlq_pipelines.retries.timeline import FixTimeline, read_fix_timelines
from dlq_pipelines.text import sanitize_line, sanitize_text
from dlq_pipelines.validate import parse_event_id

_MAX_EVENT_TYPES = 12
_MAX_FIXES = 50
# Details of a cause with most deaths, and all that are shown with the new and regressed ones.
_FREQUENT_DETAILS, _MAX_DETAILS = 5, 20
# A long error is read with this many characters at each end, and shown with fewer. Of a cut error,
# the margin at the cut is never shown: it may be half of a secret that redaction cannot recognize.
_READ_CHARACTERS, _SHOWN_CHARACTERS, _CUT_MARGIN = 5_000, 1_500, 1_000
_CUT = "\n[...]\n"
_WEEK = timedelta(days=7)


def read_report_figures(
    connection: Connection, window: ReportWindow, *, policy: ReportPolicy, now: datetime
) -> ReportFigures:
    """Read the figures of a day.

    Args:
        connection: in autocommit mode and outside a transaction: the snapshot is one of its own.
        window: the day, which must be over.
        policy: the settings of the installation.
        now: the current time.

    Raises:
        RefusedError: the day is not over, or the ledger has deleted deaths of the day.
    """
    if now < window.until:
        raise RefusedError(
            f"{window.day} is not over yet: it can be reported after {format_utc(window.until)}.",
            "`dlq causes list` shows what is dead now.",
        )
    with connection.snapshot():
        connection.run("report.memory")
        return _FiguresReader(connection, window, policy).read()


def read_explanations(
    connection: Connection, window: ReportWindow, redaction: Redaction
) -> dict[str, ExplanationFigures]:
    """Return what sets the events of causes apart, by cause, as recorded for the day.

    A condition on a path that the redaction hides now is left out: it may be recorded earlier.
    """
    rows = connection.run("report.explanations", day=window.day)
    found = {row.pop("cause_id"): ExplanationFigures(**row) for row in rows}
    return {
        cause: HIDDEN_EXPLANATION if _is_explanation_hidden(explanation, redaction) else explanation
        for cause, explanation in found.items()
    }


def _is_explanation_hidden(explanation: ExplanationFigures, redaction: Redaction) -> bool:
    """Return whether an explanation names a hidden path, or one that cannot be read for certain."""
    condition = explanation.condition or ""
    if not redaction.rules or not (explanation.where or condition.startswith("$")):
        return False
    # A condition without a filter is about one path. The space in a quoted name of it may differ.
    path = explanation.where or condition.partition(" has ")[0]
    if explanation.where is None and '"' in path:
        return True
    try:
        return any(redaction.hides(steps) for steps in list_filter_paths(path))
    except ValueError:
        return True


@dataclass(frozen=True)
class _CauseEntry:
    """A cause of the day with its counts, its row of the catalogue and its state."""

    counts: DictRow
    catalogue: DictRow | None
    trend: list[int]
    history: CauseHistory
    state: CauseState
    escalation_limit: float | None = None
    above_limit: bool = False
    rising: bool = False


@dataclass(frozen=True)
class _CauseEvidence:
    """What the errors and payloads of a cause say."""

    details: tuple[DetailFigures, ...]
    sample: ErrorSample | None
    explanation: ExplanationFigures | None


class _FiguresReader:
    """Reads the figures of a day in the transaction of its connection."""

    def __init__(self, connection: Connection, window: ReportWindow, policy: ReportPolicy) -> None:
        self._connection, self._window, self._policy = connection, window, policy
        self._span = {"start": window.start, "until": window.until}

    def read(self) -> ReportFigures:
        """Read all figures."""
        self._require_complete_ledger()
        window = self._window
        rows = self._count_causes()
        totals = self._read_totals(rows)
        days = self._read_days(rows, totals)
        causes = self._read_causes(rows, days, totals)
        fix_rows = self._connection.run("report.fixes", limit=_MAX_FIXES, **self._span).fetchall()
        retention = timedelta(days=self._policy.dead_retention_days)
        dead = self._connection.fetch_one(
            "report.dead_events",
            at=window.until,
            archive_before=min(window.until, window.until + _WEEK - retention),
        )
        first_day = self._connection.fetch_one(
            "report.first_recorded_day", day=window.day, zone=window.zone.key
        )
        return ReportFigures(
            window=window,
            policy=self._policy,
            totals=totals,
            causes=causes,
            days=days,
            hours=self._read_hours(),
            matrix=self._read_matrix(list(causes[:MATRIX_CAUSES]), totals.deaths),
            backlog=self._read_backlog(dead, totals.deaths),
            upcoming=UpcomingFigures(dead["archived_soon"], self._count_purged_soon()),
            fixes=self._read_fixes(fix_rows),
            fixes_found=fix_rows[0]["found"] if fix_rows else 0,
            healed=self._read_healed(),
            reconciliation=self._read_reconciliation(),
            first_recorded_day=first_day["day"],
            recorded_since=first_day["recorded_since"],
        )

    def _require_complete_ledger(self) -> None:
        day = self._window.day
        row = self._connection.fetch_one("report.is_incomplete", day=day, **self._span)
        if row["is_incomplete"]:
            raise RefusedError(
                f"The ledger has deleted deaths of {day}: they are past DLQ_LEDGER_RETENTION_DAYS.",
                "Keep the report that exists; another one would be incomplete.",
            )

    def _count_causes(self) -> list[DictRow]:
        """Return the counts of each cause by harm.

        An aggregate that several merged causes affected is counted once.
        """
        rows = self._connection.run(
            "report.causes", limit=CAUSES_LISTED, types=_MAX_EVENT_TYPES, **self._span
        ).fetchall()
        members = [member for row in rows if len(row["members"]) > 1 for member in row["members"]]
        if members:
            counted = self._connection.run(
                "report.merged_aggregates", members=members, **self._span
            )
            aggregates = {row["cause_id"]: row["aggregates"] for row in counted}
            for row in rows:
                row["aggregates"] = aggregates.get(row["cause_id"], row["aggregates"])
        return rows

    def _read_totals(self, rows: list[DictRow]) -> DayTotals:
        if not rows:
            return DayTotals(deaths=0, events=0, unclassified=0, causes=0)
        return DayTotals(
            deaths=rows[0]["deaths_found"],
            events=self._connection.fetch_one("report.events", **self._span)["events"],
            unclassified=sum(row["deaths"] for row in rows if row["cause_id"] is None),
            causes=rows[0]["causes_found"],
        )

    def _read_days(self, rows: list[DictRow], totals: DayTotals) -> pd.DataFrame:
        """Count deaths by day and cause: earlier days from the rollup, the day from its causes."""
        window, days = self._window, self._window.days
        causes = _list_ids(rows)
        rollup = self._connection.run(
            "report.days", causes=causes, first=days[0], day=window.day
        ).fetchall()
        unclassified = self._connection.run(
            "report.days_unclassified", bounds=window.day_bounds, start=window.start
        ).fetchall()
        today = {row["cause_id"] or UNCLASSIFIED: row["deaths"] for row in rows}
        today[OTHER] = totals.deaths - sum(today.values())
        counts = [(row["day"], row["cause_id"] or OTHER, row["deaths"]) for row in rollup]
        counts += [(days[row["position"]], UNCLASSIFIED, row["deaths"]) for row in unclassified]
        counts += [(window.day, cause, deaths) for cause, deaths in today.items()]
        return group_deaths_by_day(
            [{"day": day, "cause_id": cause, "deaths": deaths} for day, cause, deaths in counts],
            window,
            causes=causes,
        )

    def _read_hours(self) -> pd.DataFrame:
        rows = self._connection.run("report.hours", bounds=self._window.hours, **self._span)
        return group_deaths_by_hour(rows.fetchall(), self._window)

    def _read_causes(
        self, rows: list[DictRow], days: pd.DataFrame, totals: DayTotals
    ) -> tuple[CauseFigures, ...]:
        """Return the causes by harm, muted ones last."""
        catalogue = self._read_catalogue(_list_ids(rows))
        entries = [
            self._classify(
                row,
                catalogue.get(row["cause_id"]),
                days[row["cause_id"] or UNCLASSIFIED].tolist(),
            )
            for row in rows
        ]
        entries.sort(
            key=lambda entry: (
                entry.state is CauseState.MUTED,
                -entry.counts["aggregates"],
                -entry.counts["deaths"],
            )
        )
        detailed = select_detailed_causes([entry.state for entry in entries])
        details = self._read_details({entry.counts["cause_id"]: entry for entry in entries})
        samples = self._read_samples(
            [
                entry.counts["cause_id"]
                for entry, is_detailed in zip(entries, detailed, strict=True)
                if is_detailed and entry.counts["cause_id"] is not None
            ]
        )
        explanations = read_explanations(self._connection, self._window, self._policy.redaction)
        return tuple(
            _build_cause(
                rank,
                entry,
                _CauseEvidence(
                    details.get(entry.counts["cause_id"], ()),
                    samples.get(entry.counts["cause_id"]),
                    explanations.get(entry.counts["cause_id"]),
                ),
                is_detailed=is_detailed,
                deaths_of_day=totals.deaths,
                start=self._window.start,
            )
            for rank, (entry, is_detailed) in enumerate(
                zip(entries, detailed, strict=True), start=1
            )
        )

    def _read_catalogue(self, ids: list[str]) -> dict[str, DictRow]:
        """Return the catalogue's rows of the causes by their ids, with redacted templates.

        Owner, note and mute are as they were at the end of the day.
        """
        until = self._window.until
        rows = self._connection.run("report.catalogue", causes=ids, until=until).fetchall()
        templates = self._policy.redaction.redact_errors([row["template"] for row in rows])
        catalogue = {
            row["cause_id"]: row | {"template": template}
            for row, template in zip(rows, templates, strict=True)
        }
        for change in self._connection.run("report.later_changes", causes=ids, until=until):
            catalogue[change["cause_id"]][change["key"]] = change["value"]
        return catalogue

    def _classify(
        self, counts: DictRow, catalogue: DictRow | None, trend: list[int]
    ) -> _CauseEntry:
        """Decide the state of a cause by its history and its deaths on the days before."""
        if catalogue is None:
            history = CauseHistory(first_seen=counts["first_seen"])
            return _CauseEntry(counts, None, trend, history, CauseState.UNCLASSIFIED)
        muted_until = catalogue["muted_until"]
        if isinstance(muted_until, str):  # from the audit log's JSON
            muted_until = datetime.fromisoformat(muted_until)
        history = CauseHistory(
            first_seen=catalogue["first_seen"],
            muted_until=muted_until,
            fixing=catalogue["fixing"],
            fixed=catalogue["fixed"],
            regressed=catalogue["regressed"],
        )
        age = (self._window.day - history.first_seen.astimezone(self._window.zone).date()).days
        before = trend[:-1][max(DAYS_BEFORE - age, 0) :] if age > 0 else []
        state = decide_cause_state(
            history,
            start=self._window.start,
            until=self._window.until,
            escalating=is_escalating(counts["deaths"], before),
        )
        return _CauseEntry(
            counts,
            catalogue,
            trend,
            history,
            state,
            compute_escalation_limit(before) if before else None,
            is_above_limit(counts["deaths"], before),
            is_rising([*before, counts["deaths"]]),
        )

    def _read_matrix(self, causes: list[CauseFigures], deaths: int) -> pd.DataFrame:
        ids = [cause.cause_id for cause in causes]
        rows = self._connection.run(
            "report.types", causes=ids, limit=MATRIX_TYPES, **self._span
        ).fetchall()
        shown = [row | {"event_type": sanitize_line(row["event_type"], 80)} for row in rows]
        return group_deaths_by_type(shown, causes, deaths)

    def _read_details(
        self, entries: dict[str | None, _CauseEntry]
    ) -> dict[str, tuple[DetailFigures, ...]]:
        """Return the redacted details of each cause, those with most deaths first."""
        rows = self._connection.run(
            "report.details",
            causes=[cause for cause in entries if cause is not None],
            limit=_FREQUENT_DETAILS,
            **self._span,
        ).fetchall()
        names = self._policy.redaction.redact_errors([row["detail"] for row in rows])
        details: defaultdict[str, list[DetailFigures]] = defaultdict(list)
        for row, name in zip(rows, names, strict=True):
            state = self._decide_detail_state(row, entries[row["cause_id"]].history)
            details[row["cause_id"]].append(
                DetailFigures(sanitize_line(name, 120), row["deaths"], state)
            )
        return {cause: tuple(found[:_MAX_DETAILS]) for cause, found in details.items()}

    def _decide_detail_state(self, row: DictRow, cause: CauseHistory) -> CauseState:
        is_old_enough = cause.first_seen < self._window.start
        history = CauseHistory(
            first_seen=row["first_seen"] if is_old_enough else cause.first_seen,
            muted_until=cause.muted_until,
            fixing=row["fixing"] or cause.fixing,
            fixed=row["fixed"],
            regressed=row["regressed"],
        )
        state = decide_cause_state(
            history, start=self._window.start, until=self._window.until, escalating=False
        )
        # Everything about a new cause is new.
        return CauseState.ONGOING if state is CauseState.NEW and not is_old_enough else state

    def _read_samples(self, causes: list[str]) -> dict[str | None, ErrorSample]:
        """Return the last error of each cause, and of the deaths without a cause, redacted."""
        rows = self._connection.run(
            "report.samples",
            causes=causes,
            half=_READ_CHARACTERS,
            **self._span,
        ).fetchall()
        texts = self._policy.redaction.redact_errors([row["error"] or "" for row in rows])
        return {
            row["cause_id"]: _build_sample(row, text)
            for row, text in zip(rows, texts, strict=True)
            if text
        }

    def _read_backlog(self, dead: DictRow, died: int) -> BacklogFigures:
        start, until = self._window.start, self._window.until
        fetch_one = self._connection.fetch_one
        moves = fetch_one("report.archive_moves", **self._span)
        retries = fetch_one("report.retries", **self._span)
        parked = fetch_one("report.parked", at=until, max_retries=self._policy.max_retries)
        return BacklogFigures(
            dead_at_start=fetch_one("report.dead_events", at=start, archive_before=start)["events"],
            dead_at_end=dead["events"],
            oldest=dead["oldest"],
            parked=parked["events"],
            died=died,
            **moves,
            **retries,
        )

    def _count_purged_soon(self) -> int | None:
        """Count archived events that pass their retention within a week; None: never purged."""
        until, days = self._window.until, self._policy.archive_retention_days
        if not days:
            return None
        before = min(until, until + _WEEK - timedelta(days=days))
        row = self._connection.fetch_one("report.purged_soon", at=until, purge_before=before)
        return int(row["events"])

    def _read_fixes(self, rows: list[DictRow]) -> tuple[FixFigures, ...]:
        if not rows:
            return ()
        stages: dict[int, list[StageFigures]] = {row["id"]: [] for row in rows}
        for row in self._connection.run(
            "report.stages",
            fixes=list(stages),
            since=min(row["flagged_at"] for row in rows),
            until=self._window.until,
        ):
            stages[row.pop("fix_id")].append(StageFigures(**row))
        timelines = read_fix_timelines(self._connection, list(stages), until=self._window.until)
        return tuple(self._build_fix(row, stages[row["id"]], timelines[row["id"]]) for row in rows)

    def _build_fix(
        self, row: DictRow, stages: list[StageFigures], timeline: FixTimeline
    ) -> FixFigures:
        """Build a fix as it was at the end of the day, without its later end."""
        fix, ended = build_fix(row), bool(row["ended"])
        status = "paused" if row["was_paused"] else "active"
        return FixFigures(
            id=fix.id,
            cause_id=fix.selection.cause,
            detail=_sanitize_optional(fix.selection.detail, 200),
            status=str(fix.status) if ended else status,
            ended=ended,
            selection=sanitize_line(str(fix.selection), 200),
            note=sanitize_line(fix.note, 300),
            link=_sanitize_optional(fix.link, 300),
            deployment=_sanitize_optional(row["carrier"], 200),
            owner=_sanitize_optional(fix.owner, 100),
            flagged_by=sanitize_line(fix.flagged_by, 100),
            flagged_at=fix.flagged_at,
            closed_at=fix.closed_at if ended else None,
            verdict=_sanitize_optional(fix.verdict, 300) if ended else None,
            stages=tuple(stages),
            timeline=timeline,
            evidence=self._build_evidence(fix.evidence) if ended else (),
        )

    def _build_evidence(self, evidence: tuple[dict[str, Any], ...]) -> tuple[FixEvidence, ...]:
        pairs = []
        for item in evidence:
            before, after = self._policy.redaction.redact_errors([item["before"], item["after"]])
            pairs.append(
                FixEvidence(item["events"], summarize_error(before), summarize_error(after))
            )
        return tuple(pairs)

    def _read_healed(self) -> HealedFigures | None:
        row = self._connection.fetch_one("report.healed", **self._span)
        healed = HealedFigures(row["events"], tuple(row["causes"]))
        return healed if healed.events or healed.causes else None

    def _read_reconciliation(self) -> ReconciliationFigures | None:
        row = self._connection.run("report.reconciliation", until=self._window.until).fetchone()
        if row is None:
            return None
        return ReconciliationFigures(
            **row | {"event_ids": tuple(map(parse_event_id, row["event_ids"]))}
        )


def _list_ids(rows: list[DictRow]) -> list[str]:
    return [row["cause_id"] for row in rows if row["cause_id"] is not None]


def _build_cause(
    rank: int,
    entry: _CauseEntry,
    evidence: _CauseEvidence,
    *,
    is_detailed: bool,
    deaths_of_day: int,
    start: datetime,
) -> CauseFigures:
    counts, known = entry.counts, entry.catalogue or {}
    exception_type = sanitize_line(known.get("exception_type", ""), 120)
    template = sanitize_line(known.get("template", ""), 300)
    counted = [(detail.detail, detail.deaths) for detail in evidence.details]
    message = build_title("", template, counted, deaths=counts["deaths"])
    label = format_cause_label(exception_type, message) if known else "not classified yet"
    types = zip(counts["event_types"], counts["type_deaths"], strict=True)
    return CauseFigures(
        rank=rank,
        cause_id=counts["cause_id"] or UNCLASSIFIED,
        title=_sanitize_optional(known.get("name"), 120) or label,
        exception_type=exception_type,
        template=template,
        state=entry.state,
        above_limit=entry.above_limit,
        rising=entry.rising,
        escalation_limit=entry.escalation_limit,
        deaths=counts["deaths"],
        share=counts["deaths"] / deaths_of_day,
        aggregates=counts["aggregates"],
        aggregate_type=_sanitize_optional(counts["aggregate_type"], 80),
        event_types=tuple((sanitize_line(name, 80), deaths) for name, deaths in types),
        event_type_count=counts["event_type_count"],
        first_seen=entry.history.first_seen,
        last_seen=counts["last_seen"],
        trend=tuple(entry.trend),
        attempts=(counts["fewest"], counts["attempts"] / counts["deaths"], counts["most"]),
        beginning=_describe_beginning(entry, start),
        explanation=evidence.explanation,
        owner=_sanitize_optional(known.get("owner"), 100),
        note=_sanitize_optional(known.get("note"), 500),
        muted_until=entry.history.muted_until,
        details=evidence.details,
        sample=evidence.sample,
        is_detailed=is_detailed,
    )


def _describe_beginning(entry: _CauseEntry, start: datetime) -> str:
    """Of a cause of the day, whatever its state: a fix may be flagged already."""
    if entry.catalogue is None or entry.history.first_seen < start:
        return ""
    found = Deployment.from_json(entry.catalogue["deployment"])
    return found.describe_delay(entry.history.first_seen) if found else ""


def _sanitize_optional(text: str | None, limit: int) -> str | None:
    return sanitize_line(text, limit) if text else None


def _build_sample(row: DictRow, text: str) -> ErrorSample:
    characters = row["characters"] or 0
    shown = _shorten_error(text, was_cut=characters > 2 * _READ_CHARACTERS)
    return ErrorSample(row["event_id"], summarize_error(text), shown, characters)


def _shorten_error(text: str, *, was_cut: bool) -> str:
    """Return the beginning and the end of a long error: either may name the failure."""
    if not was_cut and len(text) <= 2 * _SHOWN_CHARACTERS:
        return sanitize_text(text)
    head, _, tail = text.partition(_CUT) if was_cut else (text, "", text)
    margin = _CUT_MARGIN if was_cut else 0
    first = head[: min(_SHOWN_CHARACTERS, max(len(head) - margin, 0))]
    last = tail[max(len(tail) - _SHOWN_CHARACTERS, margin) :]
    return sanitize_text(f"{first}{_CUT}{last}")
