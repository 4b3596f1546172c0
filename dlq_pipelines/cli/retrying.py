"""How does a command retry many events, and what does it tell of them?"""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from dlq_pipelines.cli.mutation import apply_to_many, print_change
from dlq_pipelines.cli.output import OutputFormat, format_seconds, program
from dlq_pipelines.text import format_count

if TYPE_CHECKING:
    # A command imports what it needs when it runs.
    from dlq_pipelines.archive.restore import RestoreResult
    from dlq_pipelines.audit import RunOptions
    from dlq_pipelines.outbox.batches import RetryResult

Rate = Annotated[
    float | None, typer.Option(help="Events a second that fall due. Default: the installation's.")
]


def retry_many(
    retry: "Callable[[RunOptions], RetryResult]",
    options: "RunOptions",
    *,
    named: bool,
    kind: str,
    yes: bool,
) -> "RetryResult":
    """Retry what is meant.

    Args:
        retry: does it, or in a dry run counts it.
        options: how the retry runs.
        named: events were named by their ids, so that none of them may be none by mistake.
        kind: what they have to be: "dead" or "parked".
        yes: the person need not be asked.
    """
    from dlq_pipelines.outbox.batches import build_nothing_taken_error

    return apply_to_many(
        retry,
        options,
        verb="retry",
        count=lambda done: done.events,
        yes=yes,
        missing=(lambda done: build_nothing_taken_error(done, kind)) if named else None,
    )


def print_retried(
    done: "RetryResult",
    ids: Sequence[int] | None,
    *,
    rate: float,
    dry_run: bool,
    format: OutputFormat,
) -> None:
    """Say how many events go back to the worker, how long that takes, and how many of the named ones do not."""
    row = asdict(done) | {"rate": rate}
    if not done.events and format is OutputFormat.TABLE:
        typer.echo(print_nothing_done(done))
        return
    lasts = format_seconds((done.events - 1) / rate) if done.events else ""
    said = f"{'Would retry' if dry_run else 'Retried'} {format_count(done.events, 'dead event')} at {rate:g} a second: "
    said += f"due within {lasts}."
    if ids and (passed := len(set(ids)) - done.events):
        said += f"\nPassed over: {passed:,} of those that were named."
    if done.locked:
        said += f"\n{describe_skipped(done)}"
    print_change(
        said,
        row,
        hint=f"What became of one: `{program()} dead-events show ID`.",
        dry_run=dry_run,
        format=format,
    )


def print_nothing_done(done: "RetryResult") -> str:
    """Why no event was taken that a filter means."""
    return f"{describe_skipped(done) or 'No dead event is meant by this.'} Nothing was changed."


def describe_skipped(done: "RetryResult | RestoreResult") -> str:
    """What was passed over and is meant, if anything was."""
    if not done.locked:
        return ""
    meant = format_count(done.locked, "dead event that is", "dead events that are")
    return f"Passed over: {meant} meant too, which others hold, or which came after the count. Try again for those."
