"""Names the extra that installs a missing package."""

_EXTRAS = {
    "adbc_driver_postgresql": "exports",
    "altair": "reports",
    "apprise": "alerts",
    "click": "cli",
    "dagster": "dagster",
    "dagster_postgres": "dagster",
    "fastapi": "api",
    "fastapi_swagger": "api",
    "jinja2": "api",
    "limits": "api",
    "pandas": "reports",
    "prometheus_client": "api",
    "psycopg_pool": "api",
    "pyarrow": "exports",
    "rich": "cli",
    "standardwebhooks": "alerts",
    "typer": "cli",
    "uvicorn": "api",
    "vl_convert": "reports",
}


def describe_missing_package(error: ModuleNotFoundError) -> str | None:
    """Return what is missing and the command that installs it; None for another module."""
    package = (error.name or "").partition(".")[0]
    extra = _EXTRAS.get(package)
    if extra is None:
        return None
    return (
        f"The package {package} is not installed. Run `pip install 'dlq-pipelines[{extra}]'`, or "
        "[all] for every command."
    )
