"""Taints of nodes and tolerations of pods."""

from __future__ import annotations

from sampan.api.obj import Body
from sampan.scheduler.framework import NodeInfo, PodInfo, Reject, Verdict


def tolerates(spec: Body, taint: Body) -> bool:
    """Whether one of a pod's tolerations covers *taint*."""
    return any(_covers(t, taint) for t in spec.get("tolerations") or ())


def _covers(toleration: Body, taint: Body) -> bool:
    if toleration.get("effect") and toleration["effect"] != taint.get("effect"):
        return False
    key = toleration.get("key", "")
    if key and key != taint.get("key"):
        return False
    operator = toleration.get("operator") or "Equal"
    if operator == "Exists":
        return True
    value, have = toleration.get("value", ""), taint.get("value", "")
    if operator in ("Lt", "Gt"):
        try:
            limit, actual = int(value), int(have)
        except ValueError:
            return False
        return actual < limit if operator == "Lt" else actual > limit
    return bool(key) and value == have


class Taints:
    """NoSchedule and NoExecute keep pods away, PreferNoSchedule makes a node worse."""

    weight = 3

    def filter(self, pod: PodInfo, node: NodeInfo) -> Verdict:
        for taint in node.obj.spec.get("taints") or ():
            hard = taint.get("effect") in ("NoSchedule", "NoExecute")
            if hard and not tolerates(pod.spec, taint):
                return Reject("node(s) had untolerated taint(s)")
        return None

    def score(self, pod: PodInfo, node: NodeInfo) -> float:
        soft = [
            t
            for t in node.obj.spec.get("taints") or ()
            if t.get("effect") == "PreferNoSchedule" and not tolerates(pod.spec, t)
        ]
        return 100.0 / (1 + len(soft))
