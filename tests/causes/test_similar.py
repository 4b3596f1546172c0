"""Near-identical causes are proposed with their evidence, never merged."""

from datetime import UTC, datetime

import pytest

from dlq_pipelines.causes.catalogue import Cause
from dlq_pipelines.causes.similar import find_similar_causes

NOW = datetime(2026, 11, 20, tzinfo=UTC)


def _cause(
    id_: str, template: str, *, deaths: int = 1, exception_type: str = "ValueError"
) -> Cause:
    return Cause(
        id_, exception_type, template, "open", None, None, None, None, None, NOW, NOW, deaths, 0, ()
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
def test_equal_but_for_one_word(other: str, differs: tuple[str, str] | None) -> None:
    """The larger cause comes first; the words at the place where they differ are the evidence."""
    found = find_similar_causes([_cause("b", other), LEFT])
    assert [(one.cause.id, one.other.id, one.differs) for one in found] == (
        [("a", "b", differs)] if differs else []
    )


def test_another_exception_type_is_another_cause() -> None:
    """Whatever the message."""
    assert (
        find_similar_causes(
            [LEFT, _cause("b", LEFT.template[:-5] + "south", exception_type="KeyError")]
        )
        == []
    )


def test_short_messages_and_many_alike_are_not_proposed() -> None:
    """One word of four says everything, and so does a code that tells seven causes apart."""
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
