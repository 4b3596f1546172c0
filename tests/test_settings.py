"""Checks that every DLQ_* variable is validated, named in errors, and described."""

import re
from pathlib import Path
from typing import Any

import pytest

from dlq_pipelines.errors import DlqError
from dlq_pipelines.settings import Settings, build_settings, read_settings

ROOT = Path(__file__).parents[1]
VARIABLES = {
    f"DLQ_{str(field.validation_alias or name).upper()}": name
    for name, field in Settings.model_fields.items()
}
# Variables of the tests and of Dagster's processes.
OTHERS = {"DLQ_TEST_DATABASE_URL", "DLQ_DAGSTER_URL", "DLQ_CODE_HOST", "DLQ_CODE_PORT"}


@pytest.fixture(autouse=True)
def _unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def test_the_defaults_are_as_documented() -> None:
    assert read_settings().model_dump() == {
        "name": None,
        "database_url": None,
        "home": Path(".dlq"),
        "timezone": "UTC",
        "outbox_mapping": "dispatchbox",
        "outbox_schema": None,
        "outbox_table": None,
        "schema_name": "dlq",
        "dead_retention_days": 30,
        "archive_requires_export": True,
        "archive_retention_days": 365,
        "export_retention_days": 0,
        "report_retention_days": 0,
        "ledger_retention_days": 1095,
        "export_uri": None,
        "export_database_url": None,
        "export_formats": ("parquet", "csv", "jsonl"),
        "export_redact_payload": "",
        "export_redact_errors": "",
        "sample_delivered": True,
        "export_hash_key": None,
        "report_uri": None,
        "canary": 10,
        "growth": 10.0,
        "retry_rate": 50.0,
        "min_success": 0.9,
        "settle_timeout_seconds": 900,
        "max_retries": 3,
        "retry_order": "aggregate",
        "fix_expiry_days": 14,
        "max_backlog_seconds": 300,
        "lookahead_seconds": 600,
        "probes": False,
        "probes_per_day": 50,
        "allow_edit": False,
        "alert_urls": None,
        "webhook_secret": None,
        "death_webhook_url": None,
        "alert_cooldown_minutes": 240,
        "backlog_warn": 1_000,
        "backlog_error": 100_000,
        "alert_min_deaths": 20,
        "alert_oldest_hours": 168,
        "report_digest": False,
        "public_url": None,
        "report_url": None,
        "dagster_ui_url": None,
        "autostart": False,
        "executor": "in_process",
        "celery_url": None,
        "days_per_run": 0,
        "run_retention_days": 90,
        "partitions_start": "2026-01-01",
        "api_tokens": None,
        "api_hosts": (),
        "api_cors_origins": (),
        "api_timeout_seconds": 30.0,
        "api_changes_per_minute": 120,
    }


@pytest.mark.parametrize(
    ("variable", "value", "read"),
    [
        ("DLQ_NAME", "orders", "orders"),
        ("DLQ_HOME", "/srv/dlq", Path("/srv/dlq")),
        ("DLQ_TIMEZONE", "Europe/Berlin", "Europe/Berlin"),
        ("DLQ_SCHEMA", "letters", "letters"),
        ("DLQ_OUTBOX_TABLE", "x" * 63, "x" * 63),
        ("DLQ_MIN_SUCCESS", "1", 1.0),
        ("DLQ_AUTOSTART", "yes", True),
        ("DLQ_EXPORT_FORMATS", "jsonl, PARQUET", ("parquet", "jsonl")),
        ("DLQ_API_HOSTS", "DLQ.example.com, ::1,", ("dlq.example.com", "::1")),
        ("DLQ_API_CORS_ORIGINS", "https://Ops.example.com:8443", ("https://ops.example.com:8443",)),
        ("DLQ_PUBLIC_URL", "https://dlq.example.com/", "https://dlq.example.com"),
        ("DLQ_REPORT_URL", "https://reports.example.com/o/", "https://reports.example.com/o"),
        ("DLQ_PUBLIC_URL", "http://10.0.0.7:8080/orders/", "http://10.0.0.7:8080/orders"),
    ],
)
def test_a_variable_is_read(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, read: Any
) -> None:
    monkeypatch.setenv(variable, value)
    assert getattr(read_settings(), VARIABLES[variable]) == read


@pytest.mark.parametrize("variable", VARIABLES)
def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    """Compose files and shells set variables without a value to the empty string."""
    monkeypatch.setenv(variable, "")
    assert read_settings() == Settings.model_construct()


