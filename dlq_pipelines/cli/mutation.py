"""What does every command that changes something ask: who, why, only to say what it would do, and is it meant?"""

import getpass
import re
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
# `operation.ASKED_ABOVE`, for the help, which must not wait for a database driver.
_ASKED_ABOVE = 1_000


def _account() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return ""


Actor = Annotated[
    str,
    typer.Option(
        default_factory=_account, show_default="your account", help="Who does it, for the audit."
    ),
]
Reason = Annotated[str, typer.Option(help="Why, for whoever asks later.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]
Yes = Annotated[
    bool,
    typer.Option("--yes", help=f"Do not ask, however many events; asked above {_ASKED_ABOVE:,}."),
]


def prepare_change(
    actor: str, reason: str, *, dry_run: bool = False, called: str = "reason"
) -> "tuple[AuditContext, RunOptions]":
    """Return the audit context of a change that a person makes now, and how it runs.

    Raises:
        ValueError: actor or reason is not storable; the message names the reason as its option.
    """
    from dlq_pipelines.audit import AuditContext, RunOptions

    try:
        return AuditContext(actor, reason, datetime.now(UTC)), RunOptions(dry_run=dry_run)
    except ValueError as error:
        raise ValueError(re.sub(r"^reason\b", called, str(error))) from None


def confirm_events(doing: str, events: int, *, yes: bool) -> None:
    """Ask whether so many events are meant, where they are many.

    Args:
        doing: what is about to be done to them, such as "retry".
        events: how many.
        yes: the person has said so already.

    Raises:
        RefusedError: the person does not mean it, or cannot be asked.
        KeyboardInterrupt: Ctrl-C is an answer too.
    """
    from dlq_pipelines.audit import CONFIRM_ABOVE

    if yes or events <= CONFIRM_ABOVE:
        return
    if not sys.stdin.isatty():
        raise RefusedError(
            f"This would {doing} {events:,} events. Nothing was changed: nobody could be asked. "
            "Look with --dry-run, then say --yes or narrow it."
        )
    try:
        meant = typer.confirm(f"This will {doing} {events:,} events. Go on?", err=True)
    except typer.Abort as abort:
        typer.echo(err=True)
        if isinstance(abort.__context__, KeyboardInterrupt):
            typer.echo("Nothing was changed.", err=True)
            raise KeyboardInterrupt from None
        raise RefusedError(
            "Nothing was changed: there was no answer. Narrow it, or look with --dry-run."
        ) from None
    if not meant:
        raise RefusedError(
            "Nothing was changed: the answer was no. Narrow it, or look with --dry-run."
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
    """Say what was done: to a program the row, to a person the sentence and what can be done next."""
    if format is not OutputFormat.TABLE:
        print_record(row | {"dry_run": dry_run}, format=format)
        return
    typer.echo(sentence)
    if after := "Nothing was changed: this was a dry run." if dry_run else hint:
        typer.echo(after)
