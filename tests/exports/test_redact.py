"""Redaction hides exactly what the rules match, in any text; invalid rules are refused."""

import hmac
import json
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlq_pipelines.errors import DlqError
from dlq_pipelines.exports.formats import EXPORT_SCHEMA
from dlq_pipelines.exports.redact import MASK, parse_redaction

KEY = b"a key of 16 bytes"


def hidden(rules: str, payload: str) -> str | None:
    return parse_redaction(rules, "", KEY).redact_payload(payload)


def hashed(text: str) -> str:
    return hmac.new(KEY, text.encode(), "sha256").hexdigest()


@pytest.mark.parametrize(
    ("rules", "payload", "shown"),
    [
        ("drop $.a", '{"a": 1, "b": 2, "c": 3}', '{"b": 2, "c": 3}'),
        ("drop $.b", '{"a": 1, "b": 2, "c": 3}', '{"a": 1, "c": 3}'),
        ("drop $.c", '{"a": 1, "b": 2, "c": 3}', '{"a": 1, "b": 2}'),
        ("drop $.a; drop $.b", '{"a": 1, "b": 2, "c": 3}', '{"c": 3}'),
        ("drop $.a; drop $.c", '{"a": 1, "b": 2, "c": 3}', '{"b": 2}'),
        ("drop $.*", '{"a": 1, "b": {"c": 3}}', "{}"),
        ("drop $[0]", "[1, 2, 3]", "[2, 3]"),
        ("drop $.a.b", '{"a": {"b": 1}, "b": 2}', '{"a": {}, "b": 2}'),
        ("drop $", '{"a": 1}', None),
        ("mask $", '{"a": 1}', '"***"'),
        ("mask $.a", '{"a": {"b": [1, {}]}, "c": 1}', '{"a": "***", "c": 1}'),
        (
            "mask $..email",
            '{"email": 1, "x": [{"email": [2]}, [{"email": 3}]]}',
            '{"email": "***", "x": [{"email": "***"}, [{"email": "***"}]]}',
        ),
        (
            "mask $.x[*].y",
            '{"x": [{"y": 1}, {"z": 2}, 3], "y": 4}',
            '{"x": [{"y": "***"}, {"z": 2}, 3], "y": 4}',
        ),
        ("mask $..a.b", '{"a": {"a": {"b": 1}}, "b": 2}', '{"a": {"a": {"b": "***"}}, "b": 2}'),
        ("mask $['a b;\\'c\"']", '{"a b;\'c\\"": 1}', '{"a b;\'c\\"": "***"}'),
        ('mask $["日本"][1]', '{"日本": [1, 2]}', '{"日本": [1, "***"]}'),
        ("mask $.straße", '{"straße": 1}', '{"straße": "***"}'),
        (
            "mask $.email",
            '{"\\u0065mail": 1}',
            '{"\\u0065mail": "***"}',
        ),  # of a column of type json
        ("mask $.a", '{"a": 1, "a": 2}', '{"a": "***", "a": "***"}'),
        ("mask $.0", '{"0": 1}', "refused"),
        ("mask $['0']", '{"0": 1}', '{"0": "***"}'),
        ("mask $['0']", "[1]", "[1]"),
        ("mask $[0]", '{"0": 1}', '{"0": 1}'),
        (
            "mask $.a",
            ' { "b" : [ 1 , { } ] , "a" : "x" } ',
            ' { "b" : [ 1 , { } ] , "a" : "***" } ',
        ),
        ("hash $.a", '{"a": "Zoë"}', f'{{"a": "{hashed("Zoë")}"}}'),
        ("hash $.a", '{"a": "Zo\\u00eb"}', f'{{"a": "{hashed("Zoë")}"}}'),
        ("hash $.a", '{"a": 9007199254740993}', f'{{"a": "{hashed("9007199254740993")}"}}'),
        (
            "hash $.a; mask $.a.b; drop $.c; mask $.c",
            '{"a": 1, "c": 2}',
            f'{{"a": "{hashed("1")}"}}',
        ),
        ("hash $.a; mask $..a", '{"a": 1}', '{"a": "***"}'),
        ("mask $.a; drop $.*", '{"a": 1}', "{}"),
        (
            "mask $.absent",
            '{"n": 12345678901234567890.1200, "e": 1E9}',
            '{"n": 12345678901234567890.1200, "e": 1E9}',
        ),
    ],
)
def test_rules_hide_exactly_what_their_paths_match(
    rules: str, payload: str, shown: str | None
) -> None:
    """Every other character stays."""
    if shown == "refused":
        with pytest.raises(DlqError):
            hidden(rules, payload)
    else:
        assert hidden(rules, payload) == shown


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from("abc") | st.text(max_size=3), inner)
    ),
    max_leaves=20,
)


def expected(value: Any) -> Any:
    """Apply `drop $..a; mask $..b` to a parsed value."""
    if isinstance(value, dict):
        return {
            key: "***" if key == "b" else expected(inner)
            for key, inner in value.items()
            if key != "a"
        }
    return [expected(inner) for inner in value] if isinstance(value, list) else value


