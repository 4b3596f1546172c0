"""Declares the filters of `Selection` as options of a command."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dlq_pipelines.cli.options import build_option, with_options
from dlq_pipelines.outbox.selection import FILTERS

if TYPE_CHECKING:
    # A command imports what it needs when it runs.
    from dataclasses import Field

    from dlq_pipelines.outbox.selection import Selection
    from dlq_pipelines.postgres.connect import Connection
    from dlq_pipelines.settings import Settings
    from dlq_pipelines.validate import EventId

# The value of each filter by its name, and of `all`.
GivenFilters = Mapping[str, Any]
EventIds = Annotated[list[str] | None, typer.Argument(help="Ids of events.", metavar="[ID]...")]


def with_filters(
    command: Callable[..., None], *, everything: str = "All dead events"
) -> Callable[..., None]:
    """Add the options of all filters to a command, which receives them as `filters`.

    Args:
        command: called with keywords.
        everything: names what `--all` selects.
    """
    select_all = typer.Option("--all", help=f"{everything}. Cannot be combined with filters.")
    options = [build_option(item.name, _build_annotation(item), None) for item in FILTERS]
    options.append(build_option("all", Annotated[bool, select_all], False))

    def gather(given: dict[str, Any]) -> dict[str, Any]:
        filters = {
            option.name: _take_one(option.name, given.pop(option.name)) for option in options
        }
        narrows = any(filters[item.name] is not None for item in FILTERS) or given.get("ids")
        if filters["all"] and narrows:
            raise ValueError("--all cannot be combined with filters or ids. Leave one of them out.")
        return {"filters": filters}

    return with_options(command, {"filters": options}, gather)


def build_selection(
    connection: "Connection",
    filters: GivenFilters,
    settings: "Settings",
    ids: Sequence["EventId"] | None = None,
    *,
    default_all: bool = False,
) -> "Selection":
    """Build the selection that the options of a command ask for; see `Selection.build`.

    A cause may be the beginning of an id; see `find_cause_id`.
    """
    from dlq_pipelines.causes.catalogue import find_cause_id
    from dlq_pipelines.outbox.selection import Selection

    if filters.get("cause"):
        filters = {**filters, "cause": find_cause_id(connection, filters["cause"])}
    where = filters.get("where")
    # The shell has replaced `$.acquirer`, as a variable, by nothing.
    if where and "$" not in where and not where.rstrip().endswith("="):
        raise ValueError(
            f"where must be PATH=VALUE, such as '$.acquirer=northbank', or a jsonpath predicate, "
            f"not {where!r}. A shell needs single quotes around it."
        )
    return Selection.build(
        filters, settings.zone, ids, now=datetime.now(UTC), default_all=default_all
    )


def _build_annotation(item: "Field[Any]") -> Any:
    given_as, description = item.metadata["given_as"], item.metadata["description"]
    name = f"--{item.name.replace('_', '-')}"
    option = typer.Option(name, help=description, metavar=item.metadata["metavar"])
    # Several, to refuse them: click keeps the last one, which may select far more.
    return Annotated[list[given_as] | None, option]  # type: ignore[valid-type]


def _take_one(name: str, given: Any) -> Any:
    if not isinstance(given, list):
        return given
    if len(given) > 1:
        raise ValueError(
            f"--{name.replace('_', '-')} was given {len(given)} times. Pass it once"
            f"{'; combine predicates with &&' if name == 'where' else ''}."
        )
    return given[0] if given else None
