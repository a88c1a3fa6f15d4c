"""The structural-schema walker: default, prune, validate, merge, OpenAPI. Knows no kinds."""
