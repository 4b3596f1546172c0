"""Which days have an export and a report?"""

import dagster as dg

from dlq_pipelines.settings import read_settings

_settings = read_settings()

TIMEZONE = _settings.timezone
DAYS = dg.DailyPartitionsDefinition(start_date=_settings.partitions_start, timezone=TIMEZONE)
# All days of a backfill in one run, or so many a run: a run has one step for its days, so it is runs that spread over
# machines. A run by default, because starting one takes seconds and a day of an export often less.
BACKFILL = (
    dg.BackfillPolicy.multi_run(_settings.days_per_run) if _settings.days_per_run else dg.BackfillPolicy.single_run()
)
SCHEDULES_START = dg.DefaultScheduleStatus.RUNNING if _settings.autostart else dg.DefaultScheduleStatus.STOPPED
SENSORS_START = dg.DefaultSensorStatus.RUNNING if _settings.autostart else dg.DefaultSensorStatus.STOPPED
