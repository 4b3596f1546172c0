"""What does every command that changes something ask: who, why, only to say what it would do, and is it meant?"""

import getpass
import sys
from datetime import UTC, datetime
from typing import Annotated

import typer

from dlq_pipelines.errors import RefusedError
from dlq_pipelines.operation import Act

# More events than this are changed only by somebody who says so twice.
ASKED_ABOVE = 1_000


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
Yes = Annotated[bool, typer.Option("--yes", help=f"Do not ask, however many events; asked above {ASKED_ABOVE:,}.")]


def act(actor: str, reason: str, *, dry_run: bool = False) -> Act:
    """The act of a person at this moment."""
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
    if yes or events <= ASKED_ABOVE:
        return
    if not sys.stdin.isatty():
        raise RefusedError(
            f"This would {doing} {events:,} events. Nothing was changed: nobody could be asked. "
            "Look with --dry-run, then say --yes or narrow it."
        )
    if not typer.confirm(f"This will {doing} {events:,} events. Go on?", err=True):
        raise RefusedError("Nothing was changed: the answer was no. Narrow it, or look with --dry-run.")
