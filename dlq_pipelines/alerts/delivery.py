"""Did everybody who was to be told get it?

What is to be told lies in `dlq.alert_delivery`. A run leases the channels that have something waiting, sends each one
message with all of it, and records it as sent after it was: a run that is killed in between leaves it to be sent again,
so everything arrives at least once. A channel that fails waits longer each time, up to an hour, and no other one waits
for it.
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
from dlq_pipelines.postgres.connect import Connection

# Longer than a message may take, so that no other run sends it meanwhile.
_LEASE = timedelta(seconds=4 * DEADLINE_SECONDS)
_DEATHS_LEASE = timedelta(minutes=15)
# After a week nobody acts on a notice any more.
_GIVE_UP = timedelta(days=7)
_NOTICES_A_MESSAGE = 200
# Where each notice is a message of its own: as many as a run has time for.
_PAGES_A_RUN = 20
DEATHS_PER_BATCH = 100
_BATCHES_A_RUN = 25


@dataclass(frozen=True)
class Sender:
    """Where to, and with which secret webhooks are signed."""

    routes: tuple[Route, ...] = ()
    deaths_url: str | None = field(default=None, repr=False)
    secret: str | None = field(default=None, repr=False)

    @property
    def urls(self) -> dict[str, str]:
        """The addresses of the channels."""
        return {route.channel: route.url for route in self.routes}

    @property
    def deaths_channel(self) -> str | None:
        """The channel of single deaths."""
        return None if self.deaths_url is None else f"deaths+{compute_channel_id(self.deaths_url)}"

    def sends(
        self, url: str, notices: Sequence[Notice], *, now: datetime, source: str
    ) -> str | None:
        """Send one message; returns why it did not arrive."""
        if is_webhook(url):
            events = [build_alert_event(notice, source=source) for notice in notices]
            return send_webhook(url, self.secret or "", events, now=now)
        return send_with_apprise(url, notices, source=source)


@dataclass(frozen=True)
class Channel:
    """How a channel is doing.

    Attributes:
        waiting: notices that it still has to get.
        due_at: until then it is left alone, after a failure or while something is sent.
        failures: failures since it last worked.
        sent: messages that arrived, ever; `failed`: that did not.
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
    """Whether an address is one for the signed webhook: http or https, but of no service that has its own way."""
    return url.lower().startswith(("http://", "https://")) and not is_apprise_url(url)


def list_ready_channels(connection: Connection, sender: Sender, *, now: datetime) -> list[str]:
    """The channels that something can be sent to now. Reads only."""
    found = connection.run("alert.waiting_channels", now=now, ids=list(sender.urls)).fetchall()
    waiting = [str(row["id"]) for row in found] + [
        row["channel"] for row in _homeless(connection, sender)
    ]
    deaths = sender.deaths_channel
    if (
        deaths is not None
        and connection.fetch_one("alert.deaths_wait", id=deaths, now=now)["waiting"]
    ):
        waiting.append(deaths)
    return waiting


def deliver_messages(
    connection: Connection, sender: Sender, *, now: datetime, seconds: float = DEADLINE_SECONDS
) -> dict[str, str | None]:
    """Send what waits, all channels at once.

    Args:
        connection: in autocommit mode.
        sender: where to.
        now: the moment.
        seconds: how long a channel may take.

    Returns:
        Of each channel that was sent to, why it failed; None if it did not.
    """
    urls = sender.urls
    connection.run("alert.add_channels", ids=list(urls), now=now)
    _readdress(connection, sender, now=now)
    connection.run("alert.give_up", before=now - _GIVE_UP, now=now)
    waiting = [
        row["id"] for row in connection.run("alert.waiting_channels", now=now, ids=list(urls))
    ]
    leased = [
        row["id"] for row in connection.run("alert.lease", now=now, ids=waiting, lease=_LEASE)
    ]
    told: dict[str, list[Notice]] = {}
    jobs: dict[str, Callable[[], str | None]] = {}
    for channel in leased:
        most = _PAGES_A_RUN if is_paging_channel(urls[channel]) else _NOTICES_A_MESSAGE
        told[channel] = _open(connection, channel, most)
        jobs[channel] = partial(
            sender.sends, urls[channel], told[channel], now=now, source=get_event_source(connection)
        )
    results = send_in_parallel(jobs, seconds=seconds)
    for channel, error in results.items():
        with connection.transaction():
            if error is None:
                sent = [notice.id for notice in told[channel]]
                connection.run("alert.record_sent", channel=channel, notices=sent, now=now)
            _record(connection, channel, error, messages=1, now=now)
    return results


