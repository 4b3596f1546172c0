"""Serves the pages of `dlq serve`, which work without a script."""
