"""Which failures count as transient."""

import pytest

from dlq_pipelines.causes.fingerprint import compute_fingerprint
from dlq_pipelines.causes.transient import find_transient_kind

_CHAIN = (
    'Traceback (most recent call last):\n  File "/app/a.py", line 3, in f\n    x()\n{root}\n\n'
    "The above exception was the direct cause of the following exception:\n\n"
    'Traceback (most recent call last):\n  File "/app/a.py", line 9, in g\n    f()\n'
    "app.DeliveryError: delivery failed\n"
)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ("TimeoutError: no answer", "time-out"),
        ("java.net.SocketTimeoutException: Read timed out", "time-out"),
        ("requests.exceptions.ReadTimeout: read", "time-out"),
        ("HTTP 504 Gateway Timeout", "time-out"),
        ("rpc error: code = DeadlineExceeded desc = context", "time-out"),
        ("read tcp 10.1.2.9:51022->10.0.0.8:6379: i/o timeout", "time-out"),
        ("PDOException: SQLSTATE[HY000] [2002] Connection refused", "connection"),
        ("ERROR: canceling statement due to statement timeout (SQLSTATE 57014)", "time-out"),
        ("ConnectionRefusedError: [Errno 111] Connection refused", "connection"),
        ("Error: connect ECONNREFUSED 10.0.0.1:5432", "connection"),
        ("urllib.error.URLError: <urlopen error [Errno 111] Connection refused>", "connection"),
        ("urllib.error.HTTPError: HTTP Error 502: Bad Gateway", "connection"),
        (_CHAIN.format(root="ConnectionResetError: [Errno 104] reset by peer"), "connection"),
        ("urllib.error.HTTPError: HTTP Error 429: Too Many Requests", "overload"),
        ("requests.exceptions.HTTPError: 503 Server Error: Service Unavailable", "overload"),
        ("rpc error: code = Unavailable desc = connection error", "overload"),
        ("FATAL: the database system is starting up (SQLSTATE 57P03)", "overload"),
        ("psycopg.errors.DeadlockDetected: deadlock detected", "conflict"),
        ("ERROR: could not serialize access (SQLSTATE 40001)", "conflict"),
        ("ERROR: deadlock detected (SQLSTATE 40P01)", "conflict"),
    ],
)
def test_failures_that_pass_are_transient(error: str, kind: str) -> None:
    found = find_transient_kind(compute_fingerprint(error))
    assert found is not None
    assert found.name == kind


@pytest.mark.parametrize(
    "error",
    [
        "",
        "KeyError: 'timeout'",
        "ValueError: timeout must be positive",
        "urllib.error.HTTPError: HTTP Error 404: Not Found",
        "HTTP 404: the request timed out",  # the status decides
        "requests.exceptions.ConnectionError: 401 Client Error: Unauthorized",
        "ERROR: duplicate key value violates unique constraint (SQLSTATE 23505)",
        "HTTP 500 Internal Server Error",
        "PaymentDeclinedError: the amount exceeds the credit",
        _CHAIN.format(root="KeyError: 'postcode'"),
    ],
)
def test_failures_that_stay_are_not_transient(error: str) -> None:
    assert find_transient_kind(compute_fingerprint(error)) is None
