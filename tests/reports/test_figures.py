"""Tests the figures of a day: which deaths are counted, by day, hour, cause and type."""

import random
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from dlq_pipelines.audit import AuditContext
from dlq_pipelines.causes.catalogue import merge_causes
from dlq_pipelines.errors import RefusedError
from dlq_pipelines.exports.redact import parse_redaction
from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.reports.figures import (
    ALL,
    OTHER,
    UNCLASSIFIED,
    DetailFigures,
    ReportFigures,
    ReportPolicy,
    ReportWindow,
    select_detailed_causes,
)
from dlq_pipelines.reports.read import read_report_figures
from dlq_pipelines.reports.states import CauseState
from dlq_pipelines.reports.wording import build_headline, format_aggregates, format_cause_label
from tests.reports.rows import add_cause, add_death, count_again
from tests.reports.story import BERLIN, DAY
from tests.rows import one

LATER = datetime(2027, 6, 1, tzinfo=UTC)


def read(
    connection: Connection, window: ReportWindow, policy: ReportPolicy | None = None
) -> ReportFigures:
    count_again(connection, window.zone.key)
    return read_report_figures(connection, window, policy=policy or ReportPolicy(), now=LATER)


@pytest.fixture
def three_weeks(connection: Connection) -> Connection:
    """Deaths of five causes and unclassified ones, from three weeks before to a week after."""
    chance = random.Random(20)
    causes = ["a", "b", "c", "d", "e"]
    for cause in causes:
        add_cause(connection, cause)
    for event in range(1, 601):
        at = datetime(2026, 11, 20, tzinfo=UTC) + timedelta(days=chance.uniform(-21, 7))
        add_death(
            connection,
            at
            if event % 3
            else datetime(2026, 11, 20, tzinfo=UTC) + timedelta(hours=chance.uniform(-4, 26)),
            cause=chance.choice([*causes, None]),
            event=event,
            aggregate=str(chance.randint(1, 30)),
            event_type=chance.choice(["OrderPlaced", "OrderPaid"]),
        )
    return connection


def test_figures_equal_plain_counts_of_the_local_day(three_weeks: Connection) -> None:
    """Causes, days, hours and totals equal counts by PostgreSQL's time zones."""
    figures = read(three_weeks, ReportWindow(DAY, BERLIN))
    local = "(died_at at time zone 'Europe/Berlin')"
    counted = three_weeks.execute(
        f"select coalesce(cause_id, '') as cause, count(*) as deaths,"
        f" count(distinct aggregate_id) as aggregates, max(died_at) as last_seen"
        f" from dlq.death where {local}::date = %s group by 1",
        [DAY],
    ).fetchall()
    by_day = three_weeks.execute(
        f"select {local}::date as day, count(*) as deaths from dlq.death"
        f" where {local}::date between %s and %s group by 1 order by 1",
        [DAY - timedelta(days=14), DAY],
    ).fetchall()
    by_hour = three_weeks.execute(
        f"select extract(hour from {local})::int as hour, count(*) as deaths from dlq.death"
        f" where {local}::date = %s group by 1",
        [DAY],
    ).fetchall()
    assert figures.totals.deaths == sum(row["deaths"] for row in counted) > 150
    assert figures.totals.causes == 5
    assert {(c.cause_id, c.deaths, c.aggregates, c.last_seen) for c in figures.causes} == {
        (row["cause"], row["deaths"], row["aggregates"], row["last_seen"]) for row in counted
    }
    assert {day: deaths for day, deaths in figures.days[ALL].items() if deaths} == {
        row["day"]: row["deaths"] for row in by_day
    }
    hours = figures.hours.to_dict("records")
    assert {int(h["label"][:2]): h["deaths"] for h in hours if h["deaths"]} == {
        row["hour"]: row["deaths"] for row in by_hour
    }
    assert figures.mean == pytest.approx(
        sum(row["deaths"] for row in by_day if row["day"] < DAY) / 14
    )
    same = [row["deaths"] for row in by_day if (DAY - row["day"]).days in {7, 14}]
    assert figures.weekday_mean == sum(same) / 2


