"""Services and EndpointSlices as the proxies read them, and which endpoints serve whom.

Pure. Source of the rules: the Service and EndpointSlice API fields, KEP-1669 (terminating
endpoints), KEP-2086 (internalTrafficPolicy), KEP-2433 and KEP-3015 (hints by zone and node).
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sampan.lib.addressing import IPV4, family_of

Body = Mapping[str, Any]
SERVICE_NAME = "kubernetes.io/service-name"  # label of a slice: the Service it belongs to
ZONE = "topology.kubernetes.io/zone"  # label of a node
_OTHER_PROXY = "service.kubernetes.io/service-proxy-name"
_HEADLESS = "service.kubernetes.io/headless"
_AFFINITY_SECONDS = 10800
PortKey = tuple[str, str]  # port name, protocol in lower case


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address and port behind a Service port. node: '' where the slice names none."""

    address: str
    port: int
    node: str = ""
    ready: bool = True
    serving: bool = True
    terminating: bool = False
    zones: tuple[str, ...] = ()  # hints: of which zones and nodes the clients should use it
    nodes: tuple[str, ...] = ()

    @property
    def place(self) -> tuple[str, int]:
        return self.address, self.port

    @property
    def draining(self) -> bool:
        """On its way out, but still answering."""
        return self.serving and self.terminating


@dataclass(frozen=True, slots=True)
class ServicePort:
    name: str
    protocol: str  # tcp, udp, sctp
    port: int
    node_port: int = 0


@dataclass(frozen=True, slots=True)
class Ingress:
    """An address of a LoadBalancer. ports: (number, protocol) served there; none named: all.
    is_virtual: packets reach the nodes with it as their destination (ipMode VIP)."""

    ip: str
    ports: tuple[tuple[int, str], ...] = ()
    is_virtual: bool = True


@dataclass(frozen=True, slots=True)
class Service:
    """What a proxy of one family needs of a Service. Addresses are of that family and written as
    the kernel writes them; but *ingress* has the host's own (127.x.y.z) in either: a relay goes
    on from there in whatever family the endpoints have."""

    namespace: str
    name: str
    type: str
    cluster_ips: tuple[str, ...]
    ports: tuple[ServicePort, ...]
    external_ips: tuple[str, ...] = ()
    virtual_ips: tuple[str, ...] = ()  # LoadBalancer addresses that the nodes answer (ipMode VIP)
    ingress: tuple[Ingress, ...] = ()  # all LoadBalancer addresses
    affinity: int = 0  # seconds; 0: none
    internal_local: bool = False
    external_local: bool = False
    health_port: int = 0
    sources: tuple[str, ...] = ()  # who may use the LoadBalancer addresses; none named: everyone
    host_sources: tuple[str, ...] = ()  # the same for those of the host, whose clients are IPv4

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def is_external(self) -> bool:
        """Whether there is a way in from outside of the cluster."""
        return bool(self.external_ips or self.ingress or any(p.node_port for p in self.ports))


def service(body: Body, family: str = IPV4) -> Service | None:
    """None for those that no proxy of *family* serves: headless, ExternalName, left to another
    proxy, without an address of the family."""
    spec, meta = body["spec"], body["metadata"]
    ips = _of(family, spec.get("clusterIPs") or [spec.get("clusterIP") or ""])
    if not ips or spec.get("type") == "ExternalName" or _OTHER_PROXY in (meta.get("labels") or {}):
        return None
    kind = spec.get("type") or "ClusterIP"
    balancer = (body.get("status") or {}).get("loadBalancer") or {}
    ingress = [_ingress(i, family) for i in balancer.get("ingress") or () if _is_near(i, family)]
    ingress = ingress if kind == "LoadBalancer" else []
    affinity = 0
    if spec.get("sessionAffinity") == "ClientIP":
        client = (spec.get("sessionAffinityConfig") or {}).get("clientIP") or {}
        affinity = int(client.get("timeoutSeconds") or _AFFINITY_SECONDS)
    external_local = kind != "ClusterIP" or bool(spec.get("externalIPs"))
    external_local = external_local and spec.get("externalTrafficPolicy") == "Local"
    return Service(
        namespace=meta["namespace"], name=meta["name"], type=kind, cluster_ips=ips,
        ports=tuple(_port(p, kind) for p in spec.get("ports") or ()),
        external_ips=_of(family, spec.get("externalIPs") or ()),
        virtual_ips=_of(family, [i.ip for i in ingress if i.is_virtual]),
        ingress=tuple(ingress),
        affinity=affinity,
        internal_local=spec.get("internalTrafficPolicy") == "Local",
        external_local=external_local,
        health_port=int(spec.get("healthCheckNodePort") or 0) if external_local else 0,
        sources=_sources(spec.get("loadBalancerSourceRanges") or (), family),
        host_sources=_sources(spec.get("loadBalancerSourceRanges") or (), IPV4),
    )  # fmt: skip


