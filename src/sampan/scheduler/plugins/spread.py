"""Pods of one owner are spread: the loss of a node is not to be the loss of all of them."""

from __future__ import annotations

from sampan.scheduler.framework import NodeInfo, PodInfo


class SameOwner:
    weight = 2

    def score(self, pod: PodInfo, node: NodeInfo) -> float:
        if not pod.owner:
            return 100.0
        siblings = sum(p.owner == pod.owner and not p.obj.is_deleting for p in node.pods.values())
        return 100.0 / (1 + siblings)
