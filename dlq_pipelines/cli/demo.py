"""`dlq demo`: play the main job end to end on a small shop."""

from typing import Annotated

import typer


def demo_command(
    reset: Annotated[
        bool, typer.Option("--reset", help="Delete an earlier demo and start again.")
    ] = False,
) -> None:
    """Play the demo: a shop whose deliveries really fail.

    Plays fourteen days, then runs every job on them. Refuses a database with events, deaths or
    audit entries of another application. Running it twice is harmless.

    Example: `dlq demo --reset`
    """
    from dlq_pipelines.demo.demo import play_demo
    from dlq_pipelines.settings import read_settings

    play_demo(read_settings(), reset=reset)
