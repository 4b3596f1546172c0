"""The definitions of one outbox as a Dagster component, which a `defs.yaml` configures."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import dagster as dg
from pydantic import Field, create_model

from dlq_pipelines.defs.component_schema import (
    NAME,
    OWNERS,
    SCHEDULES,
    describe_setting,
    is_owner,
)
from dlq_pipelines.defs.factory import dead_letter_definitions
from dlq_pipelines.settings import (
    MAX_NAME_LENGTH,
    NAME_PATTERN,
    TARGET_SCHEME,
    SettingNames,
    Settings,
    SettingsError,
    build_settings,
    list_setting_names,
)

# Settings of a process, or of a face that is not Dagster; and those that the component declares.
_NOT_HERE = {"name", "database_url", "schema", "executor", "celery_url"}
_DEFAULTS = {
    str(field.validation_alias or name): field.default
    for name, field in Settings.model_fields.items()
}
# pydantic has a method of the other name.
_FIELD_NAMES = {"schema": "schema_name"}
# A field of the component has the name of its variable in lower case.
_NAMED = Settings.model_construct().with_setting_names(SettingNames(None, _FIELD_NAMES))
_DESCRIPTIONS = {
    str(field.validation_alias or name): _NAMED.name_settings(field.description or "")
    for name, field in Settings.model_fields.items()
}


def _get_type(name: str) -> Any:
    """Return what a setting may be in YAML. Text too: it may come from a variable."""
    default = _DEFAULTS[name]
    if isinstance(default, bool):
        return bool | str | None
    if isinstance(default, int):
        return int | str | None
    if isinstance(default, float):
        return float | int | str | None
    return list[str] | str | None if isinstance(default, tuple) else str | None


# Dagster takes descriptions of fields with a default from the resolver alone.
_FIELDS: dict[str, Any] = {
    name: (
        Annotated[
            _get_type(name),
            dg.Resolver.default(
                description=_DESCRIPTIONS[name], json_schema_extra=describe_setting(name)
            ),
        ],
        None,
    )
    for name in list_setting_names()
    if name not in _NOT_HERE and not name.startswith("api_")
}
_PATHS = ("home", "export_uri", "report_uri")
_SettingFields = create_model("_SettingFields", __base__=dg.Model, **_FIELDS)
_DEFS_YAML = """\
# The dead-letter operations of one outbox. `dg check defs` checks this file; deploy/README.md of
# dlq-pipelines describes every setting: the names here are the variables without DLQ_, in lower
# case. A relative path is below the folder of the project. Migrate the outbox once:
# DLQ_DATABASE_URL=... DLQ_SCHEMA=dlq_{name} dlq migrate
type: {type}

attributes:
  # At most 30 lower-case letters, digits and underscores, the first one a letter.
  name: "{name}"
  database_url: "{{{{ env.{variable}_DATABASE_URL }}}}"

  # The application's table: a preset, or a TOML file that `dlq adopt TABLE` writes.
  outbox_mapping: dispatchbox
  # The schema of this outbox's records. Two outboxes in a database need two.
  schema_name: dlq_{name}

  owners: []
  # Crons by the clock in `timezone`; null leaves a schedule out. All start as stopped.
  # schedules: {{archive_daily: "0 4 * * *", purge_weekly: null}}
  # timezone: Europe/Berlin
  # The first day of exports and reports: when deaths begin to be recorded. `dlq doctor` says if
  # events died before.
  partitions_start: "{today}"

  # dead_retention_days: 30
  # archive_retention_days: 365
  # Without targets, files are in the folder .dlq/{name} of the project.
  # export_uri: s3://bucket/{name}
  # report_uri: s3://bucket/{name}-reports
  # alert_urls: "{{{{ env.{variable}_ALERT_URLS }}}}"
