"""Checks whether an installation can do its work, and names the command that remedies a problem.

A check changes nothing. A check that depends on a failed one is skipped.
"""

import os
import shlex
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from math import inf
from pathlib import Path

import psycopg

from dlq_pipelines.day import (
    CATCH_UP_DAYS,
    Day,
    compute_midnight,
    convert_to_zone,
    format_time,
)
from dlq_pipelines.errors import DlqError
from dlq_pipelines.installation import find_database, get_dagster_database_url
from dlq_pipelines.outbox.inspect import inspect_session
from dlq_pipelines.outbox.install import (
    check_seen_states,
    place_mapping,
    require_table,
    run_mapping_checks,
)
from dlq_pipelines.outbox.preflight import check_session, check_table
from dlq_pipelines.outbox.queue import STUCK_AFTER, list_stuck_events, measure_queue_lag
from dlq_pipelines.outbox.shape import list_added_columns
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.postgres.migrate import require_current
from dlq_pipelines.settings import Settings
from dlq_pipelines.text import format_count, format_duration, sanitize_line

# A larger difference gives retries and fixes wrong times.
_CLOCK_SECONDS = 2.0
# The classifying job runs every five minutes.
_UNCLASSIFIED_SECONDS = 3_600.0
# A daemon writes its heartbeat every half minute.
_HEARTBEAT_SECONDS = 300.0
_FREE_BYTES = 2**30
_EXPORT = (
    "dagster asset materialize -m dlq_pipelines.definitions "
    "--select dead_event_export --partition-range"
)
# The schedule reconciles daily. A missed tick, or a long one, is no fault.
_RECONCILED_WITHIN = timedelta(days=2)
_RECONCILE = "dagster job execute -m dlq_pipelines.definitions -j reconcile_events"
_SET_DAGSTER_URL = "export DLQ_DAGSTER_URL=postgresql+psycopg2://dagster@host:5432/dagster"
_SET_DATABASE_URL = "export DLQ_DATABASE_URL=postgresql://owner@host/database"
_NEVER_RAN = "it has never run on this installation"
# The role of sql/roles.sql that has all rights of an operator.
_OPERATOR = "dlq_operator"
_GRANT_ROLES = "dlq migrate --print roles | psql"
_SCHEMA_DIFFERS = "skipped: the schema is not that of this release"
_NO_RIGHTS = "skipped: this role lacks rights, see the check of rights"


@dataclass(frozen=True)
class CheckResult:
    """The result of one check.

    Attributes:
        check: its name.
        ok: whether it passed; None: it was skipped.
        found: what it found, in a sentence.
        remedy: the command that remedies the problem; empty without a problem.
    """

    check: str
    ok: bool | None
    found: str
    remedy: str = ""


def check_installation(
    settings: Settings, *, now: datetime, dagster_url: str | None = None
) -> list[CheckResult]:
    """Run all checks, in the order in which they depend on each other.

    Args:
        settings: of the installation.
        now: the time of the check.
        dagster_url: Dagster's database for SQLAlchemy, as `dagster.yaml` reads it; None: the
            database of `dlq up`.
    """
    try:
        connection = find_database(settings).open()
    except DlqError as error:
        remedy = "dlq up" if settings.database_url is None else _SET_DATABASE_URL
        skipped = [
            CheckResult(name, None, "skipped: there is no connection") for name in _DATABASE_CHECKS
        ]
        return [
            CheckResult("connection", False, error.message, remedy),
            *skipped,
            *_check_machine(settings, dagster_url),
        ]
    with closing(connection):
        version = connection.info.server_version
        found = (
            f"PostgreSQL {version // 10_000}.{version % 10_000}, database {connection.info.dbname}"
        )
        checks = [
            CheckResult("connection", True, found),
            *_check_database(connection, settings, now),
        ]
    return [*checks, *_check_machine(settings, dagster_url)]


