"""Plays the demo: fourteen days of a small shop, every job, and three fixes.

The shop writes orders and their events in one transaction, workers deliver the events, and some
deliveries fail. A fix after the first week is verified, and its cause regresses on the last day,
after a release that also begins a new cause. In the evening two more fixes are flagged: for one the
shop corrects its handler, for the other it does not. The sensor, the Dagster runs and the workers
go on until one is verified and the other halted. With `DLQ_PROBES=true` the outage of the other
companies then ends, and probes find it out and flag a fix of each cause. All jobs run on the
instance that `dlq up` shows, and the report of the last day has everything.
"""

import contextlib
import os
import shutil
import time as clock
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from dlq_pipelines.audit import AuditContext, record_audit_entry
from dlq_pipelines.causes.update import update_causes
from dlq_pipelines.definitions import defs
from dlq_pipelines.demo import shop
from dlq_pipelines.demo.handlers import Handlers, Repair
from dlq_pipelines.demo.servers import run_provider_servers
from dlq_pipelines.demo.worker import drain_outbox, run_workers
from dlq_pipelines.deployments import note_deployment
from dlq_pipelines.errors import DlqError, RefusedError
from dlq_pipelines.installation import (
    build_fix_terms,
    create_tables,
    find_database,
    get_exports_folder,
    get_reports_folder,
    open_connection,
    prepare_dagster,
)
from dlq_pipelines.outbox.selection import Selection
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.retries.advance import advance_fix
from dlq_pipelines.retries.fix import Fix
from dlq_pipelines.retries.fixes import (
    FixFlag,
    flag_fix,
    get_fix,
    get_stage_outcomes,
    list_fixes,
)
from dlq_pipelines.settings import Settings

_SEED = 7
_LOG = "demo.log"
_TAGS = {"dlq/demo": "true"}
# The day after which a fix of the first week's cause is played, and the hour of each day at which
# fixes are flagged. The last day's events are written before that.
_LEDGER_DAY = 8
_EVENING = time(22)
_LAST_HOUR = time(21)
_RELEASE = ("webshop", "v43")
_BEFORE_FIRST_DEATH = timedelta(minutes=6)
# Events older than a week are archived, so that fourteen days leave something to archive.
_ARCHIVE_AFTER_DAYS = 7
# The fixes end in half a minute; a slow or busy machine takes several times that.
_MAX_FIX_SECONDS = 600
_IDLE_SECONDS = 0.25
_STATEMENT_TIMEOUT_MS = 60_000
_ASSETS = (
    "dead_event_causes",
    "dead_event_export",
    "failure_report",
    "dead_event_archive",
    "outbox_event",
)

# Actor and note of the fix, exception type and template of the cause, its detail, and the change
# that is deployed.
_LEDGER_FIX = (
    "invoicing-team",
    "all invoices go to the new ledger",
    "%URLError",
    "%refused%",
    None,
    Repair.OWN_LEDGER,
)
_TRUE_FIX = (
    "shipping-team",
    "labels read the app's new field postal_code",
    "KeyError",
    "%",
    "postcode",
    Repair.PARCEL_FIELDS,
)
_FALSE_FIX = (
    "payments-team",
    "the provider has restored route v2",
    "%HTTPError",
    "%503%",
    None,
    Repair.PAYMENT_ROUTE,
)


def play_demo(settings: Settings, *, reset: bool, events: int = 20_000) -> None:
    """Play the demo, or show the result of an earlier one; an interrupted demo is continued.

    Args:
        settings: the installation to play in.
        reset: delete an earlier demo first.
        events: number of events to play, within rounding.

    Raises:
        RefusedError: the database is an application's, or holds a demo whose files are elsewhere.
            Nothing is changed.
    """
    console = Console(highlight=False)
    _migrate_empty_database(find_database(settings))
    with open_connection(settings) as connection:
        # Refuses an application's outbox before Dagster creates anything.
        shop.create_shop(connection)
        if not reset:
            _require_files(connection, settings)
    # The demo's files stay in this home, wherever this installation exports to.
    os.environ.update(prepare_dagster(settings), DLQ_EXPORT_URI="", DLQ_REPORT_URI="")
    # Dagster's log goes to a file, so that it does not interrupt the figures.
    log = (settings.home / _LOG).open("a", encoding="utf-8")
    with (
        log,
        contextlib.redirect_stderr(log),
        open_connection(settings) as connection,
        dg.DagsterInstance.get() as instance,
    ):
        # Dagster connects for each statement, 130 times in a run, unless it serves pages.
        instance.optimize_for_webserver(
            statement_timeout=_STATEMENT_TIMEOUT_MS, pool_recycle=3_600, max_overflow=20
        )
        if reset:
            _empty(connection, instance, settings)
        if not connection.fetch_one("demo.state")["ended"]:
            _remove_unfinished(instance)
            _play(connection, instance, settings, events, console)
        else:
            _print(console, "The demo was played before. These are its results.")
            _print(console, "`dlq demo --reset` plays it again.")
        _print_summary(connection, settings, console)
        _print(console, "Next:      dlq up, then http://127.0.0.1:3000")


