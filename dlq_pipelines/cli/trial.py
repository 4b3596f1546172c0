"""`dlq try`: look at an outbox before anything is installed."""

import shlex
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from dlq_pipelines.cli.adopt import (
    DeadStates,
    DeliveredStates,
    StateColumn,
    describe_proposal,
    parse_state,
)
from dlq_pipelines.cli.output import (
    OutputFormat,
    print_list,
    print_record,
    print_table,
    with_output_format,
)
from dlq_pipelines.text import format_count, sanitize_line

if TYPE_CHECKING:
    # A command imports what it needs when it runs.
    from collections.abc import Sequence

    from dlq_pipelines.trial import Trial, TrialTable

app = typer.Typer()
_BARS = "▁▂▃▄▅▆▇█"
_SHOWN_CAUSES, _SHOWN_STATES = 20, 10


@app.command("try")
@with_output_format
def try_outbox_command(
    url: Annotated[
        str | None,
        typer.Argument(
            help="The database: postgresql://user@host/name. Default: DLQ_DATABASE_URL.",
            metavar="URL",
            show_default=False,
        ),
    ] = None,
    table: Annotated[
        str | None,
        typer.Option(
            help="The table, as schema.table. Default: the one that looks like an outbox."
        ),
    ] = None,
    mapping: Annotated[
        str | None,
        typer.Option(
            help="A preset, or a mapping file. Default: as `dlq adopt` proposes.",
            metavar="MAPPING",
        ),
    ] = None,
    state: StateColumn = None,
    dead: DeadStates = None,
    delivered: DeliveredStates = None,
    format: OutputFormat = OutputFormat.TABLE,
) -> None:
    """Show why events of an outbox died, before anything is installed. Writes nothing.

    Reads up to 1,000,000 rows in one read-only transaction. Prints the causes of the dead events,
    their trend of 14 days, and which fields of the payload set them apart from delivered events.

    Example: `dlq try --table public.outbox_event`
    """
    from pydantic import SecretStr

    from dlq_pipelines.installation import (
        build_hides_path,
        build_redact_errors,
        find_database,
        has_embedded_server,
    )
    from dlq_pipelines.outbox.mapping import DEFAULT_PRESET
    from dlq_pipelines.settings import read_settings
    from dlq_pipelines.trial import TrialTable, try_outbox

    # The mapping of an installation may be of another table.
    changed: dict[str, object] = {"outbox_mapping": DEFAULT_PRESET}
    if url is not None:
        changed["database_url"] = SecretStr(url)
    settings = read_settings().model_copy(update=changed)
    if mapping is not None and (state or dead or delivered):
        raise ValueError(
            "--mapping says which rows are dead. Leave out --state, --dead and --delivered."
        )
    given = TrialTable(
        table,
        mapping=mapping,
        state=state,
        dead_values=tuple(parse_state(value) for value in dead or ()),
        delivered_values=tuple(parse_state(value) for value in delivered or ()),
    )
    # `dlq demo` has an embedded server, which can be looked at. A new one has no application.
    if settings.database_url is None and not has_embedded_server(settings):
        raise ValueError(
            "No database is given. Pass the URL of the application's database: "
            "dlq try postgresql://user@host/name."
        )
    database = replace(
        find_database(settings),
        origin="DLQ_DATABASE_URL" if url is None else "The argument URL",
        next_command="dlq try",
    )
    with database.connect() as connection:
        found = try_outbox(
            connection,
            given,
            now=datetime.now(UTC),
            zone=settings.zone,
            is_hidden=build_hides_path(settings),
            redact=build_redact_errors(settings),
        )
    if format is OutputFormat.CSV:
        print_list("causes", [asdict(cause) for cause in found.causes], format=format)
        return
    if format is OutputFormat.JSON:
        record = asdict(found) | {
            "mapping": found.mapping.text,
            "questions": list(found.mapping.questions),
        }
        print_record(record, format=format)
        return
    _print_trial(found)
    names = settings.names
    _print_next(
        found,
        given,
        default_table=f"{names.outbox_schema}.{names.outbox_table}",
        is_url=url is not None,
    )


