"""A host's code location, in which dead-letter operations are guests."""
