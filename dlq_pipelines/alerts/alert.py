"""Decides which alerts fire, repeat and resolve, and writes a notice for each channel.

One transaction compares the findings of the rules with `dlq.alert`, writes the new state, and adds
a row for each notice and channel. A crash therefore never loses a notice and never duplicates a
decision. `delivery.py` sends the notices.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta, tzinfo
from enum import StrEnum

from dlq_pipelines.alerts.figures import read_alert_figures
from dlq_pipelines.alerts.routes import Route, select_channels
from dlq_pipelines.alerts.rules import Finding, Severity, Thresholds, evaluate_rules
from dlq_pipelines.audit import AuditContext, RunOptions, record_audit_entry
from dlq_pipelines.errors import NotFoundError
from dlq_pipelines.links import NO_LINKS, Links
from dlq_pipelines.paging import decode_cursor, encode_cursor
from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.text import RedactTexts
from dlq_pipelines.validate import validate_positive

# A finding that returns within this time continues the same alert. Without it a figure near its
# threshold would fire all day.
RESOLVE_AFTER = timedelta(minutes=10)
# Resolved alerts and their notices are deleted after this time.
_RETENTION = timedelta(days=90)
MAX_SILENCE = timedelta(days=30)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class NoticeKind(StrEnum):
    """The event that a notice reports."""

    FIRED = "fired"
    REPEATED = "repeated"
    RESOLVED = "resolved"
    DIGEST = "digest"  # the digest of a day, which is not an alert


@dataclass(frozen=True)
class Alert:
    """An alert that fires or fired.

    Attributes:
        fired_at: start of this episode.
        missing_since: since when the rule no longer finds it, while it still counts as firing.
        notified_at: time of the last notice of this episode; None: none was sent.
        silenced_until: no notices are sent before this time.
        owner: the owner of its cause.
        link: an address that shows more, if it has one.
    """

    key: str
    rule: str
    severity: Severity
    event_type: str | None
    summary: str
    detail: str
    fired_at: datetime
    missing_since: datetime | None = None
    notified_at: datetime | None = None
    resolved_at: datetime | None = None
    silenced_until: datetime | None = None
    owner: str | None = None
    link: str | None = None

    @property
    def cursor(self) -> str:
        """The keyset cursor of the page that follows this alert."""
        age = (_EPOCH - (self.resolved_at or self.fired_at)) // timedelta(microseconds=1)
        return encode_cursor(
            int(self.resolved_at is not None),
            Severity.CRITICAL.rank - self.severity.rank,
            age,
            self.key,
        )

    def state(self, now: datetime) -> str:
        """Return `firing`, `silenced` or `resolved`."""
        if self.resolved_at is not None:
            return "resolved"
        return (
            "silenced"
            if self.silenced_until is not None and self.silenced_until > now
            else "firing"
        )


@dataclass(frozen=True)
class AlertPolicy:
    """The alert settings of an installation.

    Attributes:
        thresholds: bounds of the rules.
        cooldown: time after which a reminder of an alert that lasts is sent.
        max_retries: number of retries after which an event is parked.
        archive_retention_days: days that archived events are kept; 0: without limit.
        routes: which channel receives which notices.
        redact: hides parts of the titles and details of causes.
        zone: the time zone of days.
        links: where people can look.
        name_settings: returns a text in which each setting has the name that its owner can change.
    """

    thresholds: Thresholds = Thresholds()  # noqa: RUF009 - frozen
    cooldown: timedelta = timedelta(hours=4)
    max_retries: int = 3
    archive_retention_days: int = 365
    routes: tuple[Route, ...] = ()
    redact: RedactTexts = list
    zone: tzinfo = UTC
    links: Links = NO_LINKS
    name_settings: Callable[[str], str] = str


@dataclass(frozen=True)
class AlertTransition:
    """A change of an alert.

    Attributes:
        alert: its new state.
        notice: the kind of notice to send; None: no notice.
        addition: text that the notice appends to the detail of the alert.
        new_owner: whether only the channels of the new owner receive the notice.
    """

    alert: Alert
    notice: NoticeKind | None
    addition: str = ""
    new_owner: bool = False


def decide_transition(
    alert: Alert | None, finding: Finding | None, *, now: datetime, cooldown: timedelta
) -> AlertTransition | None:
    """Decide how an alert changes after its rule found it, or did not; None: no change.

    An alert sends one notice when it fires or becomes more severe, a reminder after each cool-down
    while it lasts, and a notice when it resolves if an earlier one was sent, so that an incident
    that was opened is closed. A new owner of its cause is notified once. A silence holds back all
    but the notice of the resolution. An alert that resolves and fires again within ten minutes is
    one episode.
    """
    if finding is None:
        return (
            None
            if alert is None or alert.resolved_at is not None
            else _decide_resolution(alert, now)
        )
    if alert is None or alert.resolved_at is not None:
        until = alert.silenced_until if alert is not None else None
        found = _update_text(
            Alert(
                finding.key, finding.rule, finding.severity, None, "", "", now, silenced_until=until
            ),
            finding,
        )
    else:
        found = replace(alert, missing_since=None)
    if found.silenced_until is not None and found.silenced_until > now:
        return None if found == alert else AlertTransition(found, None)
    if found.notified_at is None or finding.severity.rank > found.severity.rank:
        notice = NoticeKind.FIRED
    elif now - found.notified_at >= (finding.again or cooldown):
        notice = NoticeKind.REPEATED
    elif finding.owner is not None and finding.owner != found.owner:
        return AlertTransition(_update_text(found, finding), NoticeKind.FIRED, new_owner=True)
    else:
        return None if found == alert else AlertTransition(found, None)
    return AlertTransition(replace(_update_text(found, finding), notified_at=now), notice)


def _decide_resolution(alert: Alert, now: datetime) -> AlertTransition | None:
    if alert.missing_since is None:
        return AlertTransition(replace(alert, missing_since=now), None)
    if now - alert.missing_since < RESOLVE_AFTER:
        return None
    return AlertTransition(
        replace(alert, resolved_at=now), NoticeKind.RESOLVED if alert.notified_at else None
    )


def _update_text(alert: Alert, finding: Finding) -> Alert:
    """Copy the texts of a finding, whose figures change while the alert lasts.

    After the first notice the severity never falls and the event type stays, so that the notice of
    the resolution reaches the same channels.
    """
    notified = alert.notified_at is not None
    highest = max(alert.severity, finding.severity, key=lambda severity: severity.rank)
    return replace(
        alert,
        severity=highest if notified else finding.severity,
        event_type=alert.event_type if notified else finding.event_type,
        owner=finding.owner or alert.owner,
        summary=finding.summary,
        detail=finding.detail,
        link=finding.link,
    )


def list_transitions(
    connection: Connection, *, now: datetime, policy: AlertPolicy
) -> list[AlertTransition]:
    """Return the alerts that change now. Reads only.

    Args:
        connection: in a transaction.
        now: the present time.
        policy: the settings of the installation.
    """
    return _compare_findings(connection, now=now, policy=policy)[0]


def _compare_findings(
    connection: Connection, *, now: datetime, policy: AlertPolicy
) -> tuple[list[AlertTransition], dict[str, Finding]]:
    """Return the alerts that change now, and all findings by their keys."""
    figures = read_alert_figures(
        connection,
        now=now,
        thresholds=policy.thresholds,
        max_retries=policy.max_retries,
        archive_retention_days=policy.archive_retention_days,
        zone=policy.zone,
        redact=policy.redact,
    )
    found = {
        finding.key: finding
        for finding in evaluate_rules(
            figures, policy.thresholds, policy.links, policy.name_settings
        )
    }
    known = {
        row["key"]: _build_alert(row) for row in connection.run("alert.firing", keys=list(found))
    }
    transitions = [
        decide_transition(known.get(key), finding, now=now, cooldown=policy.cooldown)
        for key, finding in found.items()
    ]
    for key in sorted(known.keys() - found.keys()):
        alert = known[key]
        if figures.is_uncertain(alert.rule):
            transitions.append(
                None
                if alert.missing_since is None
                else AlertTransition(replace(alert, missing_since=None), None)
            )
        else:
            over = decide_transition(alert, None, now=now, cooldown=policy.cooldown)
            transitions.append(
                over and replace(over, addition=figures.explain_resolution(alert.rule, key))
            )
    return [transition for transition in transitions if transition is not None], found


def evaluate_alerts(
    connection: Connection, *, now: datetime, policy: AlertPolicy
) -> list[AlertTransition] | None:
    """Evaluate the rules, update the alerts, and queue notices, in one transaction.

    Args:
        connection: in autocommit mode.
        now: the present time.
        policy: the settings of the installation.

    Returns:
        The alerts that changed; None: another run evaluates at the same time.
    """
    with connection.transaction():
        if not connection.fetch_one("alert.try_lock")["locked"]:
            return None
        transitions, found = _compare_findings(connection, now=now, policy=policy)
        for transition in transitions:
            connection.run("alert.put", **asdict(transition.alert))
            if transition.notice is not None:
                _queue_notice(
                    connection, transition, transition.notice, now=now, routes=policy.routes
                )
        _update_unsent_notices(connection, found, now=now)
        connection.run("alert.delete_old", before=now - _RETENTION, now=now)
        return transitions


def _update_unsent_notices(
    connection: Connection, found: Mapping[str, Finding], *, now: datetime
) -> None:
    """Keep what a failing channel has not received true: new figures, and no alert that ended."""
    connection.run("alert.give_up_ended", now=now)
    for notice in connection.run("alert.unsent_notices").fetchall():
        finding = found.get(notice["key"])
        text = (notice["summary"], notice["detail"], notice["link"])
        if finding is not None and text != (finding.summary, finding.detail, finding.link):
            connection.run(
                "alert.update_notice",
                id=notice["id"],
                summary=finding.summary,
                detail=f"{finding.detail} As of {now:%Y-%m-%d %H:%M} UTC.",
                link=finding.link,
            )


def _queue_notice(
    connection: Connection,
    transition: AlertTransition,
    kind: NoticeKind,
    *,
    now: datetime,
    routes: Sequence[Route],
) -> None:
    alert, detail = transition.alert, transition.alert.detail
    channels = select_channels(routes, alert.severity, alert.event_type, alert.owner)
    notified: list[str] = []
    if transition.new_owner or kind is NoticeKind.RESOLVED:
        notified = connection.fetch_one(
            "alert.notified_channels", key=alert.key, fired_at=alert.fired_at
        )["ids"]
    if transition.new_owner:
        channels = sorted(set(channels) - set(notified))
        if not channels:
            return
    if kind is NoticeKind.RESOLVED:
        channels = sorted({*channels, *notified})
        end = alert.missing_since or now
        detail = f"It lasted from {alert.fired_at:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC."
    connection.run(
        "alert.notice",
        key=alert.key,
        kind=kind,
        severity=alert.severity,
        event_type=alert.event_type,
        owner=alert.owner,
        summary=alert.summary,
        detail=detail + transition.addition,
        link=alert.link,
        now=now,
        channels=channels,
    )


def queue_digest(
    connection: Connection,
    day: str,
    *,
    summary: str,
    detail: str,
    now: datetime,
    routes: Sequence[Route],
    link: str | None = None,
) -> bool:
    """Queue the digest of a day once; return whether this call queued it.

    Args:
        connection: in autocommit mode; the digest is one transaction.
        day: the day, such as 2026-11-24.
        summary: the headline of the report.
        detail: further lines of plain text.
        now: the present time.
        routes: the digest goes to routes that take notices of severity `info`.
        link: the address of the report; None: it has none.
    """
    row = connection.fetch_one(
        "alert.notice",
        key=f"digest:{day}",
        kind=NoticeKind.DIGEST,
        severity=Severity.INFO,
        event_type=None,
        owner=None,
        summary=summary,
        detail=detail,
        link=link,
        now=now,
        channels=select_channels(routes, Severity.INFO, None),
    )
    return bool(row["notices"])


def list_alerts(
    connection: Connection, *, limit: int = 100, after: str | None = None
) -> list[Alert]:
    """Return firing alerts, the most severe first, then resolved alerts, the latest first.

    Args:
        connection: to the ledger.
        limit: 1 to 1,000 alerts.
        after: `cursor` of the last alert of the previous page. An alert that fires or resolves
            between two pages can be missing or appear twice; every other alert appears once.

    Raises:
        ValueError: the limit is out of bounds, or the cursor is invalid.
    """
    names = ("after_over", "after_rank", "after_ago", "after_key")
    key = (None,) * len(names) if after is None else decode_cursor(after, int, int, int, str)
    cursor = dict(zip(names, key, strict=True))
    rows = connection.run(
        "alert.list", **cursor, limit=validate_positive("limit", limit, most=1000)
    )
    return [_build_alert(row) for row in rows]


def get_alert(connection: Connection, key: str) -> Alert:
    """Return the alert of that key.

    Raises:
        NotFoundError: the alert does not exist.
    """
    row = connection.run("alert.get", key=key).fetchone()
    if row is None:
        raise build_unknown_alert_error(key)
    return _build_alert(row)


def build_unknown_alert_error(key: str) -> NotFoundError:
    """Return the error for an alert that does not exist."""
    return NotFoundError(
        f"There is no alert {key!r}.", "`dlq alerts list` lists alerts by their keys."
    )


def silence_alert(
    connection: Connection,
    key: str,
    until: datetime | None,
    *,
    audit: AuditContext,
    options: RunOptions = RunOptions(),
) -> Alert:
    """Silence an alert until a time at most 30 days ahead; None ends the silence.

    A silence holds back all notices but the one of the resolution.

    Raises:
        NotFoundError: the alert does not exist.
        ValueError: `until` is in the past or too far ahead.
    """
    if until is not None and not audit.now < until <= audit.now + MAX_SILENCE:
        raise ValueError(f"until must lie within the next {MAX_SILENCE.days} days.")
    with connection.transaction():
        row = connection.run("alert.lock", key=key).fetchone()
        if row is None:
            raise build_unknown_alert_error(key)
        silenced = replace(_build_alert(row), silenced_until=until)
        if not options.dry_run:
            connection.run("alert.silence", key=key, until=until)
            record_audit_entry(
                connection,
                "alert.silence",
                {"alert": key, "until": until and until.isoformat()},
                audit=audit,
            )
        return silenced


def _build_alert(row: dict[str, object]) -> Alert:
    return Alert(**row | {"severity": Severity(row["severity"])})  # type: ignore[arg-type]
