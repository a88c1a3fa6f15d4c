"""The nodes and their pods as scheduling sees them: kept by events, ahead by what is assumed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import TypeVar

from sampan.api.obj import Obj
from sampan.scheduler.nodes import NodeInfo
from sampan.scheduler.pods import PodClass, PodInfo

K = TypeVar("K")
_LOG = 50_000  # node changes kept; a reader that is further behind starts anew


def _no_labels(_name: str) -> Mapping[str, str]:
    return {}


def image_names(node: Obj) -> Iterable[str]:
    """Every name of every image a node has."""
    for image in node.status.get("images") or ():
        yield from image.get("names") or ()


class Snapshot:
    """Nodes by name. A pod that was just bound is assumed on its node until its event comes.

    Whoever keeps something per node follows the changes: ``position`` and ``changed_since``.
    namespace_labels: of a namespace by name, asked when needed.
    """

    def __init__(self, namespace_labels: Callable[[str], Mapping[str, str]] = _no_labels) -> None:
        self.nodes: dict[str, NodeInfo] = {}
        self.affine: dict[PodClass, int] = {}
        self.affinity_version = 0
        self.epoch = 0
        self.images: dict[str, int] = {}
        self.priorities: dict[int, int] = {}
        self._namespace_labels = namespace_labels
        self.nominated: dict[str, dict[str, PodInfo]] = {}  # node -> uid -> pod
        self._nominee: dict[str, str] = {}  # uid -> node
        self._homeless: dict[str, dict[str, PodInfo]] = {}  # by node that is not there (yet)
        self._where: dict[str, str] = {}  # pod uid -> node
        self._log: deque[str] = deque()
        self._base = 0

    # -- changes

    @property
    def position(self) -> int:
        return self._base + len(self._log)

    def changed_since(self, position: int) -> Sequence[str] | None:
        """Names of the nodes that changed, each once; None if that was too long ago."""
        if position < self._base:
            return None
        count = self.position - position
        if count == 1:
            return (self._log[-1],)
        return [*dict.fromkeys(islice(reversed(self._log), count))]

    def _touch(self, name: str) -> None:
        self._log.append(name)
        if len(self._log) > _LOG:
            for _ in range(_LOG // 2):
                self._log.popleft()
            self._base += _LOG // 2

    def namespace_labels(self, name: str) -> Mapping[str, str]:
        return self._namespace_labels(name)

    def namespaces_changed(self) -> None:
        """Labels of a namespace: whatever was counted by them is to be counted anew."""
        self.epoch += 1
        self.affinity_version += 1

    # -- nodes

    def set_node(self, obj: Obj) -> None:
        held = self.nodes.get(obj.name)
        if held is not None and _decides(held.obj) == _decides(obj):
            held.obj = obj
            return
        info = NodeInfo.of(obj)
        if held is not None:
            self._count_images(held.obj, -1)
            pods = held.pods
        else:
            pods = self._homeless.pop(obj.name, {})
            for pod in pods.values():
                self._count_pod(pod, 1)
        for pod in pods.values():
            info.add(pod)
        self._count_images(obj, 1)
        self.nodes[obj.name] = info
        self._touch(obj.name)

    def remove_node(self, name: str) -> None:
        held = self.nodes.pop(name, None)
        if held is None:
            return
        self._count_images(held.obj, -1)
        for pod in held.pods.values():
            self._count_pod(pod, -1)
        if held.pods:
            self._homeless[name] = held.pods
        self._touch(name)

    def _count_images(self, node: Obj, sign: int) -> None:
        for name in image_names(node):
            _count(self.images, name, sign)

    def _count_pod(self, pod: PodInfo, sign: int) -> None:
        _count(self.priorities, pod.priority, sign)
        if pod.cls.terms:
            if pod.cls not in self.affine:
                self.affinity_version += 1
            _count(self.affine, pod.cls, sign)

    # -- pods

    def set_pod(self, obj: Obj) -> None:
        """A pod with a node; one that has ended takes nothing any more."""
        if obj.status.get("phase") in ("Succeeded", "Failed"):
            self.remove_pod(obj.uid)
            return
        self.place(PodInfo.of(obj), str(obj.spec["nodeName"]))

    def place(self, pod: PodInfo, node: str) -> None:
        uid = pod.uid
        self.denominate(uid)
        info = self.nodes.get(node)
        if info is not None and self._where.get(uid) == node:
            held = info.pods[uid]
            if held.takes_as(pod):
                info.pods[uid] = pod  # nothing that decides has changed
                return
        self.remove_pod(uid)
        self._where[uid] = node
        if info is not None:
            info.add(pod)
            self._count_pod(pod, 1)
            self._touch(node)
        else:
            self._homeless.setdefault(node, {})[uid] = pod

    def remove_pod(self, uid: str) -> None:
        node = self._where.pop(uid, None)
        if node is None:
            return
        if node in self.nodes:
            pod = self.nodes[node].remove(uid)
            if pod is not None:
                self._count_pod(pod, -1)
            self._touch(node)
        else:
            self._homeless.get(node, {}).pop(uid, None)

    def node_of(self, uid: str) -> str:
        """Where a pod is or is assumed to be; '' if nowhere."""
        return self._where.get(uid, "")

    # -- nominations: pods for which room was made, until they are placed

    def nominate(self, pod: PodInfo, node: str) -> None:
        self.denominate(pod.uid)
        self._nominee[pod.uid] = node
        self.nominated.setdefault(node, {})[pod.uid] = pod

    def denominate(self, uid: str) -> None:
        node = self._nominee.pop(uid, None)
        if node is not None:
            del self.nominated[node][uid]
            if not self.nominated[node]:
                del self.nominated[node]

    def nomination(self, uid: str) -> str:
        """The node a waiting pod is nominated to; '' if none."""
        return self._nominee.get(uid, "")


def _count(of: dict[K, int], key: K, by: int) -> None:
    total = of.get(key, 0) + by
    if total:
        of[key] = total
    else:
        of.pop(key, None)


def _decides(node: Obj) -> tuple[object, ...]:
    """What of a node decides about pods."""
    spec, status = node.spec, node.status
    return (node.labels, spec.get("taints"), spec.get("unschedulable"),
            status.get("allocatable"), status.get("images"), node.uid)  # fmt: skip
