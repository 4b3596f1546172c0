"""Provides the outbox to Dagster's definitions: a connection, the folders, the time zone."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import dagster as dg
import psycopg

from dlq_pipelines.day import Day
from dlq_pipelines.defs.tables import build_table_schema, build_table_uri
from dlq_pipelines.errors import DlqError
from dlq_pipelines.exports.target import Target
from dlq_pipelines.installation import (
    find_database,
    open_connection,
    open_exports_target,
    open_reports_target,
)
from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.postgres.tables import read_table_columns
from dlq_pipelines.postgres.transient import describe_transient_error
from dlq_pipelines.settings import Settings, read_settings

GROUP = "dead_letters"
OWNERS = ["team:data-platform"]
# Writers run one at a time. Each is safe against another by its own locks; the pool spares them
# the waiting.
POOL = "dlq_write"
# The name of the code location in both workspaces. Dagster's tag names the location of a run, also
# if the location has another name, as in Dagster's Helm chart. Two outboxes are two locations on
# one instance.
LOCATION = "dlq_pipelines"
_LOCATION_TAG = "dagster/code_location"
_UNFINISHED = [
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def get_utc_now() -> datetime:
    """Return the current time in UTC."""
    return datetime.now(UTC)


def get_location_tag(
    context: dg.OpExecutionContext | dg.SensorEvaluationContext | None = None,
) -> dict[str, str]:
    """Return the tag that Dagster gives to runs of this code location.

    Args:
        context: of a run or a sensor of the location. Where it names no location, as in a run from
            the command line, the location has its usual name.
    """
    if context is None:
        return {_LOCATION_TAG: LOCATION}
    if isinstance(context, dg.SensorEvaluationContext):
        origin = context.code_location_origin
        return {_LOCATION_TAG: LOCATION if origin is None else origin.location_name}
    return {_LOCATION_TAG: context.run.tags.get(_LOCATION_TAG, LOCATION)}


def is_run_in_progress(
    context: dg.SensorEvaluationContext, *, job: str, tags: dict[str, str] | None = None
) -> bool:
    """Return whether a run of this location's job, with these tags, has not ended."""
    wanted = dg.RunsFilter(
        job_name=job, tags={**get_location_tag(context), **(tags or {})}, statuses=_UNFINISHED
    )
    return bool(context.instance.get_run_records(wanted, limit=1))


def describe_skip(error: dg.Failure | DlqError | psycopg.Error) -> str:
    """Return why a sensor skips its tick, without the connection string."""
    return error.description or "" if isinstance(error, dg.Failure) else type(error).__name__


@dataclass(frozen=True)
class Session:
    """An open connection and the settings that opened it."""

    connection: Connection
    settings: Settings

    @property
    def now(self) -> datetime:
        """The current time: definitions read the clock and pass it to what they call."""
        return get_utc_now()

    @property
    def export_url(self) -> str:
        """The database that exports read on their own connection: the replica, if there is one."""
        replica = self.settings.export_database_url
        return find_database(self.settings).url if replica is None else replica.get_secret_value()

    @property
    def exports_target(self) -> Target:
        """Where exports are written."""
        return open_exports_target(self.settings)

    @property
    def reports_target(self) -> Target:
        """Where reports are written."""
        return open_reports_target(self.settings)

    def describe_table(self, schema: str, name: str) -> dict[str, Any]:
        """Return a table's metadata for Dagster: name, address and the columns that it has now."""
        info = self.connection.info
        host = "localhost" if info.host.startswith("/") else info.host
        server, database = f"{host}:{info.port}", info.dbname
        return {
            "dagster/table_name": f"{database}.{schema}.{name}",
            "dagster/uri": build_table_uri(server, database, schema, name),
            "dagster/column_schema": build_table_schema(
                read_table_columns(self.connection, schema, name)
            ),
        }

    def parse_day(self, partition_key: str) -> Day:
        """Return a partition's day in the time zone of the settings."""
        return Day.of(date.fromisoformat(partition_key), self.settings.zone)


class OutboxResource(dg.ConfigurableResource):  # type: ignore[type-arg]  # yields no value itself
    """The outbox's database, as the `DLQ_*` variables of the process name it.

    The resource has no fields on purpose: a field would show the connection string in the UI.
    """

    @contextmanager
    def session(self) -> Iterator[Session]:
        """Open a session for the length of a step.

        Raises:
            dagster.Failure: the database is unavailable, not migrated, or goes away; a file cannot
                be written; or a `DLQ_*` variable is wrong. The message names the next step, and
                Dagster's stack trace ends here.
        """
        try:
            settings = read_settings()
            connection = open_connection(settings)
            try:
                yield Session(connection, settings)
            finally:
                connection.close()
        except (DlqError, ValueError, OSError) as error:
            raise dg.Failure(description=str(error)) from None
        except (psycopg.OperationalError, psycopg.errors.InsufficientPrivilege) as error:
            raise dg.Failure(
                description=describe_transient_error(error) or _describe_refusal(error)
            ) from None


def _describe_refusal(error: psycopg.Error) -> str:
    refusal = error.diag.message_primary or type(error).__name__
    return f"PostgreSQL refused: {refusal}. Check the role and the server, then run it again."
