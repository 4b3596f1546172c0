"""Generates the tables of docs/reference.md from the definitions and a migrated database.

`make docs` writes the tables, and tests/test_docs.py compares them.
"""

import re
import sys
from functools import partial
from pathlib import Path

import dagster as dg

from dlq_pipelines.alerts.rules import ALERT_RULES, NEVER, AlertRule
from dlq_pipelines.causes.transient import TRANSIENT_KINDS
from dlq_pipelines.definitions import defs
from dlq_pipelines.metrics import DeadLetterCollector, read_metrics_snapshot
from dlq_pipelines.outbox.install import install_outbox
from dlq_pipelines.outbox.mapping import list_presets, load_mapping
from dlq_pipelines.outbox.mapping_offers import list_offers
from dlq_pipelines.outbox.mapping_types import MappedColumn, list_mapped_columns
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.postgres.migrate import create_host_tables
from tests.databases import scratch_server

PAGE = Path(__file__).parents[1] / "docs" / "reference.md"
TABLES = """
    select c.relname as name,
        coalesce(obj_description(c.oid, 'pg_class'), '') as content,
        (select string_agg(a.attname, ', ' order by a.attnum)
         from pg_attribute a
         where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped) as columns
    from pg_class c
    where c.relnamespace = 'dlq'::regnamespace and c.relkind in ('r', 'v')
    order by c.relname
"""


def render_definitions() -> str:
    """Render assets, checks, jobs, schedules and sensors with the first sentence about each."""
    repository = defs.get_repository_def()
    graph = repository.asset_graph
    checks = [graph.get_check_spec(key) for key in sorted(graph.asset_check_keys)]
    rows = [
        *(
            ("asset", spec.key.to_user_string(), spec.description)
            for spec in sorted(defs.resolve_all_asset_specs(), key=lambda s: s.key)
        ),
        *(
            ("check", f"{spec.asset_key.to_user_string()}: {spec.name}", spec.description)
            for spec in checks
        ),
        *(
            ("job", job.name, job.description)
            for job in repository.get_all_jobs()
            if not job.name.startswith("__")
        ),
        *(
            (f"schedule, {_get_cron(schedule)}", schedule.name, schedule.description)
            for schedule in repository.schedule_defs
        ),
        *(("sensor", sensor.name, sensor.description) for sensor in repository.sensor_defs),
    ]
    lines = [
        f"| {kind} | `{name}` | {_extract_first_sentence(text or '')} |"
        for kind, name, text in rows
    ]
    return "\n".join(["| | name | description |", "| --- | --- | --- |", *lines])


def render_tables(connection: Connection) -> str:
    """Render tables and views of the schema `dlq` with their columns."""
    rows = connection.execute(TABLES.encode()).fetchall()
    lines = [f"| `{row['name']}` | {row['content']} | {row['columns']} |" for row in rows]
    return "\n".join(["| name | content | columns |", "| --- | --- | --- |", *lines])


def render_alert_rules() -> str:
    """Render alerts by key: when each fires, repeats and resolves."""
    lines = [
        f"| `{rule.key}` | {rule.when} | {', '.join(rule.severities)} "
        f"| {rule.event_type or 'none'} | {_describe_reminder(rule)} | {rule.ends} |"
        for rule in ALERT_RULES.values()
    ]
    header = "| key | fires when | severity | event type | reminder | resolves when |"
    return "\n".join([header, "| --- | --- | --- | --- | --- | --- |", *lines])


def _describe_reminder(rule: AlertRule) -> str:
    if rule.again is None:
        return "after the cool-down"
    return "none" if rule.again == NEVER else f"after {rule.again.days} days"


def render_metrics(connection: Connection) -> str:
    """Render the metrics that the collector exposes."""
    read = partial(read_metrics_snapshot, connection, max_retries=3, archive_retention_days=365)
    lines = [
        f"| `{metric.name}{'_total' if metric.type == 'counter' else ''}` | {metric.type} "
        f"| {', '.join(('outbox', *getattr(metric, '_labelnames', ())))} | {metric.documentation} |"
        for metric in DeadLetterCollector(read, outbox="outbox").collect()
    ]
    return "\n".join(["| name | type | labels | meaning |", "| --- | --- | --- | --- |", *lines])


def render_presets() -> str:
    """Render the presets: their tables, keys of the mapping, and what each does not offer."""
    lines = []
    for name in list_presets():
        mapping = load_mapping(name)
        facts = {column: MappedColumn(column, "text") for column in list_mapped_columns(mapping)}
        lacking = [o.operation for o in list_offers(mapping, facts) if not o.is_offered]
        table = mapping.table if mapping.schema == "public" else f"{mapping.schema}.{mapping.table}"
        retry = ", ".join(assignment.column for assignment in mapping.retry or ())
        row = (f"`{name}`", f"`{table}`", retry or "not offered", ", ".join(lacking) or "nothing")
        lines.append(f"| {' | '.join(row)} |")
    header = "| preset | table | a retry sets | not offered |"
    return "\n".join([header, "| --- | --- | --- | --- |", *lines])


def render_transient_kinds() -> str:
    """Render the kinds of transient failures and how each is recognized."""

    def join(values: tuple[str, ...]) -> str:
        return ", ".join(f"`{value}`" for value in values)

    lines = [
        f"| {kind.name} | {join(kind.statuses)} | {join(kind.sqlstates)} | {join(kind.types)} "
        f"| {join(kind.phrases)} |"
        for kind in TRANSIENT_KINDS
    ]
    header = "| kind | HTTP status | SQLSTATE | exception type | message |"
    return "\n".join([header, "| --- | --- | --- | --- | --- |", *lines])


def render_page(text: str, connection: Connection) -> str:
    """Return the text of the page with its tables generated again."""
    for name, table in (
        ("definitions", render_definitions()),
        ("presets", render_presets()),
        ("tables", render_tables(connection)),
        ("alerts", render_alert_rules()),
        ("metrics", render_metrics(connection)),
        ("transient", render_transient_kinds()),
    ):
        begin, end = f"<!-- {name} -->\n", "<!-- end -->"
        before, _, rest = text.partition(begin)
        text = f"{before}{begin}\n{table}\n\n{end}{rest.partition(end)[2]}"
    return text


def _get_cron(schedule: dg.ScheduleDefinition | object) -> str:
    return str(getattr(schedule, "cron_schedule", ""))


def _extract_first_sentence(text: str) -> str:
    """Return the first sentence of a text in one line, escaped for a table."""
    line = " ".join(text.split())
    return re.split(r"(?<=\.) ", line, maxsplit=1)[0].replace("|", "\\|")


def main() -> int:
    """Write the page."""
    with (
        scratch_server() as (_, server),
        Database(server.ensure_database("docs")).connect() as connection,
    ):
        create_host_tables(connection)
        install_outbox(connection)
        PAGE.write_text(render_page(PAGE.read_text(encoding="utf-8"), connection), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
