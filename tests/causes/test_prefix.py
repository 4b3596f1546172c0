"""Prefixes of loggers: a text has the same cause with and without one."""

import pytest

from dlq_pipelines.causes.fingerprint import compute_cause_key
from dlq_pipelines.causes.prefix import strip_log_prefix
from tests.causes.labelled import FILES, LANGUAGES, labelled_file

PREFIXES = [
    "2025-11-08 21:36:50,569 ERROR [worker.deliver] ",
    "2025-11-08 21:36:50,569 - shop.worker - ERROR - ",
    "2025-11-08T21:36:50.569Z ERROR ",
    "2026-01-18 10:30:15 ERROR shop.worker: ",
    "2026-01-18 10:30:15,123 ERROR shop.worker worker.py:44 ",
    "2026-01-18 10:30:15.123 | ERROR    | shop.worker:deliver:12 - ",
    "ERROR:root:",
    "ERROR:shop.worker:",
    "[ERROR] ",
    "[error] ",
    "ERROR [worker] ",
    "[2026-01-18 10:30:15,123: ERROR/ForkPoolWorker-2] ",
    "[2026-01-18 10:30:15,123: ERROR/MainProcess] Task a.b[3f2c9a8e-11ab] raised unexpected: ",
    "[2026-01-18 10:30:15 +0000] [7] [ERROR] ",
    "2026-01-18 10:30:15.123 ERROR 12345 --- [nio-8081-exec-50] o.a.c.C.[dispatcherServlet] : ",
    "2026-01-18T10:30:15.123+01:00 ERROR 7 --- [shop] [nio-8080-exec-1] c.a.shop.Worker      : ",
    "10:30:15.123 [main] ERROR com.acme.Worker - ",
    "(node:209387) UnhandledPromiseRejectionWarning: ",
    "[Nest] 77  - 01/18/2026, 10:30:15 AM   ERROR [OrdersService] ",
    "Jan 18 10:30:15 web-1 worker[123]: ",
    "Jan  8 10:30:15 web-1 celery: ",
    "<11>Jan 18 10:30:15 web-1 worker[123]: ",
    "<11>1 2026-01-18T10:30:15.123Z web-1 worker 123 - - ",
    "2026-01-18T10:30:15+0100 web-1 worker[123]: ",
    "Jan 18 10:30:15 web-1 worker[123]: 2026-01-18 10:30:15,123 ERROR [worker.deliver] ",
    "E0118 10:30:15.123456 7 worker.go:12] ",
    "2026/01/18 10:30:15 ",
    "E, [2026-01-18T10:30:15.123456 #77] ERROR -- : ",
    "2026-01-18T10:30:15.123Z pid=1 tid=abc class=Ship jid=fe ERROR: ",
    "10:30:15.123 [error] ",
    "[2026-01-18 10:30:15] production.ERROR: ",
    "2026-01-18 10:30:15.123 UTC [77] ERROR:  ",
    "worker-1  | 2026-01-18 10:30:15 ERROR ",
]
SAMPLE = [
    text
    for name in (*FILES, *LANGUAGES)
    for text in list({label: text for text, label in labelled_file(name)}.values())[::25]
]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_text_has_one_cause_and_detail_with_and_without_a_prefix(prefix: str) -> None:
    """For every 25th cause of each labelled file."""
    assert [
        text for text in SAMPLE if compute_cause_key(prefix + text) != compute_cause_key(text)
    ] == []


@pytest.mark.parametrize("text", SAMPLE[::10])
def test_text_without_a_prefix_stays(text: str) -> None:
    if not text.startswith(("20", "(node")):
        assert strip_log_prefix(text) == text


def test_prefix_of_each_line_is_stripped() -> None:
    lines = [
        "Traceback (most recent call last):",
        '  File "/a/b.py", line 1, in c',
        "KeyError: 'a'",
    ]
    logged = "\n".join(f"2026-01-18 10:30:15 {line}" for line in lines)
    assert strip_log_prefix(logged).endswith("KeyError: 'a'")
    assert compute_cause_key(logged).detail == "a"


@pytest.mark.parametrize(
    "text",
    ["[Errno 111] Connection refused", "[404 Not Found] during [GET]", "HikariPool-1 - no slot"],
)
def test_message_that_begins_like_a_prefix_stays(text: str) -> None:
    """Also behind a prefix."""
    assert strip_log_prefix(text) == text
    assert strip_log_prefix(f"2026-01-18 10:30:15 ERROR [main] {text}") == text
