"""Builds the Dagster definitions of one outbox, which merge into any code location."""

import warnings
from collections.abc import Mapping, Sequence

import dagster as dg

from dlq_pipelines.defs.alerts import define_alerts
from dlq_pipelines.defs.archive import define_archive
from dlq_pipelines.defs.causes import define_causes
from dlq_pipelines.defs.exports import define_exports
from dlq_pipelines.defs.outbox import ReadSettings, build_outbox
from dlq_pipelines.defs.probes import define_probes
from dlq_pipelines.defs.reports import define_reports
from dlq_pipelines.defs.retries import define_retries
from dlq_pipelines.defs.runs import define_clean_up
from dlq_pipelines.defs.samples import define_samples
from dlq_pipelines.settings import Settings

_CONCEPTS = (
    define_causes,
    define_exports,
    define_reports,
    define_archive,
    define_retries,
    define_probes,
    define_samples,
    define_alerts,
    define_clean_up,
)


def dead_letter_definitions(
    settings: Settings | ReadSettings,
    *,
    name: str | None = None,
    key_prefix: Sequence[str] | None = None,
    group: str | None = None,
    owners: Sequence[str] = (),
    schedules: Mapping[str, str | None] | None = None,
) -> dg.Definitions:
    """Build all assets, checks, jobs, schedules and sensors of one outbox.

    The definitions have no executor and no resources, and nothing is read from the environment, so
    they merge with a project's own and with those of other outboxes:

        defs = dg.Definitions.merge(
            dead_letter_definitions(partial(read_settings, "ORDERS_"), name="orders"),
            dead_letter_definitions(partial(read_settings, "BILLING_"), name="billing"),
            dg.Definitions(assets=[...], executor=...),
        )

    Args:
        settings: of the outbox, or a function that returns them. It is called when the definitions
            load and at each run and tick: if it raises `DlqError`, because a variable is wrong,
            these runs and ticks fail with the reason, and the location loads.
        name: of the outbox, at most 30 lower-case letters, digits and underscores. It begins the
            names of jobs, schedules and sensors, and is in the pool `dlq_<name>`, in the run tag
            `dlq/outbox`, in metrics and in alerts. None: that of the settings (`DLQ_NAME`), or no
            name, for the only outbox of an instance.
        key_prefix: of the asset keys. None: the name.
        group: of the assets. None: `dead_letters`, after the name if there is one.
        owners: of all definitions, such as `["team:data-platform"]`.
        schedules: crons that replace the usual ones, by the name of the schedule without prefix;
            None leaves a schedule out: `{"export_daily": "0 1 * * *", "purge_weekly": None}`.

    Returns:
        Definitions whose schedules and sensors are stopped, unless `DLQ_AUTOSTART` is set.

    Raises:
        ValueError: the name is invalid, or there is no schedule of a given name.
    """
    outbox = build_outbox(
        settings,
        name=name,
        key_prefix=key_prefix,
        group=group,
        owners=owners,
        schedules=schedules or {},
    )
    with warnings.catch_warnings():
        # Dagster marks single-run backfills beta, and selections without checks were once.
        warnings.simplefilter("ignore", dg.BetaWarning)
        warnings.simplefilter("ignore", dg.PreviewWarning)
        merged = dg.Definitions.merge(*(define(outbox) for define in _CONCEPTS))
        return dg.Definitions(
            # The UI links each asset to its code.
            assets=dg.with_source_code_references(list(merged.assets or ())),
            asset_checks=merged.asset_checks,
            jobs=merged.jobs,
            schedules=merged.schedules,
            sensors=merged.sensors,
        )
