"""Templates: which words of a message stay, and which placeholders replace the others."""

import re
from importlib import import_module

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlq_pipelines.causes import (
    bodies,
    condense,
    detail,
    fingerprint,
    parse,
    prefix,
    template,
    tokens,
    words,
)
from dlq_pipelines.causes.template import build_template

constants, parser = import_module("re._constants"), import_module("re._parser")


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ("Order 17 not found", "Order <number> not found"),
        ("order 6f1c3a52-9a51-4c1c-8f57-0a4a8a7c1f10 is gone", "order <uuid> is gone"),
        ("GET https://a.example/v1/7?x=1 failed", "<keyword> <url> failed"),
        ("mail to anna.b@example.com bounced", "mail to <email> bounced"),
        ("lost 10.1.2.3:8443 and [::1]:50051", "lost <ip> and [<ip>]<text>"),
        ("cannot reach shop-2.internal:5432", "cannot reach <host>"),
        ("object at 0x7f1a2b3c4d50", "object at <address>"),
        ("checksum 9f86d081884c7d65 differs", "checksum <hash> differs"),
        ("open /srv/a/b.csv: denied", "open <path>: denied"),
        (r"open C:\data\b.csv failed", "open <path> failed"),
        ("module src/main.rs failed", "module <path> failed"),
        ("due 2026-11-24T07:31:00.5+01:00 missed", "due <time> missed"),
        ("took 1.5s, then 2m30s", "took <quantity>, then <quantity>"),
        ("needs 1,200.50 of 3e5", "needs <number> of <number>"),
        ("column order_total is null", "column <name> is null"),
        ("OrderCreated was not handled", "<name> was not handled"),
        ("cannot read 'blue shoes'", "cannot read <text>"),
        ('relation "orders" does not exist', 'relation "<name>" does not exist'),
        ("Order(id=1, name='x') is closed", "<call> is closed"),
        ("<shop.Order object at 0x7f> is closed", "<object> is closed"),
        ("timeout=30, host='a.b'", "timeout=<number>, host=<name>"),
        (
            "unsupported operand for +: 1 and 2",
            "unsupported operand for <symbol>: <number> and <number>",
        ),
        ("订单12345处理失败", "订单<number>处理失败"),
        ("Kunde 17 fehlt für Lieferung", "Kunde <number> fehlt für Lieferung"),
        ("Ça 17", "Ça <number>"),
        ("ship.<locals>.pack() and <lambda>() failed", "<call> and <call> failed"),
        ("bad byte b'x'", "bad byte <name>"),
        ("Command '['tar', '-x', 'a b']' failed", "Command <text> failed"),
        ('not a map: "{"a": 1}"', "not a map: {<number>}"),
        ("unknown payee Anna Kowalska", "unknown payee <name>"),
        ("due on Monday, 3 March 2026", "due on <time>, <number> <time> <number>"),
        ("no price in EUR", "no price in <name>"),
        ("cannot open <a <b> c> now", "cannot open <object> now"),
    ],
)
def test_value_becomes_a_placeholder_of_its_kind(message: str, text: str) -> None:
    assert build_template(message).text == text


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ("permission denied for table orders", "permission denied for table <name>"),
        (
            "permission denied for foreign table orders",
            "permission denied for foreign table <name>",
        ),
        ("domain postcode does not allow it", "domain <name> does not allow it"),
        ("missing variable DATABASE", "missing variable <name>"),
        ("cannot convert text to Basket", "cannot convert text to <name>"),
        ("must be a mapping, not Order", "must be a mapping, not <name>"),
        ("expected str but got list", "expected str but got list"),
        ("not a boolean: nope", "not a boolean: <word>"),
        ("value of type timestamp without time zone", "value of type <type>"),
        ("cannot unpack non-iterable Order object", "cannot unpack non-iterable <name> object"),
        ("invalid int value", "invalid int value"),
        ("expected str, bytes found", "expected str, bytes found"),
        ("None is not a dict", "None is not a dict"),
        ("is not a valid Status", "is not a valid <name>"),
        ("cannot assign to function call here", "cannot assign to <type> here"),
        ("cannot delete None", "cannot delete <type>"),
        ("no alias of index [orders]", "no alias of index [<word>]"),
        ("killed process 7 (billing)", "killed process <number> (<word>)"),
        ("unit is not supported: parsec", "unit is not supported: <word>"),
        ("total is not defined", "<name> is not defined"),
        ("there is already a table named orders", "there is already a table named <name>"),
    ],
)
def test_plain_word_is_a_value_where_a_name_is_announced(message: str, text: str) -> None:
    assert build_template(message).text == text


