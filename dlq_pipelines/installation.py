"""Connects the settings with databases, Dagster, and the objects that operations take.

The database is the one of `DLQ_DATABASE_URL`, or else the embedded server in `$DLQ_HOME/postgres`,
which all processes of the installation share. Dagster's instance storage is another database on
the same server.
"""

import os
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from dlq_pipelines.errors import DatabaseUnavailableError, DlqError, SchemaError
from dlq_pipelines.exports.uri import redact_uri
from dlq_pipelines.links import OUTBOX_TAG, Links
from dlq_pipelines.outbox.install import install_outbox
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.postgres.embedded import start_server
from dlq_pipelines.postgres.migrate import (
    create_host_tables,
    require_current,
)
from dlq_pipelines.retries.fix import FixTerms, RetryPolicy
from dlq_pipelines.retries.probe import ProbePolicy
from dlq_pipelines.settings import Settings
from dlq_pipelines.text import RedactTexts

if TYPE_CHECKING:  # pyarrow takes half a second to import, which no other command should wait for
    from dlq_pipelines.alerts.alert import AlertPolicy
    from dlq_pipelines.alerts.delivery import Sender
    from dlq_pipelines.causes.explain import IsHiddenPath, RedactPayload
    from dlq_pipelines.erase import ErasureTerms
    from dlq_pipelines.exports.manifest import ExportOptions
    from dlq_pipelines.exports.target import Target
    from dlq_pipelines.reports.figures import ReportPolicy

_OUTBOX = "outbox"
_DAGSTER = "dagster"

_PACKAGE = Path(__file__).resolve().parent
# A wheel has the file inside the package, a checkout in `deploy`.
_DAGSTER_YAML = next(
    (
        f
        for f in (_PACKAGE / "dagster.yaml", _PACKAGE.parent / "deploy" / "dagster.yaml")
        if f.is_file()
    ),
    None,
)


def find_database(settings: Settings) -> Database:
    """Return the outbox's database; start the embedded server if `DLQ_DATABASE_URL` is unset.

    Raises:
        DatabaseUnavailableError: the embedded server does not start.
    """
    if settings.database_url is not None:
        return Database(settings.database_url.get_secret_value(), settings.names)
    return Database(start_server(settings.home).ensure_database(_OUTBOX), settings.names)


def has_embedded_server(settings: Settings) -> bool:
    """Return whether the home has an embedded server, which may be stopped. Starts nothing."""
    return os.path.lexists(settings.home / "postgres")


def get_database_name(settings: Settings) -> str | None:
    """Return the name of the outbox's database; None if libpq decides it.

    The server does not have to run.
    """
    return _OUTBOX if settings.database_url is None else _parse_database_url(settings).get("dbname")


def get_database_server(settings: Settings) -> str | None:
    """Return host and port of the outbox's database; None if libpq decides them, or for several."""
    parts = _parse_database_url(settings)
    host = parts.get("host", "")
    if not host or "," in host:
        return None
    return f"{'localhost' if host.startswith('/') else host}:{parts.get('port', '5432')}"


def _parse_database_url(settings: Settings) -> dict[str, str]:
    """Return the parts of `DLQ_DATABASE_URL`; empty if it is invalid: a connection reports that."""
    try:
        parts = conninfo_to_dict(
            settings.database_url.get_secret_value() if settings.database_url else ""
        )
    except psycopg.ProgrammingError:
        return {}
    return {key: str(value) for key, value in parts.items() if value}


def open_connection(settings: Settings) -> Connection:
    """Open a connection to the outbox's database, which must have the schema of this release.

    Raises:
        DatabaseUnavailableError: the server does not answer or does not start.
        SchemaError: migrations are pending.
    """
    connection = find_database(settings).open()
    try:
        require_current(connection)
    except SchemaError:
        connection.close()
        raise
    return connection


def prepare_embedded(settings: Settings) -> None:
    """Create the tables on the embedded server. On another server a person runs `dlq migrate`."""
    if settings.database_url is None:
        create_tables(find_database(settings))


def create_tables(database: Database) -> None:
    """Create the reference application's tables if there is no outbox table, then migrate."""
    with database.connect() as connection:
        create_host_tables(connection)
        install_outbox(connection)


def prepare_dagster(settings: Settings) -> dict[str, str]:
    """Create Dagster's home and database; return the environment of its processes.

    Raises:
        DatabaseUnavailableError: the server does not answer, or the role may not create the
            database.
        DlqError: a file of the installation is missing.
    """
    if _DAGSTER_YAML is None:
        raise DlqError("dagster.yaml is missing from this installation.", "Install it again.")
    home = (settings.home / "dagster").resolve()
    home.mkdir(parents=True, exist_ok=True)
    (home / "dagster.yaml").write_bytes(_DAGSTER_YAML.read_bytes())
    _create_dagster_database(settings)
    url = get_dagster_database_url(settings).replace("postgresql://", "postgresql+psycopg2://", 1)
    return {
        "DAGSTER_HOME": str(home),
        "DLQ_DAGSTER_URL": url,
        "DLQ_HOME": str(settings.home.resolve()),
    }


