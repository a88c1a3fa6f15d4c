"""What one Service is called, and what the names say: pure, from the Service and its slices.

Source of the rules: Kubernetes DNS-Based Service Discovery 1.1.0; where it leaves a choice, what
CoreDNS does. Names are relative to ``<service>.<namespace>.svc.<zone>``.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from sampan.api.obj import Body
from sampan.network.dns import message as dns
from sampan.network.dns import names

Sets = dict[int, tuple[bytes, ...]]  # type -> data of each record, in order, without doubles


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address that is to be answered. host: its label below the service's name."""

    ip: str
    host: str
    is_named: bool  # by the endpoint's own hostname field


@dataclass(frozen=True, slots=True)
class Port:
    """name '' for an unnamed one; proto: tcp, udp or sctp."""

    name: str
    proto: str
    number: int


def is_headless(service: Body) -> bool:
    spec = service.get("spec") or {}
    return spec.get("type") != "ExternalName" and next(iter(cluster_ips(service)), "") == "None"


def cluster_ips(service: Body) -> list[str]:
    """Of both families; ``None`` of a headless one; none of an ExternalName."""
    spec = service.get("spec") or {}
    if spec.get("type") == "ExternalName":
        return []
    found = spec.get("clusterIPs") or ([spec["clusterIP"]] if spec.get("clusterIP") else [])
    return [str(ip) for ip in found]


def endpoints(service: Body, slice_: Body) -> Iterator[Endpoint]:
    """Those to answer: ready ones (a missing condition counts as ready), or all where the Service
    says that readiness does not matter (``publishNotReadyAddresses``)."""
    any_state = bool((service.get("spec") or {}).get("publishNotReadyAddresses"))
    if slice_.get("addressType") not in ("IPv4", "IPv6"):
        return
    for endpoint in slice_.get("endpoints") or ():
        ready = (endpoint.get("conditions") or {}).get("ready")
        if ready is False and not any_state:
            continue
        host = str(endpoint.get("hostname") or "")
        for ip in endpoint.get("addresses") or ():
            yield Endpoint(str(ip), host or names.dashed(str(ip)), bool(host))


def ports(body_ports: Iterable[Body]) -> Iterator[Port]:
    """Of a Service or of a slice; ports without a number lead nowhere."""
    for port in body_ports:
        if port.get("port"):
            proto = str(port.get("protocol") or "TCP").lower()
            yield Port(str(port.get("name") or ""), proto, int(port["port"]))


def build(name: bytes, service: Body, slices: Iterable[Body]) -> Mapping[bytes, Sets]:
    """Record sets by relative name in lower-case wire form without the root (b"": the service
    itself); a name with an empty set exists without records. {}: the service has no name at all.
    *name*: the whole name of the service; slices: those of the service, in a fixed order."""
    spec = service.get("spec") or {}
    if spec.get("type") == "ExternalName":
        return _external(str(spec.get("externalName") or ""))
    found = _Found()
    headless = is_headless(service)
    for slice_ in slices:
        if not isinstance(slice_, dict):
            continue
        slice_ports = [*ports(slice_.get("ports") or ())]
        for e in endpoints(service, slice_):
            label = _label(e.host)
            if label is None:
                continue
            found.address(label, e.ip)
            target = label + name
            found.services(label, target, slice_ports)
            if headless:
                found.address(b"", e.ip)
                found.services(b"", target, slice_ports)
                found.named(target, slice_ports)
    if not headless:
        own = [*ports(spec.get("ports") or ())]
        for ip in cluster_ips(service):
            found.address(b"", ip)
            found.services(b"", name, own)
            found.named(name, own)
    return found.sets()


def _external(target: str) -> Mapping[bytes, Sets]:
    """A name that looks like an address is not resolved (Kubernetes' documentation)."""
    try:
        ipaddress.ip_address(target)
        return {}
    except ValueError:
        pass
    try:
        name = names.wire(target)
    except ValueError:
        return {}
    return {b"": {dns.CNAME: (name,)}} if name != b"\0" else {}


def _label(host: str) -> bytes | None:
    """In wire form, or None where it cannot be a label."""
    raw = host.lower().encode("ascii", "replace")
    return bytes((len(raw),)) + raw if 0 < len(raw) <= names.MAX_LABEL else None


class _Found:
    """Record data by relative name and type; a dictionary serves as an ordered set."""

    def __init__(self) -> None:
        self._data: dict[bytes, dict[int, dict[bytes, None]]] = {}
        self._srv: dict[bytes, dict[tuple[int, bytes], None]] = {}

    def address(self, at: bytes, ip: str) -> None:
        try:
            parsed = ipaddress.ip_address(ip)
        except ValueError:
            return
        kind = dns.A if parsed.version == 4 else dns.AAAA
        self._data.setdefault(at, {}).setdefault(kind, {})[parsed.packed] = None

    def services(self, at: bytes, target: bytes, found: Iterable[Port]) -> None:
        """SRV records of all ports, also of unnamed ones, at the name itself (CoreDNS)."""
        for port in found:
            self._data.setdefault(at, {})
            self._srv.setdefault(at, {})[(port.number, target)] = None

    def named(self, target: bytes, found: Iterable[Port]) -> None:
        """``_port._proto`` of the named ones."""
        for port in found:
            label, proto = _label(f"_{port.name}"), _label(f"_{port.proto}")
            if not port.name or label is None or proto is None:
                continue
            self._data.setdefault(proto, {})  # exists because of what is below it
            self._data.setdefault(label + proto, {})
            self._srv.setdefault(label + proto, {})[(port.number, target)] = None

    def sets(self) -> dict[bytes, Sets]:
        out: dict[bytes, Sets] = {
            at: {kind: tuple(data) for kind, data in kinds.items()}
            for at, kinds in self._data.items()
        }
        for at, targets in self._srv.items():
            weight = max(1, 100 // len(targets))
            out[at][dns.SRV] = tuple(dns.srv(0, weight, n, t) for n, t in targets)
        return out