def _check_database(
    connection: Connection, settings: Settings, now: datetime
) -> Iterator[CheckResult]:
    skipped = ""
    for name, check in _DATABASE_CHECKS.items():
        # The check of rights reads the catalog, which every role may read.
        if skipped and not (name == "rights" and skipped == _NO_RIGHTS):
            yield CheckResult(name, None, skipped)
            continue
        try:
            result = check(connection, settings, now)
        except psycopg.errors.InsufficientPrivilege:
            result = CheckResult(name, None, _NO_RIGHTS)
        except psycopg.Error as error:
            found = f"PostgreSQL refused: {error.diag.message_primary or error}"
            result = CheckResult(name, False, found, "dlq migrate --check")
        yield result
        if name == "schema" and not result.ok:
            skipped = _SCHEMA_DIFFERS if result.ok is False else _NO_RIGHTS


def _check_machine(settings: Settings, dagster_url: str | None) -> Iterator[CheckResult]:
    yield _check_daemon(settings, dagster_url)
    yield _check_disk(settings.home)


def _check_schema(connection: Connection, settings: Settings, *_: object) -> CheckResult:
    # On the embedded server, `dlq migrate` creates the table.
    if settings.database_url and not connection.fetch_one("migration.host_exists")["found"]:
        return _report_wrong_table(connection)
    try:
        require_current(connection)
    except DlqError as error:
        return CheckResult("schema", False, error.message, "dlq migrate")
    return CheckResult("schema", True, "every migration of this release is applied")


def _report_wrong_table(connection: Connection) -> CheckResult:
    """Report that the settings name no table, with the table that has the triggers if it is one."""
    names = connection.names
    found = (
        f"there is no table {names.outbox_schema}.{names.outbox_table}: DLQ_OUTBOX_SCHEMA or "
        "DLQ_OUTBOX_TABLE is wrong"
    )
    tables = connection.run("doctor.outbox_tables").fetchall()
    schema, table = "SCHEMA", "TABLE"
    if len(tables) == 1:
        schema, table = (shlex.quote(tables[0][part]) for part in ("schema", "name"))
    remedy = f"export DLQ_OUTBOX_SCHEMA={schema} DLQ_OUTBOX_TABLE={table}"
    return CheckResult("schema", False, found, remedy)


def _check_table(connection: Connection, settings: Settings, _: datetime) -> CheckResult:
    """Run the checks of `dlq migrate --plan`, but for those of the role and way that migrate."""
    table = require_table(connection)
    mapping = place_mapping(settings.mapping, table)
    checks = [
        *(check for check in check_session(inspect_session(connection)) if check.name != "pooler"),
        *check_table(table, mapping),
        *run_mapping_checks(connection, mapping, table),
    ]
    checks = [check for check in checks if check.name != "states"]
    refused = [check for check in checks if check.outcome == "refused"]
    if refused:
        found = " ".join(check.found for check in refused)
        return CheckResult("table", False, found, " ".join(check.remedy for check in refused))
    limits = [f"{check.name}: {check.found}" for check in checks if check.outcome == "warning"]
    passed = f"{format_count(len(checks) - len(limits), 'check')} passed"
    return CheckResult("table", True, " ".join([f"{passed}.", *limits]) if limits else passed)


def _check_states(connection: Connection, settings: Settings, _: datetime) -> CheckResult:
    table = require_table(connection)
    checks = check_seen_states(connection, place_mapping(settings.mapping, table), table)
    if not checks:
        return CheckResult("states", True, "no single column decides what is dead")
    return CheckResult("states", checks[0].outcome == "ok", checks[0].found, checks[0].remedy)


