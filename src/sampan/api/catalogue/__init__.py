"""The catalogue: one declaration per built-in kind, a module per family. Adding a kind is adding a
record to one of them."""

from __future__ import annotations

from sampan.api.catalogue import (
    access,
    apiregistration,
    apps,
    autoscaling,
    batch,
    certificates,
    core,
    flowcontrol,
    limits,
    metrics,
    network,
    node,
    policy,
    storage,
)
from sampan.api.resource import Registry

_FAMILIES = (
    core,
    limits,
    network,
    apps,
    autoscaling,
    batch,
    policy,
    access,
    certificates,
    storage,
    metrics,
    apiregistration,
    node,
    flowcontrol,
)


def builtin() -> Registry:
    """Every kind the program is born with."""
    return Registry(tuple(kind for family in _FAMILIES for kind in family.KINDS))
