"""How do dead events go back to the worker, paced, each exactly once, and what became of them?

A release is one statement: what may go is locked, made pending with its due time, and written into the ledger. A
process that dies leaves either all of a page or nothing of it, and whoever comes next goes on.
"""

import json
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg

from dlq_pipelines.causes.classify import excerpt
from dlq_pipelines.causes.fingerprint import fingerprint
from dlq_pipelines.errors import DlqError, NotFoundError, RefusedError
from dlq_pipelines.operation import LONGEST_REASON, Act, record_operation
from dlq_pipelines.outbox.event import Selector, event_ids, positive, storable
from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.retries.fix import (
    BATCH,
    Close,
    Fix,
    FixStatus,
    Left,
    Release,
    RetryPolicy,
    Stage,
    Step,
    Terms,
    Wait,
    next_step,
)
from dlq_pipelines.retries.ledger import congestion, fix_from_row, get_fix, means, stages

# Failed events whose errors are read for a verdict.
_EVIDENCE = 200
_SHOWN_PAIRS = 5
# Of a payload that a person writes, in characters: far more than anybody does.
_LONGEST_PAYLOAD = 10_000_000
# Of a death: when, and of which event. A walk goes in this order and on behind what it saw last.
_Key = tuple[datetime, int]
# What a page of deaths is asked for, by the names of the statement.
Asked = dict[str, Any]
_START: _Key = (datetime(1, 1, 1, tzinfo=UTC), 0)


@dataclass(frozen=True)
class Retried:
    """How many of the events that were meant were dead and are pending now, in how many transactions.

    `locked` more are dead too, and were passed over: other transactions hold them, or they died after it was agreed how
    many go.
    """

    events: int
    batches: int
    locked: int = 0

    def __add__(self, more: "Retried") -> "Retried":
        return Retried(self.events + more.events, self.batches + more.batches, self.locked + more.locked)


@dataclass(frozen=True)
class Advanced:
    """What one run did for a fix: events released and settled by it, and the step at which it stopped.

    `busy` says that another run held the fix, so this one released nothing.
    """

    fix: Fix
    released: int
    settled: int
    step: Step | None
    busy: bool = False


@dataclass(frozen=True)
class Page:
    """What stands at one page of deaths.

    Attributes:
        taken: events that this transaction locked, or released.
        deaths: theirs, oldest first, where they were only locked. An array as PostgreSQL writes it: it goes back as it
            came, and thousands of numbers need not be read and written here.
        free: events that may go; more than were taken, where there was no room for all, or others hold them.
        waiting: events that follow one of their aggregate which is under way.
        held: events that follow a dead one of their aggregate.
        parked: events that were retried too often.
        rows: deaths that were read; fewer than `BATCH` in the last page.
        last_time: when the last of them was; of a page without any, that behind which it was to begin.
        last_id: which event the last of them was of, likewise.
    """

    taken: int
    deaths: str
    free: int
    waiting: int
    held: int
    parked: int
    rows: int
    last_time: datetime
    last_id: int

    @property
    def ended(self) -> bool:
        """Nothing comes behind it."""
        return self.rows < BATCH

    @property
    def last(self) -> _Key:
        """Behind which death the next one begins."""
        return self.last_time, self.last_id


@dataclass(frozen=True)
class _Walk:
    """How far a walk through the deaths of a fix came, and what it met that may not go now.

    Attributes:
        after: behind which death it goes on.
        moved: it has released something, which may be delivered by now, and then something that the walk passed may
            follow. So if it passed anything but what is parked, at its end there is another one.
        locked: events that other transactions hold.
        left: what it met, of use once it has ended.
        ended: it came from the start to the end, and nothing can follow.
    """

    after: _Key = _START
    moved: bool = False
    locked: int = 0
    left: Left = Left()  # noqa: RUF009 - frozen
    ended: bool = False

    def past(self, page: Page, *, limit: int) -> "_Walk":
        """The walk behind that page, of which so many events could have been released."""
        moved, locked = self.moved or page.taken > 0, self.locked + page.free - page.taken
        left = Left(*(getattr(self.left, name) + getattr(page, name) for name in ("waiting", "held", "parked")))
        follows = locked or left.waiting or left.held
        if limit == page.taken < page.free or (page.ended and moved and follows):
            return _Walk()
        after = self.after if page.ended else page.last
        return _Walk(after=after, moved=moved, locked=locked, left=left, ended=page.ended)


