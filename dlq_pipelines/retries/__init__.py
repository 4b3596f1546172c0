"""Bringing dead events back: by hand, or in the stages of a flagged fix that proves itself or is halted."""
