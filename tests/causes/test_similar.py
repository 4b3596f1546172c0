"""Similar causes are proposed with their evidence, never merged."""

from datetime import UTC, datetime

import pytest

from dlq_pipelines.causes.catalogue import Cause
from dlq_pipelines.causes.similar import find_similar_causes, find_similar_groups

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
        None,
        False,
        NOW,
        NOW,
        deaths,
        0,
        (),
        None,
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


@pytest.mark.parametrize(
    ("template", "one", "other"),
    [
        ("HTTP Error {} no answer for <url>", "503:", "404:"),
        ("no answer for <url>: the status was {}", "503", ""),
        ("{} row of table <name> was rejected", "SQLSTATE[23505]:", "SQLSTATE[40P01]:"),
        ("write to <path> on <host> failed: {}", "ENOSPC", "EROFS"),
        (
            "call of <name> on <host> failed with {}",
            "java.net.BindException",
            "java.io.IOException",
        ),
        ("upload of <name> to the bucket failed {}", "(SlowDown)", "(NoSuchKey)"),
        ("the payment of order <id> ended: {}", "do_not_honor", "lost_card"),
        ("the connection to <host> was {} early", "refused", "closed"),
        ("Listener method <text> threw {} again", "exception", "exception"),
    ],
)
def test_causes_with_different_codes_are_not_proposed(template: str, one: str, other: str) -> None:
    """Nor those with different classes of errors; equal templates have different roots."""
    pair = [_cause("a", template.format(one)), _cause("b", template.format(other))]
    assert find_similar_causes(pair) == []


def test_causes_with_different_classes_are_no_group() -> None:
    classes = ["EOF", "Connect", "Socket", "Bind", "Protocol", "Zip", "SSL"]
    causes = [
        _cause(name, f"call of <name> failed with java.net.{name}Exception on <host>")
        for name in classes
    ]
    assert find_similar_groups(causes) == []


def test_many_causes_that_differ_in_one_word_are_one_group() -> None:
    """The largest cause comes first, whatever the order in which the causes are read."""
    depots = ["north", "south", "east", "west", "harbour", "airport", "central"]
    causes = [
        _cause(depot, f"could not book slip <id> at depot {depot}", deaths=n)
        for n, depot in enumerate(depots)
    ]
    for order in (causes, causes[::-1]):
        (group,) = find_similar_groups(order)
        assert group.cause.id == "central"
        assert [other.id for other in group.others] == depots[-2::-1]
        assert group.differs == tuple(depots[::-1])
        assert group.words == 7
        assert group.describe_difference() == (
            "7 causes differ only in one word: could not book slip <id> at depot …"
        )


def test_codes_and_few_causes_are_no_group() -> None:
    codes = [_cause(str(code), f"the server answered with status {code}") for code in range(7)]
    assert find_similar_groups(codes) == []
    assert find_similar_groups([_cause(name, f"no slot for depot {name}") for name in "abc"]) == []
