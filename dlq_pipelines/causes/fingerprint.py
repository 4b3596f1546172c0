"""Computes the fingerprint of an error text: failures with the same fingerprint have one cause.

Pure. The fingerprint hashes the exception type, the type at the root of the chain and the template
of the message. Its id holds the version of the rules, because an id must never change its meaning.
Names of columns and the place in the code are shown but not hashed.
"""

import hashlib
import re
from functools import lru_cache
from typing import NamedTuple

from dlq_pipelines.causes.parse import ParsedError, find_app_frame, parse_error
from dlq_pipelines.causes.template import Template, build_template

VERSION = 1
# The cache holds texts: their number and length bound its memory.
_CACHED_TEXTS, _LONGEST_CACHED = 2_048, 8_192
_MAX_NAMES = 5
_MAX_DETAIL = 200
_POSITION = re.compile(r" \([^()]{1,200}, line [0-9]+\)\Z")


class Fingerprint(NamedTuple):
    """The fingerprint of an error text, and the parts of the text that people read.

    Attributes:
        id: such as `v1-3f9a0c6d2b7e4a51`: the version and 64 bits of SHA-256.
        exception_type: with its module; empty if the text names none.
        template: the message with typed placeholders.
        root_type: the type at the root of the chain; empty without a chain.
        code: the codes of the failing system: HTTP status, errno, SQLSTATE, exit code.
        detail: names that distinguish the failures of a cause: constraint, column, missing key.
        frame: the innermost frame in the application's own code.
        truncated: a part of the traceback is missing.
    """

    id: str
    exception_type: str
    template: str
    root_type: str = ""
    code: str = ""
    detail: str = ""
    frame: str = ""
    truncated: bool = False


def compute_fingerprint(error: str | None) -> Fingerprint:
    """Compute the fingerprint of an error text; None and blank texts share one."""
    text = error or ""
    failure = parse_error(text)
    message, frame = _select_message(failure), find_app_frame(text)
    found = (
        build_template(message)
        if message or failure.exception_type
        else _describe_cut_off_error(failure, frame)
    )
    return Fingerprint(
        id=_hash_failure(failure, found.key),
        exception_type=failure.exception_type,
        template=found.text,
        root_type=failure.root_type,
        code=" ".join(dict.fromkeys(found.codes)),
        detail=", ".join((failure.names or found.names)[:_MAX_NAMES]),
        frame=frame,
        truncated=failure.truncated,
    )


class CauseKey(NamedTuple):
    """The id of the fingerprint, and the detail: the first name of the message; "" without one."""

    id: str
    detail: str


def compute_cause_key(error: str | None) -> CauseKey:
    """Compute id and detail alone: the parts that are only shown are left out."""
    text = error or ""
    return _cached_cause_key(text) if len(text) <= _LONGEST_CACHED else _compute_uncached_key(text)


def _compute_uncached_key(text: str) -> CauseKey:
    failure = parse_error(text)
    message = _select_message(failure)
    found = (
        build_template(message)
        if message or failure.exception_type
        else _describe_cut_off_error(failure, find_app_frame(text))
    )
    names = failure.names or found.names or ("",)
    return CauseKey(_hash_failure(failure, found.key), names[0][:_MAX_DETAIL])


_cached_cause_key = lru_cache(_CACHED_TEXTS)(_compute_uncached_key)


def _select_message(failure: ParsedError) -> str:
    """Return the message without the exception's name, which some libraries repeat in front."""
    message = failure.message.removeprefix(f"{_strip_module(failure.exception_type)}: ")
    if (
        message[-1:] == ")"
    ):  # a syntax error without its traceback: "invalid syntax (orders.py, line 7)"
        message = _POSITION.sub("", message)
    # A message in angle brackets, as urllib writes it: "<urlopen error timed out>".
    return (
        message[1:-1]
        if message[:1] == "<" and message[-1:] == ">" and " error " in message
        else message
    )


def _describe_cut_off_error(failure: ParsedError, frame: str) -> Template:
    """Return the template of a text without message and type: the place where it was cut off."""
    cut_off = f"traceback cut off in {frame}" if frame else "traceback cut off"
    text = cut_off if frame or failure.truncated else "no error text"
    return Template(text, text, (), ())


def _strip_module(exception_type: str) -> str:
    """Return the class alone: `psycopg2.Error` may become `psycopg2.errors.Error` in a release."""
    return exception_type.rpartition(".")[2]


def _hash_failure(failure: ParsedError, key: str) -> str:
    root = _strip_module(failure.root_type) if failure.root_type != failure.exception_type else ""
    hashed = f"{_strip_module(failure.exception_type)}\n{root}\n{key}".encode(
        errors="backslashreplace"
    )
    digest = hashlib.sha256(hashed).hexdigest()
    return f"v{VERSION}-{digest[:16]}"
