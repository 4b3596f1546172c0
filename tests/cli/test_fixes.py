"""Checks `dlq fixes`: flag, list, show, advance, pause, resume, withdraw, parked events."""

import contextlib
import getpass
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest

from dlq_pipelines.audit import AuditContext
from dlq_pipelines.causes.fingerprint import compute_cause_id
from dlq_pipelines.installation import build_fix_terms
from dlq_pipelines.outbox.selection import Selection
from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.retries.advance import advance_fix
from dlq_pipelines.retries.fix import FixStatus
from dlq_pipelines.retries.fixes import FixPreview, list_fixes
from dlq_pipelines.settings import Settings
from dlq_pipelines.text import format_count
from tests.cli.conftest import CAUSE, Run, add_dead_events, read_json, read_words
from tests.rows import kill, one, park

NO_SKU = "KeyError: 'sku'"
HOSTILE = "\x1b[2J\x1b[31m[bold]TimeoutError[/bold]: \x9b2Jno\u202e answer"
# The JSON keys that scripts rely on.
FIX_KEYS = {
    "id", "selection", "note", "link", "owner", "flagged_by", "flagged_at", "not_before",
    "expires_at", "policy", "stage", "status", "verdict", "evidence", "closed_at",
    "unreadable", "current_rate", "release_rate", "deployment",
}  # fmt: skip
STAGE_KEYS = {
    "stage",
    "size",
    "released",
    "delivered",
    "died_again",
    "timed_out",
    "deleted",
    "recalled",
    "waiting",
}
PARKED_KEYS = {
    "death_id",
    "event_id",
    "event_type",
    "aggregate_type",
    "aggregate_id",
    "cause_id",
    "detail",
    "retries",
    "died_at",
}
FLAG = ("fixes", "flag", "--cause", CAUSE, "--note", "fixed in v42")


def _advance(connection: Connection, fix: int) -> None:
    audit = AuditContext("sensor", "a step is due", datetime.now(UTC))
    advance_fix(connection, fix, audit=audit, terms=build_fix_terms(Settings()))


def _kinds(connection: Connection) -> list[str]:
    return [row["kind"] for row in connection.execute("select kind from dlq.audit order by id")]


def test_a_dry_run_prints_a_preview_and_changes_nothing(dlq: Run, connection: Connection) -> None:
    """Events, aggregates, parked, overtaken, stages and time, with equal values in JSON."""
    add_dead_events(connection, 60)
    park(connection, [3])
    connection.execute(
        "insert into outbox_event (aggregate_type, aggregate_id, event_type, payload, status)"
        " select aggregate_type, aggregate_id, 'later', '{}', 'done' from outbox_event"
        " where id in (1, 2)"
    )
    printed = read_words(dlq(*FLAG, "--rate", "0.5", "--dry-run"))
    assert printed == (
        "would release value events 60 aggregates 60 parked 1 overtaken 2 stages 10, 49 "
        "time begins within 30 s, then 2 min 30 s at 0.5 per second, if the worker delivers each "
        "event as soon as it is due "
        "a deleted event counts as lost; if the worker deletes what it has delivered, "
        "map `delivered` to deleted first "
        "Nothing was changed: this was a dry run."
    )
    would = read_json(dlq(*FLAG, "--rate", "0.5", "--dry-run", "--json"))
    assert (would["dry_run"], would["fix"], would["preview"]) == (
        True,
        None,
        vars(FixPreview(60, 60, 1, 0, 1, 2, [10, 49], 150.0, deletion_is_loss=True)),
    )
    assert (list_fixes(connection), _kinds(connection)) == ([], [])


def test_a_preview_says_what_follows_in_the_order_of_an_aggregate(
    dlq: Run, connection: Connection
) -> None:
    """One run releases all of them; without the order, the sensor begins the second stage."""
    add_dead_events(connection, 60)
    connection.execute("update outbox_event set aggregate_id = '1'")
    connection.execute("update dlq.dead set aggregate_id = '1'")
    printed = read_words(dlq(*FLAG, "--dry-run"))
    assert "time begins within 30 s, then 1 s at 50 per second, if the worker delivers" in printed
    assert "; 60 events of one aggregate follow one another" in printed
    would = read_json(dlq(*FLAG, "--dry-run", "--json"))["preview"]
    assert (would["longest"], would["seconds"]) == (60, pytest.approx(1.2))
    would = read_json(dlq(*FLAG, "--order", "none", "--dry-run", "--json"))["preview"]
    assert (would["longest"], would["seconds"]) == (60, 60.0)


