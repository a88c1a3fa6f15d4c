"""The structural-schema walker: default, prune, validate, merge by list keys, OpenAPI. Knows schemas, not kinds."""