BAD = [
    ("DLQ_NAME", "Orders-2"),
    ("DLQ_TIMEZONE", "Mars/Base"),
    ("DLQ_TIMEZONE", "Europe"),
    ("DLQ_TIMEZONE", "CET"),
    ("DLQ_TIMEZONE", "../etc/passwd"),
    ("DLQ_OUTBOX_SCHEMA", "x" * 64),
    ("DLQ_OUTBOX_TABLE", "ü" * 32),
    ("DLQ_SCHEMA", "x" * 64),
    ("DLQ_DEAD_RETENTION_DAYS", "-1"),
    ("DLQ_DEAD_RETENTION_DAYS", "a month"),
    ("DLQ_ARCHIVE_REQUIRES_EXPORT", "perhaps"),
    ("DLQ_ARCHIVE_RETENTION_DAYS", "-1"),
    ("DLQ_EXPORT_RETENTION_DAYS", "-1"),
    ("DLQ_REPORT_RETENTION_DAYS", "-1"),
    ("DLQ_LEDGER_RETENTION_DAYS", "-1"),
    ("DLQ_EXPORT_URI", "ftp://ann:s3cr3t@host/x"),
    ("DLQ_EXPORT_URI", "s3://ann:s3cr3t@/x"),
    ("DLQ_EXPORT_URI", "gs://"),
    ("DLQ_EXPORT_URI", "s3:/bucket/x"),
    ("DLQ_EXPORT_URI", "gs:bucket"),
    ("DLQ_EXPORT_URI", "file://host/x"),
    ("DLQ_REPORT_URI", "ftp://ann:s3cr3t@host/x"),
    ("DLQ_REPORT_URI", "s3://ann:s3cr3t@/x"),
    ("DLQ_EXPORT_FORMATS", "parquet, excel"),
    ("DLQ_EXPORT_FORMATS", ","),
    ("DLQ_EXPORT_HASH_KEY", "s3cr3t"),
    ("DLQ_CANARY", "0"),
    ("DLQ_CANARY", "5001"),
    ("DLQ_GROWTH", "0.5"),
    ("DLQ_RETRY_RATE", "0"),
    ("DLQ_RETRY_RATE", "inf"),
    ("DLQ_MIN_SUCCESS", "90"),
    ("DLQ_MIN_SUCCESS", "nan"),
    ("DLQ_SETTLE_TIMEOUT_SECONDS", "0.5"),
    ("DLQ_MAX_RETRIES", "0"),
    ("DLQ_RETRY_ORDER", "random"),
    ("DLQ_FIX_EXPIRY_DAYS", "0"),
    ("DLQ_MAX_BACKLOG_SECONDS", "0"),
    ("DLQ_LOOKAHEAD_SECONDS", "59"),
    ("DLQ_PROBES", "sometimes"),
    ("DLQ_PROBES_PER_DAY", "0"),
    ("DLQ_ALLOW_EDIT", "perhaps"),
    ("DLQ_WEBHOOK_SECRET", "s3cr3t"),
    ("DLQ_WEBHOOK_SECRET", "whsec_s3cr3t=="),
    ("DLQ_WEBHOOK_SECRET", "whsec_" + "QUJD" * 30),
    ("DLQ_DEATH_WEBHOOK_URL", "ftp://ann:s3cr3t@host/x"),
    ("DLQ_DEATH_WEBHOOK_URL", "https://"),
    ("DLQ_PUBLIC_URL", "dlq.example.com"),
    ("DLQ_REPORT_URL", "reports/orders"),
    ("DLQ_PUBLIC_URL", "ftp://dlq.example.com"),
    ("DLQ_PUBLIC_URL", "https://"),
    ("DLQ_PUBLIC_URL", "https://dlq.example.com:99999"),
    ("DLQ_PUBLIC_URL", "https://ann:s3cr3t@dlq.example.com"),
    ("DLQ_PUBLIC_URL", "https://dlq.example.com/?token=s3cr3t"),
    ("DLQ_PUBLIC_URL", "https://dlq.example.com/#causes"),
    ("DLQ_PUBLIC_URL", "https://dlq.example.com/) and more"),
    ("DLQ_DAGSTER_UI_URL", "dagster.example.com"),
    ("DLQ_DAGSTER_UI_URL", "https://ann:s3cr3t@dagster.example.com"),
    ("DLQ_ALERT_COOLDOWN_MINUTES", "0"),
    ("DLQ_BACKLOG_WARN", "-1"),
    ("DLQ_BACKLOG_WARN", "100000"),
    ("DLQ_BACKLOG_ERROR", "-1"),
    ("DLQ_ALERT_MIN_DEATHS", "0"),
    ("DLQ_ALERT_OLDEST_HOURS", "0"),
    ("DLQ_REPORT_DIGEST", "perhaps"),
    ("DLQ_SAMPLE_DELIVERED", "perhaps"),
    ("DLQ_AUTOSTART", "perhaps"),
    ("DLQ_EXECUTOR", "dask"),
    ("DLQ_CELERY_URL", "amqp://ann:s3cr3t@host"),
    ("DLQ_DAYS_PER_RUN", "-1"),
    ("DLQ_DAYS_PER_RUN", "367"),
    ("DLQ_RUN_RETENTION_DAYS", "-1"),
    ("DLQ_PARTITIONS_START", "yesterday"),
    ("DLQ_PARTITIONS_START", "2026-02-30"),
    ("DLQ_API_HOSTS", "https://dlq.example.com"),
    ("DLQ_API_HOSTS", "dlq.example.com:8080"),
    ("DLQ_API_CORS_ORIGINS", "*"),
    ("DLQ_API_CORS_ORIGINS", "https://ops.example.com/page"),
    ("DLQ_API_TIMEOUT_SECONDS", "0"),
    ("DLQ_API_CHANGES_PER_MINUTE", "0"),
]


