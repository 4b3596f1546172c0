"""Parsing of error texts as workers store them."""

import pytest

from dlq_pipelines.causes.parse import ParsedError, find_app_frame, normalize_text, parse_error

HEAD = "Traceback (most recent call last):\n"
OWN = '  File "/srv/shop/orders.py", line 12, in place\n    run(order)\n    ^^^^^^^^^^\n'
LIBRARY = (
    '  File "/venv/lib/python3.11/site-packages/requests/api.py", line 59, in request\n'
    "    return session()\n"
)
DURING = "\nDuring handling of the above exception, another exception occurred:\n\n"
DIRECT = "\nThe above exception was the direct cause of the following exception:\n\n"
TYPE, MESSAGE, ROOT = (
    "shop.errors.DeliveryError",
    "could not deliver order 17",
    "ConnectionResetError",
)
LOST = f"{TYPE}: {MESSAGE}\n"
FIRST = LIBRARY + "ConnectionResetError: [Errno 104] Connection reset by peer\n"
GROUP = """  + Exception Group Traceback (most recent call last):
  |   File "/srv/shop/main.py", line 4, in main
  |     async with TaskGroup() as group:
  | ExceptionGroup: unhandled errors in a TaskGroup (2 sub-exceptions)
  +-+---------------- 1 ----------------
    | Traceback (most recent call last):
    |   File "/srv/shop/stock.py", line 9, in reserve
    |     raise ValueError(1)
    | ValueError: 1
    +---------------- 2 ----------------
    | Traceback (most recent call last):
    |   File "/srv/shop/mail.py", line 9, in send
    |     contacts['x']
    | KeyError: 'x'
    +------------------------------------
"""
AGGREGATE = """TypeError: fetch failed {
  [cause]: AggregateError
    [errors]: [
      Error: refused ::1
      Error: refused 127.0.0.1
  ]
}"""
REFUSED = "java.net.ConnectException"
JAVA = (
    "java.lang.IllegalStateException: Lost order 17\n"
    "\tat java.base/java.util.Map.get(Map.java:10)\n"
    "\tat com.shop.Sender.send(Sender.java:10)\n"
    f"Caused by: {REFUSED}: Connection refused\n\t... 23 more"
)
NODE = (
    "/app/send.js:10\n    throw err;\n    ^\n\n"
    "Error: delivery failed\n    at send (/app/send.js:10:5) {\n"
    "  [cause]: TypeError: Invalid URL\n      at new URL (node:internal/url:775:36)\n}"
)
DOTNET = (
    "System.TimeoutException: Could not ship\n ---> System.IOException (111): Refused\n"
    "   at System.Net.Sockets.Socket.Connect()\n   --- End of inner exception stack trace ---\n"
    "   at Shop.Orders.Ship() in /src/Orders.cs:line 12"
)


def failure(
    exception_type: str, message: str, root: str = "", *, truncated: bool = False
) -> ParsedError:
    return ParsedError(exception_type, root, message, truncated)


def parse_links(text: str) -> ParsedError:
    """Parse without the messages of the root."""
    return parse_error(text)._replace(roots=())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (HEAD + OWN + LIBRARY + LOST, failure(TYPE, MESSAGE)),
        (HEAD + OWN + "AssertionError\n", failure("AssertionError", "")),
        (HEAD + OWN + "ValueError: first\nsecond line\n", failure("ValueError", "first")),
        (HEAD + "...\nTypeError: f() takes 1\n", failure("TypeError", "f() takes 1")),
        ("job 7 failed\n" + HEAD + OWN + "KeyError: 'a'", failure("KeyError", "'a'")),
        (HEAD + OWN + "__main__.f.<locals>.Odd: x", failure("__main__.f.<locals>.Odd", "x")),
    ],
)
def test_exception_follows_the_frames(text: str, expected: ParsedError) -> None:
    assert parse_links(text) == expected


@pytest.mark.parametrize("link", [DURING, DIRECT])
def test_python_prints_the_root_first(link: str) -> None:
    """Of three exceptions the first is the root and the last the outer one."""
    text = HEAD + FIRST + link + HEAD + LIBRARY + "KeyError: 'a'\n" + link + HEAD + OWN + LOST
    assert parse_links(text) == failure(TYPE, MESSAGE, ROOT)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (JAVA, failure("java.lang.IllegalStateException", "Lost order 17", REFUSED)),
        (NODE, failure("Error", "delivery failed", "TypeError")),
        (DOTNET, failure("System.TimeoutException", "Could not ship", "System.IOException")),
        ("IOException\n\tat com.shop.A.b(A.java:1)", failure("IOException", "")),
        (
            'Exception in thread "main" java.io.IOException: gone',
            failure("java.io.IOException", "gone"),
        ),
    ],
)
def test_other_languages_print_the_root_last(text: str, expected: ParsedError) -> None:
    assert parse_links(text) == expected


