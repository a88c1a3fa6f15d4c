"""The catalogue: one declarative ResourceType per kind, objects, Status errors, patches, tables. No I/O."""
