"""Plays ten things that a person on call does, from an alert to a verified fix.

Once in a browser and once in a terminal, on an outbox in which a payment provider began to decline
the cards of one acquirer half an hour after a deployment.
"""

import shlex
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from playwright.sync_api import Browser, expect

from dlq_pipelines.alerts.alert import evaluate_alerts
from dlq_pipelines.causes.classify import classify_deaths
from dlq_pipelines.deployments import note_deployment
from dlq_pipelines.installation import build_alert_policy
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.retries.fix import FixStatus
from dlq_pipelines.retries.fixes import get_fix
from dlq_pipelines.settings import Settings
from tests.api.conftest import Serve
from tests.cli.conftest import Run, dlq, read_json, read_words  # noqa: F401 - a fixture
from tests.retries.helpers import advance, build_audit, run_worker
from tests.rows import add_events, kill, one
from tests.web.test_browser import CHROMIUM, browser, check_layout, open_browser_page  # noqa: F401

TITLE = "HTTPError: HTTP Error 503: Service Unavailable"


@pytest.fixture
def cause_id(connection: Connection) -> str:
    """The cause of thirty declined payments."""
    at = datetime.now(UTC) - timedelta(minutes=30, seconds=5)
    note_deployment(
        connection, "checkout", "v42", deployed_at=at, audit=build_audit("ci", "deployed")
    )
    add_events(connection, 60, payload='{"acquirer": "eastpay"}', event_type="order.paid")
    connection.execute("update outbox_event set status = 'done'")
    add_events(connection, 30, payload='{"acquirer": "northbank"}', event_type="order.paid")
    kill(connection, TITLE, attempts=5, where="status = 'pending'")
    classify_deaths(connection, zone=ZoneInfo("UTC"))
    return str(one(connection, "select id from dlq.cause")["id"])


def fire_alerts(connection: Connection, public_url: str) -> None:
    """Evaluate the rules, as the sensor does every minute."""
    policy = build_alert_policy(Settings(public_url=public_url))
    assert evaluate_alerts(connection, now=datetime.now(UTC), policy=policy)


def let_workers_deliver(connection: Connection, database: Database) -> None:
    """The provider answers again: workers deliver what the sensor releases."""
    fix = get_fix(connection, 1)
    for step in range(8):
        advance(connection, fix, later=30 * step)
        run_worker(database, delivers=True)
    assert get_fix(connection, 1).status is FixStatus.VERIFIED


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed: apt-get install chromium")
def test_from_an_alert_to_a_verified_fix_in_the_browser(
    connection: Connection,
    database: Database,
    browser: Browser,  # noqa: F811 - the fixture
    serve: Serve,
    tokens: dict[str, str],
    cause_id: str,
) -> None:
    address = str(serve(api_tokens=tokens["entries"]).base_url).rstrip("/")
    fire_alerts(connection, address)
    page, messages = open_browser_page(browser, address, 768, "light")

    # 1. Sign in, and see what fires.
    page.goto("/alerts")
    page.get_by_label("API token").fill(tokens["admin"])
    page.get_by_label("Your name").fill("ann")
    page.get_by_role("button", name="Sign in").click()
    alert = page.get_by_role("row").filter(has_text="New cause")
    expect(alert).to_contain_text("30 minutes after checkout v42")
    check_layout(page)
    # 2. Open its cause, and read since when and why its events die.
    alert.get_by_role("link", name="Open what it is about").click()
    assert page.url == f"{address}/causes/{cause_id}"
    expect(page.get_by_role("heading", level=1)).to_contain_text(TITLE)
    expect(page.get_by_role("heading", name="Deployments in the hour before")).to_be_visible()
    expect(page.get_by_role("rowheader", name="$.acquirer = northbank")).to_be_visible()
    check_layout(page)
    # 3. Look at one of its events.
    page.get_by_role("link", name="Event ").first.click()
    expect(page.get_by_text("in the outbox")).to_be_visible()
    page.go_back()
    # 4. Name the owner, and write down what is known.
    page.get_by_role("link", name="Edit").click()
    check_layout(page)
    page.get_by_label("Owner").fill("team-pay")
    page.get_by_label("Note").fill("northbank is down, see their status page")
    page.get_by_label("Reason").fill("on call")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("The cause is changed.")).to_be_visible()
    # 5. Silence the alert.
    page.get_by_role("link", name="Alerts", exact=True).click()
    page.get_by_role("link", name="Silence of New cause").click()
    check_layout(page)
    page.get_by_label("Reason").fill("known")
    page.get_by_role("button", name="Silence").click()
    expect(page.get_by_role("row").filter(has_text="New cause")).to_contain_text("silenced")
    # 6. The provider says that it is up: preview a fix of what sets the events apart.
    page.goto(f"/causes/{cause_id}")
    page.get_by_role("link", name="Flag a fix of these").first.click()
    page.get_by_label("What was fixed").fill("northbank answers again")
    page.get_by_role("button", name="Preview").click()
    expect(page.get_by_text("10, 20")).to_be_visible()
    # 7. Flag it.
    page.get_by_role("button", name="Flag this fix").click()
    expect(page.get_by_text("The fix is flagged.")).to_be_visible()
    # 8. Watch it until it is verified.
    let_workers_deliver(connection, database)
    page.reload()
    expect(page.get_by_role("heading", level=1)).to_contain_text("verified")
    check_layout(page)
    # 9. Nothing is dead of the cause any more.
    page.get_by_role("link", name="acquirer").click()
    expect(page.get_by_text("No event is dead of it now.")).to_be_visible()
    # 10. The audit log has who did what.
    page.get_by_role("link", name="Audit log").click()
    for kind in ("cause.owner", "cause.note", "alert.silence", "fix.flag"):
        row = page.get_by_role("row").filter(has_text=kind)
        expect(row).to_contain_text("ann via a-admin")
    assert messages == []
    page.context.close()


