"""`dlq migrate`: bring the database to the schema that this release needs."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from dlq_pipelines.cli.output import OutputFormat, print_list, with_output_format
from dlq_pipelines.errors import SchemaError

if TYPE_CHECKING:
    # A command imports what it needs when it runs.
    from dlq_pipelines.postgres.queries import TableNames


class Script(StrEnum):
    """What can be printed: the two lines of migrations, and the roles."""

    OUTBOX = "outbox"
    DLQ = "dlq"
    ROLES = "roles"


@with_output_format
def migrate(
    plan: Annotated[
        bool,
        typer.Option("--plan", "--dry-run", help="List what would be applied and change nothing."),
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Exit with 1 if anything is missing; change nothing.")
    ] = False,
    print_: Annotated[
        Script | None,
        typer.Option(
            "--print", help="Print a line's migrations, or the roles, as a script for psql."
        ),
    ] = None,
    format: OutputFormat = OutputFormat.TABLE,
) -> None:
    """Apply the migrations that the database lacks. Running it again changes nothing.

    Example: `dlq migrate --plan`, then `dlq migrate`. Under your own tools: `dlq migrate --print dlq | psql -f -`,
    then the same with `--print outbox`. Roles with the least rights: `dlq migrate --print roles | psql`.
    """
    from dlq_pipelines.installation import find_database
    from dlq_pipelines.postgres import migrate as runner
    from dlq_pipelines.settings import read_settings

    settings = read_settings()
    if print_ is not None:
        typer.echo(_printed(print_, settings.names))
        return
    with find_database(settings).connect() as connection:
        if settings.database_url is None and not (plan or check):
            runner.create_host_tables(
                connection
            )  # the embedded server has no application to bring its own
        missing = runner.list_pending_migrations(connection, runner.load_migrations())
        if plan or check:
            _tell([migration.label for migration in missing], applied=False, format=format)
            if check and missing:
                raise SchemaError(
                    f"The database lacks {len(missing)} migration(s). Run `dlq migrate`."
                )
            _close("Nothing else is missing." if missing else "The database is up to date.", format)
            return
        applied = runner.apply_migrations(
            connection,
            runner.load_migrations(),
            report=lambda sentence: typer.echo(sentence, err=True),
        )
    _tell([migration.label for migration in applied], applied=True, format=format)
    _close(f"{len(applied)} applied; the database is up to date.", format)


def _tell(labels: list[str], *, applied: bool, format: OutputFormat) -> None:
    """What was applied, or would be. People were told what is applied as it went on."""
    if format is not OutputFormat.TABLE:
        rows = [{"migration": label, "applied": applied} for label in labels]
        print_list("migrations", rows, format=format, header=("migration", "applied"))
    elif not applied:
        for label in labels:
            typer.echo(f"would apply {label}")


def _close(said: str, format: OutputFormat) -> None:
    """A last line for people."""
    if format is OutputFormat.TABLE:
        typer.echo(said)


def _printed(script: Script, names: "TableNames") -> str:
    from dlq_pipelines.postgres.migrate import render_migrations, render_roles

    match script:
        case Script.ROLES:
            return render_roles(names)
        case Script.OUTBOX:
            return render_migrations("outbox", names)
        case Script.DLQ:
            return render_migrations("dlq", names)
