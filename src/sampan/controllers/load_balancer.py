"""LoadBalancer services get an address of the host at once (docs/adr/0009).

The address is the cluster's own; where a port of the service is taken there, the next free one of
the cluster's block 127.x.y.1-254. Nothing is listened on here: the proxy reads the status.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from sampan.api.obj import Body, Key, Obj
from sampan.control.plan import Action, Caches, Emit, Patch, Trigger

FINALIZER = "service.kubernetes.io/load-balancer-cleanup"
_NODE_PORTS = range(30000, 32768)


@dataclass(frozen=True, slots=True)
class View:
    """taken: (address, protocol, port) of other services."""

    service: Body
    taken: Callable[[str, str, int], bool]


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


class LoadBalancerController:
    """address: the cluster's own on the host. ``reserve`` names ports of it that are not to be
    had (the API server's)."""

    name = "service-controller"
    workers = 1  # addresses are given one after the other: each plan sees the last one's

    def __init__(self, address: str) -> None:
        self._block = _block(address)
        self._address = address
        self._reserved: set[int] = set()
        self.triggers = (Trigger("services", lambda obj, _caches: _needs_look(obj)),)
        self.indexes: dict[str, dict[str, Callable[[Obj], Iterable[str]]]] = {
            "services": {"claim": _claims}
        }

    def reserve(self, port: int) -> None:
        """Leave this TCP port of the cluster's own address alone."""
        self._reserved.add(port)

    def observe(self, key: Key, caches: Caches) -> View | None:
        services = caches["services"]
        service = services.get(key.namespace, key.name)
        if service is None:
            return None

        def taken(address: str, protocol: str, port: int) -> bool:
            held = services.by("claim", _claim(address, protocol, port))
            return any(s.key != key for s in held)

        return View(service.body, taken)

    def plan(self, view: View, now: float) -> Sequence[Action]:
        service = view.service
        spec, meta = service["spec"], service["metadata"]
        finalizers: list[str] = [*(meta.get("finalizers") or ())]
        ours = spec.get("type") == "LoadBalancer" and not spec.get("loadBalancerClass")
        if "deletionTimestamp" in meta or not ours:
            return self._clean_up(service, finalizers)
        ingress = self._ingress(view)
        held = ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress")
        if not ingress:
            text = "Error syncing load balancer: failed to ensure load balancer: no address free"
            return [Emit(service, "Warning", "SyncLoadBalancerFailed", text)]
        if held == ingress and FINALIZER in finalizers:
            return []
        if FINALIZER not in finalizers:
            finalizers.append(FINALIZER)
        return [
            Emit(service, "Normal", "EnsuringLoadBalancer", "Ensuring load balancer"),
            _patch(service, finalizers, {"ingress": ingress}),
            Emit(service, "Normal", "EnsuredLoadBalancer", "Ensured load balancer"),
        ]

    @staticmethod
    def _clean_up(service: Body, finalizers: list[str]) -> Sequence[Action]:
        if FINALIZER not in finalizers:
            return []
        finalizers.remove(FINALIZER)
        return [
            Emit(service, "Normal", "DeletingLoadBalancer", "Deleting load balancer"),
            _patch(service, finalizers, {"ingress": None}),
            Emit(service, "Normal", "DeletedLoadBalancer", "Deleted load balancer"),
        ]

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


def _block(address: str) -> dict[str, None]:
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
