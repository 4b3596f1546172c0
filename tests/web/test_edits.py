"""Tests the pages that change causes and alerts, and those of parked events and deployments."""

import html
from datetime import UTC, datetime, timedelta

import pytest

from dlq_pipelines.causes.catalogue import get_cause, set_cause_text
from dlq_pipelines.deployments import note_deployment
from dlq_pipelines.postgres.connect import Connection
from tests.api.conftest import Serve
from tests.retries.helpers import add_dead, build_audit
from tests.rows import one, park
from tests.web.conftest import Visitor
from tests.web.test_pages import list_texts


def read_audit(connection: Connection) -> list[str]:
    rows = connection.execute("select kind from dlq.audit order by id").fetchall()
    return [row["kind"] for row in rows]


def test_a_cause_is_named_owned_annotated_and_muted(
    connection: Connection, visitor: Visitor, cause_id: str
) -> None:
    """In one transaction. A second time nothing differs, and nothing is written."""
    path = f"/causes/{cause_id}/edit"
    given = {
        "name": "Northbank is down",
        "owner": "team-pay",
        "note": "see https://wiki.example/7",
        "days": "3",
        "reason": "on call",
        "person": "ann",
    }
    for _ in range(2):
        answer = visitor.send_form(path, **given)
        assert answer.status_code == 303, answer.text
        assert answer.headers["location"].endswith(f"causes/{cause_id}?changed=yes")
        given["days"] = ""
    cause = get_cause(connection, cause_id)
    assert (cause.name, cause.owner, cause.note) == tuple(given.values())[:3]
    assert cause.state(datetime.now(UTC)) == "muted"
    assert read_audit(connection) == ["cause.name", "cause.owner", "cause.note", "cause.mute"]
    assert one(connection, "select distinct actor from dlq.audit") == {"actor": "ann"}
    page = visitor.open_page(f"/causes/{cause_id}?changed=yes")
    assert "The cause is changed." in page
    assert "Northbank is down" in page
    assert "Muted until" in visitor.open_page(path)
    visitor.send_form(path, **given | {"days": "0", "name": "", "shown_name": given["name"]})
    cause = get_cause(connection, cause_id)
    assert (cause.name, cause.muted_until) == (None, None)


def test_what_somebody_else_changed_meanwhile_stays(
    connection: Connection, visitor: Visitor, cause_id: str
) -> None:
    """The form was opened before. A browser ends each line of a text with two characters."""
    set_cause_text(connection, cause_id, "note", "line 1\nline 2", audit=build_audit())
    path = f"/causes/{cause_id}/edit"
    page = html.unescape(visitor.open_page(path))
    assert 'name="shown_note" value="line 1\nline 2"' in page
    set_cause_text(connection, cause_id, "owner", "team-pay", audit=build_audit())
    lines = "line 1\r\nline 2"
    given = {"name": "Down", "owner": "", "note": lines, "shown_owner": "", "shown_note": lines}
    assert visitor.send_form(path, **given, reason="on call").status_code == 303
    cause = get_cause(connection, cause_id)
    assert (cause.name, cause.owner, cause.note) == ("Down", "team-pay", "line 1\nline 2")
    assert read_audit(connection) == ["cause.note", "cause.owner", "cause.name"]


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"reason": " "}, "reason must not be empty"),
        ({"days": "x"}, "&#39;x&#39; is not a whole number"),
        ({"days": "367"}, "days must be from 0 to 366, not 367."),
        ({"days": "9" * 18}, "days must be from 0 to 366"),
        ({"owner": "x" * 201}, "owner has 201 characters; the maximum is 200"),
        ({"note": "a\x00b"}, "note is not valid UTF-8 or contains NUL"),
    ],
)
def test_an_invalid_value_changes_nothing(
    connection: Connection, visitor: Visitor, cause_id: str, values: dict[str, str], error: str
) -> None:
    """The form keeps what was written."""
    given = {"name": "a new name", "reason": "on call"} | values
    answer = visitor.send_form(f"/causes/{cause_id}/edit", **given)
    assert answer.status_code == 400
    assert error in answer.text
    assert 'value="a new name"' in answer.text
    assert read_audit(connection) == []
    assert get_cause(connection, cause_id).name is None


def test_only_an_admin_edits(serve: Serve, tokens: dict[str, str], cause_id: str) -> None:
    visitor = Visitor(serve(api_tokens=tokens["entries"]))
    visitor.sign_in(tokens["retry"])
    assert f"causes/{cause_id}/edit" not in visitor.open_page(f"/causes/{cause_id}")
    for path in (f"/causes/{cause_id}/edit", "/alerts/silence?key=backlog"):
        assert "The scope admin is required" in visitor.open_page(path, 403)
    answer = visitor.send_form(f"/causes/{cause_id}/edit", form="/fixes/new", reason="x", name="x")
    assert answer.status_code == 403
    visitor.send_form("/signout", form="/causes")
    visitor.sign_in(tokens["admin"], person="ann")
    assert f"causes/{cause_id}/edit" in visitor.open_page(f"/causes/{cause_id}")
    answer = visitor.send_form(f"/causes/{cause_id}/edit", reason="x", name="x")
    assert answer.status_code == 303