@pytest.mark.parametrize(
    "message",
    [
        "connect ECONNREFUSED",
        "index out of range",
        "can't pop from an empty list",
        "the basket isn't empty",
        "service unavailable",
        "read-only file system",
        "PRECEDING/FOLLOWING is not supported",
        "insufficient_funds",
        "NOT NULL constraint failed",
        "(AccessDenied) when calling",
        "the server disconnected",
        "do_not_honor",
        "invalid token: expired",
        "channel is gone (closed)",
        "__str__ returned no string",
        "Fehler: Verbindung abgelehnt",
    ],
)
def test_prose_stays(message: str) -> None:
    assert build_template(message).text == message


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("HTTP 503", "503"),
        ("HTTP/1.1 502 Bad Gateway", "502"),
        ("404 Client Error: Not Found", "404"),
        ("error '503 Service Unavailable' for url", "503"),
        ("Request failed with status code 400", "400"),
        ("API 520: /v1/x", "520"),
        ("[Errno 111] Connection refused", "111"),
        ("connect() failed (111: Connection refused)", "111"),
        ("exited with code 137", "137"),
        ("exit code (137)", "137"),
        ("exit status: -9", "-9"),
        ("SQLSTATE[23000]: violated", "23000"),
        ("ERROR 1054 (x)", "1054"),
        ("(1062, 'Duplicate entry')", "(1062"),
        ("exit code 0xC0000005", "0xC0000005"),
        ("<Response [404]>", "404"),
        ("status = StatusCode.UNAVAILABLE", "StatusCode.UNAVAILABLE"),
        ('{"status": 422}', "422"),
        ("code=_TIMED_OUT", "_TIMED_OUT"),
        ("ORA-00942: table does not exist", "ORA-00942"),
        ("died with <Signals.SIGKILL: 9>", "Signals.SIGKILL"),
        ("raised by <Future at 0x7f state=finished raised ConnectTimeout>", "ConnectTimeout"),
        ("too many 503 error responses", "503"),
        ("answered 504 after 30s", "504"),
        ("An error occurred (404) when calling", "404"),
        ("invalid status 'Forbidden'", "Forbidden"),
        ("http response StatusCode: 403, x", "403"),
        ("23505: duplicate key", "23505"),
    ],
)
def test_code_of_a_failure_stays(message: str, code: str) -> None:
    """In the text and in the key."""
    assert code in build_template(message).text
    assert (
        build_template(message).key
        != build_template(message.replace(code, "X" if code[0] != "(" else "(1")).key
    )


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("missing 1 required argument: 'a'", "missing 3 required arguments: 'a', 'b' and 'c'"),
        ("1 row was lost", "5 rows were lost"),
        ("bad ids [1, 2, 3]", "bad ids [7]"),
        ("bad order {'id': 1}", "bad order {'sku': {'id': [1, 2]}, 'x': None}"),
        ("value '12' is bad", "value 'a b' is bad"),
        ("read 0x7f of abc_1", "read 17 of order_x"),
        ("type int[] of x", "type text of x"),
        ("f() takes exactly 2 arguments (1 given)", "f() takes at least 1 argument (0 given)"),
        (
            "f() takes 0 positional arguments but 1 was given",
            "f() takes from 1 to 2 positional arguments but 3 were given",
        ),
        (
            "missing 1 required positional argument: 'a'",
            "missing 2 required keyword-only arguments: 'a' and 'b'",
        ),
        ("getattr expected at least 2 arguments, got 1", "pop expected 1 argument, got 0"),
    ],
)
def test_number_and_kind_of_values_do_not_change_the_key(one: str, other: str) -> None:
    assert build_template(one).key == build_template(other).key


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ('{"error": {"code": "not_found", "id": 1}}', '{"error": {"code": "invalid", "id": 1}}'),
        ('{"message": "No such order", "id": 1}', '{"message": "Card was declined", "id": 1}'),
        (
            "(Caused by ReadTimeoutError('too slow'))",
            "(Caused by ReadTimeoutError('reset by peer'))",
        ),
        ("KafkaError{code=X,str='Queue full'}", "KafkaError{code=X,str='Message timed out'}"),
        (
            "('Connection aborted.', RemoteDisconnected('gone'))",
            "('Connection aborted.', ConnectionResetError(104, 'reset'))",
        ),
        ("ConnectionError('Broken pipe')", "ConnectionError('Name not known')"),
    ],
)
def test_nested_message_is_read(one: str, other: str) -> None:
    assert build_template(one).key != build_template(other).key


def test_hidden_names_are_returned_once_in_their_order() -> None:
    found = build_template('insert on table "orders" violates constraint "orders_fkey" for 17')
    assert found.names == (("table", "orders"), ("constraint", "orders_fkey"))


@given(
    st.text(st.sampled_from("'\"`\\(){}[]<>:=,. aZ1_-/é单"), max_size=400) | st.text(max_size=400)
)
def test_any_message_has_a_template(message: str) -> None:
    """Including hostile punctuation. Only the beginning is read."""
    padded = f"{message:x<1000}"
    assert build_template(padded) == build_template(padded + message * 9)
    assert build_template(message).text.count("\n") == 0


def test_nesting_without_end_is_bounded() -> None:
    for opening in (
        'msg="',
        "msg='msg=\"",
        'msg="msg=\\"',
        '"msg": "',
        "msg=`msg=«msg=„msg=“msg='",
    ):
        assert build_template(opening * 400).text


def _repeats(pattern: object) -> list[tuple[str, bool]]:
    """List the repetitions that can backtrack, and whether each contains another one."""
    found = []
    for operator, argument in pattern:  # type: ignore[attr-defined]
        greedy = operator in {constants.MAX_REPEAT, constants.MIN_REPEAT} and argument[1] > 400
        inner = [part for each in _parts(argument) for part in _repeats(each)]
        found += [(str(operator), bool(inner))] if greedy else inner
        found += inner if greedy else []
    return found


def _parts(argument: object) -> list[object]:
    if isinstance(argument, parser.SubPattern):
        return [argument]
    return (
        [part for each in argument for part in _parts(each)]
        if isinstance(argument, tuple | list)
        else []
    )


@pytest.mark.parametrize(
    "pattern",
    [
        value
        for module in (
            bodies,
            condense,
            detail,
            fingerprint,
            parse,
            prefix,
            template,
            tokens,
            words,
        )
        for value in vars(module).values()
        if isinstance(value, re.Pattern)
    ],
    ids=lambda pattern: pattern.pattern.strip()[:20],
)
def test_no_backtracking_repetition_contains_another(pattern: re.Pattern[str]) -> None:
    """Such a pattern could take exponential time."""
    assert not [
        outer for outer in _repeats(parser.parse(pattern.pattern, pattern.flags)) if outer[1]
    ]
