"""Moving dead events to the archive table without losing one."""
