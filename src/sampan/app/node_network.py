"""What runs inside each node's network: composed here, one line a part."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Protocol

from sampan.api.call import User
from sampan.app.control_plane import ControlPlane, controller_user
from sampan.client.cache import Caches
from sampan.control.events import Recorder
from sampan.network.dns.config import nameservers
from sampan.network.dns.service import ClusterDns
from sampan.network.outside import Outside
from sampan.network.policy.enforcer import Enforcer, NodePolicies
from sampan.network.policy.model import NamedPort, Pod
from sampan.network.policy.rules import Alias
from sampan.network.policy.rules import Facts as PolicyFacts
from sampan.network.proxy import NodeRules, Proxy
from sampan.network.rules import Facts
from sampan.node.runtime.native.nodes import (
    API_ADDRESS,
    DNS_ADDRESS,
    DNS_ENDPOINT,
    GATEWAY,
    PODS,
    SERVICE_ADDRESS,
    SERVICES,
    Space,
    node_address,
    route_to_rules,
)

PROXY = User("system:kube-proxy", ("system:authenticated",))
# Reverse names of pods, services and nodes: nobody outside knows them.
_NETWORKS = (PODS, SERVICES, "10.44.0.0/16")


class Part(Protocol):
    """Something that serves or guards a node's network as long as the process lives."""

    async def start(self) -> None:
        """Returns once it does its work."""
        ...

    async def stop(self) -> None:
        """Let go; what the kernel holds (rules, addresses) stays for the next process."""
        ...


class NodeNetwork:
    """All parts on all nodes. address: the cluster's own, on the host. resolv_conf: what the host's
    says, where nodes have a way out: names of others are asked there; '' where they have none."""

    def __init__(
        self, plane: ControlPlane, spaces: Sequence[Space], *, address: str, resolv_conf: str = ""
    ) -> None:
        self._spaces = {s.name: s for s in spaces}
        self.dns = ClusterDns(
            plane.client(controller_user("coredns")), spaces, (DNS_ADDRESS, DNS_ENDPOINT),
            clock=plane.clock, networks=_NETWORKS, upstreams=nameservers(resolv_conf),
        )  # fmt: skip
        self.policies = _policies(plane, spaces)
        self.proxy = _proxy(plane, self._spaces, address)
        self._parts: tuple[Part, ...] = (self.proxy, self.dns, self.policies)

    async def start(self) -> None:
        await asyncio.gather(*(p.start() for p in self._parts))

    async def add(self, space: Space) -> None:
        """A node that came later: guarded and served as the others. Raises NftError, OSError."""
        await self.policies.add(_node_policies(space))
        self._spaces[space.name] = space
        await asyncio.gather(self.proxy.add(_node_rules(space)), self.dns.add(space))

    async def remove(self, name: str) -> None:
        """A node that goes; before its space is closed."""
        space = self._spaces.pop(name)
        self.dns.remove(space)
        self.policies.remove(name)
        await self.proxy.remove(name)

    async def stop(self) -> None:
        await asyncio.gather(*(p.stop() for p in self._parts), return_exceptions=True)


def _node_rules(space: Space) -> NodeRules:
    own = frozenset((SERVICE_ADDRESS, DNS_ADDRESS))
    at = node_address(space.index)
    facts = Facts(space.name, (at,), masquerade=at, own=own)
    return NodeRules(space, facts, routes=lambda add, remove: route_to_rules(at, add, remove))


def _proxy(plane: ControlPlane, spaces: Mapping[str, Space], address: str) -> Proxy:
    """The Services of all nodes, and their way in from the host."""
    client = plane.client(PROXY)
    caches = Caches(client)
    recorder = Recorder(client, "kube-proxy", clock=plane.clock)

    def failed(owner: str, message: str) -> None:
        service = caches["services"].get(*owner.split("/"))
        if service is not None:
            recorder.emit(service.body, "Warning", "FailedToListen", message)

    rules = [_node_rules(s) for s in spaces.values()]
    outside = Outside(address=address, spaces=spaces, rng=plane.rng, failed=failed)
    return Proxy(caches, plane.engine.caches["pods"], rules, outside=outside, recorder=recorder)


# Cluster DNS as policies know it: by the labels its pods have elsewhere.
_DNS = Pod(
    "kube-system", "kube-dns", {"k8s-app": "kube-dns"}, (DNS_ENDPOINT,),
    ports=(NamedPort("dns", "udp", 53), NamedPort("dns-tcp", "tcp", 53)),
)  # fmt: skip
_ALIASES = (
    Alias(SERVICE_ADDRESS, "tcp", 443, API_ADDRESS, 6443),
    Alias(DNS_ADDRESS, "udp", 53, DNS_ENDPOINT, 53),
    Alias(DNS_ADDRESS, "tcp", 53, DNS_ENDPOINT, 53),
)


def _node_policies(space: Space) -> NodePolicies:
    facts = PolicyFacts(space.name, (node_address(space.index), GATEWAY), _ALIASES)
    return NodePolicies(space, facts)


def _policies(plane: ControlPlane, spaces: Sequence[Space]) -> Enforcer:
    nodes = [_node_policies(s) for s in spaces]
    client = plane.client(controller_user("network-policy-controller"))
    return Enforcer(client, nodes, served=(_DNS,))