def _migrate_empty_database(database: Database) -> None:
    """Create the tables in an empty database. An application's outbox is migrated by its owner.

    Raises:
        RefusedError: the database has tables, and none of them is the demo's outbox.
    """
    with database.connect() as connection:
        if connection.fetch_one("migration.host_exists")["found"]:
            return
        other = connection.fetch_one("demo.other_table")["name"]
    if other:
        raise RefusedError(
            f"The demo needs its own database. This one has the table {other}.",
            "Set DLQ_DATABASE_URL to an empty database, or unset it for the embedded one.",
        )
    create_tables(database)


def _require_files(connection: Connection, settings: Settings) -> None:
    """Refuse a demo whose files are in another home: its figures would describe other files.

    Raises:
        RefusedError: the demo in the database has ended, and this home has no report or export.
    """
    if connection.fetch_one("demo.state")["ended"] and not all(_find_files(settings)):
        raise RefusedError(
            "This database holds a demo that was played earlier, and its reports and exports are "
            f"not in {settings.home.resolve()}.",
            "`dlq demo --reset` deletes that demo and plays it again.",
        )


def _empty(connection: Connection, instance: dg.DagsterInstance, settings: Settings) -> None:
    """Delete a demo: its rows, files and runs. Does nothing if no demo began here."""
    if not connection.fetch_one("demo.state")["begun"]:
        return
    with connection.transaction():
        # Checked again: the application may have written its first event in the meantime.
        shop.require_own_database(connection)
        shop.drop_shop(connection)
        connection.run("demo.empty_tables")
    for folder in (get_exports_folder(settings), get_reports_folder(settings)):
        shutil.rmtree(folder, ignore_errors=True)
    for run in instance.get_runs(dg.RunsFilter(tags=_TAGS)):
        instance.delete_run(run.run_id)
    instance.wipe_assets([dg.AssetKey(name) for name in _ASSETS])


def _remove_unfinished(instance: dg.DagsterInstance) -> None:
    """Delete the run in which an earlier demo was killed: it holds the pool and its fix."""
    for run in instance.get_runs(dg.RunsFilter(tags=_TAGS)):
        if not run.is_finished:
            instance.delete_run(run.run_id)


def _play(
    connection: Connection,
    instance: dg.DagsterInstance,
    settings: Settings,
    events: int,
    console: Console,
) -> None:
    shop.create_shop(connection)
    _mark(connection, "demo.begin")
    database = find_database(settings)
    today = datetime.now(settings.zone).date()
    days = shop.plan_fourteen_days(today - timedelta(days=1), events=events)
    with run_provider_servers() as called, _build_progress(console) as progress:
        handlers = Handlers(called)
        bar = _add_bar(progress, "Playing the shop's days: orders, events, workers", len(days))
        for day in days:
            if day is days[-1]:
                handlers.roll_back_ledger()
            _play_day(connection, database, handlers, day, settings)
            if day.number == _LEDGER_DAY:
                _replace_ledger(connection, database, handlers, day.date, settings)
            progress.advance(bar)
        _note_release(connection, instance)
        _try_fixes(connection, database, handlers, instance, progress)
        if settings.probes:
            called.recovered.set()
            _probe_causes(connection, database, handlers, instance, progress)
        _date_fixes(connection, days[-1].date, settings)
        _run_days(instance, [day.date for day in days], progress)
        _finish(instance, progress)
    _mark(connection, "demo.end")


def _play_day(
    connection: Connection,
    database: Database,
    handlers: Handlers,
    day: shop.ShopDay,
    settings: Settings,
) -> None:
    """Write the events of a day, deliver them, and date their deaths on that day."""
    zone, now = settings.zone, datetime.now(UTC)
    evening = datetime.combine(day.date, _LAST_HOUR, zone).astimezone(UTC)
    until = min(now, evening) if day.number == shop.DAYS else now
    shop.play_day(connection, day, zone=zone, seed=_SEED, now=until)
    _deliver_all(connection, database, handlers)
    shop.backdate_deaths(connection, day.date, zone=zone, now=datetime.now(UTC))


