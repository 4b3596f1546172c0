"""Which dead events does a command mean? It takes the filters that all faces share as its options."""

import inspect
from collections.abc import Callable
from dataclasses import Field, fields
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from dlq_pipelines.outbox.filters import Filters

if TYPE_CHECKING:
    # A command imports what it needs when it runs.
    from datetime import datetime, tzinfo

__all__ = ["EventIds", "Filters", "filtered", "read_moment"]
EventIds = Annotated[list[int] | None, typer.Argument(help="Ids of events.", metavar="[ID]...", min=1)]


def filtered(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `Filters`; it gets them together, as its argument `filters`."""
    options = {one.name: _option(one) for one in fields(Filters)}

    def gather(given: dict[str, Any]) -> dict[str, Any]:
        return {"filters": Filters(**{name: given.pop(name) for name in options})}

    return with_options(command, {"filters": list(options.values())}, gather)


def with_options(
    command: Callable[..., None],
    options: dict[str, list[inspect.Parameter]],
    gather: Callable[[dict[str, Any]], dict[str, Any]],
) -> Callable[..., None]:
    """The command with options in the place of some of its arguments.

    Args:
        command: called with keywords.
        options: of an argument, the options that stand for it.
        gather: takes the options out of what was given and returns the arguments.
    """

    @wraps(command)
    def run(**given: Any) -> None:
        arguments = gather(given)
        command(**arguments, **given)

    own = inspect.signature(command).parameters
    taken = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for name, one in own.items()
        for parameter in options.get(name, [one])
    ]
    # Typer asks both what a command takes.
    run.__signature__ = inspect.Signature(taken)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in taken}
    return run


def read_moment(option: str, text: str | None, zone: "tzinfo") -> "datetime | None":
    """The moment that an option says, if it was given.

    Raises:
        ValueError: it is none; the message names the option.
    """
    from dlq_pipelines.day import moment

    return None if text is None else moment(option, text, zone)


def _option(one: "Field[Any]") -> inspect.Parameter:
    """The option of a field: its name with dashes, or `--all` for the one that is no filter."""
    about = one.metadata
    names = ("--all",) if one.name == "every" else (f"--{one.name.replace('_', '-')}",)
    option = typer.Option(*names, help=about["help"], metavar=about.get("metavar"))
    annotation: Any = Annotated[cast("Any", one.type), option]
    return inspect.Parameter(one.name, inspect.Parameter.KEYWORD_ONLY, default=one.default, annotation=annotation)