def retry_events(connection: Connection, ids: Sequence[int], *, act: Act, rate: float | None = None) -> Retried:
    """Retry these events, also parked ones; those that are not dead are passed over.

    Args:
        connection: in autocommit mode.
        ids: event ids, any number; they are released in transactions of `BATCH`, in the order of their ids.
        act: who asks for it, and why.
        rate: events a second at which they fall due; None: all now, as fits a handful chosen by a person.

    Raises:
        ValueError: there are no ids, or one is no event id.
    """
    wanted = event_ids("ids", ids)
    total = Retried(0, 0)
    for start in range(0, len(wanted), BATCH):
        batch = Selector(event_ids=tuple(wanted[start : start + BATCH]))
        total += retry_selected(connection, batch, act=act, rate=rate, max_retries=None, already=total.events)
    return total


def retry_selected(  # noqa: PLR0913 - keyword-only past the selector
    connection: Connection,
    selector: Selector,
    *,
    act: Act,
    rate: float | None,
    max_retries: int | None,
    already: int = 0,
) -> Retried:
    """Retry all that a selector means and that is dead now, oldest death first.

    Args:
        connection: in autocommit mode.
        selector: the dead events.
        act: who asks for it, and why.
        rate: events a second at which they fall due; None: all now.
        max_retries: events that died again after so many retries are parked and passed over; None: take them too.
        already: events that the same act has retried before: these fall due behind them.

    Raises:
        NotFoundError: no such cause.
    """

    def take(asked: Asked, taken: int) -> Page:
        if act.dry_run:
            return lock_page(connection, asked)
        due = act.now + timedelta(seconds=taken * _seconds_each(rate))
        page = _release(connection, asked, act=act, rate=rate, due=due)
        if page.taken:
            record_operation(connection, "retry.selected", shown(selector), act=act, events=page.taken)
        return page

    return take_selected(connection, selector, take, max_retries=max_retries, act=act, already=already)


def retry_event(
    connection: Connection, event_id: int, *, act: Act, payload: str | None = None, allow_edit: bool = False
) -> None:
    """Retry one dead event, due now, also a parked one.

    Args:
        connection: in autocommit mode.
        event_id: the event.
        act: who asks for it, and why.
        payload: with this payload instead, as JSON text; None: with its own.
        allow_edit: whether this installation allows another payload.

    Raises:
        NotFoundError: the event is not dead.
        RefusedError: another payload is not allowed here, or another transaction holds the event.
        ValueError: the payload is no JSON that PostgreSQL can store.
    """
    if payload is not None:
        retry_with_payload(connection, event_id, payload, act=act, allowed=allow_edit)
    elif not retry_events(connection, [event_id], act=act).events:
        selector = Selector(event_ids=(event_id,))
        with connection.transaction(force_rollback=True):
            raise _not_retried(event_id, lock_page(connection, _manual(connection, selector)))


