"""metrics.k8s.io: answered from the nodes' counters, never stored."""

from __future__ import annotations

from typing import Any

from sampan.api.catalogue.parts import fields
from sampan.api.columns.cells import NAME
from sampan.api.obj import Body
from sampan.api.resource import Column, ResourceType
from sampan.lib.quantity import Quantity, quantity


def _sum(resource: str) -> Column:
    def cell(body: Body, _now: float) -> Any:
        parts = [body] if "usage" in body else body.get("containers") or []
        total = Quantity(0)
        for part in parts:
            total = total + quantity(part["usage"][resource])
        return str(total)

    return Column(resource, cell, description=f"How much {resource} is used.")


_WINDOW = Column("Window", lambda body, _now: body.get("window", ""), description="Over how long.")
_COLUMNS = (NAME, _sum("cpu"), _sum("memory"), _WINDOW)

KINDS: tuple[ResourceType, ...] = (
    ResourceType(
        group="metrics.k8s.io", version="v1beta1", kind="NodeMetrics", plural="nodes",
        namespaced=False, verbs=("get", "list"), virtual=True, fields=fields(), columns=_COLUMNS,
    ),
    ResourceType(
        group="metrics.k8s.io", version="v1beta1", kind="PodMetrics", plural="pods",
        verbs=("get", "list"), virtual=True, fields=fields(), columns=_COLUMNS,
    ),
)  # fmt: skip
