"""Tests the pure functions: rules, the transitions of an alert, and routes."""

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
    EscalatingCause,
    FailedCheck,
    FailedJob,
    Finding,
    HaltedFix,
    HealedCause,
    Severity,
    Thresholds,
    compute_spike_threshold,
    evaluate_rules,
)
from dlq_pipelines.links import Links
from dlq_pipelines.outbox.queue import StuckEvents

NOW = datetime(2026, 11, 24, 18, 30, tzinfo=UTC)
COOLDOWN = timedelta(hours=4)
QUIET = AlertFigures(NOW)
CAUSE = AlertCause("v2-1", "ReadTimeout: no answer", NOW - timedelta(hours=2), "order.placed")
DETAILED = replace(CAUSE, details=["sku", "city"], details_found=5)

FIRING = {
    "backlog": replace(QUIET, backlog=1_001),
    "oldest": replace(QUIET, oldest=NOW - timedelta(days=8)),
    "deaths:order.placed": replace(
        QUIET, window={"order.placed": 20}, baseline={"order.placed": [0] * 336}
    ),
    "new_cause:v2-1": replace(QUIET, new_causes=[CAUSE]),
    "new_detail:v2-1": replace(QUIET, new_details=[DETAILED]),
    "regressed:v2-1": replace(QUIET, regressed=[CAUSE]),
    "escalating:v2-1": replace(
        QUIET, escalating=[EscalatingCause(CAUSE, NOW.date(), [1, 2, 4, 9, 12])]
    ),
    "halted:7": replace(QUIET, halted=[HaltedFix(7, "fixed", "3 of 10 died again", None)]),
    "healed:8": replace(QUIET, healed=[HealedCause(8, "v2-1", 39, "team-pay")]),
    "parked": replace(QUIET, parked=1),
    "stuck:nobody.takes.it": replace(
        QUIET, stuck=[StuckEvents("nobody.takes.it", 3, 17, NOW - timedelta(hours=3))]
    ),
    "purge_ahead": replace(QUIET, purged_soon=LOOKBACK),
    "check:no_event_is_missing": replace(
        QUIET,
        failed_checks=[
            FailedCheck(
                "no_event_is_missing", Severity.CRITICAL, {"missing": 1, "event_ids": [5, 7]}, NOW
            )
        ],
    ),
    "job:export_day": replace(
        QUIET, failed_jobs=[FailedJob("export_day", NOW, "run", None, ["2026-11-23"], 0)]
    ),
}


def test_figures_at_their_bounds_have_no_findings() -> None:
    at_the_bounds = replace(
        QUIET,
        backlog=1_000,
        oldest=NOW - timedelta(days=7),
        window={"x": 19},
        baseline={"x": [0] * 336},
    )
    assert evaluate_rules(QUIET, Thresholds()) == evaluate_rules(at_the_bounds, Thresholds()) == []


def test_an_alert_names_the_first_details_that_are_news_and_counts_the_others() -> None:
    summaries = [
        finding.summary
        for finding in evaluate_rules(
            replace(QUIET, new_details=[DETAILED], regressed=[DETAILED]), Thresholds()
        )
    ]
    assert summaries == [
        "New detail: ReadTimeout: no answer ('sku', 'city' and 3 more)",
        "Regressed cause: ReadTimeout: no answer ('sku', 'city' and 3 more)",
    ]


@pytest.mark.parametrize("key", FIRING)
def test_the_finding_of_each_rule_names_the_next_step(key: str) -> None:
    (found,) = evaluate_rules(FIRING[key], Thresholds())
    assert (found.key, found.rule) == (key, key.partition(":")[0])
    assert found.summary
    assert found.detail.endswith(".")
    assert "{" not in found.detail
    assert key == "oldest" or "`dlq " in found.detail


@pytest.mark.parametrize("key", FIRING)
def test_the_reference_describes_each_rule_correctly(key: str) -> None:
    (found,) = evaluate_rules(FIRING[key], Thresholds())
    rule = ALERT_RULES[found.rule]
    assert (rule.key.partition(":")[0], ":" in rule.key) == (found.rule, ":" in key)
    assert found.severity in rule.severities
    assert found.again == rule.again
    assert rule.event_type is not None or found.event_type is None


