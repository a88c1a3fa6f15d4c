"""What a node's kernel is to do for its Services: entries, the rows of the maps, the difference.

Pure. An *entry* says what is wanted of one address, protocol and port. A *row* is what the maps of
``ruleset`` hold of it: like an entry, but its endpoints are numbered, and keep their numbers as
long as they can, so that a change touches few elements.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import collapse_addresses, ip_address, ip_network

from sampan.lib.addressing import DEFAULT, IPV4, family_of
from sampan.network.backends import (
    Body,
    Endpoint,
    PortKey,
    Service,
    ServicePort,
    anywhere,
    cluster_wide,
    on_node,
    written,
)
from sampan.network.claims import Vip

Address = tuple[str, int]
# Of two who claim the same address and port the lower rank wins, then the lower key.
_EVERY = ("0.0.0.0", "::")
LOOPBACK = "127.0.0.1"
CLUSTER_IP, NODE_PORT, BALANCER, EXTERNAL_IP, HOST_PORT = range(5)


@dataclass(frozen=True, slots=True)
class Facts:
    """Of the node whose rules are made, in one family, *masquerade*'s.

    addresses: where it answers NodePorts and host ports. own: addresses of Services which
    processes of the node itself answer; no rule touches them. masquerade: the source address of
    what has to come back through the node.
    """

    node: str
    addresses: tuple[str, ...]
    masquerade: str
    zone: str = ""
    own: frozenset[str] = frozenset()
    pods: str = DEFAULT.primary.pods
    services: str = DEFAULT.primary.services

    @property
    def family(self) -> str:
        return family_of(self.masquerade)


@dataclass(frozen=True, slots=True)
class Pick:
    """Choose one of the endpoints. affinity: seconds for which a client stays with its own."""

    endpoints: tuple[Address, ...]
    masquerade: bool = False
    affinity: int = 0


@dataclass(frozen=True, slots=True)
class Entry:
    """What is wanted of one address, protocol and port.

    pick: for everyone, or, where *inside* is there, for who comes from outside of the cluster.
    inside: for pods and for the node itself. refuse: what becomes of those nothing is picked for:
    ``reject``, ``drop`` or ''. sources: networks that alone may come; none named: all may.
    """

    rank: int
    pick: Pick | None = None
    inside: Pick | None = None
    refuse: str = ""
    sources: tuple[str, ...] = ()


Entries = dict[Vip, Entry]


def service_entries(
    service: Service, found: Mapping[PortKey, Sequence[Endpoint]], facts: Facts
) -> Entries:
    """Everything *facts*' node does for one Service."""
    entries: Entries = {}
    for port in service.ports:
        known = found.get((port.name, port.protocol), ())
        cluster = cluster_wide(known, node=facts.node, zone=facts.zone)
        some = anywhere(known)
        local: tuple[Endpoint, ...] = ()
        if service.internal_local or service.external_local:
            local = on_node(known, facts.node)
        _inside(entries, service, port, local if service.internal_local else cluster, some, facts)
        if service.is_external:
            _outside(entries, service, port, cluster, local, some, facts)
    return entries


def _inside(
    entries: Entries, service: Service, port: ServicePort, chosen: Sequence[Endpoint], some: bool,
    facts: Facts,
) -> None:  # fmt: skip
    entry = Entry(
        CLUSTER_IP,
        pick=_pick(chosen, service.affinity),
        refuse="" if chosen else "drop" if some else "reject",
    )
    for ip in service.cluster_ips:
        if ip not in facts.own:
            entries[ip, port.protocol, port.port] = entry


def _outside(
    entries: Entries, service: Service, port: ServicePort, cluster: Sequence[Endpoint],
    local: Sequence[Endpoint], some: bool, facts: Facts,
) -> None:  # fmt: skip
    """Ways in from outside. With policy Local the client's address is kept and only endpoints of
    this node serve; pods and the node itself are as good as inside and reach them all."""
    everyone = _pick(cluster, service.affinity, masquerade=True)
    if service.external_local:
        pick, inside = _pick(local, service.affinity), everyone
        refuse = "" if local else "drop" if some else "reject"
    else:
        pick, inside = everyone, None
        refuse = "" if cluster else "reject"
    ways = [(ip, port.port, EXTERNAL_IP) for ip in service.external_ips]
    ways += [(ip, port.port, BALANCER) for ip in service.virtual_ips if not _is_loopback(ip)]
    if port.node_port:
        ways += [(ip, port.node_port, NODE_PORT) for ip in facts.addresses]
    for ip, number, rank in ways:
        if ip in facts.own:
            continue
        sources = service.sources if rank == BALANCER else ()
        entries.setdefault((ip, port.protocol, number), Entry(rank, pick, inside, refuse, sources))


