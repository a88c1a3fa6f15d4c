"""The revisioned store: protocol, memory, sqlite. Opaque bytes; deterministic, no clock."""
