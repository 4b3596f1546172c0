"""Opens the session of a step or a tick: a connection, the folders, the time zone."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from shlex import quote
from typing import TYPE_CHECKING, Any

import dagster as dg
import psycopg

from dlq_pipelines.alerts.jobs import record_job_success
from dlq_pipelines.day import Day
from dlq_pipelines.defs.tables import build_table_schema, build_table_uri
from dlq_pipelines.errors import DatabaseUnavailableError, DlqError
from dlq_pipelines.installation import (
    find_database,
    open_connection,
    open_exports_target,
    open_reports_target,
)
from dlq_pipelines.outbox.mapping import DEFAULT_PRESET
from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.postgres.tables import read_table_columns
from dlq_pipelines.postgres.transient import describe_transient_error
from dlq_pipelines.settings import PREFIX, Settings

if TYPE_CHECKING:  # pyarrow, which not every step needs
    from dlq_pipelines.exports.target import Target

# The name of the code location in both workspaces. Dagster's tag names the location of a run, also
# if the location has another name, as in Dagster's Helm chart.
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
    outbox: str | None = None,
) -> dict[str, str]:
    """Return the tag that Dagster gives to runs of this code location; empty for a named outbox.

    The names of jobs, keys and the tag of an outbox with a name are its own in the whole instance,
    and runs that a person launches from the command line have no tag of a location.

    Args:
        context: of a run or a sensor of the location. Where it names no location, as in a run from
            the command line, the location has its usual name.
        outbox: the name of the outbox, if it has one.
    """
    if outbox is not None:
        return {}
    if context is None:
        return {_LOCATION_TAG: LOCATION}
    if isinstance(context, dg.SensorEvaluationContext):
        origin = context.code_location_origin
        return {_LOCATION_TAG: LOCATION if origin is None else origin.location_name}
    return {_LOCATION_TAG: context.run.tags.get(_LOCATION_TAG, LOCATION)}


def is_run_in_progress(
    context: dg.SensorEvaluationContext,
    *,
    job: str,
    outbox: str | None,
    tags: dict[str, str] | None = None,
) -> bool:
    """Return whether a run of an outbox's job, with these tags, has not ended."""
    wanted = dg.RunsFilter(
        job_name=job,
        tags={**get_location_tag(context, outbox), **(tags or {})},
        statuses=_UNFINISHED,
    )
    return bool(context.instance.get_run_records(wanted, limit=1))


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
    def exports_target(self) -> "Target":
        """Where exports are written."""
        return open_exports_target(self.settings)

    @property
    def reports_target(self) -> "Target":
        """Where reports are written."""
        return open_reports_target(self.settings)

    def record_success(self, job: str) -> None:
        """Record that a job did its work: a failure of it before is no alert any more.

        A dry run records nothing.
        """
        record_job_success(self.connection, job, at=self.now)

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


@contextmanager
def open_session(read_settings: Callable[[], Settings], name: str | None) -> Iterator[Session]:
    """Open a session for the length of a step or a tick.

    Args:
        read_settings: returns the settings, or raises why they are wrong.
        name: of the outbox, with which a failure begins; None: it has no name.

    Raises:
        dagster.Failure: see `Outbox.session`.
    """
    prefix = f"{name}: " if name else ""
    settings = None
    try:
        settings = read_settings()
        connection = open_connection(settings)
        try:
            yield Session(connection, settings)
        finally:
            connection.close()
    except DatabaseUnavailableError as error:
        raise dg.Failure(description=f"{prefix}{_explain(error, settings)}") from None
    except (DlqError, ValueError, OSError) as error:
        text = str(error) if settings is None else _name_settings(str(error), settings)
        raise dg.Failure(description=f"{prefix}{text}") from None
    except (psycopg.OperationalError, psycopg.errors.InsufficientPrivilege) as error:
        reason = describe_transient_error(error) or _describe_refusal(error)
        raise dg.Failure(description=f"{prefix}{reason}") from None


def _explain(error: DatabaseUnavailableError, settings: Settings | None) -> str:
    """Return what is wrong and what to do. `dlq` connects to the outbox of `DLQ_*` only."""
    if settings is None or settings.is_named_by_default:
        return str(error)
    hint = "Check DLQ_DATABASE_URL and the server."
    return settings.name_settings(f"{error.message} {hint}")


def _name_settings(text: str, settings: Settings) -> str:
    """Return a text in the owner's names. A command of it needs the variables of this outbox."""
    named = settings.name_settings(text)
    if settings.is_named_by_default or "`dlq " not in text:
        return named
    given = {
        "SCHEMA": settings.schema_name,
        "OUTBOX_SCHEMA": settings.outbox_schema,
        "OUTBOX_TABLE": settings.outbox_table,
    }
    if settings.outbox_mapping != DEFAULT_PRESET:
        given["OUTBOX_MAPPING"] = settings.outbox_mapping
    variables = [f"{PREFIX}{name}={quote(value)}" for name, value in given.items() if value]
    return f"{named} `dlq` needs DLQ_DATABASE_URL for this database and {' '.join(variables)}."


def _describe_refusal(error: psycopg.Error) -> str:
    refusal = error.diag.message_primary or type(error).__name__
    return f"PostgreSQL refused: {refusal}. Check the role and the server, then run it again."