def get_dagster_database_url(settings: Settings) -> str:
    """Return the URI of Dagster's database, which may not exist yet."""
    if settings.database_url is None:
        return start_server(settings.home).ensure_database(_DAGSTER)
    url = settings.database_url.get_secret_value()
    return _build_uri(make_conninfo(url, dbname=_build_dagster_name(url)))


def _build_dagster_name(url: str) -> str:
    parts = conninfo_to_dict(url)
    return f"{parts.get('dbname') or parts.get('user') or 'postgres'}_{_DAGSTER}"


def _create_dagster_database(settings: Settings) -> None:
    if settings.database_url is None:
        return  # `get_dagster_database_url` creates it
    url = settings.database_url.get_secret_value()
    name = _build_dagster_name(url)
    try:
        with Database(url).connect() as connection:
            create = sql.SQL("create database {} owner {}").format(
                sql.Identifier(name), sql.Identifier(connection.info.user)
            )
            if not connection.fetch_one("session.database_exists", name=name)["found"]:
                connection.execute(create)
    except psycopg.errors.InsufficientPrivilege:
        raise DatabaseUnavailableError(
            f"Dagster keeps its records in the database {name}, which this role may not create.",
            f"As an administrator, run: {create.as_string()}",
        ) from None
    except psycopg.errors.DuplicateDatabase:
        pass  # another process has created it


def _build_uri(conninfo: str) -> str:
    """Return a libpq connection string as a URI for SQLAlchemy; the query has host and options."""
    parts = {
        key: str(value) for key, value in conninfo_to_dict(conninfo).items() if value is not None
    }
    account = quote(parts.pop("user", ""), safe="")
    if "password" in parts:
        account += f":{quote(parts.pop('password'), safe='')}"
    name = quote(parts.pop("dbname"), safe="")
    return f"postgresql://{account + '@' if account else ''}/{name}?{urlencode(parts)}"


def build_fix_terms(settings: Settings) -> FixTerms:
    """Return the default policy, expiry, maximum backlog and look-ahead of fixes."""
    policy = RetryPolicy(
        canary=settings.canary,
        growth=settings.growth,
        rate=settings.retry_rate,
        min_success=settings.min_success,
        settle_seconds=settings.settle_timeout_seconds,
        max_retries=settings.max_retries,
        order=settings.retry_order,
    )
    return FixTerms(
        policy,
        timedelta(days=settings.fix_expiry_days),
        timedelta(seconds=settings.max_backlog_seconds),
        timedelta(seconds=settings.lookahead_seconds),
    )


def build_probe_policy(settings: Settings) -> ProbePolicy:
    """Return the policy of probes."""
    return ProbePolicy(
        enabled=settings.probes,
        per_day=settings.probes_per_day,
        settle_seconds=settings.settle_timeout_seconds,
        max_retries=settings.max_retries,
        ordered=settings.retry_order == "aggregate",
        max_backlog=timedelta(seconds=settings.max_backlog_seconds),
    )


def resolve_rate(rate: float | None, settings: Settings) -> float:
    """Return the given rate, or `DLQ_RETRY_RATE` if it is None.

    Raises:
        ValueError: the rate is out of bounds.
    """
    policy = build_fix_terms(settings).policy
    return policy.rate if rate is None else replace(policy, rate=rate).rate


def build_alert_sender(settings: Settings) -> "Sender":
    """Return the sender of alerts and of deaths.

    Raises:
        DlqError: `DLQ_ALERT_URLS` has an invalid entry, or a webhook has no secret. The message
            contains no address.
    """
    from dlq_pipelines.alerts.delivery import Sender, is_webhook
    from dlq_pipelines.alerts.notify import is_apprise_url
    from dlq_pipelines.alerts.routes import parse_routes

    urls, deaths, secret = settings.alert_urls, settings.death_webhook_url, settings.webhook_secret
    try:
        routes = parse_routes(urls.get_secret_value() if urls else "")
    except ValueError as error:
        raise DlqError(f"DLQ_ALERT_URLS: {error}.") from None
    webhooks = [route for route in routes if is_webhook(route.url)]
    for place, route in enumerate(routes, 1):
        if route not in webhooks and not is_apprise_url(route.url):
            raise DlqError(
                f"DLQ_ALERT_URLS: entry {place} ({route.channel}) is not an Apprise address.",
                "Correct the entry.",
            )
    if (webhooks or deaths) and secret is None:
        raise DlqError(
            "DLQ_WEBHOOK_SECRET is required because webhooks are signed.",
            "Set it to whsec_ and 24 to 64 random bytes in base64.",
        )
    return Sender(
        routes,
        deaths.get_secret_value() if deaths else None,
        secret.get_secret_value() if secret else None,
        build_redact_errors(settings),
        settings.name,
        build_links(settings),
    )


