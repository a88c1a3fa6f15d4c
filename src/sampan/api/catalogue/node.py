"""The kind of group node.k8s.io: how pods are run."""

from __future__ import annotations

from sampan.api.catalogue.parts import fields, strict
from sampan.api.columns.node import RUNTIME_CLASS
from sampan.api.resource import ResourceType, Rules
from sampan.api.rules import node as rules

KINDS: tuple[ResourceType, ...] = (
    ResourceType(
        group="node.k8s.io", kind="RuntimeClass", plural="runtimeclasses", singular="runtimeclass",
        namespaced=False, definition="io.k8s.api.node.v1.RuntimeClass", fields=fields(),
        columns=RUNTIME_CLASS,
        rules=Rules(
            default=strict(rules.default),
            validate=rules.validate,
            validate_update=rules.validate_update,
        ),
    ),
)  # fmt: skip
