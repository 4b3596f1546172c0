"""`dlq migrate`: bring the database to the schema that this release needs."""

from enum import StrEnum
from typing import Annotated

import typer

from dlq_pipelines.errors import SchemaError


class Line(StrEnum):
    """The two lines of migrations."""

    OUTBOX = "outbox"
    DLQ = "dlq"


def migrate(
    plan: Annotated[
        bool, typer.Option("--plan", "--dry-run", help="List what would be applied and change nothing.")
    ] = False,
    check: Annotated[bool, typer.Option("--check", help="Exit with 1 if anything is missing; change nothing.")] = False,
    print_: Annotated[
        Line | None, typer.Option("--print", help="Print a line's migrations as a script for psql.")
    ] = None,
) -> None:
    """Apply the migrations that the database lacks. Running it again changes nothing.

    Example: `dlq migrate --plan`, then `dlq migrate`. Under your own tools: `dlq migrate --print dlq | psql -f -`,
    then the same with `--print outbox`.
    """
    from dlq_pipelines.installation import find_database
    from dlq_pipelines.postgres import migrate as runner
    from dlq_pipelines.settings import read_settings

    settings = read_settings()
    if print_ is not None:
        typer.echo(runner.print_sql(print_.value, settings.names))
        return
    with find_database(settings).connect() as connection:
        if settings.database_url is None and not (plan or check):
            runner.create_host_tables(connection)  # the embedded server has no application to bring its own
        missing = runner.pending(connection, runner.all_migrations())
        if plan or check:
            for migration in missing:
                typer.echo(f"would apply {migration.label}")
            if check and missing:
                raise SchemaError(f"The database lacks {len(missing)} migration(s). Run `dlq migrate`.")
            typer.echo("Nothing else is missing." if missing else "The database is up to date.")
            return
        applied = runner.migrate(
            connection, runner.all_migrations(), tell=lambda label: typer.echo(f"applying {label}")
        )
    typer.echo(f"{len(applied)} applied; the database is up to date.")
