"""The catalogue: one ResourceType per kind, objects, Status errors, patches, tables. No I/O."""
