"""Delivers queued notices to channels, and deaths to a webhook.

Queued notices are rows of `dlq.alert_delivery`. A run leases the channels with open deliveries,
sends each channel one message with all its notices, and then records the notices as sent. A run
that is killed in between leaves them to be sent again, so delivery is at least once. A channel that
fails is retried with an exponential back-off of up to an hour, and delays no other channel.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from psycopg.rows import DictRow

from dlq_pipelines.alerts.notify import (
    DEADLINE_SECONDS,
    SOURCE,
    Notice,
    build_alert_event,
    build_cloud_event,
    is_apprise_url,
    is_paging_channel,
    send_in_parallel,
    send_webhook,
    send_with_apprise,
)
from dlq_pipelines.alerts.routes import Route, compute_channel_id, select_channels
from dlq_pipelines.alerts.rules import Severity
from dlq_pipelines.links import NO_LINKS, Links
from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.text import RedactTexts

# Longer than sending a message takes, so that no other run sends it at the same time.
_LEASE = timedelta(seconds=4 * DEADLINE_SECONDS)
_DEATHS_LEASE = timedelta(minutes=15)
# A notice that is a week old is not sent any more.
_MAX_AGE = timedelta(days=7)
_NOTICES_PER_MESSAGE = 200
# For channels with one message per notice: as many as a run has time for.
_PAGES_PER_RUN = 20
DEATHS_PER_BATCH = 100
_BATCHES_PER_RUN = 25


@dataclass(frozen=True)
class Sender:
    """The channels, the secret that signs webhooks, and what hides parts of details of deaths.

    Attributes:
        outbox: the name of the outbox, which messages carry; None: it has no name.
        links: where people can look.
    """

    routes: tuple[Route, ...] = ()
    deaths_url: str | None = field(default=None, repr=False)
    secret: str | None = field(default=None, repr=False)
    redact: RedactTexts = list
    outbox: str | None = None
    links: Links = NO_LINKS

    @property
    def urls(self) -> dict[str, str]:
        """The URL of each channel by its id."""
        return {route.channel: route.url for route in self.routes}

    @property
    def deaths_channel(self) -> str | None:
        """The id of the channel that receives each death; None without `DLQ_DEATH_WEBHOOK_URL`."""
        return None if self.deaths_url is None else f"deaths+{compute_channel_id(self.deaths_url)}"

    def send(
        self, url: str, notices: Sequence[Notice], *, now: datetime, source: str
    ) -> str | None:
        """Send one message; return the reason of a failure, None for success."""
        if is_webhook(url):
            events = [
                build_alert_event(notice, source=source, outbox=self.outbox) for notice in notices
            ]
            return send_webhook(url, self.secret or "", events, now=now)
        return send_with_apprise(url, notices, source=source, outbox=self.outbox)


@dataclass(frozen=True)
class Channel:
    """State of a channel.

    Attributes:
        waiting: number of notices to send.
        due_at: the channel is not used before this time, after a failure or during a lease.
        failures: number of failures since the last success.
        sent: number of messages that were delivered, ever.
        failed: number of messages that failed, ever.
    """

    id: str
    waiting: int
    due_at: datetime
    failures: int
    last_error: str | None
    sent_at: datetime | None
    sent: int
    failed: int


def is_webhook(url: str) -> bool:
    """Return whether a URL is a signed webhook: http(s):// that no service of Apprise claims."""
    return url.lower().startswith(("http://", "https://")) and not is_apprise_url(url)


def list_ready_channels(connection: Connection, sender: Sender, *, now: datetime) -> list[str]:
    """Return the ids of the channels that have something to send now. Reads only."""
    found = connection.run("alert.waiting_channels", now=now, ids=list(sender.urls)).fetchall()
    waiting = [str(row["id"]) for row in found] + [
        row["channel"] for row in _list_orphans(connection, sender)
    ]
    deaths = sender.deaths_channel
    if (
        deaths is not None
        and connection.fetch_one("alert.has_queued_deaths", id=deaths, now=now)["waiting"]
    ):
        waiting.append(deaths)
    return waiting


def deliver_messages(
    connection: Connection, sender: Sender, *, now: datetime, seconds: float = DEADLINE_SECONDS
) -> dict[str, str | None]:
    """Send all queued notices, all channels in parallel.

    Args:
        connection: in autocommit mode.
        sender: the channels.
        now: the present time.
        seconds: timeout of a channel.

    Returns:
        The result of each channel that was used: the reason of its failure, None for success.
    """
    urls = sender.urls
    connection.run("alert.add_channels", ids=list(urls), now=now)
    _readdress_orphans(connection, sender, now=now)
    connection.run("alert.give_up", before=now - _MAX_AGE, now=now)
    waiting = [
        row["id"] for row in connection.run("alert.waiting_channels", now=now, ids=list(urls))
    ]
    leased = [
        row["id"] for row in connection.run("alert.lease", now=now, ids=waiting, lease=_LEASE)
    ]
    opened: dict[str, list[Notice]] = {}
    jobs: dict[str, Callable[[], str | None]] = {}
    for channel in leased:
        most = _PAGES_PER_RUN if is_paging_channel(urls[channel]) else _NOTICES_PER_MESSAGE
        opened[channel] = _read_open_notices(connection, channel, most)
        if not opened[channel]:  # they have ended since
            connection.run("alert.channel_worked", id=channel, messages=0, now=now)
            continue
        jobs[channel] = partial(
            sender.send,
            urls[channel],
            opened[channel],
            now=now,
            source=get_event_source(connection),
        )
    results = send_in_parallel(jobs, seconds=seconds)
    for channel, error in results.items():
        with connection.transaction():
            if error is None:
                sent = [notice.id for notice in opened[channel]]
                connection.run("alert.record_sent", channel=channel, notices=sent, now=now)
            _record_result(connection, channel, error, messages=1, now=now)
    return results


