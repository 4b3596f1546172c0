"""What do Dagster's definitions need of this installation: a connection, folders, the time zone, defaults?"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
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
from dlq_pipelines.postgres.transient import describe_transient_error
from dlq_pipelines.settings import Settings, read_settings

GROUP = "dead_letters"
OWNERS = ["team:data-platform"]
# Writers run one at a time; each is safe against another by its own locks, this only spares them the waiting.
POOL = "dlq_write"


_UNFINISHED = [
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


# The name of the code location in both workspaces. Dagster says in a tag which one a run is of: those of ours are ours,
# whatever somebody calls the location, as Dagster's Helm chart does. Two outboxes are two of them on one instance.
LOCATION = "dlq_pipelines"
_TAG = "dagster/code_location"


def get_utc_now() -> datetime:
    """This moment."""
    return datetime.now(UTC)


def get_location_tag(
    context: dg.OpExecutionContext | dg.SensorEvaluationContext | None = None,
) -> dict[str, str]:
    """The tag of runs of this code location; a run from the command line has none.

    Args:
        context: of a run or a sensor of ours; where it does not say, the location has its usual name.
    """
    if context is None:
        return {_TAG: LOCATION}
    if isinstance(context, dg.SensorEvaluationContext):
        origin = context.code_location_origin
        return {_TAG: LOCATION if origin is None else origin.location_name}
    return {_TAG: context.run.tags.get(_TAG, LOCATION)}


def is_run_in_progress(
    context: dg.SensorEvaluationContext, *, job: str, tags: dict[str, str] | None = None
) -> bool:
    """Whether a run of a job of ours, with these tags, has not ended."""
    wanted = dg.RunsFilter(
        job_name=job, tags={**get_location_tag(context), **(tags or {})}, statuses=_UNFINISHED
    )
    return bool(context.instance.get_run_records(wanted, limit=1))


@dataclass(frozen=True)
class Session:
    """An open connection with the settings it was opened by."""

    connection: Connection
    settings: Settings

    @property
    def now(self) -> datetime:
        """This moment: faces read the clock, what is below them is given it."""
        return get_utc_now()

    @property
    def export_url(self) -> str:
        """Where exports stream deaths from, over a connection of their own: the replica, or the database once more."""
        replica = self.settings.export_database_url
        return find_database(self.settings).url if replica is None else replica.get_secret_value()

    @property
    def exports(self) -> Target:
        """Where exports go."""
        return open_exports_target(self.settings)

    @property
    def reports(self) -> Target:
        """Where reports go."""
        return open_reports_target(self.settings)

    def table(self, schema: str, name: str) -> dict[str, Any]:
        """What Dagster shows of a table: its place, its columns as they are now."""
        found = self.connection.fetch_one("session.table", schema=schema, table=name)
        info, place = self.connection.info, f"{found['database']}.{schema}.{name}"
        host = "localhost" if info.host.startswith("/") else info.host
        return {
            "dagster/table_name": place,
            "dagster/uri": build_table_uri(f"{host}:{info.port}", found["database"], schema, name),
            "dagster/column_schema": build_table_schema(found["columns"]),
        }

    def day(self, partition_key: str) -> Day:
        """A partition's day in the settings' time zone."""
        return Day.of(datetime.strptime(partition_key, "%Y-%m-%d").date(), self.settings.zone)  # noqa: DTZ007 - a date


class OutboxResource(dg.ConfigurableResource):  # type: ignore[type-arg]  # sets no value of its own
    """The outbox's database, by the `DLQ_*` variables of the process.

    It has no fields on purpose: a field would show the connection string in the UI.
    """

    @contextmanager
    def session(self) -> Iterator[Session]:
        """A session for the length of a step.

        Raises:
            dagster.Failure: the database is not to be had, not migrated or goes away, a file cannot be written, or a
                `DLQ_*` variable is wrong. The message says what to do; Dagster's stack trace ends here.
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
            refusal = error.diag.message_primary or type(error).__name__
            lasting = (
                f"PostgreSQL refused: {refusal}. Check the role and the server, then run it again."
            )
            raise dg.Failure(description=describe_transient_error(error) or lasting) from None
