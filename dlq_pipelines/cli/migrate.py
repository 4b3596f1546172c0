"""`dlq migrate`: migrate the database to the schema of this release, or remove the installation."""

from dataclasses import asdict
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dlq_pipelines.cli.mutation import (
    NOTHING_CHANGED,
    Actor,
    confirm_change,
    prepare_change,
)
from dlq_pipelines.cli.output import OutputFormat, print_list, print_table, with_output_format
from dlq_pipelines.errors import SchemaError
from dlq_pipelines.text import format_count

if TYPE_CHECKING:
    # A command imports what it needs when it runs.
    from dlq_pipelines.audit import AuditContext
    from dlq_pipelines.outbox.mapping import Mapping
    from dlq_pipelines.outbox.preflight import PreflightCheck
    from dlq_pipelines.outbox.remove import RemovalPlan, RemovalScope
    from dlq_pipelines.postgres.connect import Connection
    from dlq_pipelines.postgres.queries import TableNames
    from dlq_pipelines.settings import Settings

app = typer.Typer()


class Script(StrEnum):
    """A script that can be printed: the migrations, or the roles."""

    MIGRATIONS = "migrations"
    ROLES = "roles"


_Plan = Annotated[
    bool,
    typer.Option(
        "--plan",
        "--dry-run",
        help="List checks, statements on the table and pending migrations; change nothing.",
    ),
]
_Check = Annotated[
    bool, typer.Option("--check", help="Exit with 1 if migrations are pending; change nothing.")
]
_Print = Annotated[
    Script | None,
    typer.Option("--print", help="Print the migrations, or the roles, as a script for psql."),
]
_Remove = Annotated[
    bool, typer.Option("--remove", help="Remove triggers, added columns and the schema instead.")
]
_KeepLedger = Annotated[
    bool,
    typer.Option(
        "--keep-ledger", help="With --remove: keep the ledger, archived events and the audit log."
    ),
]
_DiscardArchived = Annotated[
    bool, typer.Option("--discard-archived", help="With --remove: drop archived events too.")
]
_RemovalReason = Annotated[
    str, typer.Option(help="With --remove --keep-ledger: why, for the audit log.")
]
_Yes = Annotated[bool, typer.Option("--yes", help="With --remove: skip the confirmation.")]


@app.command("migrate")
@with_output_format
def migrate_command(
    actor: Actor,
    plan: _Plan = False,
    check: _Check = False,
    print_: _Print = None,
    remove: _Remove = False,
    keep_ledger: _KeepLedger = False,
    discard_archived: _DiscardArchived = False,
    reason: _RemovalReason = "the installation is removed",
    yes: _Yes = False,
    format: OutputFormat = OutputFormat.TABLE,
) -> None:
    """Apply pending migrations. Running it again changes nothing.

    Checks the outbox table first, and changes nothing if it cannot be served.

    Example: `dlq migrate --plan`, then `dlq migrate`. With your own tools:
    `dlq migrate --print migrations | psql -f -`. Roles with the least rights:
    `dlq migrate --print roles | psql`. Remove everything: `dlq migrate --remove --plan`, then
    `dlq migrate --remove --yes`.
    """
    from dlq_pipelines.installation import find_database
    from dlq_pipelines.outbox.remove import RemovalScope
    from dlq_pipelines.settings import read_settings

    scope = RemovalScope(keep_ledger, discard_archived)
    _reject_combinations(scope, remove=remove, other=check or print_ is not None)
    settings = read_settings()
    audit, options = prepare_change(actor, reason, dry_run=plan)
    if print_ is not None:
        _print_script(print_, settings)
        return
    with find_database(settings).connect() as connection:
        if remove:
            removed = _remove(connection, scope, audit=audit, dry_run=options.dry_run, yes=yes)
            _print_removal(*removed, format=format)
        elif check:
            _print_check(connection, settings.mapping, format)
        elif plan:
            _print_plan(connection, settings.mapping, format)
        else:
            _migrate(connection, settings.mapping, format, embedded=settings.database_url is None)


def _print_script(script: Script, settings: "Settings") -> None:
    """Print a script. That of the roles needs no database."""
    from dlq_pipelines.installation import find_database
    from dlq_pipelines.outbox.install import describe_shape
    from dlq_pipelines.postgres.migrate import render_migrations, render_roles

    if script is Script.ROLES:
        typer.echo(render_roles(settings.names))
        return
    with find_database(settings).connect() as connection:
        shape = describe_shape(connection, settings.mapping)
        typer.echo(render_migrations(connection.names, shape))


def _reject_combinations(scope: "RemovalScope", *, remove: bool, other: bool) -> None:
    for name, given in (
        ("--keep-ledger", scope.keep_ledger),
        ("--discard-archived", scope.discard_archived),
    ):
        if given and not remove:
            raise ValueError(f"{name} needs --remove.")
    if scope.keep_ledger and scope.discard_archived:
        raise ValueError("--keep-ledger cannot be combined with --discard-archived.")
    if remove and other:
        raise ValueError("--remove cannot be combined with --check or --print.")


