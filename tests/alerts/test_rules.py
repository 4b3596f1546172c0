"""What is worth telling, and when is it told? Pure, so that thousands of histories are tried."""

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlq_pipelines.alerts.alert import RESOLVE_AFTER, Alert, NoticeKind, decide_transition
from dlq_pipelines.alerts.routes import Route, compute_channel_id, parse_routes, select_channels
from dlq_pipelines.alerts.rules import (
    ALERT_RULES,
    LOOKBACK,
    NEVER,
    AlertCause,
    AlertFigures,
    FailedCheck,
    FailedJob,
    Finding,
    HaltedFix,
    Severity,
    Thresholds,
    compute_spike_threshold,
    evaluate_rules,
)

NOW = datetime(2026, 11, 24, 18, 30, tzinfo=UTC)
COOLDOWN = timedelta(hours=4)
CALM = AlertFigures(NOW)
CAUSE = AlertCause("v1-1", "ReadTimeout: no answer", NOW - timedelta(hours=2), "order.placed")

WRONG = {
    "backlog": replace(CALM, backlog=1_001),
    "oldest": replace(CALM, oldest=NOW - timedelta(days=8)),
    "deaths:order.placed": replace(
        CALM, window={"order.placed": 20}, baseline={"order.placed": [0] * 336}
    ),
    "new_cause:v1-1": replace(CALM, new_causes=[CAUSE]),
    "regressed:v1-1": replace(CALM, regressed=[CAUSE]),
    "halted:7": replace(CALM, halted=[HaltedFix(7, "mended", "3 of 10 died again", None)]),
    "parked": replace(CALM, parked=1),
    "purge_ahead": replace(CALM, purged_soon=LOOKBACK),
    "check:books_balance": replace(
        CALM,
        failed_checks=[
            FailedCheck("books_balance", Severity.CRITICAL, {"missing": 1, "examples": [5, 7]}, NOW)
        ],
    ),
    "job:export_day": replace(
        CALM, failed_jobs=[FailedJob("export_day", NOW, "run", None, ["2026-11-23"], 0)]
    ),
    "slow:parked": replace(CALM, timed_out=frozenset({"parked"})),
}


def test_where_nothing_is_wrong_nothing_is_told() -> None:
    at_the_edge = replace(
        CALM,
        backlog=1_000,
        oldest=NOW - timedelta(days=7),
        window={"x": 19},
        baseline={"x": [0] * 336},
    )
    assert evaluate_rules(CALM, Thresholds()) == evaluate_rules(at_the_edge, Thresholds()) == []


@pytest.mark.parametrize("key", WRONG)
def test_each_rule_finds_what_it_is_for_and_says_what_to_do(key: str) -> None:
    (found,) = evaluate_rules(WRONG[key], Thresholds())
    assert (found.key, found.rule) == (key, key.partition(":")[0])
    assert found.summary
    assert found.detail.endswith(".")
    assert "{" not in found.detail
    assert key == "oldest" or "`dlq " in found.detail


@pytest.mark.parametrize("key", WRONG)
def test_what_the_reference_lists_of_a_rule_is_so(key: str) -> None:
    (found,) = evaluate_rules(WRONG[key], Thresholds())
    rule = ALERT_RULES[found.rule]
    assert (rule.key.partition(":")[0], ":" in rule.key) == (found.rule, ":" in key)
    assert found.severity in rule.severities
    assert found.again == rule.again
    assert rule.event_type is not None or found.event_type is None


def test_each_rule_is_tried() -> None:
    assert {key.partition(":")[0] for key in WRONG} == set(ALERT_RULES)


@pytest.mark.parametrize(
    ("backlog", "severity", "said"),
    [
        (1_001, Severity.WARNING, "More than 1,000 wait"),
        (100_000, Severity.WARNING, "More than 1,000 wait"),
        (100_001, Severity.CRITICAL, "More than 100,000 wait"),
    ],
)
def test_a_backlog_above_its_second_bound_is_critical(
    backlog: int, severity: Severity, said: str
) -> None:
    (found,) = evaluate_rules(replace(CALM, backlog=backlog), Thresholds())
    assert (found.key, found.severity) == ("backlog", severity)
    assert said in found.detail
    (alone,) = evaluate_rules(replace(CALM, backlog=6), Thresholds(backlog=10, backlog_error=5))
    assert alone.severity is Severity.CRITICAL


@pytest.mark.parametrize(
    ("days", "more", "said"),
    [
        ([], 0, "The job export_day failed"),
        (["2026-11-23"], 0, "The job export_day failed for 2026-11-23"),
        (
            ["2026-11-21", "2026-11-22", "2026-11-23"],
            11,
            "for 2026-11-21, 2026-11-22, 2026-11-23 and 11 more",
        ),
    ],
)
def test_a_failed_job_names_its_days_and_where_to_look(
    days: list[str], more: int, said: str
) -> None:
    (found,) = evaluate_rules(
        replace(CALM, failed_jobs=[FailedJob("export_day", NOW, "run-7", NOW, days, more)]),
        Thresholds(),
    )
    assert found.summary.endswith(said)
    assert found.detail.startswith(
        "Run run-7 of 2026-11-24 18:30 UTC says why in Dagster's UI; re-execute it there"
    )
    assert ("backfill the days" in found.detail) == bool(days)