def test_parts_add_up_to_totals(three_weeks: Connection) -> None:
    """Hours, causes, the heat map and the last day have the same sum."""
    figures = read(three_weeks, ReportWindow(DAY, BERLIN))
    deaths = figures.totals.deaths
    assert figures.hours["deaths"].sum() == sum(cause.deaths for cause in figures.causes) == deaths
    assert figures.days[ALL].iloc[-1] == figures.days.drop(columns=ALL).iloc[-1].sum() == deaths
    assert figures.matrix.to_numpy().sum() == deaths
    assert sum(cause.share for cause in figures.causes) == pytest.approx(1)
    for cause in figures.causes:
        assert cause.trend[-1] == cause.deaths == figures.matrix.loc[cause.cause_id].sum()


def test_causes_are_ranked_by_distinct_aggregates_and_muted_ones_come_last(
    connection: Connection,
) -> None:
    """Ten deaths of one order are one affected aggregate."""
    window = ReportWindow(DAY, BERLIN)
    for cause in ("often", "wide", "quiet"):
        add_cause(connection, cause)
    for n in range(10):
        add_death(connection, window.start + timedelta(minutes=n), cause="often", event=n)
    for n in range(3):
        add_death(connection, window.start, cause="wide", event=20 + n, aggregate=str(n))
    for n in range(5):
        add_death(connection, window.start, cause="quiet", event=30 + n, aggregate=str(n))
    connection.execute("update dlq.cause set muted_until = '2030-01-01Z' where id = 'quiet'")
    figures = read(connection, window)
    assert [(c.rank, c.cause_id, c.aggregates, c.deaths) for c in figures.causes] == [
        (1, "wide", 3, 3), (2, "often", 1, 10), (3, "quiet", 5, 5),
    ]  # fmt: skip
    assert figures.causes[2].state is CauseState.MUTED


def test_an_event_without_an_aggregate_counts_for_itself(connection: Connection) -> None:
    """An event that dies twice is one, also in a cause that two causes were merged into."""
    window = ReportWindow(DAY, BERLIN)
    for cause in ("few", "many", "member"):
        add_cause(connection, cause)
    for event in range(3):
        add_death(connection, window.start, cause="many", event=event, aggregate="")
        add_death(connection, window.start, cause="member", event=event, aggregate="")
    for n in range(9):
        add_death(
            connection, window.start + timedelta(minutes=n), cause="few", event=20, aggregate=""
        )
    count_again(connection)
    merge_causes(connection, "member", into="many", audit=AuditContext("ann", "one", LATER))
    figures = read(connection, window)
    assert [(c.cause_id, c.aggregates, c.deaths) for c in figures.causes] == [
        ("many", 3, 6),
        ("few", 1, 9),
    ]
    assert format_aggregates(figures.causes[0]) == "3 events"


@pytest.mark.parametrize(
    ("noun", "one", "many"),
    [
        ("parcel", "1 parcel", "57 parcels"),
        ("parcel_job", "1 parcel_job", "57 parcel_jobs"),
        ("parcel_jobs", "1 aggregate", "57 parcel_jobs"),
        ("Orders", "1 aggregate", "57 Orders"),
        ("ORDERS", "1 aggregate", "57 ORDERS"),
        ("delivery", "1 delivery", "57 deliveries"),
        ("address", "1 address", "57 addresses"),
        ("box", "1 box", "57 boxes"),
        ("an order", "1 aggregate", "57 aggregates"),
        (None, "1 aggregate", "57 aggregates"),
    ],
)
def test_aggregates_are_named_by_their_type(
    connection: Connection, noun: str | None, one: str, many: str
) -> None:
    """A type that ends in s is a plural already."""
    window = ReportWindow(DAY, BERLIN)
    add_cause(connection, "slow")
    add_death(connection, window.start, cause="slow")
    count_again(connection)
    cause = replace(read(connection, window).causes[0], aggregate_type=noun)
    assert format_aggregates(cause) == one
    assert format_aggregates(replace(cause, aggregates=57)) == many


