"""A pod as scheduling sees it: its requests, ports and shape, computed once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

import orjson

from sampan.api.obj import Body, Obj
from sampan.lib.quantity import quantity
from sampan.scheduler.terms import Terms

Port: TypeAlias = tuple[str, str, int]  # address, protocol, number

# What a pod without requests is taken to use when nodes are scored.
_ASSUMED = {"cpu": 100, "memory": 200 << 20}
# Resources a pod as a whole may request in place of its containers.
_POD_LEVEL = ("cpu", "memory")
_SHAPING = (
    "nodeName", "nodeSelector", "affinity", "tolerations", "topologySpreadConstraints",
    "overhead", "resources",
)  # fmt: skip
# Volumes that every node can make; the others may tie a pod to some nodes.
_ANYWHERE = frozenset(
    ("configMap", "secret", "emptyDir", "projected", "downwardAPI", "hostPath", "image")
)
_SHAPING_CONTAINER = ("image", "ports", "resources", "restartPolicy")


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


def host_ports(spec: Body) -> set[Port]:
    """(address, protocol, port) of every host port a pod takes: its containers' and sidecars'."""
    holders = [
        *(spec.get("containers") or ()),
        *(c for c in spec.get("initContainers") or () if c.get("restartPolicy") == "Always"),
    ]
    return {
        (p.get("hostIP") or "0.0.0.0", p.get("protocol") or "TCP", int(p["hostPort"]))
        for c in holders
        for p in c.get("ports") or ()
        if p.get("hostPort")
    }


def _shape_of(obj: Obj) -> bytes:
    """What of a pod decides where it may run, as canonical JSON. A pod with volumes that may tie
    it never takes the answers of one without; a plug-in that judges claims answers for one pod only
    (``Prepared.unique``)."""
    spec = obj.spec
    containers, sidecars = spec.get("containers") or (), spec.get("initContainers") or ()
    parts = [
        obj.namespace, obj.meta.get("labels"), (obj.controller or {}).get("uid"),
        obj.is_deleting, {f: spec[f] for f in _SHAPING if f in spec},
        [[{f: c[f] for f in _SHAPING_CONTAINER if f in c} for c in group]
         for group in (containers, sidecars)],
        [v for v in spec.get("volumes") or () if not _ANYWHERE.intersection(v)],
    ]  # fmt: skip
    return orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)


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
class _Facts:
    """What follows from a shape."""

    requests: Mapping[str, int]
    ports: frozenset[Port]
    assumed: tuple[int, int]
    cls: PodClass


@lru_cache(maxsize=4096)
def _facts_of(shape: bytes) -> _Facts:
    namespace, labels, _owner, deleting, spec, groups, _volumes = orjson.loads(shape)
    containers, sidecars = groups
    spec = {**spec, "containers": containers, "initContainers": sidecars}
    taken = pod_requests(spec, assumed=_ASSUMED)
    affinity = {k: v for k, v in (spec.get("affinity") or {}).items() if k != "nodeAffinity" and v}
    key = orjson.dumps([namespace, labels, deleting, affinity], option=orjson.OPT_SORT_KEYS)
    return _Facts(
        pod_requests(spec), frozenset(host_ports(spec)),
        (taken.get("cpu", 0), taken.get("memory", 0)), _class_of(key),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class PodInfo:
    """A pod, with what scheduling needs of it computed once for all pods of its shape.

    requests: what must be left on a node; assumed: CPU (millicores) and memory (bytes) it is taken
    to use when nodes are scored.
    """

    obj: Obj
    shape: bytes
    requests: Mapping[str, int]
    ports: frozenset[Port]
    assumed: tuple[int, int]
    cls: PodClass
    priority: int

    @staticmethod
    def of(obj: Obj) -> PodInfo:
        shape = _shape_of(obj)
        facts = _facts_of(shape)
        return PodInfo(
            obj, shape, facts.requests, facts.ports, facts.assumed, facts.cls,
            int(obj.spec.get("priority") or 0),
        )  # fmt: skip

    @property
    def spec(self) -> Body:
        return self.obj.spec

    @property
    def uid(self) -> str:
        return self.obj.uid
