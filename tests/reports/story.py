"""Plays three weeks of a shop's dead events with the functions of the package, up to one day."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from dlq_pipelines.archive.archive import archive_dead_events, discard_events
from dlq_pipelines.archive.purge import purge_archive
from dlq_pipelines.archive.restore import restore_events
from dlq_pipelines.audit import AuditContext
from dlq_pipelines.causes.catalogue import mark_regressed_causes, mute_cause, set_cause_text
from dlq_pipelines.causes.classify import classify_deaths
from dlq_pipelines.causes.fingerprint import compute_cause_id
from dlq_pipelines.outbox.reconcile import reconcile_events
from dlq_pipelines.outbox.selection import Selection
from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.reports.figures import ReportPolicy, ReportWindow
from dlq_pipelines.retries.advance import advance_fix, pause_fix, withdraw_fix
from dlq_pipelines.retries.fix import FixTerms, RetryPolicy
from dlq_pipelines.retries.fixes import FixFlag, flag_fix
from dlq_pipelines.retries.recall import recall_retries
from dlq_pipelines.retries.retry import retry_events, retry_selected
from tests.rows import date_deaths, deaths_at
from tests.shapes import ShapedOutbox, adapt_connection

BERLIN = ZoneInfo("Europe/Berlin")
DAY = date(2026, 11, 20)
WINDOW = ReportWindow(DAY, BERLIN)
NOW = datetime(2026, 11, 21, 5, tzinfo=UTC)
POLICY = ReportPolicy(dead_retention_days=14, archive_retention_days=21)
_TERMS = FixTerms()
_TRACE = (
    "Traceback (most recent call last):\n"
    '  File "/srv/shop/worker.py", line 88, in run\n    handler(event)\n'
    '  File "/srv/shop/handlers/{place}.py", line 41, in handle\n    {code}\n'
)

LABEL = _TRACE.format(place="labels", code='order["postal_code"]') + "KeyError: 'postal_code'"
REFUSED = (
    _TRACE.format(place="stock", code="client.reserve(order)")
    + "ConnectionRefusedError: [Errno 111] Connection refused: stock.internal:8443"
)
DOUBLE = (
    _TRACE.format(place="ledger", code="session.commit()")
    + 'psycopg.errors.UniqueViolation: duplicate key value violates unique constraint "{name}"\n'
    "DETAIL:  Key (reference)=(A-4711) already exists."
)
ROUTE = (
    _TRACE.format(place="payments", code="response.raise_for_status()")
    + "requests.exceptions.HTTPError: 503 Server Error: Service Unavailable for url: "
    "https://pay.example/v2/charges"
)
CARRIER = (
    _TRACE.format(place="shipping", code="carrier.book(parcel)")
    + "TimeoutError: no answer from carrier in 30 s"
)
MAIL = (
    _TRACE.format(place="mail", code="smtp.send(letter)")
    + "smtplib.SMTPRecipientsRefused: mailbox is full"
)


@dataclass
class Story:
    """The outbox of the story, and the fixes of its last day."""

    outbox: ShapedOutbox
    label_fix: int = 0
    route_fix: int = 0


def add_deaths(
    outbox: ShapedOutbox,
    count: int,
    error: str,
    at: datetime,
    *,
    event_type: str = "order.placed",
    minutes: int = 7,
    attempts: int = 5,
    aggregates: int = 10_000,
) -> None:
    """Insert events that died one after the other, each written an hour before its death."""
    with deaths_at(outbox.connection, "d.event_created_at + interval '1 hour'"):
        numbers = outbox.add_events(count, event_type=event_type, aggregates=aggregates)
        died = (
            f"timestamptz '{at.isoformat()}'"
            f" + (n - {numbers[0] - 1}) * {minutes} * interval '1 minute'"
        )
        outbox.date_events(numbers, created=f"{died} - interval '1 hour'", due=died)
        outbox.give_up_together(numbers, error, attempts=attempts)


def create_story(given: Connection | ShapedOutbox) -> Story:
    """Play everything until the end of the day. The last deaths are not classified yet.

    Args:
        given: an outbox, or a connection to the reference table.
    """
    outbox = given if isinstance(given, ShapedOutbox) else adapt_connection(given)
    connection, start = outbox.connection, WINDOW.start
    for ago in range(20, 0, -1):
        at = start - timedelta(days=ago) + timedelta(hours=7)
        add_deaths(outbox, 6 + ago % 3, LABEL, at, event_type="order.paid")
        add_deaths(outbox, 4 + ago % 2, REFUSED, at + timedelta(hours=3))
        add_deaths(outbox, 8, MAIL, at, event_type="letter.due", attempts=2)
        if ago > 6:
            add_deaths(outbox, 5, CARRIER, at, event_type="parcel.packed")
        add_deaths(outbox, 3, ROUTE, at, event_type="order.paid")
    classify_deaths(connection, zone=BERLIN)
    _verify_carrier_fix(outbox, start - timedelta(days=5, hours=10))
    story = Story(outbox)
    _play_day(story, start)
    return story


def _verify_carrier_fix(outbox: ShapedOutbox, now: datetime) -> None:
    """Verify a fix days before the day."""
    carrier = flag_fix(
        outbox.connection,
        FixFlag(Selection(cause=compute_cause_id(CARRIER)), RetryPolicy(order="none")),
        audit=AuditContext("shipping-team", "the carrier's new address", now),
    )
    _advance(outbox, carrier.id, now, deliver=True, times=6)


def _play_day(story: Story, start: datetime) -> None:
    outbox, hour = story.outbox, timedelta(hours=1)
    connection = outbox.connection
    archive_dead_events(
        connection,
        before=start - timedelta(days=14),
        only_exported=False,
        audit=AuditContext("archive", "retention", start + 3 * hour),
    )
    reconcile_events(connection, now=start + 3 * hour)
    add_deaths(outbox, 7, LABEL, start + 2 * hour, event_type="order.paid")
    add_deaths(outbox, 12, CARRIER, start + 6 * hour, event_type="parcel.packed")
    add_deaths(outbox, 76, REFUSED, start + 8 * hour, minutes=3)
    add_deaths(outbox, 22, REFUSED, start + 8 * hour, event_type="order.cancelled", minutes=9)
    for name, count in (("orders_reference_key", 19), ("payments_pkey", 8)):
        add_deaths(
            outbox, count, DOUBLE.format(name=name), start + 10 * hour, event_type="order.paid"
        )
    add_deaths(outbox, 9, MAIL, start + 9 * hour, event_type="letter.due", attempts=2)
    classify_deaths(connection, zone=BERLIN)
    mark_regressed_causes(connection, now=start + 7 * hour)
    set_cause_text(
        connection,
        compute_cause_id(LABEL),
        "owner",
        "shipping-team",
        audit=AuditContext("ann", "theirs", start + 9 * hour),
    )
    set_cause_text(
        connection,
        compute_cause_id(REFUSED),
        "note",
        "Runbook: restart the stock service's sidecar first.",
        audit=AuditContext("ann", "known", start + 9 * hour),
    )
    mute_cause(
        connection,
        compute_cause_id(MAIL),
        start + timedelta(days=9),
        audit=AuditContext("ann", "customers'", start + 9 * hour),
    )
    _play_fixes(story, start)
    add_deaths(outbox, 4, "connection reset by peer", start + 23 * hour, minutes=2)


def _play_fixes(story: Story, start: datetime) -> None:
    """Flag two fixes: one is open at the end of the day, one is halted."""
    outbox, now = story.outbox, start + timedelta(hours=11)
    connection = outbox.connection
    label = FixFlag(
        Selection(cause=compute_cause_id(LABEL)),
        RetryPolicy(order="none"),
        link="v42",
        owner="shipping-team",
    )
    story.label_fix = flag_fix(
        connection, label, audit=AuditContext("shipping-team", "labels read the new field", now)
    ).id
    _advance(outbox, story.label_fix, now, deliver=True, times=1)
    route = FixFlag(Selection(cause=compute_cause_id(ROUTE)), RetryPolicy(order="none"))
    story.route_fix = flag_fix(
        connection, route, audit=AuditContext("payments-team", "route v2 works again", now)
    ).id
    _advance(outbox, story.route_fix, now, deliver=False, times=1)


def _advance(outbox: ShapedOutbox, fix: int, now: datetime, *, deliver: bool, times: int) -> None:
    """Advance a fix; deliver or kill its events in between. The last release has no outcome."""
    connection = outbox.connection
    for _ in range(times):
        advance_fix(connection, fix, audit=AuditContext("sensor", "due", now), terms=_TERMS)
        now += timedelta(minutes=30)
        if deliver:
            outbox.deliver(outbox.list_numbers("waiting"))
        else:
            retried = "select event_id::text as id from dlq.retry where fix_id = %s"
            ids = {row["id"] for row in connection.execute(retried, [fix])}
            waiting = outbox.list_numbers("waiting")
            outbox.give_up([n for n in waiting if str(outbox.event_id(n)) in ids], ROUTE)
            died_at = (now - timedelta(minutes=5)).isoformat()
            date_deaths(
                connection,
                f"timestamptz '{died_at}'",
                where=f"d.died_at > timestamptz '{WINDOW.until.isoformat()}'",
            )
            classify_deaths(connection, zone=BERLIN)
    advance_fix(connection, fix, audit=AuditContext("sensor", "due", now), terms=_TERMS)


def release_far_ahead(story: Story) -> None:
    """Retry parcels of the day by hand, due in decades, and recall those of one hour that day."""
    connection, hour = story.outbox.connection, timedelta(hours=1)
    retry_selected(
        connection,
        Selection(event_type="parcel.packed"),
        audit=AuditContext("ann", "asked", WINDOW.start + 12 * hour),
        rate=1e-9,
        max_retries=None,
    )
    recall_retries(
        connection,
        Selection(event_type="parcel.packed", since=WINDOW.start + 7 * hour),
        audit=AuditContext("ann", "too early", WINDOW.start + 13 * hour),
    )


def continue_story(story: Story) -> None:
    """Play later changes: deaths, retries, recalls, fixes, notes, archive, restore, purge."""
    outbox, now = story.outbox, WINDOW.until + timedelta(hours=2)
    connection = outbox.connection
    recall_retries(connection, Selection(all=True), audit=AuditContext("ann", "stop", now))
    classify_deaths(connection, zone=BERLIN)
    ids = outbox.event_ids(*outbox.list_numbers("dead"))
    retry_events(connection, ids[:40], audit=AuditContext("ann", "asked", now))
    _advance(outbox, story.label_fix, now, deliver=True, times=3)
    later = flag_fix(
        connection,
        FixFlag(Selection(cause=compute_cause_id(REFUSED))),
        audit=AuditContext("ann", "stock is back", now),
    )
    pause_fix(connection, later.id, audit=AuditContext("ann", "wait", now))
    withdraw_fix(connection, later.id, audit=AuditContext("ann", "it was not", now))
    for cause in (LABEL, CARRIER, MAIL):
        set_cause_text(
            connection,
            compute_cause_id(cause),
            "owner",
            "someone else",
            audit=AuditContext("ann", "moved", now),
        )
        set_cause_text(
            connection,
            compute_cause_id(cause),
            "note",
            "a later note",
            audit=AuditContext("ann", "moved", now),
        )
    mute_cause(
        connection, compute_cause_id(MAIL), None, audit=AuditContext("ann", "loud again", now)
    )
    mute_cause(
        connection,
        compute_cause_id(REFUSED),
        now + timedelta(days=3),
        audit=AuditContext("ann", "known", now),
    )
    add_deaths(outbox, 30, CARRIER, now, event_type="parcel.packed")
    add_deaths(outbox, 3, "a new one", now)
    classify_deaths(connection, zone=BERLIN)
    mark_regressed_causes(connection, now=now)
    discard_events(
        connection,
        Selection(event_ids=tuple(ids[40:45])),
        audit=AuditContext("ann", "given up", now),
    )
    archive_dead_events(
        connection, before=now, only_exported=False, audit=AuditContext("archive", "asked", now)
    )
    restored = tuple(ids[45:60])
    restore_events(
        connection,
        Selection(event_ids=restored),
        audit=AuditContext("ann", "asked", now + timedelta(days=1)),
    )
    retry_events(
        connection, restored[:5], audit=AuditContext("ann", "asked", now + timedelta(days=2))
    )
    purge_archive(
        connection,
        before=now + timedelta(minutes=1),
        audit=AuditContext("purge", "retention", now + timedelta(days=3)),
    )
    reconcile_events(connection, now=now)
