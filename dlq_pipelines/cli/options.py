"""Adds options that are declared once to the signatures of several commands."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any


def build_option(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    """Return a parameter that Typer turns into an option."""
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
    )


def with_options(
    command: Callable[..., None],
    options: Mapping[str, Sequence[inspect.Parameter]],
    gather: Callable[[dict[str, Any]], dict[str, Any]],
) -> Callable[..., None]:
    """Return the command with options in the place of some of its arguments.

    Args:
        command: called with keywords.
        options: the options that replace each argument, by its name.
        gather: removes the options from the given values and returns the arguments.
    """

    @wraps(command)
    def run(**given: Any) -> None:
        arguments = gather(given)
        command(**arguments, **given)

    parameters = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for name, own in inspect.signature(command).parameters.items()
        for parameter in options.get(name, [own])
    ]
    # Typer reads both to find a command's parameters.
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run