def retry_with_payload(connection: Connection, event_id: int, payload: str, *, act: Act, allowed: bool) -> None:
    """Retry one dead event with another payload. The ledger keeps the one that it had.

    Args:
        connection: in autocommit mode.
        event_id: the event.
        payload: as JSON text, because numbers that are read and written again may lose digits.
        act: who asks for it, and why.
        allowed: whether this installation allows it.

    Raises:
        RefusedError: this installation does not allow it, or another transaction holds the event.
        ValueError: the payload is no JSON that PostgreSQL can store.
        NotFoundError: the event is not dead.
    """
    if not allowed:
        raise RefusedError("Payloads may not be edited here. Set DLQ_ALLOW_EDIT=true where that is decided.")
    selector = Selector(event_ids=(positive("event_id", event_id),))
    _require_json(connection, payload)
    with connection.transaction(force_rollback=act.dry_run):
        asked = _manual(connection, selector)
        page = lock_page(connection, asked)
        if not page.taken:
            raise _not_retried(event_id, page)
        if act.dry_run:
            return
        _release(connection, asked, act=act)
        connection.run("retry.replace_payload", event_id=event_id, deaths=page.deaths, payload=payload)
        record_operation(connection, "retry.payload", {"event_ids": [event_id]}, act=act, events=1)


def advance_fix(connection: Connection, fix_id: int, *, act: Act, terms: Terms) -> Advanced:
    """Settle what the fix has released, decide, and do the next step, until it has to wait or has ended.

    Running it twice, at once or after being killed, does nothing twice: every step is a transaction of its own that
    locks the fix and decides afresh on what it finds. Outcomes are written down before the first of them, without that
    lock, so that a million of them keep nobody from withdrawing the fix.

    A dry run is one transaction that is rolled back.
    """
    with connection.transaction(force_rollback=True) if act.dry_run else nullcontext():
        settled = _settle_own(connection, fix_id, act=act, terms=terms)
        return _advance(connection, fix_id, settled, act=act, terms=terms)


def withdraw_fix(connection: Connection, fix_id: int, *, act: Act) -> Fix:
    """End a fix whose claim is taken back. What is released stays with the worker; nothing else follows.

    Raises:
        NotFoundError: there is no such fix.
        RefusedError: it has ended already.
    """
    with connection.transaction(force_rollback=act.dry_run):
        fix = _lock_open(connection, fix_id)
        _close(connection, fix, Close(FixStatus.WITHDRAWN, f"withdrawn by {act.actor}: {act.reason}"), act=act)
        return get_fix(connection, fix_id)


def pause_fix(connection: Connection, fix_id: int, *, act: Act) -> Fix:
    """Let nothing follow until it is resumed. What is released stays with the worker, and its targets stay its own.

    Raises:
        NotFoundError: there is no such fix.
        RefusedError: it has ended, or is paused already.
    """
    return _set_status(connection, fix_id, FixStatus.ACTIVE, FixStatus.PAUSED, act=act)


def resume_fix(connection: Connection, fix_id: int, *, act: Act) -> Fix:
    """Let a paused fix go on where it stopped.

    Raises:
        NotFoundError: there is no such fix.
        RefusedError: it has ended, or is not paused.
    """
    return _set_status(connection, fix_id, FixStatus.PAUSED, FixStatus.ACTIVE, act=act)


def settle(connection: Connection, *, now: datetime, settle_seconds: int, fix_id: int | None = None) -> int:
    """Write down what became of retried events: done, dead again, gone, or without outcome in time. Returns how many.

    Of the retries that this fix has released; without a fix, of those that people asked for.

    Args:
        connection: in autocommit mode: outcomes and counters are written `BATCH` retries a transaction.
        now: what falls due later is not looked at.
        settle_seconds: how long after its due time an event may stay without outcome.
        fix_id: the fix.
    """
    asked = {"now": now, "settle_seconds": settle_seconds, "fix_id": fix_id, "rows": BATCH}
    settled: int = 0
    key = _START
    while True:
        page = connection.one("retry.settle", **asked, **_behind(key))
        settled += page["events"]
        if page["rows"] < BATCH:
            return settled
        key = page["last_time"], page["last_id"]


