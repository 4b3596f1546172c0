"""Which days have an export and a report?"""

import dagster as dg

from dlq_pipelines.settings import read_settings

_settings = read_settings()

TIMEZONE = _settings.timezone
DAYS = dg.DailyPartitionsDefinition(start_date=_settings.partitions_start, timezone=TIMEZONE)
SCHEDULES_START = dg.DefaultScheduleStatus.RUNNING if _settings.autostart else dg.DefaultScheduleStatus.STOPPED
SENSORS_START = dg.DefaultSensorStatus.RUNNING if _settings.autostart else dg.DefaultSensorStatus.STOPPED