def _is_loopback(ip: str) -> bool:
    """Served from the host's own side; in a node it would be the node's own loopback."""
    return ip.startswith("127.") or ip == "::1"


def _pick(chosen: Sequence[Endpoint], affinity: int, *, masquerade: bool = False) -> Pick | None:
    if not chosen:
        return None
    return Pick(tuple(e.place for e in chosen), masquerade, affinity)


def pod_entries(pod: Body, facts: Facts) -> Entries:
    """The host ports of one pod, while it runs on *facts*' node and has an address of its family.
    hostIP '' asks for every address of the node, 0.0.0.0 and :: for those of one family. The
    node's own processes reach it at its 127.0.0.1 too (the kernel has nothing like it for ::1);
    answers have to come back through the node then."""
    spec, status = pod["spec"], pod.get("status") or {}
    told = [i.get("ip") or "" for i in status.get("podIPs") or ()] or [status.get("podIP") or ""]
    address = next((ip for ip in told if ip and family_of(ip) == facts.family), "")
    if (
        spec.get("nodeName") != facts.node or spec.get("hostNetwork") or not address
        or status.get("phase") in ("Succeeded", "Failed")
    ):  # fmt: skip
        return {}
    entries: Entries = {}
    for container in (*(spec.get("initContainers") or ()), *spec["containers"]):
        for port in container.get("ports") or ():
            number = port.get("hostPort")
            if not number:
                continue
            asked = port.get("hostIP") or ""
            place = (address, int(port["containerPort"]))
            if asked and family_of(asked) != facts.family:
                continue
            every = (*facts.addresses, *((LOOPBACK,) if facts.family == IPV4 else ()))
            for ip in every if asked in ("", *_EVERY) else (written(asked),):
                if ip not in facts.own and (ip == LOOPBACK or not _is_loopback(ip)):
                    vip = (ip, (port.get("protocol") or "TCP").lower(), int(number))
                    pick = Pick((place,), masquerade=_is_loopback(ip))
                    entries.setdefault(vip, Entry(HOST_PORT, pick))
    return entries


def has_host_ports(pod: Body) -> bool:
    """Whether ``pod_entries`` could ever find something in *pod*."""
    spec = pod["spec"]
    containers = (*(spec.get("initContainers") or ()), *spec["containers"])
    return not spec.get("hostNetwork") and any(
        p.get("hostPort") for c in containers for p in c.get("ports") or ()
    )


@dataclass(frozen=True, slots=True)
class Row:
    """What the maps hold of one address, protocol and port; '' and () where they hold nothing.

    verdict, inside: names of chains that pick (``ruleset.chain`` knows them). record: the chain
    that remembers clients. The n-th of the endpoints has the number n.
    """

    verdict: str = ""
    endpoints: tuple[Address, ...] = ()
    inside: str = ""
    inside_endpoints: tuple[Address, ...] = ()
    refuse: str = ""
    record: str = ""
    sources: tuple[str, ...] = ()
    is_cluster_ip: bool = False

    @property
    def places(self) -> frozenset[Address]:
        """All endpoints a client may have been sent to."""
        return frozenset((*self.endpoints, *self.inside_endpoints))


def row(entry: Entry, old: Row | None, memory: str = "") -> Row:
    """The row that fulfils *entry*, as near to *old* as it can be. memory: the name of maps of its
    own for its clients; '' for the one of all."""
    held = old or Row()
    affinity = next((p.affinity for p in (entry.pick, entry.inside) if p and p.affinity), 0)
    return Row(
        verdict=_verdict(entry.pick, "pick", memory),
        endpoints=numbered(held.endpoints, entry.pick.endpoints if entry.pick else ()),
        inside=_verdict(entry.inside, "inside", memory),
        inside_endpoints=numbered(
            held.inside_endpoints, entry.inside.endpoints if entry.inside else ()
        ),
        refuse=entry.refuse,
        record=_record(affinity, memory),
        sources=_apart(entry.sources),
        is_cluster_ip=entry.rank == CLUSTER_IP,
    )


