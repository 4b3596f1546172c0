"""`dlq doctor`: can this installation do its work, and which command mends what is wrong?"""

import os
from dataclasses import asdict

import typer

from dlq_pipelines.cli.output import OutputFormat, callable_here, print_list, with_output_format


@with_output_format
def doctor(format: OutputFormat = OutputFormat.TABLE) -> None:
    """Look at all that the work needs: connection, schema, triggers, rights, clock, backlog, exports, Dagster's
    daemon, disk.

    Changes nothing. Exits with 1 when something is wrong; beside it stands the command that mends it.

    Example: `dlq doctor || true`
    """
    from dlq_pipelines.doctor import check_installation
    from dlq_pipelines.settings import read_settings

    checks = check_installation(
        read_settings(), dagster_url=os.environ.get("DLQ_DAGSTER_URL") or None
    )
    words = {True: "ok", False: "WRONG", None: "-"}
    brief = [
        {
            "check": one.check,
            "": words[one.ok],
            "found": callable_here(one.found),
            "mend": callable_here(one.mend),
        }
        for one in checks
    ]
    print_list("checks", [asdict(one) for one in checks], format=format, brief=brief)
    if any(one.ok is False for one in checks):
        raise typer.Exit(1)
