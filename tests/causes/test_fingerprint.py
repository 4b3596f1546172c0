"""Fingerprints: texts of one failure have one id, others do not, and ids never change."""

import json
import os
import re
import subprocess
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlq_pipelines.causes.detail import choose_detail
from dlq_pipelines.causes.fingerprint import (
    Fingerprint,
    _cached_cause_key,
    _read_masked_message,
    _read_message,
    compute_cause_id,
    compute_cause_key,
    compute_fingerprint,
)
from dlq_pipelines.causes.tokens import ASIDE_START, FILE_SPACE, KEPT_START, WORD_START
from tests.causes.labelled import DATA, FILES, LANGUAGES, grouping, labelled_errors, labelled_file

PAIRS = [
    case
    for name in ("policy_cases", "pairs")
    for case in json.loads((DATA / f"{name}.json").read_text(encoding="utf-8"))["cases"]
]
FRAME = '  File "/srv/shop/{}.py", line {}, in place\n    run()\n'
HEAD = "Traceback (most recent call last):\n"
NODE = "    at send (/srv/shop/send.js:4:7) {{\n  [cause]: Error: {}\n}}"


DURING = "\n\nDuring handling of the above exception, another exception occurred:\n\n"


def traceback(error: str, *, module: str = "orders", line: int = 7) -> str:
    return HEAD + FRAME.format(module, line) + error


CHAIN = traceback("KeyError: 'sku'") + DURING + traceback("shop.LostError: order 17")


@pytest.mark.parametrize("case", PAIRS, ids=lambda case: f"{case['library']}-{case['why']}")
def test_labelled_pair_is_one_cause_or_two(case: dict[str, str]) -> None:
    a, b = compute_fingerprint(case["a"]), compute_fingerprint(case["b"])
    if case["want"] == "different-subcause":
        assert a.id == b.id
        assert a.detail != b.detail
    else:
        assert (a.id == b.id) == (case["want"] == "same"), (a, b)


@pytest.mark.parametrize(
    ("name", "share", "f1"),
    [
        ("pg_message_2k", 0.90, 0.93),
        ("pg_psycopg_2k", 0.90, 0.93),
        ("cpython_message_2k", 0.94, 0.92),
        ("cpython_traceback_2k", 0.94, 0.92),
        ("cpython_raised", 0.95, 0.94),
        ("formats", 0.96, 0.91),
        ("formats_held_out", 0.97, 0.95),
        ("formats_workers", 0.97, 0.97),
        ("ecosystems", 0.95, 0.93),
        ("ecosystems_second", 0.95, 0.95),
    ],
)
def test_texts_of_one_format_string_are_one_cause(name: str, share: float, f1: float) -> None:
    """Neither the share of exactly right groups nor the F1 falls below these figures."""
    is_file = (DATA / f"{name}.csv").exists()
    found = grouping(labelled_file(name) if is_file else labelled_errors(name), compute_cause_id)
    assert found[0] >= share, found
    assert found[1] >= f1, found


