"""Checks `dlq causes classify`."""

import json
import re

import pytest

from dlq_pipelines.causes.fingerprint import compute_cause_id
from dlq_pipelines.postgres.connect import Connection
from tests.cli.conftest import Run, read_json
from tests.rows import add_events, kill, one

ERROR = "KeyError: 'sku'"
CAUSE = compute_cause_id(ERROR)


def test_classify_gives_deaths_their_cause_once(dlq: Run, connection: Connection) -> None:
    add_events(connection, 3)
    kill(connection, ERROR)
    classified = dlq("causes", "classify", "--json")
    assert (classified.code, classified.err) == (0, "")
    assert json.loads(classified.out) == {
        "deaths": 3,
        "new_causes": [CAUSE],
        "new_details": [],
        "regressed": [],
        "regressed_details": [],
    }
    causes = connection.execute("select distinct cause_id as id from dlq.death").fetchall()
    assert causes == [{"id": CAUSE}]
    again = dlq("causes", "classify")
    assert again.out == (
        "Classified 0 deaths: 0 new causes, 0 new details, 0 regressed causes, "
        "0 regressed details.\n"
    )


def test_details_are_shown_with_their_states_and_select_events(
    dlq: Run, connection: Connection
) -> None:
    key = compute_cause_id("KeyError: 'sku'")
    for error in ("KeyError: 'sku'", "KeyError: 'city'", "KeyError: 'city'"):
        add_events(connection, 1)
        kill(connection, error, where="status = 'pending'")
    dlq("causes", "classify")
    connection.execute(
        "update dlq.cause_detail set status = 'fixed', fixed_at = now() - interval '1 hour'"
        " where detail = 'sku'"
    )
    (cause,) = json.loads(dlq("causes", "list", "--json").out)["causes"]
    found = {detail["detail"]: (detail["status"], detail["deaths"]) for detail in cause["details"]}
    assert found == {"city": ("open", 2), "sku": ("fixed", 1)}
    assert re.search(r"^sku\s+fixed\s+1\s+1", dlq("causes", "show", key).out, re.MULTILINE)
    assert dlq("causes", "classify").out.endswith(f"regressed: {key} sku\n")
    listed = json.loads(dlq("dead-events", "list", "--cause", key, "--detail", "sku", "--json").out)
    assert [event["detail"] for event in listed["events"]] == ["sku"]
    retried = dlq("dead-events", "retry-batch", "--detail", "sku", "--reason", "x", "--yes")
    assert "1 " in retried.out
    assert one(connection, "select array_agg(event_id) as ids from dlq.retry") == {"ids": [1]}


def test_the_probes_of_a_cause_are_switched_and_shown(dlq: Run, connection: Connection) -> None:
    add_events(connection, 2)
    kill(connection, "TimeoutError: no answer")
    dlq("causes", "classify")
    cause = compute_cause_id("TimeoutError: no answer")
    assert "off (DLQ_PROBES)" in dlq("causes", "show", cause).out
    switch = ("causes", "probe", cause, "on", "--reason", "it recovers by itself", "--json")
    (change,) = read_json(dlq(*switch))["changes"]
    assert change == {"cause": cause, "before": {"probe": None}, "after": {"probe": "on"}}
    assert "on, the next not before 20" in dlq("causes", "show", cause).out
    shown = read_json(dlq("causes", "show", cause, "--json"))
    assert (shown["probes"]["is_on"], shown["probes"]["tries"]) == (True, 0)
    (audit,) = connection.execute("select kind, reason from dlq.audit").fetchall()
    assert audit == {"kind": "cause.probe", "reason": "it recovers by itself"}
    undone = ("causes", "undo", str(shown["changes"][0]["audit_id"]), "--reason", "a mistake")
    assert dlq(*undone).code == 0
    assert "off (DLQ_PROBES)" in dlq("causes", "show", cause).out
    dlq("causes", "probe", cause, "off", "--reason", "each attempt costs money")
    assert "off (by a person)" in dlq("causes", "show", cause).out


def test_a_sample_is_redacted_before_it_is_cut(
    dlq: Run, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token of 3,000 characters in the middle would be shown in two halves."""
    monkeypatch.setenv("DLQ_EXPORT_REDACT_ERRORS", r"Bearer \S+")
    error = f"AuthError: refused {'x' * 300}. Bearer {'s3cret' * 500} {'y' * 300}"
    add_events(connection, 1)
    kill(connection, error)
    dlq("causes", "classify")
    cause = compute_cause_id(error)
    sample = read_json(dlq("causes", "show", cause, "--json"))["sample"]
    assert sample == f"AuthError: refused {'x' * 300}. [redacted] {'y' * 300}"
    assert "[redacted]" in dlq("causes", "show", cause).out


def test_classify_marks_a_fixed_cause_that_died_again_as_regressed(
    dlq: Run, connection: Connection
) -> None:
    add_events(connection, 1)
    kill(connection, ERROR)
    assert dlq("causes", "classify").out.endswith(f"new: {CAUSE}\n")
    connection.execute("update dlq.cause set status = 'fixed', fixed_at = now()")
    add_events(connection, 1)
    kill(connection, ERROR, where="status = 'pending'")
    assert dlq("causes", "classify").out == (
        "Classified 1 death: 0 new causes, 0 new details, 1 regressed cause, "
        f"0 regressed details.\nregressed: {CAUSE}\n"
    )
    assert one(connection, "select status from dlq.cause") == {"status": "regressed"}


def test_a_group_of_causes_that_differ_in_one_word_is_proposed(
    dlq: Run, connection: Connection
) -> None:
    """By name and with each word, in the terminal and as JSON."""
    depots = ("north", "south", "east", "west", "harbour", "airport")
    for depot in depots:
        connection.execute(
            "insert into dlq.cause (id, exception_type, template, first_seen, last_seen)"
            " values (%s, 'E', %s, now(), now())",
            [f"v2-{depot}", f"no slot is free at depot {depot} today"],
        )
    printed = dlq("causes", "similar").out
    assert "6 causes differ only in one word: no slot is free at depot … today" in printed
    assert all(f"v2-{depot}\t{depot}" in printed for depot in depots)
    (group,) = read_json(dlq("causes", "similar", "--json"))["groups"]
    assert sorted(group["differs"]) == sorted(depots)
    assert len(group["others"]) == 5

    (command,) = re.findall("To merge them: dlq (.*) --reason", printed)
    merged = dlq(*command.split(), "--reason", "one yard")
    count = "select count(merged_into) as merged, min(merged_into) as into from dlq.cause"
    assert one(connection, count) == {"merged": 5, "into": group["cause"]["id"]}
    (change,) = re.findall(r"dlq causes undo (\d+)", merged.out)
    shown = read_json(dlq("causes", "show", group["cause"]["id"], "--json"))["changes"]
    assert [str(entry["audit_id"]) for entry in shown] == [change]
    assert dlq("causes", "undo", change, "--reason", "two yards").code == 0
    assert one(connection, count) == {"merged": 0, "into": None}
