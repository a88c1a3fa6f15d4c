"""Columns of Services, of what stands behind them, and of their addresses."""

from __future__ import annotations

from collections.abc import Sequence

from sampan.api.columns.cells import AGE, NAME, NONE, UNSET, dig, text
from sampan.api.obj import Body
from sampan.api.resource import Column
from sampan.lib.selectors import format_label_selector, format_labels


def _external_ip(body: Body, _now: float) -> str:
    spec = body.get("spec") or {}
    external = ",".join(spec.get("externalIPs") or ())
    kind = spec.get("type")
    if kind == "ExternalName":
        return str(spec.get("externalName") or "")
    if kind == "LoadBalancer":
        balancer = _balancer(body)
        if external:
            return f"{balancer},{external}" if balancer else external
        return balancer or "<pending>"
    return external or NONE


def _balancer(body: Body) -> str:
    ingress = dig(body, "status.loadBalancer.ingress", ())
    found = sorted({str(i.get("ip") or i.get("hostname") or "") for i in ingress} - {""})
    return ",".join(found)


def _ports(body: Body, _now: float) -> str:
    shown = []
    for port in dig(body, "spec.ports", ()):
        node = f":{port['nodePort']}" if port.get("nodePort") else ""
        shown.append(f"{port.get('port')}{node}/{port.get('protocol', 'TCP')}")
    return ",".join(shown) or NONE


def _cluster_ip(body: Body, _now: float) -> str:
    spec = body.get("spec") or {}
    return str(next(iter(spec.get("clusterIPs") or ()), "") or spec.get("clusterIP") or NONE)


def _endpoints(body: Body, _now: float) -> str:
    """The first three addresses of all subsets, and how many more."""
    shown: list[str] = []
    total = 0
    for subset in body.get("subsets") or ():
        addresses = [str(a.get("ip", "")) for a in subset.get("addresses") or ()]
        ports = subset.get("ports") or ()
        if not ports:
            total += len(addresses)
            shown += addresses
        for port in ports:
            total += len(addresses)
            shown += [_join(a, port.get("port", 0)) for a in addresses]
    if not shown:
        return NONE
    more = f" + {total - 3} more..." if total > 3 else ""
    return ",".join(shown[:3]) + more


def _join(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _few(items: Sequence[str]) -> str:
    if not items:
        return UNSET
    more = f" + {len(items) - 3} more..." if len(items) > 3 else ""
    return ",".join(items[:3]) + more


def _slice_ports(body: Body, _now: float) -> str:
    return _few(["*" if p.get("port") is None else str(p["port"]) for p in body.get("ports") or ()])


def _slice_addresses(body: Body, _now: float) -> str:
    found = [str(a) for e in body.get("endpoints") or () for a in e.get("addresses") or ()]
    return _few(found)


SERVICE = (
    NAME,
    text("Type", "spec.type", about="How the service is exposed."),
    Column("Cluster-IP", _cluster_ip, description="Its address inside the cluster."),
    Column("External-IP", _external_ip, description="Its addresses outside the cluster."),
    Column("Port(s)", _ports, description="The ports it exposes."),
    AGE,
    Column(
        "Selector",
        lambda body, _now: format_labels(dig(body, "spec.selector")),
        priority=1,
        description="Which pods get its traffic.",
    ),
)

ENDPOINTS = (NAME, Column("Endpoints", _endpoints, description="Addresses and ports."), AGE)

ENDPOINT_SLICE = (
    NAME,
    text("AddressType", "addressType", about="IPv4, IPv6 or FQDN."),
    Column("Ports", _slice_ports, description="The ports of each endpoint."),
    Column("Endpoints", _slice_addresses, description="The endpoints' addresses."),
    AGE,
)


def _parent(body: Body, _now: float) -> str:
    """``resource[.group]/[namespace/]name`` of what holds an address."""
    parent = dig(body, "spec.parentRef") or {}
    if not parent:
        return NONE
    resource, group = parent.get("resource") or "", parent.get("group")
    parts = (f"{resource}.{group}" if group else resource, parent.get("namespace"),
             parent.get("name"))  # fmt: skip
    return "/".join(p for p in parts if p)


NETWORK_POLICY = (
    NAME,
    Column(
        "Pod-Selector",
        lambda body, _now: format_label_selector(dig(body, "spec.podSelector", {})),
        description="Which pods it is about.",
    ),
    AGE,
)

IP_ADDRESS = (NAME, Column("ParentRef", _parent, description="What the address belongs to."))

SERVICE_CIDR = (
    NAME,
    Column(
        "CIDRs",
        lambda body, _now: ",".join(dig(body, "spec.cidrs", ())),
        description="The ranges of service addresses, one per IP family.",
    ),
    AGE,
)


def _hosts(body: Body, _now: float) -> str:
    hosts = [str(r["host"]) for r in dig(body, "spec.rules", ()) if r.get("host")]
    if not hosts:
        return "*"
    more = f" + {len(hosts) - 3} more..." if len(hosts) > 3 else ""
    return ",".join(hosts[:3]) + more


def _parameters(body: Body, _now: float) -> str:
    """``Kind[.group]/name`` of what configures the class."""
    given = dig(body, "spec.parameters") or {}
    if not given:
        return NONE
    group = f".{given['apiGroup']}" if given.get("apiGroup") is not None else ""
    return f"{given.get('kind')}{group}/{given.get('name')}"


INGRESS = (
    NAME,
    text("Class", "spec.ingressClassName", NONE, about="Who serves it."),
    Column("Hosts", _hosts, description="The hosts of its rules."),
    Column("Address", lambda body, _now: _balancer(body), description="Where it is found."),
    Column(
        "Ports",
        lambda body, _now: "80, 443" if dig(body, "spec.tls") else "80",
        description="The ports it is served on.",
    ),
    AGE,
)

INGRESS_CLASS = (
    NAME,
    text("Controller", "spec.controller", about="Who serves ingresses of the class."),
    Column("Parameters", _parameters, description="What configures the class."),
    AGE,
)