@given(value=JSON, indent=st.sampled_from([None, 1]), ascii_only=st.booleans())
def test_redacted_payload_is_json_without_hidden_values(
    *, value: Any, indent: int | None, ascii_only: bool
) -> None:
    """The same rules on the parsed value have the same result."""
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    shown = hidden("drop $..a; mask $..b", text)
    assert shown is not None
    assert json.loads(shown) == expected(value)


@pytest.mark.parametrize(
    "payload",
    [
        "",
        "x",
        '{"a": 1',
        '{"a" 1}',
        '{"a": 1} x',
        "[1 2]",
        '"open',
        '{"b": ["x}',
        "{,}",
        '["\\"" "',
    ],
)
def test_invalid_json_is_masked_as_a_whole(payload: str) -> None:
    """Only a column of type jsonb is always valid."""
    assert hidden("mask $.a", payload) == MASK


def test_deep_and_long_payloads_are_redacted() -> None:
    """Without recursion, and in linear time."""
    depth = 200_000
    assert (
        hidden("mask $..a", "[" * depth + '{"a": 1}' + "]" * depth)
        == "[" * depth + '{"a": "***"}' + "]" * depth
    )
    long = "x" * 10_000_000
    assert hidden("mask $.a", f'{{"b": "{long}", "a": 1}}') == f'{{"b": "{long}", "a": "***"}}'


def _batch(error: str | None, template: str | None = None) -> pa.RecordBatch:
    row = {
        field.name: None if field.nullable else "" if field.type == pa.string() else 0
        for field in EXPORT_SCHEMA
    }
    return pa.RecordBatch.from_pylist(
        [row | {"error": error, "template": template}], schema=EXPORT_SCHEMA
    )


@pytest.mark.parametrize(
    ("patterns", "error", "shown"),
    [
        (r"Bearer \S+", "401: Bearer abc.def\nBearer x", "401: [redacted]\n[redacted]"),
        ("\n \\d{16} \n(?i)secret", "4111111111111111 SECRET", "[redacted] [redacted]"),
        (r"日+", "日本日日", "[redacted]本[redacted]"),
        ("x", None, None),
    ],
)
def test_matches_in_errors_and_templates_are_replaced(
    patterns: str, error: str | None, shown: str | None
) -> None:
    """A template comes from an error and may contain the same text."""
    batch = parse_redaction("", patterns, None).redact_batch(_batch(error, error))
    assert batch.schema.equals(EXPORT_SCHEMA)
    assert (batch.column("error")[0].as_py(), batch.column("template")[0].as_py()) == (shown, shown)


def test_patterns_take_linear_time() -> None:
    """A backtracking engine would not finish."""
    error = "a" * 100_000 + "!"
    batch = parse_redaction("", r"(a+)+$" + "\n" + r"(a|aa)+b", None).redact_batch(_batch(error))
    assert batch.column("error")[0].as_py() == error


@pytest.mark.parametrize(
    ("payload", "errors", "key", "message"),
    [
        ("hide $.a", "", KEY, "DLQ_EXPORT_REDACT_PAYLOAD: a rule is drop, mask or hash and a path"),
        ("mask a", "", KEY, "DLQ_EXPORT_REDACT_PAYLOAD: a rule is drop"),
        (
            "mask $.a $.b",
            "",
            KEY,
            "DLQ_EXPORT_REDACT_PAYLOAD: 'mask $.a' is followed by ' $.b', not by a step of a path.",
        ),
        ("mask $.a[", "", KEY, "DLQ_EXPORT_REDACT_PAYLOAD: 'mask $.a' is followed by '['"),
        ("mask $.a..", "", KEY, "DLQ_EXPORT_REDACT_PAYLOAD: "),
        ("mask $...a", "", KEY, "DLQ_EXPORT_REDACT_PAYLOAD: "),
        ("mask $['a", "", KEY, "DLQ_EXPORT_REDACT_PAYLOAD: "),
        ("mask $.a;; drop $.b", "", KEY, "DLQ_EXPORT_REDACT_PAYLOAD: "),
        ("hash $.a", "", None, "DLQ_EXPORT_HASH_KEY is required because a rule uses `hash`."),
        ("", "(", KEY, "DLQ_EXPORT_REDACT_ERRORS: '(' is not a valid RE2 pattern"),
        ("", "(?=a)", KEY, "DLQ_EXPORT_REDACT_ERRORS: "),
        ("", r"(a)\1", KEY, "DLQ_EXPORT_REDACT_ERRORS: "),
        ("", "ok\na*", KEY, "DLQ_EXPORT_REDACT_ERRORS: 'a*' matches the empty text"),
    ],
)
def test_invalid_rule_is_refused_with_the_name_of_its_variable(
    payload: str, errors: str, key: bytes | None, message: str
) -> None:
    with pytest.raises(DlqError) as raised:
        parse_redaction(payload, errors, key)
    assert raised.value.message.startswith(message)


def test_key_is_never_shown() -> None:
    redaction = parse_redaction("hash $.a", "x", KEY)
    assert KEY.decode() not in repr(redaction) + json.dumps(redaction.describe())
    assert redaction.describe() == {"payload": ["hash $.a"], "errors": ["x"]}