def test_an_alert_is_silenced(connection: Connection, visitor: Visitor) -> None:
    connection.execute(
        "insert into dlq.alert (key, rule, severity, summary, detail, fired_at)"
        " values ('new_cause:v2-1/x', 'new_cause', 'warning', 'New cause', 'x', now())"
    )
    page = visitor.open_page("/alerts")
    assert "alerts/silence?key=new_cause%3Av2-1%2Fx" in page
    assert "causes/v2-1%2Fx" in page
    assert "New cause" in visitor.open_page("/alerts/silence?key=new_cause%3Av2-1%2Fx")
    assert "There is no alert" in visitor.open_page("/alerts/silence?key=x", 404)
    given = {"form": "/alerts", "key": "new_cause:v2-1/x", "reason": "known"}
    answer = visitor.send_form("/alerts/silence", **given | {"form": "/fixes/new"}, hours="2")
    assert answer.status_code == 303, answer.text
    until = one(connection, "select silenced_until as at from dlq.alert")["at"]
    assert timedelta(hours=1) < until - datetime.now(UTC) <= timedelta(hours=2)
    assert "End the silence" in visitor.open_page("/alerts")
    visitor.send_form("/alerts/silence", **given | {"form": "/fixes/new"}, hours="0")
    assert one(connection, "select silenced_until as at from dlq.alert")["at"] is None
    for hours, error in (("721", "from 0 to 720"), ("", "not a whole number")):
        answer = visitor.send_form("/alerts/silence", **given | {"form": "/fixes/new"}, hours=hours)
        assert answer.status_code == 400
        assert error in answer.text
    answer = visitor.send_form(
        "/alerts/silence", form="/fixes/new", key="nothing", reason="x", hours="1"
    )
    assert answer.status_code == 404
    assert "There is no alert" in answer.text
    assert read_audit(connection) == ["alert.silence"] * 2


def test_parked_events_are_listed_with_their_causes(
    connection: Connection, visitor: Visitor, cause_id: str
) -> None:
    assert "No event is parked." in visitor.open_page("/parked")
    ids = [
        row["event_id"]
        for row in connection.execute("select event_id from dlq.dead_event limit 3").fetchall()
    ]
    park(connection, ids)
    page = visitor.open_page("/parked")
    assert all(f"events/{event_id}" in page for event_id in ids)
    assert f'causes/{cause_id}">KeyError: &#39;postcode&#39;</a>' in page
    assert "dlq fixes release-parked --all" in page
    assert "parked" in visitor.open_page("/fixes")


def test_a_cause_shows_the_deployments_of_the_hour_before(
    connection: Connection, visitor: Visitor, cause_id: str
) -> None:
    for version, minutes in (("v41", 20), ("v<b>42", 6)):
        note_deployment(
            connection,
            "checkout",
            version,
            link="https://git.example/checkout",
            deployed_at=get_cause(connection, cause_id).first_seen - timedelta(minutes=minutes),
            audit=build_audit("ci", "deployed"),
        )
    page = visitor.open_page(f"/causes/{cause_id}")
    texts = list_texts(page)
    assert "6 minutes after checkout v<b>42" in texts
    assert texts.index("v<b>42 https://git.example") < texts.index("checkout v41 https://git")
    assert "<b>42" not in page


def test_a_fix_shows_its_deployment(
    connection: Connection, visitor: Visitor, cause_id: str
) -> None:
    noted = note_deployment(connection, "checkout", "v43", audit=build_audit("ci", "deployed"))
    given = {"cause": cause_id, "note": "fixed", "step": "flag", "deployment": "99"}
    answer = visitor.send_form("/fixes/new", **given)
    assert answer.status_code == 404
    assert "There is no deployment 99." in answer.text
    answer = visitor.send_form("/fixes/new", **given | {"deployment": str(noted.id)})
    assert answer.status_code == 303, answer.text
    texts = list_texts(visitor.open_page("/fixes/1"))
    assert "Deployment checkout v43, " in texts


def test_a_cause_shows_similar_ones(connection: Connection, visitor: Visitor) -> None:
    """Their titles are those that people gave them; the command merges the other into this one."""
    for word in ("slip", "label"):
        add_dead(connection, 2, error=f"ValueError: could not book the {word} at depot north")
    ids = [row["id"] for row in connection.execute("select id from dlq.cause order by id")]
    set_cause_text(connection, ids[1], "name", "Labels of depots", audit=build_audit())
    page = visitor.open_page(f"/causes/{ids[0]}")
    texts = list_texts(page)
    assert "Labels of depots 2 deaths; differs in one word:" in texts
    assert f"dlq causes merge {ids[1]} {ids[0]} --reason" in texts


def test_causes_are_filtered_by_event_type(connection: Connection, visitor: Visitor) -> None:
    add_dead(connection, 2, error="ValueError: bad letter", event_type="letter.sent")
    add_dead(connection, 2, error="ValueError: bad parcel", event_type="parcel.sent")
    page = visitor.open_page("/causes?event_type=letter.sent")
    assert "bad letter" in page
    assert "bad parcel" not in page
    assert "None matches this filter" in visitor.open_page("/causes?event_type=nothing")
