"""How far the growth of a claim is: what its status says, and what that means. Pure.

Shared by the controller that begins it and by the node that ends it.
"""

from __future__ import annotations

from sampan.api.obj import Body
from sampan.control import storage

CONTROLLER_IN_PROGRESS = "ControllerResizeInProgress"
CONTROLLER_INFEASIBLE = "ControllerResizeInfeasible"
NODE_PENDING = "NodeResizePending"
NODE_IN_PROGRESS = "NodeResizeInProgress"
NODE_INFEASIBLE = "NodeResizeInfeasible"
CONDITIONS = ("Resizing", "FileSystemResizePending", "ControllerResizeError", "NodeResizeError")


def state(claim: Body) -> str:
    """Of its ``allocatedResourceStatuses``, '' where nothing is under way."""
    status: Body = claim.get("status") or {}
    return str((status.get("allocatedResourceStatuses") or {}).get("storage") or "")


def target(claim: Body, volume: Body) -> str | None:
    """The size to grow to now; None where it is the node's turn. A growth that is under way ends
    before another one begins; one that its node has found impossible begins anew with what is asked
    for by now, be it less (upstream: expandAndRecover, for drivers that grow on nodes only)."""
    asked = str(claim["spec"]["resources"]["requests"]["storage"])
    given = ((claim.get("status") or {}).get("allocatedResources") or {}).get("storage")
    now = state(claim)
    if storage.capacity(volume) < storage.asked(claim):
        if now in (NODE_PENDING, NODE_IN_PROGRESS):
            under_way = storage.size({"storage": given or asked})
            return None if storage.capacity(volume) >= under_way else str(given or asked)
        if now == CONTROLLER_IN_PROGRESS:
            return str(given or asked)
        return asked
    if now in (NODE_PENDING, NODE_IN_PROGRESS):
        return None
    if now == NODE_INFEASIBLE:
        return None if given == asked else asked  # the same is as impossible as it was
    return str(given or asked) if now or given is None else _later(str(given), asked)


def _later(given: str, asked: str) -> str:
    """Of a growth that has ended and what is asked for: the larger."""
    larger = storage.size({"storage": given}) > storage.size({"storage": asked})
    return given if larger else asked


def is_nodes_turn(claim: Body) -> bool:
    """Whether the node is to grow the volume. What it has found impossible it tries again when a
    pod starts: its disk may be another one by now."""
    return state(claim) in (NODE_PENDING, NODE_IN_PROGRESS, NODE_INFEASIBLE)


def allocated(status: Body, size: str, state: str) -> Body:
    """*status* of a claim that is on its way to *size*."""
    return {
        **status,
        "allocatedResources": {**(status.get("allocatedResources") or {}), "storage": size},
        "allocatedResourceStatuses": {
            **(status.get("allocatedResourceStatuses") or {}), "storage": state,
        },
    }  # fmt: skip


def with_condition(
    status: Body, kind: str, message: str = "", *, at: str, keep: bool = False
) -> Body:
    """With that condition in the place of all that speak of growth (keep: beside them)."""
    gone = (kind,) if keep else CONDITIONS
    held = [c for c in status.get("conditions") or () if c["type"] not in gone]
    made: Body = {
        "type": kind, "status": "True", "lastProbeTime": None, "lastTransitionTime": at,
    }  # fmt: skip
    if message:
        made["message"] = message
    return {**status, "conditions": [*held, made]}


def finished(status: Body, size: str) -> Body:
    """The claim has *size*; what was allocated stays told."""
    done = {**status, "capacity": {**(status.get("capacity") or {}), "storage": size}}
    for name, left in (
        ("conditions", [c for c in status.get("conditions") or () if c["type"] not in CONDITIONS]),
        ("allocatedResourceStatuses",
         {k: v for k, v in (status.get("allocatedResourceStatuses") or {}).items()
          if k != "storage"}),
    ):  # fmt: skip
        if left:
            done[name] = left
        else:
            done.pop(name, None)
    return done