def _replace_ledger(
    connection: Connection,
    database: Database,
    handlers: Handlers,
    day: date,
    settings: Settings,
) -> None:
    """Flag and verify the fix of the first week's cause, without Dagster: its runs are of today."""
    actor, note, exception, template, _, repair = _LEDGER_FIX
    handlers.deploy(repair)
    found = list_fixes(connection)
    if any(fix.flagged_by != actor for fix in found):
        return  # a demo that was killed later is continued
    update_causes(connection, now=datetime.now(UTC), zone=settings.zone)
    audit = AuditContext(actor, note, datetime.now(UTC))
    cause = connection.fetch_one("demo.cause_of", exception=exception, template=template)["id"]
    fix = found[0] if found else flag_fix(connection, FixFlag(Selection(cause=cause)), audit=audit)
    terms, give_up = build_fix_terms(settings), clock.monotonic() + _MAX_FIX_SECONDS
    with run_workers(database, handlers):
        while get_fix(connection, fix.id).closed_at is None:
            _require_time_left(give_up)
            now = datetime.now(UTC)
            advance_fix(connection, fix.id, audit=replace(audit, now=now), terms=terms)
            clock.sleep(_IDLE_SECONDS)
    _date_fixes(connection, day, settings)


def _date_fixes(connection: Connection, day: date, settings: Settings) -> None:
    """Move the fixes that were played now to the evening of a day."""
    at = datetime.combine(day, _EVENING, settings.zone).astimezone(UTC)
    connection.run("demo.date_fixes", at=at)


def _note_release(connection: Connection, instance: dg.DagsterInstance) -> None:
    """Classify the deaths, and note the release that the new cause of the last day followed."""
    _run_job(instance, "classify_deaths")
    first = connection.fetch_one(
        "demo.first_death", exception="%UnknownTaxCodeError", template="%"
    )["at"]
    if first is None:  # a demo of few events may have none
        return
    note_deployment(
        connection,
        *_RELEASE,
        deployed_at=first - _BEFORE_FIRST_DEATH,
        audit=AuditContext("deploy-bot", "deployed", datetime.now(UTC)),
    )
    connection.run("demo.date_deployments")