def build_alert_policy(settings: Settings, *, sends: bool = True) -> "AlertPolicy":
    """Return the thresholds, reminders and channels of alerts.

    Args:
        settings: of the installation.
        sends: whether the channels are needed, which are read with the extra [alerts].

    Raises:
        DlqError: see `build_alert_sender`.
    """
    from dlq_pipelines.alerts.alert import AlertPolicy
    from dlq_pipelines.alerts.rules import Thresholds

    return AlertPolicy(
        Thresholds(
            settings.backlog_warn,
            settings.alert_min_deaths,
            timedelta(hours=settings.alert_oldest_hours),
            settings.backlog_error,
        ),
        timedelta(minutes=settings.alert_cooldown_minutes),
        settings.max_retries,
        settings.archive_retention_days,
        build_alert_sender(settings).routes if sends else (),
        build_redact_errors(settings),
        settings.zone,
        build_links(settings),
        settings.name_settings,
    )


def build_links(settings: Settings) -> Links:
    """Return where people reach `dlq serve`, Dagster's UI and the reports."""
    tag = f"{OUTBOX_TAG}={settings.label}"
    return Links(settings.public_url, settings.dagster_ui_url, tag, settings.report_url)


def get_reports_folder(settings: Settings) -> Path:
    """Return the folder of reports: the target if `DLQ_REPORT_URI` is unset, else for staging."""
    return settings.home / "reports"


def open_reports_target(settings: Settings) -> "Target":
    """Open the target of reports.

    Raises:
        DlqError: `DLQ_REPORT_URI` is invalid.
    """
    from dlq_pipelines.exports.target import open_local_target, open_target

    if settings.report_uri is None:
        return open_local_target(get_reports_folder(settings), "")
    uri = settings.report_uri.get_secret_value()
    return open_target(
        uri, staging=get_reports_folder(settings), folder="", setting="DLQ_REPORT_URI"
    )


def get_reports_uri(settings: Settings) -> str:
    """Return the target of reports without secrets. Contacts no server."""
    uri = settings.report_uri
    return redact_uri(
        str(get_reports_folder(settings)) if uri is None else uri.get_secret_value(), ""
    )


def build_report_policy(settings: Settings) -> "ReportPolicy":
    """Return retention, parking, redaction and links for reports.

    Raises:
        DlqError: a redaction rule is invalid.
    """
    from dlq_pipelines.reports.figures import ReportPolicy

    return ReportPolicy(
        settings.dead_retention_days,
        settings.archive_retention_days,
        settings.max_retries,
        build_export_options(settings).redaction,
        build_links(settings),
    )


def get_exports_folder(settings: Settings) -> Path:
    """Return the folder of exports: the target if `DLQ_EXPORT_URI` is unset, else for staging."""
    return settings.home / "exports"


def open_exports_target(settings: Settings) -> "Target":
    """Open the target of exports.

    Raises:
        DlqError: `DLQ_EXPORT_URI` is invalid.
    """
    from dlq_pipelines.exports.target import open_local_target, open_target

    if settings.export_uri is None:
        return open_local_target(get_exports_folder(settings))
    return open_target(settings.export_uri.get_secret_value(), staging=get_exports_folder(settings))


def get_exports_uri(settings: Settings) -> str:
    """Return the target of exports without secrets. Contacts no server."""
    uri = settings.export_uri
    return redact_uri(str(get_exports_folder(settings)) if uri is None else uri.get_secret_value())


def build_erasure_terms(settings: Settings) -> "ErasureTerms":
    """Return the days and the places of files that may have copies of an erased event."""
    from dlq_pipelines.erase import ErasureTerms

    return ErasureTerms(settings.zone, get_exports_uri(settings), get_reports_uri(settings))


def build_redact_errors(settings: Settings) -> RedactTexts:
    """Return what hides the matches of `DLQ_EXPORT_REDACT_ERRORS` in errors, templates and details.

    Raises:
        DlqError: a redaction rule is invalid.
    """
    if not settings.export_redact_errors:
        return list  # and pyarrow is not imported
    return build_export_options(settings).redaction.redact_errors


def build_hides_path(settings: Settings) -> "IsHiddenPath":
    """Return what says whether `DLQ_EXPORT_REDACT_PAYLOAD` hides a path of a payload.

    Raises:
        DlqError: a redaction rule is invalid.
    """
    if not settings.export_redact_payload:
        return lambda _: False  # and pyarrow is not imported
    return build_export_options(settings).redaction.hides


def build_redact_payload(settings: Settings) -> "RedactPayload":
    """Return what hides the values that `DLQ_EXPORT_REDACT_PAYLOAD` names in a payload.

    Raises:
        DlqError: a redaction rule is invalid.
    """
    if not settings.export_redact_payload:
        return lambda payload: payload  # and pyarrow is not imported
    return build_export_options(settings).redaction.redact_payload


def build_export_options(settings: Settings) -> "ExportOptions":
    """Return formats and redaction of exports.

    Raises:
        DlqError: a redaction rule is invalid; the message names its variable.
    """
    from dlq_pipelines.exports.manifest import ExportOptions
    from dlq_pipelines.exports.redact import parse_redaction

    key = settings.export_hash_key.get_secret_value().encode() if settings.export_hash_key else None
    redaction = parse_redaction(settings.export_redact_payload, settings.export_redact_errors, key)
    return ExportOptions(settings.export_formats, redaction)
