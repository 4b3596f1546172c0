"""Moving dead events to the archive without losing one."""