def settle_retries(connection: Connection, *, now: datetime, settle_seconds: int) -> int:
    """`settle` what no active fix waits for: retries of people, and what ended or paused fixes left. Returns how many.

    Also notes up to `BATCH` events that were delivered only after their retry was given up.
    """
    left = [row["id"] for row in connection.run("retry.left_by_fixes")]
    total = sum(settle(connection, now=now, settle_seconds=settle_seconds, fix_id=fix_id) for fix_id in (None, *left))
    connection.run("retry.note_late", now=now, limit=BATCH)
    return total


def take_selected(  # noqa: PLR0913 - keyword-only past what takes
    connection: Connection,
    selector: Selector,
    take: Callable[[Asked, int], Page],
    *,
    max_retries: int | None,
    act: Act,
    already: int = 0,
) -> Retried:
    """Do something with all that a selector means and that is dead as this begins, oldest death first.

    Args:
        connection: in autocommit mode.
        selector: the dead events.
        take: is given what a page of at most `BATCH` is asked for, and how many were done before, in a transaction of
            its own; returns the page, with how many of it were taken, or in a dry run would be.
        max_retries: events that died again after so many retries are passed over; None: taken too.
        act: who asks for it. Of a dry run each transaction is rolled back: also a look runs the application's own
            triggers of statements.
        already: events that were done before, of the same act.

    Raises:
        NotFoundError: no such cause.
    """
    asked = _manual(connection, selector, max_retries=max_retries)
    total = Retried(0, 0)
    while True:
        asked["room"] = act.room(already + total.events, BATCH)
        with connection.transaction(force_rollback=act.dry_run):
            page = take(asked, already + total.events)
        total += Retried(page.taken, int(page.taken > 0), page.free - page.taken)
        act.progress(already + total.events)
        if page.ended:
            return total
        asked |= _behind(page.last)


def lock_page(connection: Connection, asked: Asked) -> Page:
    """Lock what may go of a page, until the transaction ends."""
    return _page(connection, asked, release=False, due=None, seconds_each=None, now=None, actor=None, reason=None)


def none_taken(done: Retried, kind: str) -> DlqError:
    """Why nothing happened to events that somebody named, which had to be of that kind: "dead" or "parked"."""
    if done.locked:
        held = "this event" if done.locked == 1 else f"these {done.locked:,} events"
        return RefusedError(f"Other transactions hold {held}. Try again when those have ended.")
    return NotFoundError(f"None of these events is {kind}. `dlq dead-events show ID` says what became of one.")


def shown(selector: Selector) -> dict[str, Any]:
    """What was asked for, for the audit: of many ids the first hundred, and how many more there were."""
    asked = selector.as_json()
    ids = asked.pop("event_ids", None)
    return asked if ids is None else {**asked, "event_ids": list(ids[:100]), "more": max(0, len(ids) - 100)}


def _manual(connection: Connection, selector: Selector, *, max_retries: int | None = None) -> Asked:
    """What a person's retry asks for: what is dead as it begins, so that what dies again meanwhile does not follow."""
    before = connection.one("session.clock")["now"]
    where = means(connection, selector, before=before)
    own = {"before": before, "fix_id": None, "stage": None, "max_retries": max_retries, "ordered": False}
    return {**where, **own, **_behind(_START), "room": BATCH}


def _behind(key: _Key) -> Asked:
    return {"after_time": key[0], "after_id": key[1]}


def _page(connection: Connection, asked: Asked, **release: object) -> Page:
    return Page(**connection.one("retry.take", **asked, **release, rows=BATCH))


def _release(
    connection: Connection, asked: Asked, *, act: Act, rate: float | None = None, due: datetime | None = None
) -> Page:
    """Release what may go of a page, the first of it due then or at once."""
    pace = {"seconds_each": _seconds_each(rate), "due": due or act.now}
    return _page(connection, asked, release=True, now=act.now, actor=act.actor, reason=act.reason, **pace)


def _seconds_each(rate: float | None) -> float:
    return 1 / rate if rate else 0.0


