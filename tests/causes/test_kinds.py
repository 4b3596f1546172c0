"""Kinds of error texts: which of them are one cause, which are two, and what their detail is.

In `kinds.json` texts in one row are one cause, and two rows of a kind are two causes.
"""

import json

import pytest

from dlq_pipelines.causes.fingerprint import compute_cause_key, compute_fingerprint
from tests.causes.labelled import DATA

KINDS = json.loads((DATA / "kinds.json").read_text(encoding="utf-8"))
CAUSES: dict[str, list[list[str]]] = KINDS["causes"]
DETAILS: dict[str, str] = KINDS["details"]


@pytest.mark.parametrize("kind", CAUSES)
def test_texts_of_a_kind_are_as_many_causes_as_rows(kind: str) -> None:
    found = [{compute_cause_key(text).id for text in row} for row in CAUSES[kind]]
    split = [
        [(compute_fingerprint(text).template, text) for text in row]
        for row, ids in zip(CAUSES[kind], found, strict=True)
        if len(ids) != 1
    ]
    assert not split
    assert len(set().union(*found)) == len(found)


@pytest.mark.parametrize("text", DETAILS)
def test_a_detail_names_what_failed_and_no_person(text: str) -> None:
    assert compute_cause_key(text).detail == DETAILS[text]