def test_merged_causes_are_one_and_count_an_aggregate_once(connection: Connection) -> None:
    """Two members that affected the same order affected one."""
    window = ReportWindow(DAY, BERLIN)
    for cause in ("root", "member", "other"):
        add_cause(connection, cause)
    add_death(connection, window.start, cause="root", event=1, aggregate="1")
    add_death(connection, window.start, cause="member", event=2, aggregate="1")
    add_death(connection, window.start, cause="member", event=3, aggregate="2")
    add_death(connection, window.start - timedelta(days=1), cause="member", event=4)
    add_death(connection, window.start, cause="other", event=5)
    count_again(connection)
    merge_causes(connection, "member", into="root", audit=AuditContext("ann", "one", LATER))
    figures = read(connection, window)
    assert [(c.cause_id, c.aggregates, c.deaths) for c in figures.causes] == [
        ("root", 2, 3),
        ("other", 1, 1),
    ]
    assert figures.causes[0].trend[-2:] == (1, 3)
    assert figures.causes[0].state is CauseState.ONGOING
    assert figures.totals.causes == 2


def test_the_day_begins_with_its_first_instant_and_ends_before_the_next(
    connection: Connection,
) -> None:
    """A death at midnight belongs to the day that begins."""
    window = ReportWindow(DAY, BERLIN)
    instant = timedelta(microseconds=1)
    for event, at in enumerate(
        (window.start - instant, window.start, window.until - instant, window.until)
    ):
        add_death(connection, at, event=event)
    figures = read(connection, window)
    assert figures.totals.deaths == 2
    assert list(figures.days[ALL].iloc[-2:]) == [1, 2]
    assert list(figures.hours["deaths"].iloc[[0, -1]]) == [1, 1]


@pytest.mark.parametrize(
    ("day", "zone", "hours"),
    [
        (date(2026, 3, 29), "Europe/Berlin", 23),
        (date(2026, 10, 25), "Europe/Berlin", 25),
        (date(2026, 11, 20), "Europe/Berlin", 24),
        (date(2018, 11, 4), "America/Sao_Paulo", 23),  # has no midnight
        (date(2026, 11, 20), "Asia/Kolkata", 24),
        (date(2011, 12, 30), "Pacific/Apia", 0),  # was left out
    ],
)
def test_a_day_has_as_many_hours_as_the_clock_gives_it(
    connection: Connection, day: date, zone: str, hours: int
) -> None:
    """One death in each hour of the day is one in each bar."""
    window = ReportWindow(day, ZoneInfo(zone))
    for hour in range(hours):
        add_death(connection, window.start + timedelta(hours=hour, minutes=30), event=hour)
    figures = read(connection, window)
    assert list(figures.hours["deaths"]) == [1] * hours
    assert figures.totals.deaths == hours
    assert figures.hours["label"].is_unique


def test_a_repeated_hour_has_its_utc_offset() -> None:
    """On the day on which the clock goes back, 02:00 comes twice."""
    labels = ReportWindow(date(2026, 10, 25), BERLIN).hour_labels
    assert labels[:5] == ["00:00", "01:00", "02:00 (+0200)", "02:00 (+0100)", "03:00"]


def test_a_cause_is_new_on_the_day_of_its_first_death_in_later_reports_too(
    connection: Connection,
) -> None:
    window = ReportWindow(DAY, BERLIN)
    add_cause(connection, "old")
    add_cause(connection, "fresh")
    long_ago = window.start - timedelta(days=200)
    add_death(connection, long_ago, cause="old", event=1)
    for event, cause in enumerate(("old", "fresh", None), start=2):
        add_death(connection, window.start + timedelta(hours=1), cause=cause, event=event)
    add_death(connection, window.until, cause="fresh", event=9)
    causes = {cause.cause_id: cause for cause in read(connection, window).causes}
    states = {name: cause.state for name, cause in causes.items()}
    assert states == {
        "old": CauseState.ONGOING,
        "fresh": CauseState.NEW,
        UNCLASSIFIED: CauseState.UNCLASSIFIED,
    }
    assert causes["old"].first_seen == long_ago
    assert causes["fresh"].last_seen == window.start + timedelta(hours=1)


