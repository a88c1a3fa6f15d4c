"""The nodes and their pods as scheduling sees them: kept by events, ahead by what is assumed."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sampan.api.obj import Obj
from sampan.scheduler.nodes import NodeInfo
from sampan.scheduler.pods import PodInfo


def _no_labels(_name: str) -> Mapping[str, str]:
    return {}


class Snapshot:
    """Nodes by name. A pod that was just bound is assumed on its node until its event comes.

    namespace_labels: of a namespace by name, asked when needed.
    """

    def __init__(self, namespace_labels: Callable[[str], Mapping[str, str]] = _no_labels) -> None:
        self.nodes: dict[str, NodeInfo] = {}
        self.namespace_labels = namespace_labels
        self._homeless: dict[str, dict[str, PodInfo]] = {}  # by node that is not there (yet)
        self._where: dict[str, str] = {}  # pod uid -> node

    def set_node(self, obj: Obj) -> None:
        held = self.nodes.get(obj.name)
        info = NodeInfo.of(obj)
        pods = held.pods if held is not None else self._homeless.pop(obj.name, {})
        for pod in pods.values():
            info.add(pod)
        self.nodes[obj.name] = info

    def remove_node(self, name: str) -> None:
        held = self.nodes.pop(name, None)
        if held is not None and held.pods:
            self._homeless[name] = held.pods

    def set_pod(self, obj: Obj) -> None:
        """A pod with a node; one that has ended takes nothing any more."""
        if obj.status.get("phase") in ("Succeeded", "Failed"):
            self.remove_pod(obj.uid)
            return
        self.place(PodInfo.of(obj), str(obj.spec["nodeName"]))

    def place(self, pod: PodInfo, node: str) -> None:
        self.remove_pod(pod.uid)
        self._where[pod.uid] = node
        held = self.nodes.get(node)
        if held is not None:
            held.add(pod)
        else:
            self._homeless.setdefault(node, {})[pod.uid] = pod

    def remove_pod(self, uid: str) -> None:
        node = self._where.pop(uid, None)
        if node is None:
            return
        if node in self.nodes:
            self.nodes[node].remove(uid)
        else:
            self._homeless.get(node, {}).pop(uid, None)

    def node_of(self, uid: str) -> str:
        """Where a pod is or is assumed to be; '' if nowhere."""
        return self._where.get(uid, "")
