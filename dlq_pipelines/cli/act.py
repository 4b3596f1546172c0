"""What does every command that changes something ask: who, why, only to say what it would do, and is it meant?"""

import getpass
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from dlq_pipelines.cli.output import Format, show
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


def act(actor: str, reason: str, *, dry_run: bool = False) -> "Act":
    """The act of a person at this moment."""
    from dlq_pipelines.operation import Act

    return Act(actor, reason, datetime.now(UTC), dry_run=dry_run)


def confirm(doing: str, events: int, *, yes: bool) -> None:
    """Ask whether so many events are meant, where they are many.

    Args:
        doing: what is about to be done to them, such as "retry".
        events: how many.
        yes: the person has said so already.

    Raises:
        RefusedError: the person does not mean it, or cannot be asked.
    """
    from dlq_pipelines.operation import ASKED_ABOVE

    if yes or events <= ASKED_ABOVE:
        return
    if not sys.stdin.isatty():
        raise RefusedError(
            f"This would {doing} {events:,} events. Nothing was changed: nobody could be asked. "
            "Look with --dry-run, then say --yes or narrow it."
        )
    if not typer.confirm(f"This will {doing} {events:,} events. Go on?", err=True):
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

    done = carry_out(do, doing, events=events, permit=None if yes else lambda many: confirm(verb, many, yes=False))
    if missing is not None and not events(done):
        raise missing(done)
    return done


def tell(sentence: str, row: dict[str, Any], *, hint: str = "", dry_run: bool, format: Format) -> None:
    """Say what was done: to a program the row, to a person the sentence and what can be done next."""
    if format is not Format.TABLE:
        show([row | {"dry_run": dry_run}], format=format)
        return
    typer.echo(sentence)
    if after := "Nothing was changed: this was a dry run." if dry_run else hint:
        typer.echo(after)
