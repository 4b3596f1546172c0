"""What does this project do, shown in a minute on failures that are real?

Fourteen days of a small shop are played, day after day: orders and their events in one transaction, workers that
deliver them, deliveries that fail. Then the Dagster jobs do their work on the instance that `dlq up` shows. Two fixes
are flagged. One is true: the shop mends that handler. One is false. The sensor, the runs and the workers play until
one is verified and the other halted.
"""

import contextlib
import os
import shutil
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from dlq_pipelines.audit import AuditContext, record_audit_entry
from dlq_pipelines.definitions import defs
from dlq_pipelines.defs.resources import OutboxResource
from dlq_pipelines.demo import shop
from dlq_pipelines.demo.handlers import Handlers, Repair
from dlq_pipelines.demo.servers import run_provider_servers
from dlq_pipelines.demo.worker import drain_outbox, run_workers
from dlq_pipelines.errors import DlqError
from dlq_pipelines.installation import (
    create_tables,
    find_database,
    get_exports_folder,
    get_reports_folder,
    open_connection,
    prepare_dagster,
)
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.retries.fix import Fix
from dlq_pipelines.retries.fixes import get_stage_outcomes, list_fixes
from dlq_pipelines.settings import Settings

_SEED = 7
_LOG = "demo.log"
_TAGS = {"dlq/demo": "true"}
# Older than a week is archived, so that the archive has something to do in fourteen days.
_ARCHIVE_AFTER_DAYS = 7
_PATIENCE_SECONDS = 120
_IDLE_SECONDS = 0.25
_ASSETS = (
    "dead_event_causes",
    "dead_event_export",
    "failure_report",
    "dead_event_archive",
    "outbox_event",
)

# (who says it, what they say, exception type and template of the cause, what is really deployed)
_TRUE_FIX = (
    "shipping-team",
    "labels read the app's new field postal_code",
    "KeyError",
    "%",
    Repair.PARCEL_FIELDS,
)
_FALSE_FIX = (
    "payments-team",
    "the provider says route v2 works again",
    "%HTTPError",
    "%503%",
    Repair.PAYMENT_ROUTE,
)


def play_demo(settings: Settings, *, reset: bool, events: int = 20_000) -> None:
    """Play it, or show what an earlier one left; one that was broken off goes on where it was.

    Args:
        settings: where to play.
        reset: forget an earlier demo first.
        events: how many to play, within rounding.

    Raises:
        RefusedError: the database is an application's; nothing of it is changed.
    """
    console = Console(highlight=False)
    _prepare(find_database(settings))
    with open_connection(settings) as connection:
        shop.create_shop(connection)  # refuses an application's outbox before Dagster gets anything
    # What is played stays here, wherever this installation exports to.
    os.environ.update(prepare_dagster(settings), DLQ_EXPORT_URI="", DLQ_REPORT_URI="")
    # Dagster's own log of the runs goes beside the figures, not between them.
    log = (settings.home / _LOG).open("a", encoding="utf-8")
    with (
        log,
        contextlib.redirect_stderr(log),
        open_connection(settings) as connection,
        dg.DagsterInstance.get() as instance,
    ):
        if reset:
            _forget(connection, instance, settings)
        if not connection.fetch_one("demo.state")["ended"]:
            _remove_unfinished(instance)
            _play(connection, instance, settings, events, console)
        else:
            again = (
                "The demo was played before; this is what it left. `dlq demo --reset` starts anew."
            )
            console.print(again, soft_wrap=True, markup=False)
        _tell(connection, settings, console)
        console.print("Next:      dlq up, then http://127.0.0.1:3000", soft_wrap=True, markup=False)


def _prepare(database: Database) -> None:
    """An empty database gets the tables. Where the application's outbox is, only its owner migrates."""
    with database.connect() as connection:
        found = connection.fetch_one("migration.host_exists")["found"]
    if not found:
        create_tables(database)


def _forget(connection: Connection, instance: dg.DagsterInstance, settings: Settings) -> None:
    """Undo a demo: its rows, files and runs. Does nothing where no demo began."""
    if not connection.fetch_one("demo.state")["begun"]:
        return
    with connection.transaction():
        shop.require_own_database(
            connection
        )  # once more: the application may have begun to write in the meantime
        shop.drop_shop(connection)
        connection.run("demo.forget")
    for folder in (get_exports_folder(settings), get_reports_folder(settings)):
        shutil.rmtree(folder, ignore_errors=True)
    for run in instance.get_runs(dg.RunsFilter(tags=_TAGS)):
        instance.delete_run(run.run_id)
    instance.wipe_assets([dg.AssetKey(name) for name in _ASSETS])


def _remove_unfinished(instance: dg.DagsterInstance) -> None:
    """Remove the run in which an earlier demo was killed: it still holds the writers' pool, and its fix."""
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
    with run_provider_servers() as called, _bars(console) as progress:
        handlers = Handlers(called)
        bar = _begin(progress, "Playing the shop's days: orders, events, workers", len(days))
        for day in days:
            shop.play_day(connection, day, zone=settings.zone, seed=_SEED, now=datetime.now(UTC))
            _deliver(connection, database, handlers)
            shop.backdate_deaths(connection, day.date, zone=settings.zone, now=datetime.now(UTC))
            progress.advance(bar)
        _run_days(instance, [day.date for day in days], progress)
        _try_fixes(connection, database, handlers, instance, progress)
        _finish(instance, progress)
    _mark(connection, "demo.end")


def _bars(console: Console) -> Progress:
    """Bars for whoever looks on. They leave stderr alone, or Dagster's log would run through them."""
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


