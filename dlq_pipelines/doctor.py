"""Can this installation do its work, and if not, which command mends it?

Each check looks at one thing that has to be there, changes nothing, and says what it found. What cannot be looked at,
because something before it is missing, is said to be that.
"""

import shlex
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import psycopg

from dlq_pipelines.day import CATCH_UP_DAYS, compute_midnight
from dlq_pipelines.errors import DlqError
from dlq_pipelines.installation import find_database, get_dagster_database_url
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.postgres.migrate import require_current
from dlq_pipelines.settings import Settings

# A clock that differs by more dates retries and fixes wrongly.
_CLOCK_SECONDS = 2.0
# The classifying job runs every five minutes.
_UNCLASSIFIED_SECONDS = 3_600.0
# A daemon writes its heartbeat every half minute.
_HEARTBEAT_SECONDS = 300.0
_FREE_BYTES = 2**30
# Wherever the schedule should have run: here, by a service, in a cluster.
_CLASSIFY = "dagster asset materialize -m dlq_pipelines.definitions --select dead_event_causes"
_EXPORT = "dagster asset materialize -m dlq_pipelines.definitions --select dead_event_export --partition-range"
_NAME_DAGSTERS = "export DLQ_DAGSTER_URL=postgresql+psycopg2://dagster@host:5432/dagster"
_NEVER_RAN = "it has never run on this installation"


@dataclass(frozen=True)
class CheckResult:
    """What one look found.

    Attributes:
        check: what was looked at.
        ok: whether it is as it should be; None: it could not be looked at.
        found: in a sentence.
        mend: the command that mends it; nothing where nothing is wrong.
    """

    check: str
    ok: bool | None
    found: str
    mend: str = ""


def check_installation(settings: Settings, *, dagster_url: str | None = None) -> list[CheckResult]:
    """All checks, in the order in which they need each other.

    Args:
        settings: of the installation.
        dagster_url: Dagster's database as `dagster.yaml` reads it, for SQLAlchemy; None: the one of `dlq up`.
    """
    try:
        database = find_database(settings)
        connection = database.open()
    except DlqError as error:
        mend = (
            "dlq up"
            if settings.database_url is None
            else "export DLQ_DATABASE_URL=postgresql://owner@host/database"
        )
        blocked = [
            CheckResult(name, None, "not looked at: there is no connection")
            for name in _ON_THE_DATABASE
        ]
        return [
            CheckResult("connection", False, str(error), mend),
            *blocked,
            *_of_the_machine(settings, dagster_url),
        ]
    with closing(connection):
        version = connection.info.server_version
        found = (
            f"PostgreSQL {version // 10_000}.{version % 10_000}, database {connection.info.dbname}"
        )
        checks = [CheckResult("connection", True, found), *_of_the_database(connection, settings)]
    return [*checks, *_of_the_machine(settings, dagster_url)]


def _of_the_database(connection: Connection, settings: Settings) -> Iterator[CheckResult]:
    blocked = False
    for name, look in _ON_THE_DATABASE.items():
        if blocked:
            yield CheckResult(name, None, "not looked at: the schema is not this release's")
            continue
        try:
            check = look(connection, settings)
        except psycopg.Error as error:
            check = CheckResult(
                name,
                False,
                f"PostgreSQL refused: {error.diag.message_primary or error}",
                "dlq migrate --check",
            )
        yield check
        blocked = name == "schema" and not check.ok


def _of_the_machine(settings: Settings, dagster_url: str | None) -> Iterator[CheckResult]:
    yield _daemon(settings, dagster_url)
    yield _disk(settings.home)


def _schema(connection: Connection, _: Settings) -> CheckResult:
    try:
        require_current(connection)
    except DlqError as error:
        return CheckResult("schema", False, str(error), "dlq migrate")
    return CheckResult("schema", True, "every migration of this release is applied")


def _triggers(connection: Connection, _: Settings) -> CheckResult:
    rows = connection.run("doctor.triggers").fetchall()
    silent = [row for row in rows if not row["fires"]]
    if not silent:
        return CheckResult("trigger", True, f"{len(rows)} triggers record deaths")
    then = " && dlq migrate" if any(row["gone"] for row in silent) else ""
    found = f"deaths are not recorded: {', '.join(row['name'] for row in silent)}"
    return CheckResult("trigger", False, found, _psql(row["mend"] for row in silent) + then)


def _rights(connection: Connection, _: Settings) -> CheckResult:
    lacking = [row["lacking"] for row in connection.run("doctor.rights")]
    role = connection.info.user
    if not lacking:
        return CheckResult("rights", True, f"{role} may do all that is done")
    return CheckResult(
        "rights", False, f"{role} lacks rights on {len(lacking)} tables", _psql(lacking)
    )


def _psql(statements: Iterable[str]) -> str:
    return f"psql -c {shlex.quote('; '.join(dict.fromkeys(statements)))}"


