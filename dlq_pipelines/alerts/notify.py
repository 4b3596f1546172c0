"""Formats notices and sends them through Apprise or a signed webhook.

People read plain text through Apprise; programs receive the signed webhook. A channel that hangs is
abandoned after 30 seconds: it delays no other channel, and its notices are sent again later.
"""

import base64
import http.client
import json
import logging
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from dlq_pipelines.alerts.rules import Severity
from dlq_pipelines.text import sanitize_line, sanitize_text

if TYPE_CHECKING:
    from apprise import Apprise

# For a whole message: connecting, sending, the answer. Single steps time out sooner, at 4 s
# (Apprise) or 10 s.
DEADLINE_SECONDS = 30.0
_STEP_SECONDS = 10.0
_SHOWN_NOTICES = 20
_MAX_DETAIL_LENGTH = 2_000
SOURCE = "dlq-pipelines"
# Seconds. Apprise's default of 5.5 would let a run send five of them.
_PAUSE_BETWEEN_PAGES = 0.25
# Characters that chat and mail programs interpret in plain text: tags and code. Bold is harmless.
_ACTIVE_CHARACTERS = str.maketrans({"<": "\u2039", ">": "\u203a", "`": "'"})
_NOT_ACCEPTED = "the service did not answer or rejected the message"
_LINK_START = re.compile(r"(?i)(?<=://)|(?<=www)(?=\.)|(?<=@)|(?<=mailto:)|(?<=tel:)")


@dataclass(frozen=True)
class Notice:
    """A notice for a channel; `kind` is fired, repeated, resolved or digest.

    `link` is an address of our own, so channels may show it as a link.
    """

    id: int
    key: str
    kind: str
    severity: Severity
    event_type: str | None
    summary: str
    detail: str
    at: datetime
    owner: str | None = None
    link: str | None = None


def neutralize_text(text: str) -> str:
    """Return untrusted text in which no chat program finds links, mentions or markup; lines stay
    lines.
    """
    return (
        _LINK_START.sub("\u200b", sanitize_text(text))
        .translate(_ACTIVE_CHARACTERS)
        .replace("](", "] (")
    )


def format_title(notices: Sequence[Notice], *, outbox: str | None = None) -> str:
    """Return the subject: the notice itself, or the number of notices by severity.

    It begins with the name of the outbox, if it has one.
    """
    if len(notices) == 1:
        (only,) = notices
        name = f"{outbox}: " if outbox else ""
        return neutralize_text(sanitize_line(f"{name}{_format_kind(only)}: {only.summary}", 200))
    firing = [notice for notice in notices if notice.kind in {"fired", "repeated"}]
    counts = [
        (severity, sum(one.severity is severity for one in firing))
        for severity in reversed(Severity)
    ]
    said = [f"{count} {severity}" for severity, count in counts if count]
    over = sum(notice.kind == "resolved" for notice in notices)
    return ", ".join(
        [f"{outbox or 'dlq'}: " + ", ".join(said or [f"{len(notices)} notices"])]
        + [f"{over} resolved"] * bool(over)
    )


def format_body(notices: Sequence[Notice]) -> str:
    """Return the message as plain text: the most severe notices first, at most 20 in full."""
    ordered = sorted(notices, key=lambda one: (one.kind == "resolved", -one.severity.rank, one.id))
    parts = [
        f"{_format_kind(notice)}: {neutralize_text(sanitize_line(notice.summary, 300))}\n"
        f"{neutralize_text(notice.detail)[:_MAX_DETAIL_LENGTH]}\n"
        + (f"{notice.link}\n" if notice.link else "")
        + f"({neutralize_text(sanitize_line(notice.key, 200))}, {notice.at:%Y-%m-%d %H:%M} UTC)"
        for notice in ordered[:_SHOWN_NOTICES]
    ]
    if len(ordered) > _SHOWN_NOTICES:
        parts.append(f"And {len(ordered) - _SHOWN_NOTICES} more: dlq alerts list")
    return "\n\n".join(parts)


def _format_kind(notice: Notice) -> str:
    match notice.kind:
        case "resolved":
            return "RESOLVED"
        case "repeated":
            return f"REMINDER, {notice.severity.upper()}"
        case "digest":
            return "DAILY DIGEST"
        case _:
            return notice.severity.upper()


def build_alert_event(notice: Notice, *, source: str, outbox: str | None = None) -> dict[str, Any]:
    """Return a notice as a CloudEvent 1.0, with the same source and id each time it is sent."""
    names = ("key", "kind", "event_type", "owner", "summary", "detail", "link")
    said = {"outbox": outbox} | {name: getattr(notice, name) for name in names}
    return build_cloud_event(
        f"notice/{notice.id}",
        f"dlq.alert.{notice.kind}",
        source=source,
        subject=notice.key,
        at=notice.at,
        data=said | {"severity": str(notice.severity)},
    )


def build_cloud_event(
    id_: str, type_: str, *, source: str, subject: str, at: datetime, data: Mapping[str, Any]
) -> dict[str, Any]:
    """Return a CloudEvent 1.0 in its JSON form."""
    return {
        "specversion": "1.0",
        "id": id_,
        "source": source,
        "type": type_,
        "subject": subject,
        "time": at.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        "datacontenttype": "application/json",
        "data": dict(data),
    }


def is_paging_channel(url: str) -> bool:
    """Return whether a channel opens incidents that page people."""
    return url.lower().startswith("pagerduty://")


