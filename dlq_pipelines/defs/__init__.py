"""Dagster's face: each definition reads its config, calls one function and returns what that said."""
