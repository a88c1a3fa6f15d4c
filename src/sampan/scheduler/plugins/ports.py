"""Host ports: a port of a node serves one pod."""

from __future__ import annotations

from sampan.scheduler.framework import NodeInfo, PodInfo, Reject, Verdict

_ANY = "0.0.0.0"


class NodePorts:
    def filter(self, pod: PodInfo, node: NodeInfo) -> Verdict:
        if pod.ports:
            taken = {p for other in node.pods.values() for p in other.ports}
            if any(_clash(a, b) for a in pod.ports for b in taken):
                text = "node(s) didn't have free ports for the requested pod ports"
                return Reject(text, curable=True)
        return None


def _clash(a: tuple[str, str, int], b: tuple[str, str, int]) -> bool:
    return a[1:] == b[1:] and (a[0] == b[0] or _ANY in (a[0], b[0]))