def _check_error_texts(connection: Connection, settings: Settings, _: datetime) -> CheckResult:
    """Without an error text, all deaths are one cause."""
    counted = connection.fetch_one("doctor.error_texts")
    deaths, without = counted["deaths"], counted["without_text"]
    found = f"{without:,} of {deaths:,} deaths have no error text"
    error = settings.mapping.error
    if not deaths or without < deaths or error is None:
        return CheckResult("error texts", True, found)
    names = settings.names
    columns = list_added_columns(settings.mapping)
    if columns:
        remedy = (
            f"let the worker update {names.outbox_schema}.{names.outbox_table} "  # noqa: S608
            "set last_error = <error text>, last_error_at = now() where id = <id>"
        )
    else:
        remedy = (
            f"let the worker store the error text that the mapping {settings.mapping.name} maps"
        )
    return CheckResult("error texts", False, found, remedy)


def _check_triggers(connection: Connection, *_: object) -> CheckResult:
    others = [row["name"] for row in connection.run("doctor.other_tables")]
    if others:
        found = f"the triggers are on {', '.join(others)}, which has another name than the outbox"
        return CheckResult(
            "trigger", False, found, "dlq migrate --remove --keep-ledger && dlq migrate"
        )
    rows = connection.run("doctor.triggers").fetchall()
    silent = [row for row in rows if not row["fires"]]
    if not silent:
        return CheckResult("trigger", True, f"{len(rows)} triggers record deaths")
    then = " && dlq migrate" if any(row["is_missing"] for row in silent) else ""
    found = f"deaths are not recorded: {', '.join(row['name'] for row in silent)}"
    remedy = _write_psql_command(row["remedy"] for row in silent) + then
    return CheckResult("trigger", False, found, remedy)


def _check_rights(connection: Connection, *_: object) -> CheckResult:
    lacking = connection.run("doctor.rights").fetchall()
    role = connection.info.user
    if not lacking:
        return CheckResult("rights", True, f"{role} has all rights that it needs")
    objects = format_count(len(lacking), "schema or table", "schemas and tables")
    found = f"{role} lacks rights on {objects}; the remedy needs the owner of the tables"
    operator = connection.fetch_one("doctor.operator", role=_OPERATOR)
    grant = _write_psql_command([operator["grant_statement"]])
    if not operator["is_found"]:
        return CheckResult("rights", False, found, f"{_GRANT_ROLES} && {grant}")
    # A member of the role lacks rights if the script has not run since the last migration.
    remedy = _GRANT_ROLES if operator["is_member"] else grant
    return CheckResult("rights", False, found, remedy)


def _write_psql_command(statements: Iterable[str]) -> str:
    return f"psql -c {shlex.quote('; '.join(dict.fromkeys(statements)))}"


def _check_clock(connection: Connection, *_: object) -> CheckResult:
    before = datetime.now(UTC)
    server = connection.fetch_one("session.clock")["now"]
    after = datetime.now(UTC)
    # A server's time between the two is no known difference.
    difference = max((server - after).total_seconds(), (before - server).total_seconds(), 0.0)
    found = f"the server's clock and this machine's differ by {difference:.1f} s"
    is_ok = difference <= _CLOCK_SECONDS
    return CheckResult("clock", is_ok, found, "" if is_ok else "timedatectl set-ntp true")


def _check_backlog(connection: Connection, settings: Settings, now: datetime) -> CheckResult:
    most = settings.max_backlog_seconds
    lag, _ = measure_queue_lag(connection, now=now, most=most)
    if lag > most:
        found = f"the worker is {lag:,.0f} s behind"
        return CheckResult("backlog", False, found, "start the worker, or more of them")
    unclassified = connection.fetch_one("doctor.unclassified", now=now)
    seconds, deaths = unclassified["seconds"] or 0.0, format_count(unclassified["deaths"], "death")
    if seconds > _UNCLASSIFIED_SECONDS:
        found = f"not classified yet: {deaths}, the oldest {seconds:,.0f} s ago"
        return CheckResult("backlog", False, found, "dlq causes classify")
    found = f"the worker is {max(lag, 0):,.0f} s behind; not classified yet: {deaths}"
    return CheckResult("backlog", True, found)


