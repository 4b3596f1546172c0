"""Retries many events and prints the result, for the commands that retry without a fix."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from dlq_pipelines.cli.mutation import apply_to_many, print_change
from dlq_pipelines.cli.output import OutputFormat
from dlq_pipelines.text import format_count, format_seconds, sanitize_line

if TYPE_CHECKING:
    # A command imports what it needs when it runs.
    from dlq_pipelines.archive.restore import RestoreResult
    from dlq_pipelines.audit import RunOptions
    from dlq_pipelines.outbox.batches import RetryResult
    from dlq_pipelines.outbox.dead_events import OtherEvent
    from dlq_pipelines.retries.advance import AdvanceResult
    from dlq_pipelines.retries.fix import StoppedFix
    from dlq_pipelines.retries.recall import RecallResult

# Skipped events that are named for each reason; `--json` has all of them.
_MAX_NAMED = 10

Rate = Annotated[
    float | None,
    typer.Option(help="Events per second that fall due, at least 0.001. Default: DLQ_RETRY_RATE."),
]


def retry_many(
    retry: "Callable[[RunOptions], RetryResult]",
    options: "RunOptions",
    *,
    pace: tuple[float, timedelta],
    by_ids: bool,
    kind: str,
    yes: bool,
    others: "Sequence[OtherEvent]" = (),
) -> "RetryResult":
    """Retry events after a confirmation, with progress.

    Args:
        retry: retries the events, or counts them in a dry run.
        options: how the retry runs.
        pace: events a second that fall due, and how far ahead of it they may be released.
        by_ids: the events are named by their ids only, so it is an error if none is retried.
        kind: the kind of events, for that error: "dead" or "parked".
        yes: skip the confirmation.
        others: those of the named events that are not dead.
    """
    from dlq_pipelines.outbox.batches import build_nothing_taken_error
    from dlq_pipelines.retries.retry import retry_within_lookahead

    rate, lookahead = pace
    return apply_to_many(
        lambda options: retry_within_lookahead(retry, options, rate=rate, lookahead=lookahead),
        options,
        verb="retry",
        count=lambda done: done.events,
        yes=yes,
        missing=(lambda done: build_nothing_taken_error(done, kind, others)) if by_ids else None,
    )


def print_retried(
    done: "RetryResult",
    ids: Sequence[str] | None,
    others: "Sequence[OtherEvent]" = (),
    *,
    rate: float,
    dry_run: bool,
    format: OutputFormat,
) -> None:
    """Print how many events are retried, until when they fall due, and which are skipped, and why.

    Args:
        done: the result.
        ids: the events that were named.
        others: those of them that were not dead.
        rate: events a second that fall due.
        dry_run: whether nothing was changed.
        format: how it is printed.
    """
    if not done.events and format is OutputFormat.TABLE:
        print_nothing_done(done)
        return
    duration = format_seconds((done.events - 1) / rate) if done.events else ""
    verb = "Would retry" if dry_run else "Retried"
    events = format_count(done.events, "dead event")
    lines = [f"{verb} {events} at {rate:g} per second: due within {duration}."]
    lines += describe_others(others)
    unmatched = len(set(ids)) - done.events - done.locked - len(others) if ids else 0
    if unmatched:
        lines.append(f"Skipped: {format_count(unmatched, 'named event')} that does not match.")
    lines += filter(None, (describe_skipped(done), _describe_parked(done)))
    print_change(
        "\n".join(lines),
        asdict(done) | {"rate": rate, "others": [asdict(other) for other in others]},
        hint="See the outcome of an event: `dlq dead-events show ID`.",
        dry_run=dry_run,
        format=format,
    )


def print_recalled(done: "RecallResult", *, hint: str, dry_run: bool, format: OutputFormat) -> None:
    """Print how many events are recalled, and how many stay with the worker."""
    verb = "Would recall" if dry_run else "Recalled"
    print_change(
        f"{verb} {format_count(done.recalled, 'event')}; {_describe_left(done)}.",
        asdict(done),
        hint=hint,
        dry_run=dry_run,
        format=format,
    )


def describe_recall(done: "RecallResult | StoppedFix | AdvanceResult") -> str:
    """Return what became of released events: `953 recalled, 47 are with the worker`."""
    return f"{done.recalled:,} recalled, {_describe_left(done)}"


def _describe_left(done: "RecallResult | StoppedFix | AdvanceResult") -> str:
    return f"{done.with_worker:,} {'is' if done.with_worker == 1 else 'are'} with the worker"


def describe_others(others: "Sequence[OtherEvent]") -> list[str]:
    """Return a line for each state of the named events that are not dead."""
    by_state: dict[str, list[str]] = {}
    for other in others:
        by_state.setdefault(other.state, []).append(str(other.event_id))
    lines = []
    for state, ids in by_state.items():
        more = f" and {len(ids) - _MAX_NAMED:,} more" if len(ids) > _MAX_NAMED else ""
        names = sanitize_line(", ".join(ids[:_MAX_NAMED]), 1_000)
        lines.append(f"Skipped: {format_count(len(ids), 'event')} {state}: {names}{more}.")
    return lines


def print_nothing_done(done: "RetryResult") -> None:
    """Print why a filter selected no event that could be changed."""
    reasons = " ".join(filter(None, (describe_skipped(done), _describe_parked(done))))
    typer.echo(f"{reasons or 'No dead events match this filter.'} Nothing was changed.")


def describe_skipped(done: "RetryResult | RestoreResult") -> str:
    """Return how many matching events were skipped, and why; empty if none was."""
    if not done.locked:
        return ""
    return (
        f"Skipped: {format_count(done.locked, 'dead event')}, locked by another transaction or "
        "dead only since the count. Run the command again to include them."
    )


def _describe_parked(done: "RetryResult") -> str:
    if not done.parked:
        return ""
    parked = format_count(done.parked, "parked event")
    return f"Skipped: {parked}, retried too often. `--parked` includes parked events."
