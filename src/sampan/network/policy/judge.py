"""The meaning of NetworkPolicy v1, said as plainly as it can be: the reference that the rules of a
kernel are held against. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from sampan.network.policy.model import EGRESS, INGRESS, Block, Pod, Policy, Rule, View


class Flow(NamedTuple):
    """The first packet of a connection, with its real ends. protocol: tcp, udp, sctp, or another
    one without ports."""

    source: str
    destination: str
    protocol: str
    port: int = 0


def allows(view: View, flow: Flow) -> bool:
    """Whether the connection is made, wherever its ends are. Ends on the pod's own node are for
    the caller to let pass."""
    by_ip = {ip: p for p in view.pods for ip in p.ips}
    if flow.source == flow.destination:
        return True
    source, destination = by_ip.get(flow.source), by_ip.get(flow.destination)
    if source is not None:
        policies = view.selecting(source, EGRESS)
        if policies and not lets_out(policies, flow, destination, view.namespaces):
            return False
    if destination is not None:
        policies = view.selecting(destination, INGRESS)
        if policies:
            rules = (r for p in policies for r in p.ingress)
            return _any(rules, flow, flow.source, source, destination, view.namespaces)
    return True


def lets_out(
    policies: Iterable[Policy], flow: Flow, destination: Pod | None,
    namespaces: Mapping[str, Mapping[str, str]],
) -> bool:  # fmt: skip
    """Whether *policies*, which isolate the source, let it out."""
    rules = (r for p in policies for r in p.egress)
    return _any(rules, flow, flow.destination, destination, destination, namespaces)


def _any(
    rules: Iterable[Rule], flow: Flow, peer_ip: str, peer: Pod | None, target: Pod | None,
    namespaces: Mapping[str, Mapping[str, str]],
) -> bool:  # fmt: skip
    return any(
        _is_peer(rule, peer_ip, peer, namespaces) and _is_port(rule, flow, target)
        for rule in rules
    )  # fmt: skip


def _is_peer(
    rule: Rule, ip: str, pod: Pod | None, namespaces: Mapping[str, Mapping[str, str]]
) -> bool:
    if rule.peers is None:
        return True
    for peer in rule.peers:
        if isinstance(peer, Block):
            if peer.holds(ip):
                return True
        elif pod is not None and peer.holds(pod, namespaces):
            return True
    return False


def _is_port(rule: Rule, flow: Flow, target: Pod | None) -> bool:
    if rule.ports is None:
        return True
    for port in rule.ports:
        if port.protocol != flow.protocol:
            continue
        if port.name:
            if target is not None and flow.port in target.numbers(port.name, port.protocol):
                return True
        elif port.low <= flow.port <= port.high:
            return True
    return False
