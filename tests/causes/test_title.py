"""Titles: a person on call reads them without the text. Run with `-s` to print them."""

import re

from dlq_pipelines.causes.fingerprint import compute_fingerprint
from dlq_pipelines.causes.title import build_title
from tests.causes.labelled import LANGUAGES, labelled_file

_PRINTED = 60


def _list_texts() -> list[str]:
    """Return one text each of sixty causes of many ecosystems."""
    texts = [
        text
        for name in (*LANGUAGES, "ecosystems")
        for text in {label: text for text, label in labelled_file(name)}.values()
    ]
    return texts[:: len(texts) // _PRINTED][:_PRINTED]


def test_titles_are_readable() -> None:
    """A title has words, and neither two placeholders in a row nor a class in the prose."""
    titles = []
    for text in _list_texts():
        found = compute_fingerprint(text)
        named = [(found.detail, 1)] if found.detail else []
        title = build_title(found.exception_type, found.template, named, deaths=1)
        if found.root_template:
            title += f" <- {build_title(found.root_type, found.root_template, [], deaths=1)}"
        titles.append(title)
    print("\n".join(titles))
    assert len(titles) == _PRINTED
    assert not [title for title in titles if "<type>" in title]
    worded = [title for title in titles if re.search(r"[A-Za-z]{3,} [A-Za-z']{2,}", title)]
    assert len(worded) >= 55


def test_duplicate_key_reads_as_the_database_wrote_it() -> None:
    found = compute_fingerprint('duplicate key value violates unique constraint "orders_pkey"')
    assert found.template == 'duplicate key value violates unique constraint "<name>"'


def test_a_title_of_a_detail_is_the_text_itself() -> None:
    found = compute_fingerprint("KeyError: 'postcode'")
    title = build_title(found.exception_type, found.template, [(found.detail, 8)], deaths=10)
    assert title == "KeyError: 'postcode'"