def test_a_cause_is_compared_with_the_days_since_its_first_death(connection: Connection) -> None:
    """Days before its first death are not counted as days without deaths."""
    window = ReportWindow(DAY, BERLIN)
    add_cause(connection, "young")
    for ago in range(4):
        for n in range(20):
            add_death(
                connection, window.start - timedelta(days=ago), cause="young", event=100 * ago + n
            )
    (cause,) = read(connection, window).causes
    assert cause.trend[-4:] == (20, 20, 20, 20)
    assert cause.escalation_limit == pytest.approx(20 + 3.5 * 20**0.5)
    assert (cause.above_limit, cause.state) == (False, CauseState.ONGOING)


@pytest.mark.parametrize(
    ("fixes", "state"),
    [
        ([("null", "verified")], CauseState.FIXED),
        ([("5", "verified")], CauseState.ONGOING),
        ([("null", "verified"), ("5", "halted")], CauseState.FIXED),
        ([("null", "verified"), ("null", "withdrawn")], CauseState.FIXED),
        ([("null", "verified"), ("null", "halted")], CauseState.ONGOING),
    ],
    ids=["whole", "part", "part halted later", "withdrawn later", "halted later"],
)
def test_only_a_verified_fix_of_the_whole_cause_makes_it_fixed(
    connection: Connection, fixes: list[tuple[str, str]], state: CauseState
) -> None:
    """A fix of some of its deaths, such as those with five attempts, leaves the cause as it is."""
    window = ReportWindow(DAY, BERLIN)
    add_cause(connection, "a")
    add_death(connection, window.start - timedelta(days=200), cause="a", event=1)
    add_death(connection, window.start + timedelta(hours=1), cause="a", event=2)
    for hours, (attempts, status) in enumerate(fixes):
        flagged_at = window.start - timedelta(hours=20 - hours)
        connection.execute(
            "insert into dlq.fix"
            " (cause_id, attempts, note, flagged_by, flagged_at, status, closed_at)"
            f" values ('a', {attempts}, 'v2', 'ann', %s, %s, %s)".encode(),
            [flagged_at, status, flagged_at + timedelta(minutes=30)],
        )
    (cause,) = read(connection, window).causes
    assert cause.state is state


