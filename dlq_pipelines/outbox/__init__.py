"""Reads the application's outbox: its events, selections of dead events, and batches of them."""

# Events of one transaction: large enough for speed, short enough for the locks that it holds.
BATCH = 5_000