def _build_progress(console: Console) -> Progress:
    """Build the progress bars. They do not capture stderr, which Dagster's log is written to."""
    columns = (
        TextColumn("{task.description:<52}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
    )
    return Progress(
        *columns,
        TimeElapsedColumn(),
        console=console,
        redirect_stderr=False,
        disable=not console.is_terminal,
    )


def _add_bar(progress: Progress, description: str, total: int) -> TaskID:
    """Add a progress bar; if the output is piped, print a line instead."""
    if progress.disable:
        progress.console.print(f"{description} ...", markup=False)
    return progress.add_task(description, total=total)


def _deliver_all(connection: Connection, database: Database, handlers: Handlers) -> None:
    """Deliver all events. Those that a killed demo had fetched fall due when their lease ends."""
    drain_outbox(database, handlers)
    while shop.count_waiting_events(connection):
        clock.sleep(_IDLE_SECONDS)
        drain_outbox(database, handlers)


def _run_days(instance: dg.DagsterInstance, days: list[date], progress: Progress) -> None:
    """Classify, then export and report all days, each in one run as a backfill does.

    A run costs more than a second: with one for each day, the demo took a third longer.
    """
    bar = _add_bar(progress, "Classifying, exporting and reporting all days", 3)
    span = {
        "dagster/asset_partition_range_start": min(days).isoformat(),
        "dagster/asset_partition_range_end": max(days).isoformat(),
    }
    for job, tags in (("classify_deaths", {}), ("export_day", span), ("build_report", span)):
        _run_job(instance, job, tags=tags)
        progress.advance(bar)


def _try_fixes(
    connection: Connection,
    database: Database,
    handlers: Handlers,
    instance: dg.DagsterInstance,
    progress: Progress,
) -> None:
    flagged = {fix.flagged_by for fix in list_fixes(connection)}
    for actor, note, exception, template, detail, repair in (_TRUE_FIX, _FALSE_FIX):
        handlers.deploy(repair)
        if actor not in flagged:
            cause = connection.fetch_one("demo.cause_of", exception=exception, template=template)[
                "id"
            ]
            config = {"cause": cause, "note": note, "actor": actor, "dry_run": False}
            if detail is not None:
                config["detail"] = detail
            _run_job(instance, "flag_fix", run_config={"ops": {"flag_fix_op": {"config": config}}})
    bar = _add_bar(progress, "Trying two flagged fixes: sensor, runs, workers", 2)
    with run_workers(database, handlers):
        _advance_fixes(connection, instance, progress, bar)


def _advance_fixes(
    connection: Connection, instance: dg.DagsterInstance, progress: Progress, bar: TaskID
) -> None:
    """Evaluate the sensor of fixes until all of them have ended."""
    total = len(list_fixes(connection, only_open=True))
    give_up = clock.monotonic() + _MAX_FIX_SECONDS
    while open_fixes := list_fixes(connection, only_open=True):
        progress.update(bar, total=total, completed=total - len(open_fixes))
        _require_time_left(give_up)
        _evaluate_sensor("fix_flag_sensor", "retry_stage", instance)
        clock.sleep(_IDLE_SECONDS)
    progress.update(bar, total=total, completed=total)


def _require_time_left(give_up: float) -> None:
    if clock.monotonic() > give_up:
        raise DlqError(
            "The fixes did not end in ten minutes.", "`dlq fixes list` shows their progress."
        )


def _probe_causes(
    connection: Connection,
    database: Database,
    handlers: Handlers,
    instance: dg.DagsterInstance,
    progress: Progress,
) -> None:
    """Release a probe of each transient cause, and advance the fixes that they flag."""
    bar = _add_bar(progress, "Probing transient causes: sensor, runs, workers", 1)
    give_up = clock.monotonic() + _MAX_FIX_SECONDS
    with run_workers(database, handlers):
        while _evaluate_sensor("probe_sensor", "probe_causes", instance) or (
            connection.fetch_one("demo.has_probes")["found"] and clock.monotonic() < give_up
        ):
            clock.sleep(_IDLE_SECONDS)
        # A fix waits until what died again has its cause.
        _run_job(instance, "classify_deaths")
        _advance_fixes(connection, instance, progress, bar)
    _evaluate_sensor("probe_sensor", "probe_causes", instance)


def _evaluate_sensor(name: str, job: str, instance: dg.DagsterInstance) -> bool:
    """Evaluate the sensor and launch the runs that it requests, as Dagster's daemon does.

    Returns whether it requested a run.
    """
    sensor = defs.resolve_sensor_def(name)
    with dg.build_sensor_context(instance=instance, definitions=defs) as context:
        requests = sensor.evaluate_tick(context).run_requests or []
    for request in requests:
        _run_job(instance, job, run_config=request.run_config, tags=dict(request.tags))
    return bool(requests)


def _finish(instance: dg.DagsterInstance, progress: Progress) -> None:
    bar = _add_bar(progress, "Archiving old events, checking the outbox", 2)
    config = {"older_than_days": _ARCHIVE_AFTER_DAYS, "reason": "demo", "dry_run": False}
    _run_job(
        instance,
        "archive_dead_events",
        run_config={"ops": {"dead_event_archive": {"config": config}}},
    )
    progress.advance(bar)
    _run_job(instance, "check_outbox")
    progress.advance(bar)


def _run_job(
    instance: dg.DagsterInstance,
    job: str,
    *,
    run_config: Any = None,
    tags: dict[str, str] | None = None,
) -> None:
    result = defs.resolve_job_def(job).execute_in_process(
        instance=instance,
        run_config=run_config,
        tags={**_TAGS, **(tags or {})},
        raise_on_error=False,
    )
    if not result.success:
        raise DlqError(
            f"The job {job} failed in run {result.run_id}.",
            f"`dlq up` and the file {_LOG} in DLQ_HOME show the reason.",
        )


def _mark(connection: Connection, kind: str) -> None:
    record_audit_entry(
        connection, kind, {}, audit=AuditContext("dlq demo", "demo", datetime.now(UTC))
    )


def _print(console: Console, text: str) -> None:
    console.print(text, markup=False, soft_wrap=True)


def _print_summary(connection: Connection, settings: Settings, console: Console) -> None:
    """Print the closing figures, each read from the tables."""
    found = connection.fetch_one("demo.summary")
    _print(
        console,
        f"\n{found['deaths']:,} deaths of {found['events_that_died']:,} events, with "
        f"{found['causes']} causes.\n"
        f"{found['exported']:,} deaths exported, from {found['exported_days']} past days.\n"
        f"{found['retried']:,} events retried: {found['retried_done']:,} delivered, "
        f"{found['retried_dead']:,} died again.\n"
        f"{found['archived']:,} events archived, {found['still_dead']:,} dead in the outbox, "
        f"{found['done']:,} delivered, {found['waiting']:,} waiting.\n",
    )
    for fix in reversed(list_fixes(connection)):
        _print(console, _describe_fix(connection, fix))
    report, export = _find_files(settings)
    _print(console, f"\nA report:  {report}\nAn export: {export}")


def _find_files(settings: Settings) -> tuple[Path | None, Path | None]:
    """Return the page of the last day's report and the Parquet file of the last day's export."""
    # A build that was interrupted may leave an empty page; the JSON file is complete.
    report = max(get_reports_folder(settings).resolve().glob("*-*-*.json"), default=None)
    exports = get_exports_folder(settings).resolve()
    return (
        report and report.with_suffix(".html"),
        max(exports.glob("dead_events/*/*.parquet"), default=None),
    )


def _describe_fix(connection: Connection, fix: Fix) -> str:
    released = sum(stage.released for stage in get_stage_outcomes(connection, fix.id).values())
    return (
        f"Fix {fix.id} by {fix.flagged_by} ({fix.note}): {fix.status.upper()} after {released} "
        f"events; {fix.verdict}."
    )
