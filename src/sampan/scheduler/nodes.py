"""A node as scheduling sees it: what it has, what its pods take."""

from __future__ import annotations

from dataclasses import dataclass, field

from sampan.api.obj import Obj
from sampan.control.placement import Port
from sampan.scheduler.pods import PodClass, PodInfo, add, amounts


@dataclass(slots=True)
class NodeInfo:
    """A node and the pods it has, assumed ones included.

    requested: by resource; assumed_cpu, assumed_memory: what its pods are taken to use when nodes
    are scored; ports: host ports with the number of pods that hold each; classes: how many of its
    pods are of each class.
    """

    obj: Obj
    allocatable: dict[str, int]
    pods: dict[str, PodInfo] = field(default_factory=dict)  # by uid
    requested: dict[str, int] = field(default_factory=dict)
    assumed_cpu: int = 0
    assumed_memory: int = 0
    ports: dict[Port, int] = field(default_factory=dict)
    classes: dict[PodClass, int] = field(default_factory=dict)

    @staticmethod
    def of(obj: Obj) -> NodeInfo:
        return NodeInfo(obj, amounts(obj.status.get("allocatable") or {}))

    def add(self, pod: PodInfo) -> None:
        if pod.obj.uid in self.pods:
            return
        self.pods[pod.obj.uid] = pod
        size = pod.size
        add(self.requested, size.requests)
        self.assumed_cpu += size.assumed[0]
        self.assumed_memory += size.assumed[1]
        for port in size.ports:
            self.ports[port] = self.ports.get(port, 0) + 1
        self.classes[pod.cls] = self.classes.get(pod.cls, 0) + 1

    def remove(self, uid: str) -> PodInfo | None:
        pod = self.pods.pop(uid, None)
        if pod is None:
            return None
        size = pod.size
        for name, value in size.requests.items():
            self.requested[name] -= value
        self.assumed_cpu -= size.assumed[0]
        self.assumed_memory -= size.assumed[1]
        for port in size.ports:
            self.ports[port] -= 1
            if not self.ports[port]:
                del self.ports[port]
        self.classes[pod.cls] -= 1
        if not self.classes[pod.cls]:
            del self.classes[pod.cls]
        return pod

    def copy(self) -> NodeInfo:
        """One to try changes on."""
        return NodeInfo(
            self.obj, self.allocatable, dict(self.pods), dict(self.requested),
            self.assumed_cpu, self.assumed_memory, dict(self.ports), dict(self.classes),
        )  # fmt: skip
