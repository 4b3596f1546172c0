"""Which PostgreSQL does this process use, and where does Dagster keep its own records?

With `DLQ_DATABASE_URL` the server there; without it the embedded one under `$DLQ_HOME/postgres`, which every process
of the project shares. Dagster's instance storage is a database of its own on the same server.
"""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from dlq_pipelines.errors import DatabaseUnavailableError, DlqError, SchemaError
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.postgres.embedded import start_server
from dlq_pipelines.postgres.migrate import (
    apply_migrations,
    create_host_tables,
    load_migrations,
    require_current,
)
from dlq_pipelines.retries.fix import FixTerms, RetryPolicy
from dlq_pipelines.settings import Settings

if TYPE_CHECKING:  # pyarrow takes half a second to import, which no other command should wait for
    from dlq_pipelines.alerts.alert import AlertPolicy
    from dlq_pipelines.alerts.delivery import Sender
    from dlq_pipelines.exports.manifest import ExportOptions
    from dlq_pipelines.exports.target import Target
    from dlq_pipelines.reports.figures import ReportPolicy

_OUTBOX = "outbox"
_DAGSTER = "dagster"

_PACKAGE = Path(__file__).resolve().parent
# A wheel carries the file inside the package; a checkout has it among what it takes to deploy.
_DAGSTER_YAML = next(
    (
        f
        for f in (_PACKAGE / "dagster.yaml", _PACKAGE.parent / "deploy" / "dagster.yaml")
        if f.is_file()
    ),
    None,
)


def find_database(settings: Settings) -> Database:
    """The database that holds the outbox; starts the embedded server when no other is named.

    Raises:
        DatabaseUnavailableError: there is none, or it does not start.
    """
    if settings.database_url is not None:
        return Database(settings.database_url.get_secret_value(), settings.names)
    return Database(start_server(settings.home).ensure_database(_OUTBOX), settings.names)


def get_database_name(settings: Settings) -> str | None:
    """The name of the outbox's database, whether or not it runs; None: the settings leave it to libpq."""
    return _OUTBOX if settings.database_url is None else _parts_of(settings).get("dbname")


def get_database_server(settings: Settings) -> str | None:
    """Host and port of the outbox's database; None: the settings leave it to libpq, or name several, or none."""
    parts = _parts_of(settings)
    host = parts.get("host", "")
    if not host or "," in host:
        return None
    return f"{'localhost' if host.startswith('/') else host}:{parts.get('port', '5432')}"


def _parts_of(settings: Settings) -> dict[str, str]:
    """The parts of `DLQ_DATABASE_URL`; none of one that libpq cannot read, which a connection says more clearly."""
    try:
        parts = conninfo_to_dict(
            settings.database_url.get_secret_value() if settings.database_url else ""
        )
    except psycopg.ProgrammingError:
        return {}
    return {key: str(value) for key, value in parts.items() if value}


def open_connection(settings: Settings) -> Connection:
    """A connection to the outbox's database, which must be at this release's schema.

    Raises:
        DatabaseUnavailableError: there is none, or it does not start.
        SchemaError: it has to be migrated first.
    """
    connection = find_database(settings).open()
    try:
        require_current(connection)
    except SchemaError:
        connection.close()
        raise
    return connection


def prepare_embedded(settings: Settings) -> None:
    """Give the embedded server its tables. On a server of somebody's own, `dlq migrate` is an act of that person."""
    if settings.database_url is None:
        create_tables(find_database(settings))


def create_tables(database: Database) -> None:
    """Create the reference application tables where there is no outbox table, and migrate."""
    with database.connect() as connection:
        create_host_tables(connection)
        apply_migrations(connection, load_migrations())


def prepare_dagster(settings: Settings) -> dict[str, str]:
    """Make Dagster's home and its database, and return the environment that its processes need.

    Raises:
        DatabaseUnavailableError: the server does not answer, or the role may not create the database.
        DlqError: the installation lacks a file.
    """
    if _DAGSTER_YAML is None:
        raise DlqError("dagster.yaml is missing from this installation. Install it again.")
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
    """The URI of the database that holds Dagster's records, whether or not it was created yet."""
    if settings.database_url is None:
        return start_server(settings.home).ensure_database(_DAGSTER)
    url = settings.database_url.get_secret_value()
    return _as_uri(make_conninfo(url, dbname=_dagster_name(url)))


def _dagster_name(url: str) -> str:
    parts = conninfo_to_dict(url)
    return f"{parts.get('dbname') or parts.get('user') or 'postgres'}_{_DAGSTER}"


def _create_dagster_database(settings: Settings) -> None:
    if settings.database_url is None:
        return  # `dagster_database` makes it
    url = settings.database_url.get_secret_value()
    name = _dagster_name(url)
    try:
        with Database(url).connect() as connection:
            create = sql.SQL("create database {} owner {}").format(
                sql.Identifier(name), sql.Identifier(connection.info.user)
            )
            if not connection.fetch_one("session.database_exists", name=name)["found"]:
                connection.execute(create)
    except psycopg.errors.InsufficientPrivilege:
        raise DatabaseUnavailableError(
            f"Dagster keeps its records in the database {name}, which this role may not create. "
            f"Let an administrator run: {create.as_string()}"
        ) from None
    except psycopg.errors.DuplicateDatabase:
        pass  # another process was faster