def test_the_gravest_comes_first() -> None:
    everything = replace(
        CALM,
        **{
            name: getattr(figures, name)
            for figures in WRONG.values()
            for name in vars(CALM)
            if getattr(figures, name) != getattr(CALM, name)
        },
    )
    ranks = [finding.severity.rank for finding in evaluate_rules(everything, Thresholds())]
    assert len(ranks) == len(WRONG)
    assert ranks == sorted(ranks, reverse=True)


@pytest.mark.parametrize(
    ("hours", "most"),
    [
        ([0] * 336, 0),
        ([0] * 335 + [9_000], 0),  # an outage in the past widens nothing
        ([4] * 336, 4 + 3.5 * 2),  # by chance alone
        ([100, 120, 80, 110, 90] * 60, 100 + 3.5 * 1.4826 * 10),
    ],
)
def test_unusual_is_three_and_a_half_deviations_above_the_median(
    hours: list[int], most: float
) -> None:
    assert compute_spike_threshold(hours) == pytest.approx(most)


@given(
    hours=st.lists(st.integers(0, 10_000), min_size=24),
    deaths=st.integers(0, 10**6),
    outage=st.integers(0, 10**6),
)
def test_more_deaths_are_never_less_unusual(hours: list[int], deaths: int, outage: int) -> None:
    """And no past outage of a single hour hides one: the threshold stays within what the other hours say."""
    assert compute_spike_threshold(hours) >= sorted(hours)[len(hours) // 2 - 1]
    fewer, more = (
        evaluate_rules(replace(CALM, window={"x": many}, baseline={"x": hours}), Thresholds())
        for many in (deaths, deaths + 1)
    )
    assert len(fewer) <= len(more)
    calm = [3] * 300
    assert compute_spike_threshold([*calm, outage]) == compute_spike_threshold(calm)


def test_before_a_day_is_known_nothing_is_called_unusual() -> None:
    assert (
        evaluate_rules(replace(CALM, window={"x": 10_000}, baseline={"x": [0] * 23}), Thresholds())
        == []
    )


@given(text=st.text(max_size=3_000))
def test_whatever_an_event_type_or_a_title_holds_a_finding_stays_a_line(text: str) -> None:
    figures = replace(
        CALM,
        window={text: 500},
        baseline={text: [0] * 336},
        new_causes=[replace(CAUSE, title=text)],
        halted=[HaltedFix(1, text, text, None)],
        failed_checks=[FailedCheck("books_balance", Severity.WARNING, {"examples": [text]}, NOW)],
    )
    for found in evaluate_rules(figures, Thresholds()):
        for said in (found.key, found.summary, found.detail):
            assert len(said) < 1_000
            assert said.isprintable() or not any(ord(c) < 32 or ord(c) == 127 for c in said)


# -- an alert's life --

FINDING = Finding("backlog", "backlog", Severity.WARNING, "1,001 events are dead", "Look.")
# Minutes that pass, whether it is found then, and for how long somebody silences it then.
STEPS = st.lists(
    st.tuples(st.integers(1, 300), st.booleans(), st.one_of(st.none(), st.integers(1, 600))),
    min_size=1,
    max_size=60,
)


@given(steps=STEPS, never=st.booleans())
def test_an_alert_is_told_once_again_after_the_cool_down_and_when_it_is_over(
    steps: list[tuple[int, bool, int | None]], never: bool
) -> None:
    """Whatever comes and goes: no notice in a silence but the end, and an end for each beginning that was told."""
    finding = replace(FINDING, again=NEVER) if never else FINDING
    alert: Alert | None = None
    now, told = NOW, list[tuple[datetime, NoticeKind]]()
    for minutes, is_found, silence in steps:
        now += timedelta(minutes=minutes)
        if silence is not None and alert is not None:
            alert = replace(alert, silenced_until=now + timedelta(minutes=silence))
        before = alert
        done = decide_transition(alert, finding if is_found else None, now=now, cooldown=COOLDOWN)
        if done is not None:
            alert = done.alert
        notice = None if done is None else done.notice
        silenced = (
            before is not None and before.silenced_until is not None and before.silenced_until > now
        )
        if notice is not None:
            assert notice is NoticeKind.RESOLVED or not silenced
            told.append((now, notice))
        elif is_found and not silenced:
            assert alert is not None
            assert alert.notified_at is not None
            assert never or now - alert.notified_at < COOLDOWN
    for (at, kind), (later, following) in itertools.pairwise(told):
        if following is NoticeKind.FIRED:
            assert kind is NoticeKind.RESOLVED
        else:
            assert kind is not NoticeKind.RESOLVED
        if following is NoticeKind.REPEATED:
            assert later - at >= COOLDOWN
            assert not never
        if following is NoticeKind.RESOLVED:
            assert later - at >= RESOLVE_AFTER


@given(pauses=st.lists(st.integers(1, 9), min_size=1, max_size=20))
def test_what_flickers_is_one_episode(pauses: list[int]) -> None:
    first = decide_transition(None, FINDING, now=NOW, cooldown=COOLDOWN)
    assert first is not None
    alert, now, told = first.alert, NOW, [first.notice]
    for place, minutes in enumerate(pauses):
        now += timedelta(minutes=minutes)
        done = decide_transition(alert, FINDING if place % 2 else None, now=now, cooldown=COOLDOWN)
        if done is not None:
            alert = done.alert
            told.append(done.notice)
    assert told.count(NoticeKind.FIRED) == 1
    assert NoticeKind.RESOLVED not in told


GRAVER = replace(FINDING, severity=Severity.CRITICAL)


def test_an_alert_that_gets_graver_is_told_at_once_and_stays_so() -> None:
    """Its end must reach whom only the graver one reached; going up and down at the bound rings once."""
    first = decide_transition(None, FINDING, now=NOW, cooldown=COOLDOWN)
    assert first is not None
    risen = decide_transition(
        first.alert, GRAVER, now=NOW + timedelta(minutes=1), cooldown=COOLDOWN
    )
    assert risen is not None
    assert (risen.notice, risen.alert.severity) == (NoticeKind.FIRED, Severity.CRITICAL)
    alert = risen.alert
    for minutes, finding in ((2, FINDING), (3, GRAVER), (4, FINDING)):
        assert (
            decide_transition(
                alert, finding, now=NOW + timedelta(minutes=minutes), cooldown=COOLDOWN
            )
            is None
        )
    again = decide_transition(
        alert, FINDING, now=NOW + timedelta(minutes=1) + COOLDOWN, cooldown=COOLDOWN
    )
    assert again is not None
    assert (again.notice, again.alert.severity) == (NoticeKind.REPEATED, Severity.CRITICAL)


def test_an_alert_that_gets_graver_in_a_silence_is_told_when_that_ends() -> None:
    first = decide_transition(None, FINDING, now=NOW, cooldown=COOLDOWN)
    assert first is not None
    alert = replace(first.alert, silenced_until=NOW + timedelta(hours=1))
    assert (
        decide_transition(alert, GRAVER, now=NOW + timedelta(minutes=1), cooldown=COOLDOWN) is None
    )
    after = decide_transition(alert, GRAVER, now=NOW + timedelta(hours=1), cooldown=COOLDOWN)
    assert after is not None
    assert (after.notice, after.alert.severity) == (NoticeKind.FIRED, Severity.CRITICAL)


# -- who is told --

URLS = """
    slack://token-a/token-b/token-c
    critical:pagerduty://key@integration
    event_type=order.*:mailto://user:password@mail.example.com?to=orders@example.com
    Warning:event_type=order.*:https://example.com/hooks/dead-letters
"""


def test_an_entry_may_name_the_least_severity_and_a_pattern() -> None:
    slack, pager, orders, hook = parse_routes(URLS)
    assert (slack.least, slack.event_types) == (Severity.INFO, None)
    assert (pager.least, pager.event_types) == (Severity.CRITICAL, None)
    assert (orders.least, orders.event_types) == (Severity.INFO, "order.*")
    assert (hook.least, hook.event_types, hook.url) == (
        Severity.WARNING,
        "order.*",
        "https://example.com/hooks/dead-letters",
    )


@pytest.mark.parametrize(
    ("severity", "event_type", "told"),
    [
        (Severity.INFO, None, "slack"),
        (Severity.CRITICAL, None, "pagerduty slack"),
        (Severity.INFO, "order.placed", "mailto slack"),
        (Severity.WARNING, "order.placed", "https mailto slack"),
        (Severity.CRITICAL, "parcel.sent", "pagerduty slack"),
    ],
)
def test_an_alert_goes_where_severity_and_event_type_lead_it(
    severity: Severity, event_type: str | None, told: str
) -> None:
    found = select_channels(parse_routes(URLS), severity, event_type)
    assert " ".join(channel.partition(":")[0] for channel in found) == told


def test_a_channel_is_told_once_however_many_entries_lead_to_it() -> None:
    routes = parse_routes("critical:slack://a/b/c event_type=x:slack://a/b/c")
    assert select_channels(routes, Severity.CRITICAL, "x") == [compute_channel_id("slack://a/b/c")]


@pytest.mark.parametrize(
    "entry", ["s3cr3t", "grave:slack://s3cr3t", "critical:", "event_type=:slack://s3cr3t"]
)
def test_what_is_no_entry_is_refused_and_not_repeated(entry: str) -> None:
    with pytest.raises(ValueError, match="entry 2 is no address") as raised:
        parse_routes(f"slack://a/b/c {entry}")
    assert "s3cr3t" not in str(raised.value)


def test_no_secret_is_in_the_text_of_a_route() -> None:
    route = Route("slack://s3cr3t/b/c")
    assert "s3cr3t" not in f"{route!r} {route.channel}"
