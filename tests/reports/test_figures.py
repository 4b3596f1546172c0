"""Figures of a day: which deaths count, on which day, at which hour."""

import random
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.reports.figures import (
    ALL,
    CAUSES_SHOWN,
    OTHER,
    UNCLASSIFIED,
    Window,
    cause_label,
    plain_line,
    plain_text,
    read_figures,
)

DAY = date(2026, 11, 20)
BERLIN = ZoneInfo("Europe/Berlin")


def add_cause(connection: Connection, cause: str, exception: str = "TimeoutError", template: str = "no answer") -> None:
    """The catalogue's own dates are of today: the report must not use them."""
    connection.execute(
        "insert into dlq.cause (id, exception_type, template, sample, first_seen, last_seen)"
        " values (%s, %s, %s, 'sample', now(), now())",
        [cause, exception, template],
    )


def add_death(
    connection: Connection,
    at: datetime,
    *,
    cause: str | None = None,
    event: int = 1,
    event_type: str = "OrderPlaced",
    aggregate: str = "1",
    error: str | None = "boom",
) -> None:
    connection.execute(
        "insert into dlq.death (event_id, aggregate_type, aggregate_id, event_type, attempts, died_at, error, cause_id)"
        " values (%s, 'order', %s, %s, 5, %s, %s, %s)",
        [event, aggregate, event_type, at, error, cause],
    )


@pytest.fixture
def three_weeks(connection: Connection) -> Connection:
    """Deaths of five causes, and unclassified ones, from three weeks before the day to a week after it."""
    chance = random.Random(20)
    causes = ["a", "b", "c", "d", "e"]
    for cause in causes:
        add_cause(connection, cause)
    for event in range(1, 601):
        at = datetime(2026, 11, 20, tzinfo=UTC) + timedelta(days=chance.uniform(-21, 7))
        add_death(
            connection,
            at if event % 3 else datetime(2026, 11, 20, tzinfo=UTC) + timedelta(hours=chance.uniform(-4, 26)),
            cause=chance.choice([*causes, None]),
            event=event,
            aggregate=str(chance.randint(1, 30)),
            event_type=chance.choice(["OrderPlaced", "OrderPaid"]),
        )
    return connection