def _check_stuck_events(connection: Connection, settings: Settings, now: datetime) -> CheckResult:
    """Find events that no worker takes. They stop no fix, so nothing else would show them."""
    stuck = list_stuck_events(connection, now=now)
    if not stuck:
        found = f"no event is passed over for more than {format_duration(STUCK_AFTER)}"
        return CheckResult("stuck events", True, found)
    first, types = stuck[0], ", ".join(map(str, stuck))
    found = (
        f"no worker takes {types}, although later events were taken; the oldest, "
        f"{sanitize_line(str(first.event_id), 100)}, is due since "
        f"{format_time(convert_to_zone(first.due_at, settings.zone))}"
    )
    remedy = "start a worker that takes them, or mark them in the outbox as your application does"
    return CheckResult("stuck events", False, found, remedy)


def _check_reconciliation(connection: Connection, settings: Settings, now: datetime) -> CheckResult:
    """Say when missed deaths were last looked for: no other check finds one."""
    name = "reconciliation"
    last = connection.fetch_one("doctor.reconciled")
    checked_at, installed_at = last["checked_at"], last["installed_at"]
    if checked_at is None:
        found = "it has never run, so deaths that no trigger saw are not known"
    else:
        found = (
            f"the last one, of {format_time(convert_to_zone(checked_at, settings.zone))}, recorded "
            f"{format_count(last['missed'], 'missed death')}; {last['missing']:,} missing and "
            f"{last['duplicated']:,} duplicated events"
        )
    is_ok = now - (checked_at or installed_at) <= _RECONCILED_WITHIN
    return CheckResult(name, is_ok, found, "" if is_ok else _RECONCILE)


def _check_exports(connection: Connection, settings: Settings, now: datetime) -> CheckResult:
    """Find deaths that no schedule exports, and days whose files the schedule will replace."""
    name = "exports"
    if not settings.archive_requires_export:
        return CheckResult(name, True, "the archive does not wait for exports")
    today = now.astimezone(settings.zone).date()
    start = date.fromisoformat(settings.partitions_start)
    first_scheduled = max(today - timedelta(days=CATCH_UP_DAYS), min(start, today))
    before = compute_midnight(first_scheduled, settings.zone)
    unexported = connection.fetch_one("doctor.unexported", before=before)
    if not unexported["events"]:
        return _check_exported_days(connection, settings, today)
    first, last = (
        convert_to_zone(unexported[end], settings.zone).date() for end in ("first", "last")
    )
    found = (
        f"{format_count(unexported['events'], 'dead event')} of {first} to {last} cannot be "
        "archived: their days are not exported, and no schedule exports a day before "
        f"{first_scheduled}"
    )
    return CheckResult(name, False, found, _write_export_command(settings, first, last, start))


def _check_exported_days(connection: Connection, settings: Settings, today: date) -> CheckResult:
    """Find exported days with a death that was recorded since, or with other bounds now."""
    from dlq_pipelines.exports.missing import list_days_without_export

    recorded = {row["day"] for row in connection.run("export.recorded_days")}
    start = min(recorded, default=today)
    days = [
        Day.of(start + timedelta(days=number), settings.zone)
        for number in range((today - start).days)
    ]
    differing = [day for day in list_days_without_export(connection, days) if day in recorded]
    if not differing:
        return CheckResult("exports", True, "the schedules export every day with dead events")
    found = (
        f"{format_count(len(differing), 'exported day')} from {differing[0]} to {differing[-1]} "
        "must be exported again: a death was recorded since, or DLQ_TIMEZONE was changed. The "
        "schedule export_daily does it at 00:30"
    )
    first_partition = date.fromisoformat(settings.partitions_start)
    command = _write_export_command(settings, differing[0], differing[-1], first_partition)
    return CheckResult("exports", False, found, command)


