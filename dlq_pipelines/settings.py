"""Which database, which tables, which limits does this process work with?

Every `DLQ_*` variable is here, read once at the edge (a face builds `Settings()` and passes parts of it on) and
frozen: nothing below the faces looks at the environment.
"""

import base64
import re
from datetime import date, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from dlq_pipelines.errors import DlqError
from dlq_pipelines.postgres.queries import TableNames


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

    model_config = SettingsConfigDict(
        env_prefix="DLQ_", env_ignore_empty=True, frozen=True, extra="ignore"
    )

    database_url: SecretStr | None = Field(
        default=None,
        description="PostgreSQL 14 to 18 that holds the outbox; unset: the embedded server under DLQ_HOME.",
    )
    home: Path = Field(
        default=Path(".dlq"),
        description="Folder for what this machine keeps: embedded server, exports, reports, Dagster home.",
    )
    timezone: str = Field(
        default="UTC", description="Time zone of days (partitions, reports) and of schedules."
    )
    outbox_schema: Identifier = Field(
        default="public", description="Schema of the application's outbox tables."
    )
    outbox_table: Identifier = Field(
        default="outbox_event", description="The application's outbox table."
    )
    archive_table: Identifier = Field(
        default="outbox_event_archive",
        description="Where dead events are archived; created when absent.",
    )
    schema_name: Identifier = Field(
        default="dlq",
        validation_alias="DLQ_SCHEMA",
        description="Schema of this project's own tables.",
    )
    dead_retention_days: int = Field(
        default=30,
        ge=0,
        le=36500,
        description="Days a dead event stays in the outbox table before the archive.",
    )
    archive_requires_export: bool = Field(
        default=True, description="Archive only events of days whose export holds every death."
    )
    archive_retention_days: int = Field(
        default=365,
        ge=0,
        le=36500,
        description="Days an archived dead event is kept before the purge; 0: for ever.",
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
    export_database_url: SecretStr | None = Field(
        default=None,
        description="A replica that exports read deaths from; unset: DLQ_DATABASE_URL. What it lags behind is found "
        "missing by the export's check, and is there in the next export of the day.",
    )
    export_formats: Annotated[tuple[ExportFormat, ...], NoDecode] = Field(
        default=tuple(ExportFormat),
        description="Files of a day, separated by commas: parquet, csv, jsonl.",
    )
    export_redact_payload: str = Field(
        default="",
        description="What exports hide of payloads, separated by `;`: drop, mask or hash, and a path. "
        "Such as: drop $.card.cvc; mask $..email; hash $.items[*]['customer id'].",
    )
    export_redact_errors: str = Field(
        default="",
        description="What exports and reports hide of errors and templates: a regular expression (RE2) a line, "
        "each match becomes [redacted].",
    )
    export_hash_key: SecretStr | None = Field(
        default=None,
        min_length=16,
        description="Key of the rule `hash` (HMAC-SHA256): the same key, the same hashes.",
    )
    report_uri: SecretStr | None = Field(
        default=None,
        description="Where reports are written to: a folder, s3://bucket/prefix or gs://bucket/prefix; "
        "unset: `reports` in DLQ_HOME. What DLQ_EXPORT_REDACT_ERRORS hides is hidden in them too.",
    )
    canary: int = Field(
        default=10, ge=1, le=5000, description="Events that the first stage of a fix releases."
    )
    growth: float = Field(
        default=10.0,
        ge=1,
        le=1000,
        description="How many times larger each stage of a fix is than the one before it.",
    )
    retry_rate: float = Field(
        default=50.0,
        gt=0,
        le=100_000,
        description="Events a second at which released events fall due.",
    )
    min_success: float = Field(
        default=0.9,
        gt=0,
        le=1,
        description="Share of a stage that must succeed for the fix to go on.",
    )
    settle_timeout_seconds: int = Field(
        default=900,
        ge=1,
        le=604_800,
        description="How long after its due time an event may stay without outcome.",
    )
    max_retries: int = Field(
        default=3,
        ge=1,
        le=100,
        description="An event that died again after so many retries is parked for a person.",
    )
    retry_order: Literal["aggregate", "none"] = Field(
        default="aggregate",
        description="aggregate: an event goes when nothing earlier of its aggregate is dead or under way; none: now.",
    )
    fix_expiry_days: int = Field(
        default=14, ge=1, le=365, description="Days after which a fix ends unproven."
    )
    max_backlog_seconds: int = Field(
        default=300,
        ge=1,
        le=604_800,
        description="How far the worker may be behind for a stage of a fix to begin.",
    )
    allow_edit: bool = Field(default=False, description="Allow a retry with another payload.")
    alert_urls: SecretStr | None = Field(
        default=None,
        description="Who is told of alerts: addresses that Apprise knows, or http(s):// for the signed webhook, "
        "divided by white space, each as [severity:][event_type=pattern:]scheme://... Unset: alerts are only listed.",
    )
    webhook_secret: SecretStr | None = Field(
        default=None,
        description="Signs webhooks (Standard Webhooks): whsec_ and 24 to 64 bytes in base64.",
    )
    death_webhook_url: SecretStr | None = Field(
        default=None,
        description="http(s):// that is told of each death once it is classified, in batches of CloudEvents.",
    )
    alert_cooldown_minutes: int = Field(
        default=240,
        ge=1,
        le=43_200,
        description="After how long an alert that lasts is told again; four hours: twice a working day.",
    )
    backlog_warn: int = Field(
        default=1_000,
        ge=0,
        le=99_999,
        description="More dead events than this are an alert and a warning: too many to read one by one.",
    )
    backlog_error: int = Field(
        default=100_000,
        ge=0,
        le=999_999,
        description="More dead events than this are a critical alert and an error.",
    )
    alert_min_deaths: int = Field(
        default=20,
        ge=1,
        le=10_000,
        description="Fewer deaths of an event type in an hour are never unusual: below that, chance decides.",
    )
    alert_oldest_hours: int = Field(
        default=168,
        ge=1,
        le=876_000,
        description="An event that is dead for longer is an alert; a week has working days.",
    )
    report_digest: bool = Field(
        default=False,
        description="Send the digest of each day's report to the channels of DLQ_ALERT_URLS.",
    )
    autostart: bool = Field(
        default=False, description="Start schedules and sensors RUNNING instead of stopped."
    )
    executor: Executor = Field(
        default=Executor.IN_PROCESS,
        description="Where the steps of a run are executed: in_process, multiprocess, celery (extra [celery]) or k8s "
        "(extra [k8s]).",
    )
    celery_url: SecretStr | None = Field(
        default=None,
        description="Redis that carries steps to Celery's workers and results back: redis://host:6379/0.",
    )
    days_per_run: int = Field(
        default=0,
        ge=0,
        le=366,
        description="Days of a backfill that share a run; 0: all of them. 1 spreads the days over workers.",
    )
    run_retention_days: int = Field(
        default=90,
        ge=0,
        le=36500,
        description="Days Dagster's records of a finished run are kept; 0: for ever.",
    )
    partitions_start: str = Field(
        default="2026-01-01",
        pattern=r"^\d{4}-\d{2}-\d{2}$",
        description="First day that exports and reports can be made for.",
    )

    api_tokens: SecretStr | None = Field(
        default=None,
        description="Who may use the HTTP API: name:scope:hash, separated by commas, as `dlq tokens new` prints them; "
        "unset: everybody on this machine, and nobody elsewhere.",
    )
    api_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Host names under which the HTTP API is reached, separated by commas, beside localhost, the "
        "loopback addresses and --host.",
    )
    api_cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Origins of pages elsewhere that may use the HTTP API, separated by commas, such as "
        "https://ops.example.com.",
    )
    api_timeout_seconds: float = Field(
        default=30.0,
        gt=0,
        le=3600,
        description="How long one statement of an HTTP request may take.",
    )
    api_changes_per_minute: int = Field(
        default=120,
        ge=1,
        le=1_000_000,
        description="How often a caller of the HTTP API may ask for a change.",
    )

    @field_validator("api_hosts", "api_cors_origins", mode="before")
    @classmethod
    def _are_words(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return tuple(word.strip().lower() for word in value.split(",") if word.strip())

    @field_validator("api_hosts")
    @classmethod
    def _are_hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if wrong := [word for word in value if not re.fullmatch(r"[a-z0-9._-]+|[0-9a-f:]+", word)]:
            raise ValueError(
                f"{wrong[0]!r} is no host name such as dlq.example.com, without scheme and port"
            )
        return value

    @field_validator("api_cors_origins")
    @classmethod
    def _are_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if wrong := [
            word for word in value if not re.fullmatch(r"https?://[a-z0-9._-]+(:\d+)?", word)
        ]:
            raise ValueError(
                f"{wrong[0]!r} is no origin such as https://ops.example.com, without a path"
            )
        return value

    @field_validator("timezone")
    @classmethod
    def _is_a_time_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (KeyError, ValueError, OSError) as error:
            raise ValueError(f"{value!r} is not an IANA time zone such as Europe/Berlin") from error
        # PostgreSQL reads CET and its like as a fixed offset, so its days would not be Python's.
        if "/" not in value and value != "UTC":
            raise ValueError(
                f"{value!r} is an abbreviation: write UTC, or a place such as Europe/Berlin"
            )
        return value

    @field_validator("celery_url")
    @classmethod
    def _is_redis(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not re.match(r"rediss?://[^/]", value.get_secret_value()):
            raise ValueError("redis://host:6379/0 is needed, or rediss:// with TLS")
        return value

    @field_validator("export_uri", "report_uri")
    @classmethod
    def _is_a_place(cls, value: SecretStr | None) -> SecretStr | None:
        """Whether the file system can be reached is asked when it is written to."""
        text = value.get_secret_value() if value else ""
        scheme, colon, _ = text.partition("://")
        if colon and scheme not in {"file", "s3", "gs"}:
            raise ValueError(
                "a folder, file:///folder, s3://bucket/prefix or gs://bucket/prefix is needed"
            )
        if colon and not re.match(r"file:///|(s3|gs)://([^/@]*@)?[^/?@]+(?=[/?]|\Z)", text):
            raise ValueError(
                f"{scheme}:// must be followed by {'/ and a folder' if scheme == 'file' else 'a bucket'}"
            )
        return value

    @field_validator("webhook_secret")
    @classmethod
    def _is_a_webhook_secret(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            prefix, _, coded = value.get_secret_value().partition("_")
            try:
                size = len(base64.b64decode(coded, validate=True))
            except ValueError:
                size = 0
            if prefix != "whsec" or not 24 <= size <= 64:  # noqa: PLR2004 - as Standard Webhooks ask for
                raise ValueError(
                    "write whsec_ and the base64 of 24 to 64 random bytes: openssl rand -base64 32"
                )
        return value

    @field_validator("death_webhook_url")
    @classmethod
    def _is_a_webhook(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not re.fullmatch(
            r"https?://[^/?#\s]+\S*", value.get_secret_value()
        ):
            raise ValueError("an address that begins with http:// or https:// is needed")
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
    def names(self) -> TableNames:
        """The tables that statements are bound to."""
        return TableNames(
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
