"""What does every command that changes something ask: who does it, and why?"""

import getpass
from typing import Annotated

import typer


def _account() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return ""


Actor = Annotated[
    str, typer.Option(default_factory=_account, show_default="your account", help="Who does it, for the audit.")
]
Reason = Annotated[str, typer.Option(help="Why, for whoever asks later.")]
