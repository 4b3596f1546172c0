"""What does every command that changes something ask: who, why, only to say what it would do, and is it meant?"""

import getpass
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from dlq_pipelines.cli.output import Format, show_one
from dlq_pipelines.cli.progress import progress
from dlq_pipelines.errors import DlqError, RefusedError

if TYPE_CHECKING:
    # A command imports what it needs when it runs.
    from dlq_pipelines.operation import Act

T = TypeVar("T")
# `operation.ASKED_ABOVE`, for the help, which must not wait for a database driver.
_ASKED_ABOVE = 1_000


def _account() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return ""


Actor = Annotated[
    str, typer.Option(default_factory=_account, show_default="your account", help="Who does it, for the audit.")
]
Reason = Annotated[str, typer.Option(help="Why, for whoever asks later.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]
Yes = Annotated[bool, typer.Option("--yes", help=f"Do not ask, however many events; asked above {_ASKED_ABOVE:,}.")]


def act(actor: str, reason: str, *, dry_run: bool = False, called: str = "reason") -> "Act":
    """The act of a person at this moment.

    Raises:
        ValueError: actor or reason cannot be kept; the message calls the reason as its option is called.
    """
    from dlq_pipelines.operation import Act

    try:
        return Act(actor, reason, datetime.now(UTC), dry_run=dry_run)
    except ValueError as error:
        raise ValueError(re.sub(r"^reason\b", called, str(error))) from None


def confirm(doing: str, events: int, *, yes: bool) -> None:
    """Ask whether so many events are meant, where they are many.

    Args:
        doing: what is about to be done to them, such as "retry".
        events: how many.
        yes: the person has said so already.

    Raises:
        RefusedError: the person does not mean it, or cannot be asked.
        KeyboardInterrupt: Ctrl-C is an answer too.
    """
    from dlq_pipelines.operation import ASKED_ABOVE

    if yes or events <= ASKED_ABOVE:
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
        raise RefusedError("Nothing was changed: there was no answer. Narrow it, or look with --dry-run.") from None
    if not meant:
        raise RefusedError("Nothing was changed: the answer was no. Narrow it, or look with --dry-run.")


def do_many(
    do: "Callable[[Act], T]",
    doing: "Act",
    *,
    verb: str,
    events: Callable[[T], int],
    yes: bool,
    missing: Callable[[T], DlqError] | None = None,
) -> T:
    """Do something to many events: counted first, asked for where they are many.

    Args:
        do: does it, or in a dry run counts it.
        doing: who asks for it.
        verb: what is about to be done, such as "retry".
        events: how many a result is of.
        yes: the person need not be asked.
        missing: what to say where events were named by their ids and none of them was taken; None: they were not named.

    Raises:
        NotFoundError: none of the named events is one; or what else `missing` says.
        RefusedError: they are many, and the person does not mean it or cannot be asked.
    """
    from dlq_pipelines.operation import carry_out

    def do_and_tell(act: "Act") -> T:
        with progress(f"Looking what to {verb}" if act.dry_run else verb.capitalize(), "event") as told:
            return do(replace(act, progress=told))

    permit = None if yes else lambda many: confirm(verb, many, yes=False)
    done = carry_out(do_and_tell, doing, events=events, permit=permit)
    if missing is not None and not events(done):
        raise missing(done)
    return done


def tell(sentence: str, row: dict[str, Any], *, hint: str = "", dry_run: bool, format: Format) -> None:
    """Say what was done: to a program the row, to a person the sentence and what can be done next."""
    if format is not Format.TABLE:
        show_one(row | {"dry_run": dry_run}, format=format)
        return
    typer.echo(sentence)
    if after := "Nothing was changed: this was a dry run." if dry_run else hint:
        typer.echo(after)
