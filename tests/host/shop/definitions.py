"""Loads the host's definitions and those of its three outboxes."""

from pathlib import Path

import dagster as dg


@dg.definitions
def defs() -> dg.Definitions:
    """Load everything in `defs/`."""
    return dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
