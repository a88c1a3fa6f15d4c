"""A daemon's pod and its node: tolerations, the pin to one node, and which nodes it belongs on."""

from __future__ import annotations

from collections.abc import Iterable

from sampan.api.obj import Body, Obj
from sampan.control.placement import selects, untolerated

_NODE_TAINTS = "node.kubernetes.io/"
_TOLERATED = (
    ("not-ready", "NoExecute"), ("unreachable", "NoExecute"), ("disk-pressure", "NoSchedule"),
    ("memory-pressure", "NoSchedule"), ("pid-pressure", "NoSchedule"),
    ("unschedulable", "NoSchedule"),
)  # fmt: skip


def pod_spec(owner: Body) -> Body:
    """The template's spec with the tolerations every daemon has."""
    spec: Body = owner["spec"]["template"].get("spec") or {}
    taints = list(_TOLERATED)
    if spec.get("hostNetwork"):
        taints.append(("network-unavailable", "NoSchedule"))
    wanted = [
        {"key": f"{_NODE_TAINTS}{name}", "operator": "Exists", "effect": effect}
        for name, effect in taints
    ]
    held: list[Body] = list(spec.get("tolerations") or ())
    return {**spec, "tolerations": [*held, *(t for t in wanted if t not in held)]}


def pinned(spec: Body, node: str) -> Body:
    """*spec* for one node only: the required terms of its node affinity, which this node fulfils,
    are replaced by the node's name."""
    affinity: Body = spec.get("affinity") or {}
    term = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}
    inner = {
        **(affinity.get("nodeAffinity") or {}),
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]},
    }
    return {**spec, "affinity": {**affinity, "nodeAffinity": inner}}


def target_of(pod: Body) -> str:
    """The node the pod runs on or is pinned to; '' where it names none."""
    spec = pod["spec"]
    if spec.get("nodeName"):
        return str(spec["nodeName"])
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    for term in required.get("nodeSelectorTerms") or ():
        for e in term.get("matchFields") or ():
            values: list[str] = e.get("values") or []
            if e.get("key") == "metadata.name" and e.get("operator") == "In" and len(values) == 1:
                return str(values[0])
    return ""


def belongs(spec: Body, node: Obj) -> tuple[bool, bool]:
    """(whether a daemon of *spec* should be started on the node, whether one may stay)."""
    if spec.get("nodeName") not in (None, "", node.name) or not selects(spec, node):
        return False, False
    if untolerated(spec, node, ("NoExecute", "NoSchedule")) is None:
        return True, True
    return False, untolerated(spec, node, ("NoExecute",)) is None


def in_order(pods: Iterable[Body]) -> list[Body]:
    """Those on their nodes first, then the oldest."""
    return sorted(
        pods,
        key=lambda p: (
            not p["spec"].get("nodeName"), p["metadata"].get("creationTimestamp", ""),
            p["metadata"]["name"],
        ),
    )  # fmt: skip
