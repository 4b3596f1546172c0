"""Declares what commands that change data share: who, why, dry run, confirmation, progress."""

import getpass
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from dlq_pipelines.cli.output import OutputFormat, print_record
from dlq_pipelines.cli.progress import show_progress
from dlq_pipelines.errors import DlqError, RefusedError

if TYPE_CHECKING:
    # A command imports what it needs when it runs.
    from dlq_pipelines.audit import AuditContext, RunOptions

T = TypeVar("T")
NOTHING_CHANGED = "Nothing was changed: this was a dry run."
# `audit.CONFIRM_ABOVE`, for the help, which must not wait for a database driver.
_CONFIRM_ABOVE = 1_000
_NARROW = "Narrow the filter, or preview with --dry-run."


def _get_account() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return ""


Actor = Annotated[
    str,
    typer.Option(
        default_factory=_get_account,
        show_default="your account",
        help="Who makes the change, for the audit log.",
    ),
]
REASON_HELP = "Why, for the audit log."
Reason = Annotated[str, typer.Option(help=REASON_HELP)]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print what would be done and change nothing.")
]
Yes = Annotated[
    bool,
    typer.Option(
        "--yes", help=f"Skip the confirmation, which more than {_CONFIRM_ABOVE:,} events need."
    ),
]


def prepare_change(
    actor: str, reason: str, *, dry_run: bool = False
) -> "tuple[AuditContext, RunOptions]":
    """Return the audit context of a change that a person makes now, and how it runs.

    Raises:
        ValueError: actor or reason is not storable; the message names it.
    """
    from dlq_pipelines.audit import AuditContext, RunOptions

    return AuditContext(actor, reason, datetime.now(UTC)), RunOptions(dry_run=dry_run)


def confirm_change(what: str, *, advice: str, way: str) -> None:
    """Ask for confirmation of a change.

    Args:
        what: the rest of "This will ...".
        advice: what to do if the person declines.
        way: what to do if nobody can be asked.

    Raises:
        RefusedError: the person declines or cannot be asked.
        KeyboardInterrupt: the person answers with Ctrl-C.
    """
    if not sys.stdin.isatty():
        raise RefusedError(
            f"This would {what} and needs a confirmation, "
            "but the standard input is no terminal. Nothing was changed.",
            way,
        )
    try:
        confirmed = typer.confirm(f"This will {what}. Continue?", err=True)
    except typer.Abort as abort:
        typer.echo(err=True)
        if isinstance(abort.__context__, KeyboardInterrupt):
            typer.echo("Nothing was changed.", err=True)
            raise KeyboardInterrupt from None
        raise RefusedError("Nothing was changed: there was no answer.", advice) from None
    if not confirmed:
        raise RefusedError("Nothing was changed: the answer was no.", advice)


def confirm_events(verb: str, events: int, *, yes: bool) -> None:
    """Ask for confirmation if a change affects many events.

    Args:
        verb: names the change, such as "retry".
        events: the number of events.
        yes: skip the confirmation.

    Raises:
        RefusedError: the person declines or cannot be asked.
        KeyboardInterrupt: the person answers with Ctrl-C.
    """
    from dlq_pipelines.audit import CONFIRM_ABOVE

    if yes or events <= CONFIRM_ABOVE:
        return
    confirm_change(
        f"{verb} {events:,} events",
        advice=_NARROW,
        way="Preview with --dry-run, then pass --yes or narrow the filter.",
    )


def apply_to_many(
    change: "Callable[[RunOptions], T]",
    options: "RunOptions",
    *,
    verb: str,
    count: Callable[[T], int],
    yes: bool,
    missing: Callable[[T], DlqError] | None = None,
) -> T:
    """Change many events: count them, ask for confirmation if they are many, then show progress.

    Args:
        change: makes the change, or counts it in a dry run.
        options: how the change runs.
        verb: names the change, such as "retry".
        count: returns the number of events in a result.
        yes: skip the confirmation.
        missing: returns the error if events were named by their ids and none was changed;
            None if they were not named.

    Raises:
        NotFoundError: none of the named events could be changed; or what `missing` returns.
        RefusedError: the events are many, and the person declines or cannot be asked.
    """
    from dlq_pipelines.audit import run_after_permission

    def change_with_progress(options: "RunOptions") -> T:
        title = f"Counting the events to {verb}" if options.dry_run else verb.capitalize()
        with show_progress(title, "event") as report:
            return change(replace(options, progress=report))

    permit = None if yes else lambda many: confirm_events(verb, many, yes=False)
    result = run_after_permission(change_with_progress, options, count=count, permit=permit)
    if missing is not None and not count(result):
        raise missing(result)
    return result


def print_change(
    sentence: str, row: dict[str, Any], *, hint: str = "", dry_run: bool, format: OutputFormat
) -> None:
    """Print a change: the row for programs, the sentence and the next command for people."""
    if format is not OutputFormat.TABLE:
        print_record(row | {"dry_run": dry_run}, format=format)
        return
    typer.echo(sentence)
    if last_line := NOTHING_CHANGED if dry_run else hint:
        typer.echo(last_line)
