"""`dlq demo`: the main job, end to end, on a small shop."""

from typing import Annotated

import typer


def demo(
    reset: Annotated[
        bool, typer.Option("--reset", help="Forget an earlier demo and start anew.")
    ] = False,
) -> None:
    """Play fourteen days of a shop whose deliveries really fail, and run every job on what is left of them.

    Refuses a database in which there are events, deaths or an audit that are not the demo's. Running it twice is
    harmless.

    Example: `dlq demo --reset`
    """
    from dlq_pipelines.cli.output import program
    from dlq_pipelines.demo.demo import play_demo
    from dlq_pipelines.settings import read_settings

    play_demo(read_settings(), reset=reset, program=program())
