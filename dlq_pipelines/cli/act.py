"""What does every command that changes something ask: who, why, and whether only to say what would be done?"""

import getpass
from datetime import UTC, datetime
from typing import Annotated

import typer

from dlq_pipelines.operation import Act


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


def act(actor: str, reason: str, *, dry_run: bool = False) -> Act:
    """The act of a person at this moment."""
    return Act(actor, reason, datetime.now(UTC), dry_run=dry_run)