def get_event_source(connection: Connection) -> str:
    """Return the `source` of our CloudEvents, which is unique to this installation and to this
    database.
    """
    return f"{SOURCE}/{connection.fetch_one('alert.installation')['id']}"


def _list_orphans(connection: Connection, sender: Sender) -> list[DictRow]:
    return connection.run("alert.orphans", ids=list(sender.urls)).fetchall()


def _readdress_orphans(connection: Connection, sender: Sender, *, now: datetime) -> None:
    """Move deliveries of removed channels to the channels that receive such notices now.

    A channel is its URL, and a URL changes with its token: notices for the old URL are not sent
    yet.
    """
    with connection.transaction():
        for row in _list_orphans(connection, sender):
            channels = select_channels(
                sender.routes, Severity(row["severity"]), row["event_type"], row["owner"]
            )
            gone, notice = row["channel"], row["notice_id"]
            connection.run(
                "alert.readdress", notice=notice, channel=gone, channels=channels, now=now
            )


def _read_open_notices(connection: Connection, channel: str, most: int) -> list[Notice]:
    rows = connection.run("alert.open_deliveries", channel=channel, limit=most)
    return [Notice(**row | {"severity": Severity(row["severity"])}) for row in rows]


def _record_result(
    connection: Connection, channel: str, error: str | None, *, messages: int, now: datetime
) -> None:
    if error is None:
        connection.run("alert.channel_worked", id=channel, messages=messages, now=now)
    else:
        connection.run("alert.channel_failed", id=channel, error=error, now=now)


def send_death_events(
    connection: Connection, sender: Sender, *, now: datetime, seconds: float = DEADLINE_SECONDS
) -> tuple[int, str | None]:
    """Send new deaths to the webhook of deaths, in at most 25 batches of 100.

    A death leaves the queue after the webhook accepted its batch. A run that is killed in between
    leaves it to be sent again.

    Args:
        connection: in autocommit mode.
        sender: the webhook.
        now: the present time.
        seconds: timeout of a batch.

    Returns:
        The number of deaths that were sent, and the reason of a failure or None.
    """
    channel, url = sender.deaths_channel, sender.deaths_url
    if channel is None or url is None:
        return 0, None
    connection.run("alert.add_channels", ids=[channel], now=now)
    if not connection.run("alert.lease", now=now, ids=[channel], lease=_DEATHS_LEASE).fetchall():
        return 0, None
    sent, batches, source = 0, 0, get_event_source(connection)
    error: str | None = None
    while batches < _BATCHES_PER_RUN and error is None:
        rows = connection.run("alert.queued_deaths", limit=DEATHS_PER_BATCH).fetchall()
        if not rows:
            break
        events = [
            _build_death_event(row, source, sender) for row in rows if row["event_id"] is not None
        ]
        send = partial(send_webhook, url, sender.secret or "", events, now=now)
        error = send_in_parallel({channel: send}, seconds=seconds)[channel] if events else None
        if error is None:
            connection.run("alert.remove_queued_deaths", ids=[row["death_id"] for row in rows])
            sent, batches = sent + len(events), batches + 1
    if batches or error is not None:
        _record_result(connection, channel, error, messages=batches, now=now)
    else:
        connection.run("alert.channel_worked", id=channel, messages=0, now=now)
    return sent, error


def _build_death_event(row: DictRow, source: str, sender: Sender) -> dict[str, Any]:
    """Return a death as a CloudEvent, without error and payload: the receiver has no need of them.

    The detail is a part of the error.
    """
    detail = row["detail"] and sender.redact([row["detail"]])[0]
    names = (
        "event_id",
        "event_type",
        "aggregate_type",
        "aggregate_id",
        "attempts",
        "cause_id",
        "detail",
        "exception_type",
    )
    return build_cloud_event(
        f"death/{row['death_id']}",
        "dlq.event.died",
        source=source,
        subject=str(row["event_id"]),
        at=row["died_at"],
        data={"outbox": sender.outbox}
        | {name: row[name] for name in names}
        | {"detail": detail, "link": sender.links.link_event(row["event_id"])},
    )


def send_test_message(sender: Sender, *, now: datetime) -> dict[str, str | None]:
    """Send a test message to each channel, regardless of conditions.

    Returns the result of each channel: the reason of its failure, None for success.
    """
    notice = Notice(
        0,
        "test",
        "fired",
        Severity.INFO,
        None,
        "A test of this channel",
        "No action is needed.",
        now,
    )
    send = partial(sender.send, notices=[notice], now=now, source=SOURCE)
    return send_in_parallel({name: partial(send, url) for name, url in sender.urls.items()})


def list_channels(connection: Connection) -> list[Channel]:
    """Return the state of each channel that was ever used."""
    return [Channel(**row) for row in connection.run("alert.channels")]
