"""The revisioned store: protocol, memory, sqlite. Opaque bytes under string keys; deterministic, no clock."""