def test_causes_beyond_the_limit_are_summed_and_unclassified_deaths_are_listed(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list has a limit; the totals have all deaths."""
    monkeypatch.setattr("dlq_pipelines.reports.read.CAUSES_LISTED", 50)
    window = ReportWindow(DAY, BERLIN)
    for cause in range(60):
        add_cause(connection, f"c{cause:03}")
        for n in range(2):
            add_death(
                connection,
                window.start,
                cause=f"c{cause:03}",
                event=cause * 2 + n,
                aggregate=str(n),
            )
    add_death(connection, window.start, event=9_999)
    figures = read(connection, window)
    assert len(figures.causes) == 51
    assert figures.causes[-1].cause_id == UNCLASSIFIED
    assert (figures.hidden_causes, figures.hidden_deaths) == (10, 20)
    assert figures.days[OTHER].iloc[-1] == 20
    assert figures.matrix.to_numpy().sum() == figures.totals.deaths == 121


def test_small_urgent_causes_have_details() -> None:
    """In addition to the most harmful causes."""
    states = [CauseState.ONGOING] * 40 + [CauseState.NEW] * 30 + [CauseState.UNCLASSIFIED]
    full = select_detailed_causes(states)
    assert [at for at, whole in enumerate(full) if whole] == [*range(25), *range(40, 65), 70]


def test_the_sample_is_the_days_last_error_and_bounded(connection: Connection) -> None:
    """Neither an error of another day nor a whole megabyte."""
    window = ReportWindow(DAY, BERLIN)
    add_cause(connection, "c")
    add_death(connection, window.start, cause="c", event=1, error="early")
    add_death(
        connection,
        window.start + timedelta(hours=2),
        cause="c",
        event=2,
        error="a" * 500_000 + "z" * 500_000,
    )
    add_death(connection, window.until, cause="c", event=3, error="tomorrow")
    sample = read(connection, window).causes[0].sample
    assert sample is not None
    assert (sample.event_id, sample.characters) == (2, 1_000_000)
    assert sample.text == "a" * 1_500 + "\n[...]\n" + "z" * 1_500


def test_details_of_the_day_are_counted_with_their_states(connection: Connection) -> None:
    """A title says the detail of at least 80 % of the deaths. What is new was never seen before."""
    window = ReportWindow(DAY, BERLIN)
    add_cause(connection, "c", "KeyError", "<name>")
    before = window.start - timedelta(days=1)
    for n, (at, key) in enumerate(
        [(before, "postcode"), *[(window.start, "postcode")] * 8, *[(window.start, "sku")] * 2]
    ):
        add_death(connection, at, cause="c", event=n, detail=key)
    figures = read(connection, window)
    (cause,) = figures.causes
    assert cause.title == "KeyError: 'postcode'"
    assert cause.details == (
        DetailFigures("postcode", 8, CauseState.ONGOING),
        DetailFigures("sku", 2, CauseState.NEW),
    )
    assert "1 cause: 1 escalating, 1 new detail." in build_headline(figures)
    add_death(connection, window.start, cause="c", event=99, detail="city")
    assert read(connection, window).causes[0].title == "KeyError: <name>"


def test_a_detail_regresses_on_the_day_of_its_death_and_its_cause_does_not(
    connection: Connection,
) -> None:
    """The last verdict before the end of the day counts, as for a cause."""
    window = ReportWindow(DAY, BERLIN)
    add_cause(connection, "c", "KeyError", "<name>")
    flagged = window.start - timedelta(days=2)
    for n, (at, key) in enumerate(
        [(flagged - timedelta(hours=1), "sku"), (window.start, "sku"), (window.start, "id")]
    ):
        add_death(connection, at, cause="c", event=n, detail=key)
    connection.execute(
        "insert into dlq.fix (cause_id, detail, note, flagged_by, flagged_at, status, closed_at)"
        " values ('c', 'sku', 'fixed', 'ann', %s, 'verified', %s)",
        [flagged, flagged + timedelta(hours=1)],
    )
    connection.execute(
        "insert into dlq.audit (kind, actor, reason, filter, events, at) values"
        " ('detail.regressed', 'a', 'r', jsonb_build_object('cause', 'c', 'detail', 'sku',"
        " 'died_at', %s::timestamptz), 0, now())",
        [window.start],
    )
    (cause,) = read(connection, window).causes
    states = {detail.detail: detail.state for detail in cause.details}
    assert states == {"sku": CauseState.REGRESSED, "id": CauseState.NEW}
    assert cause.state is CauseState.ONGOING


def test_secrets_are_redacted_in_every_figure(connection: Connection) -> None:
    """Samples, summaries, details and templates, also where a long error was cut."""
    window = ReportWindow(DAY, BERLIN)
    policy = ReportPolicy(redaction=parse_redaction("", r"token-\w+", None))
    add_cause(connection, "c", template="refused token-abc")
    secret = "token-" + "s" * 600
    add_death(
        connection,
        window.start,
        cause="c",
        event=1,
        error=f"ValueError: {secret} " + "\n" + secret * 400,
    )
    add_death(connection, window.start, cause="c", event=2, error="KeyError: 'token-xyz'")
    figures = read(connection, window, policy)
    (cause,) = figures.causes
    assert "[redacted]" in cause.template
    assert cause.sample is not None
    assert "token" not in str(cause)
    assert "sss" not in str(cause)


def test_a_day_that_is_not_over_is_refused(connection: Connection) -> None:
    """A report needs the whole day."""
    window = ReportWindow(DAY, BERLIN)
    with pytest.raises(
        RefusedError, match=r"2026-11-20 is not over yet: it can be reported after 2026-11-20 23:00"
    ):
        read_report_figures(
            connection, window, policy=ReportPolicy(), now=window.until - timedelta(seconds=1)
        )


def test_a_day_whose_deaths_are_deleted_is_refused(connection: Connection) -> None:
    """The existing report is complete; another one would not be."""
    window = ReportWindow(DAY, BERLIN)
    add_cause(connection, "c")
    for event in range(3):
        add_death(connection, window.start, cause="c", event=event)
    assert read(connection, window).totals.deaths == 3
    connection.execute("delete from dlq.death where event_id = 1")
    connection.execute(
        "insert into dlq.audit (kind, actor, reason, filter, events, at)"
        " values ('ledger.purge', 'a', 'r', '{}', 1, now())"
    )
    with pytest.raises(
        RefusedError, match=r"deleted deaths of 2026-11-20.*Keep the report that exists"
    ):
        read_report_figures(connection, window, policy=ReportPolicy(), now=LATER)


def test_figures_are_read_by_indexes(connection: Connection) -> None:
    """No statement scans the whole ledger, rollup or audit log."""
    window = ReportWindow(DAY, BERLIN)
    connection.execute("set enable_seqscan = off")
    span = {"start": window.start, "until": window.until}
    statements: dict[str, tuple[str, dict[str, Any]]] = {
        "report.causes": ("death_day", {**span, "limit": 50, "types": 5}),
        "report.events": ("death_day", span),
        "report.types": ("death_day", {**span, "causes": ["a"], "limit": 5}),
        "report.hours": ("death_day", {**span, "bounds": window.hours}),
        "report.merged_aggregates": ("death_", {**span, "members": ["a"]}),
        "report.days": (
            "cause_day_pkey",
            {"causes": ["a"], "first": window.days[0], "day": DAY},
        ),
        "report.days_unclassified": (
            "death_unclassified",
            {"bounds": window.day_bounds, "start": window.start},
        ),
        "report.samples": ("death_cause", {**span, "causes": ["a"], "half": 10, "limit": 5}),
        "report.dead_events": ("dead_time", {"at": window.until, "archive_before": window.until}),
        "report.archive_moves": ("audit_kind", span),
        "report.retries": ("retry_time", span),
        "report.stages": ("retry_", {"since": window.start, "until": window.until, "fixes": [1]}),
        "report.purged_soon": ("purged_time", {"at": window.until, "purge_before": window.start}),
        "report.later_changes": ("audit_kind", {"until": window.until, "causes": ["a"]}),
    }
    for name, (index, values) in statements.items():
        plan = connection.execute(
            f"explain {connection.render_query(name, **values)}".encode()
        ).fetchall()
        text = "\n".join(row["QUERY PLAN"] for row in plan)
        assert index in text, f"{name}: {text}"
        assert "Seq Scan on death" not in text, f"{name}: {text}"
        assert "Seq Scan on retry" not in text, f"{name}: {text}"


def test_reading_changes_nothing(three_weeks: Connection) -> None:
    """The snapshot is read-only, and its settings end with its transaction."""
    read(three_weeks, ReportWindow(DAY, BERLIN))
    jit = one(three_weeks, "select reset_val as jit from pg_settings where name = 'jit'")
    assert one(
        three_weeks,
        "select current_setting('transaction_read_only') as read_only,"
        " current_setting('jit') as jit",
    ) == {"read_only": "off", **jit}


def test_a_cause_reads_as_one_line() -> None:
    """The exception type is not repeated."""
    assert format_cause_label("KeyError", "'id'") == "KeyError: 'id'"
    assert format_cause_label("KeyError", "KeyError: 'id'") == "KeyError: 'id'"
    assert format_cause_label("KeyError", "") == "KeyError"
