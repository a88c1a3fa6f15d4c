"""Policies and pods as values, read from their objects. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from typing import Any, NamedTuple

from sampan.api.obj import Body
from sampan.lib.selectors import EVERYTHING, Selector, from_label_selector

Network = IPv4Network | IPv6Network

INGRESS, EGRESS = "Ingress", "Egress"
PROTOCOLS = ("tcp", "udp", "sctp")
HIGHEST = 65535


class NamedPort(NamedTuple):
    name: str
    protocol: str
    number: int


@dataclass(frozen=True, slots=True)
class Pod:
    """What policies ask of a pod. ips: of all families. takes_part: not of a pod of its node's own
    network, to which policies do not apply, and of one that has ended; such have no ips."""

    namespace: str
    name: str
    labels: Mapping[str, str]
    ips: tuple[str, ...] = ()
    node: str = ""
    ports: tuple[NamedPort, ...] = ()
    takes_part: bool = True

    def numbers(self, name: str, protocol: str) -> list[int]:
        """The container ports of that name."""
        return [p.number for p in self.ports if (p.name, p.protocol) == (name, protocol)]


@dataclass(frozen=True, slots=True)
class Port:
    """One alternative of a rule's ports. name: a named port; otherwise low..high."""

    protocol: str
    low: int = 0
    high: int = HIGHEST
    name: str = ""


@dataclass(frozen=True, slots=True)
class Block:
    """An ipBlock. It holds addresses of its own family only. excepted: without overlaps."""

    network: Network
    excepted: tuple[Network, ...] = ()

    def holds(self, ip: str) -> bool:
        address = ipaddress.ip_address(ip)
        return address in self.network and not any(address in e for e in self.excepted)


@dataclass(frozen=True, slots=True)
class Pods:
    """Pods by selectors. namespace: the only one where namespaces is None."""

    pods: Selector
    namespace: str = ""
    namespaces: Selector | None = None

    def holds(self, pod: Pod, namespaces: Mapping[str, Mapping[str, str]]) -> bool:
        """namespaces: labels by name; one that is not there holds nothing."""
        if self.namespaces is None:
            if pod.namespace != self.namespace:
                return False
        elif pod.namespace not in namespaces or not self.namespaces.matches(
            namespaces[pod.namespace]
        ):
            return False
        return self.pods.matches(pod.labels)


Peer = Block | Pods


@dataclass(frozen=True, slots=True)
class Rule:
    """Traffic of any of *peers* to any of *ports*. None: of all, to all."""

    peers: tuple[Peer, ...] | None = None
    ports: tuple[Port, ...] | None = None


@dataclass(frozen=True, slots=True)
class Policy:
    """What a NetworkPolicy says. types: the directions it isolates."""

    namespace: str
    name: str
    pods: Selector
    types: frozenset[str]
    ingress: tuple[Rule, ...] = ()
    egress: tuple[Rule, ...] = ()

    def rules(self, direction: str) -> tuple[Rule, ...]:
        return self.ingress if direction == INGRESS else self.egress

    def selects(self, pod: Pod, direction: str) -> bool:
        return (
            direction in self.types
            and pod.namespace == self.namespace
            and self.pods.matches(pod.labels)
        )


def policy(body: Body) -> Policy:
    """Of a valid NetworkPolicy with its defaults."""
    meta, spec = body["metadata"], body.get("spec") or {}
    namespace = meta["namespace"]
    return Policy(
        namespace, meta["name"], from_label_selector(spec.get("podSelector") or {}),
        frozenset(spec.get("policyTypes") or (INGRESS,)),
        tuple(_rule(r, "from", namespace) for r in spec.get("ingress") or ()),
        tuple(_rule(r, "to", namespace) for r in spec.get("egress") or ()),
    )  # fmt: skip


def _rule(body: Body, side: str, namespace: str) -> Rule:
    peers = [p for x in body.get(side) or () for p in _peer(x, namespace)]
    ports = [_port(p) for p in body.get("ports") or ()]
    return Rule(tuple(peers) if body.get(side) else None, tuple(ports) if ports else None)


def _peer(body: Body, namespace: str) -> Iterator[Peer]:
    block = body.get("ipBlock")
    if block is None:
        chosen = body.get("namespaceSelector")
        yield Pods(
            EVERYTHING if body.get("podSelector") is None
            else from_label_selector(body["podSelector"]),
            namespace if chosen is None else "",
            None if chosen is None else from_label_selector(chosen),
        )  # fmt: skip
        return
    network = ipaddress.ip_network(block["cidr"], strict=False)
    excepted = [ipaddress.ip_network(e, strict=False) for e in block.get("except") or ()]
    mine: list[Any] = [n for n in excepted if n.version == network.version]
    yield Block(network, tuple(ipaddress.collapse_addresses(mine)))


def _port(body: Body) -> Port:
    protocol = str(body.get("protocol") or "TCP").lower()
    number = body.get("port")
    if number is None:
        return Port(protocol)
    if isinstance(number, str):
        return Port(protocol, name=number)
    return Port(protocol, number, body.get("endPort") or number)


def pod(body: Body) -> Pod:
    meta, spec, status = body["metadata"], body.get("spec") or {}, body.get("status") or {}
    ended = status.get("phase") in ("Succeeded", "Failed")
    takes_part = not spec.get("hostNetwork") and not ended
    ips: Sequence[str] = ()
    if takes_part:
        ips = [str(i["ip"]) for i in status.get("podIPs") or () if i.get("ip")]
    return Pod(
        meta["namespace"], meta["name"], meta.get("labels") or {}, tuple(ips),
        str(spec.get("nodeName") or ""), tuple(_named_ports(spec)), takes_part,
    )  # fmt: skip


def _named_ports(spec: Body) -> Iterator[NamedPort]:
    """Of containers and of init containers that go on (sidecars)."""
    sidecars = [c for c in spec.get("initContainers") or () if c.get("restartPolicy") == "Always"]
    for container in (*(spec.get("containers") or ()), *sidecars):
        for port in container.get("ports") or ():
            if port.get("name"):
                protocol = str(port.get("protocol") or "TCP").lower()
                yield NamedPort(str(port["name"]), protocol, int(port["containerPort"]))


@dataclass(frozen=True, slots=True)
class View:
    """The cluster as policies see it. namespaces: their labels."""

    policies: tuple[Policy, ...] = ()
    pods: tuple[Pod, ...] = ()
    namespaces: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def selecting(self, pod: Pod, direction: str) -> list[Policy]:
        """The policies that isolate *pod* in that direction."""
        return [p for p in self.policies if p.selects(pod, direction)]