def test_every_figure_is_what_sql_counts_on_the_local_day(three_weeks: Connection) -> None:
    """Causes, days, hours and totals agree with plain counts by PostgreSQL's own time zones."""
    figures = read_figures(three_weeks, Window(DAY, BERLIN))
    local = "(died_at at time zone 'Europe/Berlin')"

    counted = three_weeks.execute(
        f"select coalesce(cause_id, '') as cause, count(*) as deaths, count(distinct aggregate_id) as aggregates,"
        f" max(died_at) as last_seen from dlq.death where {local}::date = %s group by 1 order by 2 desc, 1",
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

    shown = figures.causes.set_index("cause_id")
    assert figures.totals.deaths == sum(row["deaths"] for row in counted) > 150
    assert figures.totals.causes == 5
    for row in counted:
        found = shown.loc[row["cause"]]
        assert (found["deaths"], found["aggregates"]) == (row["deaths"], row["aggregates"])
        assert found["last_seen"] == row["last_seen"]
    assert list(figures.causes["deaths"]) == sorted(figures.causes["deaths"], reverse=True)
    assert {day: deaths for day, deaths in figures.days[ALL].items() if deaths} == {
        row["day"]: row["deaths"] for row in by_day
    }
    assert {int(h.label[:2]): h.deaths for h in figures.hours.itertuples() if h.deaths} == {
        row["hour"]: row["deaths"] for row in by_hour
    }
    assert figures.mean == pytest.approx(sum(row["deaths"] for row in by_day if row["day"] < DAY) / 14)


def test_parts_add_up_to_totals(three_weeks: Connection) -> None:
    """Hours, causes and the last day's columns are the same deaths cut differently."""
    figures = read_figures(three_weeks, Window(DAY, BERLIN))
    deaths = figures.totals.deaths
    assert figures.hours["deaths"].sum() == figures.causes["deaths"].sum() == figures.days[ALL].iloc[-1] == deaths
    assert figures.days.drop(columns=ALL).iloc[-1].sum() == deaths
    assert figures.causes["share"].sum() == pytest.approx(1)
    assert [trend[-1] for trend in figures.causes["trend"]] == list(figures.causes["deaths"])


def test_the_day_begins_with_its_first_instant_and_ends_before_the_next(connection: Connection) -> None:
    """A death at midnight belongs to the day that begins."""
    window = Window(DAY, BERLIN)
    instant = timedelta(microseconds=1)
    for event, at in enumerate((window.start - instant, window.start, window.end - instant, window.end)):
        add_death(connection, at, event=event)
    figures = read_figures(connection, window)
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
    """One death in each hour of the day is one in each bar, whatever the clock did."""
    window = Window(day, ZoneInfo(zone))
    for hour in range(hours):
        add_death(connection, window.start + timedelta(hours=hour, minutes=30), event=hour)
    figures = read_figures(connection, window)
    assert list(figures.hours["deaths"]) == [1] * hours
    assert figures.totals.deaths == hours
    assert figures.hours["label"].is_unique


def test_an_hour_that_comes_twice_is_told_apart() -> None:
    """On the day the clock is put back, 02:00 is shown with its offset."""
    labels = Window(date(2026, 10, 25), BERLIN).hour_labels
    assert labels[:5] == ["00:00", "01:00", "02:00 (+0200)", "02:00 (+0100)", "03:00"]


def test_first_seen_and_state_come_from_the_ledger_up_to_the_day(connection: Connection) -> None:
    """A cause is new on the day of its first death, and was so still when looked at later."""
    window = Window(DAY, BERLIN)
    add_cause(connection, "old")
    add_cause(connection, "fresh")
    long_ago = window.start - timedelta(days=200)
    add_death(connection, long_ago, cause="old", event=1)
    for event, cause in enumerate(("old", "fresh", None), start=2):
        add_death(connection, window.start + timedelta(hours=1), cause=cause, event=event)
    add_death(connection, window.end, cause="fresh", event=9)
    figures = read_figures(connection, window)
    causes = figures.causes.set_index("cause_id")
    assert dict(causes["state"]) == {"old": "ongoing", "fresh": "new", UNCLASSIFIED: "not classified"}
    assert causes.loc["old", "first_seen"] == long_ago
    assert causes.loc["fresh", "last_seen"] == window.start + timedelta(hours=1)
    assert (figures.totals.new_causes, figures.totals.unclassified) == (1, 1)


def test_smaller_causes_are_summed_up_and_the_unclassified_never_cut_off(connection: Connection) -> None:
    """The table ends after 50 causes; the totals do not."""
    window = Window(DAY, BERLIN)
    for cause in range(CAUSES_SHOWN + 10):
        add_cause(connection, f"c{cause:03}")
        for n in range(2):
            add_death(connection, window.start, cause=f"c{cause:03}", event=cause * 2 + n)
    add_death(connection, window.start, event=9_999)
    figures = read_figures(connection, window)
    assert len(figures.causes) == CAUSES_SHOWN + 1
    assert figures.causes["cause_id"].iloc[-1] == UNCLASSIFIED
    assert (figures.hidden_causes, figures.hidden_deaths) == (10, 20)
    assert figures.days[OTHER].iloc[-1] == 20
    assert figures.totals.deaths == 121


def test_the_sample_is_the_days_last_error_and_bounded(connection: Connection) -> None:
    """Not one of another day, and not all of a megabyte."""
    window = Window(DAY, BERLIN)
    add_cause(connection, "c")
    add_death(connection, window.start, cause="c", event=1, error="early")
    add_death(connection, window.start + timedelta(hours=2), cause="c", event=2, error="x" * 10_000)
    add_death(connection, window.end, cause="c", event=3, error="tomorrow")
    row = read_figures(connection, window).causes.iloc[0]
    assert (row["sample"], row["sample_event"], row["sample_characters"]) == ("x" * 4_000, 2, 10_000)


def test_figures_are_read_by_the_index_on_the_time_of_death(connection: Connection) -> None:
    """The predicates are ranges that the planner can use: no scan of the whole ledger."""
    window = Window(DAY, BERLIN)
    connection.execute("set enable_seqscan = off")
    span = {"start": window.start, "end": window.end}
    queries = {
        "report.totals": span,
        "report.causes": {**span, "limit": 50},
        "report.hours": {**span, "bounds": window.hours},
        "report.days": {"bounds": window.day_bounds[:-1], "end": window.end, "causes": ["a"]},
        "report.samples": {**span, "causes": ["a"], "length": 10},
    }
    for name, values in queries.items():
        plan = connection.execute(f"explain {connection.literal(name, **values)}".encode()).fetchall()
        text = "\n".join(row["QUERY PLAN"] for row in plan)
        assert "died_at" in text
        assert "Seq Scan on death" not in text, f"{name}: {text}"


def test_plain_text_is_what_was_written_without_what_a_terminal_obeys() -> None:
    """Escapes, control characters and direction overrides go; lines, tabs and foreign letters stay."""
    assert plain_text("\x1b[1;31mred\x1b[0m \x1b]8;;http://x\x07link\x1b]8;;\x1b\\ \x9b2Jx") == "red link x"
    assert plain_text("a\r\nb\rc\td\x08\x7f\ufeff") == "a\nb\nc\td"
    assert plain_text("user\u202egpj.exe\u2066x\u2069 žluťoučký العربية") == "usergpj.exex žluťoučký العربية"


def test_a_cause_reads_as_one_line() -> None:
    """The exception's type is said once and the line has an end."""
    assert cause_label("KeyError", "'id'") == "KeyError: 'id'"
    assert cause_label("KeyError", "KeyError: 'id'") == "KeyError: 'id'"
    assert cause_label("KeyError", "") == "KeyError"
    assert plain_line("a\n  b " * 100, 20) == "a b a b a b a b a b…"
