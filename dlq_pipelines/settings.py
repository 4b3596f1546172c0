"""Declares every `DLQ_*` variable, and reads and validates the environment once.

Settings are frozen, and describe one outbox. A face reads them and passes parts of them on: nothing
below the faces reads the environment.
"""

import base64
import re
from collections.abc import Mapping as MappingABC
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from difflib import get_close_matches
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from dlq_pipelines.errors import DlqError
from dlq_pipelines.outbox.mapping import Mapping, load_mapping
from dlq_pipelines.postgres.queries import TableNames
from dlq_pipelines.validate import describe_invalid_value

# PostgreSQL's NAMEDATALEN - 1.
_MAX_IDENTIFIER_BYTES = 63
# The prefix of the variables of a process with one outbox.
PREFIX = "DLQ_"
_VARIABLE = re.compile(rf"\b{PREFIX}([A-Z_]+)\b")
# Begins a target that is no folder, or a misspelled one such as `s3:/bucket`.
TARGET_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|(file|s3|gs|abfss?):")
MAX_NAME_LENGTH = 30
NAME_PATTERN = f"^[a-z][a-z0-9_]{{0,{MAX_NAME_LENGTH - 1}}}$"


def _validate_identifier(name: str) -> str:
    """Refuse what PostgreSQL would silently truncate: the rest of the name is another table."""
    if len(name.encode()) > _MAX_IDENTIFIER_BYTES:
        raise ValueError(
            f"{name!r} is longer than the {_MAX_IDENTIFIER_BYTES} bytes of an identifier"
        )
    return name


def _validate_name(name: str) -> str:
    if not re.fullmatch(NAME_PATTERN, name):
        raise ValueError(
            f"{name!r} is not a name of at most 30 lower-case letters, digits and underscores"
        )
    return name


Identifier = Annotated[str, AfterValidator(_validate_identifier)]
# Dagster's names of assets, jobs and pools allow no hyphens.
Name = Annotated[str, AfterValidator(_validate_name)]


def _is_address(text: str) -> bool:
    """Return whether a text is http(s)://, a host, and perhaps a port and a path.

    Channels that recognize addresses in plain text end them at other characters than these.
    """
    if not re.fullmatch(r"https?://[\w.-]+(:\d+)?(/[\w./~%+-]*)?", text, re.ASCII):
        return False
    try:
        return urlsplit(text).port != 0
    except ValueError:  # a port above 65,535
        return False


class ExportFormat(StrEnum):
    """A format of export files."""

    PARQUET = "parquet"
    CSV = "csv"
    JSONL = "jsonl"


class Executor(StrEnum):
    """A Dagster executor, which runs the steps of a run."""

    IN_PROCESS = "in_process"
    MULTIPROCESS = "multiprocess"
    CELERY = "celery"
    K8S = "k8s"


@dataclass(frozen=True)
class SettingNames:
    """How the owner of an outbox names its settings.

    Attributes:
        prefix: of the variables, such as `ORDERS_`; None: they are fields of a YAML file, such as
            `alert_urls`.
        fields: the fields with another name than their variables without prefix.
    """

    prefix: str | None = PREFIX
    fields: MappingABC[str, str] = field(default_factory=dict)

    def show(self, name: str) -> str:
        """Return the name of a setting, such as `alert_urls`, as its owner writes it."""
        shown = self.fields.get(name, name)
        return shown if self.prefix is None else f"{self.prefix}{shown.upper()}"


