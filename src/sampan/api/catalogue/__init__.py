"""The catalogue: one declaration per built-in kind, a module per family. Adding a kind is adding a
record to one of them."""

from __future__ import annotations

from sampan.api.catalogue import access, apps, core, network, storage
from sampan.api.resource import Registry


def builtin() -> Registry:
    """Every kind the program is born with."""
    return Registry((*core.KINDS, *network.KINDS, *apps.KINDS, *access.KINDS, *storage.KINDS))
