"""What the controllers of nodes share: conditions, taints, pods by node."""

from __future__ import annotations

from collections.abc import Iterable

from sampan.api.obj import Body, Obj
from sampan.control.facts import Condition
from sampan.lib.clock import rfc3339

NOT_READY = "node.kubernetes.io/not-ready"
UNREACHABLE = "node.kubernetes.io/unreachable"
OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"
ZONE, REGION = "topology.kubernetes.io/zone", "topology.kubernetes.io/region"
EXCLUDED = "node.kubernetes.io/exclude-disruption"
DISRUPTION_TARGET = "DisruptionTarget"


def on_node(pod: Obj) -> Iterable[str]:
    """Index: the node a pod is bound to."""
    node = pod.spec.get("nodeName")
    if node:
        yield node


def condition(node: Obj, kind: str) -> Body | None:
    return next((c for c in node.status.get("conditions") or () if c["type"] == kind), None)


def ready(node: Obj) -> str:
    """True, False or Unknown; '' while nothing was told."""
    found = condition(node, "Ready")
    return str(found["status"]) if found is not None else ""


def taints(node: Obj, effect: str) -> list[Body]:
    return [t for t in node.spec.get("taints") or () if t.get("effect") == effect]


def zone(node: Obj) -> str:
    """Region and zone as one name; '' where a node has neither."""
    region, name = node.labels.get(REGION, ""), node.labels.get(ZONE, "")
    return f"{region}:\x00:{name}" if region or name else ""


def with_taints(
    node: Obj, effect: str, ours: Iterable[str], wanted: Iterable[str], now: float
) -> Body | None:
    """The node's body with the taints *wanted* of the keys *ours*; None where nothing changes."""
    held = list(node.spec.get("taints") or ())
    keys, needed = frozenset(ours), frozenset(wanted)
    kept = [
        t for t in held
        if t.get("effect") != effect or t["key"] not in keys or t["key"] in needed
    ]  # fmt: skip
    there = {t["key"] for t in kept if t.get("effect") == effect}
    new = [{"key": k, "effect": effect, "timeAdded": rfc3339(now)} for k in sorted(needed - there)]
    if not new and len(kept) == len(held):
        return None
    spec = {k: v for k, v in node.spec.items() if k != "taints"}
    if kept or new:
        spec["taints"] = [*kept, *new]
    return {**node.body, "spec": spec}


def disruption(pod: Obj, why: Condition, now: float) -> Body:
    """The condition of a pod that is about to be disrupted, as *why* declares it."""
    held: Body = next(
        (c for c in pod.status.get("conditions") or () if c["type"] == DISRUPTION_TARGET), {}
    )
    at = held.get("lastTransitionTime") if held.get("status") == why.status else None
    return {
        "type": why.type,
        "status": why.status,
        "reason": why.reason,
        "message": why.message,
        "lastTransitionTime": at or rfc3339(now),
        "observedGeneration": int(pod.meta.get("generation", 1)),
    }
