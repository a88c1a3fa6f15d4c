"""Columns of Deployments and ReplicaSets."""

from __future__ import annotations

from sampan.api.columns.cells import (
    AGE,
    NAME,
    container_images,
    container_names,
    dig,
    number,
)
from sampan.api.obj import Body
from sampan.api.resource import Column
from sampan.lib.selectors import format_label_selector


def _ready(body: Body, _now: float) -> str:
    return f"{dig(body, 'status.readyReplicas', 0)}/{dig(body, 'spec.replicas', 0)}"


_WIDE = (
    Column(
        "Containers",
        lambda body, _now: container_names(dig(body, "spec.template.spec", {})),
        priority=1,
        description="Names of each container in the template.",
    ),
    Column(
        "Images",
        lambda body, _now: container_images(dig(body, "spec.template.spec", {})),
        priority=1,
        description="Images referenced by each container in the template.",
    ),
    Column(
        "Selector",
        lambda body, _now: format_label_selector(dig(body, "spec.selector")),
        priority=1,
        description="Which pods are counted as its replicas.",
    ),
)

DEPLOYMENT = (
    NAME,
    Column("Ready", _ready, description="Number of the pod with ready state"),
    Column(
        "Up-to-date",
        lambda body, _now: dig(body, "status.updatedReplicas", 0),
        description="Non-terminated pods that have the desired template.",
    ),
    Column(
        "Available",
        lambda body, _now: dig(body, "status.availableReplicas", 0),
        description="Pods ready for at least minReadySeconds.",
    ),
    AGE,
    *_WIDE,
)

REPLICA_SET = (
    NAME,
    number("Desired", "spec.replicas", about="The desired number of pods."),
    number("Current", "status.replicas", about="The number of pods that exist."),
    number("Ready", "status.readyReplicas", about="The number of pods that are ready."),
    AGE,
    *_WIDE,
)
