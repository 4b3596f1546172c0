"""The host's own asset, job and executor."""

import dagster as dg


@dg.asset(group_name="warehouse")
def parcels() -> None:
    """Parcels of the day."""


@dg.definitions
def defs() -> dg.Definitions:
    """Define what belongs to the host alone."""
    return dg.Definitions(
        assets=[parcels],
        jobs=[dg.define_asset_job("load_parcels", selection=[parcels])],
        executor=dg.multiprocess_executor,
    )
