"""The host's definitions, a file or a folder each."""
