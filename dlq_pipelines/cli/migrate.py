"""`dlq migrate`: migrate the database to the schema of this release."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from dlq_pipelines.cli.output import OutputFormat, print_list, with_output_format
from dlq_pipelines.errors import SchemaError
from dlq_pipelines.text import format_count

if TYPE_CHECKING:
    # A command imports what it needs when it runs.
    from dlq_pipelines.postgres.queries import TableNames


class Script(StrEnum):
    """A script that can be printed: the migrations, or the roles."""

    MIGRATIONS = "migrations"
    ROLES = "roles"


@with_output_format
def migrate_command(
    plan: Annotated[
        bool,
        typer.Option("--plan", "--dry-run", help="List pending migrations and change nothing."),
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Exit with 1 if migrations are pending; change nothing.")
    ] = False,
    print_: Annotated[
        Script | None,
        typer.Option("--print", help="Print the migrations, or the roles, as a script for psql."),
    ] = None,
    format: OutputFormat = OutputFormat.TABLE,
) -> None:
    """Apply pending migrations. Running it again changes nothing.

    Example: `dlq migrate --plan`, then `dlq migrate`. With your own tools:
    `dlq migrate --print migrations | psql -f -`. Roles with the least rights:
    `dlq migrate --print roles | psql`.
    """
    from dlq_pipelines.installation import find_database
    from dlq_pipelines.postgres import migrate as runner
    from dlq_pipelines.settings import read_settings

    settings = read_settings()
    if print_ is not None:
        typer.echo(_render_script(print_, settings.names))
        return
    migrations = runner.load_migrations()
    with find_database(settings).connect() as connection:
        if plan or check:
            missing = runner.list_pending_migrations(connection, migrations)
            _print_plan([migration.name for migration in missing], check=check, format=format)
            return
        if settings.database_url is None:  # no application has created them
            runner.create_host_tables(connection)
        applied = runner.apply_migrations(
            connection, migrations, report=lambda line: typer.echo(line, err=True)
        )
    _print_migrations([migration.name for migration in applied], applied=True, format=format)
    _print_summary(f"{len(applied)} applied; the database is up to date.", format)


def _print_plan(labels: list[str], *, check: bool, format: OutputFormat) -> None:
    """Print pending migrations.

    Raises:
        SchemaError: with `check`, if there are any.
    """
    _print_migrations(labels, applied=False, format=format)
    if check and labels:
        count = format_count(len(labels), "migration")
        raise SchemaError(f"The database lacks {count}.", "Run `dlq migrate`.")
    _print_summary("Nothing else is pending." if labels else "The database is up to date.", format)


def _print_migrations(labels: list[str], *, applied: bool, format: OutputFormat) -> None:
    """Print which migrations were applied or would be. People have seen applied ones on stderr."""
    if format is not OutputFormat.TABLE:
        rows = [{"migration": label, "applied": applied} for label in labels]
        print_list("migrations", rows, format=format, header=("migration", "applied"))
    elif not applied:
        for label in labels:
            typer.echo(f"would apply {label}")


def _print_summary(line: str, format: OutputFormat) -> None:
    """Print the last line, for people only."""
    if format is OutputFormat.TABLE:
        typer.echo(line)


def _render_script(script: Script, names: "TableNames") -> str:
    from dlq_pipelines.postgres.migrate import render_migrations, render_roles

    return render_roles(names) if script is Script.ROLES else render_migrations(names)