class Settings(BaseSettings):
    """The validated environment of this process.

    The unit of a duration is the end of its name. An empty variable counts as unset.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_prefix_target="all",  # also before the alias of DLQ_SCHEMA
        env_ignore_empty=True,
        frozen=True,
        extra="ignore",
    )

    name: Name | None = Field(
        default=None,
        description="Name of the outbox, if there are several: a prefix of Dagster's definitions, "
        "the label `outbox` of metrics, and a word of alerts; unset: no prefix, and the label is "
        "`outbox`.",
    )

    database_url: SecretStr | None = Field(
        default=None,
        description="PostgreSQL 14 to 18 with the outbox; unset: the embedded server in DLQ_HOME.",
    )
    home: Path = Field(
        default=Path(".dlq"),
        description="Folder of local data: embedded server, exports, reports, Dagster home; unset "
        "for an outbox with a name: .dlq/<name>.",
    )
    timezone: str = Field(
        default="UTC", description="Time zone of days (partitions, reports) and schedules."
    )
    outbox_mapping: str = Field(
        default="dispatchbox",
        description="Mapping of the application's outbox table: a preset or a TOML file.",
    )
    outbox_schema: Identifier | None = Field(
        default=None, description="Schema of the outbox table; unset: that of the mapping."
    )
    outbox_table: Identifier | None = Field(
        default=None, description="The outbox table; unset: that of the mapping."
    )
    schema_name: Identifier = Field(
        default="dlq",
        validation_alias="schema",  # a field of this name would hide pydantic's method
        description="Schema of this project's tables.",
    )
    dead_retention_days: int = Field(
        default=30,
        ge=0,
        le=36500,
        description="Days after which a dead event is archived.",
    )
    archive_requires_export: bool = Field(
        default=True, description="Archive only events of days whose export has every death."
    )
    archive_retention_days: int = Field(
        default=365,
        ge=0,
        le=36500,
        description="Days after which an archived event is purged; 0: never.",
    )
    ledger_retention_days: int = Field(
        default=1095,
        ge=0,
        le=36500,
        description="Days after which deaths of delivered or purged events leave the ledger; 0: "
        "never.",
    )
    export_uri: SecretStr | None = Field(
        default=None,
        description="Target of exports: a folder, s3://bucket/prefix, gs://bucket/prefix or "
        "abfs://container@account.dfs.core.windows.net/prefix; "
        "unset: `exports` in DLQ_HOME. Configure S3 with AWS_* variables or "
        "?region=&scheme=&endpoint_override=.",
    )
    export_database_url: SecretStr | None = Field(
        default=None,
        description="Replica from which exports read deaths; unset: DLQ_DATABASE_URL. The "
        "export's check finds deaths that the replica lacks; the next export of the day includes "
        "them.",
    )
    export_formats: Annotated[tuple[ExportFormat, ...], NoDecode] = Field(
        default=tuple(ExportFormat),
        description="Formats of export files, separated by commas: parquet, csv, jsonl.",
    )
    export_redact_payload: str = Field(
        default="",
        description="Rules that redact payloads in exports, separated by `;`: drop, mask or hash, "
        "and a path. Example: drop $.card.cvc; mask $..email; hash $.items[*]['customer id'].",
    )
    export_redact_errors: str = Field(
        default="",
        description="Regular expressions (RE2), one per line. Each match in errors, templates and "
        "details becomes [redacted] in exports, reports, alerts and Dagster, and in the samples of "
        "causes. Commands and routes for single events show them whole.",
    )
    sample_delivered: bool = Field(
        default=True,
        description="Keep a sample of payloads of event types whose delivered events are deleted, "
        "to compare dead events with: at most 200 a type, for 30 days, redacted as exports are.",
    )
    export_hash_key: SecretStr | None = Field(
        default=None,
        min_length=16,
        description="Key of the rule `hash` (HMAC-SHA256). The same key gives the same hashes.",
    )
    export_retention_days: int = Field(
        default=0,
        ge=0,
        le=36500,
        description="Days after which the files of an exported day are deleted; 0: never. The day "
        "still counts as exported.",
    )
    report_uri: SecretStr | None = Field(
        default=None,
        description="Target of reports, as DLQ_EXPORT_URI; "
        "unset: `reports` in DLQ_HOME. DLQ_EXPORT_REDACT_ERRORS applies.",
    )
    report_retention_days: int = Field(
        default=0,
        ge=0,
        le=36500,
        description="Days after which the files of a day's report are deleted; 0: never.",
    )
    canary: int = Field(
        default=10, ge=1, le=5000, description="Events in the first stage of a fix."
    )
    growth: float = Field(
        default=10.0,
        ge=1,
        le=1000,
        description="Growth factor of a fix from stage to stage.",
    )
    retry_rate: float = Field(
        default=50.0,
        ge=0.001,  # MIN_RATE of a policy
        le=100_000,
        description="Released events that fall due per second.",
    )
    min_success: float = Field(
        default=0.9,
        gt=0,
        le=1,
        description="Share of a stage that must succeed, or the fix halts.",
    )
    settle_timeout_seconds: int = Field(
        default=900,
        ge=1,
        le=604_800,
        description="Seconds to wait for an outcome after the due time.",
    )
    max_retries: int = Field(
        default=3,
        ge=1,
        le=100,
        description="Retries after which an event that dies again is parked.",
    )
    retry_order: Literal["aggregate", "none"] = Field(
        default="aggregate",
        description="aggregate: release an event once no earlier event of its aggregate is dead "
        "or in progress; none: ignore aggregates.",
    )
    fix_expiry_days: int = Field(
        default=14, ge=1, le=365, description="Days after which a fix ends unverified."
    )
    max_backlog_seconds: int = Field(
        default=300,
        ge=1,
        le=604_800,
        description="Maximum queue lag at which a fix releases events.",
    )
    lookahead_seconds: int = Field(
        default=600,
        ge=60,
        le=86_400,
        description="Seconds before its due time at which an event is released at the earliest: "
        "what a halt has to recall.",
    )
    probes: bool = Field(
        default=False,
        description="Release single events of transient causes as probes, and flag a fix once one "
        "is delivered. `dlq causes probe` overrides it for a cause.",
    )
    probes_per_day: int = Field(
        default=50,
        ge=1,
        le=10_000,
        description="Maximum of events that probes release in a day: an outage of a day takes 9 of "
        "a cause, so this allows five outages at once.",
    )
    allow_edit: bool = Field(default=False, description="Allow retries with an edited payload.")
    alert_urls: SecretStr | None = Field(
        default=None,
        description="Channels of alerts, separated by white space: Apprise addresses, or "
        "http(s):// for the signed webhook, each as "
        "[severity:][event_type=pattern:][owner=pattern:]scheme://... `owner=` matches the owner "
        "of the cause. Unset: alerts are only listed.",
    )
    webhook_secret: SecretStr | None = Field(
        default=None,
        description="Secret that signs webhooks (Standard Webhooks): whsec_ and 24 to 64 bytes in "
        "base64.",
    )
    death_webhook_url: SecretStr | None = Field(
        default=None,
        description="http(s):// address that receives each classified death, in batches of "
        "CloudEvents.",
    )
    alert_cooldown_minutes: int = Field(
        default=240,
        ge=1,
        le=43_200,
        description="Minutes until the reminder of an alert; four hours: twice a working day.",
    )
    backlog_warn: int = Field(
        default=1_000,
        ge=0,
        le=99_999,
        description="Dead events above which there is an alert and a warning: too many to read "
        "each.",
    )
    backlog_error: int = Field(
        default=100_000,
        ge=0,
        le=999_999,
        description="Dead events above which there is a critical alert and an error.",
    )
    alert_min_deaths: int = Field(
        default=20,
        ge=1,
        le=10_000,
        description="Minimum deaths of an event type per hour for a spike; fewer are chance.",
    )
    alert_oldest_hours: int = Field(
        default=168,
        ge=1,
        le=876_000,
        description="Hours after which a dead event is an alert; a week always has working days.",
    )
    report_digest: bool = Field(
        default=False,
        description="Send a digest of each report to the channels of DLQ_ALERT_URLS.",
    )
    public_url: str | None = Field(
        default=None,
        description="Address at which people reach `dlq serve`, such as https://dlq.example.com: "
        "alerts, digests, webhooks, reports and runs in Dagster link to it; unset: no links.",
    )
    report_url: str | None = Field(
        default=None,
        description="Address under which a web server shows the files of DLQ_REPORT_URI, such as "
        "https://reports.example.com/orders: links to reports point there; unset: DLQ_PUBLIC_URL.",
    )
    dagster_ui_url: str | None = Field(
        default=None,
        description="Address of Dagster's UI, such as https://dagster.example.com: alerts of "
        "failed jobs link to the run, reports to all runs; unset: no links.",
    )
    autostart: bool = Field(
        default=False, description="Start schedules and sensors as running instead of stopped."
    )
    executor: Executor = Field(
        default=Executor.IN_PROCESS,
        description="Executor of the steps of a run: in_process, multiprocess, celery (extra "
        "[celery]) or k8s (extra [k8s]).",
    )
    celery_url: SecretStr | None = Field(
        default=None,
        description="Redis broker and result backend of Celery: redis://host:6379/0.",
    )
    days_per_run: int = Field(
        default=0,
        ge=0,
        le=366,
        description="Days per run of a backfill; 0: all days in one run. 1 spreads them over "
        "workers.",
    )
    run_retention_days: int = Field(
        default=90,
        ge=0,
        le=36500,
        description="Days after which Dagster's records of a finished run are deleted; 0: never.",
    )
    partitions_start: str = Field(
        default="2026-01-01",
        description="First day of the partitions of exports and reports.",
    )

    api_tokens: SecretStr | None = Field(
        default=None,
        description="Tokens of the HTTP API, separated by commas: name:scope:hash, as `dlq tokens "
        "new` prints them; unset: every user of this machine has access, and no other machine.",
    )
    api_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Host names of the HTTP API, separated by commas, in addition to localhost, "
        "the loopback addresses and --host.",
    )
    api_cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Origins of other pages that may use the HTTP API (CORS), separated by "
        "commas, such as https://ops.example.com.",
    )
    api_timeout_seconds: float = Field(
        default=30.0,
        gt=0,
        le=3600,
        description="Timeout of a statement of an HTTP request.",
    )
    api_changes_per_minute: int = Field(
        default=120,
        ge=1,
        le=1_000_000,
        description="Rate limit of changes per client of the HTTP API.",
    )

    _setting_names: SettingNames = PrivateAttr(default=SettingNames())

    @model_validator(mode="before")
    @classmethod
    def _keep_folders_apart(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Give a named outbox a home of its own, so that two of a process share no files."""
        name = values.get("name")
        return values if not name or values.get("home") else {**values, "home": f".dlq/{name}"}

    @field_validator("api_hosts", "api_cors_origins", mode="before")
    @classmethod
    def _split_words(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return tuple(word.strip().lower() for word in value.split(",") if word.strip())

    @field_validator("api_hosts")
    @classmethod
    def _validate_hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if wrong := [word for word in value if not re.fullmatch(r"[a-z0-9._-]+|[0-9a-f:]+", word)]:
            raise ValueError(
                f"{wrong[0]!r} is not a host name; write it without scheme and port, "
                "such as dlq.example.com"
            )
        return value

    @field_validator("api_cors_origins")
    @classmethod
    def _validate_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if wrong := [
            word for word in value if not re.fullmatch(r"https?://[a-z0-9._-]+(:\d+)?", word)
        ]:
            raise ValueError(
                f"{wrong[0]!r} is not an origin; write it without a path: https://ops.example.com"
            )
        return value

    @field_validator("timezone")
    @classmethod
    def _validate_time_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (KeyError, ValueError, OSError) as error:
            raise ValueError(f"{value!r} is not an IANA time zone such as Europe/Berlin") from error
        # PostgreSQL reads CET as a fixed offset, so its days would differ from Python's.
        if "/" not in value and value != "UTC":
            raise ValueError(
                f"{value!r} is an abbreviation: write UTC, or a place such as Europe/Berlin"
            )
        return value

    @field_validator("celery_url")
    @classmethod
    def _validate_redis_url(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not re.match(r"rediss?://[^/]", value.get_secret_value()):
            raise ValueError("write redis://host:6379/0, or rediss:// for TLS")
        return value

    @field_validator("export_uri", "report_uri")
    @classmethod
    def _validate_target(cls, value: SecretStr | None) -> SecretStr | None:
        """Check the form only. The first write finds out whether the target is reachable."""
        text = value.get_secret_value() if value else ""
        scheme, _, rest = text.partition(":")
        is_uri = TARGET_SCHEME.match(text) is not None
        known = scheme in {"file", "s3", "gs", "abfs", "abfss"}
        if is_uri and not (known and rest.startswith("//")):
            raise ValueError(
                "write a folder, file:///folder, s3://bucket/prefix, gs://bucket/prefix or "
                "abfs://container@account.dfs.core.windows.net/prefix"
            )
        if is_uri and not re.match(r"file:///|(s3|gs|abfss?)://([^/@]*@)?[^/?@]+(?=[/?]|\Z)", text):
            raise ValueError(
                f"{scheme}:// needs {'/ and a folder' if scheme == 'file' else 'a bucket'} after it"
            )
        return value

    @field_validator("webhook_secret")
    @classmethod
    def _validate_webhook_secret(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            prefix, _, coded = value.get_secret_value().partition("_")
            try:
                size = len(base64.b64decode(coded, validate=True))
            except ValueError:
                size = 0
            if prefix != "whsec" or not 24 <= size <= 64:  # noqa: PLR2004 - Standard Webhooks
                raise ValueError(
                    "write whsec_ and 24 to 64 random bytes in base64: openssl rand -base64 32"
                )
        return value

    @field_validator("death_webhook_url")
    @classmethod
    def _validate_webhook_url(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not re.fullmatch(
            r"https?://[^/?#\s]+\S*", value.get_secret_value()
        ):
            raise ValueError("write an address that begins with http:// or https://")
        return value

    @field_validator("public_url", "report_url", "dagster_ui_url")
    @classmethod
    def _validate_address(cls, value: str | None) -> str | None:
        """Return the address without a slash at its end."""
        if value is not None and not _is_address(value):
            raise ValueError(
                "write an address without account and query, such as https://dlq.example.com"
            )
        return value and value.rstrip("/")

    @field_validator("export_formats", mode="before")
    @classmethod
    def _split_formats(cls, value: object) -> object:
        """Return the formats in a fixed order, so that the manifest has the same bytes."""
        if not isinstance(value, str):
            return value
        names = {name.strip().lower() for name in value.split(",")}
        if unknown := names - set(ExportFormat):
            raise ValueError(f"{min(unknown)!r} is not one of {', '.join(ExportFormat)}")
        return tuple(format for format in ExportFormat if format in names)

    @field_validator("partitions_start")
    @classmethod
    def _validate_day(cls, value: str) -> str:
        try:
            if date.fromisoformat(value).isoformat() == value:
                return value
        except ValueError:
            pass
        raise ValueError(f"{value!r} is not a day such as 2026-01-01")

    def rename(self, name: str | None) -> "Settings":
        """Return the settings of the same outbox under another name.

        Raises:
            ValueError: the name has other characters than lower-case letters, digits and
                underscores, or more than 30.
        """
        if name is None or name == self.name:
            return self
        own_home = {} if "home" in self.model_fields_set else {"home": Path(f".dlq/{name}")}
        return self.model_copy(update={"name": _validate_name(name), **own_home})

    def with_setting_names(self, setting_names: SettingNames) -> "Settings":
        """Return these settings, whose owner has these names for them."""
        renamed = self.model_copy()
        renamed._setting_names = setting_names  # noqa: SLF001 - of this class
        return renamed

    @property
    def is_named_by_default(self) -> bool:
        """Whether the settings are variables that begin with `DLQ_`."""
        return self._setting_names.prefix == PREFIX

    def name_settings(self, text: str) -> str:
        """Return a text for the owner of this outbox: a setting has the name that they can change.

        Texts name a setting by its variable, such as `DLQ_ALERT_URLS`. For an outbox of
        `read_settings("ORDERS_")` that becomes `ORDERS_ALERT_URLS`, and for a component
        `alert_urls`.
        """
        if self.is_named_by_default:
            return text
        return _VARIABLE.sub(self._name_setting, text)

    def _name_setting(self, found: re.Match[str]) -> str:
        name = found[1].lower()
        return self._setting_names.show(name) if name in list_setting_names() else found[0]

    @property
    def label(self) -> str:
        """The name of the outbox in metrics, tags and pools; `outbox` if it has no name."""
        return self.name or "outbox"

    @property
    def mapping(self) -> Mapping:
        """The mapping of the outbox table.

        Raises:
            MappingError: there is no such preset or file, or it is not a mapping.
        """
        found = load_mapping(self.outbox_mapping)
        return replace(
            found,
            schema=self.outbox_schema or found.schema,
            table=self.outbox_table or found.table,
        )

    @property
    def names(self) -> TableNames:
        """The names of the tables in statements."""
        return TableNames(
            outbox_schema=self.mapping.schema,
            outbox_table=self.mapping.table,
            dlq_schema=self.schema_name,
        )

    @property
    def zone(self) -> ZoneInfo:
        """The time zone of days and schedules."""
        return ZoneInfo(self.timezone)


class SettingsError(DlqError):
    """A setting is invalid or missing.

    Attributes:
        valid: the settings with the default of each invalid one, for what must be known anyway.
    """

    code = "settings"

    def __init__(self, message: str, hint: str, valid: Settings) -> None:
        super().__init__(message, hint)
        self.valid = valid


class _GivenSettings(Settings):
    """Settings that the environment does not change."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Use only what is given."""
        del settings_cls, env_settings, dotenv_settings, file_secret_settings
        return (init_settings,)


def read_settings(prefix: str = PREFIX) -> Settings:
    """Read and validate the environment.

    Args:
        prefix: of the variables: one process can have several outboxes, such as `ORDERS_` with
            `ORDERS_DATABASE_URL` and `BILLING_` with `BILLING_DATABASE_URL`.

    Raises:
        SettingsError: a variable has an invalid value. The message names the variable, and never
            contains a secret.
    """
    named = SettingNames(prefix)
    try:
        return Settings(_env_prefix=prefix).with_setting_names(named)
    except ValidationError as error:
        source = EnvSettingsSource(
            Settings, env_prefix=prefix, env_prefix_target="all", env_ignore_empty=True
        )
        raise SettingsError(
            _describe_invalid_value(error, named),
            "Change or unset it and run the command again.",
            _drop_invalid_values(error, source()).with_setting_names(named),
        ) from None


def build_settings(
    values: MappingABC[str, Any], *, fields: MappingABC[str, str] | None = None
) -> Settings:
    """Build the settings of an outbox from these values alone; the environment is not read.

    Args:
        values: by the names of the variables in lower case without `DLQ_`, such as
            `{"database_url": "postgresql://...", "schema": "dlq_orders"}`.
        fields: the names that messages have for settings with other names in the caller's file.

    Raises:
        SettingsError: a name is unknown or a value is invalid. The message names the setting, and
            never contains a secret.
    """
    named = SettingNames(None, fields or {})
    given = {name: value for name, value in values.items() if value is not None and value != ""}
    if unknown := sorted(set(values) - set(list_setting_names())):
        close = get_close_matches(unknown[0], list_setting_names(), n=1)
        raise SettingsError(
            f"{unknown[0]!r} is no setting{f': did you mean {close[0]!r}?' if close else '.'}",
            "deploy/README.md lists the settings.",
            Settings.model_construct().with_setting_names(named),
        )
    try:
        return _GivenSettings(**given).with_setting_names(named)
    except ValidationError as error:
        valid = _drop_invalid_values(error, given).with_setting_names(named)
        message = _describe_invalid_value(error, named)
        raise SettingsError(message, "Correct it.", valid) from None


def _drop_invalid_values(error: ValidationError, given: MappingABC[str, Any]) -> Settings:
    """Return the settings of the valid values."""
    invalid = {str(found["loc"][0]) for found in error.errors(include_url=False) if found["loc"]}
    try:
        return _GivenSettings(**{name: given[name] for name in given if name not in invalid})
    except ValidationError:  # valid values may be invalid without the others
        return Settings.model_construct()


def list_setting_names() -> list[str]:
    """Return the names of all settings: those of the variables, in lower case without `DLQ_`."""
    return [str(field.validation_alias or name) for name, field in Settings.model_fields.items()]


def _describe_invalid_value(error: ValidationError, named: SettingNames) -> str:
    """Name the setting, its value unless it is secret, and what is expected."""
    first: dict[str, Any] = {**error.errors(include_url=False)[0]}
    name = str(first["loc"][0])
    found = next(
        info for key, info in Settings.model_fields.items() if name in (key, info.validation_alias)
    )
    shown = named.show(str(found.validation_alias or name))
    if "SecretStr" in str(found.annotation):
        del first["input"]
    if found.annotation in (int, float):
        kind = "a whole number" if found.annotation is int else "a number"
        return f"{shown}: {first['input']!r} is not {kind} {_describe_bounds(found.metadata)}."
    return describe_invalid_value(shown, first)


def _describe_bounds(metadata: Sequence[object]) -> str:
    """Return the bounds of a number: `from 1 to 100`, or `more than 0 and at most 1`."""
    bounds = {
        name: getattr(item, name)
        for item in metadata
        for name in ("ge", "gt", "le")
        if hasattr(item, name)
    }
    if "gt" in bounds:
        return f"more than {bounds['gt']:,} and at most {bounds['le']:,}"
    return f"from {bounds['ge']:,} to {bounds['le']:,}"
