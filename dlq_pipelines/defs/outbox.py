"""Describes one outbox to the builders of Dagster's definitions: its settings, names and times."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import dagster as dg

from dlq_pipelines.defs.session import Session, open_session
from dlq_pipelines.errors import DlqError
from dlq_pipelines.installation import get_exports_uri, get_reports_uri
from dlq_pipelines.links import OUTBOX_TAG
from dlq_pipelines.settings import Settings, SettingsError

ReadSettings = Callable[[], Settings]
_F = TypeVar("_F", bound=Callable[..., Any])

# Dagster starts queued runs of a higher priority first: an alert or a fix waits for no backfill.
URGENT = {"dagster/priority": "10"}
# The jobs. A failed run of one of them is an alert.
JOBS = (
    "classify_deaths",
    "check_outbox",
    "export_day",
    "build_report",
    "archive_dead_events",
    "reconcile_events",
    "purge_archive",
    "clean_up_runs",
    "flag_fix",
    "retry_stage",
    "retry_dead_events",
    "recall_events",
    "probe_causes",
    "sample_delivered_events",
    "send_alerts",
)
SENSORS = ("new_death_sensor", "fix_flag_sensor", "probe_sensor", "dead_event_alert_sensor")
# The assets, and the jobs of those with daily partitions, whose days succeed and fail on their own.
ASSETS = (
    "outbox_event",
    "dead_event_causes",
    "dead_event_export",
    "failure_report",
    "dead_event_archive",
    "archive_purge",
)
DAILY_JOBS = {"dead_event_export": "export_day", "failure_report": "build_report"}
# The times of the schedules, by the clock in DLQ_TIMEZONE.
CRONS = {
    "export_daily": "30 0 * * *",
    "sample_daily": "0 2 * * *",
    "archive_daily": "0 3 * * *",
    "purge_weekly": "0 4 * * 0",
    "clean_up_runs_daily": "0 5 * * *",
    "report_daily": "0 6 * * *",
    "check_hourly": "15 * * * *",
}


@dataclass(frozen=True)
class Outbox:
    """One outbox in Dagster: what its definitions share.

    Attributes:
        settings: as they were when the definitions were loaded, for names and times.
        read_settings: the settings of a session. An error fails the session, not the location.
        name: prefix of jobs, schedules and sensors; None: no prefix.
        key_prefix: prefix of asset keys.
        group: of the assets.
        owners: of all definitions, such as `team:data-platform`.
        crons: of the schedules; a schedule without cron is left out.
    """

    settings: Settings
    read_settings: ReadSettings
    name: str | None
    key_prefix: tuple[str, ...]
    group: str
    owners: list[str]
    crons: Mapping[str, str]

    @property
    def label(self) -> str:
        """The name of the outbox in tags and pools; `outbox` if it has no name."""
        return self.name or "outbox"

    @property
    def tags(self) -> dict[str, str]:
        """The tag of every run of this outbox's jobs."""
        return {OUTBOX_TAG: self.label}

    @property
    def asset_keys(self) -> frozenset[dg.AssetKey]:
        """The keys of all assets of this outbox."""
        return frozenset(self.build_key(asset) for asset in ASSETS)

    @property
    def pool(self) -> str:
        """The pool of the jobs that write.

        Writers are safe against each other by their own locks; the pool spares them the waiting. A
        pool without a limit limits nothing: `dagster instance concurrency set dlq_outbox 1`.
        """
        return f"dlq_{self.label}"

    @property
    def days(self) -> dg.DailyPartitionsDefinition:
        """The partitions of exports and reports."""
        return dg.DailyPartitionsDefinition(
            start_date=self.settings.partitions_start, timezone=self.settings.timezone
        )

    @property
    def backfill_policy(self) -> dg.BackfillPolicy:
        """All days of a backfill in one run, or `DLQ_DAYS_PER_RUN` of them.

        A run has one step for its days, so only runs spread over machines. One run by default:
        starting a run takes seconds, exporting a day often less.
        """
        days = self.settings.days_per_run
        return dg.BackfillPolicy.multi_run(days) if days else dg.BackfillPolicy.single_run()

    @property
    def schedule_status(self) -> dg.DefaultScheduleStatus:
        """Whether schedules start as running."""
        status = dg.DefaultScheduleStatus
        return status.RUNNING if self.settings.autostart else status.STOPPED

    @property
    def sensor_status(self) -> dg.DefaultSensorStatus:
        """Whether sensors start as running."""
        status = dg.DefaultSensorStatus
        return status.RUNNING if self.settings.autostart else status.STOPPED

    def build_key(self, asset: str) -> dg.AssetKey:
        """Return the key of an asset."""
        return dg.AssetKey([*self.key_prefix, asset])

    def select(self, asset: str) -> dg.AssetSelection:
        """Select an asset with its checks."""
        return dg.AssetSelection.assets(self.build_key(asset))

    def select_days(self, asset: str, check: str, schedule: str) -> dg.AssetSelection:
        """Select an asset without the check of its last day, which other days do not concern."""
        selected = self.select(asset)
        return selected - self.select_check(asset, check) if schedule in self.crons else selected

    def select_check(self, asset: str, check: str) -> dg.AssetSelection:
        """Select a check of an asset."""
        return dg.AssetSelection.checks(dg.AssetCheckKey(self.build_key(asset), check))

    def build_name(self, name: str) -> str:
        """Return the name of a job, an op, a schedule or a sensor."""
        return f"{self.name}_{name}" if self.name else name

    def fill_in_names(self, text: str) -> str:
        """Fill in what differs from outbox to outbox.

        `{archive_daily}` is the name of that schedule here, and so for jobs and sensors;
        `{archive_daily_at}` is "At 03:00", and `{archive_daily_by}` names the schedule too;
        `{schema}` is the schema of the tables, `{timezone}` the time zone of the schedules. A
        setting is named by its variable, such as `DLQ_REPORT_URI`, and shown by its name here.
        """
        words = {name: self.build_name(name) for name in (*JOBS, *CRONS, *SENSORS)}
        words["schema"] = self.settings.schema_name
        words["timezone"] = self.settings.timezone
        for name in CRONS:
            at = describe_cron(self.crons.get(name))
            words[f"{name}_at"] = at
            words[f"{name}_by"] = f"{at}, by `{words[name]}`" if name in self.crons else at
        return self.settings.name_settings(text.format(**words))

    def fill_in(self, function: _F) -> _F:
        """Fill in names and hours in the docstring of a function, which Dagster shows."""
        function.__doc__ = self.fill_in_names(function.__doc__ or "")
        return function

    def build_run_config(self, op: str, config: dg.Config) -> dg.RunConfig:
        """Return the config of a run with one op."""
        return dg.RunConfig(ops={self.build_name(op): config})

    def build_asset_config(self, asset: str, config: dg.Config) -> dg.RunConfig:
        """Return the config of a run that materializes an asset."""
        return dg.RunConfig(ops={self.build_key(asset).to_python_identifier(): config})

    def build_freshness(
        self, schedule: str, deadline: str, hours: int
    ) -> dg.FreshnessPolicy | None:
        """Return the policy of an asset that a schedule materializes; None without the schedule.

        Args:
            schedule: materializes the asset.
            deadline: cron by which it is fresh, at the usual hours of the schedule.
            hours: longest time between two materializations, at other hours.
        """
        if schedule not in self.crons:
            return None
        if self.crons[schedule] != CRONS[schedule]:
            return dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=hours))
        return dg.FreshnessPolicy.cron(
            deadline_cron=deadline,
            lower_bound_delta=timedelta(hours=2),
            timezone=self.settings.timezone,
        )

    @contextmanager
    def session(self) -> Iterator[Session]:
        """Open a session for the length of a step or a tick.

        Raises:
            dagster.Failure: the database is unavailable, not migrated, or goes away; a file cannot
                be written; or a setting is wrong. The message names the outbox, if it has a name,
                and the next step; Dagster's stack trace ends here.
        """
        with open_session(self.read_settings, self.name) as session:
            yield session