@pytest.mark.parametrize(
    ("names", "share", "f1"), [(FILES[:4], 0.93, 0.93), (LANGUAGES, 0.97, 0.97)]
)
def test_mean_of_the_labelled_files(names: tuple[str, ...], share: float, f1: float) -> None:
    """Of the texts of PostgreSQL and CPython, and of those of nine ecosystems."""
    found = [grouping(labelled_file(name), compute_cause_id) for name in names]
    assert sum(one for one, _ in found) / len(found) >= share, found
    assert sum(other for _, other in found) / len(found) >= f1, found


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (traceback("KeyError: 'a'"), traceback("KeyError: 'a'", module="parcels", line=99)),
        (CHAIN, CHAIN.removeprefix(HEAD)),
        (CHAIN, CHAIN[CHAIN.index("KeyError") :]),
        (
            traceback("shop.LostError: order 17"),
            FRAME.format("orders", 7) + "shop.LostError: order 99",
        ),
        (
            "psycopg2.errors.UniqueViolation: duplicate key",
            "psycopg.errors.UniqueViolation: duplicate key",
        ),
        ("ValueError: bad amount 7", "ValueError('bad amount 9')"),
        ("a\r\nb", "a\nb"),
        ("Zoe\u0308 ist fort", "Zo\u00eb ist fort"),
        ("A.KafkaTimeoutError: KafkaTimeoutError: lost 7", "A.KafkaTimeoutError: lost 7"),
        (
            "SyntaxError: invalid syntax (orders.py, line 7)",
            traceback("SyntaxError: invalid syntax"),
        ),
    ],
)
def test_form_of_the_text_does_not_change_the_cause(one: str, other: str) -> None:
    assert compute_cause_id(one) == compute_cause_id(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("ValueError: bad", "TypeError: bad"),
        ("bad amount", "bad currency"),
        (f"TypeError: fetch failed\n{NODE.format('connect ECONNREFUSED 10.0.0.7:443')}",
         f"TypeError: fetch failed\n{NODE.format('getaddrinfo ENOTFOUND shop.example')}"),
        (HEAD, None),
        (traceback("A" + DURING + traceback("C: x")), traceback("B" + DURING + traceback("C: x"))),
        (HEAD + FRAME.format("orders", 7), HEAD + FRAME.format("parcels", 7)),
    ],
)  # fmt: skip
def test_other_type_message_or_root_is_another_cause(one: str, other: str | None) -> None:
    """A traceback that is cut off elsewhere in the code is another cause too."""
    assert compute_cause_id(one) != compute_cause_id(other)


@pytest.mark.parametrize("error", [None, "", " ", "\n\t\r\n"])
def test_missing_and_blank_texts_have_one_fixed_cause(error: str | None) -> None:
    assert compute_fingerprint(error) == compute_fingerprint(None)
    assert compute_fingerprint(error).template == "no error text"


def test_shown_parts_are_in_their_fields() -> None:
    text = traceback(
        'psycopg.errors.UniqueViolation: [Errno 5] duplicate key violates "orders_pkey"'
        "\nDETAIL:  Key (id)=(1)"
    )
    found = compute_fingerprint(text)
    assert re.fullmatch(r"v2-[0-9a-f]{16}", found.id)
    assert found[1:] == Fingerprint(
        "",
        exception_type="psycopg.errors.UniqueViolation",
        template='[Errno 5] duplicate key violates "<name>"',
        code="5",
        detail="orders_pkey",
        frame="shop/orders.py in place",
    )[1:]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, "v2-8cb236e742e391a8"),
        ("KeyError: 'a'", "v2-3cf8038e074f4e5e"),
        ("HTTP 503", "v2-fe39cf5d47014481"),
        ("Order 17 not found", "v2-65fe3eaa93c4f433"),
    ],
)
def test_id_never_changes(text: str | None, expected: str) -> None:
    """A change of the rules that changes one of these ids needs a new version."""
    assert compute_cause_id(text) == expected


def test_another_process_computes_the_same_ids() -> None:
    """With another hash seed, and in another order."""
    texts = [text for text, _ in labelled_errors(variants=2)]
    program = (
        "import json, sys; from dlq_pipelines.causes.fingerprint import compute_cause_id;"
        "print(json.dumps([compute_cause_id(text) for text in json.load(sys.stdin)]))"
    )
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", program],
            input=json.dumps(texts[::-1]), text=True, capture_output=True, check=True,
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip
        assert json.loads(done.stdout)[::-1] == [compute_cause_id(text) for text in texts]


values = (
    st.integers(0, 10**9).map(str)
    | st.uuids().map(str)
    | st.ip_addresses(v=4).map(str)
    | st.datetimes().map(lambda moment: moment.isoformat())
    | st.from_regex(r"/[a-z]{1,9}/[a-z0-9_]{1,9}\.csv", fullmatch=True)
    | st.from_regex(r"https://[a-z]{1,9}\.example/[a-z0-9]{1,9}", fullmatch=True)
    | st.from_regex(r"[a-z]{2,9}_[a-z]{2,9}x", fullmatch=True)
    | st.from_regex(r"'[a-z 0-9]{1,9}'", fullmatch=True)
)


@given(values, values)
def test_values_do_not_change_the_cause(one: str, other: str) -> None:
    assert compute_cause_id(f"ShipmentLost: parcel {one} never left") == compute_cause_id(
        f"ShipmentLost: parcel {other} never left"
    )