@pytest.mark.parametrize(
    ("text", "frame"),
    [
        (HEAD + OWN + LIBRARY + LOST, "shop/orders.py in place"),
        (HEAD + FIRST + DURING + HEAD + OWN, "shop/orders.py in place"),
        (HEAD + LIBRARY + LOST, "requests/api.py in request"),
        (OWN * 100_000 + LOST, "shop/orders.py in place"),
        (GROUP, "shop/mail.py in send"),
        (JAVA, "com.shop.Sender.send"),
        ("IOException\n\tat com.shop.A.b(A.java:1)", "com.shop.A.b"),
        (NODE, "send"),
        (DOTNET, "Shop.Orders.Ship"),
        (HEAD + "...\nTypeError: f() takes 1\n", ""),
        (LOST, ""),
    ],
)
def test_frame_is_the_innermost_of_the_application(text: str, frame: str) -> None:
    """Without a frame of the application it is the innermost frame."""
    assert find_app_frame(text) == frame


def test_root_types_of_a_group_are_its_leaves() -> None:
    """Independent of the order in which its tasks failed."""
    message = "unhandled errors in a TaskGroup (2 sub-exceptions)"
    expected = failure("ExceptionGroup", message, "KeyError+ValueError")
    swapped = (
        GROUP.replace("ValueError: 1", "swap")
        .replace("KeyError: 'x'", "ValueError: 1")
        .replace("swap", "KeyError: 2")
    )
    assert parse_links(GROUP) == expected
    assert parse_links(swapped) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (OWN + LOST, failure(TYPE, MESSAGE, truncated=True)),
        ("    run(order)\n" + OWN + LOST, failure(TYPE, MESSAGE, truncated=True)),
        (FIRST + DURING + HEAD + OWN + LOST, failure(TYPE, MESSAGE, ROOT, truncated=True)),
        (
            "    return session()\n" + FIRST + DURING + HEAD + OWN + LOST,
            failure(TYPE, MESSAGE, ROOT, truncated=True),
        ),
        (HEAD + LIBRARY + OWN, failure("", "", truncated=True)),
        (HEAD + FIRST + DURING + HEAD + OWN, failure("", "", ROOT, truncated=True)),
        (JAVA[JAVA.index("\tat com") :], failure(REFUSED, "Connection refused", truncated=True)),
    ],
)
def test_truncated_traceback_is_parsed(text: str, expected: ParsedError) -> None:
    assert parse_links(text) == expected


@pytest.mark.parametrize("link", [DURING, DIRECT])
def test_root_is_found_if_the_text_is_cut_off_before_it(link: str) -> None:
    whole = HEAD + OWN + FIRST + link + HEAD + LIBRARY + OWN + LOST
    for start in range(whole.index("ConnectionResetError") + 1):
        cut = parse_error(whole[start:])
        assert (cut.exception_type, cut.root_type, cut.message) == (TYPE, ROOT, MESSAGE), whole[
            start : start + 80
        ]


@pytest.mark.parametrize(
    ("text", "exception_type", "message"),
    [
        ("ValueError('bad amount: 17')", "ValueError", "bad amount: 17"),
        ("Error [ERR_ASSERTION]: no", "Error [ERR_ASSERTION]", "no"),
        (
            "System.Data.SqlClient.SqlException (0x80131904): Invalid",
            "System.Data.SqlClient.SqlException",
            "Invalid",
        ),
        ("Faraday::TimeoutError: too slow", "Faraday::TimeoutError", "too slow"),
        ("ERROR:  relation does not exist", "", "relation does not exist"),
        ("Uncaught TypeError: x is null", "TypeError", "x is null"),
        ("socket.timeout: timed out", "socket.timeout", "timed out"),
        ("setval: value is out of bounds", "", "setval: value is out of bounds"),
        ("worker7: gave up", "", "worker7: gave up"),
        ("支付失败:余额不足", "", "支付失败:余额不足"),
        ("_InactiveRpcError: gone", "_InactiveRpcError", "gone"),
        ("feign.FeignException$NotFound: gone", "feign.FeignException$NotFound", "gone"),
        ("AR::Invalid (Name is blank):", "AR::Invalid", "Name is blank"),
        ("AR::Invalid (Name is bl", "AR::Invalid", "Name is bl"),
        ("RangeError (end): Invalid value", "RangeError", "Invalid value"),
        ("** (Ecto.NoResultsError) got none", "Ecto.NoResultsError", "got none"),
        ("[TypeError: fetch failed] {", "TypeError", "fetch failed"),
        ("exception 'E' with message 'it's gone' in /a.php:5", "E", "it's gone"),
        ("thread 'main' panicked at src/main.rs:2:5:\ngone", "panic", "gone"),
        ("thread 'w' panicked at 'gone', src/main.rs:2:5", "panic", "gone"),
        ("SocketException (111): refused", "SocketException", "error 111: refused"),
    ],
)
def test_leading_name_is_a_type_if_it_looks_like_one(
    text: str, exception_type: str, message: str
) -> None:
    assert parse_error(text)[:3] == (exception_type, "", message)


