"""`dlq`: what can a person do from a terminal?

Commands import what they need when they run: help and completion must not wait for Dagster.
Exit codes: 0 done, 1 failed, 2 usage, 3 not found or not dead, 4 refused, 130 stopped by Ctrl-C, 141 nobody read on.
"""

import os
import sys
from typing import Annotated

import click
import typer
from rich.console import Console

from dlq_pipelines.cli import (
    alerts,
    archive,
    causes,
    dead_events,
    demo,
    doctor,
    fixes,
    migrate,
    reports,
    serve,
    up,
)
from dlq_pipelines.cli.output import callable_here
from dlq_pipelines.errors import DlqError, NotFoundError, RefusedError
from dlq_pipelines.text import sanitize_line

# Help has boxes where a person sees them on a terminal, and is plain text anywhere else.
_ON_A_TERMINAL = bool(
    sys.stdout and sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
)
app = typer.Typer(
    name="dlq",
    help="Dead-letter operations for a PostgreSQL transactional outbox.",
    epilog="Exit codes: 0 done, 1 failed, 2 usage, 3 not found or not dead, 4 refused, 130 stopped by Ctrl-C.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown" if _ON_A_TERMINAL else None,
)
app.command("migrate")(migrate.migrate)
app.command("doctor")(doctor.doctor)
app.command("demo")(demo.demo)
app.command("up")(up.up)
app.command("serve")(serve.serve)
app.add_typer(dead_events.app, name="dead-events")
app.add_typer(archive.app, name="archive")
app.add_typer(causes.app, name="causes")
app.add_typer(fixes.app, name="fixes")
app.add_typer(reports.app, name="reports")
app.add_typer(alerts.app, name="alerts")
app.add_typer(serve.tokens, name="tokens")

# What the parser calls a value that it cannot read, in words.
_IN_WORDS = {
    "a valid integer range": "a whole number",
    "a valid integer": "a whole number",
    "a valid float range": "a number",
    "a valid float": "a number",
}


def _say_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"dlq {version('dlq-pipelines')}")
        raise typer.Exit


@app.callback()
def dlq(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_say_version, is_eager=True, help="Say which release this is."
        ),
    ] = False,
) -> None:
    """Dead-letter operations for a PostgreSQL transactional outbox."""


def run() -> int:
    """Run a command and return its exit code; what cannot be done is said in one sentence on stderr.

    Raises:
        KeyboardInterrupt: it was stopped.
        BrokenPipeError: nobody reads what it prints.
    """
    try:
        return app(standalone_mode=False) or 0
    except BrokenPipeError:
        raise
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # which Typer has answered in its own way
            raise BrokenPipeError from None
        raise
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except Exception as error:
        reason = _reason(error)
        if reason is None:
            raise
        Console(stderr=True, soft_wrap=True, markup=False, highlight=False).print(f"dlq: {reason}")
        return _exit_code(error)


def _reason(error: Exception) -> str | None:
    """What to tell the reader, with commands that can be copied; None of a defect, whose place in the code matters."""
    if isinstance(error, click.ClickException):
        text = _misuse(error)
    elif isinstance(error, DlqError | ValueError | OSError):
        text = str(error)
    # Nobody catches an error of a module that was never imported.
    elif (psycopg := sys.modules.get("psycopg")) and isinstance(error, psycopg.Error):
        from dlq_pipelines.postgres.transient import describe_transient_error

        refusal = error.diag.message_primary or type(error).__name__
        lasting = f"PostgreSQL refused: {refusal}. Check the role and the server, then run `dlq migrate --check`."
        text = describe_transient_error(error) or lasting
    else:
        return None
    # It may repeat what a server, a file's name or an argument said.
    return callable_here(sanitize_line(text, 2000))


def _misuse(error: click.ClickException) -> str:
    """What is wrong with the words of a command, and where its options are explained."""
    said = error.format_message()
    for words, plainly in _IN_WORDS.items():
        said = said.replace(words, plainly)
    context = getattr(error, "ctx", None)
    words = context.command_path.split()[1:] if context else []
    return f"{said.rstrip('.')}. See `{' '.join(['dlq', *words, '--help'])}`."


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