def _advance(connection: Connection, fix_id: int, settled: int, *, act: Act, terms: Terms) -> Advanced:
    released, walk = 0, _Walk()
    while True:
        with connection.transaction():
            fix = _take(connection, fix_id, terms)
            if fix is None or fix.closed_at is not None:
                return Advanced(get_fix(connection, fix_id), released, settled, None, busy=fix is None)
            policy = fix.policy or terms.policy
            step = _decide(connection, fix, policy, walk, act=act, terms=terms)
            count, walk = _do(connection, fix, policy, step, walk, act=act)
            released += count
            connection.run("fix.stepped", fix_id=fix_id, now=act.now)
        if isinstance(step, Wait | Close):
            return Advanced(get_fix(connection, fix_id), released, settled, step)


def _settle_own(connection: Connection, fix_id: int, *, act: Act, terms: Terms) -> int:
    """Settle what an open fix has released; what an ended one left is settled with the retries of people."""
    fix = get_fix(connection, fix_id)
    if fix.closed_at is not None:
        return 0
    policy = fix.policy or terms.policy
    return settle(connection, now=act.now, fix_id=fix_id, settle_seconds=policy.settle_seconds)


def _take(connection: Connection, fix_id: int, terms: Terms) -> Fix | None:
    """The fix, locked and with all that the installation decides for it; None: another run has it."""
    row = connection.run("fix.lock", fix_id=fix_id).fetchone()
    if row is None:
        return None
    if row["closed_at"] is None and (row["canary"] is None or row["expires_at"] is None):
        row = connection.one("fix.adopt", fix_id=fix_id, expiry=terms.expiry, **vars(terms.policy))
    return fix_from_row(row)


def _decide(  # noqa: PLR0913 - keyword-only past the walk
    connection: Connection, fix: Fix, policy: RetryPolicy, walk: _Walk, *, act: Act, terms: Terms
) -> Step:
    if walk.ended and walk.locked:
        return Wait(f"{walk.locked} events are held by other transactions")
    if walk.ended and (unclassified := connection.one("fix.unclassified", fix_id=fix.id)["deaths"]):
        return Wait(f"{unclassified} deaths from before the flag have no cause yet, so they may be meant")
    stage = stages(connection, fix.id).get(fix.stage, Stage())
    congested = congestion(connection, now=act.now, max_backlog=terms.max_backlog)
    left = walk.left if walk.ended else None
    return next_step(fix, policy, stage, now=act.now, left=left, congested=congested)


def _do(  # noqa: PLR0913 - keyword-only past the walk
    connection: Connection, fix: Fix, policy: RetryPolicy, step: Step, walk: _Walk, *, act: Act
) -> tuple[int, _Walk]:
    """Carry the step out; returns how many events it released, and where the walk stands."""
    match step:
        case Release():
            asked = {**_targets(connection, fix, policy), **_behind(walk.after), "room": min(step.limit, BATCH)}
            page = _release_stage(connection, fix, policy, step.stage, asked, act=act)
            return page.taken, walk.past(page, limit=step.limit)
        case Close():
            _close(connection, fix, step, act=replace(act, reason=step.verdict))
        case Wait():
            pass
    return 0, walk


def _targets(connection: Connection, fix: Fix, policy: RetryPolicy) -> Asked:
    return {
        **means(connection, fix.selector, before=fix.flagged_at),
        "before": fix.flagged_at,
        "fix_id": fix.id,
        "max_retries": policy.max_retries,
        "ordered": policy.ordering == "aggregate",
    }