def _ingress(item: Body, family: str) -> Ingress:
    ports = [p for p in item.get("ports") or () if not p.get("error")]
    numbers = tuple((int(p["port"]), p["protocol"].lower()) for p in ports)
    return Ingress(written(item["ip"]), numbers, item.get("ipMode", "VIP") == "VIP")


def _is_near(item: Body, family: str) -> bool:
    """Whether a LoadBalancer's address is of *family*, or of the host itself."""
    ip = item.get("ip") or ""
    return bool(ip) and (family_of(ip) == family or ip.startswith("127."))


def _sources(ranges: Iterable[str], family: str) -> tuple[str, ...]:
    """Those of *family*; the others say nothing of it, as with kube-proxy."""
    return tuple(s for r in ranges if family_of(s := r.strip()) == family)


def _port(port: Body, kind: str) -> ServicePort:
    node_port = int(port.get("nodePort") or 0) if kind in ("NodePort", "LoadBalancer") else 0
    protocol = (port.get("protocol") or "TCP").lower()
    return ServicePort(port.get("name") or "", protocol, int(port["port"]), node_port)


def _of(family: str, addresses: Iterable[str]) -> tuple[str, ...]:
    return tuple(written(ip) for ip in addresses if ip not in ("", "None")
                 and family_of(ip) == family)  # fmt: skip


def written(address: str) -> str:
    """*address* as the kernel's tools write it: an IPv6 address may come in many forms."""
    if ":" not in address:
        return address
    return socket.inet_ntop(socket.AF_INET6, socket.inet_pton(socket.AF_INET6, address))


def endpoints(slices: Iterable[Body], family: str = IPV4) -> dict[PortKey, tuple[Endpoint, ...]]:
    """The endpoints of each port of one Service in *family*, by address and port in order. One
    that two slices tell of is taken from where it is ready, else from where it serves."""
    found: dict[PortKey, dict[tuple[str, int], Endpoint]] = {}
    for piece in slices:
        if piece.get("addressType") != family or _HEADLESS in (
            piece["metadata"].get("labels") or {}
        ):
            continue
        for port in piece.get("ports") or ():
            if not port.get("port"):
                continue
            key = (port.get("name") or "", (port.get("protocol") or "TCP").lower())
            places = found.setdefault(key, {})
            for item in piece.get("endpoints") or ():
                endpoint = _endpoint(item, int(port["port"]))
                held = places.get(endpoint.place)
                if held is None or (endpoint.ready, endpoint.serving) > (held.ready, held.serving):
                    places[endpoint.place] = endpoint
    return {key: tuple(places[p] for p in sorted(places)) for key, places in found.items()}


def _endpoint(item: Body, port: int) -> Endpoint:
    conditions = item.get("conditions") or {}
    hints = item.get("hints") or {}
    return Endpoint(
        address=written(item["addresses"][0]),
        port=port,
        node=item.get("nodeName") or "",
        ready=conditions.get("ready") is not False,
        serving=conditions.get("serving") is not False,
        terminating=conditions.get("terminating") is True,
        zones=tuple(z["name"] for z in hints.get("forZones") or ()),
        nodes=tuple(n["name"] for n in hints.get("forNodes") or ()),
    )


def cluster_wide(
    found: Sequence[Endpoint], *, node: str = "", zone: str = ""
) -> tuple[Endpoint, ...]:
    """Whom a client of *node* is sent to where every endpoint may serve: the ready ones, those
    its hints name if there are any, and while none is ready the ones that drain."""
    ready = tuple(e for e in found if e.ready)
    if not ready:
        return tuple(e for e in found if e.draining)
    if node and all(e.nodes for e in ready):
        near = tuple(e for e in ready if node in e.nodes)
        if near:
            return near
    if zone and all(e.zones for e in ready):
        near = tuple(e for e in ready if zone in e.zones)
        if near:
            return near
    return ready


def on_node(found: Sequence[Endpoint], node: str) -> tuple[Endpoint, ...]:
    """Whom traffic of policy Local is sent to on *node*."""
    here = [e for e in found if e.node == node]
    return tuple(e for e in here if e.ready) or tuple(e for e in here if e.draining)


def anywhere(found: Sequence[Endpoint]) -> bool:
    """Whether any endpoint takes new connections, on whatever node."""
    return any(e.ready or e.draining for e in found)


def ready_addresses(found: Iterable[Sequence[Endpoint]], node: str) -> int:
    """How many ready endpoints *node* has, over all ports: what its health check tells."""
    return len({e.address for port in found for e in port if e.ready and e.node == node})
