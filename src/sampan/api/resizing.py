"""What a pod holds while its containers are resized in place. Pure; shared by quotas and the
scheduler."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sampan.api import amounts
from sampan.api.amounts import Amounts
from sampan.api.obj import Body

PENDING, IN_PROGRESS = "PodResizePending", "PodResizeInProgress"
INFEASIBLE, DEFERRED = "Infeasible", "Deferred"


def held_spec(body: Body) -> Body:
    """The spec of a pod with what its containers hold in place of what they ask for: the largest
    of what is asked, allocated and in force. A resize the node can never make counts for nothing.
    The pod's own spec where nothing of that differs."""
    spec: Body = body.get("spec") or {}
    status: Body = body.get("status") or {}
    infeasible = any(
        c.get("type") == PENDING and c.get("reason") == INFEASIBLE
        for c in status.get("conditions") or ()
    )
    changed: Body = {}
    for kind, told in (
        ("containers", "containerStatuses"), ("initContainers", "initContainerStatuses"),
    ):  # fmt: skip
        statuses = {s.get("name"): s for s in status.get(told) or ()}
        containers = spec.get(kind) or ()
        held = [_held(c, statuses.get(c.get("name")), kind, infeasible) for c in containers]
        if any(h is not c for h, c in zip(held, containers, strict=True)):
            changed[kind] = held
    return {**spec, **changed} if changed else spec


def _held(container: Body, status: Body | None, kind: str, infeasible: bool) -> Body:
    if status is None or (kind == "initContainers" and container.get("restartPolicy") != "Always"):
        return container
    asked: Body = container.get("resources") or {}
    actual: Body = status.get("resources") or {}
    allocated = status.get("allocatedResources") or {}
    if not actual and not allocated:
        return container
    limits = (asked.get("limits") or {}, actual.get("limits") or {})
    requests = (asked.get("requests") or {}, actual.get("requests") or {}, allocated)
    if limits[0] == limits[1] and requests[0] == requests[1] == requests[2]:
        return container
    first = 1 if infeasible else 0
    made = {"limits": _largest(limits[first:]), "requests": _largest(requests[first:])}
    return {**container, "resources": {**asked, **made}}


def _largest(lists: Sequence[Mapping[str, str]]) -> dict[str, str]:
    total: Amounts = {}
    for one in lists:
        total = amounts.largest(total, amounts.read(one))
    return amounts.show(total)
