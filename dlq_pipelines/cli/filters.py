"""Which dead events does a command mean? It takes the filters that all faces share as its options."""

from collections.abc import Callable
from dataclasses import Field, fields
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from dlq_pipelines.cli.options import option, with_options
from dlq_pipelines.outbox.filters import Filters

if TYPE_CHECKING:
    # A command imports what it needs when it runs.
    from datetime import datetime, tzinfo

__all__ = ["EventIds", "Filters", "filtered", "read_moment"]
EventIds = Annotated[list[int] | None, typer.Argument(help="Ids of events.", metavar="[ID]...", min=1)]


def filtered(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `Filters`; it gets them together, as its argument `filters`."""
    options = [option(one.name, _annotation(one), one.default) for one in fields(Filters)]

    def gather(given: dict[str, Any]) -> dict[str, Any]:
        return {"filters": Filters(**{one.name: given.pop(one.name) for one in options})}

    return with_options(command, {"filters": options}, gather)


def read_moment(option: str, text: str | None, zone: "tzinfo") -> "datetime | None":
    """The moment that an option says, if it was given.

    Raises:
        ValueError: it is none; the message names the option.
    """
    from dlq_pipelines.day import moment

    return None if text is None else moment(option, text, zone)


def _annotation(one: "Field[Any]") -> Any:
    """Its name with dashes, or `--all` for the one that is no filter."""
    name = "--all" if one.name == "every" else f"--{one.name.replace('_', '-')}"
    about = one.metadata
    return Annotated[cast("Any", one.type), typer.Option(name, help=about["help"], metavar=about.get("metavar"))]