@pytest.mark.parametrize(("variable", "value"), BAD)
def test_an_invalid_value_is_one_line_that_names_its_variable(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    """The error contains no other variable's value, such as the password."""
    monkeypatch.setenv("DLQ_DATABASE_URL", "postgresql://shop:s3cr3t@host/shop")
    monkeypatch.setenv(variable, value)
    with pytest.raises(DlqError) as raised:
        read_settings()
    message = str(raised.value)
    assert re.fullmatch(rf"{variable}:? .+\.", raised.value.message)
    assert not re.search(r"[Ii]nput|should|pattern|isoformat|\.\.\Z", message)
    assert raised.value.hint == "Change or unset it and run the command again."
    assert raised.value.__suppress_context__
    assert "s3cr3t" not in message


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("DLQ_PARTITIONS_START", "foo", "'foo' is not a day such as 2026-01-01"),
        ("DLQ_CANARY", "abc", "'abc' is not a whole number from 1 to 5,000"),
        ("DLQ_CANARY", "0", "'0' is not a whole number from 1 to 5,000"),
        ("DLQ_MIN_SUCCESS", "90", "'90' is not a number more than 0 and at most 1"),
        ("DLQ_AUTOSTART", "perhaps", "'perhaps' is not true or false"),
        ("DLQ_RETRY_ORDER", "random", "'random' is not 'aggregate' or 'none'"),
        ("DLQ_EXECUTOR", "dask", "'dask' is not 'in_process', 'multiprocess', 'celery' or 'k8s'"),
    ],
)
def test_an_invalid_value_is_shown_with_what_is_expected(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, message: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(DlqError) as raised:
        read_settings()
    assert raised.value.message == f"{variable}: {message}."


def test_every_variable_with_a_validator_has_an_invalid_value() -> None:
    """The other variables are validated where they are used, such as by libpq."""
    elsewhere = {
        "DLQ_DATABASE_URL",
        "DLQ_EXPORT_DATABASE_URL",
        "DLQ_HOME",
        "DLQ_EXPORT_REDACT_PAYLOAD",
        "DLQ_EXPORT_REDACT_ERRORS",
    }
    elsewhere |= {"DLQ_API_TOKENS", "DLQ_ALERT_URLS", "DLQ_OUTBOX_MAPPING"}
    assert {variable for variable, _ in BAD} == VARIABLES.keys() - elsewhere


def test_the_settings_never_print_the_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLQ_DATABASE_URL", "postgresql://shop:s3cr3t@host/shop")
    settings = read_settings()
    assert settings.database_url is not None
    assert settings.database_url.get_secret_value().endswith(":s3cr3t@host/shop")
    for text in (
        repr(settings),
        str(settings),
        str(settings.model_dump()),
        settings.model_dump_json(),
    ):
        assert "s3cr3t" not in text


def test_every_variable_is_described() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


@pytest.mark.parametrize(
    "file",
    [
        *ROOT.glob("*.md"),
        ROOT / "Makefile",
        *ROOT.glob("deploy/*.*"),
        *ROOT.glob("dlq_pipelines/**/*.py"),
    ],
    ids=lambda file: str(file.name),
)
def test_files_name_existing_variables_only(file: Path) -> None:
    named = set(re.findall(r"\bDLQ_[A-Z_]*[A-Z]\b(?!\.\.\.|\*)", file.read_text(encoding="utf-8")))
    assert named <= VARIABLES.keys() | OTHERS


def test_two_prefixes_are_two_outboxes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLQ_CANARY", "7")
    monkeypatch.setenv("ORDERS_SCHEMA", "dlq_orders")
    monkeypatch.setenv("ORDERS_CANARY", "3")
    monkeypatch.setenv("BILLING_CANARY", "none")
    orders = read_settings("ORDERS_")
    assert (orders.schema_name, orders.canary, orders.label) == ("dlq_orders", 3, "outbox")
    with pytest.raises(DlqError, match="BILLING_CANARY: 'none' is not a whole number"):
        read_settings("BILLING_")


def test_settings_of_values_read_no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLQ_CANARY", "7")
    monkeypatch.setenv("CANARY", "8")
    monkeypatch.setenv("DLQ_SCHEMA", "elsewhere")
    given = build_settings({"name": "orders", "retry_rate": "5", "export_formats": ["csv"]})
    assert (given.canary, given.schema_name, given.label) == (10, "dlq", "orders")
    assert (given.retry_rate, given.export_formats) == (5.0, ("csv",))
    assert build_settings({"schema": "dlq_orders"}).schema_name == "dlq_orders"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"database_ur": "x"}, "'database_ur' is no setting: did you mean 'database_url'?"),
        ({"canary": 0}, "canary: 0 is not a whole number from 1 to 5,000."),
        ({"schema": "x" * 64}, "schema: .* is longer than the 63 bytes of an identifier"),
    ],
)
def test_wrong_values_name_the_setting(values: dict[str, Any], message: str) -> None:
    with pytest.raises(DlqError, match=message):
        build_settings(values)