def test_a_fix_that_cannot_end_before_it_expires_is_refused(
    dlq: Run, connection: Connection
) -> None:
    """In the preview too, with the figures."""
    add_dead_events(connection, 90)
    for dry_run in ((), ("--dry-run",)):
        ran = dlq(*FLAG, "--rate", "0.001", "--expiry-days", "1", *dry_run)
        assert ran.code != 0
        assert (
            "90 events at 0.001 per second take 1 day 01:00:00, and the fix expires in 1 day."
            in " ".join(ran.err.split())
        )
    assert list_fixes(connection) == []


def test_a_preview_without_a_count_of_overtaken_events_says_so(
    dlq: Run, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_dead_events(connection, 1)
    monkeypatch.setattr("dlq_pipelines.retries.fixes._count_overtaken", lambda *_: None)
    assert "overtaken not known" in read_words(dlq(*FLAG, "--dry-run"))


def test_flagging_prints_the_next_command_and_records_the_account(
    dlq: Run, connection: Connection
) -> None:
    """With the policy of the settings, and equal values in JSON."""
    add_dead_events(connection, 2)
    printed = read_words(dlq(*FLAG, "--link", "v42", "--owner", "team-shipping"))
    (fix,) = list_fixes(connection)
    assert (
        f"Fix {fix.id} is flagged. It targets 2 dead events, in stages of 2. The fix_flag_sensor"
        in printed
    )
    assert f"dlq fixes show {fix.id}`." in printed
    terms = build_fix_terms(Settings())
    assert (fix.selection, fix.policy) == (Selection(cause=CAUSE), terms.policy)
    assert (fix.note, fix.link, fix.owner, fix.flagged_by) == (
        "fixed in v42", "v42", "team-shipping", getpass.getuser(),
    )  # fmt: skip
    assert fix.expires_at is not None
    assert fix.expires_at - fix.flagged_at == terms.expiry
    (row,) = read_json(dlq("fixes", "list", "--json"))["fixes"]
    assert (row.keys(), row["id"], row["selection"]["cause"]) == (FIX_KEYS, fix.id, CAUSE)


def test_every_option_of_flag_is_stored(
    dlq: Run, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Times without a zone are in DLQ_TIMEZONE."""
    monkeypatch.setenv("DLQ_TIMEZONE", "Europe/Berlin")
    add_dead_events(connection, 2)
    options = (
        "--event-type order.placed --aggregate-type order --id 1 --id 2 --id 99 --attempts 5"
        " --error-contains answer --since 2026-01-01 --until 2099-07-01T12:00"
        " --not-before 2090-01-01T00:00+00:00 --expiry-days 3 --canary 7 --growth 2.5 --rate 9"
        " --min-success 0.75 --settle-seconds 60 --max-retries 5 --order none --actor ann --json"
    )
    row = read_json(dlq(*FLAG, *options.split()))["fix"]
    assert row["selection"] == {
        "cause": CAUSE, "detail": None, "event_type": "order.placed", "aggregate_type": "order",
        "aggregate_id": None, "event_ids": [1, 2, 99], "attempts": 5,
        "error_contains": "answer", "where": None,
        "since": "2025-12-31T23:00:00Z", "until": "2099-07-01T10:00:00Z", "all": False,
    }  # fmt: skip
    assert row["policy"] == {
        "canary": 7, "growth": 2.5, "rate": 9.0, "min_success": 0.75, "settle_seconds": 60,
        "max_retries": 5, "order": "none",
    }  # fmt: skip
    assert (row["not_before"], row["expires_at"], row["flagged_by"]) == (
        "2090-01-01T00:00:00Z", "2090-01-04T00:00:00Z", "ann",
    )  # fmt: skip
    shown = read_words(dlq("fixes", "show", str(row["id"])))
    assert (
        f"selection cause {CAUSE}, event type order.placed, aggregate type order, "
        "error with answer, attempts 5, dead since 2026-01-01 00:00:00+01, "
        "dead before 2099-07-01 12:00:00+02, events 1, 2, 99, dead before "
    ) in shown
    assert "next waits: not before 2090-01-01 00:00 UTC" in shown


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        ([], 2, "no filter was given"),
        (["--all", "--event-type", "x"], 2, "cannot be combined"),
        (["--event-type", " "], 2, "event_type must not be empty"),
        (["--cause", ""], 2, "cause must not be empty"),
        (["--since", "2026-01-02", "--until", "2026-01-01"], 2, "since must be before until"),
        (["--cause", "v2-nothing"], 3, "no cause 'v2-nothing'"),
        (["--event-type", "never.seen"], 4, "No dead event"),
        (["--all", "--canary", "0"], 2, "canary must be from 1"),
        (["--all", "--rate", "nan"], 2, "rate must be from 0.001"),
        (["--all", "--rate", "1e-12"], 2, "rate must be from 0.001 to 100000, not 1e-12"),
        (["--since", "soon"], 2, "since: 'soon' is not a time"),
        (["--all", "--not-before", "soon"], 2, "not_before: 'soon' is not a time"),
        (
            ["--all", "--not-before", "9999-12-31"],
            2,
            "not_before: 9999-12-31 lies outside the years 1900 to 9000.",
        ),
        (["--all", "--note", " "], 2, "note must not be empty"),
        (["--all", "--expiry-days", "0"], 2, "0 is not in the range"),
        (["--all", "--order", "random"], 2, "'random' is not one of"),
        (["--id", "zero"], 2, "Not an event id of this outbox"),
    ],
)
def test_a_refused_flag_changes_nothing(
    dlq: Run, connection: Connection, options: list[str], code: int, message: str
) -> None:
    add_dead_events(connection, 1)
    ended = dlq("fixes", "flag", "--note", "fixed", *options)
    assert (ended.code, ended.out) == (code, ""), ended
    assert message in ended.err
    assert (list_fixes(connection), _kinds(connection)) == ([], [])


def test_a_fix_of_more_than_a_thousand_events_needs_a_confirmation(
    dlq: Run, connection: Connection
) -> None:
    """Without a terminal it is refused unless --yes is given."""
    add_dead_events(connection, 1_001)
    ended = dlq(*FLAG)
    assert (ended.code, ended.out) == (4, "")
    assert "would release 1,001 events" in ended.err
    assert "--yes" in ended.err
    assert (list_fixes(connection), _kinds(connection)) == ([], [])
    assert dlq(*FLAG, "--id", "1").code == 0
    assert dlq("fixes", "withdraw", str(list_fixes(connection)[0].id), "--reason", "x").code == 0
    assert dlq(*FLAG, "--yes").code == 0


def _take_terminal(terminal: int) -> None:
    """Make it the controlling terminal, and restore SIGINT, which background jobs ignore."""
    os.login_tty(terminal)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize(
    ("answer", "code", "last_line"),
    [
        ("\x03", 130, "Nothing was changed."),
        (
            "\x04",
            4,
            (
                "dlq: Nothing was changed: there was no answer. Narrow the filter, or preview with "
                "--dry-run."
            ),
        ),
        (
            "n\n",
            4,
            (
                "dlq: Nothing was changed: the answer was no. Narrow the filter, or preview with "
                "--dry-run."
            ),
        ),
    ],
    ids=["Ctrl-C", "Ctrl-D", "no"],
)
def test_declining_the_confirmation_changes_nothing(
    home: Path, connection: Connection, answer: str, code: int, last_line: str
) -> None:
    """On a terminal of its own, with real keys."""
    add_dead_events(connection, 1_001)
    ours, theirs = pty.openpty()
    running = subprocess.Popen(
        [str(Path(sys.executable).parent / "dlq"), *FLAG],
        preexec_fn=partial(_take_terminal, theirs),  # noqa: PLW1509 - no thread runs yet
        cwd=home.parent,
    )
    os.close(theirs)
    shown, sent_at = "", 0.0
    with contextlib.suppress(OSError):  # the program has closed it
        while True:
            # Sent again after two seconds: readline misses a Ctrl-C that comes between its check
            # for signals and its wait for input, and the terminal may have shown it as ^C.
            if "[y/N]: " in shown and time.monotonic() - sent_at > 2:  # which may come in pieces
                os.write(ours, answer.encode())
                sent_at = time.monotonic()
            if select.select([ours], [], [], 2)[0]:
                chunk = os.read(ours, 4096).decode()
                if not chunk:
                    break
                shown += chunk
    os.close(ours)
    assert (running.wait(), shown.splitlines()[-1], "Aborted" in shown) == (code, last_line, False)
    assert list_fixes(connection) == []


@pytest.mark.parametrize(("answer", "code"), [("y", 0), ("n", 4)])
def test_a_terminal_asks_for_the_confirmation(
    home: Path, connection: Connection, answer: str, code: int
) -> None:
    """The question is on stderr, so that stdout stays clean for programs."""
    add_dead_events(connection, 1_001)
    terminal, end = pty.openpty()
    try:
        os.write(terminal, f"{answer}\n".encode())
        done = subprocess.run(
            [str(Path(sys.executable).parent / "dlq"), *FLAG, "--json"],
            stdin=end, capture_output=True, text=True, check=False, cwd=home.parent,
        )  # fmt: skip
    finally:
        os.close(terminal)
        os.close(end)
    assert (done.returncode, "release 1,001 events. Continue? [y/N]" in done.stderr) == (
        code,
        True,
    ), done
    assert len(list_fixes(connection)) == (1 if code == 0 else 0)
    flagged = [json.loads(done.stdout)["fix"]["id"]] if done.stdout else []
    assert flagged == [fix.id for fix in list_fixes(connection)]


def test_the_open_option_lists_open_fixes_only(dlq: Run, connection: Connection) -> None:
    add_dead_events(connection, 1, event_type="a")
    add_dead_events(connection, 1, event_type="b")
    for event_type in ("a", "b"):
        assert dlq("fixes", "flag", "--event-type", event_type, "--note", "n").code == 0
    first = min(fix.id for fix in list_fixes(connection))
    assert dlq("fixes", "withdraw", str(first), "--reason", "x").code == 0
    everything = read_json(dlq("fixes", "list", "--json"))["fixes"]
    only_open = read_json(dlq("fixes", "list", "--open", "--json"))["fixes"]
    assert (len(everything), only_open) == (2, everything[:1])
    assert dlq("fixes", "withdraw", str(only_open[0]["id"]), "--reason", "x").code == 0
    assert read_words(dlq("fixes", "list", "--open")) == "No fix is open."


def test_an_open_fix_shows_its_stages_and_the_next_step(dlq: Run, connection: Connection) -> None:
    """With the same words in JSON."""
    add_dead_events(connection, 30)
    flagged = read_json(dlq(*FLAG, "--canary", "4", "--json"))["fix"]
    shown = read_words(dlq("fixes", "show", str(flagged["id"])))
    assert "next releases up to 4 events in stage 1, or ends if none is left" in shown
    assert "No stage has started yet." in shown
    assert (
        "policy 4 events, then 10 times as many per stage, 50 per second; 90% must succeed within"
        in shown
    )
    assert "rate 50 of 50 per second" in shown
    _advance(connection, flagged["id"])
    shown_whole = read_json(dlq("fixes", "show", str(flagged["id"]), "--json"))
    assert shown_whole.keys() == {"fix", "stages", "next", "timeline"}
    assert shown_whole["fix"].keys() == FIX_KEYS
    connection.execute("update dlq.fix set current_rate = 25, release_rate = 12.5")
    slower = "rate 25 of 50 per second; the last events were released at 12.5"
    assert slower in read_words(dlq("fixes", "show", str(flagged["id"])))
    assert shown_whole["stages"] == [
        {
            "stage": 1,
            "size": 4,
            "released": 4,
            "delivered": 0,
            "died_again": 0,
            "timed_out": 0,
            "deleted": 0,
            "recalled": 0,
            "waiting": 4,
        }
    ]
    assert shown_whole["stages"][0].keys() == STAGE_KEYS
    assert shown_whole["next"] == "waits: 4 events of stage 1 have no outcome yet"
    assert f"next {shown_whole['next']}" in read_words(dlq("fixes", "show", str(flagged["id"])))


def test_a_fix_shows_a_chart_of_what_it_released_and_what_became_of_it(
    dlq: Run, connection: Connection
) -> None:
    """The same numbers are in JSON, and the chart fits into 80 columns."""
    add_dead_events(connection, 30)
    flagged = read_json(dlq(*FLAG, "--canary", "4", "--json"))["fix"]["id"]
    assert "column" not in dlq("fixes", "show", str(flagged)).out
    _advance(connection, flagged)
    connection.execute("update outbox_event set status = 'done' where id <= 2")
    kill(connection, "KeyError: 'postcode'", where="status = 'pending'")
    connection.execute(
        "update dlq.retry set retried_at = '2026-11-24 18:30Z', due_at = '2026-11-24 18:30Z'"
    )
    connection.execute("update dlq.fix set flagged_at = '2026-11-24 18:00Z'")
    _advance(connection, flagged)
    connection.execute("update dlq.retry set settled_at = '2026-11-24 18:32Z'")
    shown = dlq("fixes", "show", str(flagged)).out
    chart = shown[shown.index("most/s") - 50 :].split("\n")
    assert max(map(len, chart)) <= 80
    assert "released   █             4    0.133" in chart
    assert "delivered      ▄         2   0.0667" in chart
    assert "died again     ▄         2   0.0667" in chart
    timeline = read_json(dlq("fixes", "show", str(flagged), "--json"))["timeline"]
    assert timeline["seconds"] == 30
    assert [interval["released"] for interval in timeline["intervals"]] == [4, 0, 0, 0, 0]
    assert timeline["intervals"][4] == {
        "start": "2026-11-24T18:32:00Z",
        "released": 0,
        "delivered": 2,
        "died_again": 2,
        "timed_out": 0,
        "deleted": 0,
        "rate": 0.0,
    }


def test_a_halted_fix_shows_old_and_new_errors_with_hostile_text_inert(
    dlq: Run, connection: Connection
) -> None:
    add_dead_events(connection, 3, error=HOSTILE)
    flagged = read_json(dlq("fixes", "flag", "--all", "--note", HOSTILE, "--json"))["fix"]
    _advance(connection, flagged["id"])
    kill(connection, "KeyError: 'postcode'", where="status = 'pending'")
    connection.execute("update dlq.retry set due_at = now() - interval '1 s'")
    _advance(connection, flagged["id"])
    shown = read_words(dlq("fixes", "show", str(flagged["id"])))
    assert "verdict stage 1: 3 of 3 failed (3 died again" in shown
    assert re.search(r"3 \S*TimeoutError\S*: no answer KeyError: 'postcode'$", shown), shown
    assert "note [bold]TimeoutError[/bold]: no answer" in shown
    answer = read_json(dlq("fixes", "show", str(flagged["id"]), "--json"))
    fix = answer["fix"]
    assert (fix["status"], [pair["after"] for pair in fix["evidence"]]) == (
        "halted",
        ["KeyError: 'postcode'"],
    )
    assert answer["next"] == fix["verdict"]


@pytest.fixture
def flagged(dlq: Run, connection: Connection) -> int:
    """A fix of one dead event."""
    add_dead_events(connection, 1)
    assert dlq(*FLAG).code == 0
    return list_fixes(connection)[0].id


@pytest.mark.parametrize("named", [[], ["--actor", "bob"]], ids=["the account", "a name"])
def test_a_withdrawal_records_the_person(
    dlq: Run, connection: Connection, flagged: int, named: list[str]
) -> None:
    """The account, unless --actor names another. The cause is open again."""
    actor = named[-1] if named else getpass.getuser()
    printed = read_words(dlq("fixes", "withdraw", str(flagged), "--reason", "rolled back", *named))
    assert f"withdrawn by {actor}: rolled back" in printed
    assert "dlq fixes flag --note ...`" in printed
    (fix,) = list_fixes(connection)
    assert (fix.status, fix.verdict) == (FixStatus.WITHDRAWN, f"withdrawn by {actor}: rolled back")
    assert one(connection, "select status from dlq.cause") == {"status": "open"}
    audit = one(connection, "select kind, actor, reason from dlq.audit where kind <> 'fix.flag'")
    assert audit == {"kind": "fix.withdrawn", "actor": actor, "reason": "rolled back"}


def test_a_paused_fix_continues_when_it_is_resumed(
    dlq: Run, connection: Connection, flagged: int
) -> None:
    """Each prints the next command. Pausing twice and resuming twice are refused."""
    assert dlq("fixes", "resume", str(flagged), "--reason", "x").code == 4
    assert f"dlq fixes resume {flagged} --reason ...`" in read_words(
        dlq("fixes", "pause", str(flagged), "--reason", "x")
    )
    assert list_fixes(connection)[0].status is FixStatus.PAUSED
    assert "next waits: paused" in read_words(dlq("fixes", "show", str(flagged)))
    assert dlq("fixes", "pause", str(flagged), "--reason", "x").code == 4
    assert f"dlq fixes show {flagged}`" in read_words(
        dlq("fixes", "resume", str(flagged), "--reason", "x")
    )
    assert list_fixes(connection)[0].status is FixStatus.ACTIVE
    assert _kinds(connection) == ["fix.flag", "fix.paused", "fix.resumed"]


def test_advancing_releases_a_stage_and_records_the_person(
    dlq: Run, connection: Connection
) -> None:
    """A dry run prints the same and changes nothing. Advancing again releases nothing twice."""
    add_dead_events(connection, 3)
    fix = str(read_json(dlq(*FLAG, "--canary", "2", "--json"))["fix"]["id"])
    step = {
        "fix": int(fix),
        "status": "active",
        "verdict": None,
        "released": 2,
        "settled": 0,
        "recalled": 0,
        "with_worker": 0,
        "step": "waits: 2 events of stage 1 have no outcome yet",
    }
    would = read_json(dlq("fixes", "advance", fix, "--dry-run", "--json"))
    assert would == step | {"dry_run": True}
    assert _kinds(connection) == ["fix.flag"]
    assert "Nothing was changed" in read_words(dlq("fixes", "advance", fix, "--dry-run"))

    done = read_json(
        dlq("fixes", "advance", fix, "--actor", "ann", "--reason", "no sensor", "--json")
    )
    assert done == step | {"dry_run": False}
    again = read_words(dlq("fixes", "advance", fix))
    assert again.endswith(
        f"{fix} active not decided yet 0 0 0 0 {step['step']} To follow it: `dlq fixes show {fix}`."
    )
    audit = connection.execute("select kind, actor, reason from dlq.audit order by id").fetchall()
    account = getpass.getuser()
    assert [tuple(row.values()) for row in audit[1:]] == [
        ("fix.advance", "ann", "no sensor"),
        ("retry.stage", "ann", f"fix {fix}, stage 1: fixed in v42"),
        ("fix.advance", account, "advanced by hand"),
    ]


def test_advancing_records_outcomes_and_ends_the_fix(
    dlq: Run, connection: Connection, flagged: int
) -> None:
    assert dlq("fixes", "advance", str(flagged)).code == 0
    connection.execute("update outbox_event set status = 'done'")
    connection.execute("update dlq.retry set due_at = now() - interval '1 s'")
    done = read_json(dlq("fixes", "advance", str(flagged), "--json"))
    assert (done["status"], done["settled"], done["step"]) == ("verified", 1, "ended: verified")
    assert done["verdict"] == list_fixes(connection)[0].verdict
    ended = read_json(dlq("fixes", "advance", str(flagged), "--json"))
    assert (ended["status"], ended["step"]) == ("verified", "has already ended: verified")


def test_an_unknown_fix_cannot_be_advanced(dlq: Run, connection: Connection) -> None:
    ended = dlq("fixes", "advance", "99")
    assert (ended.code, ended.out, "no fix 99" in ended.err) == (3, "", True)
    assert _kinds(connection) == []


@pytest.mark.parametrize("command", ["pause", "withdraw"])
def test_a_dry_run_prints_the_new_status_and_changes_nothing(
    dlq: Run, connection: Connection, flagged: int, command: str
) -> None:
    before = one(connection, "select *, xmin from dlq.fix")
    printed = read_words(dlq("fixes", command, str(flagged), "--reason", "x", "--dry-run"))
    assert re.search(
        f"{flagged} (paused|withdrawn) .*Nothing was changed: this was a dry run.$", printed
    ), printed
    assert one(connection, "select *, xmin from dlq.fix") == before
    assert _kinds(connection) == ["fix.flag"]


def test_json_of_a_change_is_the_fix_as_listed(dlq: Run, flagged: int) -> None:
    """The same fields as `dlq fixes list --json`, and what was recalled."""
    for command in ("pause", "resume", "withdraw"):
        changed = read_json(dlq("fixes", command, str(flagged), "--reason", "x", "--json"))
        if command != "resume":
            assert (changed.pop("recalled"), changed.pop("with_worker")) == (0, 0)
        assert [changed] == read_json(dlq("fixes", "list", "--json"))["fixes"]


def test_pause_and_withdraw_say_what_they_recalled(dlq: Run, connection: Connection) -> None:
    """And `recall` recalls nothing that is due, nothing twice, and nothing of an active fix."""
    add_dead_events(connection, 30)
    fix = str(read_json(dlq(*FLAG, "--canary", "20", "--rate", "1", "--json"))["fix"]["id"])
    _advance(connection, int(fix))
    active = dlq("fixes", "recall", fix, "--reason", "x")
    assert (active.code, f"Fix {fix} is active" in active.err) == (4, True)
    would = read_words(dlq("fixes", "pause", fix, "--reason", "x", "--dry-run"))
    assert re.search(rf"Fix {fix} would be paused; \d+ recalled, \d+ (is|are) with the wor", would)
    done = read_words(dlq("fixes", "pause", fix, "--reason", "slow", "--actor", "ann"))
    found = re.search(rf"Fix {fix} is paused; (\d+) recalled, (\d+) (?:is|are) with the work", done)
    assert found is not None
    assert int(found[1]) + int(found[2]) == 20
    again = read_json(dlq("fixes", "recall", fix, "--reason", "x", "--json"))
    assert again == {"recalled": 0, "with_worker": int(found[2]), "dry_run": False}
    assert "recalled" in read_words(dlq("fixes", "show", fix))
    assert "; 0 recalled" in read_words(dlq("fixes", "withdraw", fix, "--reason", "wrong"))
    audited = "select actor, reason, events from dlq.audit where kind = 'retry.recall'"
    assert one(connection, audited) == {"actor": "ann", "reason": "slow", "events": int(found[1])}


@pytest.mark.parametrize("command", ["pause", "withdraw"])
@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["99", "--reason", "x"], 3, "no fix 99"),
        (["FIX", "--reason", " "], 2, "reason must not be empty"),
        (["FIX", "--reason", "x", "--actor", ""], 2, "actor must not be empty"),
        (["FIX"], 2, "--reason"),
        (["0", "--reason", "x"], 2, "0 is not in the range"),
    ],
)
def test_a_refused_change_changes_nothing(
    dlq: Run,
    connection: Connection,
    flagged: int,
    *,
    command: str,
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    ended = dlq("fixes", command, *(str(flagged) if word == "FIX" else word for word in arguments))
    assert (ended.code, message in ended.err) == (code, True), ended
    assert (list_fixes(connection)[0].status, _kinds(connection)) == (
        FixStatus.ACTIVE,
        ["fix.flag"],
    )


def test_an_ended_fix_cannot_be_changed(dlq: Run, connection: Connection, flagged: int) -> None:
    """The error names its status; the audit log has only the first withdrawal."""
    dlq("fixes", "withdraw", str(flagged), "--reason", "first")
    before = one(connection, "select * from dlq.fix")
    for command in ("withdraw", "pause", "resume"):
        again = dlq("fixes", command, str(flagged), "--reason", "second")
        assert (again.code, f"Fix {flagged} is withdrawn already" in again.err) == (4, True)
    assert one(connection, "select * from dlq.fix") == before
    assert _kinds(connection) == ["fix.flag", "fix.withdrawn"]


def test_parked_events_are_listed_by_pages_and_filters(dlq: Run, connection: Connection) -> None:
    """Only dead events with the maximum of retries."""
    add_dead_events(connection, 4, event_type="a")
    add_dead_events(connection, 2, event_type="b", error=NO_SKU)
    park(connection, [1, 2, 5])
    park(connection, [3], retries=2)
    park(connection, [4])
    connection.execute("update outbox_event set status = 'done' where id = 4")
    rows = read_json(dlq("fixes", "parked", "--json"))["events"]
    assert [(row["event_id"], row["retries"]) for row in rows] == [(1, 3), (2, 3), (5, 3)]
    assert all(row.keys() == PARKED_KEYS for row in rows)
    assert [
        row["event_id"]
        for row in read_json(dlq("fixes", "parked", "--cause", CAUSE, "--json"))["events"]
    ] == [1, 2]
    assert [
        row["event_id"]
        for row in read_json(dlq("fixes", "parked", "--limit", "2", "--json"))["events"]
    ] == [1, 2]
    for format in ("table", "csv"):
        page = dlq("fixes", "parked", "--limit", "2", "--format", format)
        assert (page.out.count("\n"), page.err) == (3, "There may be more: --after 2\n")
    assert read_json(dlq("fixes", "parked", "--limit", "2", "--json"))["next"] == 2
    assert [
        row["event_id"]
        for row in read_json(dlq("fixes", "parked", "--after", "2", "--json"))["events"]
    ] == [5]
    assert (
        read_words(dlq("fixes", "parked", "--event-type", "c"))
        == "No parked events match this filter."
    )
    died = one(connection, "select died_at as at from dlq.dead_event where event_id = 5")["at"]
    assert read_words(dlq("fixes", "parked", "--event-type", "b")) == (
        "event type aggregate cause detail retries last death "
        f"5 b order 1 {compute_cause_id(NO_SKU)} sku 3 {died:%Y-%m-%d %H:%M:%S}+00"
    )


@pytest.mark.parametrize(
    ("chosen", "released"),
    [
        (["1", "3", "99"], {1}),
        (["--cause", CAUSE], {1, 2}),
        (["--event-type", "b"], {5}),
        (["--all"], {1, 2, 5}),
    ],
)
def test_release_parked_selects_parked_events_by_ids_or_filters(
    dlq: Run, connection: Connection, chosen: list[str], released: set[int]
) -> None:
    """Paced, in the ledger and the audit; a dry run counts the same and changes nothing."""
    add_dead_events(connection, 4, event_type="a")
    add_dead_events(connection, 2, event_type="b", error=NO_SKU)
    park(connection, [1, 2, 5])
    command = (
        "fixes",
        "release-parked",
        *chosen,
        "--reason",
        "corrected",
        "--rate",
        "2",
        "--actor",
        "ann",
    )
    would = read_json(dlq(*command, "--dry-run", "--json"))
    assert would == {
        "events": len(released),
        "batches": 1,
        "locked": 0,
        "parked": 0,
        "others": [{"event_id": 99, "state": "unknown"}] if "99" in chosen else [],
        "rate": 2.0,
        "dry_run": True,
    }
    assert one(connection, "select count(*) from outbox_event where status = 'dead'") == {
        "count": 6
    }
    printed = read_words(dlq(*command))
    assert f"Retried {format_count(len(released), 'dead event')} at 2 per second" in printed
    pending = connection.execute(
        "select id, next_run_at from outbox_event where status = 'pending'"
    ).fetchall()
    assert {row["id"] for row in pending} == released
    ledger = connection.execute(
        "select event_id, actor, due_at from dlq.retry where reason = 'corrected'"
    ).fetchall()
    assert {(row["event_id"], row["actor"]) for row in ledger} == {
        (event, "ann") for event in released
    }
    due = sorted(row["due_at"] for row in ledger)
    assert (due[-1] - due[0]).total_seconds() == (len(released) - 1) / 2
    assert _kinds(connection) == ["retry.selected"]


def test_the_fix_option_selects_parked_events_that_the_fix_skipped_or_released(
    dlq: Run, connection: Connection
) -> None:
    """Counted by its own limit; others stay."""
    add_dead_events(connection, 3, event_type="a")
    add_dead_events(connection, 1, event_type="b")
    park(connection, [1], retries=2)
    park(connection, [2], retries=1)
    park(connection, [4], retries=9)
    assert dlq("fixes", "flag", "--event-type", "a", "--note", "n", "--max-retries", "2").code == 0
    fix = str(list_fixes(connection)[0].id)
    assert [
        row["event_id"]
        for row in read_json(dlq("fixes", "parked", "--fix", fix, "--json"))["events"]
    ] == [1]
    _advance(connection, int(fix))
    kill(connection, "KeyError: of something else", where="id = 2")
    assert [
        row["event_id"]
        for row in read_json(dlq("fixes", "parked", "--fix", fix, "--json"))["events"]
    ] == [1, 2]
    assert "Retried 2 dead events" in read_words(
        dlq("fixes", "release-parked", "--fix", fix, "--reason", "corrected")
    )
    assert [row["event_id"] for row in read_json(dlq("fixes", "parked", "--json"))["events"]] == [4]


@pytest.mark.parametrize(
    ("chosen", "code", "message"),
    [
        ([], 2, "no filter was given"),
        (["2", "99"], 3, "None of these events is parked"),
        (["--fix", "99"], 3, "no fix 99"),
        (["--all", "--rate", "0"], 2, "rate"),
        (["zero"], 2, "Not an event id of this outbox"),
    ],
)
def test_a_refused_release_changes_nothing(
    dlq: Run, connection: Connection, chosen: list[str], code: int, message: str
) -> None:
    add_dead_events(connection, 2)
    park(connection, [1])
    ended = dlq("fixes", "release-parked", *chosen, "--reason", "x")
    assert (ended.code, ended.out, message in ended.err) == (code, "", True), ended
    assert one(connection, "select count(*) from outbox_event where status = 'dead'") == {
        "count": 2
    }
    assert _kinds(connection) == []


@pytest.mark.parametrize("name", ["where", "event-type"])
def test_a_filter_that_is_given_twice_is_refused(dlq: Run, name: str) -> None:
    """The last one alone could select far more."""
    given = ("$.a=1", "$.a=2") if name == "where" else ("a", "b")
    twice = [part for value in given for part in (f"--{name}", value)]
    for command in (["fixes", "flag", "--note", "x"], ["dead-events", "stats"]):
        ended = dlq(*command, *twice)
        assert (ended.code, f"--{name} was given 2 times" in ended.err) == (2, True)
