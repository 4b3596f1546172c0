"""Causes: the classes of failures that events die of."""
