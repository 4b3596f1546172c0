"""Dagster's definitions: each reads its config, calls one function and shows what it returned."""

import warnings

import dagster as dg

# Dagster marks single-run backfills beta. Its notice at every start would hide other messages.
warnings.filterwarnings("ignore", category=dg.BetaWarning)