def test_a_finding_links_to_what_it_is_about() -> None:
    """The run of a job is in Dagster's UI; the rest is served by us."""
    links = Links("https://dlq.example.com", "https://dagster.example.com")
    causes = "https://dlq.example.com/causes"
    found = {
        key: finding.link
        for key, figures in FIRING.items()
        for finding in evaluate_rules(figures, Thresholds(), links)
    }
    assert found == {
        **dict.fromkeys(("backlog", "oldest", "deaths:order.placed"), causes),
        **{
            f"{rule}:v2-1": f"{causes}/v2-1"
            for rule in ("new_cause", "new_detail", "regressed", "escalating")
        },
        "halted:7": "https://dlq.example.com/fixes/7",
        "healed:8": "https://dlq.example.com/fixes/8",
        "parked": "https://dlq.example.com/parked",
        "stuck:nobody.takes.it": None,
        "purge_ahead": None,
        "check:no_event_is_missing": None,
        "job:export_day": "https://dagster.example.com/runs/run",
    }


@pytest.mark.parametrize(
    ("before", "words"),
    [([2], "by the 1 day before."), ([2] * 14, "by the 14 days before.")],
)
def test_an_escalating_cause_says_how_many_days_show_what_is_usual(
    before: list[int], words: str
) -> None:
    cause = EscalatingCause(CAUSE, NOW.date(), [*before, 90])
    (found,) = evaluate_rules(replace(QUIET, escalating=[cause]), Thresholds())
    assert words in found.detail


def test_the_figures_cover_each_rule() -> None:
    assert {key.partition(":")[0] for key in FIRING} == set(ALERT_RULES)


@pytest.mark.parametrize(
    ("backlog", "severity", "bound"),
    [
        (1_001, Severity.WARNING, "The threshold is 1,000 dead events (DLQ_BACKLOG_WARN)."),
        (100_000, Severity.WARNING, "The threshold is 1,000 dead events (DLQ_BACKLOG_WARN)."),
        (100_001, Severity.CRITICAL, "The threshold is 100,000 dead events (DLQ_BACKLOG_ERROR)."),
    ],
)
def test_a_backlog_above_its_second_bound_is_critical(
    backlog: int, severity: Severity, bound: str
) -> None:
    (found,) = evaluate_rules(replace(QUIET, backlog=backlog), Thresholds())
    assert (found.key, found.severity) == ("backlog", severity)
    assert bound in found.detail
    (alone,) = evaluate_rules(replace(QUIET, backlog=6), Thresholds(backlog=10, backlog_error=5))
    assert alone.severity is Severity.CRITICAL


