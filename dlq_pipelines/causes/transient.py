"""Recognizes transient failures: those that pass without a change of code or data.

Pure. Codes decide first: an error with an HTTP status or a SQLSTATE that is not listed here is not
transient, whatever its message says. Without such a code, the exception types of the error and of
the root of its chain are looked up, then the phrases of both messages. An error that joins several
failures is not transient: one of them may last.
"""

import re
from typing import NamedTuple

from dlq_pipelines.causes.fingerprint import Fingerprint


class TransientKind(NamedTuple):
    """A kind of transient failures, and how an error of that kind is recognized.

    Attributes:
        name: of the kind.
        statuses: HTTP statuses.
        sqlstates: codes of SQL, or the two characters of a whole class of them.
        types: names of exceptions, without module and the ending `Error` or `Exception`, in lower
            case.
        phrases: texts of messages, in lower case.
    """

    name: str
    statuses: tuple[str, ...] = ()
    sqlstates: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    phrases: tuple[str, ...] = ()


def _split(words: str) -> tuple[str, ...]:
    return tuple(words.split())


TRANSIENT_KINDS = (
    TransientKind(
        "time-out",
        statuses=("408", "504", "522", "524"),
        sqlstates=("57014",),
        # Also every type that ends so, such as ReadTimeout and SocketTimeoutException.
        types=_split("timeout timedout deadlineexceeded querycanceled"),
        phrases=(
            "timed out",
            "timeout expired",
            "timeout exceeded",
            "timeout after",
            "i/o timeout",
            "connect timeout",
            "connection timeout",
            "handshake timeout",
            "network timeout",
            "pool timeout",
            "deadline exceeded",
            "code=deadlineexceeded",
            "etimedout",
        ),
    ),
    TransientKind(
        "connection",
        statuses=("502", "520", "521", "523"),
        sqlstates=("08",),
        types=_split(
            "connection connect connectionrefused connectionreset connectionaborted"
            " connectionclosed connectionlost newconnection apiconnection brokenpipe"
            " endpointconnection sqltransientconnection kafkajsconnection remotedisconnected"
            " nohttpresponse noroutetohost brokerunavailable"
        ),
        phrases=(
            "connection refused",
            "connection reset",
            "connection aborted",
            "connection closed",
            "could not connect",
            "closed the connection",
            "broken pipe",
            "socket hang up",
            "network is unreachable",
            "no route to host",
            "temporary failure in name resolution",
            "bad gateway",
            "econnrefused",
            "econnreset",
            "econnaborted",
            "ehostunreach",
            "enetunreach",
            "eai_again",
        ),
    ),
    TransientKind(
        "overload",
        statuses=("425", "429", "503", "529"),
        sqlstates=("53", "57P01", "57P02", "57P03"),
        types=_split(
            "toomanyrequests ratelimit ratelimitexceeded throttling throttled serviceunavailable"
            " toomanyconnections"
        ),
        phrases=(
            "too many requests",
            "too many connections",
            "rate limit exceeded",
            "service unavailable",
            "temporarily unavailable",
            "try again later",
            "code=unavailable",
            "code=resourceexhausted",
        ),
    ),
    TransientKind(
        "conflict",
        sqlstates=("40", "55P03"),
        types=_split(
            "deadlock deadlockdetected deadlockloserdataaccess serializationfailure"
            " cannotserializetransaction locknotavailable cannotacquirelock"
        ),
        phrases=("deadlock detected", "deadlock found", "could not serialize access"),
    ),
)
"""What counts as transient. An exception type that ends in `timeout` is a time-out too."""

_STATUS = re.compile(r"[45][0-9]{2}")
_SQLSTATE = re.compile(r"(?=[0-9A-Z]*[0-9])[0-9A-Z]{5}")
_ENDING = re.compile(r"(?:error|exception)\Z")
_SEVERAL = " + "


def find_transient_kind(fingerprint: Fingerprint) -> TransientKind | None:
    """Return the kind of the transient failure; None: the failure is not known to pass."""
    if _SEVERAL in fingerprint.root_template:
        return None
    kinds = [_find_by_code(code) for code in fingerprint.code.split() if _is_decisive(code)]
    if kinds:
        return None if None in kinds else kinds[0]
    types = [_reduce_type(name) for name in (fingerprint.root_type, fingerprint.exception_type)]
    messages = f"{fingerprint.root_template}\n{fingerprint.template}".lower()
    for kind in TRANSIENT_KINDS:
        if any(name in kind.types for name in types):
            return kind
    if any(name.endswith("timeout") for name in types):
        return TRANSIENT_KINDS[0]
    for kind in TRANSIENT_KINDS:
        if any(phrase in messages for phrase in kind.phrases):
            return kind
    return None


def is_transient(fingerprint: Fingerprint) -> bool:
    """Return whether the failure is one that passes without a change of code or data."""
    return find_transient_kind(fingerprint) is not None


def _is_decisive(code: str) -> bool:
    """Whether a code is an HTTP status or a SQLSTATE; an errno or an exit code is not.

    HY000 is what ODBC and PDO write for any error.
    """
    return code != "HY000" and bool(_STATUS.fullmatch(code) or _SQLSTATE.fullmatch(code))


def _find_by_code(code: str) -> TransientKind | None:
    for kind in TRANSIENT_KINDS:
        if code in kind.statuses or code in kind.sqlstates:
            return kind
        if _SQLSTATE.fullmatch(code) and code[:2] in kind.sqlstates:
            return kind
    return None


def _reduce_type(name: str) -> str:
    """Return the name of a class in lower case, without module and ending."""
    bare = re.split(r"[.:$\\]", name)[-1].lower()
    return _ENDING.sub("", bare)
