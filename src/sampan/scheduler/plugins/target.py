"""Pods that name their node, and nodes that take no new pods."""

from __future__ import annotations

from sampan.control.placement import tolerates
from sampan.scheduler.framework import NodeInfo, PodInfo, Reject, Verdict


class NodeName:
    def filter(self, pod: PodInfo, node: NodeInfo) -> Verdict:
        wanted = pod.spec.get("nodeName")
        if wanted and wanted != node.obj.name:
            return Reject("node(s) didn't match the requested node name")
        return None


class Unschedulable:
    """Cordoned nodes; a pod may tolerate it."""

    _TAINT = {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}  # noqa: RUF012

    def filter(self, pod: PodInfo, node: NodeInfo) -> Verdict:
        if node.obj.spec.get("unschedulable") and not tolerates(pod.spec, self._TAINT):
            return Reject("node(s) were unschedulable")
        return None