"""


def build_outbox_name(folder: str) -> str:
    """Return a valid name for an outbox, as close to that of its folder as possible.

    `orders-eu` becomes `orders_eu`, and `2fast`, which begins with no letter, `outbox_2fast`.
    """
    ascii_text = unicodedata.normalize("NFKD", folder).encode("ascii", "ignore").decode()
    words = re.sub(r"[^a-z0-9]+", "_", ascii_text.lower()).strip("_")
    name = words if words[:1].isalpha() else f"outbox_{words}"
    return name[:MAX_NAME_LENGTH].rstrip("_")


def _resolve_path(project: Path, text: str | None) -> str | None:
    """Return the absolute path of one that may be relative to the project; a URI is left as it is.

    The processes of Dagster start in different folders.
    """
    if not text or TARGET_SCHEME.match(text):
        return text
    return str(project / Path(text).expanduser())


def _resolve_owners(context: dg.ResolutionContext, value: Any) -> list[str]:
    """Fill in the templates of owners. One of an unset variable is an empty text."""
    return [owner or "" for owner in context.resolve_value(value) or ()]


def _resolve_schedules(context: dg.ResolutionContext, value: Any) -> dict[str, str | None]:
    """Fill in the templates of crons. Only null leaves a schedule out, not an unset variable."""
    found = context.resolve_value(value) or {}
    given = value if isinstance(value, Mapping) else found
    return {
        name: "" if cron is None and given[name] is not None else cron
        for name, cron in found.items()
    }


def _is_cron(text: str | None) -> bool:
    """Return whether Dagster takes a cron; None leaves a schedule out."""
    try:
        return text is None or bool(
            dg.ScheduleDefinition(name="tried", job_name="tried", cron_schedule=text)
        )
    except (dg.DagsterInvalidDefinitionError, ValueError):
        return False


class DeadLetterQueueScaffolder(dg.Scaffolder):
    """Writes a documented `defs.yaml`; the name of the outbox follows that of the folder."""

    def scaffold(self, request: dg.ScaffoldRequest) -> None:
        """Write the file."""
        if request.scaffold_format != "yaml":
            dg.scaffold_component(request)
            return
        name = build_outbox_name(request.target_path.name)
        text = _DEFS_YAML.format(
            type=request.type_name,
            name=name,
            variable=name.upper(),
            today=datetime.now(UTC).date(),
        )
        if request.append:
            with request.target_path.open("a", encoding="utf-8") as file:
                file.write(f"---\n{text}")
        else:
            (request.target_path / "defs.yaml").write_text(text, encoding="utf-8")


@dg.scaffold_with(DeadLetterQueueScaffolder)
class DeadLetterQueue(dg.Component, _SettingFields, dg.Resolvable):
    """Dead-letter operations for one PostgreSQL outbox.

    Archives old dead events, reports why events die, exports them as files, and retries them in
    stages once a fix is flagged. All settings of dlq-pipelines are attributes, named as the
    variables in lower case without their prefix. Nothing else is read from the environment, so a
    project can have many outboxes.
    """

    name: Annotated[
        str,
        dg.Resolver.default(
            description="Name of the outbox: it begins the names of jobs, schedules and sensors, "
            "and is in the pool dlq_<name>, in metrics and in alerts.",
            examples=["orders"],
            json_schema_extra=NAME,
        ),
    ] = Field(pattern=NAME_PATTERN)
    database_url: Annotated[
        str | None,
        dg.Resolver.default(
            description=_DESCRIPTIONS["database_url"].partition(";")[0],
            examples=["{{ env.ORDERS_DATABASE_URL }}"],
        ),
    ]
    schema_name: Annotated[str | None, dg.Resolver.default(description=_DESCRIPTIONS["schema"])] = (
        None
    )
    key_prefix: Annotated[
        list[str] | None,
        dg.Resolver.default(description="Prefix of the asset keys; unset: the name."),
    ] = None
    group: Annotated[
        str | None,
        dg.Resolver.default(description="Group of the assets; unset: <name>_dead_letters."),
    ] = None
    owners: Annotated[
        list[str],
        dg.Resolver(
            _resolve_owners,
            model_field_type=list[str] | str,
            description="Owners of all definitions.",
            examples=[["team:data-platform"]],
            json_schema_extra=OWNERS,
        ),
    ] = Field(default=[])
    schedules: Annotated[
        dict[str, str | None],
        dg.Resolver(
            _resolve_schedules,
            model_field_type=dict[str, str | None] | str,
            description="Crons that replace the usual ones, by schedule; null leaves it out.",
            examples=[{"archive_daily": "0 4 * * *", "purge_weekly": None}],
            json_schema_extra=SCHEDULES,
        ),
    ] = Field(default={})

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Build the definitions; a wrong setting fails their runs and ticks, not the location."""
        problems = [
            *(
                f"owners: {owner!r} is not an owner such as team:data or ann@example.com."
                for owner in self.owners
                if not is_owner(owner)
            ),
            *(
                f"schedules: {cron!r} of {name} is not a cron such as 0 4 * * *."
                for name, cron in self.schedules.items()
                if not _is_cron(cron)
            ),
        ]
        return dead_letter_definitions(
            partial(self._read_settings, context.project_root, problems),
            name=self.name,
            key_prefix=self.key_prefix,
            group=self.group,
            owners=list(filter(is_owner, self.owners)),
            schedules={name: cron for name, cron in self.schedules.items() if _is_cron(cron)},
        )

    def _read_settings(self, project: Path, problems: Sequence[str]) -> Settings:
        given = self.model_dump(include=set(_FIELDS))
        given["home"] = given["home"] or f".dlq/{self.name}"
        if (given["outbox_mapping"] or "").endswith(".toml"):
            given["outbox_mapping"] = _resolve_path(project, given["outbox_mapping"])
        settings = build_settings(
            {
                **given,
                **{name: _resolve_path(project, given[name]) for name in _PATHS},
                "name": self.name,
                "database_url": self.database_url,
                "schema": self.schema_name,
            },
            fields=_FIELD_NAMES,
        )
        if settings.database_url is None:  # it would mean the embedded server
            raise SettingsError(
                "database_url is not set.",
                "Set the variable that defs.yaml names for it.",
                settings,
            )
        if problems:  # a schedule has its usual cron until then
            hint = "Correct it, or set the variable that defs.yaml names for it."
            raise SettingsError(problems[0], hint, settings)
        return settings