def describe_cron(cron: str | None) -> str:
    """Return when a schedule runs, as the beginning of a sentence; None: there is no schedule."""
    if cron is None:
        return "When a person launches it"
    match cron.split():
        case [minute, "*", "*", "*", "*"] if minute.isdigit():
            return f"Every hour at :{int(minute):02}"
        case [minute, hour, "*", "*", day] if minute.isdigit() and hour.isdigit():
            at = f"{int(hour):02}:{int(minute):02}"
            if day in {"*", "0"}:
                return f"At {at}" if day == "*" else f"On Sundays at {at}"
    return f"By the cron {cron}"


def load_settings(read_settings: ReadSettings) -> Settings:
    """Return the settings for names and times, with the default of each that is wrong.

    The runs and ticks of the outbox fail with the reason. The code location loads, because other
    definitions may be in it.
    """
    try:
        settings = read_settings()
    except SettingsError as error:
        settings = error.valid
    except Exception:  # noqa: BLE001 - a host's function may raise anything
        settings = Settings.model_construct()
    try:
        _ = settings.names, get_exports_uri(settings), get_reports_uri(settings)
    except (DlqError, ValueError, OSError):  # no such mapping, or no such path
        known = {"outbox_mapping", "home", "export_uri", "report_uri"}
        defaults = Settings.model_construct()
        return settings.model_copy(update={name: getattr(defaults, name) for name in known})
    return settings


def build_outbox(
    settings: Settings | ReadSettings,
    *,
    name: str | None,
    key_prefix: Sequence[str] | None,
    group: str | None,
    owners: Sequence[str],
    schedules: Mapping[str, str | None],
) -> Outbox:
    """Build the description of an outbox; `dead_letter_definitions` has the arguments.

    Raises:
        ValueError: there is no schedule of a given name.
    """
    if unknown := sorted(set(schedules) - set(CRONS)):
        raise ValueError(
            f"{unknown[0]!r} is no schedule; the schedules are {', '.join(sorted(CRONS))}."
        )
    read: ReadSettings = (lambda: settings) if isinstance(settings, Settings) else settings
    loaded = load_settings(read).rename(name)
    crons: dict[str, Any] = CRONS | dict(schedules)
    return Outbox(
        settings=loaded,
        read_settings=lambda: read().rename(name),
        name=loaded.name,
        key_prefix=tuple(filter(None, [loaded.name]) if key_prefix is None else key_prefix),
        group=group or "_".join(filter(None, [loaded.name, "dead_letters"])),
        owners=list(owners),
        crons={schedule: cron for schedule, cron in crons.items() if cron},
    )