def test_from_an_alert_to_a_verified_fix_in_a_terminal(
    connection: Connection,
    database: Database,
    dlq: Run,  # noqa: F811 - the fixture
    cause_id: str,
) -> None:
    fire_alerts(connection, "https://dlq.example.org")

    def run(command: str) -> str:
        return read_words(dlq(*shlex.split(command)[1:]))

    # 1. What fires, and what began.
    assert "new_cause:" in run("dlq alerts list")
    tonight = run("dlq tonight --since 2h")
    assert f"new {cause_id}" in tonight
    assert "30 minutes after checkout v42" in tonight
    assert f"dlq causes explain {cause_id}" in tonight
    # 2. Since when, and why.
    assert "30 minutes after checkout v42" in run(f"dlq causes show {cause_id}")
    explained = run(f"dlq causes explain {cause_id}")
    assert "$.acquirer = northbank" in explained
    assert "30 of 30" in explained
    # 3. One of its events.
    (event, *_) = read_json(dlq("dead-events", "list", "--cause", cause_id, "--json"))["events"]
    assert "northbank" in run(f"dlq dead-events show {event['id']}")
    # 4. The owner and the note.
    run(f"dlq causes own {cause_id} team-pay --reason 'on call' --actor ann")
    run(f"dlq causes note {cause_id} 'northbank is down' --reason 'on call' --actor ann")
    # 5. The silence.
    run(f"dlq alerts silence new_cause:{cause_id} --hours 8 --reason known --actor ann")
    # 6. The preview, and 7. the fix, with the command that the explanation prints.
    where = "--where '$.acquirer == \"northbank\"'"
    assert where in explained
    flag = f"dlq fixes flag --cause {cause_id} {where} --note 'it answers again' --actor ann"
    assert "10, 20" in run(f"{flag} --dry-run")
    assert "1 active" in " ".join(run(flag).split()) or get_fix(connection, 1)
    # 8. The result.
    let_workers_deliver(connection, database)
    assert "verified" in run("dlq fixes show 1")
    # 9. Nothing is dead any more.
    assert read_json(dlq("dead-events", "stats", "--json"))["total"] == 0
    # 10. Who did what.
    entries = read_json(dlq("audit", "list", "--json"))["entries"]
    assert {entry["kind"] for entry in entries if entry["actor"] == "ann"} == {
        "cause.owner",
        "cause.note",
        "alert.silence",
        "fix.flag",
    }