def _migrate(
    connection: "Connection", mapping: "Mapping", format: OutputFormat, *, embedded: bool
) -> None:
    from dlq_pipelines.outbox.install import install_outbox
    from dlq_pipelines.postgres.migrate import create_host_tables

    if embedded:  # no application has created it
        create_host_tables(connection)
    applied = install_outbox(connection, mapping, report=lambda line: typer.echo(line, err=True))
    names = [migration.name for migration in applied]
    if format is not OutputFormat.TABLE:
        _print_migrations(names, applied=True, format=format)
    else:  # people have seen them on stderr
        typer.echo(f"{len(applied)} applied; the database is up to date.")


def _print_check(connection: "Connection", mapping: "Mapping", format: OutputFormat) -> None:
    """Print pending migrations.

    Raises:
        SchemaError: there are any.
    """
    from dlq_pipelines.outbox.install import list_pending

    missing = [migration.name for migration in list_pending(connection, mapping)]
    _print_migrations(missing, applied=False, format=format)
    if missing:
        count = format_count(len(missing), "migration")
        raise SchemaError(f"The database lacks {count}.", "Run `dlq migrate`.")
    if format is OutputFormat.TABLE:
        typer.echo("The database is up to date.")


def _print_plan(connection: "Connection", mapping: "Mapping", format: OutputFormat) -> None:
    """Print every check, the statements on the application's table, and pending migrations.

    Raises:
        SchemaError: the table cannot be served.
    """
    from dlq_pipelines.outbox.install import run_preflight
    from dlq_pipelines.outbox.preflight import require_no_refusal

    checks = run_preflight(connection, mapping)
    names, statements = _list_pending_statements(connection, mapping)
    if format is OutputFormat.TABLE:
        _print_checks(checks)
        for statement in statements:
            typer.echo(f"\n{statement}")
        typer.echo()
    added = {"checks": [asdict(check) for check in checks], "statements": statements}
    _print_migrations(names, applied=False, format=format, added=added)
    require_no_refusal(checks)
    if format is OutputFormat.TABLE:
        typer.echo("Nothing else is pending." if names else "The database is up to date.")


def _print_checks(checks: "list[PreflightCheck]") -> None:
    print_table(
        [
            {
                "check": check.name,
                "result": check.outcome,
                "found": check.found,
                "remedy": check.remedy,
            }
            for check in checks
        ]
    )


def _list_pending_statements(
    connection: "Connection", mapping: "Mapping"
) -> tuple[list[str], list[str]]:
    """Return pending migrations and their statements on the table; nothing if it is refused."""
    from dlq_pipelines.outbox.install import describe_shape, list_pending
    from dlq_pipelines.outbox.mapping import MappingError
    from dlq_pipelines.outbox.plan import list_table_statements

    try:
        shape = describe_shape(connection, mapping)
    except (MappingError, SchemaError):
        return [], []
    missing = list_pending(connection, mapping)
    statements = list_table_statements(missing, connection.names, shape)
    return [migration.name for migration in missing], statements


def _print_migrations(
    labels: list[str],
    *,
    applied: bool,
    format: OutputFormat,
    added: dict[str, Any] | None = None,
) -> None:
    """Print which migrations were applied or would be."""
    if format is not OutputFormat.TABLE:
        rows = [{"migration": label, "applied": applied} for label in labels]
        header = ("migration", "applied")
        print_list("migrations", rows, format=format, header=header, added=added)
        return
    for label in labels:
        typer.echo(f"would apply {label}")


def _remove(
    connection: "Connection",
    scope: "RemovalScope",
    *,
    audit: "AuditContext",
    dry_run: bool,
    yes: bool,
) -> "tuple[RemovalPlan, bool]":
    """Return what was removed, or would be, and whether it was."""
    from dlq_pipelines.outbox.remove import plan_removal, remove_installation

    planned = plan_removal(connection, scope)
    if dry_run or not planned.statements:
        return planned, False
    if not yes:
        _echo_removal(planned, is_done=False, err=True)
        _confirm_removal(connection.names)
    return remove_installation(connection, scope, audit=audit), True


def _confirm_removal(names: "TableNames") -> None:
    confirm_change(
        f"remove dlq-pipelines from {names.outbox_schema}.{names.outbox_table}",
        advice="Preview with --plan, or keep the ledger with --keep-ledger.",
        way="Preview with --plan, then pass --yes.",
    )


def _print_removal(plan: "RemovalPlan", is_done: bool, *, format: OutputFormat) -> None:
    """Print the statements and what stays."""
    if format is not OutputFormat.TABLE:
        rows = [{"statement": statement, "removed": is_done} for statement in plan.statements]
        header, added = ("statement", "removed"), {"kept": list(plan.kept)}
        print_list("statements", rows, format=format, header=header, added=added)
        return
    _echo_removal(plan, is_done=is_done, err=False)
    if not plan.statements:
        typer.echo("Nothing else to remove." if plan.kept else "Nothing is installed.")
    else:
        typer.echo("The installation is removed." if is_done else NOTHING_CHANGED)


def _echo_removal(plan: "RemovalPlan", *, is_done: bool, err: bool) -> None:
    for statement in plan.statements:
        typer.echo(f"{'ran' if is_done else 'would run'} {statement};", err=err)
    for kept in plan.kept:
        typer.echo(f"keeps {kept}", err=err)
