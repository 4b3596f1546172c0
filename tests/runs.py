"""Reads what a run of an asset did from its events."""

from collections.abc import Mapping
from typing import Any

import dagster as dg


def read_result(result: dg.ExecuteInProcessResult, asset: str) -> Mapping[str, Any]:
    """Return the metadata of an asset's materialization, or of its observation after a dry run."""
    events = [event for event in result.all_events if event.asset_key == dg.AssetKey(asset)]
    (found,) = [
        *(
            e.asset_observation_data.asset_observation.metadata
            for e in events
            if e.is_asset_observation
        ),
        *(e.materialization.metadata for e in events if e.is_step_materialization),
    ]
    return found