@pytest.mark.parametrize(
    "rest",
    [
        "\nLINE 1: select 7",
        "\nDETAIL:  Key (id)=(7)",
        " DETAIL:  Key (id)=(7)",
        "\n  Detail: Key (id)=(7)",
        " LINE 1: x HINT: y",
    ],
)
def test_further_fields_are_not_part_of_the_message(rest: str) -> None:
    assert (
        parse_error("psycopg.errors.UniqueViolation: duplicate key" + rest).message
        == "duplicate key"
    )


def test_message_continues_after_an_open_end() -> None:
    """The line ends in a colon, an open bracket or `with`."""
    assert parse_error(
        "grpc.RpcError: <RPC terminated with:\n\tstatus = X\n\tdetails = y\n\tdebug = z\n>"
    ).message == ("<RPC terminated with: status = X details = y")


@pytest.mark.parametrize(
    "line",
    ["Reason: Not Found", "ErrorCode:BlobNotFound", "The server responded with: {'error': 'x'}"],
)
def test_line_with_the_reason_is_part_of_the_message(line: str) -> None:
    assert (
        parse_error(f"shop.ApiError: request failed\nRequestId: 7\n{line}\nmore").message
        == f"request failed {line}"
    )


def test_validation_is_reduced_to_its_broken_rules() -> None:
    """Sorted, independent of the order of the fields."""
    amount = (
        "\namount\n  Input should be a valid decimal"
        " [type=decimal_type, input_value='a', input_type=str]"
    )
    sku = "\nitems.0.sku\n  Field required [type=missing, input_value={}, input_type=dict]"
    read = parse_error(
        f"pydantic_core._pydantic_core.ValidationError: 2 validation errors for Order{amount}{sku}"
    )
    assert read.message == (
        "validation failed: Field required [type=missing];"
        " Input should be a valid decimal [type=decimal_type]"
    )
    assert read.names == ("Order.amount", "Order.items.0.sku")
    assert (
        parse_error(f"ValidationError: 2 validation errors for Order{sku}{amount}").message
        == read.message
    )


def test_long_text_is_reduced_to_both_ends() -> None:
    """The type at the beginning and the exception at the end remain."""
    assert len(normalize_text("é\x1b[1m\r\n" * 5_000_000)) < 40_000
    text = HEAD + OWN * 100_000 + LOST
    assert parse_links(text) == failure(TYPE, MESSAGE)
    assert parse_error("ValueError: " + "x" * 10_000_000).exception_type == "ValueError"


@pytest.mark.parametrize(
    ("text", "roots"),
    [
        (
            HEAD + FIRST + DIRECT + HEAD + OWN + LOST,
            [("ConnectionResetError", "[Errno 104] Connection reset by peer")],
        ),
        (GROUP, [("KeyError", "'x'"), ("ValueError", "1")]),
        (JAVA, [(REFUSED, "Connection refused")]),
        (NODE, [("TypeError", "Invalid URL")]),
        (DOTNET, [("System.IOException", "error 111: Refused")]),
        (
            AGGREGATE,
            [("Error", "refused 127.0.0.1"), ("Error", "refused ::1")],
        ),
        ("Error: outer\n\nCaused by:\n    0: middle\n    1: timed out", [("", "timed out")]),
        ("Error: outer\n\nCaused by:\n    timed out", [("", "timed out")]),
        ("Error: \n   0: outer\n   1: timed out\n\nLocation:\n   a.rs:4", [("", "timed out")]),
        (
            "Lost: gone\n/a.rb:1:in `b'\n\nCaused by:\nKeyError: no zip\n/a.rb:9:in `fetch'",
            [("KeyError", "no zip")],
        ),
        (
            "PDOException: no in /a.php:1\nStack trace:\n#0 x\n\nNext LostException: no",
            [("PDOException", "no in /a.php:1")],
        ),
        (
            "** (exit) exited in: GenServer.call(A, :b, 5000)\n    ** (EXIT) time out",
            [("", "time out")],
        ),
        ("KeyError: 'a'", []),
    ],
    ids=["raise from", "group", "Java", "Node", ".NET", "AggregateError", "anyhow", "one cause",
         "eyre", "Ruby", "PHP", "Elixir", "no chain"],
)  # fmt: skip
def test_root_of_a_chain_has_its_message(text: str, roots: list[tuple[str, str]]) -> None:
    assert [tuple(root) for root in parse_error(text).roots] == roots


def test_frames_of_libraries_are_not_the_application() -> None:
    """They are shown if there are no others, but they are no detail."""
    assert find_app_frame(HEAD + LIBRARY + LOST, is_own=True) == ""
    assert find_app_frame(HEAD + OWN + LIBRARY + LOST, is_own=True) == "shop/orders.py in place"
    node = "Error: gone\n    at settle (/a/node_modules/axios/x.js:1:2)\n    at ship (/a/b.js:1:2)"
    assert find_app_frame(node, is_own=True) == "ship"


def test_head_that_names_a_class_wins_over_frames_behind_it() -> None:
    """Rollbar prints the frames of Ruby as Python does."""
    text = 'Net::OpenTimeout: execution expired\n  File "/app/ship.rb", line 12, in perform'
    assert parse_error(text)[:3] == ("Net::OpenTimeout", "", "execution expired")
