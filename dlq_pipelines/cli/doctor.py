"""`dlq doctor`: check the installation and print the remedy for each problem."""

import os
from dataclasses import asdict
from datetime import UTC, datetime

import typer

from dlq_pipelines.cli.output import OutputFormat, print_list, with_output_format

app = typer.Typer()


@app.command("doctor")
@with_output_format
def doctor_command(format: OutputFormat = OutputFormat.TABLE) -> None:
    """Check the installation.

    Checks connection, schema, triggers, rights, clock, backlog, exports, reconciliation, Dagster
    daemon and disk. Changes nothing. If a check fails, prints the command that remedies it and
    exits with 1.

    Example: `dlq doctor || true`
    """
    from dlq_pipelines.doctor import check_installation
    from dlq_pipelines.settings import read_settings

    checks = check_installation(
        read_settings(),
        now=datetime.now(UTC),
        dagster_url=os.environ.get("DLQ_DAGSTER_URL") or None,
    )
    words = {True: "ok", False: "FAILED", None: "skipped"}
    brief = [
        {
            "check": check.check,
            "result": words[check.ok],
            "found": check.found,
            "remedy": check.remedy,
        }
        for check in checks
    ]
    print_list("checks", [asdict(check) for check in checks], format=format, brief=brief)
    if any(check.ok is False for check in checks):
        raise typer.Exit(1)