def _release_stage(  # noqa: PLR0913 - keyword-only past what is asked for
    connection: Connection, fix: Fix, policy: RetryPolicy, number: int, asked: Asked, *, act: Act
) -> Page:
    """Release a page of a stage, which begins with the first event that is released."""
    stage = {"fix_id": fix.id, "stage": number}
    signed = replace(act, reason=f"fix {fix.id}, stage {number}: {fix.note}"[:LONGEST_REASON])
    pace = {"seconds_each": _seconds_each(policy.rate), "now": act.now}
    due = connection.one("retry.next_due", fix_id=fix.id, **pace)["due"]
    page = _release(connection, {**asked, **stage}, act=signed, rate=policy.rate, due=due)
    if page.taken:
        if number > fix.stage:
            connection.run("fix.begin_stage", **stage, size=policy.size(number), now=act.now)
        connection.run("fix.count_released", **stage, events=page.taken)
        record_operation(connection, "retry.stage", {"fix": fix.id, "stage": number}, act=signed, events=page.taken)
    return page


def _close(connection: Connection, fix: Fix, close: Close, *, act: Act) -> None:
    """End the fix, and say of its cause, where it means the whole of it, what is known now."""
    evidence = _evidence(connection, fix) if close.status is FixStatus.HALTED else []
    connection.run(
        "fix.close",
        fix_id=fix.id,
        status=close.status,
        verdict=close.verdict,
        evidence=json.dumps(evidence),
        now=act.now,
    )
    record_operation(connection, f"fix.{close.status}", {"fix": fix.id}, act=act)


def _evidence(connection: Connection, fix: Fix) -> list[dict[str, Any]]:
    """The new errors beside the old, those that most events failed of first.

    By fingerprint, because the new deaths need not be classified yet.
    """
    rows = connection.run("fix.failures", fix_id=fix.id, stage=fix.stage, limit=_EVIDENCE).fetchall()
    pairs: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        after = fingerprint(row["after"]).id if row["outcome"] == "dead" else str(row["outcome"])
        pairs.setdefault((fingerprint(row["before"]).id, after), []).append(row)
    most = sorted(pairs.items(), key=lambda pair: (-len(pair[1]), pair[0]))[:_SHOWN_PAIRS]
    return [
        {
            "events": len(rows),
            "outcome": rows[0]["outcome"],
            "before": excerpt(rows[0]["before"] or ""),
            "after": excerpt(rows[0]["after"] or ""),
        }
        for _, rows in most
    ]


def _not_retried(event_id: int, page: Page) -> DlqError:
    """Why an event that somebody named was not there to be taken."""
    if page.free:
        return RefusedError(
            f"Event {event_id} is dead, but another transaction holds it. Retry it when that has ended."
        )
    return NotFoundError(
        f"Event {event_id} is not dead, so there is nothing to retry. `dlq dead-events show {event_id}` says what "
        "became of it."
    )


def _require_json(connection: Connection, payload: str) -> None:
    try:
        connection.run("retry.read_payload", payload=storable("payload", payload, most=_LONGEST_PAYLOAD))
    except psycopg.DataError as error:
        why = " ".join(part for part in (error.diag.message_primary, error.diag.message_detail) if part)
        raise ValueError(f"The payload is no JSON that PostgreSQL can store: {why}") from None


def _lock_open(connection: Connection, fix_id: int) -> Fix:
    """The fix, locked: a run that has it is waited for, and none finds it as it was."""
    row = connection.run("fix.lock_waiting", fix_id=positive("fix_id", fix_id)).fetchone()
    if row is None:
        raise NotFoundError(f"There is no fix {fix_id}. `dlq fixes list` lists them.")
    fix = fix_from_row(row)
    if fix.closed_at is not None:
        raise RefusedError(f"Fix {fix_id} is {fix.status} already. See `dlq fixes list`.")
    return fix


def _set_status(connection: Connection, fix_id: int, old: FixStatus, new: FixStatus, *, act: Act) -> Fix:
    with connection.transaction(force_rollback=act.dry_run):
        fix = _lock_open(connection, fix_id)
        if fix.status is not old:
            raise RefusedError(f"Fix {fix_id} is {fix.status}. See `dlq fixes list`.")
        connection.run("fix.set_status", fix_id=fix_id, status=new)
        record_operation(connection, f"fix.{new}", {"fix": fix_id}, act=act)
        return get_fix(connection, fix_id)
