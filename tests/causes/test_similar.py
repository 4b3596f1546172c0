"""Similar causes are proposed with their evidence, never merged."""

from datetime import UTC, datetime

import pytest

from dlq_pipelines.causes.catalogue import Cause
from dlq_pipelines.causes.similar import find_similar_causes

NOW = datetime(2026, 11, 20, tzinfo=UTC)


def _cause(
    id_: str, template: str, *, deaths: int = 1, exception_type: str = "ValueError"
) -> Cause:
    return Cause(
        id_,
        exception_type,
        template,
        "open",
        None,
        None,
        None,
        None,
        None,
        NOW,
        NOW,
        deaths,
        0,
        (),
        (),
    )


LEFT = _cause("a", "could not book slip <id> at depot north", deaths=9)


@pytest.mark.parametrize(
    ("other", "differs"),
    [
        ("could not book slip <id> at depot south", ("north", "south")),
        ("could not book slip <id> at the depot north", ("", "the")),
        ("could not book slip <id> at depot south east", None),
    ],
    ids=["one word differs", "one word more", "two words differ"],
)
def test_templates_equal_but_for_one_word_are_a_pair(
    other: str, differs: tuple[str, str] | None
) -> None:
    """The larger cause comes first; the differing words are the evidence."""
    found = find_similar_causes([_cause("b", other), LEFT])
    assert [(one.cause.id, one.other.id, one.differs) for one in found] == (
        [("a", "b", differs)] if differs else []
    )


def test_other_exception_type_is_not_proposed() -> None:
    assert (
        find_similar_causes(
            [LEFT, _cause("b", LEFT.template[:-5] + "south", exception_type="KeyError")]
        )
        == []
    )


def test_short_and_numerous_templates_are_not_proposed() -> None:
    """One word of three matters, and so does a code that distinguishes seven causes."""
    assert (
        find_similar_causes(
            [_cause("a", "connection was refused"), _cause("b", "connection was reset")]
        )
        == []
    )
    codes = [
        _cause(str(code), f"the server answered with status {code}") for code in range(500, 507)
    ]
    assert find_similar_causes(codes) == []