def _write_export_command(settings: Settings, first: date, last: date, start: date) -> str:
    """Return the command that exports these days in one run.

    It overrides the settings by which the days start later, or would each have a run of their own.
    """
    variables = [f"DLQ_PARTITIONS_START={first}"] if first < start else []
    variables += ["DLQ_DAYS_PER_RUN=0"] if settings.days_per_run else []
    return " ".join([*variables, _EXPORT, f"{first}...{last}"])


def _check_daemon(settings: Settings, dagster_url: str | None) -> CheckResult:
    """Read the heartbeats from Dagster's database: of the deployment, of a host, or of `dlq up`."""
    name, remedy = "Dagster daemon", "systemctl restart dlq-daemon" if dagster_url else "dlq up"
    if dagster_url is None and settings.database_url is not None:
        # The embedded server is that of `dlq up`, wherever an own Dagster has its home.
        if folder := os.environ.get("DAGSTER_HOME"):
            return _check_daemon_of_host(folder)
        remedy = "dlq up, or export DAGSTER_HOME=/path if your own Dagster runs the jobs"
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
            found = "the database that DLQ_DAGSTER_URL names does not answer"
            return CheckResult(name, False, found, _SET_DAGSTER_URL)
        return CheckResult(name, False, _NEVER_RAN, remedy)
    except psycopg.Error:
        return CheckResult(name, False, _NEVER_RAN, remedy)
    late = [row["daemon"] for row in rows if row["seconds"] > _HEARTBEAT_SECONDS]
    if late or not rows:
        names = ", ".join(late) or "every daemon"
        found = f"without a heartbeat for {_HEARTBEAT_SECONDS:.0f} s: {names}"
        return CheckResult(name, False, found, remedy)
    return CheckResult(name, True, f"alive {max(row['seconds'] for row in rows):.0f} s ago")


def _check_daemon_of_host(folder: str) -> CheckResult:
    """Read the heartbeats from the instance of somebody's own Dagster, whatever its storage is."""
    name, remedy = "Dagster daemon", "dagster-daemon run"
    try:
        import dagster as dg

        with dg.DagsterInstance.from_config(folder) as instance:
            beats = instance.get_daemon_heartbeats()
            wanted = instance.get_required_daemon_types()
    except Exception as error:  # noqa: BLE001 - storages have errors of their own
        found = f"the instance in DAGSTER_HOME cannot be read: {type(error).__name__}"
        return CheckResult(name, False, found, "dagster instance info")
    now = datetime.now(UTC).timestamp()
    ages = {kind: now - beats[kind].timestamp for kind in wanted if kind in beats}
    late = sorted(kind for kind in wanted if ages.get(kind, inf) > _HEARTBEAT_SECONDS)
    if late:
        found = f"without a heartbeat for {_HEARTBEAT_SECONDS:.0f} s: {', '.join(late)}"
        return CheckResult(name, False, found, remedy)
    return CheckResult(name, True, f"alive {max(ages.values(), default=0):.0f} s ago")


def _check_disk(home: Path) -> CheckResult:
    place = next(folder for folder in (home.resolve(), *home.resolve().parents) if folder.is_dir())
    usage = shutil.disk_usage(place)
    found = f"{usage.free / 2**30:,.1f} GB of {usage.total / 2**30:,.1f} GB are free under {home}"
    is_ok = usage.free >= _FREE_BYTES
    return CheckResult("disk", is_ok, found, "" if is_ok else f"du -sh {home}/*")


_DATABASE_CHECKS: dict[str, Callable[[Connection, Settings, datetime], CheckResult]] = {
    "schema": _check_schema,
    "table": _check_table,
    "states": _check_states,
    "trigger": _check_triggers,
    "rights": _check_rights,
    "clock": _check_clock,
    "backlog": _check_backlog,
    "stuck events": _check_stuck_events,
    "exports": _check_exports,
    "reconciliation": _check_reconciliation,
    "error texts": _check_error_texts,
}
