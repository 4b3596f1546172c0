"""Retries dead events: by hand, or in the growing stages of a flagged fix."""