def send_with_apprise(
    url: str, notices: Sequence[Notice], *, source: str, outbox: str | None = None
) -> str | None:
    """Send notices to a URL that Apprise supports; return the reason of a failure, None for
    success.

    All notices are one message, except for PagerDuty: there each alert is an incident, so that a
    reminder opens no second one and the resolution closes it. Sending such a message twice changes
    nothing.
    """
    import apprise  # a tenth of a second that only those who send wait for
    from apprise.plugins.pagerduty import NotifyPagerDuty, PagerDutyAction

    _quiet_apprise()
    plugin = apprise.Apprise.instantiate(url, suppress_exceptions=True)
    if plugin is None:
        return "Apprise does not support this URL"
    if "overflow=" not in url.lower():
        # What is too long for the service comes in parts; refused, none of it would arrive.
        plugin.overflow_mode = apprise.OverflowMode.SPLIT
    channel = apprise.Apprise()
    channel.add(plugin)
    if not isinstance(plugin, NotifyPagerDuty):
        return None if _notify(channel, notices, outbox) else _NOT_ACCEPTED
    plugin.action, plugin.request_rate_per_sec = PagerDutyAction.MAP, _PAUSE_BETWEEN_PAGES
    for notice in notices:
        plugin.dedup = sha256(f"{source} {notice.key}".encode()).hexdigest()
        if not _notify(channel, [notice], outbox):
            return _NOT_ACCEPTED
    return None


def _notify(channel: "Apprise", notices: Sequence[Notice], outbox: str | None) -> bool:
    """Send one message.

    Apprise calls a resolution or a digest a success, which closes an incident in PagerDuty.
    """
    import apprise

    firing = [notice.severity for notice in notices if notice.kind in {"fired", "repeated"}]
    worst = max(firing, key=lambda severity: severity.rank, default=None)
    types = {
        Severity.CRITICAL: apprise.NotifyType.FAILURE,
        Severity.WARNING: apprise.NotifyType.WARNING,
        Severity.INFO: apprise.NotifyType.INFO,
    }
    accepted = channel.notify(
        title=format_title(notices, outbox=outbox),
        body=format_body(notices),
        notify_type=types[worst] if worst else apprise.NotifyType.SUCCESS,
        body_format=apprise.NotifyFormat.TEXT,
    )
    return bool(accepted)


def is_apprise_url(url: str) -> bool:
    """Return whether Apprise supports a URL."""
    import apprise

    _quiet_apprise()
    return apprise.Apprise.instantiate(url, suppress_exceptions=True) is not None


def _quiet_apprise() -> None:
    """Silence the log of Apprise, which repeats URLs with their tokens."""
    logger = logging.getLogger("apprise")
    logger.setLevel(logging.CRITICAL + 1)
    logger.propagate = False


def send_webhook(
    url: str, secret: str, events: Sequence[Mapping[str, Any]], *, now: datetime
) -> str | None:
    """Post CloudEvents as a batch, signed by the Standard Webhooks specification.

    Returns the reason of a failure, None for success. The same events have the same `webhook-id`
    each time, so that receivers can skip duplicates.
    """
    from standardwebhooks import Webhook

    body = json.dumps(list(events), ensure_ascii=True, separators=(",", ":"))
    ids = " ".join(f"{event['source']} {event['id']}" for event in events)
    id_ = f"msg_{sha256(ids.encode()).hexdigest()[:32]}"
    headers = {
        "Content-Type": "application/cloudevents-batch+json",
        "User-Agent": SOURCE,
        "webhook-id": id_,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(secret).sign(id_, now.astimezone(UTC), body),
    }
    return _post(url, body.encode(), headers)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Answers a redirect as an error."""

    def redirect_request(self, *_: object) -> None:
        """Follow no redirect."""


def _post(url: str, body: bytes, headers: Mapping[str, str]) -> str | None:
    """Post without following redirects: the signature is for the named receiver.

    Through the proxy of the environment (`https_proxy`, `no_proxy`), as Apprise does.
    """
    parts = urlsplit(url)
    if parts.username is not None:
        account = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        headers = {**headers, "Authorization": f"Basic {base64.b64encode(account).decode()}"}
    bare = parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment="").geturl()
    try:
        request = urllib.request.Request(bare, body, dict(headers), method="POST")  # noqa: S310 - http or https, by the settings
        opener = urllib.request.build_opener(_NoRedirect)
        with opener.open(request, timeout=_STEP_SECONDS) as answer:
            status = answer.status
    except urllib.error.HTTPError as error:
        status = error.code
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        return f"connection failed: {type(reason).__name__}"
    return None if 200 <= status < 300 else f"the server answered {status}"  # noqa: PLR2004 - HTTP's successes


def send_in_parallel(
    jobs: Mapping[str, Callable[[], str | None]], *, seconds: float = DEADLINE_SECONDS
) -> dict[str, str | None]:
    """Run all jobs in parallel; return the reason of each failure, None for success.

    Each job runs in a daemon thread. A job that exceeds `seconds` is abandoned and ends with the
    process; a thread pool would make the process wait for it.
    """
    results: dict[str, str | None] = {}

    def run(name: str, job: Callable[[], str | None]) -> None:
        try:
            results[name] = job()
        except Exception as error:  # noqa: BLE001 - a channel's library may raise anything, and no other channel may suffer
            results[name] = f"sending failed: {type(error).__name__}"

    threads = [threading.Thread(target=run, args=one, daemon=True) for one in jobs.items()]
    for thread in threads:
        thread.start()
    until = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(until - time.monotonic(), 0))
    done = dict(results)
    return {name: done.get(name, f"no answer within {seconds:.0f} s") for name in jobs}