@pytest.mark.parametrize(
    ("days", "more", "summary"),
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
def test_the_finding_of_a_failed_job_names_its_days_and_the_run(
    days: list[str], more: int, summary: str
) -> None:
    (found,) = evaluate_rules(
        replace(QUIET, failed_jobs=[FailedJob("export_day", NOW, "run-7", NOW, days, more)]),
        Thresholds(),
    )
    assert found.summary.endswith(summary)
    assert found.detail.startswith(
        "Dagster shows why in run run-7 of 2026-11-24 18:30 UTC. "
        "Once the cause is resolved, re-execute the run"
    )
    assert ("backfill the days" in found.detail) == bool(days)


def test_the_most_severe_finding_comes_first() -> None:
    everything = replace(
        QUIET,
        **{
            name: getattr(figures, name)
            for figures in FIRING.values()
            for name in vars(QUIET)
            if getattr(figures, name) != getattr(QUIET, name)
        },
    )
    ranks = [finding.severity.rank for finding in evaluate_rules(everything, Thresholds())]
    assert len(ranks) == len(FIRING)
    assert ranks == sorted(ranks, reverse=True)


@pytest.mark.parametrize(
    ("hours", "most"),
    [
        ([0] * 336, 0),
        ([0] * 335 + [9_000], 0),  # a past outage does not raise the threshold
        ([4] * 336, 4 + 3.5 * 2),  # the deviation of a Poisson count
        ([100, 120, 80, 110, 90] * 60, 100 + 3.5 * 1.4826 * 10),
    ],
)
def test_the_spike_threshold_is_three_and_a_half_deviations_above_the_median(
    hours: list[int], most: float
) -> None:
    assert compute_spike_threshold(hours) == pytest.approx(most)


@given(
    hours=st.lists(st.integers(0, 10_000), min_size=24),
    deaths=st.integers(0, 10**6),
    outage=st.integers(0, 10**6),
)
def test_more_deaths_are_never_less_of_a_spike(hours: list[int], deaths: int, outage: int) -> None:
    """A past outage of a single hour does not change the threshold."""
    assert compute_spike_threshold(hours) >= sorted(hours)[len(hours) // 2 - 1]
    fewer, more = (
        evaluate_rules(replace(QUIET, window={"x": many}, baseline={"x": hours}), Thresholds())
        for many in (deaths, deaths + 1)
    )
    assert len(fewer) <= len(more)
    usual = [3] * 300
    assert compute_spike_threshold([*usual, outage]) == compute_spike_threshold(usual)


@pytest.mark.parametrize(
    ("hours", "usual"),
    [
        ([], "Deaths are recorded since 2026-11-24 11:30 UTC only, so no earlier hour shows what"),
        ([0] * 3, "In most of the 3 hours before none died."),
        ([0], "In most of the 1 hour before none died."),
        ([0] * 336, "In most of the 336 hours before none died."),
        ([9] * 336, "Up to 20 are usual, by the 336 hours before."),
    ],
)
def test_a_first_burst_is_critical_at_once(hours: list[int], usual: str) -> None:
    """In the first hour after the installation, and after weeks without deaths."""
    began = datetime(2026, 11, 24, 11, 30, tzinfo=UTC)
    figures = replace(QUIET, window={"x": 21}, baseline={"x": hours}, began=began)
    (found,) = evaluate_rules(figures, Thresholds())
    assert (found.key, found.severity, found.event_type) == ("deaths:x", Severity.CRITICAL, "x")
    assert found.detail.startswith(usual)
    assert evaluate_rules(replace(figures, window={"x": 19}), Thresholds()) == []


def test_a_type_without_a_label_is_reported_once_under_its_own_name() -> None:
    """The other types without a label are reported together, if they are unusual without it."""
    baseline = dict.fromkeys(("new", "other"), [2] * 336)
    for others, keys in ((19, ["deaths:new"]), (20, ["deaths:new", "deaths:other"])):
        figures = replace(
            QUIET,
            window={"new": 500, "other": 500 + others},
            baseline=baseline,
            unlabelled=frozenset({"new"}),
        )
        assert [finding.key for finding in evaluate_rules(figures, Thresholds())] == keys


@given(text=st.text(max_size=3_000))
def test_untrusted_text_in_a_finding_stays_one_bounded_line(text: str) -> None:
    figures = replace(
        QUIET,
        window={text: 500},
        baseline={text: [0] * 336},
        new_causes=[replace(CAUSE, title=text)],
        new_details=[replace(CAUSE, title=text, details=[text])],
        halted=[HaltedFix(1, text, text, None)],
        failed_checks=[
            FailedCheck("no_event_is_missing", Severity.WARNING, {"event_ids": [text]}, NOW)
        ],
    )
    for found in evaluate_rules(figures, Thresholds()):
        for line in (found.key, found.summary, found.detail):
            assert len(line) < 1_000
            assert line.isprintable() or not any(ord(c) < 32 or ord(c) == 127 for c in line)


# -- transitions of an alert --

FINDING = Finding("backlog", "backlog", Severity.WARNING, "1,001 events are dead", "Look.")
# Minutes that pass, whether the rule then finds it, and the minutes of a silence that begins then.
STEPS = st.lists(
    st.tuples(st.integers(1, 300), st.booleans(), st.one_of(st.none(), st.integers(1, 600))),
    min_size=1,
    max_size=60,
)


@given(steps=STEPS, never=st.booleans())
def test_an_alert_sends_one_notice_at_its_start_one_each_cool_down_and_one_at_its_end(
    steps: list[tuple[int, bool, int | None]], never: bool
) -> None:
    """A silence holds back all but the last. Each start that sent a notice has an end."""
    finding = replace(FINDING, again=NEVER) if never else FINDING
    alert: Alert | None = None
    now, sent = NOW, list[tuple[datetime, NoticeKind]]()
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
            sent.append((now, notice))
        elif is_found and not silenced:
            assert alert is not None
            assert alert.notified_at is not None
            assert never or now - alert.notified_at < COOLDOWN
    for (at, kind), (later, following) in itertools.pairwise(sent):
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
def test_a_flapping_finding_is_one_episode(pauses: list[int]) -> None:
    first = decide_transition(None, FINDING, now=NOW, cooldown=COOLDOWN)
    assert first is not None
    alert, now, notices = first.alert, NOW, [first.notice]
    for place, minutes in enumerate(pauses):
        now += timedelta(minutes=minutes)
        done = decide_transition(alert, FINDING if place % 2 else None, now=now, cooldown=COOLDOWN)
        if done is not None:
            alert = done.alert
            notices.append(done.notice)
    assert notices.count(NoticeKind.FIRED) == 1
    assert NoticeKind.RESOLVED not in notices


CRITICAL = replace(FINDING, severity=Severity.CRITICAL)


def test_an_alert_that_becomes_critical_sends_a_notice_and_stays_critical() -> None:
    """Channels for critical alerts receive its resolution. A figure near the bound fires once."""
    first = decide_transition(None, FINDING, now=NOW, cooldown=COOLDOWN)
    assert first is not None
    risen = decide_transition(
        first.alert, CRITICAL, now=NOW + timedelta(minutes=1), cooldown=COOLDOWN
    )
    assert risen is not None
    assert (risen.notice, risen.alert.severity) == (NoticeKind.FIRED, Severity.CRITICAL)
    alert = risen.alert
    for minutes, finding in ((2, FINDING), (3, CRITICAL), (4, FINDING)):
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


def test_an_alert_that_becomes_critical_in_a_silence_fires_when_the_silence_ends() -> None:
    first = decide_transition(None, FINDING, now=NOW, cooldown=COOLDOWN)
    assert first is not None
    alert = replace(first.alert, silenced_until=NOW + timedelta(hours=1))
    assert (
        decide_transition(alert, CRITICAL, now=NOW + timedelta(minutes=1), cooldown=COOLDOWN)
        is None
    )
    after = decide_transition(alert, CRITICAL, now=NOW + timedelta(hours=1), cooldown=COOLDOWN)
    assert after is not None
    assert (after.notice, after.alert.severity) == (NoticeKind.FIRED, Severity.CRITICAL)


# -- routes --

URLS = """
    slack://token-a/token-b/token-c
    critical:pagerduty://key@integration
    event_type=order.*:mailto://user:password@mail.example.com?to=orders@example.com
    Warning:event_type=order.*:https://example.com/hooks/dead-letters
"""


def test_an_entry_can_have_a_lowest_severity_and_a_pattern() -> None:
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
    ("conditions", "owner", "event_type", "takes"),
    [
        ("owner=pay*:", "payments", None, True),
        ("owner=pay*:", "orders", "payments", False),
        ("owner=pay*:", None, "payments", False),
        ("owner=Ann?Smith:", "Ann Smith", None, True),
        ("event_type=x:owner=ann:", "ann", "x", True),
        ("owner=ann:event_type=x:", "ann", "x", True),
        ("critical:owner=ann:event_type=x:", "ann", "x", False),
        ("warning:owner=ann:event_type=x:", "ann", "y", False),
    ],
)
def test_an_entry_can_have_a_pattern_for_the_owner(
    conditions: str, owner: str | None, event_type: str | None, *, takes: bool
) -> None:
    (route,) = parse_routes(f"{conditions}slack://a/b/c")
    assert route.url == "slack://a/b/c"
    assert route.takes(Severity.WARNING, event_type, owner) == takes


@pytest.mark.parametrize(
    ("severity", "event_type", "schemes"),
    [
        (Severity.INFO, None, "slack"),
        (Severity.CRITICAL, None, "pagerduty slack"),
        (Severity.INFO, "order.placed", "mailto slack"),
        (Severity.WARNING, "order.placed", "https mailto slack"),
        (Severity.CRITICAL, "parcel.sent", "pagerduty slack"),
    ],
)
def test_severity_and_event_type_select_the_channels(
    severity: Severity, event_type: str | None, schemes: str
) -> None:
    found = select_channels(parse_routes(URLS), severity, event_type)
    assert " ".join(channel.partition(":")[0] for channel in found) == schemes


def test_a_channel_that_several_entries_select_is_listed_once() -> None:
    routes = parse_routes("critical:slack://a/b/c event_type=x:slack://a/b/c")
    assert select_channels(routes, Severity.CRITICAL, "x") == [compute_channel_id("slack://a/b/c")]


@pytest.mark.parametrize(
    "entry",
    [
        "s3cr3t",
        "grave:slack://s3cr3t",
        "critical:",
        "event_type=:slack://s3cr3t",
        "owner=a:owner=s3cr3t:slack://x",
    ],
)
def test_an_invalid_entry_is_refused_and_not_shown(entry: str) -> None:
    with pytest.raises(ValueError, match=r"entry 2 (is not a URL|has a condition twice)") as raised:
        parse_routes(f"slack://a/b/c {entry}")
    assert "s3cr3t" not in str(raised.value)


def test_the_representation_of_a_route_shows_no_secret() -> None:
    route = Route("slack://s3cr3t/b/c")
    assert "s3cr3t" not in f"{route!r} {route.channel}"
