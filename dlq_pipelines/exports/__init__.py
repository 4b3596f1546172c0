"""The day's deaths as files that any tool reads."""
