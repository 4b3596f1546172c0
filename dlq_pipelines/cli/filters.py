"""Which dead events does a command mean? The filters that commands share are declared here, once."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    # A command imports what it needs when it runs.
    from datetime import datetime, tzinfo

    from dlq_pipelines.outbox.event import Selector

EventIds = Annotated[list[int] | None, typer.Argument(help="Ids of events.", metavar="[ID]...", min=1)]


@dataclass(frozen=True, kw_only=True)
class Filters:
    """Options of a command: the dead events for which all of them hold. A field is an option with its help."""

    cause: Annotated[
        str | None, typer.Option(metavar="CAUSE", help="Of this cause, as `dlq causes list` lists it.")
    ] = None
    event_type: Annotated[str | None, typer.Option(help="Of this event type.")] = None
    aggregate_type: Annotated[str | None, typer.Option(help="Of this type of aggregate.")] = None
    error_contains: Annotated[
        str | None, typer.Option(metavar="TEXT", help="With this text in the error, letter by letter.")
    ] = None
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="Dead since 2026-11-24 or 2026-11-24T18:30, in DLQ_TIMEZONE.")
    ] = None
    until: Annotated[str | None, typer.Option(metavar="TIME", help="Dead before that time.")] = None
    every: Annotated[bool, typer.Option("--all", help="All of them. Only without a filter.")] = False

    def names_only(self, ids: Sequence[int] | None) -> bool:
        """Whether events were named by their ids and nothing else was said of them."""
        return bool(ids) and self == Filters()

    def selector(self, zone: "tzinfo", ids: Sequence[int] | None = None, *, else_every: bool = False) -> "Selector":
        """What was asked for.

        Args:
            zone: of the times that name none.
            ids: only these events; none: ids are not asked for.
            else_every: without any filter all are meant, for commands that change nothing or narrow it themselves.

        Raises:
            ValueError: nothing was asked for, or all and something narrower; a text or a time cannot be used.
        """
        from dlq_pipelines.outbox.event import Selector

        asked = replace(self, every=True) if else_every and not ids and self == Filters() else self
        return Selector(
            cause_id=asked.cause,
            event_type=asked.event_type,
            aggregate_type=asked.aggregate_type,
            event_ids=tuple(ids) if ids else None,
            error_contains=asked.error_contains,
            died_since=read_moment("--since", asked.since, zone),
            died_until=read_moment("--until", asked.until, zone),
            every=asked.every,
        )


def filtered(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `Filters`; it gets them together, as its argument `filters`."""
    options = inspect.signature(Filters).parameters

    @wraps(command)
    def run(**given: Any) -> None:
        chosen = Filters(**{name: given.pop(name) for name in options})
        command(filters=chosen, **given)

    own = inspect.signature(command).parameters
    all_ = [p for name, one in own.items() for p in (options.values() if name == "filters" else (one,))]
    taken = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in all_]
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
