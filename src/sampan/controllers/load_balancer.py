"""LoadBalancer services get an address of the host at once (docs/adr/0009).

The address is the cluster's own; where a port of the service is taken there, the next free one of
the cluster's block 127.x.y.1-254. Nothing is listened on here: the proxy reads the status.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from sampan.api.obj import Body, Key, Obj
from sampan.control.facts import NORMAL, WARNING, Event, Facts, Field, Mark
from sampan.control.plan import Action, Caches, Patch, Trigger
from sampan.controllers.port_repair import EVENTS as PORT_EVENTS

FINALIZER = "service.kubernetes.io/load-balancer-cleanup"
_NODE_PORTS = range(30000, 32768)
_EXCLUDED = "node.kubernetes.io/exclude-from-external-load-balancers"
_LEAVING = "ToBeDeletedByClusterAutoscaler"  # taint
_TEST = "tests/controllers/test_load_balancer.py::"
ENSURING = Event(
    NORMAL, "EnsuringLoadBalancer", "Ensuring load balancer",
    _TEST + "test_a_service_gets_the_own_address_at_once",
)  # fmt: skip
ENSURED = Event(
    NORMAL, "EnsuredLoadBalancer", "Ensured load balancer",
    _TEST + "test_what_counts_as_a_change",
)  # fmt: skip
FAILED = Event(
    WARNING, "SyncLoadBalancerFailed",
    "Error syncing load balancer: failed to ensure load balancer: {why}",
    _TEST + "test_a_full_block_is_told",
)  # fmt: skip
DELETING = Event(
    NORMAL, "DeletingLoadBalancer", "Deleting load balancer",
    _TEST + "test_another_type_or_the_end_cleans_up",
)  # fmt: skip
DELETED = Event(
    NORMAL, "DeletedLoadBalancer", "Deleted load balancer",
    _TEST + "test_another_type_or_the_end_cleans_up",
)  # fmt: skip
UPDATED = Event(
    NORMAL, "UpdatedLoadBalancer", "Updated load balancer with new hosts",
    _TEST + "test_other_nodes_are_told",
)  # fmt: skip
NO_NODES = Event(
    WARNING, "UnAvailableLoadBalancer", "There are no available nodes for LoadBalancer",
    _TEST + "test_other_nodes_are_told",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class View:
    """taken: (address, protocol, port) of other services. nodes: that may serve load balancers.
    is_changed: since it was last looked at, in what matters to a load balancer; False where nobody
    looked before. had_other_nodes: when it was last looked at."""

    service: Body
    taken: Callable[[str, str, int], bool]
    nodes: tuple[str, ...]
    is_changed: bool = False
    had_other_nodes: bool = False


def _is_ours(service: Obj | Body) -> bool:
    spec = service.spec if isinstance(service, Obj) else service["spec"]
    return spec.get("type") == "LoadBalancer" and not spec.get("loadBalancerClass")


def told(service: Obj) -> tuple[Any, ...]:
    """All of a service that a load balancer depends on."""
    spec = service.spec
    of_ports = ("name", "protocol", "port", "nodePort", "targetPort", "appProtocol")
    ports = [tuple(p.get(f) for f in of_ports) for p in spec.get("ports") or ()]
    fields = (
        "loadBalancerSourceRanges", "sessionAffinity", "sessionAffinityConfig", "loadBalancerIP",
        "externalIPs", "externalTrafficPolicy", "healthCheckNodePort",
    )  # fmt: skip
    families = len(spec.get("ipFamilies") or ())
    notes = service.meta.get("annotations") or {}
    return (service.uid, ports, families, notes, *(spec.get(f) for f in fields))


def _serves(node: Obj) -> bool:
    """Whether load balancers may lead to a node. That it is not ready is no reason against it."""
    if node.is_deleting or _EXCLUDED in node.labels:
        return False
    return not any(t.get("key") == _LEAVING for t in node.spec.get("taints") or ())


def _node_matters(old: Obj, new: Obj) -> bool:
    return (_EXCLUDED in old.labels) != (_EXCLUDED in new.labels)


def _claim(address: str, protocol: str, port: int) -> str:
    return f"{address} {protocol} {port}"


def _claims(service: Obj) -> Iterable[str]:
    """Index: where its load balancer is to be found."""
    if service.spec.get("type") != "LoadBalancer":
        return
    for entry in (service.status.get("loadBalancer") or {}).get("ingress") or ():
        for port in service.spec.get("ports") or ():
            yield _claim(entry.get("ip", ""), port.get("protocol", "TCP"), port["port"])


def _needs_look(service: Obj) -> Iterable[Key]:
    if service.spec.get("type") == "LoadBalancer" or FINALIZER in (
        service.meta.get("finalizers") or ()
    ):
        yield service.key


_OURS, _WAITING = "ours", "waiting"


def _waits(service: Obj) -> bool:
    return _is_ours(service) and not any(True for _ in _claims(service))


def _waiting(service: Obj, caches: Caches) -> Iterable[Key]:
    """Where one goes or moves, those that found no address may have it."""
    if _is_ours(service) and not _waits(service):
        for other in caches["services"].by(_WAITING, _WAITING):
            yield other.key


class LoadBalancerController:
    """address: the cluster's own on the host. ``reserve`` names ports of it that are not to be
    had (the API server's)."""

    name = "service-controller"
    workers = 1  # addresses are given one after the other: each plan sees the last one's

    def __init__(self, address: str) -> None:
        self._block = _block(address)
        self._address = address
        self._reserved: set[int] = set()
        self._seen: dict[Key, tuple[tuple[Any, ...], tuple[str, ...]]] = {}  # told, nodes
        self.triggers = (
            Trigger("services", lambda obj, _caches: _needs_look(obj)),
            Trigger("services", _waiting),
            Trigger("nodes", self._all, matters=_node_matters),
        )
        self.indexes: dict[str, dict[str, Callable[[Obj], Iterable[str]]]] = {
            "services": {
                "claim": _claims,
                _OURS: lambda s: [_OURS] if _is_ours(s) else [],
                _WAITING: lambda s: [_WAITING] if _waits(s) else [],
            }
        }

    def reserve(self, port: int) -> None:
        """Leave this TCP port of the cluster's own address alone."""
        self._reserved.add(port)

    @staticmethod
    def _all(_node: Obj, caches: Caches) -> Iterable[Key]:
        return [s.key for s in caches["services"].by(_OURS, _OURS)]

    def observe(self, key: Key, caches: Caches) -> View | None:
        services = caches["services"]
        service = services.get(key.namespace, key.name)
        if service is None:
            self._seen.pop(key, None)
            return None

        def taken(address: str, protocol: str, port: int) -> bool:
            held = services.by("claim", _claim(address, protocol, port))
            return any(s.key != key for s in held)

        nodes = tuple(sorted(n.name for n in caches["nodes"].list() if _serves(n)))
        now = (told(service), nodes)
        before = self._seen.get(key, now)
        if _is_ours(service):
            self._seen[key] = now
        else:
            self._seen.pop(key, None)
        return View(service.body, taken, nodes, before[0] != now[0], before[1] != nodes)

    def plan(self, view: View, now: float) -> Sequence[Action]:
        service = view.service
        meta = service["metadata"]
        finalizers: list[str] = [*(meta.get("finalizers") or ())]
        if "deletionTimestamp" in meta or not _is_ours(service):
            return self._clean_up(service, finalizers)
        ingress = self._ingress(view)
        held = ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress")
        if not ingress:
            return [FAILED.about(service, why="no address free")]
        is_right = held == ingress and FINALIZER in finalizers
        nobody = [] if view.nodes else [NO_NODES.about(service)]
        if is_right and not view.is_changed:
            return (nobody or [UPDATED.about(service)]) if view.had_other_nodes else []
        actions: list[Action] = [ENSURING.about(service), *nobody]
        if not is_right:
            kept = finalizers if FINALIZER in finalizers else [*finalizers, FINALIZER]
            actions.append(_patch(service, kept, {"ingress": ingress}))
        return [*actions, ENSURED.about(service)]

    @staticmethod
    def _clean_up(service: Body, finalizers: list[str]) -> Sequence[Action]:
        if FINALIZER not in finalizers:
            return []
        finalizers.remove(FINALIZER)
        return [
            DELETING.about(service), _patch(service, finalizers, {"ingress": None}),
            DELETED.about(service),
        ]  # fmt: skip

    def _ingress(self, view: View) -> list[Body]:
        spec, status = view.service["spec"], view.service.get("status") or {}
        ports = [(p.get("protocol") or "TCP", int(p["port"])) for p in spec.get("ports") or ()]
        held = [e.get("ip", "") for e in (status.get("loadBalancer") or {}).get("ingress") or ()]
        wished = [a for a in (spec.get("loadBalancerIP"),) if a]
        for address in [*wished, *held, *self._block]:
            if address in self._block and all(self._is_free(view, address, *p) for p in ports):
                told = [{"port": port, "protocol": protocol} for protocol, port in ports]
                return [{"ip": address, "ipMode": "Proxy", "ports": told}]
        return []

    def _is_free(self, view: View, address: str, protocol: str, port: int) -> bool:
        if address == self._address:
            if port in _NODE_PORTS or (protocol == "TCP" and port in self._reserved):
                return False
        return not view.taken(address, protocol, port)


@lru_cache(maxsize=8)
def _block(address: str) -> Mapping[str, None]:
    """The addresses to try, in order: the cluster's own, then the rest of its block."""
    base = int(ipaddress.ip_network(f"{address}/24", strict=False).network_address)
    first = int(ipaddress.ip_address(address)) - base
    numbers = (1 + (first - 1 + i) % 254 for i in range(254))
    return dict.fromkeys(str(ipaddress.ip_address(base + n)) for n in numbers)


def _patch(service: Body, finalizers: list[str], balancer: Body) -> Action:
    meta = service["metadata"]
    key = Key("services", meta["namespace"], meta["name"])
    about: Body = {"finalizers": finalizers, "uid": meta.get("uid")}
    if meta.get("resourceVersion"):
        about["resourceVersion"] = meta["resourceVersion"]
    patch = {"metadata": about, "status": {"loadBalancer": balancer}}
    return Patch(key, patch, subresource="status")


FACTS = Facts(
    kind="Service",
    definition="io.k8s.api.core.v1.Service",
    controller="service-controller, portallocator-repair-controller",
    status=(
        Field("loadBalancer", "where a LoadBalancer is found: an address of the host",
              _TEST + "test_a_service_gets_the_own_address_at_once"),
        Field("conditions", "never written here: they are for controllers of other classes",
              _TEST + "test_a_class_is_somebody_elses"),
    ),
    events=(ENSURING, ENSURED, FAILED, NO_NODES, UPDATED, DELETING, DELETED, *PORT_EVENTS),
    reads=(
        Mark(_EXCLUDED, "Node", "load balancers do not lead to it",
             _TEST + "test_other_nodes_are_told"),
    ),
)  # fmt: skip
