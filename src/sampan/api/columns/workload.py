"""Columns of the workload kinds that keep pods running."""

from __future__ import annotations

from sampan.api.columns.cells import (
    AGE,
    NAME,
    NONE,
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


def _labels(labels: Body | None) -> str:
    return ",".join(f"{k}={v}" for k, v in sorted((labels or {}).items())) or NONE


_TEMPLATE = (
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
)
_WIDE = (
    *_TEMPLATE,
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

REPLICATION_CONTROLLER = (
    *REPLICA_SET[:5],
    *_TEMPLATE,
    Column(
        "Selector",
        lambda body, _now: _labels(dig(body, "spec.selector")),
        priority=1,
        description="Which pods are counted as its replicas.",
    ),
)

STATEFUL_SET = (
    NAME,
    Column("Ready", _ready, description="Number of the pod with ready state"),
    AGE,
    *_TEMPLATE,
)

DAEMON_SET = (
    NAME,
    number("Desired", "status.desiredNumberScheduled", about="How many nodes should run its pod."),
    number("Current", "status.currentNumberScheduled", about="How many of these do run it."),
    number("Ready", "status.numberReady", about="How many of these run it ready."),
    number("Up-to-date", "status.updatedNumberScheduled", about="How many run the newest one."),
    number("Available", "status.numberAvailable", about="How many run it available."),
    Column(
        "Node Selector",
        lambda body, _now: _labels(dig(body, "spec.template.spec.nodeSelector")),
        description="The nodeSelector of its pods.",
    ),
    AGE,
    *_WIDE,
)


def _controller(body: Body, _now: float) -> str:
    owners = dig(body, "metadata.ownerReferences", [])
    owner = next((o for o in owners if o.get("controller")), None)
    if owner is None:
        return NONE
    group = owner["apiVersion"].rpartition("/")[0]
    kind = owner["kind"].lower()
    return f"{kind}.{group}/{owner['name']}" if group else f"{kind}/{owner['name']}"


CONTROLLER_REVISION = (
    NAME,
    Column("Controller", _controller, description="The object whose state it keeps."),
    Column(
        "Revision",
        lambda body, _now: str(dig(body, "revision", 0)),
        description="The number of the state: a higher one is newer.",
    ),
    AGE,
)

POD_TEMPLATE = (
    NAME,
    Column(
        "Containers",
        lambda body, _now: container_names(dig(body, "template.spec", {})),
        description="Names of each container in the template.",
    ),
    Column(
        "Images",
        lambda body, _now: container_images(dig(body, "template.spec", {})),
        description="Images referenced by each container in the template.",
    ),
    Column(
        "Pod Labels",
        lambda body, _now: _labels(dig(body, "template.metadata.labels")),
        description="The labels of its pods.",
    ),
)
