"""`dlq`: what can a person do from a terminal?

Commands import what they need when they run: help and completion must not wait for Dagster.
Exit codes: 0 done, 1 failed, 2 usage, 3 not found or not dead, 4 refused.
"""

import sys

import typer
from rich.console import Console

from dlq_pipelines.cli import alerts, archive, causes, dead_events, demo, doctor, fixes, migrate, reports, serve, up
from dlq_pipelines.cli.output import program
from dlq_pipelines.errors import DlqError, NotFoundError, RefusedError
from dlq_pipelines.text import plain_line

app = typer.Typer(
    name="dlq",
    help="Dead-letter operations for a PostgreSQL transactional outbox.",
    epilog="Exit codes: 0 done, 1 failed, 2 usage, 3 not found or not dead, 4 refused.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
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


def main() -> None:
    """Run a command; what cannot be done is said in one sentence on stderr."""
    try:
        app()
    except Exception as error:
        reason = _reason(error)
        if reason is None:
            raise
        Console(stderr=True, soft_wrap=True, markup=False, highlight=False).print(f"dlq: {reason}")
        sys.exit(_exit_code(error))
    except KeyboardInterrupt:
        sys.exit(130)


def _reason(error: Exception) -> str | None:
    """What to tell the reader, with commands that can be copied; None of a defect, whose place in the code matters."""
    if isinstance(error, DlqError | ValueError | OSError):
        text = str(error)
    # Nobody catches an error of a module that was never imported.
    elif (psycopg := sys.modules.get("psycopg")) and isinstance(error, psycopg.Error):
        refusal = error.diag.message_primary or type(error).__name__
        text = f"PostgreSQL refused: {refusal}. Check the role and the server, then run `dlq migrate --check`."
    else:
        return None
    # It may repeat what a server, a file's name or an argument said.
    return plain_line(text, 2000).replace("`dlq ", f"`{program()} ")


def _exit_code(error: Exception) -> int:
    match error:
        case NotFoundError():
            return 3
        case RefusedError():
            return 4
        case ValueError():
            return 2
        case _:
            return 1
