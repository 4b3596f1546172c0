"""`dlq migrate`: migrate the database to the schema of this release."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from dlq_pipelines.cli.output import OutputFormat, print_list, with_output_format
from dlq_pipelines.errors import SchemaError
from dlq_pipelines.text import format_count

if TYPE_CHECKING:
    # A command imports what it needs when it runs.
    from dlq_pipelines.outbox.mapping import Mapping
    from dlq_pipelines.postgres.connect import Connection


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
    from dlq_pipelines.outbox.install import install_outbox, list_pending
    from dlq_pipelines.postgres.migrate import create_host_tables
    from dlq_pipelines.settings import read_settings

    settings = read_settings()
    with find_database(settings).connect() as connection:
        if print_ is not None:
            typer.echo(_render_script(print_, connection, settings.mapping))
            return
        if plan or check:
            missing = list_pending(connection, settings.mapping)
            _print_plan([migration.name for migration in missing], check=check, format=format)
            return
        if settings.database_url is None:  # no application has created it
            create_host_tables(connection)
        applied = install_outbox(
            connection, settings.mapping, report=lambda line: typer.echo(line, err=True)
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


def _render_script(script: Script, connection: "Connection", mapping: "Mapping") -> str:
    from dlq_pipelines.outbox.install import describe_shape
    from dlq_pipelines.postgres.migrate import render_migrations, render_roles

    if script is Script.ROLES:
        return render_roles(connection.names)
    return render_migrations(connection.names, describe_shape(connection, mapping))
