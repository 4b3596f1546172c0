"""A text that a column of 255 characters has cut off keeps its cause if it states it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlq_pipelines.causes.cut import COLUMN_LENGTH, repair_cut_text
from dlq_pipelines.causes.fingerprint import compute_cause_id, compute_fingerprint
from tests.causes.cut import COLUMN, count_kept
from tests.causes.labelled import FILES, LANGUAGES, grouping, labelled_errors, labelled_file

LONG = [text for name in (*FILES[:4], *LANGUAGES) for text, _ in labelled_file(name)]
HEAD = 'Traceback (most recent call last):\n  File "/srv/shop/worker.py", line 7, in run\n'


def cut(text: str) -> str:
    return text[:COLUMN]


def cut_in_word(text: str) -> list[str]:
    """Return texts that the column ends at each letter of the last word; `#` is a value."""
    word = len(text) - max(text.rfind(mark) for mark in " .:/\n") - 1
    assert word >= 4
    return [cut(text.replace("#", "x" * (COLUMN - len(text) + n), 1)) for n in range(1, word)]


def test_labelled_texts_keep_their_cause() -> None:
    """Before the rule 321 of 420 did."""
    found = count_kept(LONG)
    assert found.kept_of_stated >= 385, found


def test_texts_that_are_cut_are_grouped_like_whole_ones() -> None:
    """Before the rule the figures were 0.90 and 0.89."""
    found = [
        grouping([(cut(text), label) for text, label in labelled_file(name)], compute_cause_id)
        for name in LANGUAGES
    ]
    assert sum(share for share, _ in found) / len(found) >= 0.93, found
    assert sum(f1 for _, f1 in found) / len(found) >= 0.93, found


@pytest.mark.parametrize(
    "text",
    [
        "ValueError: parcel '#' was refused by the depot",
        f"{HEAD}    send('#')\nshop.errors.DeliveryError",
        f"{HEAD}    send('#')\n  File \"/srv/shop/carriers",
        f"{HEAD}    send('#')\n  File \"/srv/shop/north.py\", line 88, in deliver",
        "java.lang.IllegalStateException: order '#' is lost\nCaused by: com.acme.LostException",
        "java.lang.LostException: order '#' is lost\n\tat com.acme.stock.Delivery",
        'order rejected: {"status": 422, "order": "#", "detail": "no such depot',
        'order rejected: {"status": 422, "order": "#", "message": "no depot", "code": "depot',
        "call failed (Service: '#'; Key: stock; Request ID: depot",
        "error '#'; nested exception is A: lost; nested exception is com.acme.LostException",
        'PDOException: lost in "#"\nStack trace:\n#0 {main}\n\nNext Acme\\QueryException',
    ],
    ids=["word", "class", "path", "frame", "root", "java", "body", "code", "key", "nested", "php"],
)
def test_half_word_at_the_end_keeps_no_texts_apart(text: str) -> None:
    """Wherever the column ends in the last word of the text."""
    texts = cut_in_word(text)
    assert {len(one) for one in texts} == {COLUMN}
    assert len({compute_cause_id(one) for one in texts}) == 1, texts


WHOLE = {
    "code after a sentence": (
        "openai.BadRequestError: Error code: 400 - {'error': {'message': \"Unsupported parameter:"
        " 'temperature' is not supported with this model. Use 'max_output_tokens' instead.\","
        " 'type': 'invalid_request_error', 'param': 'temperature', 'code': 'unsupported_value'}}"
    ),
    "advice": (
        "botocore.exceptions.ClientError: An error occurred (ValidationException) when calling the"
        ' CreateModel operation: The execution role ARN "arn:aws:iam::123:role/Admin" is invalid.'
        " Please ensure that the role exists and that its trust relationship policy allows it."
    ),
    "type after a code": (
        'RuntimeError: carrier answered {"code": "depot_closed", "url": "https://north.example/'
        + "docs/" * 23
        + '", "message": "The depot is closed", "type": "depot_error"}'
    ),
    "many words": (
        "com.acme.StockException: Order cannot be shipped while the depot is closed for stocktaking"
        " and all of its carriers are on the road until tomorrow; the order is queued and will be"
        " sent with the first carrier that returns to the depot in the morning, at the latest"
    ),
}


@pytest.mark.parametrize("kind", WHOLE)
def test_what_states_the_cause_counts_alone(kind: str) -> None:
    assert len(WHOLE[kind]) > COLUMN
    assert compute_cause_id(WHOLE[kind]) == compute_cause_id(cut(WHOLE[kind]))


def test_code_that_does_not_count_is_shown() -> None:
    found = compute_fingerprint(
        '{"message": "The parcel cannot be sent to this depot", "code": "depot_closed"}'
    )
    assert found.template == "depot_closed: The parcel cannot be sent to this depot"
    assert found.code == "depot_closed"


def test_status_counts_also_after_many_words() -> None:
    text = f"delivery {'was tried again ' * 12}and the answer of the carrier was HTTP {{}}"
    assert compute_cause_id(text.format(503)) != compute_cause_id(text.format(404))
    advice = "The parcel could not be sent now. Please try again. HTTP {}"
    assert compute_cause_id(advice.format(503)) != compute_cause_id(advice.format(404))


def test_short_sentence_does_not_replace_the_code() -> None:
    body = '{{"message": "Your card was declined.", "code": "{}"}}'
    one, other = body.format("lost_card"), body.format("insufficient_funds")
    assert compute_cause_id(one) != compute_cause_id(other)


@pytest.mark.parametrize("end", [".", ")", "'", "}"])
def test_text_of_that_length_with_an_end_is_complete(end: str) -> None:
    text = f"parcel {'x' * 230} was refused"
    text = text[: COLUMN - 1] + end
    assert repair_cut_text(text) == text


def test_text_of_one_word_stays() -> None:
    assert repair_cut_text("x" * COLUMN_LENGTH) == "x" * COLUMN_LENGTH


@given(
    st.sampled_from([text for text, _ in labelled_errors(variants=1)] + LONG), st.integers(0, 300)
)
def test_any_cut_has_one_cause(text: str, at: int) -> None:
    """At any place, with a repaired end that repairing does not change again."""
    part = (text[at:] + text * 3)[:COLUMN]
    assert compute_cause_id(part) == compute_fingerprint(part).id
