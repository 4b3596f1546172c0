"""Which dead events does a request mean? It takes the filters that all faces share, as parameters or in its body."""

import re
from collections.abc import Callable
from dataclasses import Field as DataclassField
from dataclasses import fields
from datetime import tzinfo
from functools import partial
from typing import Annotated, Any

from fastapi import Query
from pydantic import BaseModel, ConfigDict, Field, create_model, field_validator

from dlq_pipelines.errors import RefusedError
from dlq_pipelines.operation import ASKED_ABOVE, LONGEST_REASON
from dlq_pipelines.outbox.event import BIGINT_MAX, UNSTORABLE, Selector, is_storable
from dlq_pipelines.outbox.filters import Filters


def storable_text(value: Any) -> Any:
    """Refuse a text that PostgreSQL cannot hold, before it says so in words of its own."""
    if isinstance(value, str) and not is_storable(value):
        raise ValueError(UNSTORABLE)
    return value


EventId = Annotated[int, Field(ge=1, le=BIGINT_MAX)]
Reason = Annotated[str, Field(min_length=1, max_length=LONGEST_REASON, description="Why, for whoever asks later.")]
# The example makes the request bodies that Swagger UI suggests harmless.
DryRun = Annotated[bool, Field(description="Only say what would be done.", examples=[True])]
Limit = Annotated[int, Query(ge=1, le=1_000, description="How many at most.")]
# As long as the longest key of an alert makes it.
After = Annotated[str | None, Query(max_length=4_000, description="`next` of the page before.")]
OF_NO_REASON = "asked for over HTTP"


# A time zone behind a space, as a + that was not escaped arrives.
_LOST_PLUS = re.compile(r" \d\d:?\d\d$")


class Parameters(BaseModel):
    """An argument that nobody knows is refused: a filter with a slip of the pen would mean more than was meant."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    _storable = field_validator("*")(storable_text)


class Body(Parameters):
    """And `false` is no number, `"yes"` no truth: a body says what it means by JSON's own types."""

    model_config = ConfigDict(strict=True)


def _argument(one: "DataclassField[Any]") -> tuple[Any, Any]:
    about = one.metadata
    name = about.get("query", one.name)
    help_ = about["help"].replace("`dlq causes list` lists", "/api/causes lists")
    bounds: Any = {"ge": 0, "le": 2**31 - 1} if one.name == "attempts" else {}
    return one.type, Field(default=one.default, alias=name, description=help_, **bounds)


_arguments: Any = {one.name: _argument(one) for one in fields(Filters) if one.name != "every"}
_FilterParameters = create_model("_FilterParameters", __base__=Parameters, **_arguments)
_FilterBody = create_model("_FilterBody", __base__=Body, **_arguments)


class Asked(_FilterParameters):
    """Parameters of a request that reads. Without any, all dead events are meant."""

    id: list[Annotated[int, Field(ge=1, le=BIGINT_MAX)]] | None = Field(
        default=None, max_length=1_000, description="Only these events; may be said several times."
    )

    @property
    def filters(self) -> Filters:
        """Without the ids."""
        return _filters(self)

    def selector(self, zone: tzinfo) -> Selector:
        """What was asked for."""
        try:
            return self.filters.selector(zone, self.id, else_every=True)
        except ValueError as error:
            filters = self.filters
            if any(_LOST_PLUS.search(text or "") for text in (filters.since, filters.until)):
                raise ValueError(f"{error} A + in an address means a space: write it as %2B.") from None
            raise


class AtMost(Body):
    """What a person is asked at a terminal, a program says: how many events it means."""

    at_most: int = Field(
        default=ASKED_ABOVE, ge=0, le=BIGINT_MAX, description="With more events than this it is refused."
    )

    def permit(self, doing: str) -> Callable[[int], None] | None:
        """What refuses more events than that; `doing` is what is about to be done, such as "retry"."""
        return partial(_refuse_more, doing, self.at_most)


class Many(_FilterBody, AtMost):
    """A change of all that a filter means. Of events that are named by their ids, any number is meant."""

    event_ids: list[EventId] | None = Field(
        default=None, min_length=1, max_length=10_000, description="Only these events."
    )
    every: bool = Field(default=False, alias="all", description="All of them. Only without a filter.")
    dry_run: DryRun = False

    @property
    def names_only(self) -> bool:
        """Whether events were named by their ids and nothing else was said of them."""
        return _filters(self).names_only(self.event_ids)

    def selector(self, zone: tzinfo, *, else_every: bool = False) -> Selector:
        """What was asked for."""
        return _filters(self).selector(zone, self.event_ids, else_every=else_every)

    def permit(self, doing: str) -> Callable[[int], None] | None:
        """What refuses more events than were meant; None where they were named."""
        return None if self.names_only else super().permit(doing)


def _refuse_more(doing: str, at_most: int, events: int) -> None:
    if events > at_most:
        raise RefusedError(
            f"This would {doing} {events:,} events, more than at_most ({at_most:,}). Nothing was changed. Look with "
            "dry_run, then say a larger at_most or narrow it."
        )


def _filters(given: Any) -> Filters:
    return Filters(**{one.name: getattr(given, one.name) for one in fields(Filters) if hasattr(given, one.name)})
