"""Which texts are the same failure, and which are not?"""

import pytest

from dlq_pipelines.causes.fingerprint import cause_key, fingerprint

TRACEBACK = (
    'Traceback (most recent call last):\n  File "/srv/app.py", line {line}, in deliver\n    post(order)\n{error}\n'
)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Order 17 was not found", "Order 18 was not found"),
        ("TimeoutError: no answer in 30.0 s", "TimeoutError: no answer in 5 s"),
        ("KeyError: 'a'", "KeyError: 'b'"),
        (TRACEBACK.format(line=7, error="KeyError: 'a'"), TRACEBACK.format(line=9, error="KeyError: 'b'")),
        ("GET https://a.example/1 failed", "GET https://b.example/2?q=1 failed"),
        ("no user 6ba7b810-9dad-11d1-80b4-00c04fd430c8", "no user 00000000-0000-4000-8000-000000000000"),
        ("\x1b[31mKeyError: 'a'\x1b[0m", "KeyError: 'a'\r\n"),
        (None, "   "),
    ],
)
def test_what_varies_from_event_to_event_is_one_cause(one: str | None, other: str | None) -> None:
    """Numbers, values, addresses, lines of code, colours."""
    assert cause_key(one) == cause_key(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("HTTP 503", "HTTP 404"),
        ("OSError: [Errno 111] refused", "OSError: [Errno 113] refused"),
        ("KeyError: 'a'", "IndexError: 'a'"),
        ("exit code 1", "exit code 137"),
        ("connection refused", "connection reset"),
    ],
)
def test_what_tells_causes_apart_stays(one: str, other: str) -> None:
    """Status, errno, exception type, exit code, words."""
    assert cause_key(one) != cause_key(other)


def test_an_exception_raised_from_another_is_the_last_one() -> None:
    """Of a chain the exception that left the handler names the cause."""
    chain = (
        TRACEBACK.format(line=1, error="KeyError: 'a'")
        + "\nThe above exception was the direct cause of the following exception:\n\n"
        + TRACEBACK.format(line=2, error="shop.errors.NoAddressError: order 17 has none")
    )
    found = fingerprint(chain)
    assert (found.exception_type, found.template) == ("shop.errors.NoAddressError", "order <number> has none")
    assert found.id.startswith("v1-")
