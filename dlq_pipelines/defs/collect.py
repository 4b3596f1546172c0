"""Collects what the modules of `defs/` define: a new definition is found without a list of names.

The functions read the modules when they are called, so a module of `defs/` can import this one.
"""

import warnings
from collections.abc import Mapping
from functools import cache
from importlib import import_module

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import (
    UnresolvedAssetJobDefinition,
)


@cache
def collect_definitions() -> dg.Definitions:
    """Return the assets, checks, jobs, schedules and sensors of every module of `defs/`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.PreviewWarning)
        return dg.load_definitions_from_package_module(import_module("dlq_pipelines.defs"))


@cache
def list_job_names() -> frozenset[str]:
    """Return the names of the jobs. A failed run of one of them is an alert."""
    return frozenset(job.name for job in collect_definitions().jobs or ())


@cache
def list_check_steps() -> frozenset[str]:
    """Return the names of the steps that only check an asset."""
    checks = collect_definitions().asset_checks or ()
    return frozenset(check.op.name for check in checks)


@cache
def map_daily_assets() -> Mapping[str, str]:
    """Return the job of each asset with daily partitions, by the name of the asset.

    Each day of these assets succeeds and fails on its own.
    """
    definitions = collect_definitions()
    assets = [one for one in definitions.assets or () if isinstance(one, dg.AssetsDefinition)]
    daily = {asset.key for asset in assets if asset.partitions_def is not None}
    return {
        key.to_user_string(): job.name
        for job in definitions.jobs or ()
        if isinstance(job, UnresolvedAssetJobDefinition)
        for key in daily & job.selection.resolve(assets)
    }
