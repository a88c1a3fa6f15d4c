"""The sampan command; speaks only the public API and the host's process table."""