def _begin(progress: Progress, description: str, total: int) -> TaskID:
    """Open a bar; where the output is piped, print a line."""
    if progress.disable:
        progress.console.print(f"{description} ...", markup=False)
    return progress.add_task(description, total=total)


def _deliver(connection: Connection, database: Database, handlers: Handlers) -> None:
    """Deliver all there is, and that includes what a killed demo had fetched: it falls due when its lease ends."""
    drain_outbox(database, handlers)
    while shop.count_waiting_events(connection):
        time.sleep(_IDLE_SECONDS)
        drain_outbox(database, handlers)


def _run_days(instance: dg.DagsterInstance, days: list[date], progress: Progress) -> None:
    bar = _begin(progress, "Classifying, exporting and reporting each day", 1 + 2 * len(days))
    _run(instance, "classify_deaths")
    progress.advance(bar)
    for day in days:
        for job in ("export_day", "build_report"):
            _run(instance, job, partition_key=day.isoformat())
            progress.advance(bar)


def _try_fixes(
    connection: Connection,
    database: Database,
    handlers: Handlers,
    instance: dg.DagsterInstance,
    progress: Progress,
) -> None:
    flagged = {fix.flagged_by for fix in list_fixes(connection)}
    for actor, note, exception, template, repair in (_TRUE_FIX, _FALSE_FIX):
        handlers.mend(repair)
        if actor not in flagged:
            cause = connection.fetch_one("demo.cause_of", exception=exception, template=template)[
                "id"
            ]
            config = {"cause_id": cause, "note": note, "actor": actor, "dry_run": False}
            _run(instance, "flag_fix", run_config={"ops": {"flag_fix_op": {"config": config}}})
    bar = _begin(progress, "Trying two flagged fixes: sensor, runs, workers", 2)
    sensor = defs.resolve_sensor_def("fix_flag_sensor")
    give_up = time.monotonic() + _PATIENCE_SECONDS
    with run_workers(database, handlers):
        while open_fixes := list_fixes(connection, only_open=True):
            progress.update(bar, completed=2 - len(open_fixes))
            if time.monotonic() > give_up:
                raise DlqError(
                    "The fixes did not end in two minutes. `dlq fixes list` shows how far they came."
                )
            _tick(sensor, instance)
            time.sleep(_IDLE_SECONDS)
    progress.update(bar, completed=2)


def _tick(sensor: dg.SensorDefinition, instance: dg.DagsterInstance) -> None:
    """What the daemon does every half minute: evaluate the sensor and launch the runs that it asks for."""
    with dg.build_sensor_context(
        instance=instance, resources={"outbox": OutboxResource()}, definitions=defs
    ) as context:
        requests = sensor.evaluate_tick(context).run_requests or []
    for request in requests:
        _run(instance, "retry_stage", run_config=request.run_config, tags=dict(request.tags))


def _finish(instance: dg.DagsterInstance, progress: Progress) -> None:
    bar = _begin(progress, "Classifying what died again, archiving old events", 2)
    _run(instance, "classify_deaths")
    progress.advance(bar)
    config = {"older_than_days": _ARCHIVE_AFTER_DAYS, "reason": "demo", "dry_run": False}
    _run(
        instance,
        "archive_dead_events",
        run_config={"ops": {"dead_event_archive": {"config": config}}},
    )
    progress.advance(bar)


def _run(
    instance: dg.DagsterInstance,
    job: str,
    *,
    partition_key: str | None = None,
    run_config: Any = None,
    tags: dict[str, str] | None = None,
) -> None:
    result = defs.resolve_job_def(job).execute_in_process(
        instance=instance,
        partition_key=partition_key,
        run_config=run_config,
        tags={**_TAGS, **(tags or {})},
        raise_on_error=False,
    )
    if not result.success:
        raise DlqError(
            f"The job {job} failed as run {result.run_id}. `dlq up` and {_LOG} in DLQ_HOME show why."
        )


def _mark(connection: Connection, kind: str) -> None:
    record_audit_entry(
        connection, kind, {}, audit=AuditContext("dlq demo", "demo", datetime.now(UTC))
    )


def _tell(connection: Connection, settings: Settings, console: Console) -> None:
    """The closing summary: every figure read from the tables."""
    found = connection.fetch_one("demo.summary")
    console.print(
        f"\n{found['deaths']:,} deaths of {found['events_that_died']:,} events, of {found['causes']} causes.\n"
        f"{found['exported']:,} of them exported, those of {found['exported_days']} past days.\n"
        f"{found['retried']:,} events retried: {found['retried_done']:,} delivered, "
        f"{found['retried_dead']:,} died again.\n"
        f"{found['archived']:,} archived, {found['still_dead']:,} still dead in the outbox, "
        f"{found['done']:,} done, {found['waiting']:,} waiting.\n"
    )
    for fix in reversed(list_fixes(connection)):
        console.print(_sentence(connection, fix), markup=False, soft_wrap=True)
    report = _last(get_reports_folder(settings), "*-*-*.json").replace(
        ".json", ".html"
    )  # a page beside it may be empty
    export = _last(get_exports_folder(settings), "dead_events/*/*.parquet")
    console.print(f"\nA report:  {report}\nAn export: {export}", soft_wrap=True, markup=False)


def _last(folder: Path, pattern: str) -> str:
    found = max(folder.resolve().glob(pattern), default=None)
    return str(found) if found else f"none is left in {folder.resolve()}; --reset makes them anew"


def _sentence(connection: Connection, fix: Fix) -> str:
    released = sum(stage.released for stage in get_stage_outcomes(connection, fix.id).values())
    return f"Fix {fix.id} by {fix.flagged_by} ({fix.note}): {fix.status.upper()} after {released} events; {fix.verdict}."
