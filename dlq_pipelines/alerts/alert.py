"""Which alerts fire, what is to be told of them, and when is one over?

What rules find is compared with `dlq.alert` in one transaction, which writes the new state and what is to be told: a
row for each notice and channel. So a notice is never lost and never decided twice, whoever dies when. Sending is
another matter, in `delivery.py`.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from dlq_pipelines.alerts.figures import read_alert_figures
from dlq_pipelines.alerts.routes import Route, select_channels
from dlq_pipelines.alerts.rules import Finding, Severity, Thresholds, evaluate_rules
from dlq_pipelines.audit import AuditContext, RunOptions, record_audit_entry
from dlq_pipelines.errors import NotFoundError
from dlq_pipelines.paging import decode_cursor, encode_cursor
from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.validate import validate_positive

# So long what was the case may come back as the same alert: figures near a threshold would ring all day otherwise.
RESOLVE_AFTER = timedelta(minutes=10)
# What ended longer ago is forgotten, and what was told of it.
_KEPT = timedelta(days=90)
MAX_SILENCE = timedelta(days=30)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class NoticeKind(StrEnum):
    """What a notice says of its alert."""

    FIRED = "fired"
    REPEATED = "repeated"
    RESOLVED = "resolved"
    DIGEST = "digest"  # of a day; no alert


@dataclass(frozen=True)
class Alert:
    """An alert that fires, or did.

    Attributes:
        fired_at: when this episode began.
        missing_since: since when it is not the case any more, of one that still counts as firing.
        told_at: when people were last told of this episode; None: not yet.
        silenced_until: until then nobody is told.
    """

    key: str
    rule: str
    severity: Severity
    event_type: str | None
    summary: str
    detail: str
    fired_at: datetime
    missing_since: datetime | None = None
    told_at: datetime | None = None
    resolved_at: datetime | None = None
    silenced_until: datetime | None = None

    @property
    def place(self) -> str:
        """Where the page of a list ends of which it is the last."""
        ago = (_EPOCH - (self.resolved_at or self.fired_at)) // timedelta(microseconds=1)
        return encode_cursor(
            int(self.resolved_at is not None),
            Severity.CRITICAL.rank - self.severity.rank,
            ago,
            self.key,
        )

    def state(self, now: datetime) -> str:
        """firing, silenced or resolved."""
        if self.resolved_at is not None:
            return "resolved"
        return (
            "silenced"
            if self.silenced_until is not None and self.silenced_until > now
            else "firing"
        )


@dataclass(frozen=True)
class AlertPolicy:
    """What an installation decides about alerts.

    Attributes:
        thresholds: from when on something is worth telling.
        cooldown: how long after it was told an alert is told again while it lasts.
        max_retries: after so many retries an event is parked.
        archive_retention_days: how long archived events are kept; 0: for ever.
        routes: who is told of what.
    """

    thresholds: Thresholds = Thresholds()
    cooldown: timedelta = timedelta(hours=4)
    max_retries: int = 3
    archive_retention_days: int = 365
    routes: tuple[Route, ...] = ()


@dataclass(frozen=True)
class AlertTransition:
    """A change of an alert.

    Attributes:
        alert: as it is now.
        notice: what is to be told of it, if anything.
        besides: what the notice says behind the alert's own words.
    """

    alert: Alert
    notice: NoticeKind | None
    besides: str = ""


def decide_transition(
    alert: Alert | None, finding: Finding | None, *, now: datetime, cooldown: timedelta
) -> AlertTransition | None:
    """What becomes of an alert when its rule finds it, or does not; None: nothing.

    It is told once, at once when it gets graver, again after a cool-down while it lasts, and that it is over if it was
    told: whoever opened an incident closes it. A silence keeps back all but the end. What ends and begins again within
    ten minutes is one episode.
    """
    if finding is None:
        return None if alert is None or alert.resolved_at is not None else _missing(alert, now)
    if alert is None or alert.resolved_at is not None:
        until = alert.silenced_until if alert is not None else None
        found = _say(
            Alert(
                finding.key, finding.rule, finding.severity, None, "", "", now, silenced_until=until
            ),
            finding,
        )
    else:
        found = replace(alert, missing_since=None)
    if found.silenced_until is not None and found.silenced_until > now:
        return None if found == alert else AlertTransition(found, None)
    if found.told_at is None or finding.severity.rank > found.severity.rank:
        return AlertTransition(replace(_say(found, finding), told_at=now), NoticeKind.FIRED)
    if now - found.told_at >= (finding.again or cooldown):
        return AlertTransition(replace(_say(found, finding), told_at=now), NoticeKind.REPEATED)
    return None if found == alert else AlertTransition(found, None)


def _missing(alert: Alert, now: datetime) -> AlertTransition | None:
    if alert.missing_since is None:
        return AlertTransition(replace(alert, missing_since=now), None)
    if now - alert.missing_since < RESOLVE_AFTER:
        return None
    return AlertTransition(
        replace(alert, resolved_at=now), NoticeKind.RESOLVED if alert.told_at else None
    )


def _say(alert: Alert, finding: Finding) -> Alert:
    """The alert in the words of the finding: figures change while it lasts.

    Once told, it gets no less grave and keeps its event type, so that its end reaches whoever was told.
    """
    told = alert.told_at is not None
    return replace(
        alert,
        severity=max(alert.severity, finding.severity, key=lambda one: one.rank)
        if told
        else finding.severity,
        event_type=alert.event_type if told else finding.event_type,
        summary=finding.summary,
        detail=finding.detail,
    )


def list_transitions(
    connection: Connection, *, now: datetime, policy: AlertPolicy
) -> list[AlertTransition]:
    """What there is to write down and to tell now. Reads only.

    Args:
        connection: in a transaction.
        now: the moment.
        policy: the installation's.
    """
    figures = read_alert_figures(
        connection,
        now=now,
        thresholds=policy.thresholds,
        max_retries=policy.max_retries,
        archive_retention_days=policy.archive_retention_days,
    )
    found = {finding.key: finding for finding in evaluate_rules(figures, policy.thresholds)}
    known = {row["key"]: _alert(row) for row in connection.run("alert.firing", keys=list(found))}
    told = [
        decide_transition(known.get(key), one, now=now, cooldown=policy.cooldown)
        for key, one in found.items()
    ]
    for key in sorted(known.keys() - found.keys()):
        alert = known[key]
        if figures.may_last(alert.rule):
            told.append(
                None
                if alert.missing_since is None
                else AlertTransition(replace(alert, missing_since=None), None)
            )
        else:
            over = decide_transition(alert, None, now=now, cooldown=policy.cooldown)
            told.append(over and replace(over, besides=figures.unmended(alert.rule, key)))
    return [one for one in told if one is not None]


def evaluate_alerts(
    connection: Connection, *, now: datetime, policy: AlertPolicy
) -> list[AlertTransition] | None:
    """Write down which alerts fire and which are over, and what is to be told to whom.

    Args:
        connection: in autocommit mode; all of it is one transaction.
        now: the moment.
        policy: the installation's.

    Returns:
        What changed; None: another run decides at this moment.
    """
    with connection.transaction():
        if not connection.fetch_one("alert.alone")["locked"]:
            return None
        changed = list_transitions(connection, now=now, policy=policy)
        for one in changed:
            connection.run("alert.put", **asdict(one.alert))
            if one.notice is not None:
                _notice(connection, one, one.notice, now=now, routes=policy.routes)
        connection.run("alert.forget", before=now - _KEPT, now=now)
        return changed


def _notice(
    connection: Connection,
    changed: AlertTransition,
    kind: NoticeKind,
    *,
    now: datetime,
    routes: Sequence[Route],
) -> None:
    alert, detail = changed.alert, changed.alert.detail
    if kind is NoticeKind.RESOLVED:
        detail = f"It lasted from {alert.fired_at:%Y-%m-%d %H:%M} to {alert.missing_since or now:%Y-%m-%d %H:%M} UTC."
    connection.run(
        "alert.notice",
        key=alert.key,
        kind=kind,
        severity=alert.severity,
        event_type=alert.event_type,
        summary=alert.summary,
        detail=detail + changed.besides,
        now=now,
        channels=select_channels(routes, alert.severity, alert.event_type),
    )


def queue_digest(
    connection: Connection,
    day: str,
    *,
    summary: str,
    detail: str,
    now: datetime,
    routes: Sequence[Route],
) -> bool:
    """Let a day's digest be told, once; whether it is told by this call. One transaction of its own.

    Args:
        connection: in autocommit mode.
        day: which day, as 2026-11-24.
        summary: its headline.
        detail: what else it says, lines of plain text.
        now: the moment.
        routes: those that take notices of severity `info` get it.
    """
    row = connection.fetch_one(
        "alert.notice",
        key=f"digest:{day}",
        kind=NoticeKind.DIGEST,
        severity=Severity.INFO,
        event_type=None,
        summary=summary,
        detail=detail,
        now=now,
        channels=select_channels(routes, Severity.INFO, None),
    )
    return bool(row["notices"])


def list_alerts(
    connection: Connection, *, limit: int = 100, after: str | None = None
) -> list[Alert]:
    """Alerts: what fires, the gravest first, then what ended last.

    Args:
        connection: to the ledger.
        limit: how many at most, 1 to 1,000.
        after: `place` of the last one of the page before. An alert that begins or ends meanwhile may be missed or be
            met twice; every other one is met once.

    Raises:
        ValueError: a limit out of its bounds, or `after` is no place.
    """
    names = ("after_over", "after_rank", "after_ago", "after_key")
    key = (None,) * len(names) if after is None else decode_cursor(after, int, int, int, str)
    asked = dict(zip(names, key, strict=True))
    return [
        _alert(row)
        for row in connection.run(
            "alert.list", **asked, limit=validate_positive("limit", limit, most=1000)
        )
    ]


def silence_alert(
    connection: Connection,
    key: str,
    until: datetime | None,
    *,
    audit: AuditContext,
    options: RunOptions = RunOptions(),
) -> Alert:
    """Tell nobody of an alert until that moment, at most 30 days ahead; None ends it. Its end is told all the same.

    Raises:
        NotFoundError: there is no such alert.
        ValueError: `until` has passed, or is too far ahead.
    """
    if until is not None and not audit.now < until <= audit.now + MAX_SILENCE:
        raise ValueError(f"until must lie within the next {MAX_SILENCE.days} days.")
    with connection.transaction():
        row = connection.run("alert.lock", key=key).fetchone()
        if row is None:
            raise NotFoundError(
                f"There is no alert {key!r}. `dlq alerts list` lists them by their keys."
            )
        silenced = replace(_alert(row), silenced_until=until)
        if not options.dry_run:
            connection.run("alert.silence", key=key, until=until)
            record_audit_entry(
                connection,
                "alert.silence",
                {"alert": key, "until": until and until.isoformat()},
                audit=audit,
            )
        return silenced


def _alert(row: dict[str, object]) -> Alert:
    return Alert(**row | {"severity": Severity(row["severity"])})  # type: ignore[arg-type]
