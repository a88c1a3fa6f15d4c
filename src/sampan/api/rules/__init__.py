"""Pure per-kind hooks of the catalogue: default, prepare, validate, warn."""
