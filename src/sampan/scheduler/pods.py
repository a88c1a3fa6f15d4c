"""A pod as scheduling sees it: its requests, ports and shape, computed once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import orjson

from sampan.api.obj import Body, Obj
from sampan.api.resizing import held_spec
from sampan.control.placement import Port, host_ports
from sampan.lib.quantity import quantity
from sampan.scheduler.terms import Terms

# What a pod without requests is taken to use when nodes are scored.
_ASSUMED = {"cpu": 100, "memory": 200 << 20}
# Resources a pod as a whole may request in place of its containers.
_POD_LEVEL = ("cpu", "memory")
_WISHES = ("nodeName", "nodeSelector", "tolerations", "topologySpreadConstraints")
# Volumes that every node can make; the others may tie a pod to some nodes.
_ANYWHERE = frozenset(
    ("configMap", "secret", "emptyDir", "projected", "downwardAPI", "hostPath", "image")
)
_SIZING_CONTAINER = ("ports", "resources", "restartPolicy")


@lru_cache(maxsize=4096)
def _amount(value: str | int | float, *, in_millis: bool) -> int:
    parsed = quantity(value)
    return parsed.millis if in_millis else parsed.whole


def amounts(requests: Mapping[str, Any]) -> dict[str, int]:
    """Requests by resource: cpu in millicores, everything else in whole units, rounded up."""
    return {name: _amount(value, in_millis=name == "cpu") for name, value in requests.items()}


def add(total: dict[str, int], part: Mapping[str, int]) -> None:
    for name, value in part.items():
        total[name] = total.get(name, 0) + value


def _requests(container: Body, assumed: Mapping[str, int]) -> dict[str, int]:
    given = (container.get("resources") or {}).get("requests") or {}
    return {**assumed, **amounts(given)}


def _of_containers(spec: Body, assumed: Mapping[str, int]) -> dict[str, int]:
    """Containers and sidecars together, or the largest moment of initialisation."""
    total: dict[str, int] = {}
    for container in spec.get("containers") or ():
        add(total, _requests(container, assumed))
    sidecars: dict[str, int] = {}
    peak: dict[str, int] = {}
    for container in spec.get("initContainers") or ():
        need = _requests(container, assumed)
        if container.get("restartPolicy") == "Always":
            add(sidecars, need)
            need = dict(sidecars)
        else:
            add(need, sidecars)
        for name, value in need.items():
            peak[name] = max(peak.get(name, 0), value)
    add(total, sidecars)
    for name, value in peak.items():
        total[name] = max(total.get(name, 0), value)
    return total


def pod_requests(spec: Body, *, assumed: Mapping[str, int] | None = None) -> dict[str, int]:
    """What a pod needs: its containers and sidecars together, or the largest moment of its
    initialisation; requests of the pod as a whole stand above those; and its overhead.
    assumed: of a container that requests nothing."""
    total = _of_containers(spec, assumed or {})
    given = (spec.get("resources") or {}).get("requests") or {}
    for name, value in amounts(given).items():
        if name in _POD_LEVEL or name.startswith("hugepages-"):
            total[name] = value
    add(total, amounts(spec.get("overhead") or {}))
    return total


def _dumps(parts: object) -> bytes:
    return orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)


def _keys_of(obj: Obj) -> tuple[bytes, bytes, bytes]:
    """What of a pod decides where it may run, as canonical JSON in three parts that are shared
    by ever fewer pods: what it takes, what it is to other pods, and what else it asks of nodes.
    A pod with volumes that may tie it never takes the answers of one without; a plug-in that judges
    claims answers for one pod only (``Prepared.unique``)."""
    spec = held_spec(obj.body) if obj.status.get("containerStatuses") else obj.spec
    groups = (spec.get("containers") or (), spec.get("initContainers") or ())
    affinity = spec.get("affinity") or {}
    size = [
        [[c.get(f) for f in _SIZING_CONTAINER] for c in group] for group in groups
    ], spec.get("overhead"), spec.get("resources")  # fmt: skip
    others = {k: v for k, v in affinity.items() if k != "nodeAffinity" and v}
    look = (obj.namespace, obj.meta.get("labels"), obj.is_deleting, others)
    wishes = (
        (obj.controller or {}).get("uid"), affinity.get("nodeAffinity"),
        [spec.get(f) for f in _WISHES], [[c.get("image") for c in group] for group in groups],
        [v for v in spec.get("volumes") or () if not _ANYWHERE.intersection(v)],
    )  # fmt: skip
    return _dumps(size), _dumps(look), _dumps(wishes)


class PodClass:
    """Pods that look alike to the affinity and spreading of others. Compared by identity."""

    __slots__ = ("deleting", "labels", "namespace", "terms")

    def __init__(
        self, namespace: str, labels: Mapping[str, str], deleting: bool, terms: Terms
    ) -> None:
        self.namespace = namespace
        self.labels = labels
        self.deleting = deleting
        self.terms = terms


@lru_cache(maxsize=4096)
def _class_of(key: bytes) -> PodClass:
    """Equal keys share one class while the cache lasts; after that there are two of a kind, which
    costs time, not truth."""
    namespace, labels, deleting, affinity = orjson.loads(key)
    return PodClass(namespace, labels or {}, deleting, Terms.of(affinity or {}, namespace))


@dataclass(frozen=True, slots=True)
class Size:
    """What pods with equal containers take. requests: what must be left on a node; assumed: CPU
    (millicores) and memory (bytes) they are taken to use when nodes are scored."""

    requests: Mapping[str, int]
    ports: frozenset[Port]
    assumed: tuple[int, int]


@lru_cache(maxsize=4096)
def _size_of(key: bytes) -> Size:
    groups, overhead, resources = orjson.loads(key)
    containers, first = (
        [dict(zip(_SIZING_CONTAINER, c, strict=True)) for c in group] for group in groups
    )
    spec = {"containers": containers, "initContainers": first,
            "overhead": overhead, "resources": resources}  # fmt: skip
    taken = pod_requests(spec, assumed=_ASSUMED)
    return Size(
        pod_requests(spec), frozenset(host_ports(spec)),
        (taken.get("cpu", 0), taken.get("memory", 0)),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class PodInfo:
    """A pod, with what scheduling needs of it computed once for all pods of its kind. shape: equal
    for pods that may run in the same places."""

    obj: Obj
    shape: bytes
    size: Size
    cls: PodClass
    priority: int

    @staticmethod
    def of(obj: Obj) -> PodInfo:
        size, look, wishes = _keys_of(obj)
        return PodInfo(
            obj, b"".join((size, look, wishes)), _size_of(size), _class_of(look),
            int(obj.spec.get("priority") or 0),
        )  # fmt: skip

    @property
    def requests(self) -> Mapping[str, int]:
        """What must be left on a node."""
        return self.size.requests

    @property
    def ports(self) -> frozenset[Port]:
        return self.size.ports

    @property
    def assumed(self) -> tuple[int, int]:
        """CPU and memory it is taken to use when nodes are scored."""
        return self.size.assumed

    @property
    def spec(self) -> Body:
        return self.obj.spec

    @property
    def uid(self) -> str:
        return self.obj.uid

    def takes_as(self, other: PodInfo) -> bool:
        """Whether the two are the same to a node and its other pods."""
        return self.cls is other.cls and self.size == other.size
