"""How do several commands take the same options, declared once?"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any


def build_option(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    """A parameter that Typer makes an option of."""
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
    )


def with_options(
    command: Callable[..., None],
    options: Mapping[str, Sequence[inspect.Parameter]],
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

    taken = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for name, one in inspect.signature(command).parameters.items()
        for parameter in options.get(name, [one])
    ]
    # Typer asks both what a command takes.
    run.__signature__ = inspect.Signature(taken)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in taken}
    return run
