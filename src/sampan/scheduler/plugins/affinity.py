"""Node selectors and node affinity."""

from __future__ import annotations

from sampan.api.obj import Body
from sampan.control.placement import matches_term, selects
from sampan.scheduler.framework import NodeInfo, PodInfo, Reject, Verdict


class NodeAffinity:
    """Required terms filter, preferred ones score."""

    weight = 2

    def filter(self, pod: PodInfo, node: NodeInfo) -> Verdict:
        fits = selects(pod.spec, node.obj)
        return None if fits else Reject("node(s) didn't match Pod's node affinity/selector")

    def score(self, pod: PodInfo, node: NodeInfo) -> float:
        wanted = self._affinity(pod).get("preferredDuringSchedulingIgnoredDuringExecution") or ()
        total = sum(int(w.get("weight", 0)) for w in wanted)
        if not total:
            return 0.0
        held = [w for w in wanted if matches_term(w.get("preference") or {}, node.obj)]
        return 100.0 * sum(int(w["weight"]) for w in held) / total

    @staticmethod
    def _affinity(pod: PodInfo) -> Body:
        affinity: Body = (pod.spec.get("affinity") or {}).get("nodeAffinity") or {}
        return affinity