def _print_trial(found: "Trial") -> None:
    looked_at = "" if found.is_complete else "the last "
    typer.echo(
        f"{found.table}: {format_count(found.dead, 'dead event')} of {looked_at}"
        f"{format_count(found.events, 'event')}; {found.delivered:,} are delivered."
    )
    if found.classified < found.dead:
        typer.echo(f"The last {found.classified:,} dead events are classified.")
    _print_doubts(found)
    typer.echo()
    print_table(
        [
            {
                "dead": f"{cause.dead:,}",
                "14 days": _draw_days(cause.days),
                "last death": cause.last_death or "",
                "title": sanitize_line(cause.title, 100),
                "event types": ", ".join(cause.event_types[:3]),
            }
            for cause in found.causes[:_SHOWN_CAUSES]
        ],
        empty="No event is dead.",
        optional=("event types", "last death", "14 days"),
    )
    more = len(found.causes) - _SHOWN_CAUSES
    if more > 0:
        typer.echo(f"{format_count(more, 'more cause')}; --json has all of them.")
    explained = [cause for cause in found.causes if cause.explanation]
    if explained and not found.delivered:
        typer.echo("\nNo delivered event is left that the dead ones could be compared with.")
    elif explained:
        typer.echo("\nWhat sets them apart:")
        for cause in explained:
            typer.echo(f"  {sanitize_line(cause.title, 100)}")
            typer.echo(f"    {sanitize_line(cause.explanation, 300)}")


def _print_doubts(found: "Trial") -> None:
    """Print what may make the figures wrong."""
    if found.others:
        others = ", ".join(sanitize_line(name, 100) for name in found.others)
        typer.echo(f"Other tables look like an outbox too: {others}. Name one with --table.")
    if found.hides_rows:
        typer.echo("Row level security hides rows of the table from this role.")
    if found.both:
        typer.echo(
            f"{format_count(found.both, 'event')} of these are dead and delivered at once, so the "
            "mapping is wrong: pass --delivered, or write it with `dlq adopt` and pass --mapping."
        )
    for value in found.absent_states:
        typer.echo(f"No row has the state {sanitize_line(value, 60)}.")
    if found.unmapped_states:
        states = ", ".join(
            f"{sanitize_line(state.value, 60)} ({state.rows:,})"
            for state in found.unmapped_states[:_SHOWN_STATES]
        )
        typer.echo(
            f"Other states: {states}. If the worker has given up on rows of one, pass it as --dead."
        )
    if found.classified and found.mapping.mapping.error is None:
        typer.echo("No column was recognised as the error, so all dead events have one cause.")
    elif found.without_error:
        typer.echo(
            f"Without an error text: {found.without_error:,} of {found.classified:,} dead events. "
            "The worker should store it."
        )


def _print_next(found: "Trial", given: "TrialTable", *, default_table: str, is_url: bool) -> None:
    """Print the next command, and on stderr what a mapping has to be checked for.

    The table that the settings name needs no mapping if it has the columns of the default one.
    """
    from dlq_pipelines.outbox.mapping import DEFAULT_PRESET
    from dlq_pipelines.outbox.mapping_types import split_table_name

    typer.echo("\nNothing was written. Next:")
    if is_url:
        typer.echo("  export DLQ_DATABASE_URL=...    # with a role that owns the table")
    if given.mapping is not None:
        typer.echo(f"  export DLQ_OUTBOX_MAPPING={shlex.quote(given.mapping)}")
        if given.name is not None:
            schema, name = map(shlex.quote, split_table_name(found.table))
            typer.echo(f"  export DLQ_OUTBOX_SCHEMA={schema} DLQ_OUTBOX_TABLE={name}")
    if given.mapping is not None or (
        found.mapping.preset == DEFAULT_PRESET and found.table == default_table
    ):
        typer.echo("  dlq migrate --plan")
        return
    typer.echo(f"  {_build_next_command(found, given)}")
    for line in describe_proposal(found.mapping):
        typer.echo(line, err=True)


def _draw_days(days: "Sequence[int]") -> str:
    most = max(days, default=0)
    return "".join(
        _BARS[round((len(_BARS) - 1) * count / most)] if count else " " for count in days
    )


def _build_next_command(found: "Trial", given: "TrialTable") -> str:
    options = [
        f"--{name} {shlex.quote(str(value))}"
        for name, values in (
            ("state", (given.state,) if given.state else ()),
            ("dead", given.dead_values),
            ("delivered", given.delivered_values),
        )
        for value in values
    ]
    return " ".join(["dlq adopt", shlex.quote(found.table), *options, "--write outbox.toml"])
