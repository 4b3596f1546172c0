"""Details: the one name in an error text that shows whose problem it is."""

import csv

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlq_pipelines.causes.detail import choose_detail
from dlq_pipelines.causes.fingerprint import compute_cause_key, compute_fingerprint
from tests.causes.labelled import DATA

with (DATA / "details.csv").open(encoding="utf-8", newline="") as file:
    LABELLED = [(row["content"], row["detail"]) for row in csv.DictReader(file)]


def test_wanted_detail_is_found_in_95_of_100_texts() -> None:
    found = [(compute_fingerprint(text).detail, wanted, text) for text, wanted in LABELLED]
    wrong = [item for item in found if item[0] != item[1]]
    assert len(LABELLED) >= 150
    assert len(wrong) <= 0.05 * len(LABELLED), wrong


@pytest.mark.parametrize("text", [text for text, _ in LABELLED])
def test_key_and_fingerprint_have_one_detail(text: str) -> None:
    found = compute_fingerprint(text)
    assert compute_cause_key(text) == (found.id, found.detail)


@pytest.mark.parametrize(
    "value",
    [
        "8812",
        "A-77",
        "SKU-1023",
        "a3f9c2d17b4e",
        "6f1c3a52-9a51-4c1c-8f57-0a4a8a7c1f10",
        "anna@example.org",
        "10.0.0.7",
        "2026-03-02",
        "worker-7d9f8c6b5-x2x4z",
        "req_oBO1S8WwwZF2Qs",
        "value",
        "undefined",
    ],
)
def test_generated_values_and_noise_are_no_detail(value: str) -> None:
    assert choose_detail([("key", value)]) == ""
    assert compute_cause_key(f"KeyError: '{value}'").detail == ""


@pytest.mark.parametrize("name", ["orders_v2", "kafka-1", "orders.v2", "s3-invoices", "dbo.Tags"])
def test_names_with_a_few_digits_are_details(name: str) -> None:
    assert choose_detail([("topic", name)]) == name


def test_constraint_comes_before_the_table_and_host_gets_its_port() -> None:
    assert choose_detail([("table", "orders"), ("constraint", "orders_pkey")]) == "orders_pkey"
    assert choose_detail([("host", "db.internal"), ("port", "5432")]) == "db.internal:5432"
    assert choose_detail([("url", "https://user:secret@API.example.com/v1/7")]) == "api.example.com"
    assert choose_detail([("field", "items[3].sku")]) == "items[*].sku"


@given(st.text(max_size=400))
def test_detail_is_one_short_line(text: str) -> None:
    detail = compute_cause_key(f"KeyError: '{text}'").detail
    assert len(detail) <= 200
    assert "\n" not in detail
