"""Assembles the `dlq` command line and turns errors into one line and an exit code.

Commands import what they need when they run: help and completion must not wait for Dagster.
Exit codes: 0 done, 1 failed, 2 usage error, 3 not found or not dead, 4 refused, 130 interrupted by
Ctrl-C, 141 output closed by its reader.
"""

import os
import re
import sys
from importlib import import_module
from typing import Annotated, Any

import click
import typer
import typer.main
from typer.core import TyperArgument, TyperCommand, TyperGroup

from dlq_pipelines.errors import DlqError, NotFoundError, RefusedError


class _Argument(TyperArgument):
    """A positional argument that keeps its help, which click 8.5 resets after Typer has set it."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.help = given["help"]


typer.main.TyperArgument = _Argument  # type: ignore[attr-defined]
# Typer lists the arguments itself; click would list them a second time.
TyperCommand.format_arguments = lambda *_: None  # type: ignore[method-assign]
# The name of each module with a command, and the summary of its help.
_SUMMARIES = {
    "try": "Show why events of an outbox died, before anything is installed.",
    "adopt": "Propose a mapping for an outbox table.",
    "migrate": "Apply pending migrations.",
    "doctor": "Check the installation.",
    "erase": "Erase payloads and errors of events from outbox, archive, ledger, fixes and alerts.",
    "demo": "Play fourteen days of a shop whose deliveries really fail, and run every job.",
    "up": "Run Dagster's UI and daemon for this installation.",
    "serve": "Serve the pages and the HTTP API, which is described at /docs.",
    "tonight": "Show what failed lately: new causes, those that are back, those that rose, and "
    "alerts.",
    "dead-events": "Events that died.",
    "archive": "The archive of dead events.",
    "causes": "The causes of death.",
    "fixes": "Fixes and the events that they retry.",
    "deployments": "Deployments of services, which causes and fixes are shown with.",
    "reports": "The daily failure reports.",
    "alerts": "Alerts and the channels that they are sent to.",
    "audit": "The audit log: who changed what, when and why.",
    "tokens": "Tokens of the HTTP API.",
}


# A module cannot have the name of a keyword.
_MODULES = {"try": "trial"}


class _Commands(TyperGroup):
    """The commands of `dlq`. A command's module is imported when the command is used.

    Help and completion of `dlq` itself need names and summaries only; the modules take 60 ms.
    """

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.commands = {
            name: click.Command(name, help=summary) for name, summary in _SUMMARIES.items()
        }

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        return name, load_command(name) if name and command else None, rest


def list_commands() -> list[str]:
    """Return the names of all commands and groups of commands, in the order of the help."""
    return list(_SUMMARIES)


def load_command(name: str) -> click.Command:
    """Import a command or a group of commands.

    Args:
        name: one of `list_commands`. `app` of its module in `dlq_pipelines.cli` declares it.
    """
    module = import_module(f"dlq_pipelines.cli.{_MODULES.get(name, name.replace('-', '_'))}")
    parent = typer.Typer(rich_markup_mode=app.rich_markup_mode)
    parent.add_typer(module.app)
    return typer.main.get_group(parent).commands[name]


# Help has boxes on a terminal and is plain text anywhere else.
_IS_TERMINAL = bool(sys.stdout and sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb")
app = typer.Typer(
    name="dlq",
    cls=_Commands,
    epilog="Exit codes: 0 done, 1 failed, 2 usage error, 3 not found or not dead, 4 refused, "
    "130 interrupted by Ctrl-C, 141 output closed by its reader.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown" if _IS_TERMINAL else None,
)

# click names the types of Typer's options; only the message can be reworded.
_TYPE_NAMES = {
    "a valid integer range": "a whole number",
    "a valid integer": "a whole number",
    "a valid float range": "a number",
    "a valid float": "a number",
}
_FURTHER_SUGGESTIONS = re.compile(r"(Did you mean [^?]*\?)(?: \(?Did you mean [^?]*\?\)?)+")


def _print_version(requested: bool) -> None:
    if requested:
        from importlib.metadata import version

        typer.echo(f"dlq {version('dlq-pipelines')}")
        raise typer.Exit


@app.callback()
def dlq_command(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Dead-letter operations for a PostgreSQL transactional outbox.

    Example: `dlq causes list`, then `dlq dead-events list --limit 5`
    """


def run() -> int:
    """Run a command and return its exit code. An error is printed in one line on stderr.

    Raises:
        KeyboardInterrupt: the user stopped it.
        BrokenPipeError: the reader of its output has closed it.
    """
    try:
        return app(standalone_mode=False) or 0
    except BrokenPipeError:
        raise
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # Typer has turned it into an exit
            raise BrokenPipeError from None
        raise
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except Exception as error:
        text = _describe_error(error)
        if text is None:
            raise
        from rich.console import Console

        Console(stderr=True, soft_wrap=True, markup=False, highlight=False).print(f"dlq: {text}")
        return _exit_code(error)


def _describe_error(error: Exception) -> str | None:
    """Return message and hint in one line; None for a defect, which needs its stack trace."""
    if isinstance(error, click.ClickException):
        text = _describe_usage_error(error)
    elif isinstance(error, OSError) and error.filename is not None:
        text = (
            f"Cannot use {str(error.filename)!r}: {error.strerror}. Check the path and its rights."
        )
    elif isinstance(error, DlqError | ValueError | OSError):
        text = str(error)
    # An error of psycopg is impossible before its import.
    elif (psycopg := sys.modules.get("psycopg")) and isinstance(error, psycopg.Error):
        from dlq_pipelines.postgres.transient import describe_transient_error

        message = (error.diag.message_primary or type(error).__name__).rstrip(".")
        hint = error.diag.message_hint or (
            "Check DLQ_OUTBOX_SCHEMA and DLQ_OUTBOX_TABLE, then run `dlq doctor`."
            if isinstance(error, psycopg.errors.UndefinedTable)
            else "Check the role and the server, then run `dlq doctor`."
        )
        text = describe_transient_error(error) or f"PostgreSQL refused: {message}. {hint}"
    else:
        return None
    from dlq_pipelines.text import sanitize_line

    # The text may contain hostile text of a server, a file name or an argument.
    return sanitize_line(text, 2000)


def _describe_usage_error(error: click.ClickException) -> str:
    """Return what is wrong with the arguments, and the command that explains them."""
    message = error.format_message()
    for name, plain_name in _TYPE_NAMES.items():
        message = message.replace(name, plain_name)
    context = error.ctx if isinstance(error, click.UsageError) else None
    words = context.command_path.split()[1:] if context else []
    # Typer appends a suggestion to that of click, in the same or in other words.
    message = _FURTHER_SUGGESTIONS.sub(r"\1", message.rstrip("."))
    end = "" if message.endswith("?") else "."
    return f"{message}{end} See `{' '.join(['dlq', *words, '--help'])}`."


def _exit_code(error: Exception) -> int:
    match error:
        case click.ClickException():
            return error.exit_code
        case NotFoundError():
            return 3
        case RefusedError():
            return 4
        case ValueError():
            return 2
        case _:
            return 1
