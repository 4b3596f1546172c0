"""Tests that the pages flag and steer fixes as the other faces do."""

import re

from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.retries.fixes import get_fix
from tests.retries.helpers import advance
from tests.rows import one
from tests.web.conftest import Visitor


def test_a_fix_is_flagged_after_its_preview(
    connection: Connection, visitor: Visitor, cause_id: str
) -> None:
    page = visitor.open_page(f"/fixes/new?cause={cause_id}&where=%24.acquirer%3Dnorthbank")
    assert 'value="$.acquirer=northbank"' in page
    given = {
        "cause": cause_id,
        "where": "$.acquirer=northbank",
        "note": "northbank answers again",
        "canary": "5",
        "rate": "2.5",
        "person": "ann",
    }
    preview = visitor.send_form("/fixes/new", step="preview", **given)
    assert preview.status_code == 200
    assert "Preview: 30 events" in preview.text
    assert "5, 25" in preview.text
    assert one(connection, "select count(*) as n from dlq.fix")["n"] == 0
    hidden = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', preview.text))
    flagged = visitor.client.post(
        "/fixes/new", data={**given, "csrf": hidden["csrf"], "step": "flag", "events": "30"}
    )
    assert flagged.status_code == 303
    assert "The fix is flagged." in visitor.open_page("/fixes/1?flagged=yes")
    fix = one(connection, "select note, flagged_by, canary, rate, cause_id from dlq.fix")
    assert fix == {
        "note": "northbank answers again",
        "flagged_by": "ann",
        "canary": 5,
        "rate": 2.5,
        "cause_id": cause_id,
    }


def test_invalid_values_are_refused_with_the_form(
    connection: Connection, visitor: Visitor, cause_id: str
) -> None:
    """The form keeps what was written, and names what is wrong."""
    for given, status, text in (
        ({"note": " "}, 400, "note"),
        ({"canary": "many"}, 400, "canary: &#39;many&#39; is not a whole number"),
        ({"canary": "0"}, 400, "canary must be from 1"),
        ({"rate": "nan"}, 400, "rate must be from"),
        ({"rate": "x"}, 400, "rate: &#39;x&#39; is not a number"),
        ({"cause": "v2-none"}, 404, "v2-none"),
        ({"cause": ""}, 400, "no filter was given"),
        ({"where": "$.a >"}, 400, "where"),
        ({"event_type": "nobody"}, 409, "No dead"),
        ({"note": "a\x00b"}, 400, "note"),
    ):
        form = {"cause": cause_id, "note": "kept words", "step": "flag", **given}
        answer = visitor.send_form("/fixes/new", **form)
        assert answer.status_code == status, (given, answer.text)
        assert text in answer.text, given
        assert "note" in given or "kept words" in answer.text
    assert one(connection, "select count(*) as n from dlq.fix")["n"] == 0


def test_a_fix_is_paused_resumed_and_withdrawn(
    connection: Connection, visitor: Visitor, fix_id: int
) -> None:
    """Each needs a reason. The page offers what the state allows, and an open one refreshes."""
    assert visitor.client.get(f"/fixes/{fix_id}").headers["refresh"] == "10"
    assert "refresh" not in visitor.client.get(f"/fixes/{fix_id}?refresh=no").headers
    answer = visitor.send_form(f"/fixes/{fix_id}/pause", reason=" ")
    assert (answer.status_code, "reason" in answer.text) == (400, True)
    for action, status, offered in (
        ("pause", "paused", ["resume", "withdraw"]),
        ("resume", "active", ["pause", "withdraw"]),
        ("pause", "paused", ["resume", "withdraw"]),
        ("recall", "paused", ["resume", "withdraw"]),
        ("withdraw", "withdrawn", []),
    ):
        answer = visitor.send_form(f"/fixes/{fix_id}/{action}", reason="asked")
        assert answer.headers["location"] == f"../../fixes/{fix_id}?done={action}"
        page = visitor.open_page(f"/fixes/{fix_id}?done={action}")
        assert 'role="status"' in page
        assert re.findall(rf'href="\.\./fixes/{fix_id}/(\w+)"', page) == offered
        assert one(connection, "select status from dlq.fix")["status"] == status
    assert "refresh" not in visitor.client.get(f"/fixes/{fix_id}").headers
    assert visitor.send_form(f"/fixes/{fix_id}/pause", reason="again").status_code == 409


def test_a_recall_is_offered_while_events_wait(
    connection: Connection, visitor: Visitor, fix_id: int
) -> None:
    """A process that was killed while it paused the fix may have left some."""
    assert advance(connection, get_fix(connection, fix_id), later=300).released > 0
    connection.execute("update dlq.fix set status = 'paused'")
    assert f'href="../fixes/{fix_id}/recall"' in visitor.open_page(f"/fixes/{fix_id}")
    visitor.send_form(f"/fixes/{fix_id}/recall", reason="asked")
    assert f'href="../fixes/{fix_id}/recall"' not in visitor.open_page(f"/fixes/{fix_id}")


def test_more_events_than_the_preview_showed_are_previewed_again(
    connection: Connection, visitor: Visitor
) -> None:
    """Above a thousand, as every face asks."""
    connection.execute(
        "insert into outbox_event (aggregate_type, aggregate_id, event_type, payload, status,"
        " attempts, last_error) select 'order', n::text, 'order.big', '{}', 'dead', 1, 'x'"
        " from generate_series(1, 1200) n"
    )
    given = {"event_type": "order.big", "note": "n", "step": "flag"}
    answer = visitor.send_form("/fixes/new", events="30", **given)
    assert answer.status_code == 200
    assert "More events match now" in answer.text
    assert one(connection, "select count(*) as n from dlq.fix")["n"] == 0
    assert visitor.send_form("/fixes/new", events="1200", **given).status_code == 303