@given(
    st.lists(
        st.sampled_from(["lost", "parcel", "never", "left", "depot", "stock", "empty", "retry"]),
        min_size=1,
        max_size=6,
    )
)
def test_plain_words_change_the_cause(words: list[str]) -> None:
    assert compute_cause_id(" ".join(words)) != compute_cause_id(" ".join([*words, "again"]))


@given(st.text(max_size=300) | st.sampled_from([text for text, _ in labelled_errors(variants=1)]))
def test_any_text_has_one_id(text: str) -> None:
    """With and without the cache, alone and as part of the fingerprint."""
    seen = compute_cause_id(text)
    _cached_cause_key.cache_clear()
    assert seen == compute_cause_id(text) == compute_fingerprint(text).id
    assert compute_cause_key(text).detail == compute_fingerprint(text).detail


FRAGMENTS = [
    *("a", "Aa ", "1 ", "503 ", "a: ", "(", ")", "[", '{"a": ', "'", '"', "`", "<a", "<title>"),
    *(
        "\\",
        "\n",
        "\nCaused by: ",
        "\nCaused by:\n",
        " ---> ",
        "[cause]: ",
        "[errors]: [",
        ": SELECT ",
    ),
    *("Traceback (most recent call last):\n", '\n  File "a", line 1, in b', "x@y.z': (550, b'"),
    *("\nThe above exception was the direct cause", "http://", "$", "2026-01-01 00:00:00 ", "%A{"),
    *("ERROR [main] ", "a=b ", " (after 1", "** (A) ", "\n    at x (", "\nNext ", "\nStack trace:"),
    *(
        "\n   0: a",
        "+- Exception Group Traceback (most recent call last):\n",
        "é1",
        KEPT_START,
        f"{WORD_START}a",
        f"{ASIDE_START}a",
        FILE_SPACE,
    ),
    *("/a b", "file a b", " c.csv", "C:\\a b", "mr a ", "customer a b is ", "locked by a b"),
    *("(code: a[sqlState: 23505, message: ", "3-element A{B{C}, ", "\n nested task error: A: b"),
    *("a.swift:1: Fatal error: ", "LoadError: AError: ", "AError.a(", "; nested exception is A"),
]


@given(st.lists(st.sampled_from(FRAGMENTS), max_size=60).map("".join))
def test_any_mixture_of_marks_has_one_cause_and_one_detail(text: str) -> None:
    found = compute_fingerprint(text)
    assert compute_cause_key(text) == (found.id, found.detail)


@pytest.mark.parametrize("unit", FRAGMENTS)
def test_text_of_ten_megabytes_has_a_cause(unit: str) -> None:
    text = "ValueError: " + unit * (10_000_000 // len(unit))
    assert compute_cause_id(text) == compute_cause_id(text)


@given(st.sampled_from([text for text, _ in labelled_errors(variants=1)]), st.integers(0, 10**9))
def test_masked_number_is_read_as_the_number_would_be(text: str, number: int) -> None:
    """The cache of messages changes no result."""
    for message in (f"{text} {number}", f"{number} {text}", text.replace(" ", f" {number} ", 1)):
        read, full = _read_message("Error", message), _read_masked_message("Error", message)
        assert (read[0], choose_detail(read[1])) == (full[0], choose_detail(full[1]))


hostile = st.text(
    st.sampled_from("\x1b\x9b[]0;1m e\u0301n\u0303o\u0308\n\r\x07"), max_size=20
) | st.text(max_size=99)


@given(hostile)
def test_text_and_its_decomposed_form_are_one_cause(text: str) -> None:
    """Also if a terminal code precedes a combining mark or separates it from its letter."""
    assert compute_cause_id(unicodedata.normalize("NFD", text)) == compute_cause_id(
        unicodedata.normalize("NFC", text)
    )


@given(st.text(st.characters(exclude_characters="\x1b\x9b"), max_size=99))
def test_composition_and_colours_do_not_change_the_cause(text: str) -> None:
    assert compute_cause_id(
        f"\x1b[31m{unicodedata.normalize('NFD', text)}\x1b[0m"
    ) == compute_cause_id(f"\x1b[1m{text}")