def foreign(vips: Iterable[Vip], facts: Facts) -> frozenset[str]:
    """Addresses of Services that are neither the node's own nor in the range of Services:
    ``externalIPs``, and LoadBalancers of others."""
    inside = ip_network(facts.services)
    ours = {*facts.addresses, *facts.own}
    return frozenset(
        ip for ip in {vip[0] for vip in vips}
        if ip not in ours and not _is_loopback(ip) and ip_address(ip) not in inside
    )  # fmt: skip


def _apart(networks: Sequence[str]) -> tuple[str, ...]:
    """The same addresses in networks that do not overlap: the kernel takes no others."""
    found = [ip_network(n, strict=False) for n in networks]
    return tuple(str(n) for n in collapse_addresses(found))  # type: ignore[type-var]


def _record(affinity: int, memory: str) -> str:
    if not affinity:
        return ""
    return f"keep-{memory}-{affinity}" if memory else f"record-{affinity}"


def _verdict(pick: Pick | None, kind: str, memory: str) -> str:
    if pick is None:
        return ""
    name = f"{kind}-{len(pick.endpoints)}"
    if pick.affinity:
        name = f"sticky-{memory}-{name}" if memory else f"affine-{name}"
    return f"masq-{name}" if pick.masquerade else name


def numbered(old: Sequence[Address], wanted: Sequence[Address]) -> tuple[Address, ...]:
    """*wanted* in an order in which as many as possible stand where they stood in *old*."""
    left = set(wanted)
    kept: list[Address | None] = []
    for place in old[: len(left)]:
        kept.append(place if place in left else None)
        left.discard(place)
    rest = iter(sorted(left))
    full = [place if place is not None else next(rest) for place in kept]
    return (*full, *rest)


@dataclass(slots=True)
class Batch:
    """Elements to take out of and to put into each map, in the order of the changes."""

    remove: dict[str, list[str]] = field(default_factory=dict)
    add: dict[str, list[str]] = field(default_factory=dict)

    def change(self, name: str, key: str, old: str | None, new: str | None) -> None:
        """None: there is, or is to be, no such element."""
        if old == new:
            return
        if old is not None:
            self.remove.setdefault(name, []).append(key)
        if new is not None:
            self.add.setdefault(name, []).append(f"{key} : {new}" if new else key)


REFUSE = "refuse"  # the chain that answers: nobody is here (``reject`` is a word of nft)
PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}


def difference(batch: Batch, vip: Vip, old: Row | None, new: Row | None) -> None:
    """What turns the elements of *old* into those of *new*."""
    a, b = old or Row(), new or Row()
    ip, protocol, port = vip[0], PROTOCOLS[vip[1]], vip[2]
    key = f"{ip} . {protocol} . {port}"
    for name, before, after in (
        ("services", a.verdict, b.verdict),
        ("inside", a.inside, b.inside),
        ("refused", a.refuse, b.refuse),
        ("affine", a.record, b.record),
    ):
        batch.change(name, key, _go(before), _go(after))
    for name, old_places, new_places in (
        ("endpoints", a.endpoints, b.endpoints),
        ("inside-endpoints", a.inside_endpoints, b.inside_endpoints),
    ):
        if old_places == new_places:
            continue
        for i in range(max(len(old_places), len(new_places))):
            batch.change(
                name, f"{protocol} . {ip} . {port} . {i}", _place(old_places, i),
                _place(new_places, i),
            )  # fmt: skip
    if a.sources != b.sources:
        batch.change("restricted", key, "" if a.sources else None, "" if b.sources else None)
        for source in sorted({*a.sources, *b.sources}):
            batch.change(
                "sources", f"{key} . {source}", "" if source in a.sources else None,
                "" if source in b.sources else None,
            )  # fmt: skip


def _go(chain: str) -> str | None:
    if not chain:
        return None
    return "drop" if chain == "drop" else f"goto {REFUSE if chain == 'reject' else chain}"


def _place(places: Sequence[Address], i: int) -> str | None:
    return f"{places[i][0]} . {places[i][1]}" if i < len(places) else None
