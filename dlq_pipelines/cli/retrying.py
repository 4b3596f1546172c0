"""How does a command retry many events, and what does it tell of them?"""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from dlq_pipelines.cli.act import do_many, tell
from dlq_pipelines.cli.output import Format, duration, program
from dlq_pipelines.text import counted

if TYPE_CHECKING:
    # A command imports what it needs when it runs.
    from dlq_pipelines.archive.restore import Restored
    from dlq_pipelines.operation import Act
    from dlq_pipelines.retries.page import Retried

Rate = Annotated[float | None, typer.Option(help="Events a second that fall due. Default: the installation's.")]


def retry_many(retry: "Callable[[Act], Retried]", doing: "Act", *, named: bool, kind: str, yes: bool) -> "Retried":
    """Retry what is meant.

    Args:
        retry: does it, or in a dry run counts it.
        doing: who asks for it.
        named: events were named by their ids, so that none of them may be none by mistake.
        kind: what they have to be: "dead" or "parked".
        yes: the person need not be asked.
    """
    from dlq_pipelines.retries.page import none_taken

    return do_many(
        retry,
        doing,
        verb="retry",
        events=lambda done: done.events,
        yes=yes,
        missing=(lambda done: none_taken(done, kind)) if named else None,
    )


def tell_retried(done: "Retried", ids: Sequence[int] | None, *, rate: float, dry_run: bool, format: Format) -> None:
    """Say how many events go back to the worker, how long that takes, and how many of the named ones do not."""
    row = asdict(done) | {"rate": rate}
    if not done.events and format is Format.TABLE:
        typer.echo(nothing_done(done))
        return
    lasts = duration((done.events - 1) / rate) if done.events else ""
    said = f"{'Would retry' if dry_run else 'Retried'} {counted(done.events, 'dead event')} at {rate:g} a second: "
    said += f"due within {lasts}."
    if ids and (passed := len(set(ids)) - done.events):
        said += f"\nPassed over: {passed:,} of those that were named."
    if done.locked:
        said += f"\n{passed_over(done)}"
    tell(said, row, hint=f"What became of one: `{program()} dead-events show ID`.", dry_run=dry_run, format=format)


def nothing_done(done: "Retried") -> str:
    """Why no event was taken that a filter means."""
    return f"{passed_over(done) or 'No dead event is meant by this.'} Nothing was changed."


def passed_over(done: "Retried | Restored") -> str:
    """What was passed over and is meant, if anything was."""
    if not done.locked:
        return ""
    meant = counted(done.locked, "dead event that is", "dead events that are")
    return f"Passed over: {meant} meant too, which others hold, or which came after the count. Try again for those."