def _as_uri(conninfo: str) -> str:
    """A libpq connection string as the URI that SQLAlchemy reads; host, port and options go to the query."""
    parts = {
        key: str(value) for key, value in conninfo_to_dict(conninfo).items() if value is not None
    }
    account = quote(parts.pop("user", ""), safe="")
    if "password" in parts:
        account += f":{quote(parts.pop('password'), safe='')}"
    name = quote(parts.pop("dbname"), safe="")
    return f"postgresql://{account + '@' if account else ''}/{name}?{urlencode(parts)}"


def build_fix_terms(settings: Settings) -> FixTerms:
    """What the settings decide for fixes."""
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
    )


def resolve_rate(rate: float | None, settings: Settings) -> float:
    """Events a second at which retried ones fall due: as was asked for, or as the installation decides.

    Raises:
        ValueError: it is out of its bounds.
    """
    policy = build_fix_terms(settings).policy
    return policy.rate if rate is None else replace(policy, rate=rate).rate


def build_alert_sender(settings: Settings) -> "Sender":
    """Who is told of alerts and of deaths.

    Raises:
        DlqError: `DLQ_ALERT_URLS` has an entry that cannot be used, or a webhook has no secret; no address is shown.
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
                f"DLQ_ALERT_URLS: entry {place} ({route.channel}) is no address that Apprise can send to."
            )
    if (webhooks or deaths) and secret is None:
        raise DlqError(
            "DLQ_WEBHOOK_SECRET: a webhook is signed, and there is no secret. Set whsec_ and a base64 text."
        )
    return Sender(
        routes,
        deaths.get_secret_value() if deaths else None,
        secret.get_secret_value() if secret else None,
    )


def build_alert_policy(settings: Settings) -> "AlertPolicy":
    """What the settings decide about alerts.

    Raises:
        DlqError: as `alert_sender`.
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
        build_alert_sender(settings).routes,
    )


def get_reports_folder(settings: Settings) -> Path:
    """Where reports are written unless `DLQ_REPORT_URI` says otherwise, and where they are finished if it does."""
    return settings.home / "reports"


def open_reports_target(settings: Settings) -> "Target":
    """Where reports are written.

    Raises:
        DlqError: `DLQ_REPORT_URI` cannot be used.
    """
    from dlq_pipelines.exports.target import open_local_target, open_target

    if settings.report_uri is None:
        return open_local_target(get_reports_folder(settings), "")
    uri = settings.report_uri.get_secret_value()
    return open_target(
        uri, staging=get_reports_folder(settings), folder="", setting="DLQ_REPORT_URI"
    )


def get_reports_uri(settings: Settings) -> str:
    """Where reports are written, as people may see it. Asks no server."""
    from dlq_pipelines.exports.target import redact_uri

    uri = settings.report_uri
    return redact_uri(
        str(get_reports_folder(settings)) if uri is None else uri.get_secret_value(), ""
    )


def build_report_policy(settings: Settings) -> "ReportPolicy":
    """What the settings decide for reports.

    Raises:
        DlqError: a pattern of what to hide cannot be understood.
    """
    from dlq_pipelines.reports.figures import ReportPolicy

    return ReportPolicy(
        settings.dead_retention_days,
        settings.archive_retention_days,
        settings.max_retries,
        build_export_options(settings).redaction,
    )


def get_exports_folder(settings: Settings) -> Path:
    """Where exports are written unless `DLQ_EXPORT_URI` says otherwise: a folder of datasets."""
    return settings.home / "exports"


def open_exports_target(settings: Settings) -> "Target":
    """Where exports are written.

    Raises:
        DlqError: `DLQ_EXPORT_URI` cannot be used.
    """
    from dlq_pipelines.exports.target import open_local_target, open_target

    if settings.export_uri is None:
        return open_local_target(get_exports_folder(settings))
    return open_target(settings.export_uri.get_secret_value(), staging=get_exports_folder(settings))


def get_exports_uri(settings: Settings) -> str:
    """Where exports are written, as people may see it. Asks no server."""
    from dlq_pipelines.exports.target import redact_uri

    uri = settings.export_uri
    return redact_uri(str(get_exports_folder(settings)) if uri is None else uri.get_secret_value())


def build_export_options(settings: Settings) -> "ExportOptions":
    """How exports are made.

    Raises:
        DlqError: a rule for what to hide cannot be understood; the message names its variable.
    """
    from dlq_pipelines.exports.manifest import ExportOptions
    from dlq_pipelines.exports.redact import parse_redaction

    key = settings.export_hash_key.get_secret_value().encode() if settings.export_hash_key else None
    redaction = parse_redaction(settings.export_redact_payload, settings.export_redact_errors, key)
    return ExportOptions(settings.export_formats, redaction)
