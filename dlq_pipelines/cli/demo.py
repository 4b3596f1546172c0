"""`dlq demo`: play the main job end to end on a small shop."""

from typing import Annotated

import typer

app = typer.Typer()


@app.command("demo")
def demo_command(
    reset: Annotated[
        bool, typer.Option("--reset", help="Delete an earlier demo and play it again.")
    ] = False,
) -> None:
    """Play fourteen days of a shop whose deliveries really fail, and run every job.

    Refuses a database with events, deaths or audit entries that are not the demo's. Running the
    demo twice is safe.

    Example: `dlq demo --reset`
    """
    from dlq_pipelines.demo.demo import play_demo
    from dlq_pipelines.settings import read_settings

    play_demo(read_settings(), reset=reset)
