"""Dagster's definitions: each reads its config, calls one function and shows what it returned."""
