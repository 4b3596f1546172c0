"""Tests the pages that merge causes and undo changes of causes."""

import html

import pytest

from dlq_pipelines.causes.catalogue import get_cause, get_causes, set_cause_text
from dlq_pipelines.postgres.connect import Connection
from tests.api.conftest import Serve
from tests.retries.helpers import add_dead, build_audit
from tests.rows import one
from tests.web.conftest import Visitor


@pytest.fixture
def pair(connection: Connection) -> tuple[str, str]:
    """Two causes whose messages differ in one word."""
    add_dead(connection, 3, error="ValueError: could not book the slip at depot north")
    add_dead(connection, 2, error="ValueError: could not book the label at depot north")
    rows = connection.execute("select id from dlq.cause order by template desc").fetchall()
    first, second = (row["id"] for row in rows)
    return first, second


def test_a_similar_cause_is_merged_and_the_merge_undone(
    connection: Connection, visitor: Visitor, pair: tuple[str, str]
) -> None:
    """By the links of the page. Links to the merged cause lead to the other one until then."""
    kept, other = pair
    page = html.unescape(visitor.open_page(f"/causes/{kept}"))
    assert f"causes/{other}/merge?into={kept}" in page
    page = visitor.open_page(f"/causes/{other}/merge?into={kept}")
    assert "2 dead events now, 2 deaths" in page
    assert "3 dead events now, 3 deaths" in page
    answer = visitor.send_form(
        f"/causes/{other}/merge", f"/causes/{other}/merge?into={kept}", into=kept, reason="one bug"
    )
    assert answer.status_code == 303, answer.text
    assert get_cause(connection, kept).members == (other,)
    page = visitor.open_page(f"/causes/{other}")
    assert f'Cause <span class="mono">{other}</span> is merged into this one.' in page
    change = one(connection, "select id, kind, reason from dlq.audit")
    assert (change["kind"], change["reason"]) == ("cause.merge", "one bug")
    undo = f"/causes/{kept}/undo"
    assert f"undo?change={change['id']}" in page
    assert "merged into" in visitor.open_page(f"{undo}?change={change['id']}")
    answer = visitor.send_form(
        undo, f"{undo}?change={change['id']}", change=str(change["id"]), reason="two bugs"
    )
    assert answer.status_code == 303, answer.text
    assert set(get_causes(connection, pair)) == set(pair)
    assert "is merged" not in visitor.open_page(f"/causes/{other}")


def test_the_form_proposes_similar_causes_and_refuses_others(
    connection: Connection, visitor: Visitor, pair: tuple[str, str]
) -> None:
    kept, other = pair
    path = f"/causes/{other}/merge"
    assert f"merge?into={kept}" in visitor.open_page(path)
    assert "Becomes part of" in visitor.open_page(f"{path}?into={kept[3:9]}")
    for into, status, error in (
        (other, 400, "A cause cannot be merged into itself."),
        ("v2-none", 404, "There is no cause"),
    ):
        assert error in html.unescape(visitor.open_page(f"{path}?into={into}", status))
    answer = visitor.send_form(path, f"{path}?into={kept}", into=kept, reason=" ")
    assert answer.status_code == 400
    assert "reason must not be empty" in answer.text
    flagged = visitor.send_form("/fixes/new", cause=kept, note="restocked", step="flag")
    assert flagged.status_code == 303
    answer = visitor.send_form(path, f"{path}?into={kept}", into=kept, reason="one bug")
    assert answer.status_code == 409
    assert f"Fix 1 for cause {kept} is open." in answer.text
    assert set(get_causes(connection, pair)) == set(pair)


def test_a_later_change_is_undone_first(
    connection: Connection, visitor: Visitor, pair: tuple[str, str]
) -> None:
    cause, other = pair
    first, second = (
        set_cause_text(connection, cause, "note", text, audit=build_audit()).audit_id
        for text in ("one", "two")
    )
    path = f"/causes/{cause}/undo"
    page = visitor.open_page(f"{path}?change={first}")
    answer = visitor.send_form(
        path, f"{path}?change={first}", change=str(first), reason="a mistake"
    )
    assert answer.status_code == 409
    assert f"was changed again after change {first}" in answer.text
    assert "note" in page
    for page_cause, change in ((other, first), (cause, 999), (cause, "x")):
        found = visitor.open_page(f"/causes/{page_cause}/undo?change={change}", 404)
        assert "is not one of the latest changes of this cause." in found
    visitor.send_form(path, f"{path}?change={second}", change=str(second), reason="a mistake")
    assert get_cause(connection, cause).note == "one"


def test_only_an_admin_merges_and_undoes(
    serve: Serve, tokens: dict[str, str], pair: tuple[str, str]
) -> None:
    visitor = Visitor(serve(api_tokens=tokens["entries"]))
    visitor.sign_in(tokens["retry"])
    page = visitor.open_page(f"/causes/{pair[0]}")
    assert "/merge" not in page
    for action in ("merge", "undo"):
        path = f"/causes/{pair[0]}/{action}"
        assert "The scope admin is required" in visitor.open_page(path, 403)
        answer = visitor.send_form(path, "/fixes/new", into=pair[1], change="1", reason="x")
        assert answer.status_code == 403
