"""Declares the filters of `Selection` as query parameters and as fields of a body."""

import re
from collections.abc import Callable
from dataclasses import Field as DataclassField
from datetime import UTC, datetime, tzinfo
from functools import partial
from typing import Annotated, Any, TypedDict

from fastapi import Query
from pydantic import BaseModel, ConfigDict, Field, create_model, field_validator

from dlq_pipelines.api.auth import Caller
from dlq_pipelines.audit import CONFIRM_ABOVE, MAX_REASON_LENGTH, AuditContext, RunOptions
from dlq_pipelines.errors import RefusedError
from dlq_pipelines.outbox.selection import FILTERS, Selection
from dlq_pipelines.validate import BIGINT_MAX, INTEGER_MAX, NOT_STORABLE, is_storable


def validate_storable_text(value: Any) -> Any:
    """Reject a text that PostgreSQL cannot store."""
    if isinstance(value, str) and not is_storable(value):
        raise ValueError(f"the text {NOT_STORABLE}")
    return value


# A number, or a uuid or a text, as the key of the outbox is.
GivenEventId = (
    Annotated[int, Field(ge=-BIGINT_MAX - 1, le=BIGINT_MAX)]
    | Annotated[str, Field(min_length=1, max_length=10_000)]
)
Reason = Annotated[
    str,
    Field(min_length=1, max_length=MAX_REASON_LENGTH, description="The reason, for the audit log."),
]
# The example makes the request bodies that Swagger UI suggests harmless.
DryRun = Annotated[
    bool,
    Field(description="Change nothing; return what a real run would return.", examples=[True]),
]
Limit = Annotated[int, Query(ge=1, le=1_000, description="Maximum number of results.")]
# The longest cursor contains the key of an alert.
After = Annotated[str | None, Query(max_length=4_000, description="`next` of the previous page.")]
DEFAULT_REASON = "requested over HTTP"


_FILTER_NAMES = {item.name for item in FILTERS}
# A time zone after a space: the + was not escaped.
_LOST_PLUS = re.compile(r" \d\d:?\d\d$")


class Parameters(BaseModel):
    """Arguments of a request.

    Unknown arguments are rejected: ignoring a misspelled filter would select too much.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    _storable = field_validator("*")(validate_storable_text)


class Body(Parameters):
    """Arguments of a body. Values have the JSON type of their field: `"yes"` is not a boolean."""

    model_config = ConfigDict(strict=True)


def _declare_filter(item: "DataclassField[Any]") -> tuple[Any, Any]:
    bounds: Any = {"ge": 0, "le": INTEGER_MAX} if item.metadata["given_as"] is int else {}
    description = item.metadata["description"].replace(
        "`dlq causes list` lists", "/api/causes lists"
    )
    return item.metadata["given_as"] | None, Field(default=None, description=description, **bounds)


_declared: Any = {item.name: _declare_filter(item) for item in FILTERS}
_FilterParameters = create_model("_FilterParameters", __base__=Parameters, **_declared)
_FilterBody = create_model("_FilterBody", __base__=Body, **_declared)


class SelectionQuery(_FilterParameters):
    """The filters of a request that reads. Without any, it selects all dead events."""

    event_ids: list[GivenEventId] | None = Field(
        default=None, max_length=1_000, description="These events only; repeatable."
    )

    def build_selection(self, zone: tzinfo) -> Selection:
        """Build the selection that the request asks for."""
        given = self.model_dump(include=_FILTER_NAMES)
        try:
            return Selection.build(
                given, zone, self.event_ids, now=datetime.now(UTC), default_all=True
            )
        except ValueError as error:
            if any(_LOST_PLUS.search(given[name] or "") for name in ("since", "until")):
                raise ValueError(f"{error} In a URL a + is a space: escape it as %2B.") from None
            raise


class SignedChange(TypedDict):
    """The arguments that every change takes."""

    audit: AuditContext
    options: RunOptions


class ChangeBody(Body):
    """Why something is changed."""

    reason: Reason
    dry_run: DryRun = False

    def sign(self, caller: Caller) -> SignedChange:
        """Return who makes the change and why, and how it runs."""
        return {"audit": caller.sign(self.reason), "options": RunOptions(dry_run=self.dry_run)}


class AtMost(Body):
    """The confirmation of a change: the largest number of events that the caller expects."""

    at_most: int = Field(
        default=CONFIRM_ABOVE,
        ge=0,
        le=BIGINT_MAX,
        description="Refuse to change more events than this.",
    )

    def permit(self, verb: str) -> Callable[[int], None] | None:
        """Return a function that refuses more events; `verb` names the change, such as "retry"."""
        return partial(_refuse_more, verb, self.at_most)


class SelectionBody(_FilterBody, AtMost):
    """The filters of a request that changes events.

    Events named by their ids need no confirmation.
    """

    event_ids: list[GivenEventId] | None = Field(
        default=None, min_length=1, max_length=10_000, description="These events only."
    )
    all: bool = Field(
        default=False, description="All dead events. Cannot be combined with filters."
    )
    dry_run: DryRun = False

    @property
    def names_only(self) -> bool:
        """Whether the request names events by their ids and has no filter."""
        given = self.model_dump(include=_FILTER_NAMES, exclude_none=True)
        return bool(self.event_ids) and not given and not self.all

    def build_selection(self, zone: tzinfo, *, default_all: bool = False) -> Selection:
        """Build the selection that the request asks for."""
        given = self.model_dump(include={*_FILTER_NAMES, "all"})
        return Selection.build(
            given, zone, self.event_ids, now=datetime.now(UTC), default_all=default_all
        )

    def permit(self, verb: str) -> Callable[[int], None] | None:
        """Return a function that refuses more events than `at_most`; None if ids name them."""
        return None if self.names_only else super().permit(verb)


def _refuse_more(verb: str, at_most: int, events: int) -> None:
    if events > at_most:
        raise RefusedError(
            f"This would {verb} {events:,} events, more than at_most ({at_most:,}). "
            "Nothing was changed.",
            "Check with dry_run, then raise at_most or add filters.",
        )
