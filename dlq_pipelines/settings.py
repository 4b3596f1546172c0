"""Which database, which tables, which limits does this process work with?

Every `DLQ_*` variable is here, read once at the edge (a face builds `Settings()` and passes parts of it on) and
frozen: nothing below the faces looks at the environment.
"""

import re
from datetime import date, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from dlq_pipelines.errors import DlqError
from dlq_pipelines.postgres.queries import Names


def _fits(name: str) -> str:
    """PostgreSQL cuts an identifier at 63 bytes without an error; a name that would be cut names another table."""
    if len(name.encode()) > 63:  # noqa: PLR2004 - said above
        raise ValueError("a name in PostgreSQL has at most 63 bytes")
    return name


Identifier = Annotated[str, AfterValidator(_fits)]


class ExportFormat(StrEnum):
    """Which files an export writes."""

    PARQUET = "parquet"
    CSV = "csv"
    JSONL = "jsonl"


class Executor(StrEnum):
    """Which of Dagster's executors runs the steps."""

    IN_PROCESS = "in_process"
    MULTIPROCESS = "multiprocess"
    CELERY = "celery"
    K8S = "k8s"


class Settings(BaseSettings):
    """The environment of this process, validated.

    Durations are in the unit that their name ends with. A variable that is set to nothing counts as unset.
    """

    model_config = SettingsConfigDict(env_prefix="DLQ_", env_ignore_empty=True, frozen=True, extra="ignore")

    database_url: SecretStr | None = Field(
        default=None,
        description="PostgreSQL 14 to 18 that holds the outbox; unset: the embedded server under DLQ_HOME.",
    )
    home: Path = Field(
        default=Path(".dlq"),
        description="Folder for what this machine keeps: embedded server, exports, reports, Dagster home.",
    )
    timezone: str = Field(default="UTC", description="Time zone of days (partitions, reports) and of schedules.")
    outbox_schema: Identifier = Field(default="public", description="Schema of the application's outbox tables.")
    outbox_table: Identifier = Field(default="outbox_event", description="The application's outbox table.")
    archive_table: Identifier = Field(
        default="outbox_event_archive", description="Where dead events are archived; created when absent."
    )
    schema_name: Identifier = Field(
        default="dlq", validation_alias="DLQ_SCHEMA", description="Schema of this project's own tables."
    )
    dead_retention_days: int = Field(
        default=30, ge=0, le=36500, description="Days a dead event stays in the outbox table before the archive."
    )
    archive_requires_export: bool = Field(
        default=True, description="Archive only events of days whose export holds every death."
    )
    archive_retention_days: int = Field(
        default=365, ge=0, le=36500, description="Days an archived dead event is kept before the purge; 0: for ever."
    )
    ledger_retention_days: int = Field(
        default=1095,
        ge=0,
        le=36500,
        description="Days the ledger keeps the deaths of events that are delivered or purged; 0: for ever.",
    )
    export_uri: SecretStr | None = Field(
        default=None,
        description="Where `dead_events` is exported to: a folder, s3://bucket/prefix or gs://bucket/prefix; "
        "unset: `exports` in DLQ_HOME. AWS_* variables or ?region=&scheme=&endpoint_override= say the rest of S3.",
    )
    export_formats: Annotated[tuple[ExportFormat, ...], NoDecode] = Field(
        default=tuple(ExportFormat), description="Files of a day, separated by commas: parquet, csv, jsonl."
    )
    export_redact_payload: str = Field(
        default="",
        description="What exports hide of payloads, separated by `;`: drop, mask or hash, and a path. "
        "Such as: drop $.card.cvc; mask $..email; hash $.items[*]['customer id'].",
    )
    export_redact_errors: str = Field(
        default="",
        description="What exports hide of errors and templates: a regular expression (RE2) a line, "
        "each match becomes [redacted].",
    )
    export_hash_key: SecretStr | None = Field(
        default=None, min_length=16, description="Key of the rule `hash` (HMAC-SHA256): the same key, the same hashes."
    )
    canary: int = Field(default=10, ge=1, le=5000, description="Events that the first stage of a fix releases.")
    growth: float = Field(
        default=10.0, ge=1, le=1000, description="How many times larger each stage of a fix is than the one before it."
    )
    retry_rate: float = Field(
        default=50.0, gt=0, le=100_000, description="Events a second at which released events fall due."
    )
    min_success: float = Field(
        default=0.9, gt=0, le=1, description="Share of a stage that must succeed for the fix to go on."
    )
    settle_timeout_seconds: int = Field(
        default=900, ge=1, le=604_800, description="How long after its due time an event may stay without outcome."
    )
    max_retries: int = Field(
        default=3, ge=1, le=100, description="An event that died again after so many retries is parked for a person."
    )
    retry_order: Literal["aggregate", "none"] = Field(
        default="aggregate",
        description="aggregate: an event goes when nothing earlier of its aggregate is dead or under way; none: now.",
    )
    fix_expiry_days: int = Field(default=14, ge=1, le=365, description="Days after which a fix ends unproven.")
    max_backlog_seconds: int = Field(
        default=300, ge=1, le=604_800, description="How far the worker may be behind for a stage of a fix to begin."
    )
    allow_edit: bool = Field(default=False, description="Allow a retry with another payload.")
    autostart: bool = Field(default=False, description="Start schedules and sensors RUNNING instead of stopped.")
    executor: Executor = Field(
        default=Executor.IN_PROCESS,
        description="Where the steps of a run are executed: in_process, multiprocess, celery (extra [celery]) or k8s "
        "(extra [k8s]).",
    )
    celery_url: SecretStr | None = Field(
        default=None, description="Redis that carries steps to Celery's workers and results back: redis://host:6379/0."
    )
    days_per_run: int = Field(
        default=0,
        ge=0,
        le=366,
        description="Days of a backfill that share a run; 0: all of them. 1 spreads the days over workers.",
    )
    run_retention_days: int = Field(
        default=90, ge=0, le=36500, description="Days Dagster's records of a finished run are kept; 0: for ever."
    )
    partitions_start: str = Field(
        default="2026-01-01",
        pattern=r"^\d{4}-\d{2}-\d{2}$",
        description="First day that exports and reports can be made for.",
    )

    @field_validator("timezone")
    @classmethod
    def _is_a_time_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (KeyError, ValueError, OSError) as error:
            raise ValueError(f"{value!r} is not an IANA time zone such as Europe/Berlin") from error
        # PostgreSQL reads CET and its like as a fixed offset, so its days would not be Python's.
        if "/" not in value and value != "UTC":
            raise ValueError(f"{value!r} is an abbreviation: write UTC, or a place such as Europe/Berlin")
        return value

    @field_validator("celery_url")
    @classmethod
    def _is_redis(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not re.match(r"rediss?://[^/]", value.get_secret_value()):
            raise ValueError("redis://host:6379/0 is needed, or rediss:// with TLS")
        return value

    @field_validator("export_uri")
    @classmethod
    def _is_a_place(cls, value: SecretStr | None) -> SecretStr | None:
        """Whether the file system can be reached is asked when it is written to."""
        text = value.get_secret_value() if value else ""
        scheme, colon, _ = text.partition("://")
        if colon and scheme not in {"file", "s3", "gs"}:
            raise ValueError("a folder, file:///folder, s3://bucket/prefix or gs://bucket/prefix is needed")
        if colon and not re.match(r"file:///|(s3|gs)://([^/@]*@)?[^/?@]+(?=[/?]|\Z)", text):
            raise ValueError(f"{scheme}:// must be followed by {'/ and a folder' if scheme == 'file' else 'a bucket'}")
        return value

    @field_validator("export_formats", mode="before")
    @classmethod
    def _are_formats(cls, value: object) -> object:
        """In one order, whatever the order in which they are said: the manifest has the same bytes."""
        if not isinstance(value, str):
            return value
        asked = {name.strip().lower() for name in value.split(",")}
        if unknown := asked - set(ExportFormat):
            raise ValueError(f"{min(unknown)!r} is none of {', '.join(ExportFormat)}")
        return tuple(format for format in ExportFormat if format in asked)

    @field_validator("partitions_start")
    @classmethod
    def _is_a_day(cls, value: str) -> str:
        date.fromisoformat(value)
        return value

    @property
    def names(self) -> Names:
        """The tables that statements are bound to."""
        return Names(
            outbox_schema=self.outbox_schema,
            outbox_table=self.outbox_table,
            archive_table=self.archive_table,
            dlq_schema=self.schema_name,
        )

    @property
    def zone(self) -> ZoneInfo:
        """The time zone of a day."""
        return ZoneInfo(self.timezone)

    @property
    def settle_timeout(self) -> timedelta:
        """`settle_timeout_seconds` as a duration."""
        return timedelta(seconds=self.settle_timeout_seconds)


def read_settings() -> Settings:
    """Read the environment once.

    Raises:
        DlqError: a variable has a value that cannot be used; the message names the variable, never its value
            where it may be a secret.
    """
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = str(first["loc"][0]).upper()
        variable = name if name.startswith("DLQ_") else f"DLQ_{name}"
        raise DlqError(
            f"{variable}: {first['msg'].removeprefix('Value error, ')}. Change or unset it and run the command again."
        ) from None
