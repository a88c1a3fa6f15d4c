"""Node selectors and node affinity."""

from __future__ import annotations

from sampan.api.obj import Body, Obj
from sampan.lib.selectors import from_node_expressions
from sampan.scheduler.framework import NodeInfo, PodInfo, Reject, Verdict


def matches_term(term: Body, node: Obj) -> bool:
    """Whether a NodeSelectorTerm chooses the node; an empty term chooses nothing."""
    expressions, fields = term.get("matchExpressions") or [], term.get("matchFields") or []
    if not expressions and not fields:
        return False
    return from_node_expressions(expressions).matches(node.labels) and from_node_expressions(
        fields
    ).matches({"metadata.name": node.name})


class NodeAffinity:
    """Required terms filter, preferred ones score."""

    weight = 2

    def filter(self, pod: PodInfo, node: NodeInfo) -> Verdict:
        selector = pod.spec.get("nodeSelector") or {}
        labels = node.obj.labels
        fits = all(labels.get(k) == v for k, v in selector.items())
        required = self._affinity(pod).get("requiredDuringSchedulingIgnoredDuringExecution")
        if fits and required:
            terms = required.get("nodeSelectorTerms") or ()
            fits = any(matches_term(t, node.obj) for t in terms)
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
