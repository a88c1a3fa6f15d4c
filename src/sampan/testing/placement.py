"""Nodes, pods and clusters without an API server, for tests of the scheduler."""

from __future__ import annotations

import random
from typing import Any

from sampan.api.obj import Body, Key, Obj
from sampan.lib.clock import RealClock
from sampan.scheduler.cycle import Cycle, NoFit
from sampan.scheduler.framework import PodInfo, Profile
from sampan.scheduler.plugins import Means, default_profile
from sampan.scheduler.snapshot import Snapshot

REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
HOSTNAME, ZONE = "kubernetes.io/hostname", "topology.kubernetes.io/zone"


class NoCaches:
    """Of a cluster without anything but nodes and pods."""

    def __getitem__(self, resource: str) -> Any:
        raise AssertionError(resource)


def profile(seed: int = 1) -> Profile:
    nobody: Any = None
    empty: Any = NoCaches()
    return default_profile(Means(nobody, empty, RealClock(), random.Random(seed), ()))


def node(
    name: str, *, cpu: str = "2", memory: str = "4Gi", pods: str = "10",
    labels: dict[str, str] | None = None, images: list[Body] | None = None,
    more: dict[str, str] | None = None, **spec: Any,
) -> Obj:  # fmt: skip
    sizes = {"cpu": cpu, "memory": memory, "pods": pods, **(more or {})}
    status: Body = {"allocatable": sizes, "capacity": sizes}
    if images:
        status["images"] = images
    body = {
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "uid": f"node-{name}",
                     "labels": {HOSTNAME: name} if labels is None else labels},
        "spec": spec, "status": status,
    }  # fmt: skip
    return Obj.of(Key("nodes", "", name), body, 1)


def pod(
    name: str = "p", *, cpu: str = "", memory: str = "", labels: dict[str, str] | None = None,
    namespace: str = "default", on: str = "", status: Body | None = None, hostPort: int = 0,
    deleting: bool = False, requests: dict[str, str] | None = None, **spec: Any,
) -> Obj:  # fmt: skip
    container: Body = {"name": "c", "image": "i"}
    wanted = {**({"cpu": cpu} if cpu else {}), **({"memory": memory} if memory else {}),
              **(requests or {})}  # fmt: skip
    if wanted:
        container["resources"] = {"requests": wanted}
    if hostPort:
        container["ports"] = [{"containerPort": 80, "hostPort": hostPort, "protocol": "TCP"}]
    meta: Body = {"name": name, "namespace": namespace, "uid": f"{namespace}-{name}",
                  "labels": labels or {}}  # fmt: skip
    if deleting:
        meta["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    spec = {"containers": [container], **spec}
    if on:
        spec["nodeName"] = on
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec,
            "status": status or {}}  # fmt: skip
    return Obj.of(Key("pods", namespace, name), body, 1)


def term(key: str = ZONE, *, app: str = "", **more: Any) -> Body:
    """A PodAffinityTerm; app: its label."""
    return {"topologyKey": key, "labelSelector": {"matchLabels": {"app": app}}, **more}


def near(*terms: Body) -> Body:
    return {"podAffinity": {REQUIRED: list(terms)}}


def apart(*terms: Body) -> Body:
    return {"podAntiAffinity": {REQUIRED: list(terms)}}


def spread(key: str = ZONE, skew: int = 1, *, app: str = "", **more: Any) -> Body:
    return {"topologyKey": key, "maxSkew": skew, "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": {"matchLabels": {"app": app}}, **more}  # fmt: skip


def cycle(
    nodes: list[Obj], placed: list[Obj] | None = None,
    namespaces: dict[str, dict[str, str]] | None = None, seed: int = 1,
) -> Cycle:  # fmt: skip
    view = Snapshot(lambda name: (namespaces or {}).get(name, {}))
    for n in nodes:
        view.set_node(n)
    for p in placed or ():
        view.set_pod(p)
    return Cycle(view, profile(seed), random.Random(seed))


def decide(p: Obj, nodes: list[Obj], placed: list[Obj] | None = None, **more: Any) -> str:
    """The node's name, or the message without the part about preemption."""
    found = cycle(nodes, placed, **more).decide(PodInfo.of(p))
    return found.message() if isinstance(found, NoFit) else found
