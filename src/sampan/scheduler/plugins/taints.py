"""Taints of nodes and tolerations of pods."""

from __future__ import annotations

from sampan.control.placement import tolerates, untolerated
from sampan.scheduler.framework import NodeInfo, PodInfo, Reject, Verdict


class Taints:
    """NoSchedule and NoExecute keep pods away, PreferNoSchedule makes a node worse."""

    weight = 3

    def filter(self, pod: PodInfo, node: NodeInfo) -> Verdict:
        if untolerated(pod.spec, node.obj, ("NoSchedule", "NoExecute")) is not None:
            return Reject("node(s) had untolerated taint(s)")
        return None

    def score(self, pod: PodInfo, node: NodeInfo) -> float:
        soft = [
            t
            for t in node.obj.spec.get("taints") or ()
            if t.get("effect") == "PreferNoSchedule" and not tolerates(pod.spec, t)
        ]
        return 100.0 / (1 + len(soft))