def get_event_source(connection: Connection) -> str:
    """The source of our CloudEvents: no other installation has it, nor this database when it was made anew."""
    return f"{SOURCE}/{connection.fetch_one('alert.installation')['id']}"


def _homeless(connection: Connection, sender: Sender) -> list[DictRow]:
    return connection.run("alert.homeless", ids=list(sender.urls)).fetchall()


def _readdress(connection: Connection, sender: Sender, *, now: datetime) -> None:
    """Give what waits for a channel that is gone to those that are told of such a notice now.

    A channel is its address, and an address changes with its token: what waited for the old one is not told yet.
    """
    with connection.transaction():
        for row in _homeless(connection, sender):
            channels = select_channels(sender.routes, Severity(row["severity"]), row["event_type"])
            gone, notice = row["channel"], row["notice_id"]
            connection.run(
                "alert.readdress", notice=notice, channel=gone, channels=channels, now=now
            )


def _open(connection: Connection, channel: str, most: int) -> list[Notice]:
    rows = connection.run("alert.open_deliveries", channel=channel, limit=most)
    return [Notice(**row | {"severity": Severity(row["severity"])}) for row in rows]


def _record(
    connection: Connection, channel: str, error: str | None, *, messages: int, now: datetime
) -> None:
    if error is None:
        connection.run("alert.channel_worked", id=channel, messages=messages, now=now)
    else:
        connection.run("alert.channel_failed", id=channel, error=error, now=now)


def send_death_events(
    connection: Connection, sender: Sender, *, now: datetime, seconds: float = DEADLINE_SECONDS
) -> tuple[int, str | None]:
    """Tell the webhook of deaths what it was not told of yet, in batches of 100 and at most 25 of them.

    A death is taken off the list after its batch was accepted: killed in between, it is announced again.

    Args:
        connection: in autocommit mode.
        sender: where to.
        now: the moment.
        seconds: how long a batch may take.

    Returns:
        How many deaths were announced, and why it ended early, if it did.
    """
    channel, url = sender.deaths_channel, sender.deaths_url
    if channel is None or url is None:
        return 0, None
    connection.run("alert.add_channels", ids=[channel], now=now)
    if not connection.run("alert.lease", now=now, ids=[channel], lease=_DEATHS_LEASE).fetchall():
        return 0, None
    announced, batches, source = 0, 0, get_event_source(connection)
    error: str | None = None
    while batches < _BATCHES_A_RUN and error is None:
        rows = connection.run("alert.unannounced", limit=DEATHS_PER_BATCH).fetchall()
        if not rows:
            break
        events = [_death_event(row, source) for row in rows if row["event_id"] is not None]
        send = partial(send_webhook, url, sender.secret or "", events, now=now)
        error = send_in_parallel({channel: send}, seconds=seconds)[channel] if events else None
        if error is None:
            connection.run("alert.announced", ids=[row["death_id"] for row in rows])
            announced, batches = announced + len(events), batches + 1
    if batches or error is not None:
        _record(connection, channel, error, messages=batches, now=now)
    else:
        connection.run("alert.channel_worked", id=channel, messages=0, now=now)
    return announced, error


def _death_event(row: DictRow, source: str) -> dict[str, Any]:
    """A death as CloudEvent. Without error and payload, which exports know how to redact and this does not."""
    names = (
        "event_id",
        "event_type",
        "aggregate_type",
        "aggregate_id",
        "attempts",
        "cause_id",
        "exception_type",
    )
    return build_cloud_event(
        f"death/{row['death_id']}",
        "dlq.event.died",
        source=source,
        subject=str(row["event_id"]),
        at=row["died_at"],
        data={name: row[name] for name in names},
    )


def send_test_message(sender: Sender, *, now: datetime) -> dict[str, str | None]:
    """Send a test message to each channel, past all conditions; of each why it failed, None if it did not."""
    notice = Notice(
        0, "test", "fired", Severity.INFO, None, "A test of this channel", "Nothing is wrong.", now
    )
    send = partial(sender.sends, notices=[notice], now=now, source=SOURCE)
    return send_in_parallel({name: partial(send, url) for name, url in sender.urls.items()})


def list_channels(connection: Connection) -> list[Channel]:
    """How each channel is doing that was ever sent to."""
    return [Channel(**row) for row in connection.run("alert.channels")]
