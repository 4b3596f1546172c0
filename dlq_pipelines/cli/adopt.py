"""`dlq adopt`: propose a mapping for an outbox table."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dlq_pipelines.cli.output import OutputFormat, print_record, with_output_format
from dlq_pipelines.errors import RefusedError

if TYPE_CHECKING:
    # A command imports what it needs when it runs.
    from dlq_pipelines.outbox.adopt import ProposedMapping

app = typer.Typer()
StateColumn = Annotated[
    str | None,
    typer.Option(
        "--state",
        help="The column with the state. Default: one named status or state, or whose values are "
        "states.",
        metavar="COLUMN",
    ),
]
DeadStates = Annotated[
    list[str] | None,
    typer.Option("--dead", help="Value of the state column that means dead (repeatable)."),
]
DeliveredStates = Annotated[
    list[str] | None,
    typer.Option(
        "--delivered", help="Value of the state column that means delivered (repeatable)."
    ),
]


@app.command("adopt")
@with_output_format
def adopt_command(
    table: Annotated[
        str, typer.Argument(help="The table, as schema.table or table.", metavar="TABLE")
    ],
    state: StateColumn = None,
    dead: DeadStates = None,
    delivered: DeliveredStates = None,
    write: Annotated[
        Path | None,
        typer.Option(help="Write the mapping to this file, which must not exist.", metavar="FILE"),
    ] = None,
    format: OutputFormat = OutputFormat.TABLE,
) -> None:
    """Propose a mapping for an outbox table. Changes nothing in the database.

    Prints the mapping as TOML with comments, and on stderr what it offers and what to check.

    Example: `dlq adopt public.outbox_event`, then with `--write outbox.toml`,
    `export DLQ_OUTBOX_MAPPING=outbox.toml` and `dlq migrate --plan`.
    """
    proposed = _propose(table, state, dead or [], delivered or [])
    if write is not None:
        _write_new_file(write, proposed.text)
    if format is not OutputFormat.TABLE:
        offers = {offer.operation: offer.reason or None for offer in proposed.offers}
        record = {
            "mapping": proposed.text,
            "preset": proposed.preset,
            "not_offered": {name: reason for name, reason in offers.items() if reason},
            "questions": list(proposed.questions),
        }
        print_record(record, format=format)
        return
    if write is None:
        typer.echo(proposed.text.rstrip())
    for line in [*describe_proposal(proposed), *_describe_next(proposed, write)]:
        typer.echo(line, err=True)


def _propose(
    table: str, state: str | None, dead: list[str], delivered: list[str]
) -> "ProposedMapping":
    from dlq_pipelines.installation import find_database
    from dlq_pipelines.outbox.adopt import propose_mapping
    from dlq_pipelines.outbox.install import read_outbox_facts
    from dlq_pipelines.outbox.mapping import DEFAULT_PRESET
    from dlq_pipelines.outbox.mapping_types import split_table_name
    from dlq_pipelines.settings import read_settings

    schema, name = split_table_name(table)
    # DLQ_OUTBOX_MAPPING may name the file that this command is to write.
    settings = read_settings().model_copy(update={"outbox_mapping": DEFAULT_PRESET})
    with find_database(settings).connect() as connection:
        facts = read_outbox_facts(connection, schema, name, state=state)
    return propose_mapping(
        facts,
        state=state,
        dead_values=[parse_state(value) for value in dead],
        delivered_values=[parse_state(value) for value in delivered],
    )


def parse_state(value: str) -> str | int:
    """Return the value of a state column that a text stands for: a number or the text."""
    return int(value) if value.lstrip("-").isdecimal() else value


def _write_new_file(path: Path, text: str) -> None:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise RefusedError(
            f"The file {path} exists.", "Name another file, or delete this one."
        ) from None


def describe_proposal(proposed: "ProposedMapping") -> list[str]:
    """Return what a proposal does not offer, and what to check, a line each."""
    lines = [f"Fits the preset {proposed.preset}."] if proposed.preset else []
    lines += [
        f"Not offered: {offer.operation}. {offer.reason}"
        for offer in proposed.offers
        if not offer.is_offered
    ]
    return lines + [f"Check: {question}" for question in proposed.questions]


def _describe_next(proposed: "ProposedMapping", write: Path | None) -> list[str]:
    lines = []
    name = "outbox.toml" if write is None else str(write)
    if write is None and proposed.preset is None:
        lines.append(f"Write it to a file with --write {name}.")
    if proposed.preset and write is None:
        name = proposed.preset
    lines.append(f"Next: export DLQ_OUTBOX_MAPPING={name}, then dlq migrate --plan")
    return lines
