"""The scheduling framework: small plug-ins, verdicts as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from sampan.api.obj import Body, Obj
from sampan.lib.quantity import quantity


@dataclass(frozen=True, slots=True)
class Reject:
    """Why a node does not fit. curable: removing pods from the node could change it."""

    reason: str
    curable: bool = False


Verdict = Reject | None  # None: it fits


def amounts(requests: Mapping[str, Any]) -> dict[str, int]:
    """Requests by resource: cpu in millicores, everything else in whole units, rounded up."""
    found = {}
    for name, value in requests.items():
        parsed = quantity(value)
        found[name] = parsed.millis if name == "cpu" else parsed.whole
    return found


def _add(total: dict[str, int], part: Mapping[str, int]) -> None:
    for name, value in part.items():
        total[name] = total.get(name, 0) + value


def pod_requests(spec: Body) -> dict[str, int]:
    """What a pod needs: its containers and sidecars together, or the largest moment of its
    initialisation, and its overhead."""

    def of(container: Body) -> dict[str, int]:
        return amounts((container.get("resources") or {}).get("requests") or {})

    total: dict[str, int] = {}
    for container in spec.get("containers") or ():
        _add(total, of(container))
    sidecars: dict[str, int] = {}
    peak: dict[str, int] = {}
    for container in spec.get("initContainers") or ():
        need = of(container)
        if container.get("restartPolicy") == "Always":
            _add(sidecars, need)
            need = dict(sidecars)
        else:
            _add(need, sidecars)
        for name, value in need.items():
            peak[name] = max(peak.get(name, 0), value)
    _add(total, sidecars)
    for name, value in peak.items():
        total[name] = max(total.get(name, 0), value)
    given = amounts((spec.get("resources") or {}).get("requests") or {})
    total.update(given)  # requests of the pod as a whole stand above those of its containers
    _add(total, amounts(spec.get("overhead") or {}))
    return total


def host_ports(spec: Body) -> set[tuple[str, str, int]]:
    """(address, protocol, port) of every host port a pod takes."""
    return {
        (p.get("hostIP") or "0.0.0.0", p.get("protocol", "TCP"), int(p["hostPort"]))
        for c in (*(spec.get("containers") or ()), *(spec.get("initContainers") or ()))
        for p in c.get("ports") or ()
        if p.get("hostPort")
    }


@dataclass(frozen=True, slots=True)
class PodInfo:
    """A pod, with what scheduling needs of it computed once."""

    obj: Obj
    requests: Mapping[str, int]
    ports: frozenset[tuple[str, str, int]]
    owner: str

    @staticmethod
    def of(obj: Obj) -> PodInfo:
        owner = (obj.controller or {}).get("uid", "")
        return PodInfo(obj, pod_requests(obj.spec), frozenset(host_ports(obj.spec)), str(owner))

    @property
    def spec(self) -> Body:
        return self.obj.spec


@dataclass(slots=True)
class NodeInfo:
    """A node and the pods it has, assumed ones included."""

    obj: Obj
    allocatable: dict[str, int]
    pods: dict[str, PodInfo] = field(default_factory=dict)  # by uid
    requested: dict[str, int] = field(default_factory=dict)

    @staticmethod
    def of(obj: Obj) -> NodeInfo:
        return NodeInfo(obj, amounts(obj.status.get("allocatable") or {}))

    def add(self, pod: PodInfo) -> None:
        if pod.obj.uid not in self.pods:
            self.pods[pod.obj.uid] = pod
            _add(self.requested, pod.requests)

    def remove(self, uid: str) -> None:
        pod = self.pods.pop(uid, None)
        if pod is not None:
            for name, value in pod.requests.items():
                self.requested[name] -= value


class Filter(Protocol):
    """Whether a node fits a pod at all."""

    def filter(self, pod: PodInfo, node: NodeInfo) -> Verdict: ...


class Score(Protocol):
    """How well a node fits, 0 to 100. weight: against the other scores."""

    weight: int

    def score(self, pod: PodInfo, node: NodeInfo) -> float: ...
