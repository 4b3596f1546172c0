"""Exports: a day's deaths as files with a manifest, and selected deaths as one file."""
