"""Messages without data: bodies, tuples, statements, places and lists."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlq_pipelines.causes.condense import condense_message
from dlq_pipelines.causes.fingerprint import compute_cause_id
from dlq_pipelines.causes.tokens import KEPT_END, KEPT_START


def _condense(message: str) -> str:
    return condense_message(message).text.replace(KEPT_START, "").replace(KEPT_END, "")


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ("<html><head><title>502 Bad Gateway</title></head></html>", "502 Bad Gateway"),
        (
            "<title>a.example | 522: Connection timed out</title>",
            "<title>a.example | 522: Connection timed out</title>",
        ),
        ("got 502; <html><title>502 Bad Gateway</title>", "got 502; 502 Bad Gateway"),
        ("<!DOCTYPE html><html><h1>Server Error (500)</h1>", "Server Error (500)"),
        (
            "<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Too fast.</Message></Error>",
            "SlowDown: Too fast.",
        ),
        (
            "<soap:Fault><faultcode>soap:Client</faultcode><faultstring>No order</faultstring>",
            "soap:Client: No order",
        ),
        ('{"message": "No such order", "code": "not_found", "id": 7}', "not_found: No such order"),
        ('failed: {"error": {"code": 4, "type": "OAuth"}} again', "failed: OAuth: 4 again"),
        ('{"errors":[{"message":"Denied","extensions":{"code":"ACCESS"}}]}', "ACCESS: Denied"),
        ("Error code: 429 - {'error': {'code': 'quota'}}", "Error code: 429 - quota"),
        ("bad order {'id': 1, 'sku': 'x'}", "bad order <object>"),
        ('sent payload=\'{"message": "x"}\' to it', "sent payload=<object> to it"),
        ('"{\\"error\\": \\"no_such_order\\"}"', "no_such_order"),
        ('<HttpError 403 when requesting https://a/b returned "No access">', "403 No access"),
    ],
)
def test_body_becomes_its_codes_and_its_sentences(message: str, text: str) -> None:
    assert _condense(message) == text


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ("('42S02', \"[42S02] Invalid object name 'x'. (208)\")",
         "42S02 [42S02] Invalid object name 'x'. (208)"),
        ("(1062, \"Duplicate entry 'x'\")", "1062 Duplicate entry 'x'"),
        ("RequestError(400, 'illegal', 'Limit [7] exceeded')", "400 illegal: Limit [7] exceeded"),
        ("{'a@b.c': (550, b'5.1.1 User unknown')}", "550 5.1.1 User unknown')}"),
    ],
)  # fmt: skip
def test_tuple_that_states_a_failure_becomes_prose(message: str, text: str) -> None:
    assert _condense(message) == text


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ("gone (Connection: mysql, SQL: select 7)", "gone"),
        ("gone (SQL: select 7)", "gone"),
        ("gone [SQL: select 7]", "gone"),
        ("database is locked: SELECT a FROM b", "database is locked"),
        ("database is locked: commit transaction", "database is locked"),
        ('insert into "a" ("b") values ($1) - duplicate key value', "duplicate key value"),
        ("error executing 'SELECT 1' with params [7]: gone", "error executing: gone"),
        ("gone in /app/x.php:5", "gone"),
        ("no default value in C:\\app\\x.php:5", "no default value"),
        ("not one of: [NEW, PAID]", "not one of: <list>"),
        ("Choices are: created, id", "Choices are: <list>"),
        ("reasons [None, ConditionalCheckFailed]", "reasons [ConditionalCheckFailed]"),
        ("timed out (total=6, idle=0)", "timed out"),
        ("refused (after 2ms in state CONNECT, 3 identical error(s))", "refused"),
        ("gone, RequestID: Q6Y2, HostID: a/b=, over", "gone, over"),
        ("/bin/sh: pdftotext: not found", "/bin/sh: <name>: not found"),
        ("error: update or delete on table x", "error: update or delete on table x"),
    ],
)
def test_statement_place_list_and_request_id_are_cut(message: str, text: str) -> None:
    assert _condense(message) == text


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (
            '{"error": {"code": "x", "message": "No y"}}',
            "{'error': {'message': 'No y', 'code': 'x'}}",
        ),
        ('{\n  "code": "x",\n  "id": 1\n}', '{"code":"x"}'),
        ("<html>\n<title>502 Bad</title>\n<hr>nginx", "<html><title>502 Bad</title>"),
    ],
)
def test_layout_of_a_body_does_not_change_the_cause(one: str, other: str) -> None:
    assert compute_cause_id(one) == compute_cause_id(other)


@given(st.text(st.sampled_from("<>{}[]()'\":,\\ =aE1/!?htmlcode"), max_size=300))
def test_any_message_is_condensed(message: str) -> None:
    assert len(condense_message(message).text) <= 2 * len(message) + 40