def _clock(connection: Connection, _: Settings) -> CheckResult:
    before = datetime.now(UTC)
    server = connection.fetch_one("session.clock")["now"]
    after = datetime.now(UTC)
    # Where the server's lies between ours nothing is known to differ.
    apart = max((server - after).total_seconds(), (before - server).total_seconds(), 0.0)
    found = f"the server's clock and this machine's differ by {apart:.1f} s"
    return CheckResult(
        "clock",
        apart <= _CLOCK_SECONDS,
        found,
        "" if apart <= _CLOCK_SECONDS else "timedatectl set-ntp true",
    )


def _backlog(connection: Connection, settings: Settings) -> CheckResult:
    now = datetime.now(UTC)
    behind = connection.fetch_one("fix.backlog", now=now)["seconds"] or 0.0
    unclassified = connection.fetch_one("doctor.unclassified", now=now)
    if behind > settings.max_backlog_seconds:
        return CheckResult(
            "backlog",
            False,
            f"the worker is {behind:,.0f} s behind",
            "start the worker, or more of them",
        )
    if (unclassified["seconds"] or 0.0) > _UNCLASSIFIED_SECONDS:
        found = f"{unclassified['deaths']:,} deaths wait for their cause, the first for {unclassified['seconds']:,.0f} s"
        return CheckResult("backlog", False, found, _CLASSIFY)
    found = f"the worker is {max(behind, 0):,.0f} s behind; {unclassified['deaths']:,} deaths wait for their cause"
    return CheckResult("backlog", True, found)


def _exports(connection: Connection, settings: Settings) -> CheckResult:
    """What died before the first morning, or in an outage that was longer than the schedules make up for."""
    name = "exports"
    if not settings.archive_requires_export:
        return CheckResult(name, True, "the archive does not wait for them")
    today = datetime.now(settings.zone).date()
    start = date.fromisoformat(settings.partitions_start)
    reach = max(today - timedelta(days=CATCH_UP_DAYS), min(start, today))
    left = connection.fetch_one("doctor.unexported", before=compute_midnight(reach, settings.zone))
    if not left["events"]:
        return CheckResult(name, True, "no dead event is of a day that the schedules leave out")
    first, last = (left[end].astimezone(settings.zone).date() for end in ("first", "last"))
    found = (
        f"{left['events']:,} dead events of {first} to {last} stay for ever: the archive waits for an export of their "
        f"days, and no schedule makes one of a day before {reach}"
    )
    return CheckResult(name, False, found, _backfill(settings, first, last, start))


def _backfill(settings: Settings, first: date, last: date, start: date) -> str:
    """Export those days in one run, also where this installation's days begin later, or each has a run of its own."""
    given = [f"DLQ_PARTITIONS_START={first}"] if first < start else []
    given += ["DLQ_DAYS_PER_RUN=0"] if settings.days_per_run else []
    return " ".join([*given, _EXPORT, f"{first}...{last}"])


def _daemon(settings: Settings, dagster_url: str | None) -> CheckResult:
    """Dagster's heartbeats, from its database: its own where a deployment names one, or that of `dlq up`."""
    name, mend = "Dagster daemon", "systemctl restart dlq-daemon" if dagster_url else "dlq up"
    try:
        url = (
            dagster_url.replace("+psycopg2", "", 1)
            if dagster_url
            else get_dagster_database_url(settings)
        )
        with Database(url, connect_timeout=3).connect() as connection:
            rows = connection.run("doctor.daemons").fetchall()
    except DlqError:
        if dagster_url:
            return CheckResult(
                name,
                False,
                "the database that DLQ_DAGSTER_URL names does not answer",
                _NAME_DAGSTERS,
            )
        return CheckResult(name, False, _NEVER_RAN, mend)
    except psycopg.Error:
        return CheckResult(name, False, _NEVER_RAN, mend)
    late = [row["daemon"] for row in rows if row["seconds"] > _HEARTBEAT_SECONDS]
    if late or not rows:
        found = (
            f"without a heartbeat for {_HEARTBEAT_SECONDS:.0f} s: {', '.join(late) or 'all of it'}"
        )
        return CheckResult(name, False, found, mend)
    return CheckResult(name, True, f"alive {max(row['seconds'] for row in rows):.0f} s ago")


def _disk(home: Path) -> CheckResult:
    place = next(folder for folder in (home.resolve(), *home.resolve().parents) if folder.is_dir())
    usage = shutil.disk_usage(place)
    found = f"{usage.free / 2**30:,.1f} GB of {usage.total / 2**30:,.1f} GB are free under {home}"
    enough = usage.free >= _FREE_BYTES
    return CheckResult("disk", enough, found, "" if enough else f"du -sh {home}/*")


_ON_THE_DATABASE: dict[str, Callable[[Connection, Settings], CheckResult]] = {
    "schema": _schema,
    "trigger": _triggers,
    "rights": _rights,
    "clock": _clock,
    "backlog": _backlog,
    "exports": _exports,
}
