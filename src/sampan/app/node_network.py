"""What runs inside each node's network: composed here, one line a part."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Protocol

from sampan.api.call import User
from sampan.app.control_plane import ControlPlane, controller_user
from sampan.client.cache import Caches
from sampan.control.events import Recorder
from sampan.lib.addressing import IPV6, Plan
from sampan.network.dns.config import nameservers
from sampan.network.dns.service import ClusterDns
from sampan.network.outside import Outside
from sampan.network.policy.enforcer import Enforcer, NodePolicies
from sampan.network.policy.model import NamedPort, Pod
from sampan.network.policy.rules import Alias
from sampan.network.policy.rules import Facts as PolicyFacts
from sampan.network.proxy import NodeRules, Proxy
from sampan.network.rules import Facts
from sampan.node.runtime.native.nodes import Space, route_to_rules

PROXY = User("system:kube-proxy", ("system:authenticated",))


class Part(Protocol):
    """Something that serves or guards a node's network as long as the process lives."""

    async def start(self) -> None:
        """Returns once it does its work."""
        ...

    async def stop(self) -> None:
        """Let go; what the kernel holds (rules, addresses) stays for the next process."""
        ...


class NodeNetwork:
    """All parts on all nodes. plan: the cluster's addresses. address: its own, on the host.
    resolv_conf: what the host's says, where nodes have a way out: names of others are asked there;
    '' where they have none."""

    def __init__(
        self,
        plane: ControlPlane,
        spaces: Sequence[Space],
        plan: Plan,
        *,
        address: str,
        resolv_conf: str = "",
    ) -> None:
        self._spaces = {s.name: s for s in spaces}
        self._plan = plan
        self.dns = ClusterDns(
            plane.client(controller_user("coredns")), spaces, [a.dns for a in plan.of],
            [a.dns_end for a in plan.of], clock=plane.clock,
            # Reverse names of pods, services and nodes: nobody outside knows them.
            networks=[n for a in plan.of for n in (a.pods, a.services, a.nodes)],
            upstreams=nameservers(resolv_conf),
        )  # fmt: skip
        self.policies = _policies(plane, spaces, plan)
        self.proxy = _proxy(plane, self._spaces, plan, address)
        self._parts: tuple[Part, ...] = (self.proxy, self.dns, self.policies)

    async def start(self) -> None:
        await asyncio.gather(*(p.start() for p in self._parts))

    async def add(self, space: Space) -> None:
        """A node that came later: guarded and served as the others. Raises NftError, OSError."""
        await self.policies.add(_node_policies(space, self._plan))
        self._spaces[space.name] = space
        rules = _node_rules(space, self._plan)
        await asyncio.gather(*(self.proxy.add(r) for r in rules), self.dns.add(space))

    async def remove(self, name: str) -> None:
        """A node that goes; before its space is closed."""
        space = self._spaces.pop(name)
        self.dns.remove(space)
        self.policies.remove(name)
        await self.proxy.remove(name)

    async def stop(self) -> None:
        await asyncio.gather(*(p.stop() for p in self._parts), return_exceptions=True)


def _node_rules(space: Space, plan: Plan) -> list[NodeRules]:
    """Of each family; the first answers health checks in all."""
    every = "::" if IPV6 in plan.families else "0.0.0.0"
    made: list[NodeRules] = []
    for a in plan.of:
        own = frozenset((a.dns, a.api) if a is plan.primary else (a.dns,))
        at = a.node(space.index)
        facts = Facts(space.name, (at,), masquerade=at, own=own, pods=a.pods, services=a.services)
        routes = partial(route_to_rules, at)
        made.append(NodeRules(space, facts, routes=routes, every="" if made else every))
    return made


def _proxy(plane: ControlPlane, spaces: Mapping[str, Space], plan: Plan, address: str) -> Proxy:
    """The Services of all nodes, and their way in from the host."""
    client = plane.client(PROXY)
    caches = Caches(client)
    recorder = Recorder(client, "kube-proxy", clock=plane.clock)

    def failed(owner: str, message: str) -> None:
        service = caches["services"].get(*owner.split("/"))
        if service is not None:
            recorder.emit(service.body, "Warning", "FailedToListen", message)

    rules = [r for s in spaces.values() for r in _node_rules(s, plan)]
    outside = Outside(address=address, spaces=spaces, rng=plane.rng, failed=failed)
    return Proxy(caches, plane.engine.caches["pods"], rules, outside=outside, recorder=recorder,
                 families=plan.families)  # fmt: skip


def _node_policies(space: Space, plan: Plan) -> NodePolicies:
    aliases = [Alias(plan.primary.api, "tcp", 443, plan.primary.api_end, 6443)]
    aliases += [Alias(a.dns, p, 53, a.dns_end, 53) for a in plan.of for p in ("udp", "tcp")]
    own = tuple(ip for a in plan.of for ip in (a.node(space.index), a.gateway))
    return NodePolicies(space, PolicyFacts(space.name, own, tuple(aliases)))


def _policies(plane: ControlPlane, spaces: Sequence[Space], plan: Plan) -> Enforcer:
    """Cluster DNS is known to policies by the labels its pods have elsewhere."""
    dns = Pod(
        "kube-system", "kube-dns", {"k8s-app": "kube-dns"}, tuple(a.dns_end for a in plan.of),
        ports=(NamedPort("dns", "udp", 53), NamedPort("dns-tcp", "tcp", 53)),
    )  # fmt: skip
    nodes = [_node_policies(s, plan) for s in spaces]
    client = plane.client(controller_user("network-policy-controller"))
    return Enforcer(client, nodes, served=(dns,))
